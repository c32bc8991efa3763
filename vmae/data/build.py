"""What every set that the course makes shares: claimed, made in parallel, resumable, marked complete."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from vmae.data.annotations import write_list
from vmae.data.encode import write_text


def begin_set(folder: Path, spec: dict[str, Any]) -> bool:
    """Claim a folder for a set; False where it is already complete."""
    for name in ("set.json", "set.partial.json"):
        if (folder / name).exists():
            found = json.loads((folder / name).read_text())
            if found != json.loads(json.dumps(spec)):
                differs = ", ".join(
                    f"{k} {found.get(k)!r} there, {spec.get(k)!r} asked"
                    for k in spec
                    if found.get(k) != spec[k]
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
        write_list(folder / f"{split}.csv", rows)
    write_text(folder / "set.json", json.dumps(spec, indent=1))
    (folder / "set.partial.json").unlink(missing_ok=True)


def run_parallel(
    work: Callable[[Any], Any], jobs: Sequence[Any], workers: int, chunk: int = 32
) -> Iterator[Any]:
    """Results of `work` on each job, in order; in this process where there is little to do.

    Workers are spawned, not forked: a fork of a process that runs OpenMP threads can hang.
    """
    if workers < 2 or len(jobs) < 4 * chunk:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(work, jobs, chunksize=chunk)
