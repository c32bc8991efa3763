"""The checks of notebook 05: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from einops import rearrange, repeat

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


# ---- right answers in other styles ---------------------------------------------------------------


def tube_by_loop(noise, ratio):
    batch, t, n = noise.shape
    hidden = torch.zeros(batch, t, n, dtype=torch.bool)
    for b in range(batch):
        for place in sorted(range(n), key=lambda i: -noise[b, 0, i])[: int(ratio * n)]:
            hidden[b, :, place] = True
    return hidden.reshape(batch, -1)


def tube_by_topk(noise, ratio):
    t, n = noise.shape[1:]
    gone = noise[:, 0].topk(int(ratio * n)).indices
    frame = torch.zeros(len(noise), n).scatter(1, gone, 1.0)
    return repeat(frame, "b n -> b (t n)", t=t) > 0


def short_by_tube(noise, ratio, length):
    tubes = [tube_by_topk(part, ratio) for part in noise.split(length, dim=1)]
    return torch.cat(tubes, dim=1)


def short_by_expand(noise, ratio, length):
    noise = rearrange(noise, "b (k s) n -> b k s n", s=length)
    keep = noise.shape[-1] - int(ratio * noise.shape[-1])
    order = noise[:, :, 0].argsort(-1)[..., :keep]
    frame = torch.ones_like(noise[:, :, 0], dtype=torch.bool).scatter(2, order, False)
    return rearrange(frame[:, :, None].expand_as(noise), "b k s n -> b (k s n)")


def indices_by_loop(hidden):
    rows = hidden.tolist()
    visible = torch.tensor([[i for i, gone in enumerate(row) if not gone] for row in rows])
    queries = torch.tensor([[i for i, gone in enumerate(row) if gone] for row in rows])
    targets = torch.tensor([list(range(len(row))) for row in queries])
    return Mask(visible, queries, targets)


def indices_by_masked_select(hidden):
    numbers = torch.arange(hidden.shape[1]).expand_as(hidden)
    visible = numbers[~hidden].reshape(len(hidden), -1)
    queries = numbers[hidden].reshape(len(hidden), -1)
    return Mask(visible, queries, torch.arange(queries.shape[1]).repeat(len(hidden), 1))


def copy_by_loop(tokens, hidden):
    out = tokens.clone()
    batch, t, n = hidden.shape
    for b in range(batch):
        mean = tokens[b][~hidden[b]].mean(0)
        for i in range(n):
            seen = [s for s in range(t) if not hidden[b, s, i]]
            for s in range(t):
                if hidden[b, s, i]:
                    near = min(seen, key=lambda other: abs(other - s), default=None)
                    out[b, s, i] = mean if near is None else tokens[b, near, i]
    return out


def copy_by_growing(tokens, hidden):
    """Outwards from the visible steps, one step at a time: first from before, then from after."""
    out, known = tokens.clone(), ~hidden
    for far in range(1, tokens.shape[1]):
        for to in range(tokens.shape[1]):
            for source in (to - far, to + far):
                if 0 <= source < tokens.shape[1]:
                    take = ~known[:, to] & ~hidden[:, source]
                    out[:, to] = torch.where(take[..., None], tokens[:, source], out[:, to])
                    known[:, to] |= take
    seen = (~hidden)[..., None].float()
    mean = (tokens * seen).sum((1, 2)) / seen.sum((1, 2))
    return torch.where(known[..., None], out, mean[:, None, None])


@right_answers(
    {
        "tube_mask": [tube_by_loop, tube_by_topk],
        "short_tubes": [short_by_tube, short_by_expand],
        "mask_indices": [indices_by_loop, indices_by_masked_select],
        "copy_in_time": [copy_by_loop, copy_by_growing],
    }
)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[f"05.{name}"], answer) is None


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


def targets_by_token(hidden):
    mask = indices_by_loop(hidden)
    return Mask(mask.visible, mask.queries, mask.queries)


def flat_indices(hidden):
    batch = len(hidden)
    visible = (~hidden).flatten().nonzero().view(batch, -1)
    queries = hidden.flatten().nonzero().view(batch, -1)
    return Mask(visible, queries, torch.arange(queries.shape[1]).expand(batch, -1))


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
            (not_flat, r"the shape is \(2, 4, 36\); expected \(2, 144\)"),
            (as_numbers, "the dtype is torch.float32; expected torch.bool"),
        ],
        "short_tubes": [
            (alternating, "the masks alternate"),
            (in_frames, "half as long"),
            (lambda x, r, _: tube_by_topk(x, r), "one tube spans the whole clip"),
            (lambda x, r, _: each_step(x, r), "changes at every step"),
        ],
        "mask_indices": [
            (as_tuple, "expected"),
            (targets_by_token, "`targets` contains token indices"),
            (flat_indices, "continue from one clip to the next"),
            (lambda x: indices_by_loop(~x), "`visible` and `queries` are swapped"),
        ],
        "copy_in_time": [
            (from_before, "only earlier steps are searched"),
            (black, "are left black"),
            (in_place, "it modifies its arguments"),
            (lambda x, hidden: x, "the shape is correct"),
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"05.{name}"], answer, words)


def test_a_wrong_mask_is_drawn_too(drawn):
    verdict(ALL["05.tube_mask"], each_step)
    assert len(drawn) == 1
