"""A lesson as a notebook: the learner's, with solutions taken out, and the solution's, with outputs.

Every notebook gets the same first code cell, the guard: it says how `vmae` is installed where it is not.
Once pyproject.toml states the public address, it does that itself on Colab and Kaggle, with hosted.py,
and the learner's notebook has their badges. The stamp of a solution, `vmae` in its
metadata, holds a hash of its code cells: outputs belong to that code alone.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import jupytext
import nbformat
from badges import badges
from nbformat import NotebookNode

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
REGION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION\n.*?(?:^[ \t]*### INSTEAD\n(.*?))?^[ \t]*### END SOLUTION[^\n]*(\n|\Z)",
    re.S | re.M,
)
GUARD = """\
try:
    import vmae
except ModuleNotFoundError:
    raise SystemExit(
        "This kernel has no vmae. In a terminal, in the folder of the checkout:\\n"
        "    python -m pip install -r requirements.txt -e .\\n"
        "Then restart the kernel."
    ) from None"""
#: The same with an address: it says where a checkout comes from, and on Colab and Kaggle does it all.
GUARD_WITH_ADDRESS = """\
try:
    import vmae
except ModuleNotFoundError:
    import os, pathlib, runpy, subprocess

    if not {{"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}} & os.environ.keys():
        raise SystemExit(
            "This kernel has no vmae. In a terminal, in the folder of the checkout:\\n"
            "    python -m pip install -r requirements.txt -e .\\n"
            "Then restart the kernel. A checkout comes from: git clone {address}"
        ) from None
    if not pathlib.Path("course").exists():
        clone = ["git", "clone", "--quiet", "--depth=1", "{address}", "course"]
        if subprocess.run(clone).returncode:
            raise SystemExit("git clone failed. On Kaggle, switch Internet on in the settings.") from None
    runpy.run_path("course/solutions/hosted.py")["main"]()"""
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def address() -> str | None:
    """The public address, from the one place that states it; None until the owner fills it in."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def guard() -> str:
    """The first code cell of every notebook: what to do, or what it does, where `vmae` is not installed."""
    stated = address()
    return GUARD_WITH_ADDRESS.format(address=stated) if stated else GUARD


def read_source(path: Path) -> NotebookNode:
    """A lesson as a notebook without outputs; cell ids depend on the source alone."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.cells.insert(1, nbformat.v4.new_code_cell(guard()))
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        kind = f"{path.stem} {cell.cell_type} {cell.source}"
        seen[kind] = seen.get(kind, 0) + 1
        cell.id = hashlib.sha256(f"{kind} {seen[kind]}".encode()).hexdigest()[:12]
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k == "tags"})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells[1].metadata["jupyter"] = {"source_hidden": True}
    return notebook


def learner(notebook: NotebookNode, path: Path) -> NotebookNode:
    """The notebook of the lesson at `path` with solutions taken out, and badges under its title."""
    if found := badges(f"notebooks/{path.stem}.ipynb", address()):
        title, _, text = notebook.cells[0].source.partition("\n")
        notebook.cells[0].source = f"{title}\n\n{' '.join(found)}\n{text}"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = REGION.sub(_stub, cell.source)
    return notebook


def _stub(region: re.Match[str]) -> str:
    """What a learner finds in place of a solution: what stands, as comments, under INSTEAD, if anything."""
    indent, instead, end = region.groups()
    if instead is None:
        return f"{indent}raise NotImplementedError{end}"
    return re.sub(r"^([ \t]*)# ?", r"\1", instead, flags=re.M).removesuffix("\n") + end


def lesson_code(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells of a lesson itself: without the guard, the only one whose source is hidden."""
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [cell for cell in code if "jupyter" not in cell.metadata]


def code_hash(notebook: NotebookNode) -> str:
    """Of everything that an execution depends on in the notebook: its code cells, in order."""
    code = [cell.source for cell in lesson_code(notebook)]
    return hashlib.sha256("\n# %%\n".join(code).encode()).hexdigest()[:16]


def solution(notebook: NotebookNode, built: Path) -> NotebookNode:
    """The same with the outputs of its last execution.

    Where the code has changed since then, the notebook stays as it was executed until the next
    execution, which may find that its outputs are still right.
    """
    before = nbformat.read(built, as_version=4) if built.exists() else notebook
    if "vmae" not in before.metadata:
        return notebook
    stamp = before.metadata["vmae"]
    return with_outputs(notebook, before, stamp) if stamp["code"] == code_hash(notebook) else before


def with_outputs(notebook: NotebookNode, before: NotebookNode, stamp: dict) -> NotebookNode:
    """The same with the outputs of another build of the same cells."""
    notebook.metadata["vmae"] = stamp
    for cell, old in zip(lesson_code(notebook), lesson_code(before), strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return notebook


def text_of(notebook: NotebookNode) -> str:
    """A notebook as its file: the same notebook gives the same bytes."""
    return nbformat.writes(notebook, version=4) + "\n"


def write(path: Path, notebook: NotebookNode) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text_of(notebook), encoding="utf-8")
