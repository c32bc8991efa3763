"""The sets that `vmae render` makes, described: levels, classes, sizes, names.

What a run or a plan has to know about such a set before it is rendered; `course/making` renders it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

#: Classes of the levels "digits" and "textures", in order of angle.
CLASSES = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
#: Classes of the level "scenes"; each even one and the next form a reversed pair.
SCENES = (
    "pan-left", "pan-right", "tilt-up", "tilt-down", "roll-left", "roll-right", "pass-left",
    "pass-right", "follow-left", "follow-right", "spin-left", "spin-right", "orbit-left",
    "orbit-right", "conveyor-up", "conveyor-down", "speed-up", "slow-down",
)  # fmt: skip
#: The classes of every level.
LEVELS = {"digits": CLASSES, "textures": CLASSES, "scenes": SCENES}


@dataclass(frozen=True)
class MotionSpec:
    """What to render. `train` and `test` are numbers of videos; `size` is in pixels.

    `speed`, used by the levels "digits" and "textures", is in frame widths per frame. Digits, photos
    and film shots in test videos are never used for training.
    """

    level: str = "digits"
    train: int = 16_000
    test: int = 2_000
    frames: int = 8
    size: int = 64
    speed: float = 1.5 / 16
    fps: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(
                f"unknown motion level {self.level!r}: choose one of {', '.join(LEVELS)}"
            )
        if self.size < 64 or self.size % 2:
            raise ValueError(f"size is {self.size}; it must be even and at least 64 pixels")
        if self.frames < 2 or min(self.train, self.test) < len(self.classes):
            raise ValueError(
                f"frames is {self.frames}, train is {self.train} and test is {self.test}; a "
                f"dataset needs at least 2 frames per video and {len(self.classes)} videos per split"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order."""
        return LEVELS[self.level]

    @property
    def opposites(self) -> tuple[int, ...]:
        """For each class, the class obtained by reversing its frames."""
        count = len(self.classes)
        if self.level == "scenes":
            return tuple(label ^ 1 for label in range(count))
        return tuple((label + count // 2) % count for label in range(count))


#: Named sizes: for tests (rendered in seconds), for two CPU cores (a minute), for a GPU.
SIZES = {
    "mini": MotionSpec(train=48, test=24, frames=16),
    "small": MotionSpec(),
    "full": MotionSpec(train=6_300, test=1_080, frames=24, size=112),
}


def with_sizes(spec: MotionSpec, **changes: Any) -> MotionSpec:
    """The spec with the given changes; None leaves a field unchanged."""
    return replace(spec, **{k: v for k, v in changes.items() if v is not None})


def set_name(level: str, size: str) -> str:
    """Folder name of a level at a named size: motion-small, motion-scenes-full."""
    return f"motion-{size}" if level == "digits" else f"motion-{level}-{size}"


def spec_named(name: str) -> MotionSpec | None:
    """The spec whose `set_name` this is; None for any other name."""
    for level in LEVELS:
        for size, spec in SIZES.items():
            if name == set_name(level, size):
                return replace(spec, level=level)
    return None
