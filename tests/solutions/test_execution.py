"""Executing a lesson again: which outputs stay, which are new, and what is reported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import build
import nbformat
import pytest
from execution import execute
from lesson import code_hash
from test_builder import HEADER, rebuild

from vmae import ROOT

LESSON = (
    HEADER
    + '''
# %% [markdown]
# # A lesson

# %% tags=["parameters"]
n = 3

# %%
import json as reader
from pathlib import Path

from IPython.display import display
from PIL import Image

# %%
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %%
state = reader.loads(Path("state.json").read_text())  # stands for what the package computes
print("twice n is", double(n))
print(f"loss {state['loss']:.4f} after {state['seconds']} s")

# %%
data = {"image/png": Image.new("L", (64, 64), state["shade"])._repr_png_(), "text/plain": "grey"}
display(data, metadata={"image/png": {"alt": "grey"}}, raw=True)
'''
)
STATE = {"loss": 0.5, "seconds": 3.5, "shade": 100}
TIMING = "loss 0.5000 after 3.5 s"


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """A folder with the lesson, executed and built."""
    folder = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        write(folder, patch)
        execute(build.SOLUTIONS / "42_lesson.py")
        rebuild(build.SOLUTIONS / "42_lesson.py")
        assert build.check() == []
    return folder


def write(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for name in ("solutions", "notebooks"):
        (folder / name).mkdir(exist_ok=True)
        patch.setattr(build, name.upper(), folder / name)
    (folder / "notebooks" / "state.json").write_text(json.dumps(STATE))
    (folder / "solutions" / "42_lesson.py").write_text(LESSON)


@pytest.fixture
def lesson(executed, tmp_path, monkeypatch) -> Path:
    shutil.copytree(executed, tmp_path / "course")
    write(tmp_path / "course", monkeypatch)
    return build.SOLUTIONS / "42_lesson.py"


def edit(lesson: Path, *changes: tuple[str, str], **state: float) -> None:
    text = lesson.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    lesson.write_text(text)
    (build.NOTEBOOKS / "state.json").write_text(json.dumps(STATE | state))


def printed(lesson: Path) -> str:
    cells = nbformat.read(lesson.with_suffix(".ipynb"), as_version=4).cells
    return "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", []))


def stamp(lesson: Path) -> dict:
    return json.loads(lesson.with_suffix(".ipynb").read_text())["metadata"]["vmae"]


def test_another_time_keeps_the_outputs(lesson):
    edit(lesson, seconds=9.1)
    before = stamp(lesson)
    assert execute(lesson) == (
        "42_lesson: outputs kept; 5 cells compared, largest difference 0.0e+00 in numbers, 0 of 255 in pictures"
    )
    assert TIMING in printed(lesson)
    after = stamp(lesson)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", after.pop("verified"))
    assert after == before
    assert build.check() == []


def test_other_names_keep_the_outputs_that_git_has(lesson):
    """Also after an attempt that went wrong, which wrote its own into the file."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a", "-C", str(lesson.parents[1])]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=before"]):
        subprocess.run([*git, *command], check=True)
    edit(
        lesson, ("import json as reader", "import json as parser"), ("reader.", "parser."),
        ("double", "twice"), ("(x)", "(value)"), ("* x", "* value"), loss=0.6, seconds=9.1,
    )  # fmt: skip
    assert execute(lesson).startswith("42_lesson: new outputs")
    assert TIMING not in printed(lesson)
    edit(lesson, loss=0.50004, seconds=9.1)
    assert "outputs kept; 5 cells compared" in execute(lesson)
    assert TIMING in printed(lesson)
    rebuild(lesson)
    assert build.check() == []
    solved = nbformat.read(lesson.with_suffix(".ipynb"), as_version=4)
    assert "def twice(value)" in solved.cells[4].source
    assert stamp(lesson)["code"] == code_hash(solved)


@pytest.mark.parametrize(
    "changes, state, told",
    [
        (
            [], {"loss": 0.6},
            "cell [5], stdout: the first line that differs by 1.7e-01\n"
            "    - loss 0.5000 after (timed)\n    + loss 0.6000 after (timed)",
        ),
        ([], {"shade": 150}, "cell [6], picture: a block of 8x8 pixels differs by 50 of 255"),
        (
            [("n = 3", "n = 4")], {},
            "cell [5], stdout: the first line that differs by 2.5e-01\n    - twice n is 6\n    + twice n is 8\n"
            "  more than names changed in the code of [2]",
        ),
        ([('"state.json"', '"./state.json"')], {}, "more than names changed in the code of [5]"),
        ([("2 * x", "x + x")], {}, "more than names changed in the code of [4]"),
        ([("# %%\ndata", "# %%\n1\n\n# %%\ndata")], {}, "6 code cells instead of 5: none compared"),
    ],
    ids=["number", "picture", "parameter", "string", "solution", "cells"],
)  # fmt: skip
def test_other_results_or_other_code_give_new_outputs(lesson, changes, state, told):
    edit(lesson, *changes, seconds=9.1, **state)
    report = execute(lesson)
    assert report.startswith("42_lesson: new outputs; ")
    assert report.endswith("\n  " + told)
    assert "after 9.1 s" in printed(lesson)
    assert "verified" not in stamp(lesson)
    rebuild(lesson)
    assert build.check() == []


def test_fresh_outputs_are_written_where_they_are_asked_for(lesson):
    edit(lesson, seconds=9.1)
    assert execute(lesson, fresh=True) == "42_lesson: new outputs"
    assert "after 9.1 s" in printed(lesson)


def test_verify_changes_nothing_and_fails_on_a_difference(lesson, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build.py", "--verify", "42"])
    before = lesson.with_suffix(".ipynb").read_bytes()
    assert build.main() == 0
    assert capsys.readouterr().out.startswith("42_lesson: outputs agree; 5 cells compared")
    edit(lesson, loss=0.6)
    assert build.main() == 1
    assert "    + loss 0.6000 after (timed)" in capsys.readouterr().out
    assert lesson.with_suffix(".ipynb").read_bytes() == before
    lesson.with_suffix(".ipynb").unlink()
    assert build.main() == 1
    assert capsys.readouterr().out == "42_lesson: no outputs are committed\n"


def test_a_lesson_that_does_not_exist_is_an_error(lesson, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build.py", "--verify", "43"])
    with pytest.raises(SystemExit):
        build.main()
    assert "invalid choice: '43'" in capsys.readouterr().err


def test_the_kernel_has_the_package_of_this_checkout(lesson, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("VMAE_STRICT", "")
    edit(
        lesson,
        ("# %%\ndata", "# %%\nimport os, vmae\nprint(vmae.__file__, os.environ)\n\n# %%\ndata"),
    )
    execute(lesson)
    assert str(ROOT / "vmae" / "__init__.py") in printed(lesson)
    assert "'VMAE_STRICT': '1'" in printed(lesson)
