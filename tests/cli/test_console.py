"""Every command prints on a console of another encoding, replacing what it must, and writes its files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from vmae.cli.main import main
from vmae.config import MaskConfig, ModelConfig
from vmae.data import DataConfig, load_set
from vmae.train import FinetuneConfig, OptimConfig, PretrainConfig, load_classifier

CLASSES = ("jump", "跳ぶ →")
MODEL = ModelConfig.videomae("tiny", depth=1)


@pytest.fixture
def folder(motion_mini, tmp_path) -> Path:
    """Videos of two motions, as two classes whose names are not in cp1252."""
    for number, video in enumerate(load_set(motion_mini).train):
        if video.label < 2:
            path = tmp_path / "データ" / CLASSES[video.label] / f"ū{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(video.path)
    (path.parent / "ノート.xyz").touch()
    return tmp_path / "データ"


@pytest.mark.filterwarnings("ignore")
def test_every_command_prints_and_writes_its_files(folder, tmp_path, monkeypatch):
    console = [io.TextIOWrapper(io.BytesIO(), encoding="cp1252") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", console[0])
    monkeypatch.setattr(sys, "stderr", console[1])
    stores = tmp_path / "data" / "stores"
    stores.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    data = DataConfig(path=str(folder), cache_dir=str(stores), num_workers=1)
    shared = {"model": MODEL, "data": data, "optim": OptimConfig(steps=2, batch_size=4)}
    PretrainConfig(**shared, mask=MaskConfig("tube", 0.75)).to_yaml("pretrain.yaml")
    FinetuneConfig(**shared).to_yaml("finetune.yaml")
    workers = ["--num-workers", "1"]

    def run(*arguments: str) -> str:
        status = main([*arguments])
        assert status == 0, arguments
        sys.stdout.flush()
        text = console[0].buffer.getvalue().decode("cp1252")
        console[0].buffer.truncate(0)
        console[0].buffer.seek(0)
        return text

    assert r"\u8df3\u3076 \u2192" in run("scan", str(folder), "--json", "scan.json", *workers)
    assert any("ū" in report["path"] for report in json.loads(Path("scan.json").read_text("utf-8")))
    assert "12 videos written" in run("normalize", str(folder), "new", *workers)
    assert "ノート.xyz" in Path("new/left_out.txt").read_text("utf-8")
    assert load_set("new").classes == CLASSES
    run("store", str(folder), "--pixels", "16", *workers)
    run("pretrain", "pretrain.yaml", "--out", "走/run")
    run("finetune", "finetune.yaml", "--out", "走/tuned", "--encoder", "走/run/model.safetensors")
    assert load_classifier("走/tuned")[1] == CLASSES
    assert r"\u8df3" in run("evaluate", "走/tuned", "--json", "走/report.json")
    assert CLASSES[1] in json.loads(Path("走/report.json").read_text("utf-8"))["per_class"]
    assert r"\u8df3" in run("predict", "走/tuned", str(folder), *workers)
    assert "12 videos, 0 unreadable: 予.csv" in run(
        "predict", "走/tuned", str(folder), "--csv", "予.csv", *workers
    ).encode().decode("unicode-escape")
    assert f"{CLASSES[1]}/ū" in Path("予.csv").read_text("utf-8")
    assert r"\u8d70" in run("report", "走/tuned")
    assert CLASSES[1] in Path("走/tuned/report.html").read_text("utf-8")
    Path("finetune.yaml").rename("走/設.yaml")
    assert r"\u8a2d.yaml on" in run("plan", "走/設.yaml", "--data", str(folder))
    sizes = ("--size", "mini", "--train", "8", "--test", "8", "--num-workers", "1")
    assert r"\u52d5" in run("render", "motion", "--out", "動", *sizes)
    assert len(load_set("動").test) == 8
    assert r"\u8d70" in run("convert", "走/tuned", "走/hf", "--to", "hf")
    for command in ("progress", "experiments"):
        run(command)
    assert main(["check-env"]) in (0, 1)
    assert main(["evaluate", "無い"]) == 1
    sys.stderr.flush()
    assert r"\u7121" in console[1].buffer.getvalue().decode("cp1252")
