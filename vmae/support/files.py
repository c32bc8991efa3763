"""Files that are written whole or not at all; a folder has one writer at a time."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


class DiskError(OSError):
    """No room, or no right to write; the message names the place and the way out."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Around code that writes `path`: a full disk, or a place that cannot be written, is a DiskError."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        # Libraries wrap a full disk in errors of their own; the half-written file still fills it here.
        if number in (errno.ENOSPC, errno.EDQUOT) or _free(path) < 1 << 16:
            raise DiskError(
                f"no space left on the disk while writing {path}: free some, or choose a folder on "
                "another disk; what is already complete is kept, so the same command goes on from it"
            ) from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise DiskError(f"cannot write {path} ({error}): choose another folder") from error
        raise


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it if the block succeeds, removed if it fails.

    Raises DiskError where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(NotADirectoryError):
                temporary.unlink(missing_ok=True)


def _free(path: Path) -> int:
    """Free bytes on the disk that `path` is, or would be, on."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_space(folder: str | Path, needed: int) -> None:
    """Raise DiskError, before anything is written, where `needed` bytes do not fit."""
    free = _free(Path(folder))
    if free < needed:
        raise DiskError(
            f"{folder} needs about {needed / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB free: "
            "free some space, choose a folder on another disk, or ask for fewer or smaller videos"
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class BusyError(RuntimeError):
    """Another process writes the same folder; the message names it."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for this process to write in; raise BusyError where another one holds it.

    The system frees it when the process ends, however that happens. What a killed process left
    half-written is removed.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a")  # noqa: SIM115 (closed below)
    with file:
        try:
            _lock(file)
        except OSError:
            raise BusyError(
                f"{folder} is being written by another process: wait until it is done, then run the "
                "same command again"
            ) from None
        for left in folder.rglob(".*.part"):
            left.unlink(missing_ok=True)
        yield


def _lock(file: IO[str]) -> None:
    """Take an exclusive lock that goes with the file's handle; OSError where another has it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
