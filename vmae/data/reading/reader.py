"""Reading frames from video files. No other module knows which library does the decoding."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

# decord gives up on an intact file if its decoding thread gets no CPU for 10240 polls, which happens
# on a busy machine. Damaged files still fail at once.
os.environ.setdefault("DECORD_EOF_RETRY_MAX", "102400")
import decord

from vmae.data.reading.frame_folders import ImageFolder
from vmae.data.reading.large import LargeVideo
from vmae.data.reading.player import VideoError, check_file, video_info
from vmae.data.sets.videos import Video

# What FFmpeg would print about a damaged file, a line for each block, says less than our errors.
decord.logging.set_level(decord.logging.QUIET)

#: Maps the number of frames in a video to the indices of the frames to read.
FrameSelector = Callable[[int], np.ndarray]

#: Bytes of decoded frames held in memory at once, before they are resized. Frames of more bytes than
#: LARGE are read one by one.
PIECE, LARGE = 16 << 20, 1 << 20
#: A video of such frames, or of more than AHEAD bytes of frames, is not read by decord: see
#: vmae.data.reading.large. So little memory is enough for any video (tests/data/test_reading_memory.py).
AHEAD = 200 << 20

#: Frames of these widths cannot be read by decord: it takes their padded rows for a fourth channel.
UNREADABLE_WIDTHS = (2, 4, 6, 8, 12, 16, 24, 48, 72)


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

    Raises VideoError if the file is missing, empty, damaged, audio only, or not a video, if its name
    is not UTF-8, or if decord would not read the stream that players show.
    """
    path = Path(path)
    check_file(path)
    sizes = video_info(path).sizes  # raises before decord could print a line about a bad file
    frame = 3 * sizes[0][0] * sizes[0][1] if sizes else 0
    reader: VideoReader = LargeVideo(path) if frame > LARGE else _DecordReader(path)
    if frame <= LARGE and len(reader) * frame > AHEAD:  # decord has counted, but not decoded
        reader = LargeVideo(path)
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
        sizes = video_info(path).sizes
        if len(sizes) > 1:  # decord has no option for the stream: its size shows which one it reads
            height, width = self.frames([0]).shape[1:3]
            if sizes.count(sizes[0]) > 1 or {height, width} != set(sizes[0]):
                raise VideoError(
                    f"{path}: the file has {len(sizes)} video streams, and decord may not read the "
                    "one that players show: run `vmae normalize`"
                )

    def __len__(self) -> int:
        return len(self._reader)

    def frames(self, index: Sequence[int] | np.ndarray) -> np.ndarray:
        try:
            return self._reader.get_batch(index).asnumpy()
        except _DECORD_ERRORS as error:
            raise VideoError(
                f"{self._path}: the video could not be decoded ({_reason(error)})"
            ) from None


def _per_piece(pixels: int) -> int:
    """How many frames of this many pixels are read at once."""
    return 1 if 3 * pixels > LARGE else PIECE // (3 * pixels)


def _reason(error: Exception) -> str:
    """The useful part of decord's long message."""
    text = str(error)
    for words, meaning in {
        "no video stream": "no video stream",
        "find video stream": "no video stream that decord can decode",
        "Error reading": "not a video file, or truncated before its index",
        "av_read_frame": "the file is truncated or corrupt",
        "avcodec_send_packet": "the file is corrupt",
        "DECORD_REWIND_RETRY_MAX": "decord cannot read it to its end: run `vmae normalize`",
        "from_size == to_size": "decord cannot read frames of this width: run `vmae normalize`",
    }.items():
        if words in text:
            return meaning
    if not text.strip():
        return type(error).__name__
    # [time] source.cc:line: [video]message
    line = text.strip().splitlines()[-1]
    return re.sub(r"^\[[\d:]+\] \S+:\d+: (\[[^\]]*\])?", "", line)[:120]


def frame_pieces(
    video: str | Path | Video, choose: FrameSelector | None = None
) -> Iterator[np.ndarray]:
    """Read the chosen frames of a video, by default all of them, in pieces of at most PIECE bytes.

    video   a file or a folder of images; a Video from a list may select a range of the images

    A piece is (T, H, W, 3) uint8 and has at least one frame, unless none is chosen. Raises
    VideoError, including when the file opens but a frame cannot be decoded.
    """
    if not isinstance(video, Video):
        video = Video(Path(video), -1)
    is_folder = video.count is not None or video.path.is_dir()
    reader: VideoReader = (
        ImageFolder(video.path, video.first, video.count) if is_folder else open_video(video.path)
    )
    index = np.arange(len(reader)) if choose is None else choose(len(reader))
    # A file's stream says how many frames make a piece; otherwise the first frame shows it.
    sizes = () if is_folder else video_info(video.path).sizes
    first, size = 0, _per_piece(sizes[0][0] * sizes[0][1]) if sizes else 1
    while True:
        frames = reader.frames(index[first : first + size])
        yield frames
        first += size
        if first >= len(index):
            return
        size = _per_piece(frames[0].nbytes // 3)


def read_frames(
    video: str | Path | Video,
    choose: FrameSelector | None = None,
    change: Callable[[np.ndarray], np.ndarray] = lambda frames: frames,
) -> np.ndarray:
    """The frames of `frame_pieces` in one array (T, H, W, 3) uint8, in the order chosen.

    change   applied to each piece as soon as it is decoded, such as a resize that saves memory

    Each frame is decoded once, in ascending order, so that decord seeks as little as possible.
    """
    order = np.empty(0, dtype=np.int64)

    def ascending(length: int) -> np.ndarray:
        nonlocal order
        index, order = np.unique(
            choose(length) if choose else np.arange(length), return_inverse=True
        )
        return index

    frames, first = np.empty(0, dtype=np.uint8), 0
    for piece in frame_pieces(video, ascending):
        piece = change(piece)
        if first == 0:  # one array from the start: pieces kept for later would fragment the memory
            frames = np.empty((max(order, default=-1) + 1, *piece.shape[1:]), dtype=np.uint8)
        frames[first : first + len(piece)] = piece
        first += len(piece)
    return frames if np.array_equal(order, np.arange(len(frames))) else frames[order]


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
