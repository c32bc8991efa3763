"""Which frames of a video form a clip: the published schemes, for training and for testing.

dense      frames exactly one stride apart, from a random start (V1 and V2 pre-training); with
           `seconds` instead of a stride, as many apart as the frame rate of each video asks for
kinetics   16 points over 16·stride frames, both ends included, so a stride of 4 becomes 4, 4, 4, 5
           (V1 and V2 fine-tuning on Kinetics, UCF101, HMDB51; `kinetics.py`)
tsn        one frame from each of 16 equal segments (Something-Something; `ssv2.py`)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from vmae.base_config import ConfigError
from vmae.data.config import DataConfig
from vmae.data.reading.player import VideoError, frame_rate
from vmae.data.sets.videos import Video
from vmae.inference import Inference


@dataclass(frozen=True)
class Sampling:
    """How clips of `num_frames` frames are taken from a video.

    stride    a whole number, or from `of_video` any number: frames are then the ones on screen
    short     "skip": a video shorter than a clip raises VideoError; "repeat": frames occur twice, as
              in the published code of each scheme
    seconds   that a clip covers, at any frame rate: `of_video` turns them into a stride
    """

    num_frames: int
    stride: float = 1
    scheme: str = "dense"
    short: str = "skip"
    seconds: float | None = None

    @classmethod
    def of(cls, config: DataConfig | Inference, num_frames: int) -> Sampling:
        """The sampling that a run's configuration states, or that a classifier was tested with."""
        return cls(num_frames, config.stride, config.sampling, config.short, config.clip_seconds)

    def of_video(self, video: Video) -> Sampling:
        """The same with the stride that the frame rate of a video makes of `seconds`.

        Raises VideoError if the rate is unknown, as for a folder of images.
        """
        if self.seconds is None:
            return self
        stride = frame_rate(video.path) * self.seconds / self.num_frames
        return dataclasses.replace(self, stride=stride, seconds=None)

    @property
    def span(self) -> int:
        """Frames that a video must have for one clip without repeated frames."""
        if self.scheme == "tsn":
            return self.num_frames
        if self.scheme == "kinetics":
            return int(self.num_frames * self.stride)
        return int((self.num_frames - 1) * self.stride) + 1

    @property
    def shortest(self) -> int:
        """Frames that a video must have."""
        return self.span if self.short == "skip" else 1

    def check(self, length: int) -> None:
        """Raise VideoError if the video is too short."""
        if length < self.shortest:
            raise VideoError(
                f"the video has {length} frames, but a clip of {self.num_frames} frames with "
                f"stride {self.stride:.3g} covers {self.span}: use fewer frames or a smaller stride, "
                'remove the video, or set short to "repeat"'
            )

    def train(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Frame indices (num_frames,) of a random clip."""
        self.check(length)
        if self.scheme == "tsn":
            return self._segments(length, rng)
        if self.scheme == "kinetics":
            if length < self.span:
                return self._padded(length)
            end = int(rng.integers(self.span, length)) if length > self.span else length
            return self._points(end - self.span, end)
        # The official code reserves num_frames·stride frames, one stride more than the clip covers.
        room = max(int(length - self.num_frames * self.stride), 0)
        return self._strided(int(rng.integers(room + 1)), length)

    def test(self, length: int, clips: int = 1) -> np.ndarray:
        """Frame indices (clips, num_frames), evenly spread over the video; a single clip is centred."""
        self.check(length)
        if self.scheme == "tsn":
            return self._segment_views(length, clips)
        if self.scheme == "kinetics":
            every = np.arange(0, length, self.stride)
            every = np.pad(every, (0, max(0, self.num_frames - len(every))), mode="edge")
            return every[
                _starts(len(every) - self.num_frames, clips)[:, None] + np.arange(self.num_frames)
            ]
        return np.stack([self._strided(s, length) for s in _starts(length - self.span, clips)])

    def _points(self, start: int, end: int) -> np.ndarray:
        """Evenly spaced points from start to end inclusive, then clipped to stay below the end."""
        points = np.linspace(start, end, self.num_frames)
        return np.clip(points, start, end - 1).astype(np.int64)

    def _strided(self, start: int, length: int) -> np.ndarray:
        """Every stride-th frame from `start`.

        With `short` "repeat" as in the published loop, which advances only while the next index is
        below the last frame's: a short video repeats the last frame that was sampled.
        """
        index = start + (self.stride * np.arange(self.num_frames)).astype(np.int64)
        if self.short == "skip":
            return index
        steps = max(length - 2 - start, 0) // self.stride
        return np.minimum(index, start + int(steps * self.stride))

    def _padded(self, length: int) -> np.ndarray:
        """Points over a short video, then its last frame repeated."""
        points = np.linspace(0, length, int(max(1, length // self.stride)))
        index = np.clip(points, 0, length - 1).astype(np.int64)[: self.num_frames]
        return np.pad(index, (0, self.num_frames - len(index)), constant_values=length - 1)

    def _segments(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """A random frame from each of `num_frames` equal segments."""
        size = length // self.num_frames
        if size == 0:  # fewer frames than segments: as in V2; V1 repeats frame 0 throughout
            return np.maximum(np.arange(length - self.num_frames, length), 0)
        return np.arange(self.num_frames) * size + rng.integers(size, size=self.num_frames)

    def _segment_views(self, length: int, clips: int) -> np.ndarray:
        """Clip k takes the point k / clips into each segment; a single clip takes the middle."""
        size = length / self.num_frames
        shifts = np.array([0.5]) if clips == 1 else np.arange(clips) / clips
        points = (np.arange(self.num_frames) + shifts[:, None]) * size
        return np.minimum(points.astype(np.int64), length - 1)


def _starts(room: int, clips: int) -> np.ndarray:
    """First frames of `clips` clips with `room` to move: one is centred, more go from end to end."""
    if clips < 1:
        raise ConfigError(f"clips is {clips}; it must be at least 1")
    if clips == 1:
        return np.array([max(room, 0) // 2])
    return (np.arange(clips) * (max(room, 0) / (clips - 1))).astype(np.int64)


def place_square(
    height: int,
    width: int,
    rng: np.random.Generator | None = None,
    crop: int = 0,
    crops: int = 1,
) -> tuple[int, int, int]:
    """A square with the short side of a frame: row and column of its corner, and its side.

    With `rng` the square is at a random position along the long side. Without it, the square is
    number `crop` of `crops` spread from end to end (a single one is centred), as published for testing.
    """
    side = min(height, width)
    room = height - side + width - side
    start = int(_starts(room, crops)[crop]) if rng is None else int(rng.integers(room + 1))
    return (start, 0, side) if height > width else (0, start, side)


def crop_square(
    frames: np.ndarray,
    rng: np.random.Generator | None = None,
    crop: int = 0,
    crops: int = 1,
) -> np.ndarray:
    """Crop frames (T, H, W, 3) to the square chosen by `place_square`."""
    height, width = frames.shape[1:3]
    row, column, side = place_square(height, width, rng, crop, crops)
    return frames[:, row : row + side, column : column + side]
