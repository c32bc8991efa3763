"""Where the videos of a set are: below a folder, in one of the usual places, with another suffix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vmae.data.sets.formats import VIDEO_SUFFIXES
from vmae.data.sets.videos import SetError

#: Sub-folders of a set that are searched for its videos.
_PLACES = (".", "videos", "UCF-101", "UCF101", "hmdb51_org", "hmdb51",
           "20bn-something-something-v2")  # fmt: skip


def walk(folder: Path, above: Sequence[str] | None = None) -> Iterator[Path]:
    """Every file below a folder, but for those whose name begins with a dot, or that of their folder.

    Links to folders are followed, except to one that they are in.
    """
    real = os.path.realpath(folder)
    above = [str(path) for path in Path(real).parents] if above is None else above
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name[0] == ".":  # .AppleDouble, .thumbnails, .ipynb_checkpoints
            continue
        if path.is_dir():
            yield from walk(path, [*above, real])
        else:
            yield path


class FileFinder:
    """Find video files by folder and stem, so suffixes may differ; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path:
        """The file `name`, or one beside it with another suffix; if neither exists, the path as listed."""
        path = self.root / name.replace("\\", "/")
        if path.parent not in self._listed:
            self._listed[path.parent] = listing(path.parent)
        listed = self._listed[path.parent]
        return path.with_name(listed.get(path.name) or listed.get(path.stem, path.name))


def listing(folder: Path) -> dict[str, str]:
    """Names of the videos in a folder, by name and by stem; of several with one stem, the .mp4."""
    names = os.listdir(folder) if folder.is_dir() else []
    videos = [name for name in names if name.lower().endswith(VIDEO_SUFFIXES)]
    videos.sort(key=lambda name: name.endswith(".mp4"))
    return {Path(name).stem: name for name in videos} | {name: name for name in videos}


def find_root(
    folder: Path, root: Path | None, holds: Callable[[Path], bool], what: str
) -> FileFinder:
    """The first place that `holds` the videos: `root` if given, else in the folder or beside it.

    Raises SetError if none does; `what` says what is missing.
    """
    if root is not None:
        if holds(root):
            return FileFinder(root)
        raise SetError(f"{folder}: found the lists, but {what} in {root}, which is given as root")
    for place in (top / name for top in (folder, folder.parent) for name in _PLACES):
        if holds(place):
            return FileFinder(place)
    places = ", ".join(name for name in _PLACES if name != ".")
    raise SetError(
        f"{folder}: found the lists, but {what} in the folder itself or in its sub-folders "
        f"{places}: put the videos there, or pass their folder as root="
    )
