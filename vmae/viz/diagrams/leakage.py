"""Diagrams of encoder masks: random, tube and frame masks as cubes, and a ball that rolls behind them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vmae.config import MaskConfig
from vmae.grid import TokenGrid
from vmae.masking import make_mask
from vmae.viz.colours import HIDDEN, TARGET, VISIBLE, Role
from vmae.viz.diagrams.drawing import DARK, Canvas, Diagram

#: The masks that the papers compare.
MASKS = {
    "random": MaskConfig("random", 0.75),
    "tube": MaskConfig("tube", 0.75),
    "frame": MaskConfig("frame", 0.75),
}


def _steps(mask: MaskConfig, grid: TokenGrid, seed: int) -> tuple[list[list[list[bool]]], int]:
    """Where a drawn mask hides, by time step, row and column; and the number of visible tokens."""
    drawn = make_mask(mask, grid, 1, torch.Generator().manual_seed(seed))
    return drawn.hidden(grid.num_tokens)[0].view(grid.shape).tolist(), drawn.visible.shape[1]


def _roles(frame: list[list[bool]]) -> list[list[Role | None]]:
    return [[HIDDEN if cell else VISIBLE for cell in row] for row in frame]


def masks(grid: TokenGrid, schemes: Mapping[str, MaskConfig] = MASKS, seed: int = 0) -> Diagram:
    """Masks as slabs of cubes, one slab per time step, drawn for this grid; visible ones are bright."""
    draw, (t, h, w) = Canvas(), grid.shape
    pitch = 706 / t
    side = min((pitch - 16) / (0.62 * w), 118 / (h + 0.3 * w))
    tall, said = side * (h + 0.3 * w), []
    for i, (name, mask) in enumerate(schemes.items()):
        frames, visible = _steps(mask, grid, seed)
        top = 34 + i * (tall + 34)
        for step in range(t - 1, -1, -1):
            draw.slab(142 + step * pitch, top, _roles(frames[step]), side, (8, -3.4))
        hidden = grid.num_tokens - visible
        middle = top + tall / 2
        draw.text(16, middle - 12, name, 15, "start", bold=True)
        draw.text(16, middle + 8, f"{visible} visible", 12, "start")
        share = f"{100 * hidden / grid.num_tokens:.0f} %"
        draw.text(16, middle + 26, f"{hidden} hidden, {share}", 12, "start")
        said.append(f"{name}: {visible} visible, {hidden} hidden")
    low = 34 + len(schemes) * (tall + 34)
    for step in range(t):
        draw.text(142 + step * pitch + 0.31 * side * w, low, f"t = {step}")
    alt = (
        f"Masks on a grid of {t} × {h} × {w} = {grid.num_tokens} tokens, time step by time step. "
        f"{'; '.join(said)}. Random: other positions at every step. Tube: the same positions at all "
        "steps. Frame: whole steps."
    )
    return draw.finish(low + 16, alt)


def rolling_ball(
    grid: TokenGrid, schemes: Mapping[str, MaskConfig] | None = None, seed: int = 58
) -> Diagram:
    """A ball rolls behind each mask: what the encoder sees of it, step by step, and as a loop.

    By default random, a tube of two steps (a common misconception), the published tube, and frame.
    The loop is SVG's own animation; where it does not play, its first step is shown.
    """
    length = 2 * grid.tubelet[0]
    short = {f"tube of {length} frames": MaskConfig("tube", 0.75, tube_length=length)}
    schemes = schemes or {"random": MASKS["random"], **short} | MASKS
    draw, (t, h, w) = Canvas(), grid.shape
    pitch = 584 / t
    side, big = (pitch - 8) / w, 88 / max(h, w)
    row = max(h * side, h * big) + 20
    ball_row, said = h // 2, []
    places = [
        0.5 + step * (w - 1) / max(1, t - 1) for step in range(t)
    ]  # of the ball's centre, in cells
    times = ";".join(f"{step / t:.3f}" for step in range(t))
    timing = f'dur="{0.6 * t:.1f}s" calcMode="discrete" keyTimes="{times}" repeatCount="indefinite"'

    def ball(x: float, y: float, cell: float, fill: str = TARGET.colour, moving: str = "") -> None:
        dash = ' stroke-dasharray="2 2"' if fill == "none" else ""
        draw.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{0.44 * cell:.1f}" fill="{fill}" '
            f'stroke="{DARK}" stroke-width="1"{dash}>{moving}</circle>'
        )

    def behind(x: float, y: float, cell: float, frame: list[list[bool]]) -> None:
        cells = [[HIDDEN if hidden else None for hidden in line] for line in frame]
        draw.cells(x, y, cells, (cell, 0), (0, cell))

    for i, (name, mask) in enumerate(schemes.items()):
        frames, _ = _steps(mask, grid, seed)
        middle = 34 + i * row + (row - 20) / 2
        seen = [s for s in range(t) if not frames[s][ball_row][int(places[s])]]
        draw.text(12, middle - 4, name, 13, "start", bold=True)
        draw.text(12, middle + 15, f"seen in {len(seen)} of {t} steps", 12, "start")
        said.append(f"{name} {len(seen)}")
        y = middle - h * side / 2
        for step, frame in enumerate(frames):
            x = 160 + step * pitch
            centre = (x + places[step] * side, y + (ball_row + 0.5) * side, side)
            draw.rect(x, y, w * side, h * side, VISIBLE.tint, VISIBLE.colour)
            ball(*centre)
            behind(x, y, side, frame)
            ball(*centre, "none")
        x, y = 760.0, middle - h * big / 2
        draw.rect(x, y, w * big, h * big, VISIBLE.tint, VISIBLE.colour)
        centre = (x + places[0] * big, y + (ball_row + 0.5) * big, big)
        track = ";".join(f"{x + place * big:.1f}" for place in places)
        moving = f'<animate attributeName="cx" values="{track}" {timing}/>'
        ball(*centre, moving=moving)
        for step, frame in enumerate(frames):
            shown = ";".join("1" if s == step else "0" for s in range(t))
            draw.parts.append(f'<g opacity="{int(step == 0)}">')
            behind(x, y, big, frame)
            draw.parts.append(f'<animate attributeName="opacity" values="{shown}" {timing}/></g>')
        ball(*centre, "none", moving)
    for step in range(t):
        draw.text(160 + step * pitch + w * side / 2, 20, f"t = {step}")
    draw.text(760 + w * big / 2, 20, "in motion", bold=True)
    low = 34 + len(schemes) * row + 8
    draw.text(430, low, "dashed: where the ball is, unseen by the encoder")
    alt = (
        f"A ball rolls through {t} time steps behind {len(schemes)} masks; the steps in which it is seen: "
        f"{', '.join(said)}. A tube over the whole clip hides or shows a position at all steps alike."
    )
    return draw.finish(low + 16, alt)
