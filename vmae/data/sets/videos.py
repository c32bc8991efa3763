"""A set of videos and its classes, and the error raised for an unusable set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmae.support.files import printable
from vmae.support.text import first_lines


class SetError(ValueError):
    """An unusable set; the message names files and lines and says how to fix them.

    problems   all invalid lines; the message shows the first 50
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Video:
    """One video and its label, an index into the set's classes; -1 means unlabelled.

    path    a video file, or a folder of images
    first   for a folder: the number in the name of the first image
    count   for a folder: the number of images, numbered from `first`; None means all images
    """

    path: Path
    label: int
    first: int = 1
    count: int | None = None


@dataclass(frozen=True)
class VideoSet:
    """A set: its folder, class names, and videos for training and testing.

    val           videos of a third split, if there is one, for validation
    passed_over   files in class folders that are neither videos nor frames that can be read
    nested        sub-folders of class folders, which count as recordings but could be classes
    """

    folder: Path
    classes: tuple[str, ...]
    train: tuple[Video, ...]
    test: tuple[Video, ...]
    val: tuple[Video, ...] = field(default=(), kw_only=True)
    passed_over: tuple[Path, ...] = field(default=(), kw_only=True)
    nested: tuple[Path, ...] = field(default=(), kw_only=True)

    def split(self, name: str) -> tuple[Video, ...]:
        """The videos of the split "train", "val" or "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    @property
    def nested_by_class(self) -> dict[Path, list[str]]:
        """The names in `nested`, by class folder."""
        found: dict[Path, list[str]] = {}
        for path in self.nested:
            found.setdefault(path.parent, []).append(printable(path.name))
        return found

    @property
    def splits(self) -> dict[str, tuple[Video, ...]]:
        """The splits that have videos, by name."""
        return {name: self.split(name) for name in ("train", "val", "test") if self.split(name)}


def raise_problems(folder: Path, problems: Sequence[str]) -> None:
    """Raise SetError with all of `problems`, if there are any."""
    if problems:
        text = f"{folder}: {len(problems)} lines could not be used:"
        raise SetError("\n".join([text, *first_lines(problems, 50)]), problems)
