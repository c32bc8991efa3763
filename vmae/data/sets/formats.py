"""Rows of list files: VideoMAE V1's and V2's, labelled and for pre-training, in any common encoding.

The official code splits rows at every space, so it breaks on paths with spaces, on double spaces and
on Windows line endings (REFERENCE.md 5). Here the path ends at a video suffix, or before the number
columns at the end. A row in no known format raises ValueError; `parse_rows` adds file and line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import TypeVar

from vmae.data.sets.videos import Video
from vmae.support.text import few

#: Formats that decord reads exactly in any order (tests/data/test_reading.py).
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".3gp", ".flv", ".wmv")
#: Other formats, mostly of cameras and discs, which `vmae normalize` converts. For any frame of an .mpg
#: file decord returns the first one, and it fails at the end of .ts files.
FOREIGN_SUFFIXES = (".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".m2v", ".vob", ".ogv", ".asf", ".3g2")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_SUFFIX = "|".join(suffix[1:] for suffix in VIDEO_SUFFIXES)
_VIDEO = re.compile(rf'"?.+\.({_SUFFIX})"?', re.IGNORECASE)
_VIDEO_ROW = re.compile(rf'("?.+\.(?:{_SUFFIX})"?)\s+(\S.*)', re.IGNORECASE)
_FRAMES_ROW = re.compile(r"(.+?)\s+(-?\d+)\s+(\S+)")
_ROW = re.compile(r"(.+?)\s+(\S+)")
_NUMBER = re.compile(r"-?\d+")

S = TypeVar("S")
T = TypeVar("T")


def read_text(path: Path, problems: list[str]) -> str:
    """A text file in UTF-8, with or without a byte order mark, or in UTF-16 with one (PowerShell).

    For any other encoding a problem is added to `problems`, and the text is empty.
    """
    data = path.read_bytes()
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        problems.append(
            f"{path.name} line {line}: the text is not valid UTF-8; save the file as UTF-8"
        )
        return ""


def read_lines(path: Path, problems: list[str]) -> list[tuple[str, str]]:
    """The non-empty lines of a text file, stripped, each with its location for error messages."""
    text = read_text(path, problems).splitlines()
    lines = ((number, line.strip()) for number, line in enumerate(text, 1))
    return [(line, f"{path.name} line {n}: {line[:80]!r}") for n, line in lines if line]


def parse_rows(
    rows: Iterable[tuple[S, str]], parse: Callable[[S], T], problems: list[str]
) -> list[T]:
    """What `parse` makes of each (row, location); its ValueErrors become problems, with the location."""
    found = []
    for row, where in rows:
        try:
            found.append(parse(row))
        except ValueError as error:
            problems.append(f"{where}: {error}")
    return found


def listed_path(name: str, root: str | Path) -> Path:
    """The path of a list entry `name`, without quotes and with backslashes as slashes."""
    name = name.strip().strip('"')
    if os.name != "nt":
        if PureWindowsPath(name).drive:
            raise ValueError(
                "this is a Windows path with a drive letter; use a path relative to the list file"
            )
        name = name.replace("\\", "/")
    return Path(root) / name


def labelled_row(line: str, top: str | Path, classes: Sequence[str] | None) -> Video:
    """The video in a row of a fine-tuning or test list, whose paths are relative to `top`.

    classes   class names; None means that labels are numbers, and any number is allowed
    """
    if match := _VIDEO_ROW.fullmatch(line):
        return Video(listed_path(match[1], top), _label(match[2], classes))
    if match := _FRAMES_ROW.fullmatch(line):
        if int(match[2]) < 1:
            raise ValueError(
                f"total_frames is {match[2]}; it must be at least 1: expected `frame_folder "
                "total_frames label`"
            )
        folder = listed_path(match[1], top)
        return Video(folder, _label(match[3], classes), count=int(match[2]))
    match = _ROW.fullmatch(line)
    if match and match[1][-1] not in ",;":
        return Video(listed_path(match[1], top), _label(match[2], classes))
    raise ValueError("expected `path label`, separated by a space")


def _label(text: str, classes: Sequence[str] | None) -> int:
    if classes and text in classes:
        return classes.index(text)
    if re.fullmatch(r"-1|0\s+-1", text):
        raise ValueError(
            "the label -1 (unlabelled) is allowed only in a pre-training list; for pre-training, pass "
            "the path of such a list file rather than its folder"
        )
    if not _NUMBER.fullmatch(text):
        known = (
            f"classes.txt lists {few(classes)}"
            if classes
            else "add a classes.txt to use class names"
        )
        raise ValueError(f"unknown class {text!r}; {known}")
    label = int(text)
    if classes is not None and not 0 <= label < len(classes):
        raise ValueError(
            f"label {label} is not between 0 and {len(classes) - 1}: classes.txt lists "
            f"{len(classes)} classes, and labels start at 0"
        )
    if classes and any(map(str.isdigit, classes)):  # "1" has been taken for a name
        raise ValueError(
            f"label {label} is not a name in classes.txt, whose names are numbers: use the names as labels"
        )
    if label < 0:
        raise ValueError(f"label {label} is negative; labels start at 0")
    return label


def unlabelled_row(line: str, top: str | Path) -> Video:
    """The video in a row of a pre-training list, V1's or V2's, whose paths are relative to `top`."""
    if _VIDEO.fullmatch(line):
        return Video(listed_path(line, top), -1)
    if match := _VIDEO_ROW.fullmatch(line):
        return Video(listed_path(match[1], top), -1)
    if match := re.fullmatch(r"(.+?)\s+(-?\d+)\s+(-?\d+)", line):
        first, count = int(match[2]), int(match[3])
        if count < 0:  # a video file with a suffix that is not in VIDEO_SUFFIXES
            return Video(listed_path(match[1], top), -1)
        if first < 0 or count == 0:
            raise ValueError(
                "expected `frame_folder start total_frames`, with total_frames at least 1"
            )
        return Video(listed_path(match[1], top), -1, first, count)
    if match := _ROW.fullmatch(line):
        return Video(listed_path(match[1], top), -1)
    raise ValueError("expected `video 0 -1`, `frame_folder start total_frames` or `video label`")
