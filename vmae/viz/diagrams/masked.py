"""Diagrams of VideoMAE V1: all its shapes, and its asymmetry as area."""

from __future__ import annotations

from typing import Any

import torch

from vmae import cost
from vmae.config import MaskConfig, ModelConfig
from vmae.masking import Mask, make_mask
from vmae.viz.colours import DECODER, ENCODER, HIDDEN, MASK_TOKEN, PREDICTED, TARGET, VISIBLE, Role
from vmae.viz.diagrams.drawing import DARK, Canvas, Diagram, Point, shape


def counts(mask: Mask) -> tuple[int, int, int]:
    """V, Q, M: how many tokens are visible, queried and targets."""
    return mask.visible.shape[1], mask.queries.shape[1], mask.targets.shape[1]


def videomae(*configs: ModelConfig, mask: MaskConfig | None = None, seed: int = 0) -> Diagram:
    """VideoMAE from clip to loss: one row of shapes per configuration, without the batch axis.

    mask   tube 90 % by default, as in V1; drawn for each grid
    """
    mask, draw, middle = mask or MaskConfig("tube", 0.9), Canvas(), 92.0
    centres = (54, 156, 252, 353, 466, 576, 676, 790)
    heads = ("clip", "tokens", "visible", "latents", "with mask tokens", "decoded", "pixels",
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
    for x, head in zip(centres, heads, strict=True):
        draw.text(x, 20, head, 13, bold=True)
    draw.text(252, middle + 44, f"{mask.mask_type}, {100 * mask.mask_ratio:g} %")
    said, low = [], 0.0
    for i, config in enumerate(configs):
        grid, d, e = config.grid, config.embed_dim, config.decoder_embed_dim
        v, q, m = counts(make_mask(mask, grid, 1, torch.Generator().manual_seed(seed)))
        n, p, y = grid.num_tokens, grid.token_dim, 184 + 62 * i
        low = y + 40
        draw.line((16, y - 20), (844, y - 20), width=0.5)
        rows = (
            (f"{config.channels} × {grid.clip[0]} ×", " × ".join(map(str, grid.clip[1:]))),
            (shape(n, p), f"grid {'×'.join(map(str, grid.shape))}"),
            (shape(v, p), f"{q} hidden"),
            (shape(v, d), f"linear, {config.depth} blocks"),
            (shape(v + q, e), f"{v} + {q}"),
            (shape(m, e), f"{config.decoder_depth} blocks"),
            (shape(m, p), "linear"),
            (shape(m, p), "MSE"),
        )
        for x, lines in zip(centres, rows, strict=True):
            draw.lines(x, y, lines)
        said.append(
            f"Clip {shape(config.channels, *grid.clip)}: {n} tokens of {p} values, {v} visible, latents "
            f"{shape(v, d)}, decoder input {shape(v + q, e)}, {m} predictions of {p} pixel values."
        )
    alt = f"VideoMAE from clip to loss, {mask.mask_type} masking. " + " ".join(said)
    return draw.finish(low, alt)


def asymmetry(config: ModelConfig, mask: MaskConfig | None = None) -> Diagram:
    """The work of each part as an area: tokens across, depth times width upward, all to one scale.

    Left, an encoder that reads all tokens, as BERT's does; right, MAE's way. The multiply-adds are
    those that `vmae.cost` counts, attention over N² pairs included.
    """
    mask, draw, floor = mask or MaskConfig("tube", 0.9), Canvas(), 242.0
    grid = config.grid
    v, q, _ = counts(make_mask(mask, grid, 1, torch.Generator()))
    n, encoder = grid.num_tokens, config.depth * config.embed_dim
    decoder = config.decoder_depth * config.decoder_embed_dim
    across, up = 300 / max(n, v + q), 190 / max(encoder, decoder)
    every = cost.classifier_multiply_adds(config, 1) / 1e9
    stages = {k: x / 1e9 for k, x in cost.pretraining_multiply_adds(config, mask).items()}

    def part(x: float, tokens: int, layers: int, role: Role) -> Point:
        w, h = tokens * across, layers * up
        draw.rect(x, floor - h, w, h, role.tint, role.colour, 1.5)
        return x + w, floor - h

    def label(x: float, y: float, *lines: str, **options: Any) -> None:
        draw.text(x, y, lines[0], 13, bold=True, **options)
        draw.lines(x, y + 18, lines[1:], **options)

    size = f"{config.depth} blocks × {config.embed_dim} wide"
    end, top = part(26, n, encoder, ENCODER)
    draw.text(26, 28, "mask tokens go through the encoder too", 14, "start", bold=True)
    label((26 + end) / 2, (floor + top) / 2 - 14, "encoder", f"{n} tokens", size, fill=DARK)
    draw.text(26, floor + 24, f"{every:.1f} billion multiply-adds", 13, "start", bold=True)
    end, top = part(430, v, encoder, ENCODER)
    draw.text(430, 28, "visible tokens only, then a small decoder", 14, "start", bold=True)
    label(end + 12, top + 14, "encoder", f"{v} visible tokens", size,
          f"{stages['encoder']:.1f} billion", anchor="start")  # fmt: skip
    x = max(end + 40, 532.0)
    end, top = part(x, v + q, decoder, DECODER)
    draw.line((x + v * across, floor), (x + v * across, top), stroke=DECODER.colour)
    small = f"{config.decoder_depth} blocks × {config.decoder_embed_dim} wide"
    label(end, top - 64, "decoder", f"{v} latents + {q} mask tokens = {v + q}", small,
          f"{stages['decoder']:.1f} billion", anchor="end")  # fmt: skip
    total = f"{stages['total']:.1f} billion multiply-adds"
    draw.text(430, floor + 24, total, 13, "start", bold=True)
    times = every / stages["total"]
    draw.text(844, floor + 24, f"{times:.1f} times less", 13, "end", bold=True)
    draw.text(430, floor + 52, "areas to scale: tokens across, blocks × width upward")
    alt = (
        f"Work as area. An encoder of {size} over all {n} tokens: {every:.1f} billion multiply-adds. "
        f"Asymmetric: the encoder over {v} visible tokens ({stages['encoder']:.1f} billion) and a decoder "
        f"of {small} over {v + q} ({stages['decoder']:.1f} billion), in all {stages['total']:.1f} billion, "
        f"{times:.1f} times less."
    )
    return draw.finish(floor + 66, alt)
