"""Executes a solution, and decides whether its committed outputs stay."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import nbformat
from compare import Comparison, compare
from lesson import KERNEL, code_hash, lesson_code, read_source, with_outputs, write
from nbclient import NotebookClient
from nbformat import NotebookNode
from renaming import changed_code

ROOT = Path(__file__).resolve().parents[1]


def committed(path: Path) -> NotebookNode | None:
    """The solution's notebook as git has it, else as it lies there; None if it was never executed.

    The file itself may hold the outputs of an attempt that went wrong.
    """
    try:
        shown = subprocess.run(
            ["git", "show", f"HEAD:./{path.name}"], cwd=path.parent, capture_output=True, check=True
        )
        notebook = nbformat.reads(shown.stdout.decode(), as_version=4)
    except (OSError, subprocess.CalledProcessError):  # no git, or not in it
        if not path.exists():
            return None
        notebook = nbformat.read(path, as_version=4)
    return notebook if "vmae" in notebook.metadata else None


def run(path: Path) -> NotebookNode:
    """A solution, executed with the parameters that it states: with outputs and stamp."""
    notebook = read_source(path)
    start = time.perf_counter()
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(path.parents[1] / "notebooks")}},
    )  # fmt: skip
    # The package is that of this checkout, wherever another one may be installed. A solution must
    # pass its own checks, and is no progress of the learner.
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client.execute(env=os.environ | {"PYTHONPATH": search, "VMAE_STRICT": "1"})
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.pop("transient", None)
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    notebook.metadata["vmae"] = {
        "code": code_hash(notebook),
        "parameters": "as stated",
        "executed": datetime.now(UTC).strftime("%Y-%m-%d"),
        "minutes": round((time.perf_counter() - start) / 60, 1),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    return notebook


def execute(path: Path, fresh: bool = False) -> str:
    """Run a solution and write it; returns what became of its outputs, and why.

    The committed outputs stay if only names changed in the code and the new outputs are the same: the
    diff then shows the names alone, and the stamp says when the outputs were verified.
    """
    built = path.with_suffix(".ipynb")
    old = None if fresh else committed(built)
    new = run(path)
    write(built, new)  # first of all: it may have taken long
    if old is None:
        return f"{path.stem}: new outputs"
    found = compare(lesson_code(old), lesson_code(new))
    if found.cells:
        found.differences += changed_code(lesson_code(old), lesson_code(new))
    if found.differences:
        return report(path, "new outputs", found)
    stamp = new.metadata["vmae"]
    stamp = old.metadata["vmae"] | {"code": stamp["code"], "verified": stamp["executed"]}
    write(built, with_outputs(read_source(path), old, stamp))
    return report(path, "outputs kept", found)


def verify(path: Path) -> tuple[bool, str]:
    """Run a solution and write nothing; whether it shows what is committed, and what differs."""
    old = committed(path.with_suffix(".ipynb"))
    if old is None:
        return False, f"{path.stem}: no outputs are committed"
    found = compare(lesson_code(old), lesson_code(run(path)))
    same = not found.differences
    return same, report(path, "outputs agree" if same else "outputs differ", found)


def report(path: Path, result: str, found: Comparison) -> str:
    """What a re-execution found: a line, and one for each difference."""
    return "\n  ".join([f"{path.stem}: {result}; {found}", *found.differences])
