"""`vmae predict`: files and folders, short, long and damaged videos, read as in the run's test."""

from __future__ import annotations

import csv
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import write_video
from vmae.inference import Inference
from vmae.mae import MaskedAutoencoder
from vmae.predict import predict
from vmae.vit import VisionTransformer
from vmae.weights import save

MODEL = ModelConfig.videomae("tiny", depth=1, embed_dim=32)


class Light(VisionTransformer):
    """Says "bright" of bright clips, and "dark" of dark ones."""

    def forward(self, clips):
        level = clips.float().mean((1, 2, 3, 4)) / 255 - 0.5
        return torch.stack([20 * level, -20 * level, -9 + 0 * level], dim=1)


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    classifier = VisionTransformer(MODEL, 3, init_scale=1.0)
    classifier.class_names = ("bright", "dark", "neither")
    classifier.inference = Inference(clip_seconds=1.0, short="repeat", clips=2, crops=3)
    save(classifier, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A long video, bright in its first 20 of 32 seconds; a short one below; a damaged one; a text."""
    folder = tmp_path / "new videos"
    (folder / "inside").mkdir(parents=True)
    light = np.where(np.arange(320) < 200, 200, 40)[:, None, None, None]
    frames = np.broadcast_to(light, (320, 32, 64, 3)).astype(np.uint8)
    write_video(folder / "long, name.mp4", frames, fps=10)
    write_video(folder / "inside" / "short.MP4", frames[-3:], fps=10)
    (folder / "damaged.avi").write_bytes(b"RIFF")
    (folder / "notes.txt").write_text("not a video")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_a_table_with_a_row_for_every_video(model, folder, tmp_path, capsys):
    table = tmp_path / "out" / "predictions.csv"
    command = ["predict", str(model), str(folder), "--csv", str(table), "--top", "2"]
    assert main([*command, "--num-workers", "0"]) == 1, "one is damaged"
    out, err = capsys.readouterr()
    assert out == f"3 videos, 1 unreadable: {table}\n"
    assert (
        "2 clips of 8 frames over 1 s, 3 crops of each, short ones repeat their last frame" in err
    )
    assert "3/3" in err, "a progress bar"
    assert "passed over, as they are not videos: 'notes.txt'\n" in err
    rows = rows_of(table)
    assert [row["file"] for row in rows] == ["damaged.avi", "inside/short.MP4", "long, name.mp4"]
    assert rows[0]["error"].startswith("the file could not be opened as a video (")
    assert not rows[0]["class 1"]
    from vmae import load

    expected = predict(load(model), folder / "long, name.mp4", top=2)
    found = [(rows[2][f"class {k}"], rows[2][f"probability {k}"]) for k in (1, 2)]
    assert found == [(name, f"{p:.4f}") for name, p in expected]
    assert main([*command, "--num-workers", "2"]) == 1
    assert rows_of(table) == rows, "whoever reads them"


def test_one_file_is_printed(model, folder, capsys):
    assert main(["predict", str(model), str(folder / "long, name.mp4")]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{folder / 'long, name.mp4'}: ")
    assert line.count("%") == 3, "all of the three classes"


@pytest.mark.parametrize("more", [[], ["--every", "1"]])
def test_an_unreadable_file_is_named_once(model, folder, capsys, more):
    """And fails the command, although everything else is predicted: a script can tell."""
    damaged = folder / "damaged.avi"
    assert main(["predict", str(model), str(damaged), *more]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{damaged}: the file could not be opened as a video (")


def test_the_help_says_what_its_status_means(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "status is 1 if a file could not be read, although all others are predicted" in said


def test_a_long_video_stretch_by_stretch(model, folder, tmp_path, monkeypatch):
    light = Light(MODEL, 3)
    light.class_names, light.inference = ("bright", "dark", "neither"), Inference(clip_seconds=1.0)
    monkeypatch.setattr("vmae.load", lambda _: light)
    table = tmp_path / "stretches.csv"
    command = ["predict", str(model), str(folder / "long, name.mp4"), "--csv", str(table)]
    assert main([*command, "--every", "5", "--num-workers", "0"]) == 0
    found = [(row["start"], row["end"], row["class 1"]) for row in rows_of(table)]
    assert found == [
        ("0.0", "5.0", "bright"), ("5.0", "10.0", "bright"), ("10.0", "15.0", "bright"),
        ("15.0", "20.0", "bright"), ("20.0", "25.0", "dark"), ("25.0", "32.0", "dark"),
    ]  # fmt: skip
    assert main([*command, "--num-workers", "0"]) == 0
    (whole,) = rows_of(table)
    assert "start" not in whole
    assert whole["class 1"] == "bright", "one clip, from the centre"


def test_views_are_computed_in_parts_that_fit_into_memory(model, folder, monkeypatch):
    from vmae import load

    classifier, path = load(model), folder / "long, name.mp4"
    whole = predict(classifier, path, clips=5)
    sizes = []
    forward = VisionTransformer.forward
    monkeypatch.setattr(
        import_module("vmae.train.evaluate"), "AT_ONCE", 4 * 12 * 4 * MODEL.grid.num_tokens * 32
    )
    monkeypatch.setattr(
        VisionTransformer, "forward", lambda m, x: (sizes.append(len(x)), forward(m, x))[1]
    )
    assert dict(predict(classifier, path, clips=5)) == pytest.approx(dict(whole))
    assert sizes == [4, 4, 4, 3]


def test_what_cannot_be_predicted(model, folder, tmp_path, capsys):
    save(MaskedAutoencoder(MODEL), tmp_path / "pretrained")
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([tmp_path / "pretrained", folder], "this model has no classification head"),
        ([model, tmp_path / "nowhere"], "no such file or folder"),
        ([model, tmp_path / "empty"], "the folder contains no videos (.mp4, "),
        ([model, folder, "--every", "0"], "--every is 0.0; it must be greater than 0"),
    ):
        assert main(["predict", *map(str, arguments)]) == 1
        assert words in capsys.readouterr().err
