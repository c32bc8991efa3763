"""Exercises of lesson 01: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from answers import assert_rejected, right_answers, wrong_answers
from einops import einsum, rearrange

from vmae import layers, viz
from vmae.course.checks import exercises, notebook_01, verdict

EXERCISES = exercises("01")


pytestmark = pytest.mark.usefixtures("drawn")


# ---- right answers in other styles -----------------------------------------------------------------


def patchify_by_reshape(images, side):
    b, c, height, width = images.shape
    x = images.reshape(b, c, height // side, side, width // side, side)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, side * side * c)


def patchify_by_loops(images, side):
    rows, columns = images.shape[2] // side, images.shape[3] // side
    cut = [
        images[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side]
        for y in range(rows)
        for x in range(columns)
    ]
    return torch.stack([patch.permute(0, 2, 3, 1).flatten(1) for patch in cut], dim=1)


def patchify_by_unfold(images, side):
    x = F.unfold(images, side, stride=side).transpose(1, 2)  # channel, row, column inside
    return x.unflatten(2, (images.shape[1], -1)).transpose(2, 3).flatten(2)


def attention_by_exp(q, k, v):
    scores = einsum(q, k, "b h n d, b h m d -> b h n m") / math.sqrt(q.shape[-1])
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return einsum(weights, v, "b h n m, b h m d -> b h n d"), weights


def attention_scaled_first(q, k, v):
    weights = ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1)
    return [weights @ v, weights]


def heads_by_loop(qkv, heads):
    q, k, v = qkv.chunk(3, dim=-1)
    parts = zip(*(x.chunk(heads, dim=-1) for x in (q, k, v)), strict=True)
    return torch.cat([notebook_01.attention(*part)[0] for part in parts], dim=-1)


def heads_by_view(qkv, heads):
    b, n, width = qkv.shape
    q, k, v = qkv.view(b, n, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width // 3)


def block_in_one_line(x, norm1, attend, norm2, mlp):
    return (y := x + attend(norm1(x))) + mlp(norm2(y))


def positions_by_columns(n, width):
    table = torch.zeros(n, width)
    for position in range(n):
        for column in range(0, width, 2):
            angle = position / 10000 ** (column / width)
            table[position, column] = math.sin(angle)
            table[position, column + 1] = math.cos(angle)
    return table


def positions_by_exp(n, width):
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(n, width)
    table[:, 0::2] = torch.sin(torch.arange(n)[:, None] * rates)
    table[:, 1::2] = torch.cos(torch.arange(n)[:, None] * rates)
    return table


RIGHT = {
    "01.patchify": [patchify_by_reshape, patchify_by_loops, patchify_by_unfold],
    "01.attention": [attention_by_exp, attention_scaled_first],
    "01.multi_head": [heads_by_loop, heads_by_view],
    "01.pre_norm": [block_in_one_line],
    "01.sincos_1d": [positions_by_columns, positions_by_exp],
}


def test_there_are_answers_for_every_exercise():
    assert set(RIGHT) == set(EXERCISES) == set(WRONG)


@right_answers(RIGHT)
def test_right_answers_pass_in_any_style_and_are_drawn(name, answer, drawn):
    assert verdict(EXERCISES[name], EXERCISES[name].reference) is None
    assert verdict(EXERCISES[name], answer) is None
    assert len(drawn) == 2, "each answer is drawn once"


# ---- wrong answers ---------------------------------------------------------------------------------


def channels_first(images, side):
    b, c, height, width = images.shape
    x = images.reshape(b, c, height // side, side, width // side, side)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * side * side)


def strips(images, side):
    return images.permute(0, 2, 3, 1).reshape(len(images), -1, side * side * images.shape[1])


def one_patch_lost(images, side):
    return patchify_by_loops(images, side)[:, :-1]


def over_queries(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum(-2, keepdim=True)
    return weights @ v, weights


def unscaled(q, k, v):
    weights = F.softmax(einsum(q, k, "b h n d, b h m d -> b h n m"), dim=-1)
    return weights @ v, weights


def only_output(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def square_only(q, k, v):
    q = q * k.shape[-1] ** -0.5
    weights = (q @ k.mT).softmax(-1)[..., : k.shape[2], : q.shape[2]]
    return weights @ v, weights


def heads_not_transposed(qkv, heads):
    b, n, width = qkv.shape
    q, k, v = qkv.view(b, n, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).reshape(b, n, width // 3)


def heads_interleaved(qkv, heads):
    q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=heads)
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (d h)")


def tokens_as_heads(qkv, heads):
    b, n, width = qkv.shape
    q, k, v = qkv.view(b, n, 3, heads, width // 3 // heads).unbind(2)  # (b, n, heads, d)
    return F.scaled_dot_product_attention(q, k, v).reshape(b, n, width // 3)


def published_2017(x, norm1, attend, norm2, mlp):
    return norm2((y := norm1(x + attend(x))) + mlp(y))


def second_half_of_2017(x, norm1, attend, norm2, mlp):
    x = x + attend(norm1(x))
    return norm2(x + mlp(x))


def no_residual(x, norm1, attend, norm2, mlp):
    return mlp(norm2(attend(norm1(x))))


def norm_kept_on_the_path(x, norm1, attend, norm2, mlp):
    x = norm1(x)
    x = x + attend(x)
    x = norm2(x)
    return x + mlp(x)


def in_place(x, norm1, attend, norm2, mlp):
    x += attend(norm1(x))
    x += mlp(norm2(x))
    return x


def halves(n, width):
    table = positions_by_columns(n, width)
    return torch.cat((table[:, 0::2], table[:, 1::2]), dim=1)


def swapped(n, width):
    return positions_by_columns(n, width).unflatten(1, (-1, 2)).flip(-1).flatten(1)


def own_rates(n, width):
    angles = torch.arange(n)[:, None] / 10000 ** (torch.arange(width) / width)
    angles[:, 0::2], angles[:, 1::2] = angles[:, 0::2].sin(), angles[:, 1::2].cos()
    return angles


def too_narrow(n, width):
    return positions_by_columns(n, width)[:, : width // 2]


WRONG = {
    "01.patchify": [
        (channels_first, "the channel varies slowest within each patch"),
        (strips, "the shape is correct, but"),
        (one_patch_lost, r"the shape is \(2, 23, 432\); expected \(2, 24, 432\)"),
        (lambda images, side: images.view(2, -1, side, side), "the shape is"),
    ],
    "01.attention": [
        (unscaled, "the scores are not scaled"),
        (over_queries, "the softmax is taken over the queries"),
        (only_output, "got 1 value; expected 2 values"),
        (square_only, "it raises RuntimeError"),
    ],
    "01.multi_head": [
        (heads_not_transposed, "the head axis still before the token axis"),
        (heads_interleaved, "the heads' outputs are interleaved"),
        (tokens_as_heads, "the shape is correct, but"),
    ],
    "01.pre_norm": [
        (published_2017, "the block is post-norm"),
        (second_half_of_2017, "norm2 is applied to the sum"),
        (no_residual, "both residual connections are missing"),
        (norm_kept_on_the_path, "the residual path itself is normalised"),
        (in_place, "it modifies its arguments"),
        (lambda x, norm1, attend, norm2, mlp: None, "is the `return` missing"),
    ],
    "01.sincos_1d": [
        (halves, "the sines all come before the cosines"),
        (swapped, "sines and cosines are swapped"),
        (own_rates, "every column has its own frequency"),
        (too_narrow, r"the shape is \(64, 24\); expected \(64, 48\)"),
    ],
}


@wrong_answers(WRONG)
def test_wrong_answers_in_other_styles_get_the_right_message(name, answer, words):
    assert_rejected(EXERCISES[name], answer, words)


def test_the_references_are_the_packages_layers():
    torch.manual_seed(0)
    x = torch.randn(2, 7, 12)
    attend = layers.Attention(12, num_heads=3, key_bias=True)
    heads = notebook_01.multi_head(attend.qkv(x), 3)
    assert torch.allclose(attend.proj(heads), attend(x), atol=1e-6)
    q, k, _ = rearrange(attend.qkv(x), "b n (three h d) -> three b h n d", three=3, h=3)
    assert torch.allclose(notebook_01.attention(q, k, k)[1], attend.weights(x), atol=1e-6)
    block = layers.Block(12, num_heads=3)
    ours = notebook_01.pre_norm(x, block.norm1, block.attn, block.norm2, block.mlp)
    assert torch.allclose(ours, block(x), atol=1e-6)


def test_tiles_put_patches_where_they_were_cut():
    image = torch.rand(1, 3, 24, 36, generator=torch.Generator().manual_seed(0))
    laid = viz.tiles(notebook_01.patchify(image, 12)[0], columns=3, channels=3)
    assert laid.shape == (24 + 2, 36 + 2 * 2, 3)
    assert torch.equal(laid[14:26, 28:40].permute(2, 0, 1), image[0, :, 12:24, 24:36])
    assert (laid[12:14] == 1).all() and (laid[:, 12:14] == 1).all()


def test_a_result_that_cannot_be_drawn_leaves_no_figure():
    message = verdict(EXERCISES["01.pre_norm"], lambda x, *_: torch.ones(1, 2, 2, 2, 2))
    assert "the shape is" in message
    with pytest.raises(TypeError):
        viz.pictures({"odd": torch.ones(2, 2, 7)}, alt="nothing")
    assert plt.get_fignums() == []
