"""The checks of notebook 04: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from styles_04 import RIGHT
from torch import nn

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_04 as right
from vmae.positions import sincos_1d
from vmae.vit import VisionTransformer

ALL = exercises("04")

pytestmark = pytest.mark.usefixtures("drawn")


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


# ---- wrong answers of other kinds ------------------------------------------------------------------


def planted(frames):
    """The program of the lesson, with its bug."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    t, c, h, w = pixels.shape
    return pixels.reshape(c, t, h, w)


def dense_to_the_last_frame(length, frames, stride, rng):
    """The first edition's right answer."""
    start = rng.integers(max(length - frames * stride, 0) + 1)
    return np.minimum(start + stride * np.arange(frames), length - 1)


def _dense_by(start, goes_on, first=True):
    """The published loop with another range of starts, or another condition for going on."""

    def sampler(length, frames, stride, rng):
        index, found = rng.integers(start(length, frames, stride) + 1), []
        for _ in range(frames):
            if first:
                found.append(index)
            index += stride if goes_on(index + stride, length) else 0
            if not first:
                found.append(index)
        return np.array(found)

    return sampler


def _room(length, frames, stride):
    return max(length - frames * stride, 0)


dense_with_the_last_frame = _dense_by(_room, lambda following, length: following < length)
dense_that_moves_first = _dense_by(_room, lambda following, length: following < length - 1, False)


def dense_by_span_to_the_last_frame(length, frames, stride, rng):
    """The room of a clip's exact span, and the last frame for whatever lies outside."""
    start = rng.integers(max(length - (frames - 1) * stride - 1, 0) + 1)
    return np.minimum(start + stride * np.arange(frames), length - 1)


def dense_from_global(length, frames, stride, rng):
    return right.dense_indices(length, frames, stride, np.random.default_rng())


def tsn_reversed(length, frames, rng):
    return right.tsn_indices(length, frames, rng)[::-1]


def tubelets_with_square_patches(clips, sides):
    """p_h for p_w, in the form that raises no error."""
    return right.tubelets(clips, (sides[0], sides[1], sides[1]))


class Overlapping(right.TubeletEmbed):
    def __init__(self, clip, tubelet, embed_dim):
        super().__init__(clip, tubelet, embed_dim)
        self.proj = nn.Conv3d(3, embed_dim, tubelet)


class Stored(right.TubeletEmbed):
    def __init__(self, clip, tubelet, embed_dim):
        super().__init__(clip, tubelet, embed_dim)
        self.register_buffer("pos_embed", self.pos_embed, persistent=True)


class Learned(nn.Module):
    def __init__(self, clip, tubelet, embed_dim):
        super().__init__()
        self.proj = nn.Conv3d(3, embed_dim, tubelet, stride=tubelet)
        count = np.prod(clip) // np.prod(tubelet)
        self.pos_embed = nn.Parameter(sincos_1d(int(count), embed_dim)[None])


class LinearLayer(nn.Module):
    def __init__(self, clip, tubelet, embed_dim):
        super().__init__()
        self.proj = nn.Linear(3 * int(np.prod(tubelet)), embed_dim)


class OtherName(nn.Module):
    def __init__(self, clip, tubelet, embed_dim):
        super().__init__()
        self.conv = nn.Conv3d(3, embed_dim, tubelet, stride=tubelet)


class ChannelsLast(right.TubeletEmbed):
    """Forgets to move the channels behind: (B, D, N)."""

    def forward(self, clips, visible=None):
        return self.proj(clips).flatten(2) + self.pos_embed.T


class FirstRow(right.TubeletEmbed):
    def forward(self, clips, visible=None):
        tokens = super().forward(clips)
        return tokens if visible is None else tokens[:, visible[0]]


class ForgotSuper(nn.Module):
    def __init__(self, clip, tubelet, embed_dim):
        self.proj = nn.Conv3d(3, embed_dim, tubelet, stride=tubelet)


@wrong_answers(
    {
        "to_clip": [
            (lambda f: None, "is the `return` missing"),
            (lambda f: np.moveaxis(f, -1, 0), "of type ndarray; expected Tensor"),
            (planted, "In which order do the values lie"),
            (lambda f: right.to_clip(f).float(), "the dtype is torch.float32"),
            (lambda f: right.to_clip(f)[None], "the shape is"),
            (lambda f: torch.from_numpy(f).view(3, 8, 96, 144), "a reshape alone moves no axis"),
        ],
        "dense_indices": [
            (dense_from_global, "draw all random numbers from `rng`"),
            (lambda *a: right.dense_indices(*a).tolist(), "of type list; expected ndarray"),
            (lambda *a: right.dense_indices(*a)[:-1], r"the shape is \(15,\)"),
            (lambda *a: right.dense_indices(*a) / 1, "the dtype is float64"),
            (lambda *a: None, "is the `return` missing"),
            (
                lambda n, T, s, g: right.dense_indices(n, T, s + 1, g),
                "with length=40, frames=8, stride=4, it can draw",
            ),
            (dense_with_the_last_frame, "the very last frame is drawn"),
            (dense_that_moves_first, "begins one stride after its start"),
            (dense_by_span_to_the_last_frame, "leave room for T \\* stride"),
            (dense_to_the_last_frame, "if the video is shorter than the clip, its last frame"),
            (lambda n, T, s, g: g.integers(-1), "it raises ValueError"),
        ],
        "tsn_indices": [
            (tsn_reversed, "with length=9, frames=3, it can draw"),
            (lambda n, T, g: right.tsn_indices(n, T, g)[0], "of type int64; expected ndarray"),
        ],
        "tubelets": [
            (lambda c, s: right.tubelets(c, s)[0], r"the shape is \(16, 10368\)"),
            (lambda c, s: right.tubelets(c.flip(2), s), "the shape is correct"),
            (lambda c, s: c.view(-1, 7), "it raises RuntimeError"),
            (tubelets_with_square_patches, "p_h is used for the columns, too"),
            (lambda c, s: right.tubelets(c, s).double(), "the dtype is torch.float64"),
        ],
        "TubeletEmbed": [
            (right.TubeletEmbed((6, 8, 20), (3, 2, 5), 24), "pass the class"),
            (FirstRow, "every clip gets the first clip's visible tokens"),
            (Overlapping, "its windows overlap"),
            (Stored, "`pos_embed` would be stored in checkpoints"),
            (Learned, "`pos_embed` would be trained"),
            (LinearLayer, r"`proj.weight` has shape \(36, 192\)"),
            (OtherName, "`conv` must be called `proj`"),
            (ChannelsLast, r"output: the shape is \(2, 36, 768\); expected \(2, 768, 36\)"),
            (ForgotSuper, r"`super\(\).__init__\(\)` is missing|before Module.__init__"),
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


def test_a_bug_to_be_found_is_not_given_away():
    found = verdict(ALL["04.to_clip"], planted) or ""
    assert not any(word in found for word in ("reshape", "permute", "rearrange"))


def test_the_embedding_is_that_of_the_models():
    """With the weights of a model, the reference gives the tokens that the model's encoder reads."""
    torch.manual_seed(0)
    config = ModelConfig.videomae("tiny")
    encoder = VisionTransformer(config)
    embed = right.TubeletEmbed(config.grid.clip, config.tubelet, config.embed_dim)
    embed.load_state_dict(encoder.patch_embed.state_dict())
    clips = torch.rand(2, config.channels, *config.grid.clip)
    visible = torch.tensor([[1, 5, 6], [0, 2, 9]])
    mean, std = (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    ours = embed((clips - mean) / std, visible)
    torch.testing.assert_close(ours, encoder.embed(clips, visible), rtol=1e-4, atol=1e-4)
