"""Sets without lists, whose folders are the classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmae.data.sets.formats import (
    FOREIGN_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    few,
)
from vmae.data.sets.videos import SetError, Video, VideoSet
from vmae.support.files import printable


def from_split(folder: Path, foreign: bool) -> VideoSet:
    """The set in train/CLASS/ and test/CLASS/; raises SetError if a split is missing."""
    test = next((folder / n for n in ("test", "val", "validation") if (folder / n).is_dir()), None)
    if test is None:
        raise SetError(
            f"{folder} contains a train folder, but no test or val folder: add a test folder"
        )
    passed: list[Path] = []
    by_split = [_class_folders(place, foreign, passed) for place in (folder / "train", test)]
    classes = tuple(by_split[0])
    unknown = sorted(set(by_split[1]) - set(classes))
    if unknown:
        raise SetError(
            f"{test}: classes {few(unknown)} are not in {folder / 'train'}: add training videos "
            f"for these classes, or remove the classes from {test.name}"
        )
    _require_classes(folder, classes)
    train, test_videos = (
        tuple(Video(path, classes.index(name)) for name, paths in split.items() for path in paths)
        for split in by_split
    )
    return VideoSet(folder, classes, train, test_videos, passed_over=tuple(passed))


def from_classes(folder: Path, foreign: bool) -> VideoSet:
    """The set in CLASS/; every fifth video of a class is used for testing."""
    inner = folder / "Dataset"  # BD Sports-10: the class folders in Dataset/, beside Annotation/
    passed: list[Path] = []
    by_class = _class_folders(inner if inner.is_dir() else folder, foreign, passed)
    classes = tuple(by_class)
    _require_classes(folder, classes)
    train: list[Video] = []
    test: list[Video] = []
    for label, paths in enumerate(by_class.values()):
        for i, path in enumerate(paths):
            (test if i % 5 == 4 else train).append(Video(path, label))
    return VideoSet(folder, classes, tuple(train), tuple(test), passed_over=tuple(passed))


def _class_folders(folder: Path, foreign: bool, passed: list[Path]) -> dict[str, list[Path]]:
    """The sub-folders that contain videos, by name, each with its videos in order.

    If a sub-folder has no video files, its own sub-folders of images are its videos.

    foreign   take also videos that decord does not read exactly
    passed    receives every other file, except those whose name begins with a dot
    """
    suffixes = VIDEO_SUFFIXES + FOREIGN_SUFFIXES * foreign
    found = {}
    for sub in sorted(path for path in folder.iterdir() if path.name[0] != "."):
        if not sub.is_dir():
            passed.append(sub)
            continue
        files = sorted(path for path in walk(sub) if path.name[0] != ".")
        videos = used = [path for path in files if path.suffix.lower() in suffixes]
        if not videos:
            used = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES and p.parent != sub]
            videos = sorted({path.parent for path in used})
        if videos:
            found[printable(sub.name)] = videos
        passed += sorted(set(files) - set(used))
    return found


def walk(folder: Path, above: Sequence[str] | None = None) -> Iterator[Path]:
    """Every file below a folder. Links to folders are followed, except to one that they are in."""
    real = os.path.realpath(folder)
    above = [str(path) for path in Path(real).parents] if above is None else above
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from walk(path, [*above, real])
        else:
            yield path


def _require_classes(folder: Path, classes: Sequence[str]) -> None:
    if not classes:
        raise SetError(
            f"{folder}: found no class folders with videos ({', '.join(VIDEO_SUFFIXES)}): use "
            "either one sub-folder per class, or train.csv, test.csv and classes.txt"
        )
