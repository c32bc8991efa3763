"""Which videos, with which labels: a set's class list and its train and test lists.

`load_set` tells the layout from what lies in the folder, in this order:

- a list file   given itself, not its folder: a pre-training list, every video unlabelled (-1)
- public sets   UCF101, HMDB51, Something-Something V2, Kinetics, as published: see public_sets.py
- lists         train.csv and test.csv (or val.csv), as VideoMAE V1 and V2 write them, and
                classes.txt (one name a line); without it classes are called by their numbers
- split         train/CLASS/*.mp4 and test/CLASS/*.mp4 (or val/, validation/)
- classes       CLASS/*.mp4; every fifth video of a class is for testing

A row is `video label`, or `frame_folder total_frames label`. In a pre-training list it is
`video 0 -1`, `frame_folder start total_frames`, `video label` (the label is not used) or `video`.
Paths are relative to the list, or to `root` (V2's --data_root), or absolute. A label is a number or
a class name. A video that is not there is no error here: whoever reads it names it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmae.data.formats import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Row,
    few,
    labelled_row,
    place,
    read_lines,
    read_text,
    unlabelled_row,
)


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


def load_set(
    folder: str | Path, split: int | None = None, root: str | Path | None = None
) -> VideoSet:
    """Read a set in any of the layouts above.

    split   of UCF101 and HMDB51, which have three: 1 (the default), 2 or 3
    root    where the videos lie, if not beside the lists

    Raises SetError where there is no set, with every line that is wrong, or where a class is in the
    test list only. Warns of videos that are both in training and in testing. Whether the videos can
    be read is found out when they are read.
    """
    from vmae.data.public_sets import load_public  # here, for it makes VideoSets of this module

    folder = Path(folder)
    if folder.is_file():
        return _from_pretraining_list(folder, root)
    if not folder.is_dir():
        raise SetError(
            f"{folder}: there is no such folder or list: `vmae render` makes the sets motion and "
            "film; data/README.md says how sets of other videos are laid out"
        )
    if (folder / "set.partial.json").exists():
        raise SetError(
            f"{folder}: making this set was interrupted; run the same `vmae render` or "
            "`vmae normalize` again"
        )
    found = load_public(folder, split, Path(root) if root is not None else None)
    if found is None:
        if split is not None:
            raise SetError(f"{folder}: split={split} is for UCF101 and HMDB51; leave it out here")
        if (folder / "train.csv").exists():
            found = _from_lists(folder, root)
        elif root is not None:
            raise SetError(f"{folder}: root={str(root)!r} is for lists, and there is no train.csv")
        else:
            found = _from_split(folder) if (folder / "train").is_dir() else _from_classes(folder)
    _check(found)
    return found


def require_labels(videos: VideoSet) -> VideoSet:
    """The set itself, where it can be trained on and tested with labels; else raises SetError.

    It takes two classes and videos to test on: pre-training is content without.
    """
    missing = sum(video.label < 0 for video in videos.train + videos.test)
    if missing or not videos.classes:
        raise SetError(
            f"{videos.folder}: {missing} videos have no label (-1), {len(videos.test)} are for "
            "testing: a pre-training list serves pre-training only; to fine-tune give a folder with "
            "train.csv, test.csv and classes.txt, or with one sub-folder a class"
        )
    if len(videos.classes) < 2:
        raise SetError(
            f"{videos.folder}: the set has {len(videos.classes)} classes ({few(videos.classes)}); "
            "a classifier needs 2 or more: one sub-folder a class, or train.csv, test.csv and "
            "classes.txt"
        )
    if not videos.test:
        raise SetError(
            f"{videos.folder}: no class has 5 videos, so none is left for testing: add videos"
        )
    return videos


def _check(videos: VideoSet) -> None:
    """What no layout may have: a class of testing only (an error), a leak (a warning)."""
    if not videos.train:
        raise SetError(f"{videos.folder}: no video is for training")
    unseen = sorted({v.label for v in videos.test} - {v.label for v in videos.train})
    if unseen:
        raise SetError(
            f"{videos.folder}: classes {few([videos.classes[i] for i in unseen])} are in the test "
            "list only: add training videos of them, or take them out of the test list"
        )
    trained = {(str(video.path), video.first) for video in videos.train}
    leaked = [str(v.path) for v in videos.test if (str(v.path), v.first) in trained]
    if leaked:
        warnings.warn(
            f"{videos.folder}: {len(leaked)} videos are both for training and for testing, so the "
            f"test will look better than it is: {few(leaked)}",
            stacklevel=3,
        )


def raise_problems(folder: Path, problems: Sequence[str]) -> None:
    """Raise SetError with all of `problems`, if there are any."""
    if problems:
        shown = "\n  ".join(problems[:50])
        more = f"\n  and {len(problems) - 50} more" if len(problems) > 50 else ""
        text = f"{folder}: {len(problems)} lines cannot be used:\n  {shown}{more}"
        raise SetError(text, problems)


def _from_lists(folder: Path, root: str | Path | None) -> VideoSet:
    test_list = next((folder / n for n in ("test.csv", "val.csv") if (folder / n).exists()), None)
    if test_list is None:
        raise SetError(
            f"{folder}: there is a train.csv, but neither test.csv nor val.csv; to pre-train only, "
            f"give the list itself: {folder / 'train.csv'}"
        )
    problems: list[str] = []
    names = folder / "classes.txt"
    classes: tuple[str, ...] | None = None
    if names.exists():
        lines = read_text(names, problems).splitlines()
        raise_problems(folder, problems)
        classes = tuple(line.strip() for line in lines)
        classes = classes[: max((i + 1 for i, name in enumerate(classes) if name), default=0)]
    train, test = (
        read_list(path, classes, problems, root) for path in (folder / "train.csv", test_list)
    )
    raise_problems(folder, problems)
    if classes is None:
        present = {video.label for video in train + test}
        if 2 * len(present) <= max(present):
            raise SetError(
                f"{folder}: labels run to {max(present)}, but only {len(present)} different ones "
                "occur: number the classes 0, 1, 2, ..., or write classes.txt, one name a line"
            )
        classes = tuple(map(str, range(max(present) + 1)))
    return VideoSet(folder, classes, tuple(train), tuple(test))


def read_list(
    path: Path,
    classes: Sequence[str] | None,
    problems: list[str],
    root: str | Path | None = None,
) -> list[Video]:
    """The videos of one labelled list; what is wrong is added to `problems`, with its line number.

    classes   None: labels are numbers, and any is allowed
    """
    return _read_rows(path, root, problems, lambda line: labelled_row(line, classes))


def _from_pretraining_list(path: Path, root: str | Path | None) -> VideoSet:
    problems: list[str] = []
    videos = _read_rows(path, root, problems, unlabelled_row)
    raise_problems(path, problems)
    return VideoSet(path.parent, (), tuple(videos), ())


def _read_rows(
    path: Path,
    root: str | Path | None,
    problems: list[str],
    parse: Callable[[str], Row],
) -> list[Video]:
    """Rows through `parse`, which gives (name, label, first, count) or raises ValueError."""
    videos = []
    lines = read_lines(path, problems)
    for line, where in lines:
        try:
            name, label, first, count = parse(line)
            file = place(name, path.parent if root is None else root)
            videos.append(Video(file, label, first, count))
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if not lines and not problems:
        problems.append(f"{path.name}: the list is empty")
    return videos


def _from_split(folder: Path) -> VideoSet:
    test = next((folder / n for n in ("test", "val", "validation") if (folder / n).is_dir()), None)
    if test is None:
        raise SetError(f"{folder}: there is a folder train, but neither test nor val beside it")
    by_split = [_class_folders(folder / "train"), _class_folders(test)]
    classes = tuple(by_split[0])
    unknown = sorted(set(by_split[1]) - set(classes))
    if unknown:
        raise SetError(f"{test}: classes {few(unknown)} are not in {folder / 'train'}")
    _require_classes(folder, classes)
    train, test_videos = (
        tuple(Video(path, classes.index(name)) for name, paths in split.items() for path in paths)
        for split in by_split
    )
    return VideoSet(folder, classes, train, test_videos)


def _from_classes(folder: Path) -> VideoSet:
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
    """Sub-folders that hold videos, by name, each with its videos in order.

    Where one holds no video file, its own sub-folders of images are its videos.
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
            f"{folder}: found no class folders with videos ({', '.join(VIDEO_SUFFIXES)}): a set has "
            "one sub-folder a class, or train.csv, test.csv and classes.txt"
        )
