"""Sets given by lists: VideoMAE V1's and V2's, labelled and for pre-training.

A row is `video label`, or `frame_folder total_frames label`. In a pre-training list it is
`video 0 -1`, `frame_folder start total_frames`, `video label` (the label is ignored) or `video`.
Paths are relative to the list, or to `root` (V2's --data_root), or absolute. A label is a number or
a class name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from vmae.data.sets.formats import (
    labelled_row,
    parse_rows,
    read_lines,
    read_text,
    unlabelled_row,
)
from vmae.data.sets.videos import SetError, Video, VideoSet, raise_problems


def from_lists(folder: Path, root: str | Path | None, number: str = "") -> VideoSet:
    """The set in train.csv, test.csv and classes.txt; raises SetError with all invalid lines.

    number   "2" takes train2.csv and test2.csv
    """
    lists = {name: folder / f"{name}{number}.csv" for name in ("train", "val", "test")}
    lists = {name: path for name, path in lists.items() if path.exists()}
    if "train" not in lists:
        raise SetError(f"{folder}: split {number} needs train{number}.csv and test{number}.csv")
    if "test" not in lists and "val" in lists:
        lists["test"] = lists.pop("val")
    if "test" not in lists:
        raise SetError(
            f"{folder} contains train.csv, but no test.csv or val.csv: add one or, for pre-training "
            f"only, pass the path of the training list: {folder / 'train.csv'}"
        )
    problems: list[str] = []
    classes = _class_names(folder)
    parse = partial(labelled_row, classes=classes)
    splits = {name: _videos(path, root, problems, parse) for name, path in lists.items()}
    raise_problems(folder, problems)
    if classes is None:
        present = {video.label for videos in splits.values() for video in videos}
        if 2 * len(present) <= max(present):
            raise SetError(
                f"{folder}: labels go up to {max(present)}, but only {len(present)} different "
                "labels are used: number the classes 0, 1, 2, ..., or add a classes.txt with one "
                "class name per line"
            )
        classes = tuple(map(str, range(max(present) + 1)))
    return VideoSet(folder, classes, splits["train"], splits["test"], val=splits.get("val", ()))


def _class_names(folder: Path) -> tuple[str, ...] | None:
    """The names in classes.txt, if there is one."""
    if not (folder / "classes.txt").exists():
        return None
    problems: list[str] = []
    lines = read_text(folder / "classes.txt", problems).splitlines()
    classes = tuple(line.strip() for line in lines)
    first = {name: number for number, name in reversed([*enumerate(classes, 1)])}
    problems += [
        f"classes.txt line {number}: {name!r} is also in line {first[name]}; give each class its own name"
        for number, name in enumerate(classes, 1)
        if name and first[name] != number
    ]
    raise_problems(folder, problems)
    return classes[: max((i + 1 for i, name in enumerate(classes) if name), default=0)]


def from_test_list(path: Path, classes: Sequence[str]) -> VideoSet:
    """The videos of one labelled list, all for testing; raises SetError with all invalid lines.

    Labels are names or numbers of the classes in a classes.txt beside the list, else of `classes`.
    """
    problems: list[str] = []
    classes = _class_names(path.parent) or tuple(classes)
    videos = _videos(path, None, problems, partial(labelled_row, classes=classes))
    raise_problems(path, problems)
    return VideoSet(path, classes, (), videos)


def from_pretraining_list(path: Path, root: str | Path | None) -> VideoSet:
    """The unlabelled videos of one list; raises SetError with all invalid lines."""
    problems: list[str] = []
    videos = _videos(path, root, problems, unlabelled_row)
    raise_problems(path, problems)
    return VideoSet(path.parent, (), videos, ())


def _videos(
    path: Path, root: str | Path | None, problems: list[str], parse: Callable[..., Video]
) -> tuple[Video, ...]:
    """The videos of a list, whose rows `parse` reads; invalid lines are added to `problems`."""
    lines = read_lines(path, problems)
    if not lines and not problems:
        problems.append(f"{path.name}: the list file is empty")
    top = path.parent if root is None else root
    return tuple(parse_rows(lines, partial(parse, top=top), problems))
