"""V2's dual masking as published, beside V1 and two misconceptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from vmae.config import MaskConfig, ModelConfig
from vmae.course.diagrams.drawing import DARK, Canvas, Diagram, Point
from vmae.course.diagrams.masked import counts
from vmae.figures.colours import HIDDEN, MASK_TOKEN, TARGET, VISIBLE, Role
from vmae.figures.figure import text_width
from vmae.grid import TokenGrid
from vmae.masking import Mask, make_mask

#: Share of the tokens that the encoder's mask hides, as published, and share of the positions at which
#: the decoder is not queried.
RATIO, UNQUERIED = 0.9, 0.5


class Case(NamedTuple):
    """A way of masking: what it is called, its mask, and what each line of the figure says of it."""

    name: str
    mask: Mask
    encoder: str
    decoder: str
    running: bool = False


def dual_masking(config: ModelConfig, seed: int = 0) -> Diagram:
    """V2's dual masking as published, beside V1 and two common misconceptions, for one clip.

    Left, both masks at the first time step; right, the tokens of encoder, decoder and loss in
    proportion. The second misconception is a table with two ratios: targets 90 %, encoder 60 %.
    Raises MaskError if the running cell does not fit the grid.
    """
    grid, draw, pitch = config.grid, Canvas(), 172
    n, (_, h, w) = grid.num_tokens, grid.shape
    cases, cell, said = _cases(grid, seed), 116 / max(grid.shape[1:]), []
    scale = 548 / max(n, *(sum(counts(case.mask)[:2]) for case in cases))
    for i, case in enumerate(cases):
        v, q, m = counts(case.mask)
        top, seen = 60 + i * pitch, set(case.mask.visible[0].tolist())
        overlap = len(seen & set(case.mask.queries[0].tolist()))
        end = draw.heading(16, top - 26, case.name, 14, "start")
        if case.running:
            _running_cell(draw, end + 20, top - 42, case.mask, grid)
        draw.text(16 + w * cell / 2, top - 4, "encoder mask")
        draw.text(152 + w * cell / 2, top - 4, "decoder mask")
        _grids(draw, (16, top + 3), (152, top + 3), cell, case.mask, grid)
        with_loss, without = (f"m {m}", m, MASK_TOKEN), (f"m {q - m}", q - m, MASK_TOKEN)
        reads = f"decoder reads {v} + {q} = {v + q}"
        reads += f", more than the clip has ({n})" if v + q > n else ""
        lost = f"loss at {m} of the {q}" if m < q else f"loss at all {m}"
        if overlap:
            lost += f"; {overlap} queries fall on visible positions"
            lost += ": could be copied" if q == m else ": no loss"
        elif q - m:
            lost += f": the {q - m} dropped tokens have none"
        _bar(draw, top + 10, scale, f"encoder reads {v}{case.encoder}", [(f"v {v}", v, VISIBLE)])
        _bar(
            draw,
            top + 52,
            scale,
            reads + case.decoder,
            [(f"v {v}", v, VISIBLE), with_loss, without],
        )
        _bar(draw, top + 94, scale, lost, [("", v, None), (f"t {m}", m, TARGET)])
        said.append(f"{case.name}: {v} visible, {q} queries, {m} targets, {overlap} overlap")
    low = 60 + len(cases) * pitch - 16
    signs = ((VISIBLE, "v: visible to the encoder"), (HIDDEN, "hidden from it"),
             (TARGET, "t: target, a query with loss"), (MASK_TOKEN, "query without loss"))  # fmt: skip
    for x, (role, text) in zip((16, 196, 316, 518), signs, strict=True):
        draw.token(x, low, role, 16, " ")
        if role is MASK_TOKEN:
            _outline(draw, x, low, [[role]], 16)
        draw.text(x + 23, low + 13, text, 12, "start")
    _dot(draw, 684, low + 8, 3.5)
    draw.text(694, low + 13, "visible; gap: not queried", 12, "start")
    draw.text(430, low + 38, f"grids: {h} × {w} positions at t = 0; bars: tokens of the clip, to scale; "
              "m: mask tokens, one for each query, with loss or (outlined) without")  # fmt: skip
    alt = f"Dual masking of {n} tokens. " + "; ".join(said) + "."
    return draw.finish(low + 52, alt)


def _cases(grid: TokenGrid, seed: int) -> list[Case]:
    n, source = grid.num_tokens, torch.Generator().manual_seed(seed)
    (t, _, _), positions = grid.shape, grid.tokens_per_frame

    def drawn(*values: object) -> Mask:
        return make_mask(MaskConfig(*values), grid, 1, source)  # type: ignore[arg-type]

    low = 0.6
    v1, v2 = drawn("tube", RATIO), drawn("tube", RATIO, None, "running-cell", UNQUERIED)
    dropped = drawn("random", RATIO, None, "drop-visible", UNQUERIED)
    both = drawn("random", low, None, "independent", 1 - RATIO)
    tube = f": a tube, {v1.visible.shape[1] // t} of {positions} positions × {t} time steps"
    single = n - dropped.targets.shape[1]
    share = 100 * v2.queries.shape[1] / n
    half = f": {share:.0f} % of all positions, drawn independently"
    return [
        Case("VideoMAE V1, published", v1, tube, ": every hidden token"),
        Case("VideoMAE V2, published", v2, ": a tube, as in V1", half, True),
        Case("misconception: half of the visible dropped", dropped,
             f" of {single}: random, {n} − {n - single} = {single}", ": all that is not encoded"),
        Case(f"misconception: targets {100 * RATIO:g} %, encoder {100 * low:g} %", both,
             f": random, {n} − {n - both.visible.shape[1]}", ""),
    ]  # fmt: skip


def _bar(
    draw: Canvas, y: float, scale: float, said: str, parts: list[tuple[str, int, Role | None]]
) -> None:
    """A line of text and, below it, parts in proportion to their numbers of tokens."""
    x = 296.0
    draw.text(x, y, said, 12, "start", bold=True)
    for i, (text, count, role) in enumerate(parts):
        if count and role:
            draw.cells(x, y + 5, [[role]], (count * scale, 0), (0, 20))
            wide = count * scale
            fits = [line for line in (text, text[:1]) if text_width(line, 12, True) < wide - 4]
            draw.text(x + wide / 2, y + 19, (*fits, "")[0], 12, bold=True, fill=DARK)
            if i == 2:  # mask tokens without loss, outlined as in the grids
                draw.path(f"M{x:.1f} {y + 5:.1f}h{wide:.1f}v20h{-wide:.1f}z", "none", DARK, 1.6)
                if fits[:1] != [text]:
                    draw.text(x + wide + 6, y + 19, text, 12, "start", bold=True)
        x += count * scale


def _dot(draw: Canvas, x: float, y: float, r: float) -> None:
    draw.circle(x, y, r, VISIBLE.colour, DARK, 0.7)


def _outline(
    draw: Canvas, x: float, y: float, roles: Sequence[Sequence[Role | None]], side: float
) -> None:
    """Dark outlines around cells without loss, so that they differ from gaps on a white page too."""
    at = [
        (x + j * side, y + i * side)
        for i, row in enumerate(roles)
        for j, role in enumerate(row)
        if role
    ]
    draw.path(
        "".join(f"M{a:.1f} {b:.1f}h{side:.1f}v{side:.1f}h{-side:.1f}z" for a, b in at),
        "none",
        DARK,
        1.6,
    )


def _grids(
    draw: Canvas, left: Point, right: Point, cell: float, mask: Mask, grid: TokenGrid
) -> None:
    """Both masks at the first time step; in the decoder's, dots mark what the encoder sees."""
    h, w = grid.shape[1:]
    seen, queried, loss = (
        set(index[0].tolist()) for index in (mask.visible, mask.queries, mask.target_tokens)
    )
    tokens = [[row * w + column for column in range(w)] for row in range(h)]
    encoder: list[list[Role | None]] = [
        [VISIBLE if x in seen else HIDDEN for x in row] for row in tokens
    ]
    decoder: list[list[Role | None]] = [
        [TARGET if x in loss else MASK_TOKEN if x in queried else None for x in row]
        for row in tokens
    ]
    draw.cells(*left, encoder, (cell, 0), (0, cell))
    draw.cells(*right, decoder, (cell, 0), (0, cell))
    no_loss = [[role if role is MASK_TOKEN else None for role in line] for line in decoder]
    _outline(draw, *right, no_loss, cell)
    draw.rect(*right, w * cell, h * cell)
    for x in range(h * w):
        if x in seen:
            row, column = divmod(x, w)
            centre = (right[0] + (column + 0.5) * cell, right[1] + (row + 0.5) * cell)
            _dot(draw, *centre, min(0.28 * cell, 4))


def _running_cell(draw: Canvas, x: float, y: float, mask: Mask, grid: TokenGrid) -> None:
    """The decoder mask's upper left 2 × 2 positions at the first four time steps."""
    queried, (_, _, w), n = set(mask.queries[0].tolist()), grid.shape, grid.tokens_per_frame
    text = "decoder mask: a running cell of 2 × 2, at t = 0, 1, 2, 3:"
    draw.text(x, y + 16, text, 12, "start")
    x += text_width(text, 12) + 10
    for step in range(4):
        frame: list[list[Role | None]] = [
            [TARGET if step * n + row * w + column in queried else None for column in (0, 1)]
            for row in (0, 1)
        ]
        draw.cells(x + 30 * step, y, frame, (11, 0), (0, 11))
        draw.rect(x + 30 * step, y, 22, 22)
