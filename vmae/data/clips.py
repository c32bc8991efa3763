"""Clips from video files: decord opens the file, a sampler picks frames, the frames are resized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import decord
import numpy as np
import torch
import torch.nn.functional as F

#: Given the number of frames of a video, the indices of those to read.
Choose = Callable[[int], np.ndarray]


class VideoError(RuntimeError):
    """A video that cannot be used; the message names the file and the reason."""


def open_video(path: str | Path) -> decord.VideoReader:
    """Open a video with decord, one thread, in the process that reads it.

    Raises VideoError on a missing, empty, damaged or audio-only file, or one that is no video.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) == 0:
            raise VideoError(f"{path}: the video has no frames")
    except (RuntimeError, decord.DECORDError, IndexError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f"{path}: cannot be opened as a video ({_reason(error)})") from None
    return reader


def read_frames(path: str | Path, choose: Choose | None = None) -> np.ndarray:
    """The chosen frames (all, by default) of a video, (T, H, W, 3) uint8.

    Raises VideoError, also where the file opens but a frame cannot be decoded.
    """
    reader = open_video(path)
    index = np.arange(len(reader)) if choose is None else choose(len(reader))
    try:
        return reader.get_batch(index).asnumpy()
    except (RuntimeError, decord.DECORDError, IndexError) as error:
        raise VideoError(f"{path}: cannot be decoded ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """The one line of decord's long message that says something."""
    text = str(error)
    for word, meaning in {
        "no video stream": "no video stream",
        "find video stream": "no video stream in it that decord knows",
        "Error reading": "not a video file, or cut before its index",
        "av_read_frame": "the file is cut short or damaged",
        "avcodec_send_packet": "the file is damaged",
    }.items():
        if word in text:
            return meaning
    return text.strip().splitlines()[-1][:120] if text.strip() else type(error).__name__


def clip_span(frames: int, stride: int) -> int:
    """Frames of the video that a clip covers, first to last."""
    return (frames - 1) * stride + 1


def dense_indices(
    length: int, frames: int, stride: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """`frames` indices, `stride` apart: from a random start, or from the centre without `rng`.

    Raises VideoError where the video is shorter than the clip.
    """
    spare = length - clip_span(frames, stride)
    if spare < 0:
        raise VideoError(
            f"the video has {length} frames; a clip of {frames} with stride {stride} covers "
            f"{clip_span(frames, stride)}: use fewer frames or a smaller stride, or leave the video out"
        )
    start = spare // 2 if rng is None else int(rng.integers(spare + 1))
    return start + stride * np.arange(frames)


def resize_frames(frames: np.ndarray, short_side: int) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 with their short side resized, antialiased; the ratio is kept."""
    height, width = frames.shape[1:3]
    scale = short_side / min(height, width)
    if scale == 1:
        return frames
    size = (max(short_side, round(height * scale)), max(short_side, round(width * scale)))
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    out = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return out.permute(0, 2, 3, 1).contiguous().numpy()


def crop_square(frames: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """A square of the short side: at a random place along the long side, or the centre without `rng`."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    row, column = (height - side, width - side)
    row, column = (
        (row // 2, column // 2) if rng is None else tuple(rng.integers((row + 1, column + 1)))
    )
    return frames[:, row : row + side, column : column + side]
