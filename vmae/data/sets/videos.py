"""A set of videos: its classes, its videos, and the error of one that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class SetError(ValueError):
    """A set that cannot be used; the message names the files and lines and the way out.

    problems   every wrong line; the message shows the first 50
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Video:
    """One video and its label, an index into the set's classes; -1 where it is not labelled.

    path    a video file, or a folder of images
    first   of a folder: the number in the name of the first image
    count   of a folder: how many images, numbered on from `first`; None: all there are
    """

    path: Path
    label: int
    first: int = 1
    count: int | None = None


@dataclass(frozen=True)
class VideoSet:
    """A set: where it lies, its class names, its videos for training and for testing."""

    folder: Path
    classes: tuple[str, ...]
    train: tuple[Video, ...]
    test: tuple[Video, ...]

    def split(self, name: str) -> tuple[Video, ...]:
        """The videos of "train" or "test"."""
        return {"train": self.train, "test": self.test}[name]


def raise_problems(folder: Path, problems: Sequence[str]) -> None:
    """Raise SetError with all of `problems`, if there are any."""
    if problems:
        shown = "\n  ".join(problems[:50])
        more = f"\n  and {len(problems) - 50} more" if len(problems) > 50 else ""
        text = f"{folder}: {len(problems)} lines cannot be used:\n  {shown}{more}"
        raise SetError(text, problems)
