"""What a run reads: the set, how clips are sampled, where decoded frames are kept."""

from __future__ import annotations

from dataclasses import dataclass

from vmae.config import Config, ConfigError


@dataclass(frozen=True)
class DataConfig(Config):
    """Which clips: a set's folder, and how frames are taken from a video.

    path       a set as `vmae render` writes it, or a folder with one sub-folder a class
    split      of a public set with several: 1, 2 or 3 of UCF101 and HMDB51; None: the first
    root       prefix of the paths in its lists, where the videos lie elsewhere
    stores     where decoded frames are kept
    sampling   "dense", "kinetics" or "tsn": see vmae.data.reading.sampling
    stride     frames of the video from one frame of the clip to the next
    short      what to do with a video shorter than a clip: "skip" it, or "repeat" its last frame
    store      decode every video once into a memory-mapped file, then read that
    on_device  keep the decoded training frames in the device's memory when they fit
    workers    processes that decode
    max_bad    share of unreadable videos at which the run stops
    """

    path: str = "data/motion-small"
    split: int | None = None
    root: str | None = None
    stores: str = "data/stores"
    sampling: str = "dense"
    stride: int = 1
    short: str = "skip"
    store: bool = True
    on_device: bool = False
    workers: int = 2
    max_bad: float = 0.05

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ConfigError(f"stride is {self.stride}; it must be 1 or more")
        if self.sampling not in ("dense", "kinetics", "tsn"):
            raise ConfigError(f"sampling is {self.sampling!r}; there are dense, kinetics, tsn")
        if self.short not in ("skip", "repeat"):
            raise ConfigError(f'short is {self.short!r}; it must be "skip" or "repeat"')
        if self.on_device and not self.store:
            raise ConfigError("on_device keeps the frames of a store: it needs store true")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"max_bad is {self.max_bad}; it is a share between 0 and 1")
