"""Diagrams of the transformer: ViT, its block, attention in numbers, and the family side by side."""

from __future__ import annotations

from pathlib import Path

import torch

from vmae.config import ModelConfig
from vmae.cost import parameters
from vmae.layers import Attention, Block
from vmae.vit import VisionTransformer
from vmae.viz.colours import CLASS_TOKEN, DECODER, ENCODER, NEUTRAL, TARGET, VISIBLE, Role, mix
from vmae.viz.diagrams.drawing import (
    DARK,
    GRID,
    Canvas,
    Diagram,
    picture_data,
    read_photo,
    shape,
)

#: The base model of Vaswani et al. (arXiv 1706.03762, table 3), in the words of our configurations.
TRANSFORMER_2017 = ModelConfig(
    embed_dim=512, depth=6, num_heads=8, decoder_embed_dim=512, decoder_depth=6, decoder_num_heads=8
)


def vit(
    config: ModelConfig, num_classes: int = 1000, photo: str | Path = "data/photos/cat.jpg"
) -> Diagram:
    """A classifier from pixels to logits, with the shape after each step and its parameters."""
    grid, cls = config.grid, config.family == "mae"
    with torch.device("meta"):
        millions = parameters(VisionTransformer(config, num_classes)) / 1e6
    (p_t, p_h, p_w), n = grid.tubelet, grid.num_tokens
    pixels = (config.channels, *grid.clip) if config.num_frames > 1 else (
        config.channels, *grid.clip[1:]
    )  # fmt: skip
    patch = f"{p_h} × {p_w}" if p_t == 1 else f"{p_t} × {p_h} × {p_w}"
    what = "image" if config.num_frames == 1 else "clip"
    draw = Canvas()
    rows = grid.shape[1]
    for back in range(3 * (config.num_frames > 1), -1, -1):
        draw.image(20 + 4 * back, 70 - 4 * back, 98, 98, picture_data(read_photo(photo, 196)))
    draw.cells(20, 70, [[GRID] * rows] * rows, (98 / rows, 0), (0, 98 / rows))
    draw.text(69, 46, what, 13, bold=True)
    draw.text(69, 188, shape(*pixels))
    draw.arrow((124 + 13 * (config.num_frames > 1), 119), (150, 119))
    draw.tokens(158, 54, [VISIBLE] * 6, 20)
    draw.lines(168, 210, [shape(n, grid.token_dim), f"{patch} patches"])
    draw.arrow((186, 119), (212, 119))
    draw.box(216, 84, 88, 70, ["linear", f"{grid.token_dim} → {config.embed_dim}"], ENCODER)
    draw.text(260, 172, "the same for all")
    draw.arrow((304, 119), (340, 119))
    draw.tokens(348, 31 if cls else 54, [CLASS_TOKEN] * cls + [VISIBLE] * 6, 20)
    if cls:
        draw.text(376, 46, "class token", anchor="start")
    draw.text(358, 210, shape(n + cls, config.embed_dim))
    draw.text(358, 228, "+ positions")
    draw.arrow((376, 119), (412, 119))
    draw.rect(418, 66, 170, 106, "none", ENCODER.colour, 1.5, radius=6)
    draw.box(430, 78, 146, 36, ["attention"], ENCODER)
    draw.box(430, 124, 146, 36, ["MLP"], ENCODER)
    draw.text(503, 192, f"{config.depth} blocks, {config.num_heads} heads", 12, bold=True)
    draw.text(503, 210, shape(n + cls, config.embed_dim))
    draw.arrow((588, 119), (618, 119))
    if cls:
        draw.token(626, 109, CLASS_TOKEN, 20)
        took = "class token"
    else:
        draw.token(626, 109, VISIBLE, 20, "μ")
        took = "mean of tokens"
    draw.lines(636, 148, [took, shape(config.embed_dim)])
    draw.arrow((652, 119), (688, 119))
    head = ["norm, linear", f"{config.embed_dim} → {num_classes}"]
    draw.box(692, 84, 100, 70, head, TARGET)
    draw.arrow((792, 119), (812, 119))
    for i, length in enumerate((8, 26, 5, 12)):
        draw.rect(818, 96 + 12 * i, length, 8, TARGET.colour, "none")
    draw.lines(828, 172, ["logits", shape(num_classes)])
    draw.text(430, 262, f"{millions:.2f} million parameters", 13, bold=True)
    alt = (
        f"A vision transformer: {what} {shape(*pixels)}, cut into {n} patches of {grid.token_dim} "
        f"values, projected to width {config.embed_dim}, "
        + ("a class token added, " if cls else "")
        + f"plus positions; {config.depth} blocks with {config.num_heads} heads; {took}, norm and a "
        f"linear layer to {num_classes} logits. {millions:.2f} million parameters."
    )
    return draw.finish(278, alt)


def block(config: ModelConfig) -> Diagram:
    """One pre-norm block of the encoder: its two residual branches, with sizes and parameters."""
    with torch.device("meta"):
        made = Block(
            config.embed_dim, config.num_heads, config.mlp_ratio, key_bias=config.family == "mae"
        )
    d, hidden = config.embed_dim, made.mlp.fc1.out_features
    tokens = shape(config.grid.num_tokens + (config.family == "mae"), d)
    draw, middle = Canvas(), 130
    stages = [
        (made.norm1, 148, 70, ["norm"], NEUTRAL),
        (made.attn, 240, 156, ["attention", f"{d} → 3·{d} → {d}",
         f"{config.num_heads} heads of {d // config.num_heads}"], ENCODER),
        (made.norm2, 480, 70, ["norm"], NEUTRAL),
        (made.mlp, 572, 156, ["MLP", f"{d} → {hidden} → {d}", "GELU between"], ENCODER),
    ]  # fmt: skip
    draw.text(58, middle - 12, "tokens", bold=True)
    draw.text(58, middle + 24, tokens)
    draw.arrow((20, middle), (148, middle))
    for module, x, w, lines, role in stages:
        draw.box(x, middle - 36, w, 72, lines, role)
        draw.text(x + w / 2, middle + 58, f"{parameters(module):,}")
    draw.arrow((218, middle), (240, middle))
    draw.arrow((550, middle), (572, middle))
    for start, left, centre in ((120, 396, 424), (456, 728, 756)):
        draw.arrow((left, middle), (centre - 13, middle))
        draw.arrow((start, middle), (start, 46), (centre, 46), (centre, middle - 13))
        draw.parts.append(
            f'<circle cx="{centre}" cy="{middle}" r="13" fill="{VISIBLE.tint}" '
            f'stroke="{ENCODER.colour}" stroke-width="1.5"/>'
        )
        draw.text(centre, middle + 6, "+", 17, bold=True, fill=DARK)
        draw.text((start + centre) / 2, 36, "unchanged: the residual stream")
    draw.arrow((437, middle), (480, middle))
    draw.arrow((769, middle), (846, middle))
    draw.text(810, middle - 12, "tokens", bold=True)
    draw.text(810, middle + 24, tokens)
    draw.text(58, middle + 58, "parameters")
    total = f"{parameters(made):,} in a block; {config.depth} blocks in the encoder"
    draw.text(430, middle + 88, total, 13, bold=True)
    alt = (
        f"A pre-norm block: tokens {tokens}; norm, attention with {config.num_heads} heads of "
        f"{d // config.num_heads} ({parameters(made.attn):,} parameters), added to the input; norm, MLP "
        f"{d} to {hidden} to {d} ({parameters(made.mlp):,}), added again. {total}."
    )
    return draw.finish(236, alt)


def attention(layer: Attention, x: torch.Tensor, head: int = 0, follow: int = 1) -> Diagram:
    """Self-attention step by step, in small numbers: what one head of `layer` does to tokens `x`.

    x       (n, D), best 3 to 5 tokens of 2 to 5 values
    follow  the token whose row is outlined through all steps

    The values are those that the layer computes. Raises ValueError for more than 5 tokens or values.
    """
    with torch.no_grad():
        q, k, v = (part[0, head] for part in layer._project(x[None]))
        scores = q @ k.T * q.shape[-1] ** -0.5
        weights = layer.weights(x[None])[0, head]
    if max(*x.shape, v.shape[1]) > 5:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and a head {v.shape[1]} values: at most 5 tokens and 5 values"
        )
    draw, n, d = Canvas(), len(x), v.shape[1]
    cell, row = 38, 24
    tall = n * row

    def matrix(
        left: float, top: float, values: torch.Tensor, name: str, role: Role, outlined: bool = True
    ) -> float:
        largest = float(values.abs().max()) or 1.0
        for i, line in enumerate(values.tolist()):
            for j, value in enumerate(line):
                fill = mix(role.colour, 0.08 + 0.6 * abs(value) / largest)
                draw.rect(left + j * cell, top + i * row, cell, row, fill, "#ffffff")
                at = (left + (j + 0.5) * cell, top + (i + 0.5) * row + 4)
                draw.text(*at, f"{value + 0.0:.2f}".replace("-", "−"), 12, fill=DARK)
        w = values.shape[1] * cell
        if outlined:
            draw.rect(left, top + follow * row, w, row, "none", DECODER.colour, 2.2)
        draw.text(left + w / 2, top - 10, name, 13, bold=True)
        draw.text(left + w / 2, top + tall + 18, shape(*values.shape))
        return left + w

    top = 62
    low = top + tall + 78
    for i in range(n):
        for first in (top, low):
            draw.text(50, first + (i + 0.5) * row + 4, str(i + 1), anchor="end")
    end = matrix(60, top, x, "tokens X", VISIBLE)
    gap, middle = (800 - end - 3 * d * cell) / 3, top + tall / 2
    draw.arrow((end + 8, middle), (end + gap - 8, middle))
    draw.text(end + gap / 2, middle - 12, "linear")
    draw.text(end + gap / 2, middle + 22, f"{x.shape[1]} → 3 · {d}")
    end += gap / 2
    for name, values in (("queries Q", q), ("keys K", k), ("values V", v)):
        end = matrix(end + gap / 2, top, values, name, ENCODER)
    middle = low + tall / 2
    space = (800 - 2 * n * cell - 2 * d * cell) / 3
    end = matrix(60, low, scores, "scores QKᵀ / √d", TARGET)
    draw.arrow((end + 8, middle), (end + space - 8, middle))
    draw.lines(end + space / 2, middle - 26, ["softmax", "of each row"])
    end = matrix(end + space, low, weights, "weights", TARGET)
    draw.text(end + space / 4, middle + 6, "×", 18, bold=True)
    end = matrix(end + space / 2, low, v, "values V", ENCODER, outlined=False)
    draw.text(end + space / 2, middle + 6, "=", 18, bold=True)
    matrix(end + space, low, weights @ v, "output", VISIBLE)
    best = int(weights[follow].argmax())
    said = (
        f"Token {follow + 1} attends most to token {best + 1}, with a weight of "
        f"{float(weights[follow, best]):.2f}; each row of weights sums to 1."
    )
    draw.text(430, low + tall + 52, said, 13, bold=True)
    alt = (
        f"Self-attention of {n} tokens of {x.shape[1]} values, one head of {d}: queries, keys and values "
        f"by a linear layer; scores QKᵀ/√{d}; softmax of each row; the weighted mean of the values. {said}"
    )
    return draw.finish(low + tall + 68, alt)


def transformers(vit: ModelConfig, mae: ModelConfig) -> Diagram:
    """The transformer of 2017 beside ViT and MAE, to scale: height is depth, width is embed_dim."""
    draw, floor = Canvas(), 232.0
    both = (TRANSFORMER_2017, mae)
    up = 150 / max(c.depth for c in (*both, vit))
    across = 118 / max(c.embed_dim for c in (*both, vit))

    def stack(x: float, depth: int, width: int, role: Role) -> float:
        w, h, label = width * across, depth * up, [role.name, f"{depth} × {width}"]
        fits = w > 76 and h > 36
        draw.box(x - w / 2, floor - h, w, h, label if fits else [], role)
        if not fits:
            draw.text(x, floor - h - 22, label[0], 13, bold=True)
            draw.text(x, floor - h - 7, label[1])
        return w / 2

    columns = (
        (170, TRANSFORMER_2017, "Transformer, 2017", "translation", "cross-attention; equal size",
         "a whole sentence", "all words, and each", "earlier output word", "the next word"),
        (445, vit, "ViT", "classification", "the encoder alone", "all patches, a class token",
         "every token", "with every token", "a class"),
        (712, mae, "MAE", "reconstruction", "decoder: for pre-training only", "visible patches only",
         "every token with every", "token, in both parts", "hidden pixels"),
    )  # fmt: skip
    for x, config, name, task, note, reads, attends, more, predicts in columns:
        draw.text(x, 24, name, 15, bold=True)
        for y, line in ((42, task), (floor + 24, note), (292, reads), (322, attends), (338, more)):
            draw.text(x, y, line)
        draw.text(x, 368, predicts)
        if name == "ViT":
            stack(x, config.depth, config.embed_dim, ENCODER)
            continue
        left = x - 66 + stack(x - 66, config.depth, config.embed_dim, ENCODER)
        right = x + 72 - stack(x + 72, config.decoder_depth, config.decoder_embed_dim, DECODER)
        draw.arrow((left, floor - 14), (right, floor - 14))
    for y, label in ((292, "reads"), (322, "attends"), (368, "predicts")):
        draw.text(14, y, label, anchor="start", bold=True)
    draw.text(430, 400, "to scale: blocks upward, width across")
    sizes = [
        f"{c.depth} × {c.embed_dim} and {c.decoder_depth} × {c.decoder_embed_dim}" for c in both
    ]
    alt = (
        f"Three transformers, drawn to scale (blocks × width). Transformer of 2017: encoder and decoder, "
        f"{sizes[0]}, with cross-attention, for translation. ViT: an encoder of {vit.depth} × "
        f"{vit.embed_dim} on all patches, for classification. MAE: an encoder on visible patches and a "
        f"decoder, {sizes[1]}, for reconstruction; without cross-attention."
    )
    return draw.finish(416, alt)
