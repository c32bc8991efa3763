"""A video file as players show it, decoded from its start to its end by PyAV.

It is the reference for decord, which is faster, and the source of `vmae normalize`. Players take the
stream that FFmpeg calls best (not a cover picture or a preview), turn it upright, and scale every
frame to the size of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from vmae.support.files import printable

#: Pixels are taken as square if their width is at most this far from their height: 2 %.
_SQUARE = Fraction(1, 50)


class VideoError(RuntimeError):
    """An unusable video; the message names the file and the reason."""


def check_file(path: Path) -> None:
    """Raise VideoError if the file is missing or empty, or if decoders cannot be given its name."""
    name = printable(path)
    if name != str(path):
        raise VideoError(f"{name}: the file name is not valid UTF-8: rename the file")
    if not path.is_file():
        raise VideoError(f"{name}: the file does not exist")
    if path.stat().st_size == 0:
        raise VideoError(f"{name}: the file is empty")


def open_container(path: str | Path) -> tuple[Any, Any]:
    """A file opened by PyAV, which the caller closes, and its video stream that players show.

    Raises VideoError if the file cannot be opened, has no video, or has one of an unknown codec.
    """
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        invalid = isinstance(error, av.error.InvalidDataError)
        reason = "not a video file, or truncated before its index" if invalid else _words(error)
        raise VideoError(f"{path}: the file could not be opened as a video ({reason})") from None
    stream = container.streams.best("video")
    if stream is not None and stream.codec_context is not None:
        return container, stream
    container.close()
    if stream is None:
        raise VideoError(f"{path}: the file has no video stream")
    raise VideoError(f"{path}: the video uses an unknown codec")


@contextmanager
def decoding(path: str | Path) -> Iterator[None]:
    """Turn FFmpeg's errors into VideoErrors while the file is read."""
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: the video could not be decoded ({_words(error)})") from None


def _words(error: Exception) -> str:
    """What an error says, without the number and the file name that Python adds."""
    return getattr(error, "strerror", None) or str(error)


def packet_times(path: Path) -> list[tuple[int | None, bool]]:
    """For each packet of the video, as stored: when its frame is shown, and whether it is a key frame."""
    with decoding(path):
        container, stream = open_container(path)
        with container:
            return [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.size]


@dataclass(frozen=True)
class VideoInfo:
    """What a file states about its video, of the stream that players show.

    sizes    (width, height) of that stream, then of the others, cover pictures apart; if stated
    rate     frames per second, on average; None: not stated
    seconds  duration of the file; None: not stated
    aspect   width of a stored pixel over its height
    """

    codec: str
    sizes: tuple[tuple[int, int], ...]
    rate: Fraction | None
    seconds: float | None
    aspect: Fraction


def video_info(path: Path) -> VideoInfo:
    """What a file states, read once per version of it. Raises VideoError if it cannot be opened."""
    return _video_info(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _video_info(path: Path, _: int) -> VideoInfo:
    container, best = open_container(path)
    with decoding(path), container:
        others = [
            stream
            for stream in container.streams.video
            if stream.index != best.index and not stream.disposition & Disposition.attached_pic
        ]
        return VideoInfo(
            best.codec_context.codec.canonical_name,
            tuple((s.width, s.height) for s in (best, *others) if s.codec_context and s.width),
            best.average_rate or best.guessed_rate,
            container.duration / av.time_base if container.duration else None,
            pixel_aspect(best),
        )


def frame_rate(path: Path) -> float:
    """Frames per second of a video. Raises VideoError if the file cannot be opened or states none."""
    if path.is_dir():
        raise VideoError(
            f"{printable(path)}: a folder of images has no frame rate, so clip_seconds cannot be used: "
            "set stride instead"
        )
    check_file(path)
    rate = video_info(path).rate
    if not rate:
        raise VideoError(f"{path}: the file does not state its frame rate: run `vmae normalize`")
    return float(rate)


def pixel_aspect(stream: Any) -> Fraction:
    """Width of a stored pixel over its height; 1 if it is nearly square, unknown or absurd."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    odd = abs(aspect - 1) > _SQUARE and Fraction(1, 4) <= aspect <= 4
    return aspect if odd else Fraction(1)


class Upright:
    """Makes pictures (H, W, 3) uint8 of decoded frames, upright and of the size of the first one.

    square   make non-square pixels square by changing the width; otherwise they are left as stored

    HDR (HLG, PQ) is converted by its colour matrix, without tone mapping.
    """

    def __init__(self, square: bool = False) -> None:
        self._square, self._size, self._matrix = square, (0, 0), (1, 0, 0, 1)
        self._reformat = VideoReformatter().reformat  # one for all: each prepares its tables once

    def __call__(self, frame: Any, stream: Any, path: str | Path) -> np.ndarray:
        """The picture; raises VideoError if the frame is corrupt or turned by another angle than 90°."""
        if frame.is_corrupt:
            raise VideoError(f"{path}: the video contains a corrupt frame")
        if not self._size[0]:
            aspect = pixel_aspect(stream) if self._square else 1
            self._size = max(1, round(frame.width * aspect)), frame.height
            # Only here: a frame whose side data was read stays in memory for a while.
            self._matrix = _matrix(frame)
        width, height = self._size
        # One thread: several would wait for each other more than they work.
        frame = self._reformat(frame, width, height, "rgb24", threads=1)
        return upright(frame.to_ndarray(), self._matrix)


def pictures(
    path: str | Path, square: bool = False, sizes: set[tuple[int, int]] | None = None
) -> Iterator[np.ndarray]:
    """All frames of a video in order, made by `Upright`.

    sizes    receives every (width, height) at which frames are stored

    Raises VideoError if the file cannot be decoded to its end.
    """
    show = Upright(square)
    with decoding(path):
        container, stream = open_container(path)
        with container:
            for frame in container.decode(stream):
                if sizes is not None:
                    sizes.add((frame.width, frame.height))
                yield show(frame, stream, path)


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """Entries a, b, c, d of the display matrix; the identity if the frame has none."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(data), dtype=np.int32)[[0, 1, 3, 4]]
            if (values % 65536).any():
                raise VideoError(
                    "the video's display matrix is not a rotation by a multiple of 90 degrees"
                )
            a, b, c, d = (int(v) >> 16 for v in values)
            return a, b, c, d
    return 1, 0, 0, 1


def upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Rotate and mirror a frame (H, W, 3) by its display matrix: x' = ax + cy, y' = bx + dy.

    Raises VideoError unless the matrix is a quarter turn or a mirror: others need interpolation.
    """
    a, b, c, d = matrix
    if abs(a) == abs(d) == 1 and b == c == 0:
        across, down = a, d
    elif abs(b) == abs(c) == 1 and a == d == 0:
        picture, across, down = picture.transpose(1, 0, 2), c, b
    else:
        raise VideoError(
            f"the display matrix {matrix} is not a rotation by a multiple of 90 degrees"
        )
    return np.ascontiguousarray(picture[::down, ::across])
