"""Diagrams of VideoMAE V1: all its shapes, and its asymmetry as area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vmae import cost
from vmae.config import MaskConfig, ModelConfig
from vmae.course.diagrams.drawing import DARK, Canvas, Diagram, Point, shape
from vmae.figures.colours import (
    DECODER,
    ENCODER,
    HIDDEN,
    MASK_TOKEN,
    NEUTRAL,
    PREDICTED,
    TARGET,
    VISIBLE,
    Role,
)
from vmae.figures.figure import text_width
from vmae.masking import Mask, make_mask


def counts(mask: Mask) -> tuple[int, int, int]:
    """V, Q, M: how many tokens are visible, queried and targets."""
    return mask.visible.shape[1], mask.queries.shape[1], mask.targets.shape[1]


def videomae(*configs: ModelConfig, mask: MaskConfig | None = None, seed: int = 0) -> Diagram:
    """VideoMAE from clip to loss: one row of shapes per configuration, without the batch axis.

    mask   tube 90 % by default, as in V1; drawn for each grid
    """
    mask, draw = mask or MaskConfig("tube", 0.9), Canvas()
    _v1_parts(draw, mask)
    said, low = [], 0.0
    for i, config in enumerate(configs):
        y = 200.0 + 76 * i
        draw.line((16, y - 20), (844, y - 20), width=0.5)
        drawn = make_mask(mask, config.grid, 1, torch.Generator().manual_seed(seed))
        said.append(_v1_shapes(draw, y, config, drawn, mask.mask_type))
        low = y + 54
    note = "each token carries its position, so their order does not matter: here v first, then m"
    if all(config.family == "videomae" for config in configs):
        note += "; no class token, unlike MAE"
    draw.text(430, low + 10, note)
    alt = f"VideoMAE from clip to loss, {mask.mask_type} masking. " + " ".join(said)
    return draw.finish(low + 24, alt)


#: Where the parts of VideoMAE V1 stand, from clip to loss.
_CENTRES = (54, 156, 252, 353, 466, 576, 676, 790)


def _v1_parts(draw: Canvas, mask: MaskConfig) -> None:
    """The parts, with arrows from each to the next."""
    middle = 92.0
    heads = ("clip", "tubelets", "visible", "", "with mask tokens", "", "predictions",
             "loss")  # fmt: skip
    pictured: list[list[Role | None]] = [[VISIBLE] * 5 for _ in range(5)]
    for back in (2, 1, 0):
        draw.cells(24 + 5 * back, middle - 22 - 5 * back, pictured, (10, 0), (0, 10))
    tokens = [HIDDEN, VISIBLE, HIDDEN, HIDDEN, VISIBLE, HIDDEN]
    draw.tokens(148, middle - 54, tokens, 15)
    draw.tokens(244, middle - 18, [VISIBLE] * 2, 15)
    draw.box(304, middle - 52, 98, 104, ["encoder", "large"], ENCODER)
    queried = [VISIBLE] * 2 + [MASK_TOKEN] * 4
    draw.tokens(458, middle - 54, queried, 15)
    draw.box(536, middle - 34, 80, 68, ["decoder", "small"], DECODER)
    draw.tokens(668, middle - 36, [PREDICTED] * 4, 15)
    draw.tokens(762, middle - 36, [PREDICTED] * 4, 15)
    draw.tokens(803, middle - 36, [TARGET] * 4, 15)
    draw.text(790, middle + 5, "−", 16, bold=True)
    for x in (427, 639):
        draw.text(x, middle - 8, "linear")
    for a, b in ((92, 142), (170, 236), (266, 302), (404, 450), (480, 534), (618, 660), (690, 754)):
        draw.arrow((a, middle), (b, middle))
    for x, head in zip(_CENTRES, heads, strict=True):
        if head:
            draw.heading(x, 20, head)
    for x in (284, 466):
        draw.text(x, middle + 72, "+ positions")
    draw.lines(252, middle + 38, [mask.mask_type, f"{100 * mask.mask_ratio:g} % hidden"])


def _v1_shapes(draw: Canvas, y: float, config: ModelConfig, mask: Mask, mask_type: str) -> str:
    """A row with the shape at each part; returns it in words."""
    grid, d, e = config.grid, config.embed_dim, config.decoder_embed_dim
    (v, q, m), n, p = counts(mask), grid.num_tokens, grid.token_dim
    in_a_tube = f"{v // grid.shape[0]} of {grid.tokens_per_frame} × {grid.shape[0]}"  # at each step
    rows = (
        (f"{config.channels} × {grid.clip[0]} ×", " × ".join(map(str, grid.clip[1:]))),
        (shape(n, p), f"grid {'×'.join(map(str, grid.shape))}"),
        (shape(v, p), f"{q} hidden", in_a_tube if mask_type == "tube" else f"{v} of {n}"),
        (shape(v, d), f"linear, {config.depth} blocks", "latents"),
        (shape(v + q, e), f"linear, {v} v", f"+ {q} m"),
        (shape(m, e), f"{config.decoder_depth} blocks,", f"{v + q - m} dropped"),
        (shape(m, p), "linear"),
        (shape(m, p), "mean squared", "error"),
    )
    for x, lines in zip(_CENTRES, rows, strict=True):
        draw.lines(x, y, lines)
    return (
        f"Clip {shape(config.channels, *grid.clip)}: {n} tokens of {p} values, {v} visible, latents "
        f"{shape(v, d)}, decoder input {shape(v + q, e)}, {m} predictions of {p} pixel values."
    )


def adding_up(parts: Sequence[float], total: float) -> list[str]:
    """Parts and total, rounded to as few decimals (from one) as still add up."""
    for decimals in range(1, 4):
        rounded = [round(value, decimals) for value in (*parts, total)]
        if abs(sum(rounded[:-1]) - rounded[-1]) < 0.1**decimals / 2:
            break
    return [f"{value:.{decimals}f}" for value in rounded]


def asymmetry(config: ModelConfig, mask: MaskConfig | None = None) -> Diagram:
    """The work of each part as an area: tokens across, depth times width upward, all to one scale.

    Left, an encoder that reads all tokens, as BERT's does; right, MAE's way. The multiply-adds are
    those that `vmae.cost` counts, attention over N² pairs included; below, they are bars to scale.
    """
    mask, draw = mask or MaskConfig("tube", 0.9), Canvas()
    v, q, _ = counts(make_mask(mask, config.grid, 1, torch.Generator()))
    every = cost.classifier_multiply_adds(config, 1) / 1e9
    stages = {k: x / 1e9 for k, x in cost.pretraining_multiply_adds(config, mask).items()}
    total = stages["total"]
    rest = total - stages["encoder"] - stages["decoder"]
    values = [stages["encoder"], stages["decoder"], rest]
    parts = adding_up(values, total)
    size, small = _areas(draw, config, v, q)
    _bars(draw, every, values, parts)
    more, less = (
        ("decoder", "encoder") if stages["decoder"] > stages["encoder"] else ("encoder", "decoder")
    )
    verdict = (
        f"{every / total:.1f} times less in all; the {more} now costs "
        f"{stages[more] / stages[less]:.1f} times the {less}: the decoder reads {(v + q) / v:.1f} times "
        "as many tokens"
    )
    draw.text(430, 404, verdict, 12, bold=True)
    note = "not proportional to the areas: multiply-adds grow with width² and, in attention, with tokens²"
    draw.text(430, 424, note)
    alt = (
        f"Work as area. An encoder of {size} over all {config.grid.num_tokens} tokens: {every:.1f} billion "
        f"multiply-adds per clip. Asymmetric: the encoder over {v} visible tokens ({parts[0]} billion) and "
        f"a decoder of {small} over {v + q} ({parts[1]} billion), with {parts[2]} billion in linear layers "
        f"before, between and after them, in all {parts[3]} billion. {verdict}."
    )
    return draw.finish(440, alt)


def _areas(draw: Canvas, config: ModelConfig, v: int, q: int) -> tuple[str, str]:
    """Both models as areas, tokens across; returns the sizes of encoder and decoder in words."""
    floor, n = 240.0, config.grid.num_tokens
    encoder = config.depth * config.embed_dim
    decoder = config.decoder_depth * config.decoder_embed_dim
    across, up = 300 / max(n, v + q), 180 / max(encoder, decoder)

    def part(x: float, tokens: int, layers: int, role: Role) -> Point:
        w, h = tokens * across, layers * up
        draw.rect(x, floor - h, w, h, role.tint, role.colour, 1.5)
        return x + w, floor - h

    def label(x: float, y: float, *lines: str, **options: Any) -> None:
        draw.text(x, y, lines[0], 13, bold=True, **options)
        draw.lines(x, y + 18, lines[1:], **options)

    size = f"{config.depth} blocks × {config.embed_dim} wide"
    small = f"{config.decoder_depth} blocks × {config.decoder_embed_dim} wide"
    end, top = part(26, n, encoder, ENCODER)
    draw.heading(26, 28, "all tokens in one large encoder", 14, "start")
    label((26 + end) / 2, (floor + top) / 2 - 14, "encoder", f"{v} visible + {q} mask tokens", size,
          fill=DARK)  # fmt: skip
    end, top = part(430, v, encoder, ENCODER)
    draw.heading(430, 28, "asymmetric: large encoder, small decoder", 14, "start")
    label(
        end + 12,
        top + 14,
        "encoder: large, few tokens",
        f"{v} visible tokens",
        size,
        anchor="start",
    )
    x = max(end + 40, 532.0)
    end, top = part(x, v + q, decoder, DECODER)
    draw.line((x + v * across, floor), (x + v * across, top), stroke=DECODER.colour)
    if floor - top > 20:
        draw.text(x + v * across / 2, (floor + top) / 2 + 4, "v", bold=True, fill=DARK)
        draw.text(x + (v + q / 2) * across, (floor + top) / 2 + 4, "m", bold=True, fill=DARK)
    label(end, top - 44, "decoder: small, all tokens", f"{v} latents + {q} mask tokens = {v + q}", small,
          anchor="end")  # fmt: skip
    draw.text(430, floor + 24, "areas to scale: tokens across, blocks × width upward")
    return size, small


def _bars(draw: Canvas, every: float, values: Sequence[float], parts: Sequence[str]) -> None:
    """The multiply-adds of both as bars: `every`, and the `values` whose texts are `parts`."""
    low, scale = 292.0, 640 / max(every, sum(values))
    draw.heading(26, low, "billions of multiply-adds per clip, forward pass", 13, "start")
    rows = (
        ("all tokens", [every], [f"{every:.1f}"], [ENCODER]),
        ("asymmetric", values, parts[:3], [ENCODER, DECODER, NEUTRAL]),
    )
    for i, (name, works, texts, roles) in enumerate(rows):
        x, y = 116.0, low + 18 + 36 * i
        draw.text(26, y + 17, name, 12, "start", bold=True)
        for value, text, role in zip(works, texts, roles, strict=True):
            tinted = Role(role.name, role.tint)
            draw.cells(x, y, [[tinted]], (value * scale, 0), (0, 26))
            if text_width(text, 12, True) < value * scale - 4:
                draw.text(x + value * scale / 2, y + 17, text, 12, bold=True, fill=DARK)
            x += value * scale
        if i:
            linear = f"linear layers {parts[2]} = {parts[3]}"
            said = f"encoder {parts[0]} + decoder {parts[1]} + {linear}"
            draw.text(x + 10, y + 17, said, 12, "start", bold=True)
