"""What a fine-tuning run trains, validates and tests on: chosen once, then kept in splits.csv.

A split that is made here depends on all files of the set, so a run that resumed with a split made
anew would, after a file was added or removed, test on videos that it had trained on.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vmae import at_root
from vmae.data.reading.failures import Failures
from vmae.data.sets.subsets import few_labels, hold_out
from vmae.data.sets.videos import SetError, Video, VideoSet
from vmae.support.files import atomic_path, printable, write_text
from vmae.support.text import few
from vmae.train.config import FinetuneConfig
from vmae.weights.errors import CheckpointError

#: The columns of splits.csv. A path is relative to the set if it lies in it; `first` and `count` are
#: those of a folder of images; `unreadable` is the reason why a video is left out.
COLUMNS = ("split", "class", "path", "first", "count", "unreadable")
NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """A video of a run: its split, and why it could not be read when the run started, if so."""

    split: str
    video: Video
    unreadable: str = ""


@dataclass(frozen=True)
class Splits:
    """The videos of a run.

    rows     all of them, as the run's splits.csv has them
    how      how those for validation were chosen, in words
    gone     those that the set has no more
    checked  whether all were read just now, to find those that cannot be
    passed_over   files of the set in formats that training does not read
    """

    folder: Path
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    how: str
    gone: frozenset[Video] = frozenset()
    checked: bool = False
    passed_over: tuple[Path, ...] = ()

    def split(self, name: str) -> tuple[Video, ...]:
        """The videos of "train", "val" or "test" that can be used."""
        return tuple(video for video, unreadable in self._there(name) if not unreadable)

    def listed(self, name: str) -> tuple[Video, ...]:
        """Those of a split that are there, also the unreadable ones: a store is known by its list."""
        return tuple(video for video, _ in self._there(name))

    def _there(self, name: str) -> Iterator[tuple[Video, str]]:
        for row in self.rows:
            if row.split == name and row.video not in self.gone:
                yield row.video, row.unreadable

    @property
    def left_out(self) -> tuple[Row, ...]:
        """The videos that could not be read when the run started."""
        return tuple(row for row in self.rows if row.unreadable)

    def as_set(self) -> VideoSet:
        """The videos that can be used, as a set."""
        train, val, test = (self.split(name) for name in NAMES)
        return VideoSet(self.folder, self.classes, train, test, val=val)

    def without(self, reasons: dict[Video, str], max_unreadable: float) -> Splits:
        """The same without unreadable videos; every other one stays in its split.

        Raises SetError if there are more than the share `max_unreadable` of the set and more than one,
        or if nothing is left of a split.
        """
        total = len({row.video for row in self.rows})
        failed = [(printable(video.path), reason) for video, reason in reasons.items()]
        Failures(total, max_unreadable).add(failed)
        return self.marked({os.path.abspath(video.path): why for video, why in reasons.items()})

    def marked(self, reasons: dict[str, str]) -> Splits:
        """The same with the reason of each unreadable video, by absolute path, after all were read.

        Raises SetError if nothing is left of a split.
        """
        paths = (os.path.abspath(row.video.path) for row in self.rows)
        rows = (
            replace(row, unreadable=reasons.get(path, ""))
            for row, path in zip(self.rows, paths, strict=True)
        )
        return replace(self, rows=tuple(rows), checked=True)._not_empty("unreadable")

    def _not_empty(self, what: str) -> Splits:
        for name in NAMES:
            count = sum(row.split == name for row in self.rows)
            if count and not self.split(name):
                raise SetError(
                    f"{self.folder}: all {count} {name} videos are {what}: add others, and start a run "
                    "in a new folder"
                )
        return self


def choose(config: FinetuneConfig, videos: VideoSet) -> Splits:
    """The splits of a new run: those of the set, with videos held out for validation if asked for."""
    train, val, how = hold_out(videos, config.val_share, config.seed)
    rows = (
        Row(name, video)
        for name, part in zip(NAMES, (train, val, videos.test), strict=True)
        for video in part
    )
    passed = videos.passed_over
    return Splits(videos.folder, videos.classes, tuple(rows), how, passed_over=passed)


def keep(folder: Path, splits: Splits, resumed: bool) -> None:
    """Write splits.csv and classes.txt to the folder of a run, and passed_over.txt if files were.

    Raises CheckpointError if a resumed run has them with other videos.
    """
    path = folder / "splits.csv"
    text = _text(splits)
    if resumed and path.exists():
        if path.read_text(encoding="utf-8", errors="surrogateescape") != text:
            raise CheckpointError(
                f"{folder} contains a run on other videos, or on other splits of them ({path.name}): "
                "to resume it, pass its folder to open_sources, which takes the splits from there"
            )
        return
    write_text(folder / "classes.txt", "\n".join(splits.classes) + "\n")
    if splits.passed_over:
        names = [relative(passed, splits.folder) for passed in splits.passed_over]
        write_text(folder / "passed_over.txt", "\n".join(names) + "\n")
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def kept(folder: str | Path, videos: VideoSet) -> Splits | None:
    """The splits of the run in `folder`, if it has any; warns of what has changed in its set since.

    Videos that are gone are left out, and new ones are not used. Raises SetError if nothing is left
    of a split.
    """
    path = Path(folder) / "splits.csv"
    if not path.exists():
        return None
    classes = tuple(path.with_name("classes.txt").read_text(encoding="utf-8").splitlines())
    rows = tuple(_row(row, videos.folder, classes) for row in _read(path))
    used = {
        row.split for row in rows
    }  # a run without validation leaves the set's own val split alone
    parts = [videos.split(name) for name in NAMES if name in used]
    now = {_key(video, videos.classes): video for part in parts for video in part}
    then = {_key(row.video, classes): row for row in rows}
    gone = [row.video for key, row in then.items() if key not in now and not row.unreadable]
    new = [video for key, video in now.items() if key not in then]
    for found, what in (
        (gone, "left out, as they are no longer in the set"),
        (new, "not used, as they are new in the set, and a run keeps its videos (a new run in another "
         "folder uses them)"),
    ):  # fmt: skip
        if found:
            names = few([relative(video.path, videos.folder) for video in found])
            warnings.warn(f"{path}: {what}: {names}", stacklevel=2)
    how = f"as this run began ({path.name} in its folder)"
    splits = Splits(videos.folder, classes, rows, how, frozenset(gone))
    return splits._not_empty("gone or unreadable")


def left_out(folder: Path) -> list[str]:
    """The videos that the run in `folder` has left out as unreadable."""
    path = folder / "splits.csv"
    rows = _read(path) if path.exists() else []
    return [printable(row["path"]) for row in rows if row["unreadable"]]


def seen(folder: Path, config: FinetuneConfig) -> set[tuple[str, int]]:
    """The videos that the run in `folder` trains or validates on, by `identity`."""
    path = folder / "splits.csv"
    if not path.exists():
        return set()
    classes = tuple(path.with_name("classes.txt").read_text(encoding="utf-8").splitlines())
    rows = [_row(row, at_root(config.data.path), classes) for row in _read(path)]
    rows = [row for row in rows if not row.unreadable]
    train, val = ([r.video for r in rows if r.split == name] for name in ("train", "val"))
    train = [train[i] for i in few_labels(train, config.labels_per_class, classes, config.seed)]
    return {identity(video) for video in (*train, *val)}


def identity(video: Video) -> tuple[str, int]:
    """A video by its file, whatever links lead there, and its first image."""
    return os.path.realpath(video.path), video.first


def passed_over(folder: Path) -> list[str]:
    """The files of its set that the run in `folder` did not read, as their formats are others."""
    path = folder / "passed_over.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def training_videos(folder: Path, per_class: int | None) -> int:
    """How many videos the run in `folder` trains on, of `per_class` videos of each class if it is given."""
    rows = [
        r for r in _read(folder / "splits.csv") if r["split"] == "train" and not r["unreadable"]
    ]
    if per_class is None:
        return len(rows)
    return per_class * len((folder / "classes.txt").read_text(encoding="utf-8").splitlines())


def _read(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _text(splits: Splits) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in splits.rows:
        video, folder = row.video, splits.folder
        inside = os.path.abspath(video.path).startswith(os.path.abspath(folder) + os.sep)
        path = os.path.relpath(video.path, folder) if inside else os.path.abspath(video.path)
        images = (video.first, video.count) if video.count is not None else ("", "")
        table.writerow(
            [row.split, splits.classes[video.label], Path(path).as_posix(), *images, row.unreadable]
        )
    return text.getvalue()


def _row(row: dict[str, str], folder: Path, classes: tuple[str, ...]) -> Row:
    images = (int(row["first"]), int(row["count"])) if row["count"] else (1, None)
    video = Video(folder / row["path"], classes.index(row["class"]), *images)
    return Row(row["split"], video, row["unreadable"])


def _key(video: Video, classes: tuple[str, ...]) -> tuple[str, int, str]:
    name = classes[video.label] if video.label >= 0 else ""
    return os.path.abspath(video.path), video.first, name


def relative(path: Path, folder: Path) -> str:
    """A path as text, without the folder that it lies in."""
    return printable(path.relative_to(folder) if path.is_relative_to(folder) else path)
