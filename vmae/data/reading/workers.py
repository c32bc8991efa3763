"""Work in parallel processes. If a worker process dies, a clear error is raised."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import psutil
from torch.utils.data import DataLoader, Dataset

#: Where worker processes leave a batch for the main process, on Linux.
SHARED = Path("/dev/shm")


#: Bytes of memory that a process which renders may take: measured, 0.42 GB, mostly libraries.
RENDERER = 500_000_000


class WorkerError(RuntimeError):
    """A worker process died or cannot start; the message gives the likely cause and what to do."""


def check_workers(shared: int = 0) -> None:
    """Raise WorkerError before worker processes are started that would fail, or hang.

    shared   bytes of batches that are in shared memory at one time
    """
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    if script is not None and getattr(main, "__spec__", None) is None:  # not `python -m`
        guard = 'if __name__ == "__main__":'
        none = "or start none (num_workers=0; in some functions, workers=0)"
        if not Path(script).is_file():
            raise WorkerError(
                "worker processes cannot start from a program on standard input: save it as a file, "
                f"with its code under `{guard}`, {none}"
            )
        if "__name__" not in Path(script).read_text(encoding="utf-8", errors="replace"):
            raise WorkerError(
                f"worker processes cannot start: each of them would run {script} again from its first "
                f"line, because it has no guard. Put its code under `{guard}`, {none}"
            )
    if not SHARED.is_dir():
        return
    shared *= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = shutil.disk_usage(SHARED).free
    if free < shared:
        raise WorkerError(
            f"worker processes need about {shared / 1e6:,.1f} MB of shared memory for batches, but only "
            f"{free / 1e6:,.1f} MB are free in {SHARED}: start the container with more, such as "
            f"--shm-size={math.ceil(2 * shared / 1e9)}g, use fewer workers or a smaller batch, or set "
            "num_workers to 0"
        )


def rendering_workers(wanted: int | None = None) -> int:
    """How many processes render: as many as `wanted`, as there are cores, and as memory has room for."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on a Mac or on Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    room = psutil.virtual_memory().available // RENDERER
    return max(1, min(cores if wanted is None else wanted, cores, room))


def run_parallel(
    work: Callable[[Any], Any],
    jobs: Sequence[Any],
    workers: int,
    chunk: int = 32,
    shared: int = 0,
) -> Iterator[Any]:
    """Yield the result of `work` on each job, in order; few jobs are done in this process.

    chunk    jobs that a worker gets at once
    shared   bytes of shared memory that the results of a chunk take, if they are tensors

    PyTorch's DataLoader runs the workers: it notices when one dies, they end with their parent,
    and they stay only a few chunks ahead, so results never pile up. They are spawned rather than
    forked, because forking a process with OpenMP threads can hang.
    """
    if workers < 2 or len(jobs) < 4 * chunk:
        yield from map(work, jobs)
        return
    # The jobs reach the workers as keys, in small messages. As a part of the dataset they would have to
    # be read by one starting worker before the next can start, since a pipe holds 64 KB only.
    check_workers((2 * workers + 1) * shared)
    loader = DataLoader(
        _Jobs(work),
        batch_sampler=[list(jobs[i : i + chunk]) for i in range(0, len(jobs), chunk)],
        num_workers=workers,
        collate_fn=as_is,
        multiprocessing_context="spawn",
        worker_init_fn=partial(start_worker, os.getpid()),
    )
    with named_worker_deaths():
        for results in loader:
            for result in results:
                if isinstance(result, _Raised):
                    raise result.error
                yield result


def start_worker(parent: int, _: int) -> None:
    """Prepare a worker for its end; if its parent has been killed while it started, that is now.

    PyTorch's workers only notice that the parent has changed since they started working.
    """
    if os.getppid() != parent:
        os._exit(1)
    Finalize(None, _leave, exitpriority=-1000)  # after those of the queues


def _leave() -> None:
    """End a worker that has nothing to report without the destructors of libraries.

    The threads of a decoder that was stopped in the middle of a video abort the process there.
    """
    if sys.exc_info()[0] is None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@dataclass
class _Raised:
    """An error raised by a job, passed back from the worker."""

    error: Exception


class _Jobs(Dataset[Any]):
    """A dataset whose keys are jobs and whose items are their results."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def __getitem__(self, job: Any) -> Any:
        try:
            return self.work(job)
        except Exception as error:  # `run_parallel` raises it again unchanged
            return _Raised(error)


def as_is(batch: Any) -> Any:
    """A batch, which workers have already collated."""
    return batch


@contextmanager
def named_worker_deaths() -> Iterator[None]:
    """Raise WorkerError if a worker process dies in this block, or in a function so decorated.

    A loader's worker may die at any time between two batches, so wrap the whole loop.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error) or isinstance(error, WorkerError):
            raise
        raise WorkerError(
            f"a worker process died ({str(error).strip()}), most likely because the system ran "
            "out of memory. Use fewer workers (--num-workers, data.num_workers; with 0, "
            "the main process reads the videos), smaller frames or a smaller batch. Completed work "
            "is kept: to continue, run the same command again (for training, add --resume)"
        ) from error
