"""Whatever passes a check works in every later cell: each lesson runs with other right answers, too.

In place of the solution's own code, `check` gets right answers in another style, from
tests/course/styles_NN.py.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import build
import pytest
import torch
from lesson import lesson_code, read_source
from test_notebooks import parameters

from vmae.course import lessons

COURSE = Path(__file__).resolve().parents[1] / "course"
STYLES = {path.stem[-2:]: path.stem for path in COURSE.glob("styles_*.py")}
LESSONS = [path for path in build.sources() if path.stem[:2] in STYLES]


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("style", [0, 1])
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem[:2])
def test_a_lesson_runs_with_right_answers_in_another_style(
    path, style, around, monkeypatch, tmp_path
):
    monkeypatch.syspath_prepend(str(COURSE))
    monkeypatch.setattr(
        "vmae.ROOT", around
    )  # sets that the lesson renders do not go into the checkout
    right = importlib.import_module(STYLES[path.stem[:2]]).RIGHT
    strict, given = lessons.check, set()

    def check(name, _):
        given.add(name)
        return strict(name, right[name][style])

    monkeypatch.setattr(lessons, "check", check)
    monkeypatch.setenv("VMAE_STRICT", "1")
    small, where, threads = parameters(path.stem, tmp_path), os.getcwd(), torch.get_num_threads()
    space: dict = {"__name__": "__main__"}
    try:
        for cell in lesson_code(read_source(path)):
            try:
                exec(compile(cell.source, path.name, "exec"), space)
            except Exception as error:
                error.add_note(f"in this cell:\n{cell.source}")
                raise
            if "parameters" in cell.metadata.get("tags", []):
                space |= small
    finally:
        os.chdir(where)
        torch.set_num_threads(threads)
    assert given == set(right), "an exercise is never checked, or has no other right answers"
