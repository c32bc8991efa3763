"""The data of a run: the set, how clips are sampled, where decoded frames are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmae.base_config import Config, ConfigError


@dataclass(frozen=True)
class DataConfig(Config):
    """The set to read, and how clips are taken from its videos."""

    path: str = "data/motion-small"
    """A set in any layout that `load_set` reads, such as a folder with one sub-folder per class."""
    split: Literal[None, 1, 2, 3] = None
    """The split of a public set that has several (UCF101, HMDB51); None means the first."""
    root: str | None = None
    """The folder of a list's videos, if they are not beside the list."""
    cache_dir: str = "data/stores"
    """Where decoded frames are stored."""
    sampling: Literal["dense", "kinetics", "tsn"] = "dense"
    """The sampling scheme: see vmae.data.reading.sampling."""
    stride: int = 1
    """Distance between neighbouring frames of a clip, in frames of the video."""
    clip_seconds: float | None = None
    """Seconds that a clip covers, for videos of different frame rates; None: `stride` decides."""
    short: Literal["skip", "repeat"] = "skip"
    """Skip videos shorter than a clip, or repeat their last frame."""
    cache: bool = True
    """Decode every video once into memory-mapped files, and read those."""
    cache_on_device: bool = False
    """Keep the decoded training frames in device memory if they fit."""
    num_workers: int = 2
    """Number of processes that decode."""
    max_unreadable: float = 0.05
    """The run stops if a larger share of the videos is unreadable; with a store, of one split's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("stride", 1)
        self.require("num_workers", 0)
        check_seconds(self.clip_seconds, self.stride, self.sampling)
        self.require("max_unreadable", 0, 1)
        if self.cache_on_device and not self.cache:
            raise ConfigError("cache_on_device is true, but cache is false: set both to true")


def check_seconds(seconds: float | None, stride: int, sampling: str) -> None:
    """Raise ConfigError if `clip_seconds` is not positive, or if something else spaces the frames."""
    if seconds is None:
        return
    if not seconds > 0:
        raise ConfigError(f"clip_seconds is {seconds}; it must be greater than 0")
    if stride != 1 or sampling != "dense":
        raise ConfigError(
            f"clip_seconds is {seconds}, but stride is {stride} and sampling is {sampling!r}: set "
            "stride to 1 and sampling to 'dense', or clip_seconds to null"
        )
