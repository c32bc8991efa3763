"""The benchmark compares like with like: all contestants give one loss and one gradient."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from conftest import randomize

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent / "bench"))
import models


@pytest.mark.parametrize("task", ["pre-train", "pre-train V2", "fine-tune"])
def test_contestants_agree_and_one_that_does_not_is_found(task):
    case = models.Case(task, "tiny", 2, torch.device("cpu"))
    randomize(case.model)
    running = {name: case.contestant(name) for name in case.contestants()}
    assert len(running) == (1 if task == "pre-train V2" else 4)
    models.compare(case, running)
    if "HF eager" in running:
        with torch.no_grad():
            next(running["HF eager"][0].parameters()).mul_(1.1)
        with pytest.raises(AssertionError, match="HF eager"):
            models.compare(case, running)


def test_a_row_of_the_table_is_the_ratio_of_medians(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    case = models.Case("pre-train", "tiny", 2, torch.device("cpu"))
    rows = models.times(case, "fp32", 1)
    assert set(rows) == set(case.contestants())
    rows["ours"]["seconds"], rows["published"]["seconds"] = 2.0, 3.0
    (tmp_path / "cpu.json").write_text(models.json.dumps({"pre-train, tiny, fp32": {"rows": rows}}))
    assert "| pre-train, tiny | fp32 |" in models.table() and "| 1.50 |" in models.table()
