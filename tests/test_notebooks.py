"""The notebooks: built from their sources, runnable, and their deterministic cells as committed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from vmae import ROOT

spec = importlib.util.spec_from_file_location("build", ROOT / "solutions" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

OVERRIDES = yaml.safe_load((ROOT / "tests" / "overrides.yaml").read_text())
NAMES = [path.stem for path in build.sources()]


@pytest.fixture(scope="session")
def around(tmp_path_factory) -> Path:
    """A checkout for the notebooks of this process alone: where they render sets and leave runs.

    Two notebooks that render the same set at the same time would meet its lock, and a learner's own
    sets and runs are nobody else's. The package is a copy, since it looks for data beside itself;
    the data are links, and what `vmae` would render is not among them.
    """
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "vmae", folder / "vmae", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("notebooks", "data"):
        (folder / name).mkdir()
    for path in (ROOT / "data").iterdir():
        if not any(map(path.match, ("motion*", "film*", "stores"))):
            (folder / "data" / path.name).symlink_to(path)
    return folder


@pytest.fixture
def kernels(around, monkeypatch) -> Path:
    """Kernels that start from now on are of that checkout. The folder that they start in."""
    path = [str(around), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("IPYTHONDIR", str(around / ".ipython"))  # one history, locked by each kernel
    return around / "notebooks"


def parameters(name: str, tmp_path: Path) -> dict:
    """The small parameters of a notebook, with its run in a folder of this test."""
    return OVERRIDES[name] | {"out": str(tmp_path / "run")}


def test_every_notebook_has_small_parameters_that_it_knows():
    assert sorted(OVERRIDES) == NAMES
    for name in NAMES:
        cells = build.read_source(build.SOLUTIONS / f"{name}.py").cells
        known = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
        for parameter in OVERRIDES[name]:
            assert f"\n{parameter} = " in f"\n{known}", f"{name} has no parameter {parameter}"


def test_builds_are_those_of_their_sources():
    assert build.check() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_rebuild_is_byte_identical(name):
    for target, notebook in build.builds(build.SOLUTIONS / f"{name}.py").items():
        assert target.read_bytes() == build.text_of(notebook).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_learners_notebook_runs_to_its_end_unsolved(name, kernels, tmp_path):
    """With papermill, headless, as continuous integration runs it."""
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb", out, parameters(name, tmp_path),
        cwd=kernels, progress_bar=False, log_output=False,
    )  # fmt: skip
    notebook = nbformat.read(out, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    problems = [
        text for cell in code for output in cell.outputs for text in build.output_problems(output)
    ]
    assert problems == []


def run_nbval(
    notebook: nbformat.NotebookNode, copy: Path, cwd: Path
) -> subprocess.CompletedProcess:
    """Execute a notebook with nbval, which compares the outputs of marked cells with those it holds."""
    nbformat.write(notebook, copy)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-q",
         "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(copy.parent), str(copy)],
        cwd=cwd, capture_output=True, text=True, check=False,
        env=os.environ | {"VMAE_STRICT": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_deterministic_cells_print_what_is_committed(name, kernels, tmp_path):
    """nbval runs the solution with small parameters."""
    notebook = load_notebook_node(str(ROOT / "solutions" / f"{name}.ipynb"))
    assert any("NBVAL_CHECK_OUTPUT" in cell.source for cell in notebook.cells)
    done = run_nbval(
        parameterize_notebook(notebook, parameters(name, tmp_path)),
        tmp_path / "copy.ipynb",
        kernels,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_nbval_would_find_another_output(lesson, kernels, tmp_path):
    build.execute(lesson)
    notebook = nbformat.read(lesson.with_suffix(".ipynb"), as_version=4)
    assert run_nbval(notebook, tmp_path / "copy.ipynb", kernels).returncode == 0
    notebook.cells[4].outputs[0].text = "n is 4\n"
    done = run_nbval(notebook, tmp_path / "copy.ipynb", kernels)
    assert done.returncode == 1
    assert "n is 4" in done.stdout


def test_the_report_of_make_run_keeps_alt_text(tmp_path):
    options = re.search(r"jupyter nbconvert (.+) runs/", (ROOT / "Makefile").read_text())[1].split()
    subprocess.run(
        [sys.executable, "-m", "jupyter", "nbconvert", *options, "--output-dir", str(tmp_path),
         str(ROOT / "solutions" / "10_full_run.ipynb")],
        check=True, capture_output=True,
    )  # fmt: skip
    report = (tmp_path / "10_full_run.html").read_text(encoding="utf-8")
    alts = re.findall(r'<img\b[^>]*?\balt="([^"]*)"', report)
    assert len(alts) == len(re.findall(r"<img\b", report)) > 5
    assert all(len(alt) > 20 and "No description" not in alt for alt in alts)


# ---- the builder -----------------------------------------------------------------------------------

LESSON = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
# ---

# %% [markdown]
# # A lesson

# %% tags=["parameters"]
n = 3

# %%
def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %%
# NBVAL_CHECK_OUTPUT
print("n is", n)
"""


@pytest.fixture
def lesson(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(build, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(build, "NOTEBOOKS", tmp_path / "notebooks")
    for folder in (build.SOLUTIONS, build.NOTEBOOKS):
        folder.mkdir()
    path = build.SOLUTIONS / "42_lesson.py"
    path.write_text(LESSON)
    return path


def rebuild(lesson: Path) -> None:
    for target, notebook in build.builds(lesson).items():
        build.write(target, notebook)


def test_the_learner_gets_a_stub_and_the_solution_its_outputs(lesson):
    build.execute(lesson)
    rebuild(lesson)
    assert build.check() == []
    learner = nbformat.read(build.NOTEBOOKS / "42_lesson.ipynb", as_version=4)
    solved = nbformat.read(lesson.with_suffix(".ipynb"), as_version=4)
    assert "def double(x):\n    raise NotImplementedError" in learner.cells[3].source
    assert "return 2 * x" in solved.cells[3].source
    assert all(cell.get("outputs", []) == [] for cell in learner.cells)
    assert solved.cells[4].outputs[0].text == "n is 3\n"


def test_where_vmae_is_not_installed_the_first_cell_says_what_to_type(tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / f"{NAMES[0]}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code").source
    for hidden in (False, True):
        before = "import sys; sys.modules['vmae'] = None\n" if hidden else ""
        done = subprocess.run(
            [sys.executable, "-c", before + first], capture_output=True, text=True, check=False,
            cwd=tmp_path,
        )  # fmt: skip
        assert bool(done.returncode) is hidden
        assert ("python -m pip install -r requirements.txt -e ." in done.stderr) is hidden
        assert "Traceback" not in done.stderr


def test_changed_prose_keeps_the_outputs_and_changed_code_loses_them(lesson):
    build.execute(lesson)
    lesson.write_text(LESSON.replace("# # A lesson", "# # A better lesson"))
    assert any("differs from 42_lesson.py" in text for text in build.check())
    rebuild(lesson)
    assert build.check() == []
    assert nbformat.read(lesson.with_suffix(".ipynb"), as_version=4).cells[4].outputs
    lesson.write_text(LESSON.replace("n = 3", "n = 4"))
    rebuild(lesson)
    assert any("not executed since its code changed" in text for text in build.check())


def test_the_check_finds_drift_orphans_and_poor_outputs(lesson):
    build.execute(lesson)
    rebuild(lesson)
    orphan = build.NOTEBOOKS / "41_gone.ipynb"
    orphan.write_text("{}")
    assert any("41_gone.ipynb: has no source" in text for text in build.check())
    orphan.unlink()
    (build.NOTEBOOKS / "42_lesson.ipynb").unlink()
    assert any("notebooks/42_lesson.ipynb: missing" in text for text in build.check())

    from nbformat.v4 import new_code_cell, new_notebook, new_output

    def found(**data):
        output = new_output("display_data", data=data)
        cell = new_code_cell("1", outputs=[output], metadata={"tags": ["parameters"]})
        return "\n".join(build.problems_of(new_notebook(cells=[cell]), "x", executed=False))

    assert "alt text" in found(**{"image/png": "AAAA"})
    assert "alt text" in found(**{"text/html": "<img src='x'>"})
    assert found(**{"text/html": '<video aria-label="a clip" src="x">'}) == ""
    assert "path of one machine" in found(**{"text/plain": "/home/ada/vmae/data"})
    assert "bytes" in found(**{"text/plain": "x" * 1_600_000})
    no_parameters = new_notebook(cells=[new_code_cell("1")])
    assert "0 cells tagged" in build.problems_of(no_parameters, "x", executed=False)[0]
    failed = new_output("error", ename="ValueError", evalue="", traceback=[])
    assert build.output_problems(failed) == ["ends in ValueError"]
