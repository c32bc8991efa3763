"""Files written atomically, in folders with one writer at a time."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class DiskError(OSError):
    """The disk is full or not writable; the message names the path and suggests a fix."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, or a missing permission, into a DiskError while writing `path`."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        # Some libraries hide a full disk behind their own errors, so look at the free space as well:
        # at this point the half-written file still fills the disk.
        if number in (errno.ENOSPC, errno.EDQUOT) or _free(path) < 1 << 16:
            raise DiskError(
                f"no space left on the disk while writing {path}: free up some space, or choose a "
                "folder on another disk. Completed files are kept: to continue, run the same command "
                "again"
            ) from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            raise DiskError(f"cannot write {path} ({error}): choose another folder") from error
        raise


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it if the block succeeds, removed if it fails.

    Raises DiskError if the disk is full or the folder is not writable.
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
    """Free bytes on the disk that holds, or would hold, `path`."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def require_space(folder: str | Path, needed: int) -> None:
    """Raise DiskError, before anything is written, if `needed` bytes do not fit."""
    free = _free(Path(folder))
    if free < needed:
        raise DiskError(
            f"{folder} needs about {needed / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB is "
            "available on the disk: free up some space, choose a folder on another disk, or use "
            "fewer or smaller videos"
        )


def require_writable(path: Path, folder: bool = False) -> None:
    """Raise DiskError, before any work, if a file could not be written to `path`, or into a `folder`.

    It and the folders above it need not exist yet.
    """
    wanted = "folder" if folder else "file"
    if path.exists() and path.is_dir() != folder:
        other = "file" if folder else "folder"
        raise DiskError(f"cannot write {path}: it is a {other}: choose another {wanted}")
    place = path if folder else path.absolute().parent
    while not place.exists():
        place = place.absolute().parent
    if not place.is_dir():
        raise DiskError(f"cannot write {path}: {place} is a file: choose another {wanted}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise DiskError(f"cannot write {path}: no permission for {place}: choose another {wanted}")


def printable(path: str | Path) -> str:
    """A path as text; bytes of it that are not UTF-8 are written as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; bytes of file names that are not UTF-8 are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


class BusyError(RuntimeError):
    """Another process is writing to the same folder; the message names the folder."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock a folder for writing; raise BusyError if another process holds the lock.

    The system releases the lock when the process ends, however it ends. Half-written files of a
    killed process are removed.
    """
    path = folder / ".lock"
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=0).acquire()
    except Timeout:
        raise BusyError(
            f"another process is writing to {folder}: wait for it to finish, then run the same "
            "command again"
        ) from None
    with lock:
        own = path.stat()
        for leftover in folder.rglob(".*.part"):
            leftover.unlink(missing_ok=True)
        try:
            yield
        finally:
            # On Windows the lock removes its file itself, once it is released. A folder that was renamed
            # may have a successor, with the lock of another process.
            with suppress(OSError):
                if os.path.samestat(path.stat(), own):
                    path.unlink()
