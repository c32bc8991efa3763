"""The checks of notebook 04: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from torch import nn

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_04 as right
from vmae.grid import patchify
from vmae.vit import PatchEmbed

ALL = exercises("04")

pytestmark = pytest.mark.usefixtures("drawn")


# ---- right answers in other styles -----------------------------------------------------------------


def dense_by_loop(length, frames, stride, rng):
    last = length - frames * stride
    index = rng.choice(last + 1) if last > 0 else 0
    found = [index]
    while len(found) < frames:
        index += stride if index + stride < length - 1 else 0
        found.append(index)
    return np.array(found)


def dense_by_arange(length, frames, stride, rng):
    room = max(length - frames * stride, 0)
    start = int(rng.random() * (room + 1))
    index = np.arange(start, start + frames * stride, stride)
    last = index[index < length - 1].max(initial=start)
    return np.where(index < length - 1, index, last)


def tsn_by_loop(length, frames, rng):
    size = length // frames
    return np.array([rng.integers(i * size, (i + 1) * size) for i in range(frames)])


def tubelets_by_loop(clips, sides):
    p_t, p_h, p_w = sides
    _, _, T, H, W = clips.shape
    return torch.stack(
        [
            clips[:, :, t : t + p_t, y : y + p_h, x : x + p_w].permute(0, 2, 3, 4, 1).flatten(1)
            for t in range(0, T, p_t)
            for y in range(0, H, p_h)
            for x in range(0, W, p_w)
        ],
        dim=1,
    )


def tubelets_by_unfold(clips, sides):
    for axis, side in zip((2, 3, 4), sides, strict=True):
        clips = clips.unfold(axis, side, side)
    return clips.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(4).flatten(1, 3)


def weight_by_view(weight, sides):
    return weight.view(len(weight), *sides, -1).permute(0, 4, 1, 2, 3)


@right_answers(
    {
        "dense_indices": [dense_by_loop, dense_by_arange],
        "tsn_indices": [tsn_by_loop],
        "tubelets": [tubelets_by_loop, tubelets_by_unfold],
        "conv3d_weight": [weight_by_view],
    }
)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[f"04.{name}"], answer) is None


# ---- wrong answers of other kinds ------------------------------------------------------------------


def dense_to_the_last_frame(length, frames, stride, rng):
    """The first edition's right answer."""
    start = rng.integers(max(length - frames * stride, 0) + 1)
    return np.minimum(start + stride * np.arange(frames), length - 1)


def dense_from_global(length, frames, stride, rng):
    return right.dense_indices(length, frames, stride, np.random.default_rng())


def tsn_reversed(length, frames, rng):
    return right.tsn_indices(length, frames, rng)[::-1]


@wrong_answers(
    {
        "dense_indices": [
            (dense_from_global, "draw all random numbers from `rng`"),
            (lambda *a: right.dense_indices(*a).tolist(), "of type list; expected ndarray"),
            (lambda *a: right.dense_indices(*a)[:-1], r"the shape is \(15,\)"),
            (lambda *a: right.dense_indices(*a) / 1, "the dtype is float64"),
            (lambda *a: None, "is the `return` missing"),
            (lambda n, T, s, g: right.dense_indices(n, T, s + 1, g), "can draw"),
            (dense_to_the_last_frame, "if the video is shorter than the clip, its last frame"),
            (lambda n, T, s, g: g.integers(-1), "it raises ValueError"),
        ],
        "tsn_indices": [
            (tsn_reversed, "with the arguments .*, it can draw"),
            (lambda n, T, g: right.tsn_indices(n, T, g)[0], "of type int64; expected ndarray"),
        ],
        "tubelets": [
            (lambda c, s: right.tubelets(c, s)[0], r"the shape is \(24, 1536\)"),
            (lambda c, s: right.tubelets(c.flip(2), s), "the shape is correct"),
            (lambda c, s: c.view(-1, 7), "it raises RuntimeError"),
        ],
        "conv3d_weight": [
            (lambda w, s: w.T, "the shape is"),
            (lambda w, s: right.conv3d_weight(w, s) / 2, "the shape is correct"),
        ],
    }
)
def test_other_wrong_answers_are_rejected(name, answer, words):
    assert_rejected(ALL[f"04.{name}"], answer, words)


def test_a_clip_repeated_by_chance_does_not_pass_for_seeding():
    """A sampler with a generator of its own that repeats its first clip, and only that one."""
    starts = iter([3, 1, 4, 5, 9, 3, *range(10, 60)])

    def sampler(length, frames, stride, rng):
        return np.minimum(next(starts) + stride * np.arange(frames), length - 1)

    assert "draw all random numbers from `rng`" in (verdict(ALL["04.dense_indices"], sampler) or "")


def test_the_models_embedding_is_a_conv3d_with_these_weights():
    """The reference is the inverse of what `PatchEmbed` does with its Conv3d's weights."""
    torch.manual_seed(0)
    config = ModelConfig.videomae("tiny")
    embed = PatchEmbed(config)
    linear = embed.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
    assert torch.equal(right.conv3d_weight(linear, config.tubelet), embed.proj.weight)
    clips = torch.rand(2, config.channels, *config.grid.clip)
    ours = embed(patchify(clips, config.grid))
    mean, std = (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    conv: nn.Conv3d = embed.proj
    expected = conv((clips - mean) / std).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
