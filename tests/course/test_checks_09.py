"""The checks of notebook 09: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from answers import assert_rejected, right_answers, wrong_answers
from conftest import random_clips, randomize
from styles_09 import RIGHT

from vmae.config import MaskConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_09 as right
from vmae.grid import gather_tokens, patchify
from vmae.layers import Attention
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask
from vmae.train import OptimConfig, learning_rate
from vmae.vit import normalize_pixels

ALL = exercises("09")

pytestmark = pytest.mark.usefixtures("drawn")


# ---- equality with the package -------------------------------------------------------------------


def test_the_package_computes_the_same_embedding(tiny):
    encoder = randomize(MaskedAutoencoder(tiny)).encoder
    clips = random_clips(tiny, 2)
    visible = make_mask(MaskConfig("tube", 0.75), tiny.grid, 2).visible
    embed = encoder.patch_embed
    weight = embed.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
    tokens = normalize_pixels(patchify(clips, tiny.grid))
    ours = right.embed_visible(tokens, visible, weight, embed.proj.bias, encoder.pos_embed[0])
    torch.testing.assert_close(ours, encoder.embed(clips, visible))


def test_the_package_computes_the_same_attention():
    layer = randomize(Attention(24, 3))
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
    heads = right.attention(*layer._project(x))
    torch.testing.assert_close(layer.proj(heads.transpose(1, 2).flatten(2)), layer(x))


def test_the_package_scales_and_warms_up_the_learning_rate_the_same_way():
    optim = OptimConfig(
        lr=1.5e-4, base_batch_size=256, batch_size=2048, epochs=800, warmup_ratio=40 / 800
    )
    resolved = optim.resolved(240_000)
    lr, _, warmup = right.plan(1.5e-4, 2048, 1, 64, 1, 240_000, 40)
    assert lr == pytest.approx(resolved.lr)
    rates = [learning_rate(step, resolved) for step in (warmup - 2, warmup - 1, warmup + 50)]
    assert rates[1] == pytest.approx(lr)
    assert rates[0] < rates[1] > rates[2]


# ---- right answers in other styles ---------------------------------------------------------------


def planned_with_partial_batches(
    base_lr, batch, repeat, processes, accumulate, videos, warmup_epochs
):
    """The first edition's right answer."""
    clips = batch * repeat // (processes * accumulate)
    return base_lr * batch / 256, clips, round(warmup_epochs * videos / batch)


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


def test_pytorchs_own_attention_passes():
    assert verdict(ALL["09.attention"], F.scaled_dot_product_attention) is None


# ---- further wrong answers -----------------------------------------------------------------------


def step(divide=True, zero="once", update="after", early=False, told=True):
    """A learner's training step with some lines wrong."""

    def train_step(model, optimizer, clips, mask, parts=1):
        if zero == "once":
            optimizer.zero_grad()
        total = 0.0
        for rows in torch.arange(len(clips)).chunk(parts):
            if zero == "each":
                optimizer.zero_grad()
            part = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
            loss = model.loss(clips[rows], part)
            share = loss / parts if divide else loss
            share.backward()
            total += (share if told else loss).item()
            if update == "each":
                optimizer.step()
            if early:
                return total
        if update == "after":
            optimizer.step()
        return total

    return train_step


def step_without_parts(model, optimizer, clips, mask, parts=1):
    optimizer.zero_grad()
    loss = model.loss(clips, mask)
    loss.backward()
    optimizer.step()
    return loss.item()


def step_that_returns_the_graph(model, optimizer, clips, mask, parts=1):
    optimizer.zero_grad()
    loss = model.loss(clips, mask)
    loss.backward()
    optimizer.step()
    return loss


def step_with_one_backward(model, optimizer, clips, mask, parts=1, divide=True):
    optimizer.zero_grad()
    loss = 0.0
    for rows in torch.arange(len(clips)).chunk(parts):
        part = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
        loss = loss + model.loss(clips[rows], part) / (parts if divide else 1)
    loss.backward()
    optimizer.step()
    return loss.item()


def step_that_retains_graphs(model, optimizer, clips, mask, parts=1):
    optimizer.zero_grad()
    total = 0.0
    for rows in torch.arange(len(clips)).chunk(parts):
        part = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
        loss = model.loss(clips[rows], part) / parts
        loss.backward(retain_graph=True)
        total += loss.item()
    optimizer.step()
    return total


def step_with_whole_mask(model, optimizer, clips, mask, parts=1):
    for some in clips.chunk(parts):
        model.loss(some, mask).backward()
    optimizer.step()


def step_of_equal_size(model, optimizer, clips, mask, parts=1):
    optimizer.zero_grad()
    total = 0.0
    for rows in torch.arange(len(clips)).split(parts):
        part = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
        loss = model.loss(clips[rows], part) / parts
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def step_told_by_the_last(model, optimizer, clips, mask, parts=1):
    optimizer.zero_grad()
    for rows in torch.arange(len(clips)).chunk(parts):
        part = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
        loss = model.loss(clips[rows], part) / parts
        loss.backward()
    optimizer.step()
    return loss.item()


def as_given(model, batches):
    total = 0.0
    for clips, mask in batches:
        total = total + model.loss(clips, mask)
    return total / len(batches)


def converted_late(model, batches):
    return as_given(model, batches).item()


def listed(model, batches):
    losses = [model.loss(clips, mask) for clips, mask in batches]
    return sum(loss.item() for loss in losses) / len(losses)


def not_divided(model, batches):
    with torch.no_grad():
        return sum(model.loss(clips, mask) for clips, mask in batches)


def test_an_evaluation_that_returns_a_tensor_is_drawn_too(monkeypatch):
    drawn = []
    monkeypatch.setattr(right, "_draw_evaluation", lambda result: drawn.append(result.held))
    verdict(ALL["09.evaluation_loss"], as_given)
    (held,) = drawn
    assert len(held) == 4 and held == sorted(held) and held[0] == 0 < held[-1]


@wrong_answers(
    {
        "embed_visible": [
            (lambda t, v, w, b, p: t @ w.T + b + p, "saves no computation"),
            (lambda t, v, w, b, p: F.linear(t[:, v[0]], w, b) + p[v[0]], "the first"),
            (lambda t, v, w, b, p: gather_tokens(F.linear(t, w, b) + p, v), "saves no computation"),
            (lambda t, v, w, b, p: gather_tokens(t @ w.T + b, v) + p[v], "saves no computation"),
        ],
        "attention": [
            (lambda q, k, v: (q @ k.mT).softmax(-1) @ v, "not scaled"),
            (lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(2) @ v, "softmax"),
            (lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5) @ v, "the softmax is missing"),
            (lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1), "the shape is"),
        ],
        "linear_intensity": [
            (lambda r, i, o, s: r * i * o / (s * (r * i + i * o + r * o)), "two FLOPs"),
            (lambda r, i, o, s: 2 * r * i * o / (s * r * i), "; expected "),
        ],
        "train_step": [
            (step(divide=False), "too large by a factor of `parts`"),
            (step(zero="each"), "includes only the last part: zero it"),
            (step(divide=False, zero="each"), "the last part, at full weight"),
            (step(zero="never"), "the gradients of earlier steps are still there"),
            (step(update="each"), "for each part: call it once, after the last"),
            (step(update="never"), "the weights never change"),
            (step(early=True), "the first part is computed: is the `return` inside the loop"),
            (step(early=True, told=False), "its whole loss is returned: is the `return` inside"),
            (step(early=True, divide=False), "its whole loss is returned: is the `return` inside"),
            (step(early=True, update="each"), "after the first part: are optimizer.step() and"),
            (step(early=True, update="each", told=False), "part, whose whole loss is returned: are"),
            (step(early=True, update="each", divide=False), "part, whose loss is not divided by"),
            (step_with_one_backward, "backward is called once, after the loop"),
            (partial(step_with_one_backward, divide=False), "backward is called once, after the loop"),
            (step_that_retains_graphs, "the graphs of two parts are held at the same time"),
            (step_without_parts, "`parts` is ignored"),
            (step_that_returns_the_graph, "keeps the graph of its step"),
            (step_with_whole_mask, "2 clips came with the masks of 6: take the same rows of clips, visible, queries and targets"),
            (step_of_equal_size, "`parts` is taken for the number of clips in a part"),
            (step_told_by_the_last, "only the last part's share of it"),
        ],
        "evaluation_loss": [
            (as_given, "memory still grows with every batch: the sum is a tensor"),
            (converted_late, "the total becomes a number only after the last one"),
            (listed, "the total becomes a number only after the last one"),
            (not_divided, "this is the sum: divide it"),
            (lambda model, batches: converted_late(model, batches[-1:]), "the last batch only"),
        ],
        "plan": [
            (lambda lr, b, r, n, a, v, w: (lr * b * r / 256, b * r // (n * a), w * (v // b)), "num_sample"),
            (lambda lr, b, r, n, a, v, w: (lr * b / 256, b // (n * a), w * (v // b)), "every view takes up memory"),
            (planned_with_partial_batches, "the warm-up counts incomplete batches"),
            (lambda lr, b, r, n, a, v, w: (lr * b / 256, b * r // (n * a), w * -(-v // b)), "rounded up"),
            (lambda lr, b, r, n, a, v, w: (lr * b / 256, b * r // (n * a), w * v / b), "not a whole number"),
            (lambda lr, b, r, n, a, v, w: (lr * b / 256, b * r // (n * a), w * (v * r // b)), "counts `repeat`"),
            (lambda lr, b, r, n, a, v, w: (lr * b / 512, b * r // (n * a), w * (v // b)), "value 1: got 0.003"),
            (lambda lr, b, r, n, a, v, w: lr * b / 256, "got 1 value; expected 3 values"),
        ],
    }
)  # fmt: skip
def test_a_wrong_answer_gets_the_right_message(name, answer, words):
    assert_rejected(ALL[f"09.{name}"], answer, re.escape(words))
