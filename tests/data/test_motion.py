"""The harder levels of the motion set: pairs distinguished only by the order of frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vmae.course.making import random_crop, render, scenes
from vmae.course.making.pictures import TEST_PHOTOS, pictures
from vmae.data import SIZES, MotionSpec, set_name, spec_named
from vmae.data.sets.motion_specs import LEVELS

SPEC = {level: replace(SIZES["mini"], level=level, frames=8) for level in LEVELS}


def motion(name: str, seed: int):
    return scenes._motion(np.random.default_rng(seed), name, 8)


@pytest.mark.parametrize("pair", [scenes.SCENES[k : k + 2] for k in range(0, 18, 2)])
def test_reversing_one_class_of_a_pair_gives_the_other(pair):
    one, other = motion(pair[0], 3), motion(pair[1], 3)
    assert any(np.ptp(x, axis=0).max() > 0 for x in vars(one).values()), "something moves"
    for name in vars(one):
        steps, others = (np.diff(getattr(m, name), axis=0) for m in (one, other))
        if pair[0] == "speed-up":  # which goes in any direction, including the opposite one
            others = -others
        if pair[0].startswith("orbit") and name == "passing":  # the phase is uniform
            steps, others = (np.linalg.norm(s, axis=1, keepdims=True) for s in (steps, others))
            turns = [np.linalg.det(m.passing[:2]) for m in (one, other)]
            assert turns[0] * turns[1] < 0
            others = -others
        np.testing.assert_allclose(steps[::-1], -others, atol=1e-12)


def test_class_names_match_the_direction_of_motion():
    """x points right and y down, so right, down and clockwise are positive."""
    assert motion("pass-right", 0).passing[1, 0] > 0 > motion("pass-left", 0).passing[1, 0]
    assert motion("tilt-down", 0).camera[1, 1] > 0 > motion("conveyor-up", 0).passing[1, 1]
    assert motion("roll-right", 0).roll[1] > 0 > motion("spin-left", 0).spin[1]
    pace = np.linalg.norm(np.diff(motion("speed-up", 0).passing, axis=0), axis=1)
    assert (np.diff(pace) > 0).all()


@pytest.mark.parametrize(
    ("name", "moved"), [("pan-right", 1), ("pass-right", 0), ("follow-right", -1)]
)
def test_the_background_follows_the_camera(name, moved, monkeypatch):
    """Compared with the first frame shifted by whole pixels, on a background without objects."""
    monkeypatch.setattr(scenes, "_paste", lambda video, *_: video)
    way = motion(name, 0)
    way.camera = np.round(way.camera * 32) / 32
    monkeypatch.setattr(scenes, "_motion", lambda *_: way)
    label = scenes.SCENES.index(name)
    video = scenes.scene(np.random.default_rng(1), "train", label, 8, 64).astype(float)
    step = round(abs(way.camera[1, 0]) * 32) * moved
    light = video[1].mean() / np.roll(video[0], step, axis=1).mean()
    inside = slice(abs(step) + 1, 63 - abs(step))
    there = np.abs(video[1] - light * np.roll(video[0], step, axis=1))[:, inside].mean()
    back = np.abs(video[1] - light * np.roll(video[0], -step or 8, axis=1))[:, inside].mean()
    assert there < 0.6 * back


def test_objects_turn_clockwise_for_right():
    """After a quarter turn, the one bright corner of a cut-out has moved clockwise."""
    cut_out = np.zeros((4, 32, 32), np.float32)
    cut_out[3, :16, :16] = 1  # top left
    cut_out[0] = 255
    black = torch.zeros(2, 3, 64, 64)
    turned = scenes._paste(
        black, torch.from_numpy(cut_out), np.zeros((2, 2)), np.array([0.0, np.pi / 2]), 0.9
    )
    first, second = (frame[0] > 100 for frame in turned)
    assert first[10:30, 10:30].all() and not first[:, 34:].any()
    assert second[10:30, 34:54].all() and not second[:, :30].any()


def test_a_cut_out_that_leaves_the_frame_returns_on_the_other_side():
    solid = torch.ones(4, 16, 16) * torch.tensor([255.0, 0, 0, 1]).view(4, 1, 1)
    (frame,) = scenes._paste(
        torch.zeros(1, 3, 64, 64), solid, np.array([[1.0, 0.0]]), np.zeros(1), 0.2
    )
    assert frame[0, 32, 0] > 200 and frame[0, 32, 63] > 200 and frame[0, 32, 32] == 0


@pytest.mark.parametrize("level", ["textures", "scenes"])
def test_rendering_a_level_is_deterministic(level):
    spec = SPEC[level]
    for index in (0, 5, 17):
        frames, label = render(spec, "train", index)
        assert frames.shape == (8, 64, 64, 3) and frames.dtype == np.uint8
        assert label == index % len(spec.classes)
        np.testing.assert_array_equal(frames, render(spec, "train", index)[0])
        assert np.abs(frames - render(spec, "test", index)[0].astype(int)).mean() > 5
        assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 0.5, "it moves"


def test_textures_drift_in_the_direction_of_their_class():
    """The second frame is the first one shifted by whole pixels."""
    spec = replace(SPEC["textures"], frames=3, speed=1 / 16)  # 4 pixels per frame
    for index in (0, 2, 4, 6):  # right, down, left, up
        frames = render(spec, "train", index)[0].astype(int)
        x, y = {0: (4, 0), 2: (0, 4), 4: (-4, 0), 6: (0, -4)}[index]
        moved = np.roll(frames[0], (y, x), axis=(0, 1))[6:-6, 6:-6]
        assert np.abs(moved - frames[1, 6:-6, 6:-6]).mean() < 1.5


def test_train_and_test_scenes_share_no_pictures():
    train, test = ([*photos, *film] for photos, film in (pictures("train"), pictures("test")))
    assert len(train) > 200 and len(test) > 50 and len(TEST_PHOTOS) == 3
    seen = {picture.tobytes() for picture in train}
    assert not any(picture.tobytes() in seen for picture in test)


def test_crops_have_contrast():
    rng = np.random.default_rng(0)
    crops = [random_crop(rng, "train", 32) for _ in range(60)]
    assert all(crop.shape == (32, 32, 3) for crop in crops)
    assert np.median([crop.std(axis=(0, 1)).mean() for crop in crops]) > 30


def test_opposite_classes_and_set_names():
    for level, classes in LEVELS.items():
        opposites = SPEC[level].opposites
        assert len(classes) == len(opposites) == len(set(opposites))
        assert all(opposites[opposites[k]] == k != opposites[k] for k in range(len(classes)))
        assert spec_named(set_name(level, "full")) == replace(SIZES["full"], level=level)
    assert spec_named("holidays") is None
    with pytest.raises(
        ValueError, match=r"unknown motion level 'cubes': choose one of digits, textures, scenes"
    ):
        MotionSpec(level="cubes")
    with pytest.raises(ValueError, match="train is 17 and test is 18; .* 18 videos per split"):
        MotionSpec(level="scenes", train=17, test=18)
