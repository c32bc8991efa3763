"""The notebooks: built from their sources, runnable, and their deterministic cells as committed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import build
import nbformat
import papermill
import pytest
import yaml
from lesson import read_source, text_of
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from vmae import ROOT, mae, weights
from vmae.config import ModelConfig

OVERRIDES = yaml.safe_load((ROOT / "tests" / "overrides.yaml").read_text())
NAMES = [path.stem for path in build.sources()]

#: The size of the weights that lesson 10 takes instead of pre-training: not that of its recipe.
GIVEN = ModelConfig(
    family="videomae", num_frames=8, img_size=32, tubelet=(2, 8, 8), embed_dim=32, depth=2, num_heads=2,
    decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=1,
)  # fmt: skip


def parameters(name: str, tmp_path: Path) -> dict:
    """The small parameters of a notebook, with its run in a folder of this test."""
    return OVERRIDES[name] | {"out": str(tmp_path / "run")}


def test_every_notebook_has_small_parameters_that_it_knows():
    assert sorted(OVERRIDES) == NAMES
    for name in NAMES:
        cells = read_source(build.SOLUTIONS / f"{name}.py").cells
        known = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
        for parameter in OVERRIDES[name]:
            assert f"\n{parameter} = " in f"\n{known}", f"{name} has no parameter {parameter}"


def test_builds_are_those_of_their_sources():
    assert build.check() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_rebuild_is_byte_identical(name):
    for target, notebook in build.builds(build.SOLUTIONS / f"{name}.py").items():
        assert target.read_bytes() == text_of(notebook).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_learners_notebook_runs_to_its_end_unsolved(name, kernels, tmp_path):
    """With papermill, headless, as continuous integration runs it."""
    out, small = tmp_path / "executed.ipynb", parameters(name, tmp_path)
    if name == "10_full_run":  # nothing to solve: nbval runs the same cells, this the other branch
        small["start_from"] = str(tmp_path / "given")
        weights.save(mae.MaskedAutoencoder(GIVEN), small["start_from"], to="hf")
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb", out, small,
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
