"""Sets without lists, whose folders are the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmae.data.sets.formats import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    few,
)
from vmae.data.sets.videos import SetError, Video, VideoSet


def from_split(folder: Path) -> VideoSet:
    """The set in train/CLASS/ and test/CLASS/; raises SetError if a split is missing."""
    test = next((folder / n for n in ("test", "val", "validation") if (folder / n).is_dir()), None)
    if test is None:
        raise SetError(
            f"{folder} contains a train folder, but no test or val folder: add a test folder"
        )
    by_split = [_class_folders(folder / "train"), _class_folders(test)]
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
    return VideoSet(folder, classes, train, test_videos)


def from_classes(folder: Path) -> VideoSet:
    """The set in CLASS/; every fifth video of a class is used for testing."""
    inner = folder / "Dataset"  # BD Sports-10: the class folders in Dataset/, beside Annotation/
    by_class = _class_folders(inner if inner.is_dir() else folder)
    classes = tuple(by_class)
    _require_classes(folder, classes)
    train: list[Video] = []
    test: list[Video] = []
    for label, paths in enumerate(by_class.values()):
        for i, path in enumerate(paths):
            (test if i % 5 == 4 else train).append(Video(path, label))
    return VideoSet(folder, classes, tuple(train), tuple(test))


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """The sub-folders that contain videos, by name, each with its videos in order.

    If a sub-folder has no video files, its own sub-folders of images are its videos.
    """
    found = {}
    for sub in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        files = [path for path in sub.rglob("*") if path.name[0] != "."]
        videos = sorted(path for path in files if path.suffix.lower() in VIDEO_SUFFIXES)
        if not videos:
            images = {path.parent for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
            videos = sorted(images - {sub})
        if videos:
            found[sub.name] = videos
    return found


def _require_classes(folder: Path, classes: Sequence[str]) -> None:
    if not classes:
        raise SetError(
            f"{folder}: found no class folders with videos ({', '.join(VIDEO_SUFFIXES)}): use "
            "either one sub-folder per class, or train.csv, test.csv and classes.txt"
        )
