"""What every set that the course makes shares: claimed, made in parallel, resumable, marked complete.

A worker process that dies is an error that says so; a folder has one writer at a time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from torch.utils.data import DataLoader, Dataset

from vmae.data.encode import disk_errors, write_text


class WorkerError(RuntimeError):
    """A worker process died; the message says why that may be, and the way out."""


class BusyError(RuntimeError):
    """Another process writes the same folder; the message names it."""


def begin_set(folder: Path, spec: dict[str, Any]) -> bool:
    """Claim a folder for a set; False where it is already complete."""
    for name in ("set.json", "set.partial.json"):
        if (folder / name).exists():
            found = json.loads((folder / name).read_text())
            if found != json.loads(json.dumps(spec)):
                differs = ", ".join(
                    f"{k} {found.get(k)!r} there, {spec.get(k)!r} asked"
                    for k in found | spec
                    if found.get(k) != spec.get(k)
                )
                raise FileExistsError(
                    f"{folder} holds another set ({differs}): give another folder, or delete this one"
                )
            if name == "set.json":
                return False
    if folder.exists() and any(folder.iterdir()) and not (folder / "set.partial.json").exists():
        raise FileExistsError(f"{folder} exists and holds something else: give another folder")
    write_text(folder / "set.partial.json", json.dumps(spec, indent=1))
    return True


def finish_set(
    folder: Path,
    spec: dict[str, Any],
    classes: Sequence[str],
    lists: dict[str, list[tuple[str, int]]],
) -> None:
    """Write the class list, the annotation files and, last, set.json, which marks it complete."""
    write_text(folder / "classes.txt", "\n".join(classes) + "\n")
    for split, rows in lists.items():
        lines = "".join(f"{name} {label}\n" for name, label in rows)
        write_text(folder / f"{split}.csv", lines)
    write_text(folder / "set.json", json.dumps(spec, indent=1))
    (folder / "set.partial.json").unlink(missing_ok=True)


def run_parallel(
    work: Callable[[Any], Any], jobs: Sequence[Any], workers: int, chunk: int = 32
) -> Iterator[Any]:
    """Results of `work` on each job, in order; in this process where there is little to do.

    PyTorch's loader runs the workers: it notices one that dies, they end with their parent, and
    they are only a few chunks ahead, so results never pile up. They are spawned, not forked: a
    fork of a process that runs OpenMP threads can hang.
    """
    if workers < 2 or len(jobs) < 4 * chunk:
        yield from map(work, jobs)
        return
    loader = DataLoader(
        _Jobs(work, jobs),
        batch_size=chunk,
        num_workers=workers,
        collate_fn=_as_is,
        multiprocessing_context="spawn",
        worker_init_fn=partial(end_with_parent, os.getpid()),
    )
    with named_worker_deaths():
        for results in loader:
            for result in results:
                if isinstance(result, _Raised):
                    raise result.error
                yield result


def end_with_parent(parent: int, _: int) -> None:
    """At the start of a worker: end where the parent was killed meanwhile.

    PyTorch's workers watch for another parent than the one they find when they begin their work.
    """
    if os.getppid() != parent:
        os._exit(1)


@dataclass
class _Raised:
    """An error of a job, on its way from the worker."""

    error: Exception


class _Jobs(Dataset[Any]):
    """Jobs as a data set whose items are their results."""

    def __init__(self, work: Callable[[Any], Any], jobs: Sequence[Any]) -> None:
        self.work, self.jobs = work, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, place: int) -> Any:
        try:
            return self.work(self.jobs[place])
        except Exception as error:  # raised again by `run_parallel`, in its own words
            return _Raised(error)


def _as_is(batch: Any) -> Any:
    return batch


@contextmanager
def named_worker_deaths() -> Iterator[None]:
    """Around code, or above a function, that uses worker processes: their death is a WorkerError.

    A loader's worker may die at any time between two batches, so this goes around the whole loop.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise WorkerError(
            f"a worker process died ({str(error).strip()}): most likely the memory ran out and the "
            "system killed it. Use fewer workers (--workers, data.workers; 0 reads in the main "
            "process), smaller frames or a smaller batch. What is complete is kept: the same command "
            "goes on from it (pre-training: with --resume)"
        ) from error


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
