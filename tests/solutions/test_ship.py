"""The tiny checkpoint of data/tiny, and the program that writes such folders."""

from __future__ import annotations

import json
import runpy

import pytest
import torch

import vmae
from vmae import ROOT
from vmae.config import ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.train import Recipe
from vmae.weights import save_weights


@pytest.fixture
def shipping() -> dict:
    return runpy.run_path(str(ROOT / "solutions" / "ship.py"))


def finished_run(folder, model: MaskedAutoencoder, **changes):
    """The files that pre-training this model with the recipe `evening` leaves behind."""
    folder.mkdir()
    config = Recipe.load("evening").changed(pretrain=changes).pretrain
    config.replace(model=model.config).to_yaml(folder / "config.yaml")
    save_weights(model, folder / "model.safetensors")
    start = {"step": 0, "time": "2026-11-22", "commit": "c0ffee", "changed_files": 0}
    start |= {"torch": "2", "device": "CPU", "python": "3"}
    (folder / "environment.json").write_text(json.dumps([start, start | {"step": 40}]))
    records = [{"step": step, "loss": 1 / step, "seconds": step} for step in (50, 100)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def test_a_run_is_shipped_and_replaces_an_earlier_one(tmp_path, shipping):
    torch.manual_seed(0)
    model = MaskedAutoencoder(Recipe.load("evening").pretrain.model)
    run = finished_run(tmp_path / "run", model)
    target = tmp_path / "tiny"
    for _ in range(2):  # the second replaces the first
        assert shipping["ship"](run, target) == target
    assert sorted(p.name for p in target.iterdir()) == [
        "config.yaml",
        "model.safetensors",
        "stamp.json",
    ]
    shipped = vmae.load(target).state_dict()
    assert all(torch.equal(shipped[name], value) for name, value in model.state_dict().items())
    stamp = json.loads((target / "stamp.json").read_text())
    assert (stamp["recipe"], stamp["steps"], stamp["loss"]) == ("evening", 100, 0.01)
    assert [start["step"] for start in stamp["starts"]] == [0, 40]
    assert stamp["starts"][0]["commit"] == "c0ffee"


def test_a_changed_recipe_is_not_called_by_its_name(tmp_path, shipping):
    model = MaskedAutoencoder(Recipe.load("evening").pretrain.model)
    run = finished_run(tmp_path / "run", model, **{"optim.lr": 1e-3})
    assert shipping["stamp_of"](run)["recipe"] is None


def test_a_large_model_is_not_shipped(tmp_path, shipping):
    large = ModelConfig.videomae("tiny", depth=20, embed_dim=256, num_heads=4)
    run = finished_run(tmp_path / "run", MaskedAutoencoder(large))
    with pytest.raises(ValueError, match=r"MB of weights; at most 6 ship"):
        shipping["ship"](run, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_the_shipped_checkpoint_is_a_small_trained_autoencoder(shipping):
    folder = ROOT / "data" / "tiny"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= shipping["LARGEST"]["tiny"]
    stamp = json.loads((folder / "stamp.json").read_text())
    model = vmae.load(folder)
    assert isinstance(model, MaskedAutoencoder)
    recipe = Recipe.load(stamp["recipe"]).pretrain
    assert model.config == recipe.model and stamp["steps"] == recipe.optim.steps
