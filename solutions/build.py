"""Builds the notebooks: solutions/NN_name.py -> notebooks/NN_name.ipynb and solutions/NN_name.ipynb.

    python solutions/build.py                  rebuild all; solutions keep their outputs
    python solutions/build.py --execute 10     run a solution with its own parameters, and stamp it
    python solutions/build.py --verify 10      run it, change nothing; fail if its outputs differ
    python solutions/build.py --check          change nothing; fail on drift and on poor builds

The learner's notebook has no outputs, and `raise NotImplementedError` in place of each region from
`### BEGIN SOLUTION` to `### END SOLUTION`; where a region has a second part from `### INSTEAD`, the
learner gets that part, uncommented: a program with a bug, or `guess = None`. The solution's notebook has
the code whole and the outputs of its last execution. The figure of a cell tagged `picture-NAME` is also written to
solutions/pictures/NAME.png, for the README.

The stamp of a solution holds a hash of its code cells. Changed prose keeps stamp and outputs. Changed
code makes `--check` fail, and leaves the solution as it was executed until it is executed again. Then
the committed outputs stay, timings included, if only names changed (see renaming.py) and the new
outputs are the same (see compare.py); with `--fresh` the new ones are written in any case.

Every notebook gets the same first code cell, which says how `vmae` is installed where it is not. Once
pyproject.toml states the public address, this cell installs it on Colab and Kaggle, and each learner's
notebook and the table in README.md have badges that open it there.
"""

from __future__ import annotations

import argparse
import re
import sys
from base64 import b64decode
from pathlib import Path

from badges import in_readme
from execution import execute, verify
from lesson import address, code_hash, learner, read_source, solution, text_of, write
from nbformat import NotebookNode

SOLUTIONS = Path(__file__).resolve().parent
NOTEBOOKS = SOLUTIONS.parent / "notebooks"
README = SOLUTIONS.parent / "README.md"
MACHINE_PATH = re.compile(r"(?<![\w.])(/root|/home|/tmp|/work|/Users|/mnt|[A-Z]:\\+Users)[/\\]")
LARGEST = 1_500_000  # bytes of a built notebook


def sources() -> list[Path]:
    """The authored lessons, in order."""
    return sorted(SOLUTIONS.glob("[0-9][0-9]_*.py"))


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


def builds(path: Path) -> dict[Path, NotebookNode]:
    """Both notebooks of a lesson, by the file that they belong into."""
    built = path.with_suffix(".ipynb")
    return {
        NOTEBOOKS / built.name: learner(read_source(path), path),
        built: solution(read_source(path), built),
    }


def problems_of(notebook: NotebookNode, name: str, executed: str | None = None) -> list[str]:
    """What is wrong with a built notebook; `executed` is the hash of the code it should have run."""
    problems = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in code)
    if tagged != 1:
        problems.append(f"{name}: {tagged} cells tagged `parameters`; exactly one is needed")
    size = len(text_of(notebook).encode())
    if size > LARGEST:
        problems.append(f"{name}: {size:,} bytes; at most {LARGEST:,}")
    if executed and notebook.metadata.get("vmae", {}).get("code") != executed:
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
        found.append("a figure without alt text; show it with viz")
    for tag in re.findall(r"<(?:img|video)\b[^>]*", str(data.get("text/html", ""))):
        if not re.search(r'(alt|aria-label)="[^"]+"', tag):
            found.append("a picture or video without alt text")
    return found


def check() -> list[str]:
    """All that is wrong with the builds as they lie there."""
    problems = []
    expected: set[Path] = set()
    for path in sources():
        code = code_hash(read_source(path))
        for target, notebook in builds(path).items():
            expected.add(target)
            name = f"{target.parent.name}/{target.name}"
            if not target.exists():
                problems.append(f"{name}: missing; run build.py")
            elif target.read_text(encoding="utf-8") != text_of(notebook):
                problems.append(f"{name}: differs from {path.name}; run build.py")
            problems += problems_of(notebook, name, code if target.parent == SOLUTIONS else None)
            for picture, data in pictures(notebook).items():
                if not picture.exists() or picture.read_bytes() != data:
                    problems.append(f"pictures/{picture.name}: differs from {name}; run build.py")
    if README.read_text(encoding="utf-8") != in_readme(
        README.read_text(encoding="utf-8"), address()
    ):
        problems.append("README.md: the badges in its table are out of date; run build.py")
    for path in sorted([*NOTEBOOKS.glob("*.ipynb"), *SOLUTIONS.glob("*.ipynb")]):
        if path not in expected:
            problems.append(f"{path.parent.name}/{path.name}: has no source NN_name.py")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    for option in ("--execute", "--verify"):
        numbers = [path.stem[:2] for path in sources()]
        parser.add_argument(option, nargs="+", default=[], metavar="NN", choices=numbers)
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        problems = check()
        print("\n".join(problems) or "all notebooks are built from their sources", file=sys.stderr)
        return bool(problems)
    if arguments.verify:
        results = [verify(path) for path in sources() if path.stem[:2] in arguments.verify]
        print("\n".join(text for _, text in results))
        return not all(same for same, _ in results)
    for path in sources():
        if path.stem[:2] in arguments.execute:
            print(execute(path, arguments.fresh), flush=True)
        for target, notebook in builds(path).items():
            write(target, notebook)
            for picture, data in pictures(notebook).items():
                picture.parent.mkdir(exist_ok=True)
                picture.write_bytes(data)
    README.write_text(in_readme(README.read_text(encoding="utf-8"), address()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
