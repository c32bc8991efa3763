"""The command line does what the README describes, and prints errors without a traceback."""

from __future__ import annotations

import json
from importlib import import_module

import torch

from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import DataConfig, load_set
from vmae.data.sets.motion_specs import CLASSES
from vmae.train import Evaluation, FinetuneConfig, save_classifier
from vmae.vit import VisionTransformer


def test_render_pretrain_finetune_evaluate(tmp_path, capsys, monkeypatch):
    data, stores = tmp_path / "motion", tmp_path / "data" / "stores"
    assert (
        main(["render", "motion", "--size", "mini", "--out", str(data), "--num-workers", "1"]) == 0
    )
    stores.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # the cache goes to the working folder's data/stores if it has one
    assert main(["store", str(data), "--pixels", "16", "--num-workers", "1"]) == 0
    assert len(list(stores.glob("*/index.json"))) == 2
    recipe = tmp_path / "recipe.yaml"
    from vmae.train import Recipe

    shipped = Recipe.load("cpu").changed(
        {"model.depth": 1, "optim.batch_size": 8, "data.path": str(data), "data.num_workers": 1,
         "data.cache_dir": str(stores), "log_every": 1}
    )  # fmt: skip
    shipped.to_yaml(recipe)
    run, classifier = str(tmp_path / "run"), str(tmp_path / "classifier")
    steps = ["--set", "optim.steps=3"]
    assert main(["pretrain", str(recipe), "--out", run, *steps]) == 0
    assert main(["pretrain", str(recipe), "--out", run, "--resume", *steps]) == 0
    encoder = ["--encoder", f"{run}/model.safetensors"]
    few = ["--set", "labels_per_class=2"]
    assert main(["finetune", str(recipe), "--out", classifier, *encoder, *steps, *few]) == 0
    capsys.readouterr()
    assert main(["evaluate", classifier]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["videos"] == 24
    assert 0 <= result["top1"] <= result["top5"] <= 100


def test_a_classifier_is_tested_as_it_was_trained(tmp_path, motion_mini, monkeypatch, capsys):
    """On its own split and root and with its own view, as anything else would be another task."""
    used: dict = {}
    model = ModelConfig.videomae("tiny", depth=1)
    data = DataConfig(
        path=str(motion_mini), split=2, root=str(tmp_path), cache=False, max_unreadable=0.5
    )
    config = FinetuneConfig(model=model, data=data, view="shuffled")
    save_classifier(VisionTransformer(model, 8), CLASSES, config, tmp_path / "classifier")

    def load_other_split(config):
        used["data"] = config
        return load_set(config.path)

    def remember(*_, **options):
        used.update(options)
        return Evaluation(torch.eye(8), torch.arange(8))

    monkeypatch.setattr("vmae.data.reading.loader.open_set", load_other_split)
    monkeypatch.setattr(import_module("vmae.train.evaluate"), "evaluate", remember)
    assert main(["evaluate", str(tmp_path / "classifier")]) == 0
    assert (used["data"].split, used["data"].root) == (2, str(tmp_path))
    assert (used["view"], used["max_unreadable"]) == ("shuffled", 0.5)
    assert json.loads(capsys.readouterr().out)["top1"] == 100


def test_errors_are_printed_without_a_traceback(tmp_path, capsys):
    for arguments, words in (
        (
            ["pretrain", "tpu", "--out", str(tmp_path)],
            "unknown recipe 'tpu' (did you mean gpu?): choose from",
        ),
        (
            ["pretrain", "cpu", "--out", str(tmp_path), "--set", "optim.steps"],
            "must have the form NAME=VALUE",
        ),
        (["pretrain", "cpu", "--out", str(tmp_path), "--set", "optim.stepz=3"], "optim.stepz"),
        (
            ["pretrain", "cpu", "--out", str(tmp_path), "--set", "data.path=nowhere"],
            "no such folder",
        ),
        (["evaluate", str(tmp_path)], "config.yaml"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert words in error
        assert error.startswith("vmae: ")
        assert "Traceback" not in error
