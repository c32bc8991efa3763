"""Classifying a video file: as the classifier was tested, unless the caller says otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vmae import ROOT, load
from vmae.config import ModelConfig
from vmae.data import DataConfig, Sampling, VideoError, write_video
from vmae.inference import Inference
from vmae.predict import predict, read_clip, read_views
from vmae.train import (
    FinetuneConfig,
    OptimConfig,
    Sources,
    evaluate,
    finetune,
    load_classifier,
    open_sources,
)
from vmae.vit import VisionTransformer
from vmae.weights import save

SHOT = ROOT / "data" / "big_buck_bunny_shot.mp4"
CONFIG = ModelConfig.videomae("tiny", img_size=32, tubelet=(2, 8, 8))


def test_a_clip_comes_from_the_centre_in_time_and_space():
    clip = read_clip(SHOT, CONFIG, stride=4)
    assert clip.shape == (1, 3, 8, 32, 32)
    assert clip.dtype == torch.uint8
    with pytest.raises(
        VideoError, match="132 frames, but a clip of 8 frames with stride 20 covers 141"
    ):
        read_clip(SHOT, CONFIG, stride=20)


def test_predictions_are_named_and_sorted():
    torch.manual_seed(0)
    model = VisionTransformer(CONFIG, num_classes=3, init_scale=1.0)
    numbered = predict(model, SHOT)
    assert sorted(name for name, _ in numbered) == ["0", "1", "2"]
    model.class_names = ("run", "jump", "sit")
    named = predict(model, SHOT, top=2)
    assert [p for _, p in named] == sorted((p for _, p in named), reverse=True)
    assert named[0][0] == model.class_names[int(numbered[0][0])]
    assert sum(p for _, p in numbered) == pytest.approx(1, abs=1e-5)
    with pytest.raises(
        ValueError,
        match="no classification head, so it cannot predict classes: fine-tune the model",
    ):
        predict(VisionTransformer(CONFIG), SHOT)


# ---- as it was trained and tested ----------------------------------------------------------------


@pytest.fixture(scope="module")
def speeds(tmp_path_factory) -> Path:
    """Videos that flicker: "fast" with a period of 8 frames, "slow" with one of 32.

    At a stride of 1 "fast" looks as "slow" does at a stride of 4.
    """
    folder = tmp_path_factory.mktemp("sets") / "speeds"
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 8)):
        for name, period in (("fast", 8), ("slow", 32)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                light = (np.arange(64) + rng.integers(period)) % period < period // 2
                frames = (
                    60 + 120 * light[:, None, None, None] + rng.integers(-9, 9, (64, 24, 40, 3))
                )
                write_video(folder / split / name / f"{number}.mp4", frames.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def tuned(speeds, tmp_path_factory):
    """A classifier of speeds in a folder, its configuration and its sources."""
    config = FinetuneConfig(
        model=ModelConfig.videomae("tiny", depth=1, embed_dim=32),
        data=DataConfig(
            path=str(speeds),
            cache_dir=str(tmp_path_factory.mktemp("stores")),
            num_workers=1,
            stride=4,
        ),
        optim=OptimConfig(steps=60, batch_size=16, lr=2e-3),
        log_every=60,
    )
    sources = open_sources(config)
    folder = tmp_path_factory.mktemp("runs") / "classifier"
    result = finetune(config, sources, folder=folder)
    assert result.test.accuracy == 100
    return folder, config, sources, result


def all_probabilities(model: VisionTransformer, sources: Sources, **options) -> torch.Tensor:
    """(videos, classes): what `predict` says of each test video."""
    rows = []
    for video in sources.test.videos:
        found = dict(predict(model, video.path, **options))
        rows.append([found[name] for name in sources.classes])
    return torch.tensor(rows)


def test_a_run_predicts_what_it_was_tested_with(tuned):
    """The same stride: otherwise one speed looks like the other."""
    folder, _, sources, result = tuned
    for model in (load(folder), load_classifier(folder)[0], result.model):
        assert model.inference == Inference(stride=4)
        found = all_probabilities(model, sources)
        torch.testing.assert_close(found, result.test.logits.softmax(-1), rtol=0, atol=1e-6)
        single = evaluate(model, sources.test, Sampling(8, 4), batch_size=1)
        assert torch.equal(found, single.logits.softmax(-1))
    right = all_probabilities(model, sources, stride=1).argmax(1) == result.test.labels
    assert right.sum() <= 8, "an explicit stride is used"


@pytest.mark.parametrize(
    "changes",
    [
        {"test_clips": 2, "test_crops": 3},
        {"data": {"sampling": "kinetics"}},
        {"data": {"sampling": "tsn"}, "test_clips": 2},
        {"data": {"stride": 20, "short": "repeat"}},
        {"view": "single-frame", "test_crops": 2},
    ],
)
def test_predictions_take_the_views_of_the_test(tuned, tmp_path, changes):
    _, config, sources, _ = tuned
    data = config.data.replace(**changes.get("data", {}))
    config = config.replace(**(changes | {"data": data}), optim=config.optim.replace(steps=1))
    finetune(config, sources, folder=tmp_path / "run")
    sampling = Sampling.of(data, 8)
    options = {"clips": config.test_clips, "crops": config.test_crops, "view": config.view}
    first = load(tmp_path / "run")
    once = config.test_clips * config.test_crops  # views of a batch of one video
    expected = evaluate(first, sources.test, sampling, batch_size=once, **options)
    save(first, tmp_path / "vmae")
    save(load(tmp_path / "vmae"), tmp_path / "hf", "hf")
    save(load(tmp_path / "hf"), tmp_path / "again")
    for model in (first, *(load(tmp_path / name) for name in ("vmae", "hf", "again"))):
        found = all_probabilities(model, sources)
        assert torch.equal(found, expected.logits.softmax(-1))
    plain = all_probabilities(model, sources, stride=1, clips=1, crops=1)
    assert not torch.equal(found, plain)


def test_a_checkpoint_of_a_run_knows_it_too(tuned):
    folder, *_ = tuned
    (step,) = (folder / "checkpoints").glob("step-*")
    assert load(step).inference == Inference(stride=4)


def test_frames_may_be_resized_otherwise(tmp_path):
    """To a larger short side, then cropped; or squeezed to a square, as image processors do."""
    frames = np.zeros((8, 32, 64, 3), np.uint8)
    frames[:, :, :16] = 250  # a bright left quarter
    write_video(tmp_path / "wide.mp4", frames)
    seen = []

    class Spy(VisionTransformer):
        def forward(self, clips):
            seen.append(clips)
            return super().forward(clips)

    model = Spy(CONFIG, 2)
    for inference in (Inference(), Inference(squeeze=True), Inference(short_side=64, crops=3)):
        model.inference = inference
        predict(model, tmp_path / "wide.mp4")
    bright = [(clips.float().mean((1, 2, 3)) > 128).sum(1).tolist() for clips in seen]
    assert bright == [[0], [8], [32, 0, 0]]
    assert {clips.shape[1:] for clips in seen} == {(3, 8, 32, 32)}


def test_several_labels_have_a_probability_each():
    torch.manual_seed(0)
    model = VisionTransformer(CONFIG, num_classes=3, init_scale=1.0).eval()
    model.inference = Inference(multi_label=True)
    expected = model(read_clip(SHOT, CONFIG)).sigmoid()[0]
    found = dict(predict(model, SHOT))
    assert [found[name] for name in "012"] == pytest.approx(expected.tolist())
    assert sum(found.values()) != pytest.approx(1, abs=0.1)
    views = read_views(SHOT, CONFIG, Inference(clips=2))
    found = dict(predict(model, SHOT, clips=2))
    expected = model(views).sigmoid().mean(0)
    assert [found[name] for name in "012"] == pytest.approx(expected.tolist())
