"""Diagrams of the transformer: ViT, its block, and the family side by side."""

from __future__ import annotations

from pathlib import Path

import torch

from vmae.config import ModelConfig
from vmae.cost import parameters
from vmae.course.diagrams.drawing import (
    DARK,
    GRID,
    Canvas,
    Diagram,
    picture_data,
    read_photo,
    shape,
)
from vmae.figures.colours import CLASS_TOKEN, DECODER, ENCODER, NEUTRAL, PREDICTED, VISIBLE, Role
from vmae.layers import Block
from vmae.vit import VisionTransformer

#: The base model of Vaswani et al. (arXiv 1706.03762, table 3), in the words of our configurations.
TRANSFORMER_2017 = ModelConfig(
    embed_dim=512, depth=6, num_heads=8, decoder_embed_dim=512, decoder_depth=6, decoder_num_heads=8
)


def vit(
    config: ModelConfig, num_classes: int = 1000, photo: str | Path = "data/photos/cat.jpg"
) -> Diagram:
    """A classifier from pixels to logits, with the shape after each step and its parameters."""
    with torch.device("meta"):
        millions = parameters(VisionTransformer(config, num_classes)) / 1e6
    draw, cls = Canvas(), config.family == "mae"
    took = "class token" if cls else "mean of tokens"
    seen = _to_tokens(draw, config, photo)
    _to_logits(draw, config, num_classes, took)
    draw.text(430, 262, f"{millions:.2f} million parameters", 13, bold=True)
    alt = (
        f"A vision transformer: {seen}, cut into {config.grid.num_tokens} patches of "
        f"{config.grid.token_dim} values, projected to width {config.embed_dim}, "
        + ("a class token added, " if cls else "")
        + f"plus positions; {config.depth} blocks with {config.num_heads} heads; {took}, norm and a "
        f"linear layer to {num_classes} logits. {millions:.2f} million parameters."
    )
    return draw.finish(278, alt)


def _to_tokens(draw: Canvas, config: ModelConfig, photo: str | Path) -> str:
    """From the pixels to the encoder's input; returns what the pixels are, in words."""
    grid, cls, rows = config.grid, config.family == "mae", config.grid.shape[1]
    (p_t, p_h, p_w), n = grid.tubelet, grid.num_tokens
    pixels = (config.channels, *grid.clip) if config.num_frames > 1 else (
        config.channels, *grid.clip[1:]
    )  # fmt: skip
    patch = f"{p_h} × {p_w}" if p_t == 1 else f"{p_t} × {p_h} × {p_w}"
    what = "image" if config.num_frames == 1 else "clip"
    for back in range(3 * (config.num_frames > 1), -1, -1):
        draw.image(20 + 4 * back, 70 - 4 * back, 98, 98, picture_data(read_photo(photo, 196)))
    draw.cells(20, 70, [[GRID] * rows] * rows, (98 / rows, 0), (0, 98 / rows))
    draw.heading(69, 40, what)
    draw.text(69, 188, shape(*pixels))
    draw.arrow((124 + 13 * (config.num_frames > 1), 119), (150, 119))
    draw.tokens(158, 54, [VISIBLE] * 5, 20)
    draw.dots(168, 173)
    draw.lines(168, 210, [shape(n, grid.token_dim), f"{patch} patches"])
    draw.arrow((186, 119), (212, 119))
    draw.box(216, 84, 88, 70, ["linear", f"{grid.token_dim} → {config.embed_dim}"], ENCODER)
    draw.text(260, 172, "the same for all")
    draw.arrow((304, 119), (340, 119))
    draw.tokens(348, 31 if cls else 54, [CLASS_TOKEN] * cls + [VISIBLE] * 5, 20)
    draw.dots(358, 173)
    if cls:
        draw.text(376, 46, "class token", anchor="start")
    draw.text(358, 210, shape(n + cls, config.embed_dim))
    draw.text(358, 228, "+ positions")
    return f"{what} {shape(*pixels)}"


def _to_logits(draw: Canvas, config: ModelConfig, num_classes: int, took: str) -> None:
    """From the encoder's input to the logits; `took` names what the head reads."""
    cls = config.family == "mae"
    draw.arrow((376, 119), (412, 119))
    draw.rect(418, 66, 170, 106, ENCODER.tint, ENCODER.colour, 1.5, radius=6)
    draw.box(430, 78, 146, 36, ["attention"], ENCODER)
    draw.box(430, 124, 146, 36, ["MLP"], ENCODER)
    draw.heading(503, 40, "encoder")
    draw.text(503, 192, f"{config.depth} blocks, {config.num_heads} heads", 12, bold=True)
    draw.text(503, 210, shape(config.grid.num_tokens + cls, config.embed_dim))
    draw.arrow((588, 119), (618, 119))
    draw.token(626, 109, *((CLASS_TOKEN, 20) if cls else (VISIBLE, 20, "μ")))
    draw.lines(636, 148, [took, shape(config.embed_dim)])
    draw.arrow((652, 119), (688, 119))
    head = ["norm, linear", f"{config.embed_dim} → {num_classes}"]
    draw.heading(742, 40, "head")
    draw.box(692, 84, 100, 70, head, PREDICTED)
    draw.arrow((792, 119), (812, 119))
    for i, length in enumerate((8, 26, 5, 12)):
        draw.rect(818, 96 + 12 * i, length, 8, PREDICTED.colour, "none")
    draw.lines(828, 172, ["logits", shape(num_classes)])


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
        (made.attn, 240, 156, ["attention", f"{d} → {d} for Q, K, V",
         f"{config.num_heads} heads of {d // config.num_heads}", f"{d} → {d}"], ENCODER),
        (made.norm2, 480, 70, ["norm"], NEUTRAL),
        (made.mlp, 572, 156, ["MLP", f"{d} → {hidden} → {d}", "GELU between"], ENCODER),
    ]  # fmt: skip
    draw.text(58, middle - 12, "tokens", bold=True)
    draw.text(58, middle + 24, tokens)
    draw.arrow((20, middle), (148, middle))
    for module, x, w, lines, role in stages:
        draw.box(x, middle - 42, w, 84, lines, role)
        draw.text(x + w / 2, middle + 62, f"{parameters(module):,}")
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
    draw.text(58, middle + 62, "parameters")
    total = f"{parameters(made):,} in a block; {config.depth} blocks in the encoder"
    draw.text(430, middle + 88, total, 13, bold=True)
    alt = (
        f"A pre-norm block: tokens {tokens}; norm, attention with {config.num_heads} heads of "
        f"{d // config.num_heads} ({parameters(made.attn):,} parameters), added to the input; norm, MLP "
        f"{d} to {hidden} to {d} ({parameters(made.mlp):,}), added again. {total}."
    )
    return draw.finish(236, alt)


def transformers(vit: ModelConfig, mae: ModelConfig) -> Diagram:
    """The transformer of 2017 beside ViT and MAE, to scale: height is depth, width is embed_dim."""
    draw, floor = Canvas(), 232.0
    both = (TRANSFORMER_2017, mae)
    up = 150 / max(c.depth for c in (*both, vit))
    across = 118 / max(c.embed_dim for c in (*both, vit))

    def stack(x: float, depth: int, width: int, role: Role) -> float:
        w, h = width * across, depth * up
        label = [role.name, f"{depth} blocks", f"{width} wide"]
        fits = w > 76 and h > 56
        draw.box(x - w / 2, floor - h, w, h, label if fits else [], role)
        if not fits:
            draw.text(x, floor - h - 22, label[0], 13, bold=True)
            draw.text(x, floor - h - 7, f"{depth} × {width}")
        return w / 2

    columns = (
        (175, TRANSFORMER_2017, "Transformer, 2017", "translation", "cross-attention; equal size",
         ("the sentence", "the words translated so far"),
         ("within the sentence", "to the sentence, and to earlier words"), "the next word"),
        (445, vit, "ViT", "classification", "the encoder alone", ("all patches, a class token", "no decoder"),
         ("among all tokens", "no decoder"), "a class"),
        (708, mae, "MAE", "reconstruction", "decoder: for pre-training only",
         ("visible patches only", "latents and mask tokens"),
         ("among the visible tokens", "among all tokens"), "hidden pixels"),
    )  # fmt: skip
    for x, config, name, task, note, reads, attends, predicts in columns:
        draw.heading(x, 24, name, 15)
        draw.text(x, 48, task)
        draw.text(x, floor + 24, note)
        for y, line in zip((302, 320, 362, 380, 408), (*reads, *attends, predicts), strict=True):
            draw.text(x, y, line)
        if name == "ViT":
            stack(x, config.depth, config.embed_dim, ENCODER)
            continue
        left = x - 66 + stack(x - 66, config.depth, config.embed_dim, ENCODER)
        right = x + 72 - stack(x + 72, config.decoder_depth, config.decoder_embed_dim, DECODER)
        draw.arrow((left, floor - 14), (right, floor - 14))
    for y, label in ((302, "encoder"), (320, "decoder"), (362, "encoder"), (380, "decoder")):
        draw.text(14, y, label, anchor="start")
    for y, label in ((284, "reads"), (344, "attends"), (408, "predicts")):
        draw.text(14, y, label, anchor="start", bold=True)
    draw.text(430, 438, "boxes to scale: blocks upward, width across")
    sizes = [
        f"{c.depth} × {c.embed_dim} and {c.decoder_depth} × {c.decoder_embed_dim}" for c in both
    ]
    alt = (
        f"Three transformers, drawn to scale (blocks × width). Transformer of 2017: encoder and decoder, "
        f"{sizes[0]}, with cross-attention, for translation. ViT: an encoder of {vit.depth} × "
        f"{vit.embed_dim} on all patches, for classification. MAE: an encoder on visible patches and a "
        f"decoder, {sizes[1]}, for reconstruction; without cross-attention."
    )
    return draw.finish(452, alt)
