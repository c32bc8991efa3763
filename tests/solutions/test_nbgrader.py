"""Teachers may assign the solutions with nbgrader: its ClearSolutions makes of them what our builder makes.

But for cells with an `### INSTEAD` part, a marker that nbgrader does not know. nbgrader is not among the
pins, since it puts menus into a learner's JupyterLab.
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
    solution = nbformat.read(path, as_version=4)
    own = [i for i, cell in enumerate(solution.cells) if "### INSTEAD" not in cell.source]
    cleared, _ = clear.preprocess(solution, {})
    learner = nbformat.read(ROOT / "notebooks" / path.name, as_version=4)
    found = [cleared.cells[i].source.rstrip() for i in own]
    assert found == [learner.cells[i].source.rstrip() for i in own]
