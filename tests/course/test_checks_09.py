"""The checks of notebook 09: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import assert_rejected, right_answers, wrong_answers
from conftest import random_clips, randomize
from einops import einsum, repeat

from vmae.config import MaskConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_09 as right
from vmae.grid import patchify
from vmae.layers import Attention
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
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


def embedded_by_clip(tokens, visible, weight, bias, positions):
    return torch.stack(
        [x[v] @ weight.T + bias + positions[v] for x, v in zip(tokens, visible, strict=True)]
    )


def embedded_by_gather(tokens, visible, weight, bias, positions):
    index = repeat(visible, "b v -> b v p", p=tokens.shape[-1])
    return torch.addmm(
        bias, tokens.gather(1, index).flatten(0, 1), weight.T
    ).unflatten(0, visible.shape) + positions[visible]  # fmt: skip


def attended_by_einsum(q, k, v):
    scores = einsum(q, k, "b h i d, b h j d -> b h i j") / np.sqrt(q.shape[-1])
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return einsum(weights, v, "b h i j, b h j d -> b h i d")


def counted_by_name(rows, wide_in, wide_out, size):
    flops = rows * wide_out * (2 * wide_in)
    moved = size * rows * wide_in + size * wide_in * wide_out + size * rows * wide_out
    return flops / moved


def accumulated_by_grad(weight, x, y, parts):
    weight = weight.clone().requires_grad_()
    total, size = torch.zeros_like(weight), len(x) // parts
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        loss = F.mse_loss(x[rows] @ weight, y[rows])
        total = total + torch.autograd.grad(loss, weight)[0]
    return total / parts


def accumulated_in_place(weight, x, y, parts):
    weight.requires_grad_()
    for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
        (((a @ weight - b) ** 2).sum() / y.numel()).backward()
    return weight.grad


def planned_with_partial_batches(
    base_lr, batch, repeat, processes, accumulate, videos, warmup_epochs
):
    """The first edition's right answer."""
    clips = batch * repeat // (processes * accumulate)
    return base_lr * batch / 256, clips, round(warmup_epochs * videos / batch)


def planned_by_steps(base_lr, batch, repeat, processes, accumulate, videos, warmup_epochs):
    each = batch // processes // accumulate * repeat
    return base_lr / 256 * batch, each, (videos - videos % batch) // batch * warmup_epochs


@right_answers(
    {
        "embed_visible": [embedded_by_clip, embedded_by_gather],
        "attention": [F.scaled_dot_product_attention, attended_by_einsum],
        "linear_intensity": [counted_by_name],
        "accumulated_gradient": [accumulated_by_grad, accumulated_in_place],
        "plan": [planned_by_steps],
    }
)
def test_a_right_answer_in_another_style_passes(name, answer):
    assert verdict(ALL[f"09.{name}"], answer) is None


# ---- further wrong answers -----------------------------------------------------------------------


def zeroed(weight, x, y, parts):
    own = weight.clone().requires_grad_()
    for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
        own.grad = None
        (F.mse_loss(a @ own, b) / parts).backward()
    return own.grad


def early(weight, x, y, parts):
    own = weight.clone().requires_grad_()
    for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
        (F.mse_loss(a @ own, b) / parts).backward()
        return own.grad


@wrong_answers(
    {
        "embed_visible": [
            (lambda t, v, w, b, p: t @ w.T + b + p, "saves no computation"),
            (lambda t, v, w, b, p: F.linear(t[:, v[0]], w, b) + p[v[0]], "the first"),
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
        "accumulated_gradient": [
            (zeroed, "includes only the last part: zero it"),
            (early, "is the `return` inside the loop"),
            (lambda w, x, y, parts: None, "is the `return` missing"),
        ],
        "plan": [
            (lambda lr, b, r, n, a, v, w: (lr * b * r / 256, b * r // (n * a), w * (v // b)), "num_sample"),
            (lambda lr, b, r, n, a, v, w: (lr * b / 256, b // (n * a), w * (v // b)), "every view takes up memory"),
            (planned_with_partial_batches, "the warm-up counts incomplete batches"),
            (lambda lr, b, r, n, a, v, w: lr * b / 256, "got 1 value; expected 3 values"),
        ],
    }
)  # fmt: skip
def test_a_wrong_answer_gets_the_right_message(name, answer, words):
    assert_rejected(ALL[f"09.{name}"], answer, re.escape(words))
