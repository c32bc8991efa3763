"""What a run reads: the set, how clips are sampled, where decoded frames are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmae.config import Config, ConfigError


@dataclass(frozen=True)
class DataConfig(Config):
    """Which clips: a set's folder, and how frames are taken from a video."""

    path: str = "data/motion-small"
    """A set in any layout that `load_set` reads, such as a folder with one sub-folder per class."""
    split: Literal[None, 1, 2, 3] = None
    """Of a public set with several (UCF101, HMDB51); None: the first."""
    root: str | None = None
    """Where the videos of a list lie, if not beside the list."""
    cache_dir: str = "data/stores"
    """Where decoded frames are kept."""
    sampling: Literal["dense", "kinetics", "tsn"] = "dense"
    """The scheme: see vmae.data.reading.sampling."""
    stride: int = 1
    """Frames of the video from one frame of the clip to the next."""
    short: Literal["skip", "repeat"] = "skip"
    """Skip a video that is shorter than a clip, or repeat its last frame."""
    cache: bool = True
    """Decode every video once into memory-mapped files, then read those."""
    cache_on_device: bool = False
    """Keep the decoded training frames in the device's memory where they fit."""
    num_workers: int = 2
    """Processes that decode."""
    max_unreadable: float = 0.05
    """Share of unreadable videos above which the run stops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride < 1:
            raise ConfigError(f"stride is {self.stride}; it must be 1 or more")
        if self.cache_on_device and not self.cache:
            raise ConfigError("cache_on_device is true, but cache is false: set cache to true")
        if not 0 <= self.max_unreadable <= 1:
            raise ConfigError(f"max_unreadable is {self.max_unreadable}; it must be in [0, 1]")
