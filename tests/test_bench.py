"""The benchmark compares like with like: all contestants have the same loss and gradients."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from conftest import randomize

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent / "bench"))
import feed
import first_hour
import models
import results

from vmae import ROOT
from vmae.config import ModelConfig
from vmae.data import VideoFiles, build_store, load_set
from vmae.data.reading import loader

TINY = ModelConfig.videomae("tiny")


@pytest.mark.parametrize("task", ["pre-train", "fine-tune"])
def test_contestants_agree_and_a_different_one_is_noticed(task):
    case = models.Case(task, TINY, 2, torch.device("cpu"))
    randomize(case.model)
    running = {name: case.contestant(name) for name in case.contestants()}
    assert len(running) == (4 if task == "fine-tune" else 5)
    models.compare(case, running)
    with torch.no_grad():
        next(running["HF eager"][0].parameters()).mul_(1.1)
    with pytest.raises(AssertionError, match="HF eager"):
        models.compare(case, running)


def test_a_row_of_the_table_is_the_ratio_of_medians(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    case = models.Case("pre-train", TINY, 2, torch.device("cpu"))
    rows = models.times(case, ["fp32", "bf16"], 1)
    assert set(rows["fp32"]) == set(rows["bf16"]) == set(case.contestants())
    rows["fp32"]["ours"]["seconds"], rows["fp32"]["published"]["seconds"] = 2.0, 3.0
    rows["fp32"]["ours, V2"]["seconds"], rows["bf16"]["ours"]["seconds"] = 1.6, 1.5
    results.keep("pre-train, tiny", {"rows": rows})
    exact, low = models.table(results.device().type).splitlines()[2:]
    assert exact.startswith("| pre-train, tiny | fp32 |")
    assert exact.split(" | ")[4:6] == ["1.50", "1.50"]
    assert exact.endswith("| 1.25 |")
    assert low.split(" | ")[5] == "2.00"


def test_the_tables_of_the_benchmarks_are_what_was_measured():
    text = (
        (ROOT / "tests" / "bench" / "README.md")
        .read_text(encoding="utf-8")
        .split("<!-- bench -->")[1]
        .split("<!-- /bench -->")[0]
    )
    assert text.strip() == models.table("cpu").strip(), "paste `tests/bench/models.py --table`"


def test_the_readme_describes_the_first_hour_as_measured():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert first_hour.sentence() in text, f"the README should say: {first_hour.sentence()}"


def test_the_feed_is_measured_in_one_process_and_with_workers(motion_mini, tmp_path, monkeypatch):
    """Files and stores alike, after the batches that workers have ready before the clock starts."""
    asked, taken, real = [], [], loader.DataLoader

    def alone(*arguments, num_workers, multiprocessing_context, pin_memory, **options):
        asked.append(num_workers)
        return (taken.append(1) or batch for batch in real(*arguments, **options))

    monkeypatch.setattr(loader, "DataLoader", alone)
    monkeypatch.setattr(feed, "SAMPLING", loader.Sampling(8, 1))
    videos = load_set(motion_mini).train[:12]
    for source in (VideoFiles(videos, 16), build_store(tmp_path, videos, 16, workers=1)):
        for workers, batches in ((0, 1 + 3), (2, 1 + 2 * 2 + 3)):
            taken.clear()
            assert feed.seconds_per_clip(source, 3, workers) > 0
            assert len(taken) == batches
    assert asked == [0, 2, 0, 2]
