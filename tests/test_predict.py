"""Classifying a video file."""

from __future__ import annotations

import pytest
import torch

from vmae import ROOT
from vmae.config import ModelConfig
from vmae.data import VideoError
from vmae.predict import predict, read_clip
from vmae.vit import VisionTransformer

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
