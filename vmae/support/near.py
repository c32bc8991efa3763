"""Paths that do not exist: where they were looked for, and names like theirs there."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from vmae import ROOT
from vmae.support.files import printable


def not_found(path: str | Path, what: str, at_root: bool = True) -> str:
    """The message that there is no `what` at a path, with the places that were tried, and near names.

    path      as the user wrote it
    at_root   whether a relative one was looked for in ROOT too
    """
    path = Path(os.path.expanduser(path))
    tried = ""
    if not path.is_absolute():
        places = dict.fromkeys(printable(place) for place in _places(path, at_root))
        tried = f"; looked for {' and '.join(places)}"
    return f"{printable(path)}: no such {what}{near(path, at_root)}{tried}"


def require(path: Path, what: str) -> None:
    """Raise FileNotFoundError unless a path exists, which is looked for in the working folder only."""
    if not path.exists():
        raise FileNotFoundError(not_found(path, what, at_root=False))


def near(path: str | Path, at_root: bool = True) -> str:
    """Paths that exist and are named much like this one, as the question of a message; else empty."""
    path = Path(os.path.expanduser(path))
    found = dict.fromkeys(name for place in _places(path, at_root) for name in _near(path, place))
    names = [repr(printable(name)) for name in found][:3]
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def _places(path: Path, at_root: bool) -> list[Path]:
    if path.is_absolute():
        return [path]
    return [top / path for top in ((Path.cwd(), ROOT) if at_root else (Path.cwd(),))]


def _near(path: Path, place: Path) -> list[Path]:
    """`path` with the first of its parts that does not exist at `place` replaced by near names."""
    try:
        if place.exists():
            return []
        missing = place
        while not missing.parent.exists():
            missing = missing.parent
        by_name = {name.casefold(): name for name in sorted(os.listdir(missing.parent))}
    except (
        OSError
    ):  # a file in place of a folder, one that may not be read, a name that is too long
        return []
    close = difflib.get_close_matches(missing.name.casefold(), by_name, n=3)
    inside = place.relative_to(missing)
    top = Path(*path.parts[: len(path.parts) - len(inside.parts) - 1])
    whole = [top / by_name[name] / inside for name in close]
    there = [(missing.parent / by_name[name] / inside).exists() for name in close]
    return [
        one if exists else top / by_name[name]
        for one, exists, name in zip(whole, there, close, strict=True)
    ]
