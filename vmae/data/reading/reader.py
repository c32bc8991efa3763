"""Clips from video files: decord opens the file, a sampler picks frames, the frames are resized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import decord
import numpy as np
import torch
import torch.nn.functional as F

from vmae.data.reading.frame_folders import frame_paths, read_images
from vmae.data.sets.videos import Video

#: Given the number of frames of a video, the indices of those to read.
FrameSelector = Callable[[int], np.ndarray]


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


def read_frames(video: str | Path | Video, choose: FrameSelector | None = None) -> np.ndarray:
    """The chosen frames (all, by default) of a video, (T, H, W, 3) uint8.

    video   a file, or a folder of images; as a Video of a list, the images that the list says

    Raises VideoError, also where the file opens but a frame cannot be decoded.
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
