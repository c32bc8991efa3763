"""Lesson 01, the vision transformer: patches, attention, heads, the block, positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image

from vmae import ROOT, grid, viz
from vmae.course.checks.core import Exercise
from vmae.positions import sincos_1d

Branch = Callable[[torch.Tensor], torch.Tensor]


# ---- patches ---------------------------------------------------------------------------------------


def patchify(images: torch.Tensor, side: int) -> torch.Tensor:
    """Cut images (B, C, H, W) into patches (B, N, side·side·C): `vmae.grid.patchify` on one frame."""
    channels, height, width = images.shape[1:]
    cut = grid.TokenGrid((1, height, width), (1, side, side), channels)
    return grid.patchify(images[:, :, None], cut)


def cat(height: int, width: int) -> torch.Tensor:
    """The cat of data/photos, (3, height, width) in [0, 1]."""
    with Image.open(ROOT / "data" / "photos" / "cat.jpg") as photo:
        picture = photo.convert("RGB").resize((width, height))
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255


def _image_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    photo = cat(48, 72)
    noise = torch.rand(2, 2, 6, 4, generator=g)
    return [(torch.stack((photo, photo.flip(-1))), 12), (noise, 2)]


def _draw_patches(result: torch.Tensor, images: torch.Tensor, side: int) -> None:
    channels, _, width = images.shape[1:]
    viz.pictures(
        {
            "the image": images[0],
            "your patches": viz.tiles(result[0], width // side, channels),
        },
        alt="A photo of a cat and, beside it, the patches that the learner's function cuts from "
        "it, laid out row by row.",
    )


def _arranged(pattern: str) -> Callable[[torch.Tensor, int], torch.Tensor]:
    return lambda images, side: rearrange(images, pattern, p=side, q=side)


PATCHIFY = Exercise(
    "01.patchify",
    patchify,
    _image_cases,
    {
        "the patches are numbered column by column: number them row by row, (h w)": _arranged(
            "b c (h p) (w q) -> b (w h) (p q c)"
        ),
        "the pixels within each patch are ordered column by column: order them row by row, (p "
        "q c)": _arranged("b c (h p) (w q) -> b (h w) (q p c)"),
        "the channel varies slowest within each patch: make it vary fastest, (p q c), not (c "
        "p q)": _arranged("b c (h p) (w q) -> b (h w) (c p q)"),
        "each patch contains pixels from all over the image: when splitting an axis, put the "
        "grid index first, (h p), not (p h)": _arranged("b c (p h) (q w) -> b (h w) (p q c)"),
        "a reshape alone yields runs of consecutive values, not square patches: split the "
        "axes into (h p) and (w q), then permute them": lambda images, side: images.reshape(
            len(images), -1, side * side * images.shape[1]
        ),
    },
    draw=_draw_patches,
)


# ---- attention -------------------------------------------------------------------------------------


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention: its output (..., N, d) and its weights (..., N, M)."""
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    return F.scaled_dot_product_attention(q, k, v), weights


def _attention_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    square = tuple(2 * torch.randn(2, 3, 9, 4, generator=g) for _ in range(3))
    other = [torch.randn(1, 2, n, 5, generator=g) for n in (4, 7, 7)]
    return [square, tuple(other)]


def _draw_attention(result: Any, *_: torch.Tensor) -> None:
    weights = result[1][0]
    viz.pictures(
        {f"head {i}": head for i, head in enumerate(weights)},
        alt="The learner's attention weights in three heads, one row per query.",
    )


def _weighted(weigh: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """Attention whose weights are computed by `weigh`."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[Any, ...]:
        weights = weigh(q, k)
        return weights @ v, weights

    return attend


def _scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.transpose(-2, -1)


ATTENTION = Exercise(
    "01.attention",
    attention,
    _attention_cases,
    {
        "the scores are not scaled: divide them by the square root of d before the softmax": _weighted(
            lambda q, k: _scores(q, k).softmax(-1)
        ),
        "the scores are divided by d: divide them by the square root of d instead": _weighted(
            lambda q, k: (_scores(q, k) / q.shape[-1]).softmax(-1)
        ),
        "the scale is computed from the model's full width: use the head width, d = "
        "q.shape[-1]": _weighted(
            lambda q, k: (_scores(q, k) / (q.shape[-1] * q.shape[1]) ** 0.5).softmax(-1)
        ),
        "the scores are multiplied by the square root of d: divide by it instead": _weighted(
            lambda q, k: (_scores(q, k) * q.shape[-1] ** 0.5).softmax(-1)
        ),
        "the softmax is taken over the queries: take it over the keys, the last axis, so that "
        "each query's weights sum to 1": _weighted(
            lambda q, k: (_scores(q, k) / q.shape[-1] ** 0.5).softmax(-2)
        ),
        "queries and keys are swapped: compute q @ k^T, so that each row corresponds to a "
        "query": _weighted(lambda q, k: (_scores(k, q) / q.shape[-1] ** 0.5).softmax(-1)),
        "the weights are scaled after the softmax: scale the scores before the softmax "
        "instead": _weighted(lambda q, k: _scores(q, k).softmax(-1) / q.shape[-1] ** 0.5),
        "the softmax is missing: apply it to the scores, so that each query's weights are "
        "positive and sum to 1": _weighted(lambda q, k: _scores(q, k) / q.shape[-1] ** 0.5),
        "the weights are applied to the keys: apply them to the values instead": lambda q, k, v: (
            attention(q, k, k)[0],
            attention(q, k, v)[1],
        ),
        "the two results are in the wrong order: return the output first, then the weights": lambda q, k, v: (
            attention(q, k, v)[::-1]
        ),
    },
    draw=_draw_attention,
)


# ---- heads -----------------------------------------------------------------------------------------


def multi_head(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Multi-head attention on projected inputs: (B, N, 3D) -> (B, N, D)."""
    return _heads(qkv, heads)


def _heads(
    qkv: torch.Tensor,
    heads: int,
    split: str = "b n (three heads d) -> three b heads n d",
    merge: str = "b heads n d -> b n (heads d)",
    order: tuple[int, int, int] = (0, 1, 2),
    scale: float | None = None,
) -> torch.Tensor:
    parts = rearrange(qkv, split, three=3, heads=heads)
    q, k, v = (parts[i] for i in order)
    return rearrange(F.scaled_dot_product_attention(q, k, v, scale=scale), merge)


def _not_moved(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """The heads' outputs reshaped without moving the axes, heads before tokens."""
    merged = _heads(qkv, heads, merge="b heads n d -> b heads n d")
    return merged.reshape(len(qkv), qkv.shape[1], -1)


def _draw_heads(result: torch.Tensor, qkv: torch.Tensor, heads: int) -> None:
    viz.pictures(
        {"queries, keys, values": qkv[0], f"your output, {heads} heads": result[0]},
        alt="Two matrices with one row per token: the input queries, keys and values, and the "
        "learner's output.",
    )


MULTI_HEAD = Exercise(
    "01.multi_head",
    multi_head,
    lambda g: [
        (2 * torch.randn(2, 8, 3 * 12, generator=g), 3),
        (torch.randn(1, 5, 3 * 16, generator=g), 2),
    ],
    {
        "the heads' outputs are interleaved, (d heads): concatenate them instead, (heads d)": lambda x, n: (
            _heads(x, n, merge="b heads n d -> b n (d heads)")
        ),
        "the heads are merged with the head axis still before the token axis: transpose the "
        "two axes before the reshape": _not_moved,
        "each head's columns are scattered across the full width: give each head contiguous "
        "columns, (heads d)": lambda x, n: _heads(
            x, n, "b n (three d heads) -> three b heads n d", "b heads n d -> b n (d heads)"
        ),
        "the columns are split into heads first, then into query, key and value: split them "
        "into queries, keys and values first, (three heads d)": lambda x, n: _heads(
            x, n, "b n (heads three d) -> three b heads n d"
        ),
        "queries and keys are swapped: split the columns into queries, keys and values, in "
        "that order": lambda x, n: _heads(x, n, order=(1, 0, 2)),
        "keys and values are swapped: split the columns into queries, keys and values, in "
        "that order": lambda x, n: _heads(x, n, order=(0, 2, 1)),
        "the scale is computed from the full width D: use the width of one head, D / heads": lambda x, n: (
            _heads(x, n, scale=(x.shape[-1] / 3) ** -0.5)
        ),
        "only one head is used: split the columns into heads first": lambda x, n: _heads(x, 1),
    },
    draw=_draw_heads,
)


# ---- the block -------------------------------------------------------------------------------------


def pre_norm(
    x: torch.Tensor, norm1: Branch, attend: Branch, norm2: Branch, mlp: Branch
) -> torch.Tensor:
    """x + attend(norm1(x)), then x + mlp(norm2(x)): the block of ViT, MAE and VideoMAE."""
    x = x + attend(norm1(x))
    return x + mlp(norm2(x))


def _norm(width: int, g: torch.Generator) -> Branch:
    scale = 1 + 0.3 * torch.randn(width, generator=g)
    return lambda x: F.layer_norm(x, (width,), scale)


def _branch(width: int, g: torch.Generator, mix: bool) -> Branch:
    weight = torch.randn(width, width, generator=g) / width**0.5
    return lambda x: torch.tanh((x.roll(1, 1) if mix else x) @ weight)


def _block_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    return [
        (
            2 * torch.randn(batch, tokens, width, generator=g),
            _norm(width, g),
            _branch(width, g, mix=True),
            _norm(width, g),
            _branch(width, g, mix=False),
        )
        for batch, tokens, width in ((2, 6, 16), (1, 9, 8))
    ]


def _draw_block(result: torch.Tensor, x: torch.Tensor, *_: Branch) -> None:
    viz.pictures(
        {"x": x[0], "your block(x)": result[0], "what it added": result[0] - x[0]},
        alt="Three matrices with one row per token: the input, the learner's output, and their "
        "difference.",
    )


def _post_norm(x: torch.Tensor, n1: Branch, a: Branch, n2: Branch, m: Branch) -> torch.Tensor:
    x = n1(x + a(x))
    return n2(x + m(x))


def _normed_path(x: torch.Tensor, n1: Branch, a: Branch, n2: Branch, m: Branch) -> torch.Tensor:
    x = n1(x)
    x = n2(x + a(x))
    return x + m(x)


def _late_norm(x: torch.Tensor, n1: Branch, a: Branch, n2: Branch, m: Branch) -> torch.Tensor:
    x = x + n1(a(x))
    return x + n2(m(x))


def _no_norm(x: torch.Tensor, n1: Branch, a: Branch, n2: Branch, m: Branch) -> torch.Tensor:
    x = x + a(x)
    return x + m(x)


PRE_NORM = Exercise(
    "01.pre_norm",
    pre_norm,
    _block_cases,
    {
        "the block is post-norm, as in the original Transformer: normalise each branch's "
        "input instead, x + attend(norm1(x))": _post_norm,
        "both residual connections are missing: add each branch's output to x": lambda x, n1, a, n2, m: (
            m(n2(a(n1(x))))
        ),
        "the residual connection around attention is missing: use x + attend(norm1(x))": (
            lambda x, n1, a, n2, m: (y := a(n1(x))) + m(n2(y))
        ),
        "the residual connection around the MLP is missing: use x + mlp(norm2(x))": lambda x, n1, a, n2, m: (
            m(n2(x + a(n1(x))))
        ),
        "the residual path itself is normalised: normalise only each branch's input, and add "
        "the branch's output to the unnormalised x": _normed_path,
        "each norm is applied to the output of its branch: apply it to the branch's input": _late_norm,
        "the norms are missing: normalise each branch's input": _no_norm,
        "the MLP is applied to the block's original input: apply it to x after adding the "
        "attention output": lambda x, n1, a, n2, m: x + a(n1(x)) + m(n2(x)),
        "norm1 is applied to the sum of x and the attention output: use x + attend(norm1(x))": (
            lambda x, n1, a, n2, m: (y := n1(x + a(x))) + m(n2(y))
        ),
        "norm2 is applied to the sum of x and the MLP output: use x + mlp(norm2(x))": (
            lambda x, n1, a, n2, m: n2((y := x + a(n1(x))) + m(y))
        ),
        "norm1 is used for both branches: use norm2 for the MLP": lambda x, n1, a, n2, m: pre_norm(
            x, n1, a, n1, m
        ),
    },
    draw=_draw_block,
)


# ---- positions -------------------------------------------------------------------------------------


def _table(
    n: int,
    width: int,
    rate: Callable[[torch.Tensor, int], torch.Tensor] = lambda pair, width: 2 * pair / width,
    first: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sines and cosines (n, width / 2) of position / 10000^rate."""
    pair = torch.arange(width // 2, dtype=torch.float64)
    angles = torch.arange(first, n + first)[:, None] / 10000 ** rate(pair, width)
    return angles.sin().float(), angles.cos().float()


def _interleaved(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.stack((a, b), -1).flatten(1)


def _rate_of_column(n: int, width: int) -> torch.Tensor:
    column = torch.arange(width, dtype=torch.float64)
    angles = torch.arange(n)[:, None] / 10000 ** (column / width)
    return torch.where(column % 2 == 0, angles.sin(), angles.cos()).float()


def _draw_positions(result: torch.Tensor, *_: int) -> None:
    viz.pictures(
        {"your table": result, "its corner": result[:16, :16]},
        alt="The learner's position table, one row per position, and its upper left corner.",
        cmap="RdBu",
    )


SINCOS_1D = Exercise(
    "01.sincos_1d",
    sincos_1d,
    lambda g: [(64, 48), (7, 6)],
    {
        "the sines all come before the cosines, as in MAE: interleave them here, with sines "
        "in the even columns and cosines in the odd ones": lambda n, w: torch.cat(_table(n, w), 1),
        "sines and cosines are swapped: put the sines in the even columns and the cosines in "
        "the odd ones": lambda n, w: _interleaved(*_table(n, w)[::-1]),
        "every column has its own frequency: use the same frequency for the sine and cosine "
        "in each pair": _rate_of_column,
        "the frequencies decrease too slowly: use the exponent 2k / D for pair k, not k / D": lambda n, w: (
            _interleaved(*_table(n, w, lambda pair, width: pair / width))
        ),
        "the frequencies increase from pair to pair: divide the position by 10000^(2k / D) "
        "instead of multiplying by it": lambda n, w: _interleaved(
            *_table(n, w, lambda pair, width: -2 * pair / width)
        ),
        "the positions start at 1: start them at 0": lambda n, w: _interleaved(
            *_table(n, w, first=1)
        ),
        "the last frequency is 1/10000: use the exponent 2k / D, with k from 0 to D/2 - 1, so "
        "that the exponent stays below 1": lambda n, w: _interleaved(
            *_table(n, w, lambda pair, width: pair / (width // 2 - 1))
        ),
    },
    draw=_draw_positions,
)

EXERCISES = (PATCHIFY, ATTENTION, MULTI_HEAD, PRE_NORM, SINCOS_1D)
