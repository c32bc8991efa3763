"""Where clips come from: files decoded each time, a store, or some videos of another source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vmae.data.reading.reader import FrameSelector, read_frames, resize_frames
from vmae.data.sets.videos import Video


class Source(Protocol):
    """Where clips come from: files, a store, or a store in the device's memory."""

    @property
    def videos(self) -> Sequence[Video]:
        """What it holds, in the order of its numbers."""
        ...

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames of a video, (T, H, W, 3) uint8."""
        ...


@dataclass
class VideoFiles:
    """Clips decoded from the files each time, the short side resized to `size`."""

    videos: Sequence[Video]
    size: int

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames of a video, (T, H, W, 3) uint8."""
        return resize_frames(read_frames(self.videos[index], choose), self.size)


class Subset:
    """Some videos of a source, by their numbers there."""

    def __init__(self, source: Source, chosen: Sequence[int]) -> None:
        self.source, self.chosen = source, chosen
        self.videos = [source.videos[i] for i in chosen]

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames of a video, (T, H, W, 3) uint8."""
        return self.source.read(self.chosen[index], choose)


def unwrap_subset(source: Source) -> tuple[Source, np.ndarray]:
    """What a source is a subset of, itself if it is none, and the numbers of its videos there."""
    chosen = np.arange(len(source.videos))
    while isinstance(source, Subset):
        chosen = np.asarray(source.chosen, dtype=np.int64)[chosen]
        source = source.source
    return source, chosen
