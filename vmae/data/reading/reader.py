"""Reading frames from video files. No other module knows that decord does the decoding."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

# decord gives up on an intact file if its decoding thread gets no CPU for 10240 polls, which happens
# on a busy machine. Damaged files still fail at once.
os.environ.setdefault("DECORD_EOF_RETRY_MAX", "102400")
import decord

from vmae.data.reading.frame_folders import frame_paths, read_images
from vmae.data.sets.videos import Video

#: Maps the number of frames in a video to the indices of the frames to read.
FrameSelector = Callable[[int], np.ndarray]


class VideoError(RuntimeError):
    """An unusable video; the message names the file and the reason."""


class VideoReader(Protocol):
    """An open video file. A class with these two methods can replace decord."""

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def frames(self, index: Sequence[int] | np.ndarray) -> np.ndarray:
        """The frames at these indices, in this order, (T, H, W, 3) uint8.

        Raises VideoError if one of them cannot be decoded.
        """
        ...


def open_video(path: str | Path) -> VideoReader:
    """Open a video file in the process that reads it; decoding uses one thread.

    Raises VideoError if the file is missing, empty, damaged, audio only, or not a video.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: the file does not exist")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    reader = _DecordReader(path)
    if len(reader) == 0:
        raise VideoError(f"{path}: the video contains no frames")
    return reader


#: Raised by decord on a file or a frame that it cannot decode.
_DECORD_ERRORS = (RuntimeError, decord.DECORDError, IndexError)


class _DecordReader(VideoReader):
    """A file opened by decord, decoded by one thread; errors become one-line VideoErrors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._reader = decord.VideoReader(str(path), num_threads=1)
        except _DECORD_ERRORS as error:
            raise VideoError(
                f"{path}: the file could not be opened as a video ({_reason(error)})"
            ) from None

    def __len__(self) -> int:
        return len(self._reader)

    def frames(self, index: Sequence[int] | np.ndarray) -> np.ndarray:
        try:
            return self._reader.get_batch(index).asnumpy()
        except _DECORD_ERRORS as error:
            raise VideoError(
                f"{self._path}: the video could not be decoded ({_reason(error)})"
            ) from None


def _reason(error: Exception) -> str:
    """The useful part of decord's long message."""
    text = str(error)
    for words, meaning in {
        "no video stream": "no video stream",
        "find video stream": "no video stream that decord can decode",
        "Error reading": "not a video file, or truncated before its index",
        "av_read_frame": "the file is truncated or corrupt",
        "avcodec_send_packet": "the file is corrupt",
    }.items():
        if words in text:
            return meaning
    if not text.strip():
        return type(error).__name__
    # [time] source.cc:line: [video]message
    line = text.strip().splitlines()[-1]
    return re.sub(r"^\[[\d:]+\] \S+:\d+: (\[[^\]]*\])?", "", line)[:120]


def read_frames(video: str | Path | Video, choose: FrameSelector | None = None) -> np.ndarray:
    """Read the chosen frames of a video, by default all of them: (T, H, W, 3) uint8.

    video   a file or a folder of images; a Video from a list may select a range of the images

    Raises VideoError, including when the file opens but a frame cannot be decoded.
    """
    if not isinstance(video, Video):
        video = Video(Path(video), -1)
    path = video.path
    if video.count is not None or path.is_dir():
        try:
            images = frame_paths(path, video.first, video.count)
            chosen = np.arange(len(images)) if choose is None else choose(len(images))
            return read_images([images[i] for i in chosen])
        except (ValueError, IndexError) as error:
            raise VideoError(f"{path}: {error}") from None
    reader = open_video(path)
    return reader.frames(np.arange(len(reader)) if choose is None else choose(len(reader)))


def resize_frames(frames: np.ndarray, short_side: int, squeeze: bool = False) -> np.ndarray:
    """Resize frames (T, H, W, 3) uint8 to a given short side, antialiased, keeping the aspect ratio.

    squeeze   to a square instead, whatever the aspect ratio
    """
    height, width = frames.shape[1:3]
    scale = short_side / min(height, width)
    size = (max(short_side, round(height * scale)), max(short_side, round(width * scale)))
    if squeeze:
        size = (short_side, short_side)
    if size == (height, width):
        return frames
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    out = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return out.permute(0, 2, 3, 1).contiguous().numpy()
