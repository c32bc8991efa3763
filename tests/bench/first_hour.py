"""A new user's first hour, by the clock: python tests/bench/first_hour.py

In a fresh clone, with a new environment: seconds of the set-up; from the start of lesson 00 to its
first picture; from the start of lesson 01 to its first solved exercise, without the time to think;
and of `make run`. The result goes to data/bench/DEVICE.json. Packages come from the network, or from a
cache of uv or pip.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import results

from vmae import ROOT


def until(clone: Path, lesson: str, reached: Callable[[dict[str, Any]], bool]) -> float:
    """Seconds from the call that opens a lesson's solution to the end of the first cell that is meant."""
    executed = clone / "runs" / f"{lesson}.ipynb"
    executed.parent.mkdir(exist_ok=True)
    command = [".venv/bin/python", "-m", "papermill", f"solutions/{lesson}.ipynb", executed]
    begin = time.time()
    subprocess.run([*command, "--cwd", "notebooks"], cwd=clone, check=True, capture_output=True)
    cells = json.loads(executed.read_text())["cells"]
    end = next(c["metadata"]["papermill"]["end_time"] for c in cells if reached(c))
    return datetime.fromisoformat(end).timestamp() - begin


def has_picture(cell: dict[str, Any]) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def is_solved(cell: dict[str, Any]) -> bool:
    return cell["cell_type"] == "code" and "check(" in "".join(cell["source"])


def seconds(clone: Path, target: str) -> float:
    begin = time.time()
    subprocess.run(["make", target], cwd=clone, check=True, capture_output=True)
    return time.time() - begin


def sentence() -> str:
    """What the README says."""
    taken = results.found("cpu")["first hour"]["seconds"]
    return (
        f"On two CPU cores, from a fresh clone, the set-up takes {taken['set-up'] / 60:.1f} minutes where "
        f"downloads are quick. Lesson 00 then shows its first picture after {taken['first picture']:.0f} "
        f"seconds, and lesson 01 reaches its first exercise after {taken['first exercise']:.0f}."
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "course"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        found = {
            "set-up": seconds(clone, ".venv/.ready"),
            "first picture": until(clone, "00_start_here", has_picture),
            "first exercise": until(clone, "01_vision_transformer", is_solved),
            "make run": seconds(clone, "run"),
        }
    results.keep("first hour", {"seconds": {name: round(x, 1) for name, x in found.items()}})


if __name__ == "__main__":
    main()
