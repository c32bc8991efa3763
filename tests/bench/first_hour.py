"""A new user's first hour, by the clock: python tests/bench/first_hour.py

In a fresh clone, with a new environment: seconds of the set-up; then from the start of lesson 00 to its
first solved exercise, without the time to think, and to its first reconstruction. The result goes to
data/bench/DEVICE.json. The caches of uv and pip begin empty, so packages are downloaded from wherever pip
is configured to. How long `make run` takes is on the stamp of lesson 10.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import results

from vmae import ROOT


def executed(clone: Path, lesson: str) -> tuple[float, list[dict[str, Any]]]:
    """When the call that executes a lesson's solution began, in seconds, and the executed cells."""
    out = clone / "runs" / f"{lesson}.ipynb"
    out.parent.mkdir(exist_ok=True)
    command = [".venv/bin/python", "-m", "papermill", f"solutions/{lesson}.ipynb", out]
    begin = time.time()
    subprocess.run([*command, "--cwd", "notebooks"], cwd=clone, check=True, capture_output=True)
    return begin, json.loads(out.read_text())["cells"]


def end_of_first(cells: list[dict[str, Any]], reached: Callable[[dict[str, Any]], bool]) -> float:
    """When the first cell that is meant had been executed, in seconds."""
    end = next(c["metadata"]["papermill"]["end_time"] for c in cells if reached(c))
    return datetime.fromisoformat(end).timestamp()


def is_solved(cell: dict[str, Any]) -> bool:
    return cell["cell_type"] == "code" and "check(" in "".join(cell["source"])


def is_reconstruction(cell: dict[str, Any]) -> bool:
    return cell["cell_type"] == "code" and ".reconstruct(" in "".join(cell["source"])


#: What is timed in lesson 00: the first cell of its kind.
REACHED = {"first exercise": is_solved, "first reconstruction": is_reconstruction}


def seconds(clone: Path, target: str) -> float:
    """Seconds of a target of make, with empty caches of packages."""
    empty = {name: str(clone.parent / name) for name in ("UV_CACHE_DIR", "PIP_CACHE_DIR")}
    begin = time.time()
    subprocess.run(
        ["make", target], cwd=clone, check=True, capture_output=True, env=os.environ | empty
    )
    return time.time() - begin


def sentence() -> str:
    """What the README says."""
    taken = results.found("cpu")["first hour"]["seconds"]
    return (
        f"On two CPU cores, from a fresh clone, the set-up took {taken['set-up']:.0f} seconds with a package "
        f"index nearby; elsewhere the download decides. Lesson 00 then runs to its first exercise in "
        f"{taken['first exercise']:.0f} seconds, and to its first reconstruction in "
        f"{taken['first reconstruction']:.0f}."
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "course"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        found = {"set-up": seconds(clone, ".venv/.ready")}
        begin, cells = executed(clone, "00_start_here")
        for name, reached in REACHED.items():
            found[name] = end_of_first(cells, reached) - begin
    results.keep("first hour", {"seconds": {name: round(x, 1) for name, x in found.items()}})


if __name__ == "__main__":
    main()
