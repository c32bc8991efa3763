"""The command line does what the README says, and errors are one message."""

from __future__ import annotations

import json

from vmae.cli import main


def test_render_pretrain_finetune_evaluate(tmp_path, capsys):
    data = tmp_path / "motion"
    assert main(["render", "motion", "--size", "mini", "--out", str(data), "--workers", "1"]) == 0
    assert main(["store", str(data), "--pixels", "16", "--workers", "1"]) == 0
    recipe = tmp_path / "recipe.yaml"
    from vmae.config import Recipe

    shipped = Recipe.load("cpu").changed(
        {"model.depth": 1, "optim.batch_size": 8, "data.path": str(data), "data.workers": 1,
         "data.stores": str(tmp_path / "stores"), "log_every": 1}
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


def test_errors_are_one_message(tmp_path, capsys):
    for arguments, words in (
        (["pretrain", "tpu", "--out", str(tmp_path)], "there is no recipe 'tpu'"),
        (["pretrain", "cpu", "--out", str(tmp_path), "--set", "optim.steps"], "write name=value"),
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
