"""Teachers may assign the solutions with nbgrader: its ClearSolutions makes of them what our builder makes.

nbgrader is not among the pins, since it puts menus into a learner's JupyterLab.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from vmae import ROOT

preprocessors = pytest.importorskip(
    "nbgrader.preprocessors", reason="nbgrader is not installed: pip install nbgrader"
)


@pytest.mark.parametrize("path", sorted((ROOT / "solutions").glob("*.ipynb")), ids=lambda p: p.stem)
def test_clear_solutions_gives_the_learners_notebook(path: Path):
    clear = preprocessors.ClearSolutions(enforce_metadata=False)
    clear.code_stub = {"python": "raise NotImplementedError"}
    cleared, _ = clear.preprocess(nbformat.read(path, as_version=4), {})
    learner = nbformat.read(ROOT / "notebooks" / path.name, as_version=4)
    found = [cell.source.rstrip() for cell in cleared.cells]
    assert found == [cell.source.rstrip() for cell in learner.cells]
