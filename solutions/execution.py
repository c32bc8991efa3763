"""Executes a solution."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lesson import KERNEL, code_hash, read_source, write
from nbclient import NotebookClient
from nbformat import NotebookNode


def execute(path: Path) -> None:
    """Run a solution with the parameters that it states, and write it with outputs and stamp."""
    notebook = read_source(path)
    start = time.perf_counter()
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(path.parents[1] / "notebooks")}},
    )  # fmt: skip
    strict, os.environ["VMAE_STRICT"] = os.environ.get("VMAE_STRICT", ""), "1"
    try:  # a solution must pass its own checks, and is no progress of the learner
        client.execute()
    finally:
        os.environ["VMAE_STRICT"] = strict
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
    write(path.with_suffix(".ipynb"), notebook)
