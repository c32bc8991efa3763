"""V2's dual masking as published, beside V1 and two misconceptions."""

from __future__ import annotations

import torch

from vmae.config import MaskConfig, ModelConfig
from vmae.grid import TokenGrid
from vmae.masking import Mask, make_mask
from vmae.viz.colours import HIDDEN, MASK_TOKEN, TARGET, VISIBLE, Role
from vmae.viz.diagrams.drawing import DARK, Canvas, Diagram, text_width
from vmae.viz.diagrams.masked import counts


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
        v, q, m = counts(mask)
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
