"""The builder: what it makes of a lesson, and what its check finds."""

from __future__ import annotations

from pathlib import Path

import build
import nbformat
import pytest
from execution import execute
from lesson import write
from test_notebooks import run_nbval

HEADER = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
# ---
"""
LESSON = (
    HEADER
    + """
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

# %%
def mean(xs):
    total = sum(xs)
    ### BEGIN SOLUTION
    return total / len(xs)
    ### INSTEAD
    # if xs:
    #     return total / n  # the planted bug
    ### END SOLUTION


### BEGIN SOLUTION
guess = 6
### INSTEAD
# guess = None
### END SOLUTION
"""
)


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
        write(target, notebook)


def test_the_learner_gets_a_stub_and_the_solution_its_outputs(lesson):
    execute(lesson)
    rebuild(lesson)
    assert build.check() == []
    learner = nbformat.read(build.NOTEBOOKS / "42_lesson.ipynb", as_version=4)
    solved = nbformat.read(lesson.with_suffix(".ipynb"), as_version=4)
    assert "def double(x):\n    raise NotImplementedError" in learner.cells[3].source
    assert "return 2 * x" in solved.cells[3].source
    assert learner.cells[5].source.endswith(
        "    total = sum(xs)\n    if xs:\n        return total / n  # the planted bug\n\n\nguess = None"
    )
    assert "return total / len(xs)\n    ### INSTEAD" in solved.cells[5].source
    assert all(cell.get("outputs", []) == [] for cell in learner.cells)
    assert solved.cells[4].outputs[0].text == "n is 3\n"


def test_changed_prose_keeps_the_outputs_and_changed_code_must_be_executed(lesson):
    execute(lesson)
    lesson.write_text(LESSON.replace("# # A lesson", "# # A better lesson"))
    assert any("differs from 42_lesson.py" in text for text in build.check())
    rebuild(lesson)
    assert build.check() == []
    assert nbformat.read(lesson.with_suffix(".ipynb"), as_version=4).cells[4].outputs
    before = lesson.with_suffix(".ipynb").read_bytes()
    lesson.write_text(LESSON.replace("n = 3", "n = 4"))
    rebuild(lesson)
    assert any("not executed since its code changed" in text for text in build.check())
    assert lesson.with_suffix(".ipynb").read_bytes() == before, "code and outputs belong together"
    assert "n = 4" in (build.NOTEBOOKS / "42_lesson.ipynb").read_text()
    lesson.with_suffix(".ipynb").unlink()
    rebuild(lesson)
    assert any("not executed since its code changed" in text for text in build.check())


def test_the_check_finds_drift_orphans_and_poor_outputs(lesson):
    execute(lesson)
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
        return "\n".join(build.problems_of(new_notebook(cells=[cell]), "x"))

    assert "alt text" in found(**{"image/png": "AAAA"})
    assert "alt text" in found(**{"text/html": "<img src='x'>"})
    assert found(**{"text/html": '<video aria-label="a clip" src="x">'}) == ""
    assert "path of one machine" in found(**{"text/plain": "/home/ada/vmae/data"})
    assert "bytes" in found(**{"text/plain": "x" * 1_600_000})
    no_parameters = new_notebook(cells=[new_code_cell("1")])
    assert "0 cells tagged" in build.problems_of(no_parameters, "x")[0]
    failed = new_output("error", ename="ValueError", evalue="", traceback=[])
    assert build.output_problems(failed) == ["ends in ValueError"]


def test_nbval_would_find_another_output(lesson, kernels, tmp_path):
    execute(lesson)
    notebook = nbformat.read(lesson.with_suffix(".ipynb"), as_version=4)
    assert run_nbval(notebook, tmp_path / "copy.ipynb", kernels).returncode == 0
    notebook.cells[4].outputs[0].text = "n is 4\n"
    done = run_nbval(notebook, tmp_path / "copy.ipynb", kernels)
    assert done.returncode == 1
    assert "n is 4" in done.stdout
