"""Videos of large or many frames, read by PyAV, which decodes no further than it is asked to.

decord decodes ahead in a thread of its own: the whole file, if the thread that asks for frames takes long
enough over them. Measured, that takes the memory of all its frames and up to 50 MB more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmae.data.reading.player import (
    Upright,
    VideoError,
    decoding,
    open_container,
    packet_times,
)


class LargeVideo:
    """An open file; its frames are those of `player.pictures`, in any order.

    A frame's number is the rank of its time among all. A seek leads to a key frame from which on no frame
    needs an earlier one, so what is read does not depend on what was read before. Raises VideoError if
    the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._show = Upright()
        packets = packet_times(path)
        self._count = len(packets)
        timed = [(time, key) for time, key in packets if time is not None]
        times = np.array([time for time, _ in timed], dtype=np.int64)
        self._times = np.unique(times)
        self._starts = np.zeros(1, dtype=np.int64)  # numbers of the frames that a seek may lead to
        if len(self._times) == len(packets):
            first_shown = np.minimum.accumulate(times[::-1])[::-1]  # of this packet and later ones
            closed = times[(times == first_shown) & np.array([key for _, key in timed])]
            self._starts = np.union1d(self._starts, np.searchsorted(self._times, closed))
        else:  # times are missing or occur twice: count from the start
            self._times = self._times[:0]
        self._open()
        if self._count:
            self._frame(0)  # its size is that of all

    def __len__(self) -> int:
        return self._count

    def frames(self, index: Sequence[int] | np.ndarray) -> np.ndarray:
        """The frames at these indices, in this order, (T, H, W, 3) uint8."""
        return np.stack([self._frame(int(i)) for i in index])

    def _open(self) -> None:
        self._container, self._stream = open_container(self._path)
        self._stream.codec_context.thread_count = 1
        self._decoded = self._container.decode(self._stream)
        self._next, self._last = 0, (-1, np.empty(0))

    def _frame(self, number: int) -> np.ndarray:
        if number == self._last[0]:
            return self._last[1]
        start = int(self._starts[np.searchsorted(self._starts, number, "right") - 1])
        with decoding(self._path):
            if number < self._next or start > self._next:
                self._seek(start)
            frame = self._decode_to(number)
            if frame is None and start:  # the file's index has led past it
                self._seek(0)
                frame = self._decode_to(number)
            if frame is None:
                raise VideoError(
                    f"{self._path}: frame {number} of {self._count} could not be decoded"
                )
            self._last = number, self._show(frame, self._stream, self._path)
        return self._last[1]

    def _decode_to(self, number: int) -> Any:
        """The frame of this number, if it comes; None if another one comes after those before it."""
        for frame in self._decoded:
            found = int(np.searchsorted(self._times, frame.pts)) if len(self._times) else self._next
            self._next = found + 1
            if found >= number:
                return frame if found == number else None
        return None

    def _seek(self, start: int) -> None:
        """Continue with the frame `start`."""
        if start == 0:
            self._container.close()
            self._open()
            return
        self._container.seek(int(self._times[start]), stream=self._stream)
        self._decoded, self._next = self._container.decode(self._stream), start
