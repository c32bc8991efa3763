"""`vmae evaluate` and `vmae report` on what is no tested run, and outputs that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmae.cli.main import main
from vmae.train import FinetuneConfig, PretrainConfig


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A run of each kind, neither of which has begun, and a folder of videos."""
    for name, config in (("classifier", FinetuneConfig()), ("encoder", PretrainConfig())):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        config.to_yaml(tmp_path / "runs" / name / "config.yaml")
    (tmp_path / "my videos" / "jump").mkdir(parents=True)
    (tmp_path / "my videos" / "jump" / "a.mp4").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message(capsys, *command: str) -> str:
    assert main(list(command)) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "report"])
@pytest.mark.parametrize(
    "path,words",
    [
        ("my videos", "In it are 'jump'. "),
        ("my videos/jump/a.mp4", "This is a file. "),
        ("empty", "This one is empty. "),
        ("runs", "In it are the runs 'classifier', 'encoder'. "),
        ("runs/classifier/checkpoints", "This is part of the run runs/classifier. "),
        ("runs/classifier/config.yaml", "This is part of the run runs/classifier. "),
    ],
)
def test_what_a_run_is_and_what_was_found(command, path, words, here, capsys):
    assert message(capsys, command, path) == (
        f"vmae: {path} has no config.yaml: pass the folder of a run of `vmae finetune` (its --out), which "
        f"says how to test. {words}`vmae predict` takes any weights\n"
    )


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_pretrained_encoder_is_no_classifier(command, here, capsys):
    error = message(capsys, command, "runs/encoder")
    assert "runs/encoder is a run of `vmae pretrain`, which has no classes" in error
    assert "`vmae finetune RECIPE --encoder runs/encoder --out FOLDER` makes one" in error


def test_a_run_that_has_not_come_far(here, capsys):
    assert "is a run without model.safetensors" in message(capsys, "evaluate", "runs/classifier")
    assert "with --resume" in message(capsys, "report", "runs/classifier")


@pytest.mark.parametrize(
    "command",
    [
        ["scan", "my videos", "--json"],
        ["evaluate", "runs/classifier", "--json"],
        ["predict", "runs/classifier", "my videos", "--csv"],
    ],
)
def test_an_output_that_cannot_be_written_is_found_first(command, here, capsys):
    """Rather than after all videos were read."""
    there = here / "my videos" / "jump" / "a.mp4"
    assert message(capsys, *command, "empty") == (
        "vmae: cannot write empty: it is a folder: choose another file\n"
    )
    assert message(capsys, *command, "my videos/jump/a.mp4/out") == (
        f"vmae: cannot write my videos/jump/a.mp4/out: {there} is a file: choose another file\n"
    )
