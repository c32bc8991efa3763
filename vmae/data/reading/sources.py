"""Where clips come from: files decoded on the fly, a store, or a subset of another source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vmae.data.reading.reader import FrameSelector, read_frames, resize_frames
from vmae.data.sets.videos import Video


class Source(Protocol):
    """A source of clips: files, a store, or a store in device memory."""

    @property
    def videos(self) -> Sequence[Video]:
        """The videos, in index order."""
        ...

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames of a video, (T, H, W, 3) uint8."""
        ...


@dataclass
class VideoFiles:
    """Clips decoded from the files on every read, with a short side of `size`.

    short_side   resize it to this first, then cut it down to `size`; None: resize it to `size`
    squeeze      make frames square when they are resized, whatever their aspect ratio
    """

    videos: Sequence[Video]
    size: int
    short_side: int | None = None
    squeeze: bool = False

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames of a video, (T, H, W, 3) uint8."""
        return read_frames(self.videos[index], choose, self._resized)

    def _resized(self, frames: np.ndarray) -> np.ndarray:
        frames = resize_frames(frames, self.short_side or self.size, self.squeeze)
        height, width = frames.shape[1:3]
        start = (min(height, width) - self.size) // 2
        middle = slice(start, start + self.size)
        return frames[:, :, middle] if width < height else frames[:, middle]


class Subset:
    """Some videos of a source, given by their indices there."""

    def __init__(self, source: Source, chosen: Sequence[int]) -> None:
        self.source, self.chosen = source, chosen
        self.videos = [source.videos[i] for i in chosen]

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames of a video, (T, H, W, 3) uint8."""
        return self.source.read(self.chosen[index], choose)


def unwrap_subset(source: Source) -> tuple[Source, np.ndarray]:
    """The source behind any subsets, and the indices of this source's videos in it."""
    chosen = np.arange(len(source.videos))
    while isinstance(source, Subset):
        chosen = np.asarray(source.chosen, dtype=np.int64)[chosen]
        source = source.source
    return source, chosen
