"""Work in parallel processes; a worker process that dies is an error that says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, Dataset


class WorkerError(RuntimeError):
    """A worker process died; the message says why that may be, and the way out."""


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
            "system killed it. Use fewer workers (--num-workers, data.num_workers; 0 reads in the main "
            "process), smaller frames or a smaller batch. What is complete is kept: the same command "
            "goes on from it (pre-training: with --resume)"
        ) from error
