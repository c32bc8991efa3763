"""Imports inside the package go one way: each module imports only those before it in ORDER."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from vmae import ROOT

#: From the ground up. A folder counts as one entry; inside it, too, there are no cycles.
ORDER = (
    "vmae", "base_config", "grid", "config", "inference", "positions", "init", "layers", "masking",
    "vit", "mae",
    "support", "weights", "data", "cost", "train", "predict", "figures", "course", "cli",
    "__main__",
)  # fmt: skip
#: The same inside data/.
DATA_ORDER = ("config", "sets", "reading", "augment", "writing", "checking")

PACKAGE = ROOT / "vmae"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """The package's modules that a file imports on import, not inside functions."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if types_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & MODULES.keys() or {node.module}
        todo.extend(ast.iter_child_nodes(node))
    return found & MODULES.keys()


def place(module: str) -> int:
    return ORDER.index(module.split(".")[1] if "." in module else module)


def test_every_module_is_in_the_order():
    assert {
        name.split(".")[-1] if name.count(".") < 2 else name.split(".")[1] for name in MODULES
    } == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_comes_before_it(module):
    later = {m for m in imported(MODULES[module]) if place(m) > place(module)}
    assert not later, f"{module} imports {sorted(later)}, which come after it"


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.startswith("vmae.data.") and name.count(".") > 2]
)
def test_inside_data_imports_go_one_way_too(module):
    own = DATA_ORDER.index(module.split(".")[2])
    found = {m.split(".")[2] for m in imported(MODULES[module]) if m.startswith("vmae.data.")}
    assert all(DATA_ORDER.index(folder) <= own for folder in found)


def test_there_is_no_cycle():
    graph = {module: imported(path) - {module} for module, path in MODULES.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the cycle


def test_contributing_states_the_same_order():
    text = (
        (ROOT / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .split("Imports go one way: ")[1]
        .split("\n(")[0]
    )
    stated = [name.strip(" .\n").rstrip("/") for name in text.replace("·", ",").split(",")]
    assert stated == [name for name in ORDER if not name.startswith(("vmae", "__"))]


def test_modules_are_short():
    """At most 300 lines; but the exercises of a lesson stay together in one file."""
    long = {
        module: lines
        for module, path in MODULES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
        and not module.startswith("vmae.course.checks.notebook_")
    }
    assert not long, f"over 300 lines, so split what does more than one thing: {long}"


def test_importing_the_package_loads_no_heavy_library():
    """So `import vmae` and `vmae --help` take a fraction of a second."""
    code = "import sys, vmae, vmae.cli; print(sorted({'torch', 'numpy', 'decord'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
