"""Lesson 01, the vision transformer: patches, attention, the block, positions, the model, its training.

`Attention`, `Block`, `PatchEmbed` and `VisionTransformer` have the parameters of the official ViT.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.colors import to_rgb
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from vmae import ROOT, grid, layers
from vmae.course import viz
from vmae.course.checks.core import Exercise
from vmae.course.checks.modules import ModuleCase, module_exercise
from vmae.figures.colours import TARGET
from vmae.positions import sincos_1d
from vmae.support.progress import Record

Batch = tuple[torch.Tensor, torch.Tensor]
Inputs = tuple[torch.Tensor, ...]
#: PyTorch's default epsilon of LayerNorm, ten times ViT's, must pass: on small tokens it shows.
EPS_TOLERANCE = 3e-3


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
    noise = torch.rand(5, 4, 6, 14, generator=g)
    return [(torch.stack((photo, photo.flip(-1))), 12), (noise, 2)]


@cache
def _digits() -> Batch:
    """Scikit-learn's digits: images (1797, 1, 8, 8) in [0, 1] and labels (1797,)."""
    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    return images, torch.tensor(digits.target)


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
        "each row holds patches of one channel alone: after splitting the axes, move the grid before the "
        "channel, (h w) first, then (p q c)": lambda images, side: rearrange(
            images, "b c (h p) (w q) -> b (c h w p q)", p=side, q=side
        ).reshape(len(images), -1, side * side * images.shape[1]),
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


#: The cat in patches of _SIDE x _SIDE pixels: their grid, and the one whose attention is drawn, an eye.
_SIDE, _PATCHES, _EYE = 6, (12, 18), (4, 6)


def _attention_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    """The cat and its mirror image; then random numbers.

    Each patch of the cat is described to three heads, by its colour, its position, or position and
    brightness. Queries and keys are such that q·k falls with the squared distance of two descriptions,
    as in a Gaussian kernel. The values are colours and brightness.
    """
    rows, columns = _PATCHES
    pixels = patchify(cat(rows * _SIDE, columns * _SIDE)[None], _SIDE)[0]  # (216, P)
    colour = pixels.unflatten(1, (-1, 3)).mean(1)  # (216, 3)
    light = colour.mean(1, keepdim=True)
    lines = torch.arange(rows).float(), torch.arange(columns).float()
    place = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).flatten(0, 1)  # (216, 2)
    both = torch.cat((0.3 * place, 14 * light), dim=1)
    alike = torch.stack((18 * colour, F.pad(place, (0, 1)), both))  # (3, 216, 3)
    alike = alike - alike.mean(1, keepdim=True)  # small numbers, for small rounding errors
    queries = 2 * F.pad(alike, (0, 1), value=1.0)  # (3, 216, 4); 2 is the square root of d
    keys = torch.cat((alike, -alike.square().sum(-1, keepdim=True) / 2), dim=-1)
    values = torch.cat((colour, light), dim=1).expand(3, -1, -1)
    cats = [torch.stack((x, _mirrored(x))) for x in (queries, keys, values)]
    other = [torch.randn(1, 2, n, 5, generator=g) for n in (4, 7, 7)]
    return [tuple(cats), tuple(other)]


def _mirrored(x: torch.Tensor) -> torch.Tensor:
    """Vectors of patches (3, 216, 4), from right to left."""
    return x.unflatten(1, _PATCHES).flip(2).flatten(1, 2)


def _draw_attention(result: Any, *_: torch.Tensor) -> None:
    output, weights = result
    rows, columns = _PATCHES
    photo = cat(rows * _SIDE, columns * _SIDE)
    shown = {"a query, framed": _framed(photo, *_EYE)}
    query = weights[0, :, _EYE[0] * columns + _EYE[1]]  # (heads, M)
    for name, row in zip(("colour", "position", "both"), query, strict=True):
        light = (row / row.max()).clamp(0, 1).sqrt().view(rows, columns)
        light = light.repeat_interleave(_SIDE, 0).repeat_interleave(_SIDE, 1)  # (H, W)
        shown[f"its keys, by {name}"] = _framed(photo * (0.25 + 0.75 * light), *_EYE)
    outputs = output[0, :2, :, :3].transpose(-2, -1).unflatten(-1, _PATCHES)  # (2, 3, h, w)
    shown |= {
        f"your output, by {n}": x for n, x in zip(("colour", "position"), outputs, strict=True)
    }
    viz.pictures(
        shown,
        alt="The cat with one patch framed, the query, on an eye; three times the cat, bright where the "
        "learner's weights for that query are large: on patches of like colour, on nearby patches, and on "
        "nearby patches of like brightness; and the outputs of the first two heads, the cat in coarse "
        "squares, with slightly simplified colours and blurred.",
        columns=3,
        height=1.5,
    )


def _framed(picture: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """A copy of a picture (3, H, W) with a frame around one patch."""
    out = picture.clone()
    top, left = row * _SIDE, column * _SIDE
    out[:, top : top + _SIDE, left : left + _SIDE] = torch.tensor(to_rgb(TARGET.colour)).view(
        3, 1, 1
    )
    inner = slice(top + 1, top + _SIDE - 1), slice(left + 1, left + _SIDE - 1)
    out[:, *inner] = picture[:, *inner]
    return out


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
        "the scale is computed from the number of heads: use the head width, d = q.shape[-1]": _weighted(
            lambda q, k: (_scores(q, k) / q.shape[1] ** 0.5).softmax(-1)
        ),
        "the scale is computed from the number of tokens: use the head width, d = q.shape[-1]": _weighted(
            lambda q, k: (_scores(q, k) / q.shape[2] ** 0.5).softmax(-1)
        ),
        "the softmax is taken over the images, dim 0: take it over the keys, the last axis": _weighted(
            lambda q, k: (_scores(q, k) / q.shape[-1] ** 0.5).softmax(0)
        ),
        "the softmax is taken over the heads, dim 1: take it over the keys, the last axis": _weighted(
            lambda q, k: (_scores(q, k) / q.shape[-1] ** 0.5).softmax(1)
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
        "the second result is the scores: return the weights, the softmax of the scores": lambda q, k, v: (
            attention(q, k, v)[0],
            _scores(q, k) / q.shape[-1] ** 0.5,
        ),
        "the two results are in the wrong order: return the output first, then the weights": lambda q, k, v: (
            attention(q, k, v)[::-1]
        ),
    },
    draw=_draw_attention,
)


# ---- heads -----------------------------------------------------------------------------------------


class Attention(layers.Attention):
    """Multi-head self-attention with the parameters of ViT: (B, N, D) -> (B, N, D)."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__(embed_dim, num_heads, key_bias=True)


def _heads(
    qkv: torch.Tensor,
    heads: int,
    split: str = "b n (three heads d) -> three b heads n d",
    merge: str = "b heads n d -> b n (heads d)",
    order: tuple[int, int, int] = (0, 1, 2),
    scale: float | None = None,
) -> torch.Tensor:
    """Attention in each head, from (B, N, 3D) to (B, N, D)."""
    parts = rearrange(qkv, split, three=3, heads=heads)
    q, k, v = (parts[i] for i in order)
    return rearrange(F.scaled_dot_product_attention(q, k, v, scale=scale), merge)


def _not_moved(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """The heads' outputs reshaped without moving the axes, heads before tokens."""
    merged = _heads(qkv, heads, merge="b heads n d -> b heads n d")
    return merged.reshape(len(qkv), qkv.shape[1], -1)


def _split_by_reshape(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention in each head (B, heads, N, d), where heads take values of several tokens."""
    q, k, v = (part.reshape(len(qkv), heads, qkv.shape[1], -1) for part in qkv.chunk(3, dim=-1))
    return F.scaled_dot_product_attention(q, k, v)


def _tokens_last(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention over the heads of each token: the heads were not moved before the tokens."""
    q, k, v = rearrange(qkv, "b n (three heads d) -> three b n heads d", three=3, heads=heads)
    return F.scaled_dot_product_attention(q, k, v).flatten(2)


def _mixing(mix: Callable[[torch.Tensor, int], torch.Tensor]) -> type[nn.Module]:
    """Self-attention whose heads are computed by `mix` from (B, N, 3D)."""

    class Mixed(Attention):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.proj(mix(self.qkv(x), self.num_heads))

    return Mixed


class _NoProjection(Attention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _heads(self.qkv(x), self.num_heads)


class _Residual(Attention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def _digit_tokens(g: torch.Generator, batch: int, width: int) -> torch.Tensor:
    """Tokens (B, 16, D): the 2x2 patches of digits, projected at random, with a little noise."""
    patches = patchify(_digits()[0][:batch], 2)  # (B, 16, 4)
    tokens = 2 * patches @ torch.randn(4, width, generator=g)
    return tokens + 0.3 * torch.randn(tokens.shape, generator=g)


def _token_cases(g: torch.Generator) -> list[ModuleCase]:
    return [
        ({"embed_dim": 12, "num_heads": 3}, (_digit_tokens(g, 2, 12),)),
        ({"embed_dim": 20, "num_heads": 4}, (torch.randn(3, 7, 20, generator=g),)),
    ]


def _draw_tokens(result: torch.Tensor, arguments: dict[str, Any], inputs: Inputs) -> None:
    before, after = inputs[0][0].norm(dim=-1), result[0].norm(dim=-1)
    viz.pictures(
        {
            "a digit": _digits()[0][0, 0],
            "length of its tokens": before.view(4, 4),
            "after your module": after.view(4, 4),
        },
        alt="A digit 0 of 8x8 pixels; the length of each of its 16 tokens on a 4x4 grid, before and "
        "after the learner's module with random weights.",
        cmap="gray",
    )


ATTENTION_MODULE = module_exercise(
    "01.Attention",
    Attention,
    _token_cases,
    {
        "the heads' outputs are interleaved, (d heads): concatenate them instead, (heads d)": _mixing(
            lambda x, n: _heads(x, n, merge="b heads n d -> b n (d heads)")
        ),
        "the heads are merged with the head axis still before the token axis: transpose the "
        "two axes before the reshape": _mixing(_not_moved),
        "no axis is moved, on the way in or out: reshape to (B, N, heads, d), transpose tokens and "
        "heads, and transpose them back before the last reshape": _mixing(
            lambda x, n: _split_by_reshape(x, n).reshape(*x.shape[:2], -1)
        ),
        "a reshape to (B, heads, N, d) mixes the tokens: reshape to (B, N, heads, d), then transpose "
        "tokens and heads": _mixing(
            lambda x, n: _split_by_reshape(x, n).transpose(1, 2).flatten(2)
        ),
        "each head's columns are scattered across the full width: give each head contiguous "
        "columns, (heads d)": _mixing(
            lambda x, n: _heads(
                x, n, "b n (three d heads) -> three b heads n d", "b heads n d -> b n (d heads)"
            )
        ),
        "the columns are split into heads first, then into query, key and value: split them "
        "into queries, keys and values first, (three heads d)": _mixing(
            lambda x, n: _heads(x, n, "b n (heads three d) -> three b heads n d")
        ),
        "queries and keys are swapped: split the columns into queries, keys and values, in "
        "that order": _mixing(lambda x, n: _heads(x, n, order=(1, 0, 2))),
        "keys and values are swapped: split the columns into queries, keys and values, in "
        "that order": _mixing(lambda x, n: _heads(x, n, order=(0, 2, 1))),
        "the scale is computed from the full width D: use the width of one head, D / heads": _mixing(
            lambda x, n: _heads(x, n, scale=(x.shape[-1] / 3) ** -0.5)
        ),
        "only one head is used: split the columns into heads first": _mixing(
            lambda x, n: _heads(x, 1)
        ),
        "the heads of a token attend to each other: move the head axis before the token axis, so "
        "that attention runs over the tokens": _mixing(_tokens_last),
        "proj is never applied: end with self.proj(...)": _NoProjection,
        "the input is added to the output: leave the residual connection to the block": _Residual,
    },
    draw=_draw_tokens,
    renamed={
        "to_qkv": "qkv",
        "qkv_proj": "qkv",
        "in_proj": "qkv",
        "out": "proj",
        "out_proj": "proj",
        "projection": "proj",
        "to_out": "proj",
    },
)


# ---- the block -------------------------------------------------------------------------------------


class Block(layers.Block):
    """A pre-norm block of ViT: x + attn(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__(embed_dim, num_heads, key_bias=True)


Step = Callable[[Block, torch.Tensor], torch.Tensor]


def _block(forward: Step) -> type[nn.Module]:
    """A block that computes `forward`."""

    class Other(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return forward(self, x)

    return Other


def _post_norm(b: Block, x: torch.Tensor) -> torch.Tensor:
    x = b.norm1(x + b.attn(x))
    return b.norm2(x + b.mlp(x))


def _normed_path(b: Block, x: torch.Tensor) -> torch.Tensor:
    x = b.norm1(x)
    x = b.norm2(x + b.attn(x))
    return x + b.mlp(x)


def _late_norm(b: Block, x: torch.Tensor) -> torch.Tensor:
    x = x + b.norm1(b.attn(x))
    return x + b.norm2(b.mlp(x))


def _no_norm(b: Block, x: torch.Tensor) -> torch.Tensor:
    x = x + b.attn(x)
    return x + b.mlp(x)


def _norms_swapped(b: Block, x: torch.Tensor) -> torch.Tensor:
    x = x + b.attn(b.norm2(x))
    return x + b.mlp(b.norm1(x))


def _norms_unused(b: Block, x: torch.Tensor) -> torch.Tensor:
    x = x + b.attn(F.layer_norm(x, x.shape[-1:]))
    return x + b.mlp(F.layer_norm(x, x.shape[-1:]))


BLOCK = module_exercise(
    "01.Block",
    Block,
    _token_cases,
    {
        "the block is post-norm, as in the original Transformer: normalise each branch's "
        "input instead, x + attn(norm1(x))": _block(_post_norm),
        "both residual connections are missing: add each branch's output to x": _block(
            lambda b, x: b.mlp(b.norm2(b.attn(b.norm1(x))))
        ),
        "the residual connection around attention is missing: use x + attn(norm1(x))": _block(
            lambda b, x: (y := b.attn(b.norm1(x))) + b.mlp(b.norm2(y))
        ),
        "the residual connection around the MLP is missing: use x + mlp(norm2(x))": _block(
            lambda b, x: b.mlp(b.norm2(x + b.attn(b.norm1(x))))
        ),
        "the residual path itself is normalised: normalise only each branch's input, and add "
        "the branch's output to the unnormalised x": _block(_normed_path),
        "each norm is applied to the output of its branch: apply it to the branch's input": _block(
            _late_norm
        ),
        "the norms are missing: normalise each branch's input": _block(_no_norm),
        "the MLP is applied to the block's original input: apply it to x after adding the "
        "attention output": _block(lambda b, x: x + b.attn(b.norm1(x)) + b.mlp(b.norm2(x))),
        "the attention output is lost: add the MLP's output to what the first branch has made, not to "
        "the block's input": _block(lambda b, x: x + b.mlp(b.norm2(x + b.attn(b.norm1(x))))),
        "norm1 is applied to the sum of x and the attention output: use x + attn(norm1(x))": _block(
            lambda b, x: (y := b.norm1(x + b.attn(x))) + b.mlp(b.norm2(y))
        ),
        "norm2 is applied to the sum of x and the MLP output: use x + mlp(norm2(x))": _block(
            lambda b, x: b.norm2((y := x + b.attn(b.norm1(x))) + b.mlp(y))
        ),
        "norm1 is used for both branches: use norm2 for the MLP": _block(
            lambda b, x: (y := x + b.attn(b.norm1(x))) + b.mlp(b.norm1(y))
        ),
        "norm1 and norm2 are swapped: norm1 belongs to attention, norm2 to the MLP": _block(
            _norms_swapped
        ),
        "F.layer_norm has no weight and no bias here, so norm1 and norm2 are never trained: call "
        "self.norm1(x) and self.norm2(x)": _block(_norms_unused),
    },
    draw=_draw_tokens,
    renamed={
        "ln1": "norm1",
        "ln2": "norm2",
        "ln_1": "norm1",
        "ln_2": "norm2",
        "attention": "attn",
        "ffn": "mlp",
        "feed_forward": "mlp",
        "ff": "mlp",
    },
    tolerance=EPS_TOLERANCE,
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


def _twice_the_column(n: int, width: int) -> torch.Tensor:
    column = torch.arange(width, dtype=torch.float64)
    angles = torch.arange(n)[:, None] / 10000 ** (2 * column / width)
    return torch.where(column % 2 == 0, angles.sin(), angles.cos()).float()


def _multiplied(n: int, width: int) -> torch.Tensor:
    """In float32, PyTorch's default, whose rounding errors are large for angles this large."""
    angles = torch.arange(n)[:, None] * 10000 ** (2 * torch.arange(width // 2) / width)
    return _interleaved(angles.sin(), angles.cos())


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
        "the frequencies decrease too fast: k counts pairs, 0, 1, 2 and so on; if yours counts columns, "
        "0, 2, 4 and so on, it already is 2k": lambda n, w: _interleaved(
            *_table(n, w, lambda pair, width: 4 * pair / width)
        ),
        "the exponent is computed from the column: in column j, use the pair k = j // 2": _twice_the_column,
        "the frequencies increase from pair to pair: divide the position by 10000^(2k / D) "
        "instead of multiplying by it": _multiplied,
        "the frequencies increase from pair to pair: the exponent of 10000 has the wrong sign, since "
        "the position is divided by 10000^(2k / D)": lambda n, w: _interleaved(
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


# ---- the model -------------------------------------------------------------------------------------


class PatchEmbed(nn.Module):
    """Patches of images (B, C, H, W), projected to tokens (B, N, D), with the weights of a Conv2d."""

    def __init__(self, patch_size: int, channels: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(channels, embed_dim, patch_size, patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = rearrange(self.proj.weight, "d c p q -> d (p q c)")
        return F.linear(patchify(images, self.patch_size), weight, self.proj.bias)


class VisionTransformer(nn.Module):
    """A classic ViT: square images (B, C, H, W) -> logits (B, num_classes)."""

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        channels: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        tokens = (img_size // patch_size) ** 2
        self.patch_embed = PatchEmbed(patch_size, channels, embed_dim)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + tokens, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=layers.NORM_EPS)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.encode(self.embed(images)))[:, 0])

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens with positions, the class token first: (B, 1 + N, D)."""
        return self.with_class_token(self.patch_embed(images)) + self.pos_embed

    def with_class_token(self, x: torch.Tensor) -> torch.Tensor:
        """Put the class token before tokens (B, N, D)."""
        return torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Apply all blocks."""
        for block in self.blocks:
            x = block(x)
        return x


def _vit(
    forward: Callable[[VisionTransformer, torch.Tensor], torch.Tensor],
) -> type[nn.Module]:
    """A ViT that computes `forward`."""

    class Other(VisionTransformer):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return forward(self, images)

    return Other


def _read(
    take: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[VisionTransformer, torch.Tensor], torch.Tensor]:
    """A forward whose head reads what `take` picks from the tokens."""
    return lambda m, images: m.head(take(m.norm(m.encode(m.embed(images)))))


def _class_token_last(m: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    x = m.patch_embed(images)
    x = torch.cat((x, m.cls_token.expand(len(x), -1, -1)), dim=1) + m.pos_embed
    return m.head(m.norm(m.encode(x))[:, -1])


def _first_patch(m: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    x = m.patch_embed(images)
    x = torch.cat((x, m.cls_token.expand(len(x), -1, -1)), dim=1) + m.pos_embed
    return m.head(m.norm(m.encode(x))[:, 0])


def _class_token_without_position(m: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    x = m.with_class_token(m.patch_embed(images) + m.pos_embed[:, 1:])
    return m.head(m.norm(m.encode(x))[:, 0])


def _positions_last(m: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    x = m.encode(m.with_class_token(m.patch_embed(images))) + m.pos_embed
    return m.head(m.norm(x)[:, 0])


def _no_positions(m: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    return m.head(m.norm(m.encode(m.with_class_token(m.patch_embed(images))))[:, 0])


def _positions_in_each_block(m: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    x = m.with_class_token(m.patch_embed(images))
    for block in m.blocks:
        x = block(x + m.pos_embed)
    return m.head(m.norm(x)[:, 0])


def _blocks_in_parallel(m: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    x = m.embed(images)
    for block in m.blocks:
        y = block(x)
    return m.head(m.norm(y)[:, 0])


def _norm_first(m: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    return m.head(m.encode(m.norm(m.embed(images)))[:, 0])


def _model_cases(g: torch.Generator) -> list[ModuleCase]:
    small = {"img_size": 8, "patch_size": 2, "channels": 1, "embed_dim": 12, "depth": 2}
    other = {"img_size": 15, "patch_size": 3, "channels": 4, "embed_dim": 20, "depth": 3}
    return [
        (small | {"num_heads": 4, "num_classes": 10}, (_digits()[0][:3],)),
        (other | {"num_heads": 5, "num_classes": 7}, (torch.rand(2, 4, 15, 15, generator=g),)),
    ]


def _draw_model(result: torch.Tensor, arguments: dict[str, Any], inputs: Inputs) -> None:
    shown: dict[str, torch.Tensor] = {f"digit {i}": image[0] for i, image in enumerate(inputs[0])}
    shown["your logits: digits down, classes across"] = result
    viz.pictures(
        shown,
        alt="Three digits, 0 to 2, and the learner's logits for them with random weights: one row per "
        "digit and one column per class.",
        height=1.3,
        cmap="gray",
    )


VISION_TRANSFORMER = module_exercise(
    "01.VisionTransformer",
    VisionTransformer,
    _model_cases,
    {
        "the class token is appended: put it first, torch.cat((class token, patches), dim=1)": _vit(
            _class_token_last
        ),
        "the class token is appended, and the head reads the first patch: put the class token first, "
        "torch.cat((class token, patches), dim=1)": _vit(_first_patch),
        "the class token gets no position: put it first, then add all 1 + N rows of pos_embed": _vit(
            _class_token_without_position
        ),
        "the positions are added after the blocks, too late for attention to use them: add them "
        "before the first block": _vit(_positions_last),
        "pos_embed is never added: add it to the tokens before the first block": _vit(
            _no_positions
        ),
        "the positions are added again in every block: add them once, before the first": _vit(
            _positions_in_each_block
        ),
        "every block reads the same input, so that only the last one counts: feed each block the "
        "output of the one before, x = block(x)": _vit(_blocks_in_parallel),
        "the blocks are never applied: loop over them, x = block(x)": _vit(
            lambda m, images: m.head(m.norm(m.embed(images))[:, 0])
        ),
        "the norm is missing: apply self.norm after the last block": _vit(
            lambda m, images: m.head(m.encode(m.embed(images))[:, 0])
        ),
        "the norm is applied before the blocks: apply it after the last one": _vit(_norm_first),
        "the head reads the mean of all tokens: give it the class token alone, x[:, 0]": _vit(
            _read(lambda x: x.mean(1))
        ),
        "the head reads the mean of the patches: give it the class token alone, x[:, 0]": _vit(
            _read(lambda x: x[:, 1:].mean(1))
        ),
        "the head reads the last patch: the class token comes first, x[:, 0]": _vit(
            _read(lambda x: x[:, -1])
        ),
        "the head is applied to every token: give it the class token alone, x[:, 0]": _vit(
            _read(lambda x: x)
        ),
        "the result is a softmax of the logits: return the logits, since cross-entropy applies the "
        "softmax itself": _vit(
            lambda m, images: VisionTransformer.forward(m, images).softmax(dim=-1)
        ),
    },
    draw=_draw_model,
    renamed={
        "class_token": "cls_token",
        "cls": "cls_token",
        "pos_embedding": "pos_embed",
        "positions": "pos_embed",
        "layers": "blocks",
        "patch_embedding": "patch_embed",
        "fc": "head",
        "classifier": "head",
        "ln": "norm",
    },
    tolerance=EPS_TOLERANCE,
)


# ---- the training loop -----------------------------------------------------------------------------


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> list[float]:
    """Train a classifier for one step per batch; returns the loss of each batch."""
    model.train()
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


class _Halved(nn.Module):
    """Halves its input, but not in training mode: like dropout, but not random."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training else 0.5 * x


@dataclass
class Trained:
    """What a training loop did: losses, the learning rate after the last step, the weights."""

    losses: Any
    lr: float
    weights: torch.Tensor


Loop = Callable[[Any, list[Batch], Any, Any], Any]


def _train_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    images, labels = _digits()
    order = torch.randperm(480, generator=g)
    real = [(images[i], labels[i]) for i in order.split(20)]
    noise = [
        (torch.rand(b, 3, 4, 5, generator=g), torch.randint(7, (b,), generator=g))
        for b in (6, 9, 2)
    ]
    return [(real, 10, 0.5), (noise, 7, 1.0)]


def _trained(loop: Loop, batches: list[Batch], classes: int, lr: float) -> Trained:
    """A small network, trained by `loop` with plain gradient descent and a falling learning rate."""
    torch.manual_seed(0)
    inputs = batches[0][0][0].numel()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 16), _Halved(), nn.Tanh(), nn.Linear(16, classes)
    ).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, if the scheduler steps first
        losses = loop(model, batches, optimizer, scheduler)
    if isinstance(losses, list | tuple):
        losses = [x.item() if isinstance(x, torch.Tensor) else float(x) for x in losses]
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return Trained(losses, float(scheduler.get_last_lr()[0]), weights)


def _returned(loop: Loop) -> str | None:
    """What is wrong with the list that a training loop returns."""
    found: list[Any] = []

    def keep(*arguments: Any) -> Any:
        found.append(loop(*arguments))
        return found[0]

    batches, *rest = _train_cases(torch.Generator().manual_seed(0))[0]
    try:
        _trained(keep, batches[:4], *rest)
    except RuntimeError as error:
        if "not implemented for 'Long'" in str(error):
            return "F.cross_entropy takes the logits first, then the labels"
        if "modified by an inplace operation" in str(error):
            return (
                "optimizer.step() comes between the model's forward pass and loss.backward(), which "
                "needs the weights as they were: call loss.backward() first"
            )
        raise
    losses = found[0]
    if losses is None:
        return "the result is None: is the `return` missing?"
    if not isinstance(losses, list | tuple):
        return f"the result is of type {type(losses).__name__}; return a list with the loss of each batch"
    if any(isinstance(loss, torch.Tensor) and loss.requires_grad for loss in losses):
        return (
            "each loss in the list is a tensor that keeps the graph of its step, and all its "
            "activations, in memory: append loss.item()"
        )
    return None


def _loop(
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.cross_entropy,
    order: str = "zero backward step schedule",
    mode: bool = True,
) -> Loop:
    """A training loop with another loss, other steps or another mode."""

    def loop(model: Any, batches: list[Batch], optimizer: Any, scheduler: Any) -> list[float]:
        model.train(mode)
        losses = []
        for images, labels in batches:
            loss = loss_of(model(images), labels)
            actions = {
                "zero": optimizer.zero_grad,
                "backward": loss.backward,
                "step": optimizer.step,
                "schedule": scheduler.step,
            }
            for name in order.split():
                actions[name]()
            losses.append(loss.item())
        return losses

    return loop


def _loss_after(model: Any, batches: list[Batch], optimizer: Any, scheduler: Any) -> list[float]:
    losses = []
    for images, labels in batches:
        train(model, [(images, labels)], optimizer, scheduler)
        losses.append(F.cross_entropy(model(images), labels).item())
    return losses


def _first_batch(model: Any, batches: list[Batch], optimizer: Any, scheduler: Any) -> list[float]:
    return train(model, [batches[0]] * len(batches), optimizer, scheduler)


def _one_decay(model: Any, batches: list[Batch], optimizer: Any, scheduler: Any) -> list[float]:
    losses = _loop(order="zero backward step")(model, batches, optimizer, scheduler)
    scheduler.step()
    return losses


def _one_step(model: Any, batches: list[Batch], optimizer: Any, scheduler: Any) -> list[float]:
    return train(model, batches[:1], optimizer, scheduler)


def _one_hot(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(logits, F.one_hot(labels, logits.shape[1]).float())


def _draw_losses(result: Trained, *_: Any) -> None:
    records = [Record(i + 1, loss, 0.0, 0.0, 0.0) for i, loss in enumerate(result.losses)]
    viz.curves(
        {"your loop": records},
        "The loss of each batch while the learner's loop trains a small network on digits.",
        "loss on 20 digits",
    )


TRAIN = Exercise(
    "01.train",
    train,
    _train_cases,
    {
        "the weights never change: call loss.backward() and then optimizer.step(), with "
        "optimizer.zero_grad() before both, not between them": _loop(
            order="zero backward schedule"
        ),
        "the gradients of all batches add up: call optimizer.zero_grad() before loss.backward()": _loop(
            order="backward step schedule"
        ),
        "the learning rate never changes: call scheduler.step() after each optimizer.step()": _loop(
            order="zero backward step"
        ),
        "scheduler.step() is called once, after the loop: call it after each optimizer.step()": (
            _one_decay
        ),
        "scheduler.step() comes before optimizer.step(), so the first learning rate is skipped: "
        "call it last": _loop(order="zero backward schedule step"),
        "the model stays in eval mode: call model.train() before the loop": _loop(mode=False),
        "the softmax is applied twice: give F.cross_entropy the logits": _loop(
            lambda logits, labels: F.cross_entropy(logits.softmax(-1), labels)
        ),
        "F.nll_loss expects log-probabilities: use F.cross_entropy, which takes logits": _loop(
            F.nll_loss
        ),
        "the loss is the sum over the batch, so its size depends on the batch: use the mean, "
        "F.cross_entropy's default": _loop(
            lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum")
        ),
        "the loss is a squared error: for classes, use F.cross_entropy(logits, labels)": _loop(
            _one_hot
        ),
        "each loss is measured after its step: note the loss whose gradient was taken": _loss_after,
        "the first batch is used in every step: use each batch once": _first_batch,
        "the loop ends after the first batch: is the `return` inside it?": _one_step,
    },
    draw=_draw_losses,
    inspect=_returned,
    run=_trained,
)


# ---- the bug ---------------------------------------------------------------------------------------


class TorchAttention(nn.Module):
    """Self-attention by PyTorch's own layer: (B, N, D) -> (B, N, D)."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.attend(x, x, x)
        return output


class Suspect(nn.Module):
    """The program of lesson 01 with a bug: it runs, and its model learns nothing."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(embed_dim, num_heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.attend(x, x, x)
        return output


@dataclass
class Dependence:
    """Which image's output depends on which image's input, (B, B); the same for tokens, (N, N)."""

    images: torch.Tensor
    tokens: torch.Tensor


def _bug_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    return [
        (12, 3, torch.randn(4, 7, 12, generator=g)),
        (10, 2, torch.randn(3, 5, 10, generator=g)),
    ]


def _dependence(answer: type[nn.Module], width: int, heads: int, x: torch.Tensor) -> Dependence:
    """What a layer's outputs depend on, measured by gradients."""
    torch.manual_seed(0)
    layer = answer(width, heads).eval()
    x = x.clone().requires_grad_()
    output = layer(x)
    probe = (output * torch.randn(output.shape)).sum(-1)  # (B, N)

    def depends(part: torch.Tensor, axes: tuple[int, int]) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(part.sum(), x, retain_graph=True)
        return gradient.abs().sum(axes) > 0

    return Dependence(
        torch.stack([depends(row, (1, 2)) for row in probe]),
        torch.stack([depends(column, (0, 2)) for column in probe.T]),
    )


def _bug_shape(answer: type[nn.Module]) -> str | None:
    """What is wrong with the type or the shape of a layer's output."""
    for width, heads, x in _bug_cases(torch.Generator().manual_seed(0)):
        output = answer(width, heads)(x)
        if isinstance(output, tuple):
            return (
                "forward returns a tuple: nn.MultiheadAttention returns (output, weights), and the "
                "block needs the output alone"
            )
        if output.shape == x.transpose(0, 1).shape:
            return (
                f"an input of shape {tuple(x.shape)} gives an output of shape {tuple(output.shape)}: "
                "transpose it back"
            )
        if output.shape != x.shape:
            return f"the shape is {tuple(output.shape)}; expected {tuple(x.shape)}"
    return None


class _OneSequence(TorchAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(0, 1)[None])[0].view(x.shape)


class _NoExchange(TorchAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(0, 1)[:, None])[:, 0].view(x.shape)


class _ClassTokenOnly(TorchAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.attend(x, x[:, :1], x[:, :1])
        return output


class _Causal(TorchAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.attend(x, x, x, attn_mask=later)[0]


def _draw_dependence(result: Dependence, *_: Any) -> None:
    viz.pictures(
        {
            "4 images, on 4 images": result.images.float(),
            "7 tokens, on 7 tokens": result.tokens.float(),
        },
        alt="Two matrices, a row for each output and a column for each input, bright where the output "
        "depends on the input: images on images, and tokens on tokens.",
        height=2.0,
        limits=(0, 1),
    )


TORCH_ATTENTION = Exercise(
    "01.TorchAttention",
    TorchAttention,
    _bug_cases,
    {
        "attention still runs over the images of the batch: a token sees the same position of every "
        "image, and no other position. Which axis does nn.MultiheadAttention take for the "
        "sequence?": Suspect,
        "each token now sees tokens of several images: keep the images apart (a reshape does not swap "
        "two axes, transpose(0, 1) does)": _OneSequence,
        "no token sees another: attention must run over the N tokens of an image": _NoExchange,
        "every token sees the first token alone: keys and values must come from all tokens": (
            _ClassTokenOnly
        ),
        "a token sees none of the later ones: a ViT has no causal mask": _Causal,
    },
    draw=_draw_dependence,
    inspect=_bug_shape,
    run=_dependence,
)

EXERCISES = (
    PATCHIFY,
    ATTENTION,
    ATTENTION_MODULE,
    BLOCK,
    SINCOS_1D,
    VISION_TRANSFORMER,
    TRAIN,
    TORCH_ATTENTION,
)
