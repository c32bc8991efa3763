"""Diagrams of VideoMAE: V1 with all shapes, its asymmetry as area, V2's dual masking."""

from __future__ import annotations

from typing import Any

import torch

from vmae import cost
from vmae.config import MaskConfig, ModelConfig
from vmae.grid import TokenGrid
from vmae.masking import Mask, make_mask
from vmae.viz.colours import DECODER, ENCODER, HIDDEN, MASK_TOKEN, PREDICTED, TARGET, VISIBLE, Role
from vmae.viz.diagrams.drawing import DARK, Canvas, Diagram, Point, shape, text_width


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
        v, q, m = _counts(make_mask(mask, grid, 1, torch.Generator().manual_seed(seed)))
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


def _counts(mask: Mask) -> tuple[int, int, int]:
    """V, Q, M."""
    return mask.visible.shape[1], mask.queries.shape[1], mask.targets.shape[1]


def asymmetry(config: ModelConfig, mask: MaskConfig | None = None) -> Diagram:
    """The work of each part as an area: tokens across, depth times width upward, all to one scale.

    Left, an encoder that reads all tokens, as BERT's does; right, MAE's way. The multiply-adds are
    those that `vmae.cost` counts, attention over N² pairs included.
    """
    mask, draw, floor = mask or MaskConfig("tube", 0.9), Canvas(), 242.0
    grid = config.grid
    v, q, _ = _counts(make_mask(mask, grid, 1, torch.Generator()))
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


def dual_masking(config: ModelConfig, seed: int = 0) -> Diagram:
    """V2's dual masking as published, beside V1 and two common misconceptions, for one clip.

    Left, the roles of the first time step's positions; right, the tokens of encoder and decoder in
    proportion. The second misconception is a table with two ratios: targets 90 %, encoder 60 %.
    Raises MaskError if the running cell does not fit the grid.
    """
    grid, draw = config.grid, Canvas()
    n, source = grid.num_tokens, torch.Generator().manual_seed(seed)

    def drawn(*values: object) -> Mask:
        return make_mask(MaskConfig(*values), grid, 1, source)  # type: ignore[arg-type]

    low, high = 0.6, 0.9
    wide, many = drawn("random", low).visible, drawn("random", high).queries
    both = Mask(wide, many, torch.arange(many.shape[1])[None])
    cases = [
        ("VideoMAE V1", "published", drawn("tube", high)),
        ("VideoMAE V2", "published", drawn("tube", high, None, "running-cell", 0.5)),
        ("half of the visible dropped", "misconception", drawn("random", high, None, "drop-visible", 0.5)),
        (f"targets {high:.0%}, encoder {low:.0%}", "misconception", both),
    ]  # fmt: skip
    said, pitch, (_, h, w) = [], 130, grid.shape
    cell, scale = 84 / max(h, w), 500 / (n + both.visible.shape[1])
    for i, (name, status, mask) in enumerate(cases):
        v, q, m = _counts(mask)
        top = 44 + i * pitch
        draw.text(16, top - 12, name, 14, "start", bold=True)
        draw.text(844, top - 12, status, 13, "end")
        frame = _frame(mask, grid)
        draw.cells(16, top, frame, (cell, 0), (0, cell))
        dots = [(i, j) for i in range(h) for j in range(w) if frame[i][j] is VISIBLE]
        at = [(15 + (j + 0.5) * cell, top - 1 + (i + 0.5) * cell) for i, j in dots]
        draw.path("".join(f"M{x:.1f} {y:.1f}h2v2h-2z" for x, y in at), DARK, "none")
        overlap = v + q - len(set(mask.visible[0].tolist()) | set(mask.queries[0].tolist()))
        for row, (what, parts) in enumerate(
            (("encoder reads", ((v, VISIBLE),)),
             ("decoder reads", ((v, VISIBLE), (m, TARGET), (q - m, MASK_TOKEN)))),
        ):  # fmt: skip
            y, x = top + 2 + 42 * row, 226.0
            draw.text(216, y + 18, what, 12, "end")
            for count, role in parts:
                wide_ = count * scale
                if count:
                    draw.cells(x, y, [[role]], (wide_, 0), (0, 26))
                    texts = (f"{role.letter} {count}", role.letter)
                    fits = [x for x in texts if text_width(x, 12, True) < wide_ - 4]
                    draw.text(x + wide_ / 2, y + 18, (*fits, "")[0], 12, bold=True, fill=DARK)
                x += wide_
            draw.text(x + 8, y + 18, f"{v}" if row == 0 else f"{v} + {q} = {v + q}", 12, "start")
        notes = f"loss on {m}"
        if overlap:
            notes += f"; {overlap} queries lie on visible positions"
            notes += " and could be copied" if q == m else " and carry no loss"
        elif q - m:
            notes += f"; {q - m} queries carry no loss"
        draw.text(226, top + 98 - 12, notes, 12, "start")
        said.append(f"{name} ({status}): {v} visible, {q} queries, {m} targets, {overlap} overlap")
    alt = f"Dual masking of {n} tokens. " + "; ".join(said) + "."
    end = 44 + len(cases) * pitch - 6
    signs = ((VISIBLE, "visible"), (TARGET, "mask token with loss"), (MASK_TOKEN, "mask token without loss"),
             (HIDDEN, "hidden, not queried"))  # fmt: skip
    for x, (role, text) in zip((16, 106, 286, 476), signs, strict=True):
        draw.token(x, end, role, 16)
        draw.text(x + 24, end + 13, text, 12, "start")
    draw.text(844, end + 13, "frames: t = 0, visible dotted", 12, "end")
    return draw.finish(end + 32, alt)


def _frame(mask: Mask, grid: TokenGrid) -> list[list[Role | None]]:
    """The first time step: visible, target, a mask token without loss, or hidden and not queried."""
    roles: list[Role | None] = [HIDDEN] * grid.tokens_per_frame
    for index, role in (
        (mask.queries, MASK_TOKEN), (mask.target_tokens, TARGET), (mask.visible, VISIBLE)
    ):  # fmt: skip
        for token in index[0].tolist():
            if token < grid.tokens_per_frame:
                roles[token] = role
    h, w = grid.shape[1:]
    return [roles[row * w : (row + 1) * w] for row in range(h)]
