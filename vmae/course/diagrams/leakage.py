"""Diagrams of encoder masks, and of the information that leaks through them.

Neighbouring frames look alike. A hidden token whose position is visible at another time step can thus
be copied from there almost unchanged: VideoMAE (section 3.3) calls this information leakage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from vmae.config import MaskConfig
from vmae.course.diagrams.drawing import DARK, Canvas, Diagram
from vmae.figures.colours import HIDDEN, PREDICTED, TARGET, VISIBLE, Role
from vmae.grid import TokenGrid
from vmae.masking import make_mask

#: The masks that the papers compare.
MASKS = {
    "random": MaskConfig("random", 0.75),
    "tube": MaskConfig("tube", 0.75),
    "frame": MaskConfig("frame", 0.75),
}


def leaking(hidden: torch.Tensor) -> torch.Tensor:
    """Which of the hidden tokens (t, h, w) have a position that is visible at another time step."""
    return hidden & ~hidden.all(0)


def copies(hidden: Sequence[bool]) -> list[tuple[int, int]]:
    """How one position's content could be passed on: (from, to), time steps next to each other.

    Each hidden step takes it from the neighbour on the side of the nearest visible step; none is
    taken if all steps are hidden.
    """
    visible = [step for step, is_hidden in enumerate(hidden) if not is_hidden]
    found = []
    for step, is_hidden in enumerate(hidden):
        if is_hidden and visible:
            nearest = min(visible, key=lambda other: abs(other - step))
            found.append((step + (1 if nearest > step else -1), step))
    return found


def _hidden(mask: MaskConfig, grid: TokenGrid, seed: int) -> torch.Tensor:
    """(t, h, w) bool: where a mask hides, drawn from `seed`."""
    drawn = make_mask(mask, grid, 1, torch.Generator().manual_seed(seed))
    return drawn.hidden(grid.num_tokens)[0].view(grid.shape)


def _followed(hidden: torch.Tensor) -> tuple[int, int]:
    """Row and column of a position near the centre that is hidden at a typical number of steps."""
    often = hidden.sum(0)
    rows, columns = (often == often[often > 0].median()).nonzero().unbind(1)
    h, w = often.shape
    nearest = int(((2 * rows + 1 - h) ** 2 + (2 * columns + 1 - w) ** 2).argmin())
    return int(rows[nearest]), int(columns[nearest])


def _step_length(grid: TokenGrid) -> str:
    frames = grid.tubelet[0]
    return f"one time step is {frames} frame{'s' * (frames > 1)}"


def _roles(frame: torch.Tensor) -> list[list[Role | None]]:
    return [[HIDDEN if cell else VISIBLE for cell in row] for row in frame.tolist()]


def masks(grid: TokenGrid, schemes: Mapping[str, MaskConfig] = MASKS, seed: int = 0) -> Diagram:
    """Masks as slabs of cubes, one slab per time step, drawn for this grid; and what leaks.

    One position is followed through time below each mask: arrows show how its content could be
    copied from a step at which it is visible.
    """
    draw, (t, h, w), n = Canvas(), grid.shape, grid.num_tokens
    pitch, left = 706 / t, 142.0
    side = min((pitch - 16) / (0.62 * w), 112 / (h + 0.3 * w))
    right, tall, said = (0.62 * side, 0.3 * side), side * (h + 0.3 * w), []
    for step in range(t):
        draw.text(left + step * pitch + right[0] * w / 2, 20, f"t = {step}", 13, bold=True)
    middles = [left + step * pitch + right[0] * w / 2 for step in range(t)]
    for i, (name, mask) in enumerate(schemes.items()):
        hidden = _hidden(mask, grid, seed)
        top = 42 + i * (tall + 88)
        row, column = _followed(hidden)
        for step in range(t - 1, -1, -1):
            x = left + step * pitch
            draw.slab(x, top, _roles(hidden[step]), side, (8, -3.4))
            corner = (x + column * right[0], top + column * right[1] + row * side)
            draw.path(
                f"M{corner[0]:.1f} {corner[1]:.1f}l{right[0]:.1f} {right[1]:.1f}v{side:.1f}"
                f"l{-right[0]:.1f} {-right[1]:.1f}z", "none", TARGET.colour, 2.6,
            )  # fmt: skip
        q, leaks = int(hidden.sum()), int(leaking(hidden).sum())
        draw.heading(16, top + tall / 2 - 22, name, 15, "start")
        draw.text(16, top + tall / 2 + 6, f"{n - q} visible", 12, "start")
        draw.text(16, top + tall / 2 + 24, f"{q} hidden, {100 * q / n:.0f} %", 12, "start")
        _through_time(draw, middles, top + tall + 14, hidden[:, row, column].tolist())
        share = f"{leaks} of {q} hidden tokens ({100 * leaks / q:.0f} %) can be copied from another step"
        verdict = "information leakage" if leaks else "the content must be inferred"
        draw.text(430, top + tall + 54, f"{share}: {verdict}", 13, bold=True)
        said.append(f"{name}: {n - q} visible, {q} hidden; {share}, {verdict}")
    low = 42 + len(schemes) * (tall + 88) + 4
    draw.text(430, low, f"{_step_length(grid)}; neighbouring steps of a video look alike, so a copy is "
              "almost right and teaches little")  # fmt: skip
    low += 20
    draw.line((16, low - 4), (40, low - 4), stroke=PREDICTED.colour, width=2.4, head=True)
    draw.text(48, low, "copied from a visible step, by way of its neighbours", 12, "start")
    ratios = {mask.mask_ratio for mask in schemes.values()}
    if ratios != {published := MaskConfig().mask_ratio}:
        shown = ", ".join(f"{100 * ratio:.0f}" for ratio in sorted(ratios))
        draw.text(844, low, f"{shown} % to keep the figure clear; VideoMAE hides {100 * published:.0f} %",
                  12, "end")  # fmt: skip
    alt = (
        f"Masks on a grid of {t} × {h} × {w} = {n} tokens, time step by time step. "
        f"{'; '.join(said)}. Random: other positions at every step. Tube: the same positions at all "
        "steps. Frame: whole steps."
    )
    return draw.finish(low + 14, alt)


def _through_time(draw: Canvas, middles: Sequence[float], y: float, hidden: Sequence[bool]) -> None:
    """One position at every time step, and how its content could be copied from step to step."""
    draw.rect(17, y + 2, 14, 14, "none", TARGET.colour, 2.6)
    draw.text(40, y + 14, "this position", 12, "start")
    for x, is_hidden in zip(middles, hidden, strict=True):
        draw.token(x - 9, y, HIDDEN if is_hidden else VISIBLE)
    for start, end in copies(hidden):
        way = 13 if end > start else -13
        draw.line((middles[start] + way, y + 9), (middles[end] - way, y + 9), stroke=PREDICTED.colour,
                  width=2.4, head=True)  # fmt: skip


def ball_path(grid: TokenGrid) -> list[tuple[int, float]]:
    """By time step, the column that a slow ball is in and the x of its centre, in cells.

    It stays within one cell, for two steps each, so that it is either seen or hidden as a whole.
    """
    t, _, w = grid.shape
    first = max(0, (w - 1 - t // 2) // 2)
    columns = [min(w - 1, first + (step + 1) // 2) for step in range(t)]
    return [(c, c + 0.5 + (0.13 if step % 2 == 0 else -0.13)) for step, c in enumerate(columns)]


def ball_copies(hidden: Sequence[bool], columns: Sequence[int]) -> list[tuple[int, int]]:
    """(from, to): a hidden ball and a time step beside it that shows the ball at the same position."""
    steps = range(len(columns))
    return [
        (start, end)
        for end in steps
        for start in [s for s in (end - 1, end + 1) if s in steps and columns[s] == columns[end]]
        if hidden[end] and not hidden[start]
    ]


def rolling_ball(
    grid: TokenGrid, schemes: Mapping[str, MaskConfig] | None = None, seed: int = 120
) -> Diagram:
    """A ball rolls behind each mask: when the encoder sees it, and when a neighbouring step gives it away.

    By default random, a tube of two steps (a common misconception), the published tube, and frame.
    The default seed draws masks that show the ball equally often, so that only the leakage differs.
    The loop is SVG's own animation; where it does not play, its first step is shown.
    """
    length = 2 * grid.tubelet[0]
    short = {f"tube of {length} frames": MaskConfig("tube", 0.75, tube_length=length)}
    schemes = schemes or {"random": MASKS["random"], **short} | MASKS
    draw, (t, h, w) = Canvas(), grid.shape
    pitch, big = 584 / t, 88 / max(h, w)
    side, path, ball_row = (pitch - 8) / w, ball_path(grid), h // 2
    columns, row, said = [column for column, _ in path], max(h * side + 54, h * big + 22), []
    for step in range(t):
        draw.text(160 + step * pitch + w * side / 2, 20, f"t = {step}", 13, bold=True)
    draw.heading(760 + w * big / 2, 20, "animated")
    for i, (name, mask) in enumerate(schemes.items()):
        masked = _hidden(mask, grid, seed)
        hidden = [bool(masked[step, ball_row, column]) for step, column in enumerate(columns)]
        y = 34 + i * row
        for step in range(t):
            x = 160 + step * pitch
            draw.rect(x, y, w * side, h * side, VISIBLE.colour, VISIBLE.colour)
            _cover(draw, x, y, side, masked[step])
            _ball(draw, x + path[step][1] * side, y + (ball_row + 0.5) * side, side, hidden[step])
        copied, below = ball_copies(hidden, columns), y + h * side
        for start, end in copied:
            x0, x1 = (160 + step * pitch + path[step][1] * side for step in (start, end))
            draw.line((x0, below + 3), (x0, below + 12), (x1, below + 12), (x1, below + 2),
                      stroke=PREDICTED.colour, width=2, head=True)  # fmt: skip
        unseen = sum(hidden)
        draw.heading(12, y + 18, name, 13, "start")
        draw.text(12, y + 42, f"seen in {t - unseen} of {t} steps", 12, "start")
        if mask.tube_length is not None:
            every = mask.tube_length // grid.tubelet[0]
            draw.text(12, y + 60, f"redrawn every {every} steps", 12, "start")
        fact = f"{len(copied)} of {unseen} hidden balls can be copied from a neighbouring step"
        verdict = "information leakage" if copied else "each must be inferred"
        draw.text(160, below + 29, f"{fact}: {verdict}", 12, "start", bold=True)
        said.append(f"{name}: seen in {t - unseen}; {fact}, {verdict}")
        _loop(draw, 760.0, y, big, masked, [place for _, place in path], hidden)
    low = 34 + len(schemes) * row + 12
    _ball_key(draw, low)
    low += 26
    draw.text(430, low, f"{_step_length(grid)}; the ball spends two steps at each position")
    alt = (
        f"A ball rolls slowly through {t} time steps behind {len(schemes)} masks, two steps in each "
        f"position. {'. '.join(said)}. A tube over the whole clip hides or shows a position at all steps."
    )
    return draw.finish(low + 16, alt)


def _cover(draw: Canvas, x: float, y: float, side: float, hidden: torch.Tensor) -> None:
    """The hidden cells (h, w) of a frame."""
    roles = [[HIDDEN if cell else None for cell in row] for row in hidden.tolist()]
    draw.cells(x, y, roles, (side, 0), (0, side))


def _ball(draw: Canvas, x: float, y: float, side: float, hidden: bool, moving: str = "") -> None:
    """The ball in a cell of this side, dashed if it is hidden."""
    draw.circle(x, y, 0.35 * side, TARGET.colour if hidden else DARK, DARK, 1, hidden, moving)


def _loop(
    draw: Canvas,
    x: float,
    y: float,
    side: float,
    masked: torch.Tensor,
    places: Sequence[float],
    hidden: Sequence[bool],
) -> None:
    """The steps as a loop: masked (t, h, w), and by step the ball's place in cells and if it is hidden."""
    t, h, w = masked.shape
    times = ";".join(f"{step / t:.3f}" for step in range(t))
    timing = f'dur="{0.6 * t:.1f}s" calcMode="discrete" keyTimes="{times}" repeatCount="indefinite"'
    draw.rect(x, y, w * side, h * side, VISIBLE.colour, VISIBLE.colour)
    track = ";".join(f"{x + place * side:.1f}" for place in places)
    moving = f'<animate attributeName="cx" values="{track}" {timing}/>'
    at = y + (h // 2 + 0.5) * side
    _ball(draw, x + places[0] * side, at, side, False, moving)
    for step in range(t):
        shown = ";".join("1" if s == step else "0" for s in range(t))
        draw.parts.append(f'<g opacity="{int(step == 0)}">')
        _cover(draw, x, y, side, masked[step])
        if hidden[step]:
            _ball(draw, x + places[step] * side, at, side, True)
        draw.parts.append(f'<animate attributeName="opacity" values="{shown}" {timing}/></g>')


def _ball_key(draw: Canvas, low: float) -> None:
    """What the balls and the arrows mean."""
    for x, is_hidden, text in ((24.0, False, "ball in a visible cell: seen"),
                               (250.0, True, "ball in a hidden cell: a target")):  # fmt: skip
        draw.rect(x - 9, low - 14, 20, 20, VISIBLE.colour, VISIBLE.colour)
        if is_hidden:
            draw.cells(x - 9, low - 14, [[HIDDEN]], (20, 0), (0, 20))
        _ball(draw, x + 1, low - 4, 20, is_hidden)
        draw.text(x + 20, low, text, 12, "start")
    draw.line((494, low - 4), (518, low - 4), stroke=PREDICTED.colour, width=2, head=True)
    draw.text(526, low, "a copy: the same position at a neighbouring step", 12, "start")
