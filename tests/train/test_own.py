"""One's own videos: weights of any size to start from, frozen layers, and the plan of the run."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import MODEL

from vmae.base_config import ConfigError
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.cost.hardware import CARDS
from vmae.data import DataConfig, write_video
from vmae.data.reading.loader import Subset
from vmae.mae import MaskedAutoencoder
from vmae.train import FinetuneConfig, OptimConfig, Recipe, accelerator_for, finetune, open_sources
from vmae.train.devices import device_name
from vmae.train.overview import balance, overview
from vmae.train.starting import load_start
from vmae.vit import VisionTransformer
from vmae.weights import save


@pytest.fixture(scope="module")
def own_videos(tmp_path_factory) -> Path:
    """Videos of two classes: bright and dark, 12 and 40 of them, at several rates and shapes."""
    folder = tmp_path_factory.mktemp("sets") / "my-videos"
    rng = np.random.default_rng(0)
    for name, count, light in (("bright", 12, 170), ("dark", 40, 60)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            fps, shape = [(15, (32, 40)), (60, (64, 32)), (30, (32, 32))][number % 3]
            frames = light + rng.integers(-20, 20, (fps, *shape, 3))
            word = "".join(chr(97 + int(digit)) for digit in str(number))
            write_video(folder / name / f"{word}.mp4", frames.astype(np.uint8), fps=fps)
    return folder


@pytest.fixture
def config(own_videos, tmp_path) -> FinetuneConfig:
    data = DataConfig(
        path=str(own_videos), cache_dir=str(tmp_path / "stores"), num_workers=1, clip_seconds=1.0,
        short="repeat",
    )  # fmt: skip
    optim = OptimConfig(steps=6, batch_size=8, lr=1e-2)
    return FinetuneConfig(model=MODEL, data=data, optim=optim, log_every=1, val_share=0.25)


def test_the_recipes_start_from_a_published_size(tmp_path):
    for name, size in (("own", "B"), ("own-cpu", "S")):
        recipe = Recipe.load(name).finetune
        with pytest.raises(ConfigError, match="no weights to start from: pass --encoder FILE"):
            load_start(recipe)
        model = recipe.model.videomae(size, depth=1, num_frames=16, img_size=224)
        save(MaskedAutoencoder(model), tmp_path / f"{size}.pth", to="official")
        fitted, encoder = load_start(
            recipe.replace(start_from=str(tmp_path / f"{size}.pth"), frozen_layers=0)
        )
        assert encoder is not None
        assert (fitted.model.embed_dim, fitted.model.depth) == (model.embed_dim, 1)
        clip = (fitted.model.num_frames, fitted.model.img_size)
        assert clip == (recipe.model.num_frames, recipe.model.img_size), "clips stay as they are"


def test_the_recipe_is_what_ones_own_videos_need():
    """Published weights, 16 frames of 224 pixels, all labels, short clips, a small batch, validation."""
    own, small = Recipe.load("own").finetune, Recipe.load("own-cpu").finetune
    model = own.model
    assert (model.family, model.num_frames, model.img_size, model.tubelet) == (
        "videomae", 16, 224, (2, 16, 16)
    )  # fmt: skip
    published = ModelConfig.videomae("S", num_frames=16, img_size=224)
    for config in (own, small):
        assert config.size_from_weights and config.start_from is None, "ViT-S or B, as the file is"
        for field in ("embed_dim", "depth", "num_heads"):
            assert getattr(config.model, field) == getattr(published, field)
        assert config.labels_per_class is None, "all labels"
        assert config.data.short == "repeat" and config.data.clip_seconds == 2.0
        assert config.optim.batch_size == 8 and config.optim.epochs
        assert config.val_share == 0.15, "so that the best epoch is kept"
        assert config.data.path == "my-videos" and not config.flip
    assert (own.frozen_layers, own.optim.epochs, own.optim.lr) == (0, 30, 1.5e-3)
    assert (own.test_clips, own.test_crops) == (2, 3)
    assert (small.model.num_frames, small.model.img_size) == (8, 112)
    assert (small.frozen_layers, small.optim.epochs) == (8, 10)


def test_a_normal_fine_tuning_warns_of_nothing(config, tmp_path, capsys, monkeypatch):
    """Neither of the decoder, which a classifier does not have, nor of a missing final norm."""
    wide = MODEL.replace(embed_dim=384, num_heads=6)
    save(MaskedAutoencoder(wide), tmp_path / "pretrained.pth", to="official")
    config.replace(size_from_weights=True).to_yaml(tmp_path / "config.yaml")
    command = ["finetune", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*command, "--encoder", str(tmp_path / "pretrained.pth")]) == 0
    out, err = capsys.readouterr()
    err = " ".join(err.split())
    report = json.loads(out)
    assert report["best_step"] <= 6 and report["validation_accuracy"] >= 50
    run = tmp_path / "run"
    assert err.endswith(f"next: `vmae report {run}`, `vmae predict {run} VIDEOS`")
    assert (report["test_videos"], 10 * report["right"]) == (10, report["accuracy"])
    for name in ("minutes", "clips_per_second", "peak_memory_gb"):
        assert report[name] == round(report[name], 2)
    saved = FinetuneConfig.from_yaml(tmp_path / "run" / "config.yaml")
    assert saved.model.embed_dim == 384
    assert saved.start_from == str(tmp_path / "pretrained.pth")
    for words in (
        f"model ViT-384 from {tmp_path / 'pretrained.pth'}, pre-trained only: with so few videos, the "
        "weights of a classifier are a better start",
        "31 to train on, 11 to validate on, 10 to test on",
        "validation single videos of each class",
        "'dark' has 24 and 'bright' 7: accuracy will favour the large classes",
        "labels_per_class=7 trains on equally many",
        "6 steps of 8 videos: 1.55 epochs; learning rate up to 0.01",
        "about 1 min on CPU",
        "training and tests together; longer if other programs compute meanwhile",
    ):
        assert words in err, words
    # The same command, with the weights elsewhere, resumes: their content counts.
    (tmp_path / "pretrained.pth").rename(tmp_path / "moved.pth")
    again = [*command, "--encoder", str(tmp_path / "moved.pth"), "--resume"]
    best = "vmae.train.validation.best_row"
    monkeypatch.setattr(best, lambda rows: {"step": rows[0]["step"], "accuracy": 250 / 3})
    assert main(again) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["accuracy"], printed["validation_accuracy"]) == (report["accuracy"], 83.3)


def test_the_plan_says_what_the_weights_are(config):
    sources, accelerator = open_sources(config), accelerator_for("fp32")
    started = config.replace(start_from="weights.pth", frozen_layers=1)
    encoder, tuned = VisionTransformer(MODEL), VisionTransformer(MODEL, 400)
    first = " ".join(overview(started, sources, accelerator, tuned).split("\nclips")[0].split())
    assert first.endswith("from weights.pth, a classifier of 400 classes; 1 of 2 blocks frozen")
    assert "a better start" in " ".join(overview(started, sources, accelerator, encoder).split())
    many = replace(sources, train=Subset(sources.train, [0] * 200))
    text = " ".join(overview(started, many, accelerator, encoder).split())
    assert "weights.pth, pre-trained only; 1 of 2 blocks" in text and "a better start" not in text
    assert "from scratch" in overview(config, sources, accelerator)


def test_frozen_layers_keep_their_weights(config):
    torch.manual_seed(0)
    encoder = VisionTransformer(MODEL)
    sources = open_sources(config)
    result = finetune(config.replace(frozen_layers=1), sources, encoder)
    before = encoder.state_dict()
    changed = {
        name.split(".")[1] if name.startswith("blocks") else name.split(".")[0]
        for name, tensor in result.model.state_dict().items()
        if name in before and not torch.equal(tensor, before[name])
    }
    assert changed == {"1"}
    assert result.cost["unreadable_videos"] == 0
    probe = finetune(config.replace(frozen_layers=2), sources, encoder)
    assert torch.equal(probe.model.blocks[1].mlp.fc1.weight, encoder.blocks[1].mlp.fc1.weight)
    with pytest.raises(ConfigError, match="frozen_layers is 1, but this run starts from scratch"):
        finetune(config.replace(frozen_layers=1), sources)
    with pytest.raises(ConfigError, match="frozen_layers is 3; it must be between 0 and 2"):
        config.replace(frozen_layers=3)


def test_the_plan_of_balanced_classes_says_nothing_more(config):
    sources = open_sources(config)
    equal = config.replace(labels_per_class=5)
    text = overview(equal, sources, accelerator_for("fp32"))
    assert "2 ('bright', 'dark'), with 5 training and 2 to 8 test videos each" in text
    remark = "\n           2 classes have fewer than 10 test videos ('bright', 'dark')"
    assert remark in text and text.count("classes    ") == 1, "the remark continues that row"
    assert "their accuracies will say next to nothing" in " ".join(text.split())
    assert "favour" not in text
    counts = Counter(video.label for video in sources.test.videos)
    assert counts == {0: 2, 1: 8}
    dark = [index for index, video in enumerate(sources.test.videos) if video.label]
    more = Subset(sources.test, [*range(len(sources.test.videos)), *dark[:2]])
    remark = balance(sources.train, more, sources.classes)[1]
    assert remark.startswith("1 class has fewer than 10 test videos ('bright'), so its accuracy")
    many = tuple(f"class {number}" for number in range(9))
    text = balance(sources.train, sources.test, many)[0]
    assert text.startswith("9 ('class 0', 'class 1', ")
    assert "'class 5' and 3 more), with 0 to " in text


@pytest.mark.parametrize("threads,words", [(1, ", 1 thread)"), (2, ", 2 threads)")])
def test_the_device_line_counts_its_threads(monkeypatch, threads, words):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_name(torch.device("cpu")).endswith(words)


def test_the_plan_before_a_run_is_that_of_the_plan_command(config, tmp_path, monkeypatch, capsys):
    slow = replace(CARDS["a100"], matmul={"fp32": 1e6}, overlaps=False, host=(0.0, 0.0))
    monkeypatch.setattr("vmae.train.plan.this_cpu", lambda: slow)
    config.to_yaml(tmp_path / "config.yaml")
    assert main(["plan", str(tmp_path / "config.yaml")]) in (0, None)
    printed = capsys.readouterr().out.splitlines()
    last = {line.split("  ")[0]: re.split("  +", line.strip())[-1] for line in printed}
    text = overview(config, open_sources(config), accelerator_for("fp32", "cpu"))
    minutes, memory = float(last["minutes"].replace(",", "")), last["memory"].split(" of ")[0]
    assert minutes > 10
    expected = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    assert f"time       about {expected} on CPU" in text
    assert f"memory     about {memory} GB" in text
