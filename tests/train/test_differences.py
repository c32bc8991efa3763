"""Where training differs from the published code on purpose: each difference is stated and measured.

The statements are in vmae/train/recipes/README.md, the measurements in data/bench/cpu.json
(tests/bench/differences.py).
"""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import torch
import torch.nn.functional as F

from vmae import ROOT
from vmae.config import ModelConfig
from vmae.data.reading.loader import StepBatches
from vmae.data.reading.reader import resize_frames
from vmae.data.reading.sampling import Sampling
from vmae.train import FinetuneConfig, OptimConfig

finetuning = import_module("vmae.train.finetune")


def test_frames_are_antialiased_where_the_published_views_are_not():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::4] = 255  # four columns become one: a quarter is white
    pixels = torch.from_numpy(stripes).permute(0, 3, 1, 2)
    plain = F.interpolate(pixels, size=[16, 16], mode="bilinear")  # cv2's resize does the same
    assert abs(float(resize_frames(stripes, 16).mean()) - 255 / 4) < 2
    assert float(plain.float().mean()) == 0, "the stripes fall between the samples"


def test_augmentation_acts_on_squares_of_the_models_size(monkeypatch):
    order = []

    def spy(name):
        def record(clips, *_):
            order.append((name, tuple(clips.shape[-2:])))
            return clips

        return record

    for name in ("rand_augment", "random_resized_crop", "random_flip", "random_erase"):
        monkeypatch.setattr(finetuning, name, spy(name))
    config = FinetuneConfig(
        model=ModelConfig.videomae("tiny"), crop=True, crop_area=(0.08, 1.0), flip=True,
        randaug_num_ops=4, random_erase_prob=0.25,
    )  # fmt: skip
    finetuning.augment(torch.zeros(2, 3, 8, 16, 16), config)
    names = ["rand_augment", "random_resized_crop", "random_flip", "random_erase"]
    assert order == [(name, (16, 16)) for name in names]


def test_an_epoch_has_the_published_steps_but_no_video_is_left_out():
    videos, batch = 100, 8
    steps = OptimConfig(epochs=25, batch_size=batch).resolved(videos).steps
    assert steps == 25 * (videos // batch)
    read = [index for keys in StepBatches(videos, batch, steps, seed=0) for _, index in keys]
    assert len(read) == 24 * videos, "drop_last takes 96 of 100 videos in each of 25 epochs"
    for epoch in range(24):
        assert sorted(read[epoch * videos : (epoch + 1) * videos]) == list(range(videos))


def test_tsn_clips_of_very_short_videos_are_those_of_v2_for_v1_too():
    clip = Sampling(16, scheme="tsn", short="repeat").train(3, np.random.default_rng(0))
    assert clip.tolist() == [0] * 13 + [0, 1, 2]


def test_the_readme_states_what_was_measured():
    entry = json.loads((ROOT / "data" / "bench" / "cpu.json").read_text())["differences"]
    text = (ROOT / "vmae" / "train" / "recipes" / "README.md").read_text(encoding="utf-8")
    for arm, values in entry["accuracy"].items():
        row = " | ".join((arm.replace(", ", " | "), *(f"{value:.1f}" for value in values)))
        assert f"| {row} |" in text, f"vmae/train/recipes/README.md should have the row | {row} |"
