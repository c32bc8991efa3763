"""Public sets in their published layout: UCF101, HMDB51, Something-Something V2, Kinetics.

Files expected in the set's folder, beside or above the videos:

- UCF101      ucfTrainTestlist/{classInd,trainlist01,testlist01,...}.txt · Class/v_Class_g01_c01.avi
- HMDB51      testTrainMulti_7030_splits/CLASS_test_split1.txt, ... · CLASS/NAME.avi
- SSv2        labels.json, train.json, validation.json, also in labels/, or with the prefix
              something-something-v2- · ID.webm or ID.mp4
- Kinetics    train.csv and val.csv (also with a prefix, also in annotations/) with a header line ·
              ID_000010_000020.mp4, anywhere below the folder

A video's suffix may differ from the list's, as after `vmae normalize`. Downloads are seldom complete,
so a missing video keeps the path from the list and is reported when it is read. Finding no videos at
all is an error.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vmae.data.sets.finding import FileFinder, find_root, listing, walk
from vmae.data.sets.formats import VIDEO_SUFFIXES, parse_rows, read_lines
from vmae.data.sets.videos import SetError, Video, VideoSet, raise_problems
from vmae.support.text import few

#: Sub-folders of a set that are searched for its lists.
_LISTS = (".", "annotations", "labels", "ucfTrainTestlist", "testTrainMulti_7030_splits",
          "test_train_splits")  # fmt: skip


def load_public(folder: Path, split: int | None, root: Path | None) -> VideoSet | None:
    """The public set whose lists are in `folder`; None if there are no such lists.

    Raises SetError with all invalid lines, or if no videos are found.
    """
    for place in (folder / name for name in _LISTS):
        if (place / "classInd.txt").is_file():
            return _ucf101(folder, place, _split(folder, split), root)
        if place.is_dir() and any(place.glob("*_test_split[123].txt")):
            return _hmdb51(folder, place, _split(folder, split), root)
        for prefix in ("", "something-something-v2-"):
            files = [place / f"{prefix}{n}.json" for n in ("labels", "train", "validation")]
            if all(path.is_file() for path in files):
                _no_splits(folder, "Something-Something V2", split)
                return _ssv2(folder, files, root)
        lists = _kinetics_lists(place)
        if lists:
            _no_splits(folder, "Kinetics", split)
            return _kinetics(folder, lists, root)
    return None


def split_numbers(folder: Path) -> list[int]:
    """The splits of UCF101 or HMDB51 that the lists in `folder` hold; empty for other sets."""
    places = [folder / name for name in _LISTS]
    patterns = ("testlist0{}.txt", "*_test_split{}.txt")
    return [
        number
        for number in (1, 2, 3)
        if any(any(place.glob(p.format(number))) for place in places for p in patterns)
    ]


def _split(folder: Path, split: int | None) -> int:
    if split not in (None, 1, 2, 3):
        raise SetError(f"{folder}: split is {split}; for UCF101 and HMDB51, it must be 1, 2 or 3")
    return split or 1


def _no_splits(folder: Path, name: str, split: int | None) -> None:
    if split is not None:
        raise SetError(f"{folder}: split is {split}, but {name} has only one split; omit split")


def _class_root(folder: Path, root: Path | None, classes: Sequence[str]) -> FileFinder:
    """The folder that contains the class folders."""
    what = f"no class folder such as {classes[0]!r}" if classes else "no class folder"
    return find_root(folder, root, lambda top: any((top / c).is_dir() for c in classes), what)


def _ucf101(folder: Path, lists: Path, split: int, root: Path | None) -> VideoSet:
    problems: list[str] = []
    classes: list[str] = []

    def add_class(line: str) -> None:
        number, _, name = line.partition(" ")
        if number != str(len(classes) + 1) or not name.strip():
            raise ValueError(f"expected `{len(classes) + 1} ClassName`; labels start at 1")
        classes.append(name.strip())

    def video(line: str) -> Video:
        row = re.fullmatch(r"(.+\.\w+)(?:\s+(\S+))?", line)
        name = re.split(r"[/\\]", line)[0]
        if row is None or not re.search(r"[/\\]", row[1]):
            raise ValueError("expected `Class/v_Class_g01_c01.avi`, optionally followed by a label")
        if name not in classes:
            raise ValueError(f"class {name!r} is not in classInd.txt")
        number = classes.index(name) + 1
        if row[2] not in (None, str(number)):
            raise ValueError(
                f"the label is {row[2]}, but classInd.txt assigns {name!r} the number {number}"
            )
        return Video(files.find(row[1]), number - 1)

    parse_rows(read_lines(lists / "classInd.txt", problems), add_class, problems)
    raise_problems(folder, problems)
    files = _class_root(folder, root, classes)
    splits = []
    for kind in ("train", "test"):
        path = lists / f"{kind}list{split:02d}.txt"
        if not path.is_file():
            raise SetError(f"{folder}: split {split} needs {path}; add this file")
        splits.append(tuple(parse_rows(read_lines(path, problems), video, problems)))
    raise_problems(folder, problems)
    return VideoSet(folder, tuple(classes), *splits)


def _hmdb51(folder: Path, lists: Path, split: int, root: Path | None) -> VideoSet:
    end = f"_test_split{split}.txt"
    paths = sorted(lists.glob(f"*{end}"), key=lambda path: path.name[: -len(end)])
    if not paths:
        raise SetError(f"{folder}: found no CLASS{end} files in {lists}")
    classes = tuple(path.name[: -len(end)] for path in paths)
    files = _class_root(folder, root, classes)
    problems: list[str] = []

    def row(label: int, line: str) -> tuple[str, Video]:
        name, _, use = line.rpartition(" ")
        if use not in ("0", "1", "2") or not name:
            raise ValueError("expected `name.avi N` with N = 0 (unused), 1 (train) or 2 (test)")
        return use, Video(files.find(f"{classes[label]}/{name.strip()}"), label)

    rows = [
        found
        for label, path in enumerate(paths)
        for found in parse_rows(read_lines(path, problems), partial(row, label), problems)
    ]
    raise_problems(folder, problems)
    train, test = (tuple(video for use, video in rows if use == number) for number in "12")
    return VideoSet(folder, classes, train, test)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SetError(f"{path} line {error.lineno}: invalid JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise SetError(f"{path}: the text is not valid UTF-8; save the file as UTF-8") from None


def _ssv2(folder: Path, lists: Sequence[Path], root: Path | None) -> VideoSet:
    names = _json(lists[0])
    if not isinstance(names, dict) or sorted(map(str, names.values())) != sorted(
        map(str, range(len(names)))
    ):
        raise SetError(f"{lists[0]}: number the classes 0, 1, 2, ..., without gaps or repeats")
    classes = tuple(sorted(names, key=lambda name: int(names[name])))
    numbers = {name: label for label, name in enumerate(classes)}

    def holds(place: Path) -> bool:  # above the folder there may be other videos
        return (root is not None or place != folder.parent) and bool(listing(place))

    files = find_root(folder, root, holds, "no videos (ID.webm or ID.mp4)")

    def video(row: Any) -> Video:
        if not isinstance(row, dict) or not row.get("id") or "template" not in row:
            raise ValueError(f"expected an id and a template, found {str(row)[:80]}")
        name = re.sub(r"[\[\]]", "", str(row["template"]))
        if name not in numbers:
            raise ValueError(f"{lists[0].name} has no {name!r}")
        return Video(files.find(f"{row['id']}.webm"), numbers[name])

    problems: list[str] = []
    splits: list[tuple[Video, ...]] = []
    for path in lists[1:]:
        rows = _json(path)
        if not isinstance(rows, list):
            raise SetError(f"{path}: expected a list of entries, each with an id and a template")
        entries = ((row, f"{path.name} entry {n}{_id(row)}") for n, row in enumerate(rows, 1))
        splits.append(tuple(parse_rows(entries, video, problems)))
    raise_problems(folder, problems)
    return VideoSet(folder, classes, *splits)


def _id(row: Any) -> str:
    return f" (id {row['id']})" if isinstance(row, dict) and "id" in row else ""


def _kinetics_lists(place: Path) -> list[Path]:
    """The training list and the test list; validation takes precedence over test, as in papers."""
    found = []
    for names in (["train"], ["val", "validate", "validation", "test"]):
        paths = [p for n in names for p in sorted(place.glob(f"*{n}.csv")) if _is_kinetics(p)]
        found += paths[:1]
        if not found:
            return []
    if len(found) < 2:
        raise SetError(
            f"{place}: {found[0].name} is a Kinetics training list, but there is no test list: add "
            "val.csv, or a test.csv that includes labels"
        )
    return found


def _is_kinetics(path: Path) -> bool:
    with path.open("rb") as file:
        columns = file.readline(1000).decode("utf-8", "replace").lower()
    return all(name in columns for name in ("label", "youtube_id", "time_start", "time_end"))


def _kinetics(folder: Path, lists: Iterable[Path], root: Path | None) -> VideoSet:
    top = root or folder
    by_stem = {path.stem: path for path in walk(top) if path.suffix.lower() in VIDEO_SUFFIXES}
    if not by_stem:
        raise SetError(
            f"{top}: found the lists, but no videos such as ID_000010_000020.mp4 in the folder or "
            "its sub-folders: put the videos there, or pass their folder as root="
        )
    problems: list[str] = []

    def row(columns: Sequence[str], line: str) -> tuple[Path, str]:
        try:
            values = dict(zip(columns, next(csv.reader([line])), strict=True))
            start, end = (int(float(values[name])) for name in ("time_start", "time_end"))
            label, name = values["label"].strip(), values["youtube_id"].strip()
            if not label or not name:
                raise ValueError
        except (KeyError, ValueError):
            raise ValueError(f"use {','.join(columns)}, with times in seconds") from None
        stem = f"{name}_{start:06d}_{end:06d}"
        return by_stem.get(stem, top / label / f"{stem}.mp4"), label

    splits = []
    for path in lists:
        (head, _), *lines = read_lines(path, problems) or [("", "")]
        columns = [name.strip().strip('"').lower() for name in head.split(",")]
        splits.append(parse_rows(lines, partial(row, columns), problems))
    raise_problems(folder, problems)
    classes = tuple(sorted({label for _, label in splits[0]}))  # numbered as in common label maps
    unknown = sorted({label for _, label in splits[1]} - set(classes))
    if unknown:
        raise SetError(f"{folder}: classes {few(unknown)} need training videos")
    numbers = {name: label for label, name in enumerate(classes)}
    train, test = (tuple(Video(path, numbers[name]) for path, name in rows) for rows in splits)
    return VideoSet(folder, classes, train, test)
