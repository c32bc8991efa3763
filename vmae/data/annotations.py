"""Which videos, with which labels: a set's class list and its train and test lists.

A set is a folder in one of three layouts:

- lists      classes.txt (one name a line), train.csv and test.csv; a line is `path label`, one
             space, as VideoMAE's official lists; paths are relative to the folder, or absolute
- split      train/CLASS/*.mp4 and test/CLASS/*.mp4 (or val/)
- classes    CLASS/*.mp4; every fifth video of a class is for testing
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmae.data.encode import atomic_path

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")


class SetError(ValueError):
    """A set that cannot be used; the message names the files and lines and the way out."""


@dataclass(frozen=True)
class Video:
    """One video file and its label, an index into the set's classes."""

    path: Path
    label: int


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


def load_set(folder: str | Path) -> VideoSet:
    """Read a set in any of the layouts above.

    Raises SetError where there is no set, or with every line that is wrong. Whether the videos can
    be read is found out when they are read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SetError(
            f"{folder}: there is no such folder; `vmae render motion` makes one, or give the folder "
            "of your own videos"
        )
    if (folder / "set.partial.json").exists():
        raise SetError(f"{folder}: rendering was interrupted; run the same `vmae render` again")
    if (folder / "train.csv").exists():
        return _from_lists(folder)
    if (folder / "train").is_dir():
        return _from_split(folder)
    return _from_classes(folder)


def _from_lists(folder: Path) -> VideoSet:
    test_list = next((folder / n for n in ("test.csv", "val.csv") if (folder / n).exists()), None)
    if test_list is None:
        raise SetError(f"{folder}: there is a train.csv, but neither test.csv nor val.csv")
    names = folder / "classes.txt"
    if not names.exists():
        raise SetError(
            f"{folder}: there is no classes.txt; write one class name a line, in label order"
        )
    classes = tuple(line.strip() for line in names.read_text(encoding="utf-8-sig").splitlines())
    classes = classes[: max((i + 1 for i, name in enumerate(classes) if name), default=0)]
    problems: list[str] = []
    splits = [read_list(path, classes, problems) for path in (folder / "train.csv", test_list)]
    if problems:
        shown = "\n  ".join(problems[:50])
        more = f"\n  and {len(problems) - 50} more" if len(problems) > 50 else ""
        raise SetError(f"{folder}: {len(problems)} lines cannot be used:\n  {shown}{more}")
    return VideoSet(folder, classes, *map(tuple, splits))


def read_list(path: Path, classes: Sequence[str], problems: list[str]) -> list[Video]:
    """The videos of one list; what is wrong is added to `problems`, with its line number."""
    videos = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}: {line.strip()[:80]!r}"
        name, _, label = line.strip().rpartition(" ")
        if not name:
            problems.append(f"{where}: expected `path label`, separated by a space")
        elif label in classes:
            videos.append(Video(path.parent / name.strip(), classes.index(label)))
        elif not label.lstrip("-").isdigit():
            problems.append(f"{where}: unknown class {label!r}; classes.txt has {_few(classes)}")
        elif not 0 <= int(label) < len(classes):
            problems.append(
                f"{where}: label {label} is not in 0 to {len(classes) - 1}; classes.txt has "
                f"{len(classes)} classes"
            )
        else:
            videos.append(Video(path.parent / name.strip(), int(label)))
    if not videos and not problems:
        problems.append(f"{path.name}: the list is empty")
    return videos


def write_list(path: Path, rows: Iterable[tuple[str, int]]) -> None:
    """Write `path label` lines."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{name} {label}\n" for name, label in rows), encoding="utf-8")


def _from_split(folder: Path) -> VideoSet:
    test = next((folder / n for n in ("test", "val", "validation") if (folder / n).is_dir()), None)
    if test is None:
        raise SetError(f"{folder}: there is a folder train, but neither test nor val beside it")
    by_split = [_class_folders(folder / "train"), _class_folders(test)]
    classes = tuple(by_split[0])
    unknown = sorted(set(by_split[1]) - set(classes))
    if unknown:
        raise SetError(f"{test}: classes {_few(unknown)} are not in {folder / 'train'}")
    _require_classes(folder, classes)
    train, test_videos = (
        tuple(Video(path, classes.index(name)) for name, paths in split.items() for path in paths)
        for split in by_split
    )
    return VideoSet(folder, classes, train, test_videos)


def _from_classes(folder: Path) -> VideoSet:
    by_class = _class_folders(folder)
    classes = tuple(by_class)
    _require_classes(folder, classes)
    train: list[Video] = []
    test: list[Video] = []
    for label, paths in enumerate(by_class.values()):
        for i, path in enumerate(paths):
            (test if i % 5 == 4 else train).append(Video(path, label))
    if not test:
        raise SetError(f"{folder}: no class has 5 videos, so none is left for testing: add videos")
    return VideoSet(folder, classes, tuple(train), tuple(test))


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """Sub-folders that hold videos, by name, each with its videos in order."""
    found = {}
    for sub in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        videos = sorted(p for p in sub.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        if videos:
            found[sub.name] = videos
    return found


def _require_classes(folder: Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise SetError(
            f"{folder}: found {len(classes)} class folders with videos ({', '.join(VIDEO_SUFFIXES)}); "
            "a set needs 2 or more: one sub-folder a class, or train.csv, test.csv and classes.txt"
        )


def _few(names: Sequence[str], most: int = 6) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
