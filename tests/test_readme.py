"""What README.md and the pages it leads to promise: their commands and lines are run as they stand."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import torch

from vmae import ROOT, load
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import write_video
from vmae.mae import MaskedAutoencoder
from vmae.predict import read_clip
from vmae.vit import VisionTransformer
from vmae.weights import save

README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = README.split("## Your own videos")[1].split("\n## ")[0]
PACKAGE = (ROOT / "vmae" / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_three_commands_lead_from_a_folder_to_predictions(tmp_path, monkeypatch, capsys):
    """With weights of the published layout and tubelets, but one small block instead of twelve."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    for folder in ("my-videos/bright", "my-videos/dark", "new-videos"):
        (tmp_path / folder).mkdir(parents=True)
        light = 180 if "bright" in folder else 50
        for word, fps in zip(words, (15, 24, 25, 30, 50, 60, 30, 30), strict=True):
            frames = light + rng.integers(-30, 30, (fps, 64, 80, 3))
            write_video(tmp_path / folder / f"{word}.mp4", frames.astype(np.uint8), fps=fps)
    small = ModelConfig.videomae("S", depth=1, embed_dim=64, num_heads=1, decoder_depth=1)
    save(MaskedAutoencoder(small), tmp_path / "WEIGHTS")
    lines = blocks(OWN, "bash")[0].splitlines()
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert [command[0] for command in commands] == ["scan", "finetune", "predict"]
    commands[1] += ["--set", "optim.epochs=2", "--set", "data.num_workers=0", "--set", "device=cpu"]
    for command in (*commands, ["report", "runs/clips"]):
        assert main(command) == 0, capsys.readouterr().err
    rows = (tmp_path / "runs/predictions.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "file,class 1,probability 1,class 2,probability 2,error"
    assert len(rows) == 1 + len(words)
    assert "test videos are classified" in (tmp_path / "runs/clips/report.html").read_text("utf-8")


def test_the_page_on_own_videos_has_the_commands_of_the_readme():
    page = (ROOT / "vmae" / "OWN_VIDEOS.md").read_text(encoding="utf-8")
    assert blocks(page, "bash") == blocks(OWN, "bash")


def test_export_gives_the_same_logits_in_three_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = (text for text in blocks(PACKAGE, "python") if "torch.export" in text)
    assert len(block.strip().splitlines()) == 3
    torch.manual_seed(0)
    save(VisionTransformer(ModelConfig.videomae("tiny"), 3, init_scale=1.0), tmp_path / "run")
    model = load(tmp_path / "run")
    clip = read_clip(ROOT / "data" / "big_buck_bunny_shot.mp4", model.config)
    names = {"torch": torch, "model": model, "clip": clip}
    exec(block, names)
    assert torch.equal(names["logits"], model(clip))
