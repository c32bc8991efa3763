"""Builds the notebooks: solutions/NN_name.py -> notebooks/NN_name.ipynb and solutions/NN_name.ipynb.

    python solutions/build.py                  rebuild all; outputs of unchanged solutions are kept
    python solutions/build.py --execute 10     run a solution with its own parameters, and stamp it
    python solutions/build.py --check          change nothing; fail on drift and on poor builds

The learner's notebook has no outputs, and `raise NotImplementedError` in place of each region from
`### BEGIN SOLUTION` to `### END SOLUTION`. The solution's notebook has the code whole and the
outputs of its last execution. The figure of a cell tagged `picture-NAME` is also written to
solutions/pictures/NAME.png, for the README. The stamp of a solution holds a hash of the code cells and the parameters: changed
code, or a run with other parameters, makes `--check` fail; changed prose does not. Every notebook
gets the same first code cell, which says how `vmae` is installed where it is not; it names the
public address once pyproject.toml does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import sys
import time
import tomllib
from base64 import b64decode
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

SOLUTIONS = Path(__file__).resolve().parent
NOTEBOOKS = SOLUTIONS.parent / "notebooks"
REGION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[^\n]*(\n|\Z)", re.S | re.M
)
MACHINE_PATH = re.compile(r"(?<![\w.])(/root|/home|/tmp|/work|/Users|/mnt|[A-Z]:\\+Users)[/\\]")
LARGEST = 1_500_000  # bytes of a built notebook
PYPROJECT = SOLUTIONS.parent / "pyproject.toml"
GUARD = """\
try:
    import vmae
except ModuleNotFoundError:
    raise SystemExit(
        "This kernel has no vmae. In a terminal, in the folder of the checkout:\\n"
        "    python -m pip install -r requirements.txt -e .\\n"
{clone}        "Then restart the kernel."
    ) from None"""
CLONE = """\
        "On Colab and Kaggle, in a cell: !git clone {address} course && pip install -e course\\n"
"""
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def sources() -> list[Path]:
    """The authored lessons, in order."""
    return sorted(SOLUTIONS.glob("[0-9][0-9]_*.py"))


def address() -> str | None:
    """The public address, from the one place that states it; None until the owner fills it in."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def guard() -> str:
    """The first code cell of every notebook, which says how `vmae` is installed where it is not."""
    stated = address()
    return GUARD.format(clone=CLONE.format(address=stated) if stated else "")


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


def learner(notebook: NotebookNode) -> NotebookNode:
    """The same with solutions taken out."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = REGION.sub(r"\1raise NotImplementedError\2", cell.source)
    return notebook


def lesson_code(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells of a lesson itself: without the guard, the only one whose source is hidden."""
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    return [cell for cell in code if "jupyter" not in cell.metadata]


def code_hash(notebook: NotebookNode) -> str:
    """Of everything that an execution depends on in the notebook: its code cells, in order."""
    code = [cell.source for cell in lesson_code(notebook)]
    return hashlib.sha256("\n# %%\n".join(code).encode()).hexdigest()[:16]


def solution(notebook: NotebookNode, built: Path) -> NotebookNode:
    """The same with the outputs of its last execution, where the code of every cell is unchanged."""
    if not built.exists():
        return notebook
    before = nbformat.read(built, as_version=4)
    stamp = before.metadata.get("vmae")
    if stamp is None or stamp["code"] != code_hash(notebook):
        return notebook
    notebook.metadata["vmae"] = stamp
    for cell, old in zip(lesson_code(notebook), lesson_code(before), strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return notebook


def execute(path: Path) -> None:
    """Run a solution with the parameters that it states, and write it with outputs and stamp."""
    notebook = read_source(path)
    start = time.perf_counter()
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
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


def pictures(notebook: NotebookNode) -> dict[Path, bytes]:
    """The first figure of each cell tagged `picture-NAME`, by the file it belongs into."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            data = [
                o.data["image/png"]
                for o in cell.get("outputs", [])
                if "image/png" in o.get("data", {})
            ]
            if tag.startswith("picture-") and data:
                name = tag.removeprefix("picture-") + ".png"
                found[SOLUTIONS / "pictures" / name] = b64decode(data[0])
    return found


def text_of(notebook: NotebookNode) -> str:
    """A notebook as its file: the same notebook gives the same bytes."""
    return nbformat.writes(notebook, version=4) + "\n"


def write(path: Path, notebook: NotebookNode) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text_of(notebook), encoding="utf-8")


def builds(path: Path) -> dict[Path, NotebookNode]:
    """Both notebooks of a lesson, by the file that they belong into."""
    built = path.with_suffix(".ipynb")
    return {
        NOTEBOOKS / built.name: learner(read_source(path)),
        built: solution(read_source(path), built),
    }


def problems_of(notebook: NotebookNode, name: str, executed: bool) -> list[str]:
    """What is wrong with a built notebook."""
    problems = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in code)
    if tagged != 1:
        problems.append(f"{name}: {tagged} cells tagged `parameters`; exactly one is needed")
    size = len(text_of(notebook).encode())
    if size > LARGEST:
        problems.append(f"{name}: {size:,} bytes; at most {LARGEST:,}")
    if executed and "vmae" not in notebook.metadata:
        problems.append(
            f"{name}: not executed since its code changed; run build.py --execute {Path(name).stem[:2]}"
        )
    for number, cell in enumerate(code, 1):
        if MACHINE_PATH.search(str(cell.outputs) + cell.source):
            problems.append(f"{name}: code cell {number} names a path of one machine")
        for output in cell.outputs:
            problems += [f"{name}: code cell {number}: {text}" for text in output_problems(output)]
    return problems


def output_problems(output: NotebookNode) -> list[str]:
    """Errors, and pictures that a reader who cannot see them learns nothing from."""
    if output.output_type == "error":
        return [f"ends in {output.ename}"]
    found = []
    data = output.get("data", {})
    if "image/png" in data and not output.metadata.get("image/png", {}).get("alt"):
        found.append("a figure without alt text; show it with vmae.viz")
    for tag in re.findall(r"<(?:img|video)\b[^>]*", str(data.get("text/html", ""))):
        if not re.search(r'(alt|aria-label)="[^"]+"', tag):
            found.append("a picture or video without alt text")
    return found


def check() -> list[str]:
    """All that is wrong with the builds as they lie there."""
    problems = []
    expected: set[Path] = set()
    for path in sources():
        for target, notebook in builds(path).items():
            expected.add(target)
            name = f"{target.parent.name}/{target.name}"
            if not target.exists():
                problems.append(f"{name}: missing; run build.py")
            elif target.read_text(encoding="utf-8") != text_of(notebook):
                problems.append(f"{name}: differs from {path.name}; run build.py")
            problems += problems_of(notebook, name, executed=target.parent == SOLUTIONS)
            for picture, data in pictures(notebook).items():
                if not picture.exists() or picture.read_bytes() != data:
                    problems.append(f"pictures/{picture.name}: differs from {name}; run build.py")
    for path in sorted([*NOTEBOOKS.glob("*.ipynb"), *SOLUTIONS.glob("*.ipynb")]):
        if path not in expected:
            problems.append(f"{path.parent.name}/{path.name}: has no source NN_name.py")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--execute", nargs="+", default=[], metavar="NN")
    arguments = parser.parse_args()
    if arguments.check:
        problems = check()
        print("\n".join(problems) or "all notebooks are built from their sources", file=sys.stderr)
        return bool(problems)
    for path in sources():
        if path.stem[:2] in arguments.execute:
            execute(path)
        for target, notebook in builds(path).items():
            write(target, notebook)
            for picture, data in pictures(notebook).items():
                picture.parent.mkdir(exist_ok=True)
                picture.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
