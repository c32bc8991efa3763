"""The checks of notebook 05: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from einops import rearrange, repeat
from styles_05 import RIGHT, indices_by_loop, short_by_tube, tube_by_topk

from vmae.config import MaskConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_05 as right
from vmae.grid import TokenGrid
from vmae.masking import Mask, make_mask

ALL = exercises("05")
B16 = TokenGrid((16, 224, 224), (2, 16, 16))

pytestmark = pytest.mark.usefixtures("drawn")


# ---- the exercises themselves --------------------------------------------------------------------


@pytest.mark.parametrize("length", [None, 2, 4, 8, 16])
def test_the_package_draws_the_same_tubes(length):
    """`length` is in frames, as in the package."""
    steps = 8 if length is None else length // 2
    config = MaskConfig("tube", 0.9, length)
    package = make_mask(config, B16, 3, torch.Generator().manual_seed(7))
    noise = torch.rand(3 * 8 // steps, 196, generator=torch.Generator().manual_seed(7))
    noise = repeat(-noise, "(b k) n -> b (k s) n", b=3, s=steps)
    hidden = right.short_tubes(noise, 0.9, steps)
    assert torch.equal(hidden, package.hidden(1568))
    if length is None:
        assert torch.equal(right.tube_mask(noise, 0.9), hidden)
    ours = right.mask_indices(hidden)
    for name in ("visible", "queries", "targets"):
        assert torch.equal(getattr(ours, name), getattr(package, name))


def test_under_a_tube_there_is_nothing_to_copy():
    g = torch.Generator().manual_seed(1)
    tokens, noise = torch.rand(2, 4, 9, 5, generator=g), torch.rand(2, 4, 9, generator=g)
    hidden = right.tube_mask(noise, 0.7).view(2, 4, 9)
    copies = right.copy_in_time(tokens, hidden)
    for clip, mask, filled in zip(tokens, hidden, copies, strict=True):
        torch.testing.assert_close(filled[mask], clip[~mask].mean(0).expand(int(mask.sum()), -1))
        assert torch.equal(filled[~mask], clip[~mask])


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def one_mask(noise, ratio):
    t, n = noise.shape[1:]
    frame = torch.zeros(n, dtype=torch.bool)
    frame[noise[0, 0].topk(int(ratio * n)).indices] = True
    return frame.repeat(len(noise), t)


def each_step(noise, ratio):
    gone = noise.topk(int(ratio * noise.shape[2]), dim=2).indices
    return torch.zeros_like(noise, dtype=torch.bool).scatter(2, gone, True).flatten(1)


def space_first(noise, ratio):
    frame = tube_by_topk(noise[:, :1], ratio)
    return rearrange(frame[:, None].expand(-1, noise.shape[1], -1), "b t n -> b (n t)")


def by_threshold(noise, ratio):
    return (noise[:, 0] > 1 - ratio).repeat(1, noise.shape[1])


def visible_rounded_down(noise, ratio):
    n = noise.shape[2]
    keep = noise[:, 0].topk(int((1 - ratio) * n), largest=False).indices
    frame = torch.ones(len(noise), n, dtype=torch.bool).scatter(1, keep, False)
    return frame.repeat(1, noise.shape[1])


def seen_is_true(noise, ratio):
    return ~tube_by_topk(noise, ratio)


def not_flat(noise, ratio):
    return tube_by_topk(noise, ratio).view(noise.shape)


def as_numbers(noise, ratio):
    return tube_by_topk(noise, ratio).float()


def alternating(noise, ratio, length):
    tubes = torch.stack([tube_by_topk(x[:, :1], ratio) for x in noise.split(length, dim=1)], dim=1)
    return rearrange(tubes[:, None].expand(-1, length, -1, -1), "b s k n -> b (s k n)")


def in_frames(noise, ratio, length):
    return short_by_tube(noise, ratio, length // 2)


def as_tuple(hidden):
    mask = right.mask_indices(hidden)
    return mask.visible, mask.queries, mask.targets


def pairs_of_row_and_column(hidden):
    visible, queries = ((x.nonzero().reshape(len(hidden), -1)) for x in (~hidden, hidden))
    return Mask(visible, queries, torch.arange(queries.shape[1]).expand_as(queries))


def targets_by_token(hidden):
    mask = indices_by_loop(hidden)
    return Mask(mask.visible, mask.queries, mask.queries)


def flat_indices(hidden):
    batch = len(hidden)
    visible = (~hidden).flatten().nonzero().view(batch, -1)
    queries = hidden.flatten().nonzero().view(batch, -1)
    return Mask(visible, queries, torch.arange(queries.shape[1]).expand(batch, -1))


def once_argsort(noise, ratio):
    t, n = noise.shape[1:]
    return (noise[:, 0].argsort(dim=-1) >= n - int(ratio * n)).repeat(1, t)


def once_in_tubes(noise, ratio, length):
    n = noise.shape[2]
    hidden = noise[:, ::length].argsort(dim=2) >= n - int(ratio * n)
    return hidden.repeat_interleave(length, dim=1).flatten(1)


def planted(noise, ratio, length):
    """The program that the learner gets."""
    n = noise.shape[2]
    rank = noise[:, ::length].argsort(dim=2).argsort(dim=2)
    hidden = rank >= n - int(ratio * n)
    return hidden.repeat(1, length, 1).flatten(1)


def mean_of_the_step(tokens, hidden):
    seen = ~hidden[..., None]
    mean = (tokens * seen).sum(2, keepdim=True) / seen.sum(2, keepdim=True).clamp(min=1)
    copies = right.copy_in_time(tokens, hidden)
    return torch.where(hidden.all(1)[:, None, :, None], mean, copies)


class Hides(right.MaskingGenerator):
    """Another ratio than asked."""

    def __init__(self, input_size, mask_type, mask_ratio, length=None):
        super().__init__(input_size, mask_type, mask_ratio - 0.1, length)


class Flags(right.MaskingGenerator):
    """Returns `hidden` itself."""

    def __call__(self, batch, generator):
        return super().__call__(batch, generator).hidden(72)


class DrawnOnce(right.MaskingGenerator):
    """Noise drawn in the constructor."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        t, h, w = self.input_size
        self.noise = torch.rand(5000, t, h * w, generator=torch.Generator().manual_seed(1))

    def __call__(self, batch, generator):
        return right.mask_indices(self.hidden(self.noise[:batch]))


class GlobalGenerator(right.MaskingGenerator):
    def __call__(self, batch, generator):
        t, h, w = self.input_size
        return right.mask_indices(self.hidden(torch.rand(batch, t, h * w)))


class Unsorted(right.MaskingGenerator):
    """Visible tokens in the order of the noise."""

    def __call__(self, batch, generator):
        mask = super().__call__(batch, generator)
        return Mask(mask.visible.flip(1), mask.queries, mask.targets)


class AlternatingTubes(right.MaskingGenerator):
    def hidden(self, noise):
        if self.length:
            return planted(noise, self.mask_ratio, self.length)
        return super().hidden(noise)


class OneClip(right.MaskingGenerator):
    """A mask without a batch."""

    def __call__(self, batch, generator):
        mask = super().__call__(1, generator)
        return Mask(mask.visible[0], mask.queries[0], mask.targets[0])


def along_time(noise, ratio):
    t = noise.shape[1]
    return (noise.argsort(dim=1).argsort(dim=1) >= t - int(ratio * t)).flatten(1)


def other_end(noise, ratio):
    t, n = noise.shape[1:]
    return (noise[:, 0].argsort(1).argsort(1) >= n * ratio).repeat(1, t)


def by_unstable_argsort(hidden):
    """Visible tokens first, in any order."""
    mask = right.mask_indices(hidden)
    mixed = torch.randperm(mask.visible.shape[1], generator=torch.Generator().manual_seed(0))
    return Mask(mask.visible[:, mixed], mask.queries, mask.targets)


def carried(tokens, hidden):
    out = tokens.clone()
    for step in range(1, tokens.shape[1]):
        out[:, step] = torch.where(hidden[:, step, :, None], out[:, step - 1], out[:, step])
    return out


def from_itself(tokens, hidden):
    """The distance is large where the token to fill is hidden, so it is the same for all sources."""
    step = torch.arange(tokens.shape[1])
    away = (step[:, None] - step).abs()[None, :, :, None] + 1000 * hidden[:, :, None]
    copies = tokens.gather(1, away.argmin(2)[..., None].expand_as(tokens))
    seen = (~hidden)[..., None]
    mean = (tokens * seen).sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True)
    return torch.where(hidden.all(1)[:, None, :, None], mean, copies)


def from_before(tokens, hidden):
    """Carries the last visible token forward and never looks ahead."""
    seen = (~hidden)[..., None]
    last = (tokens * seen).sum((1, 2)) / seen.sum((1, 2))
    last, out = last[:, None].expand(-1, tokens.shape[2], -1), []
    for step in range(tokens.shape[1]):
        last = torch.where(hidden[:, step, :, None], last, tokens[:, step])
        out.append(last)
    return torch.stack(out, dim=1)


def black(tokens, hidden):
    nowhere = hidden.all(1)[:, None, :, None]
    return torch.where(nowhere, torch.zeros(()), right.copy_in_time(tokens, hidden))


def in_place(tokens, hidden):
    tokens[hidden] = 0.0
    return right.copy_in_time(tokens, hidden)


@wrong_answers(
    {
        "tube_mask": [
            (one_mask, "the same mask"),
            (each_step, "the mask changes over time"),
            (space_first, "time and space are swapped"),
            (by_threshold, "differs from clip to clip"),
            (visible_rounded_down, "is rounded the wrong way"),
            (seen_is_true, "the mask is inverted"),
            (not_flat, r"the shape is \(2, 8, 54\); expected \(2, 432\)"),
            (as_numbers, "the dtype is torch.float32; expected torch.bool"),
            (once_argsort, "one argsort gives the order"),
            (along_time, "the noise is ranked along time"),
            (other_end, "as many positions are hidden as should be visible"),
        ],
        "short_tubes": [
            (alternating, "the masks alternate"),
            (in_frames, "half as long"),
            (lambda x, r, _: tube_by_topk(x, r), "one tube spans the whole clip"),
            (lambda x, r, _: each_step(x, r), "changes at every step"),
            (planted, "the masks alternate from step to step"),
            (once_in_tubes, "one argsort gives the order"),
        ],
        "mask_indices": [
            (as_tuple, "the three tensors come as a tuple"),
            (pairs_of_row_and_column, r"keep the columns, `\[:, 1\]`"),
            (targets_by_token, "`targets` contains token indices"),
            (flat_indices, "continue from one clip to the next"),
            (lambda x: indices_by_loop(~x), "`visible` and `queries` are swapped"),
            (by_unstable_argsort, "in `visible` are not in ascending order"),
            (lambda x: {"visible": x}, "the result is of type dict; expected Mask"),
            (lambda x: x, "the result is of type Tensor; expected Mask"),
            (lambda x: Mask(*(i.int() for i in as_tuple(x))), "the dtype is torch.int32"),
        ],
        "MaskingGenerator": [
            (Hides, 'type "random" leaves 29 of 72 tokens visible, but 22 are expected'),
            (Flags, "returns Tensor; expected a Mask"),
            (DrawnOnce, "every call returns the same masks"),
            (GlobalGenerator, "two generators with the same seed give different masks"),
            (Unsorted, "type 'random': visible: the shape is correct"),
            (AlternatingTubes, "the tubes of length=2 change at every time step"),
            (OneClip, r"`visible` has shape \(22,\); expected one row"),
            (lambda *_: None, "NoneType"),
            (right.MaskingGenerator((6, 3, 4), "tube", 0.7), "it raises TypeError"),
        ],
        "copy_in_time": [
            (from_before, "only earlier steps are searched"),
            (black, "are left black"),
            (in_place, "it modifies its arguments"),
            (lambda x, hidden: x, "the hidden tokens are returned unchanged"),
            (lambda x, hidden: right.copy_in_time(x, hidden) + 0.5, "the shape is correct"),
            (carried, "the last visible token is carried forward"),
            (from_itself, "hidden tokens are copied from themselves"),
            (mean_of_the_step, "the mean is taken over each time step"),
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"05.{name}"], answer, words)


def test_a_bug_to_be_found_is_not_given_away():
    found = verdict(ALL["05.short_tubes"], planted) or ""
    assert found and "repeat_interleave" not in found and "in a row" not in found


def test_the_generator_draws_what_the_package_draws():
    """Of every type, as many tokens; `length` is in time steps, `tube_length` in frames."""
    for kind, length in (("random", None), ("tube", None), ("tube", 2), ("frame", None)):
        config = MaskConfig(kind, 0.9, None if length is None else 2 * length)
        ours = right.MaskingGenerator(B16.shape, kind, 0.9, length)(2, torch.Generator())
        package = make_mask(config, B16, 2)
        assert ours.visible.shape == package.visible.shape
        assert ours.targets.shape == package.targets.shape


def test_a_wrong_mask_is_drawn_too(drawn):
    verdict(ALL["05.tube_mask"], each_step)
    assert len(drawn) == 1
