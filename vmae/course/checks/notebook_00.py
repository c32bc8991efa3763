"""Exercises of notebook 00, a first try: count the tokens, turn the hidden patches grey."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb

from vmae import ROOT, grid
from vmae.course import viz
from vmae.course.checks.core import Exercise
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.data.reading.sampling import crop_square
from vmae.figures.colours import HIDDEN, VISIBLE, Role

Sides = tuple[int, int, int]

# ---- counting ------------------------------------------------------------------------------------


def token_count(frames: int, height: int, width: int, tubelet: Sides) -> int:
    """N, the number of tubelets in a clip: `vmae.grid.TokenGrid.num_tokens`."""
    return grid.TokenGrid((frames, height, width), tubelet).num_tokens


def _steps(frames: int, height: int, width: int, tubelet: Sides) -> Sides:
    return grid.TokenGrid((frames, height, width), tubelet).shape


def _count(of: Callable[[Sides, Sides, Sides], int]) -> Callable[..., int]:
    """A wrong count, from the sizes of the clip and the tubelet, and the grid (t, h, w)."""

    def count(frames: int, height: int, width: int, tubelet: Sides) -> int:
        return of((frames, height, width), tubelet, _steps(frames, height, width, tubelet))

    return count


def _draw_count(
    result: int, frames: int, height: int, width: int, tubelet: Sides, most: int = 8
) -> None:
    """As many squares as the learner counts, one picture per time step, filled row by row."""
    _, h, w = _steps(frames, height, width, tubelet)
    steps = min(most, max(1, -(-result // (h * w))))
    filled = (torch.arange(steps * h * w) < result).view(1, steps, h, w)
    viz.film_strips(
        {f"{result} tokens": torch.where(filled, _colour(VISIBLE, 4), _colour(HIDDEN, 4))},
        alt=f"{result} blue squares, one for each token that the learner's function counts, on a grid of "
        f"{h} by {w}, one picture per time step.",
        grid=1,
    )


def _colour(role: Role, axes: int) -> torch.Tensor:
    """A role's colour, to be broadcast over pictures of so many axes: (3, 1, ...)."""
    return torch.tensor(to_rgb(role.colour)).view(3, *[1] * (axes - 1))


def _a_fraction(answer: Callable[..., Any]) -> str | None:
    """What is wrong with the type of a count, or None."""
    result = answer(4, 32, 48, (2, 16, 16))
    if isinstance(result, float):
        return f"the count is a float, {result}: divide with //, which gives whole numbers"
    return None


TOKEN_COUNT = Exercise(
    "00.token_count",
    token_count,
    lambda _: [(4, 32, 48, (2, 16, 16)), (16, 224, 224, (2, 16, 16)), (6, 24, 40, (3, 4, 8))],
    {
        "every frame is counted as a time step: a tubelet spans p_t frames, so divide T by "
        "p_t": _count(lambda clip, p, n: clip[0] * n[1] * n[2]),
        "only one time step is counted: multiply by the number of time steps, T / p_t": _count(
            lambda clip, p, n: n[1] * n[2]
        ),
        "the result is the grid (t, h, w), not a count: return the product of its three sizes": _steps,
        "the numbers of time steps, rows and columns are added: multiply them instead": _count(
            lambda clip, p, n: sum(n)
        ),
        "the result is P, the number of values per token: return N, the number of tokens": _count(
            lambda clip, p, n: 3 * p[0] * p[1] * p[2]
        ),
        "the colour channels are counted separately: do not multiply by 3, since each token "
        "already contains all three channels": _count(lambda clip, p, n: 3 * n[0] * n[1] * n[2]),
        "the frame is assumed to be square: multiply H / p_h rows by W / p_w columns": _count(
            lambda clip, p, n: n[0] * n[1] * n[1]
        ),
        "the sizes of a tubelet are fixed at 2x16x16: take p_t, p_h and p_w from `tubelet`": _count(
            lambda clip, p, n: clip[0] // 2 * (clip[1] // 16) * (clip[2] // 16)
        ),
        "p_t is fixed at 2: take it from `tubelet`": _count(
            lambda clip, p, n: clip[0] // 2 * n[1] * n[2]
        ),
        "tubelets are counted as if they overlapped: count L / p tubelets along a side of "
        "length L, not L - p + 1": _count(
            lambda clip, p, n: (clip[0] - p[0] + 1) * (clip[1] - p[1] + 1) * (clip[2] - p[2] + 1)
        ),
    },
    draw=_draw_count,
    inspect=_a_fraction,
)

# ---- hiding ----------------------------------------------------------------------------------------


def hide(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """A picture (C, H, W) in [0, 1] with its hidden patches (h, w) in grey, 0.5."""
    return torch.where(_over(hidden, patch), 0.5, picture)


def _over(hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """A patch mask (h, w) enlarged to pixels (H, W)."""
    return hidden.repeat_interleave(patch, dim=0).repeat_interleave(patch, dim=1)


def _one_channel(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    out = picture.clone()
    out[0][_over(hidden, patch)] = 0.5
    return out


def _corner(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    out = picture.clone()
    out[:, : hidden.shape[0], : hidden.shape[1]][:, hidden] = 0.5
    return out


def _one_pixel(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    out = picture.clone()
    out[:, ::patch, ::patch][:, hidden] = 0.5
    return out


def _index_as_pixel(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    out = picture.clone()
    for row, column in hidden.nonzero().tolist():
        out[:, row : row + patch, column : column + patch] = 0.5
    return out


def _no_channels(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """Rows and columns index the first two axes, of which the first is the channels."""
    out = picture.clone()
    for row, column in hidden.nonzero().tolist():
        out[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 0.5
    return out


def _cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    frame = read_frames(ROOT / "data" / "big_buck_bunny_shot.mp4", lambda _: np.array([60]))
    square = torch.from_numpy(resize_frames(crop_square(frame), 96))[0]
    picture = square.permute(2, 0, 1).contiguous() / 255  # (3, 96, 96)
    return [
        (picture, torch.rand(6, 6, generator=g) < 0.6, 16),
        (picture[:, 16:64].clone(), torch.rand(6, 12, generator=g) < 0.4, 8),
    ]


def _draw_hidden(
    result: torch.Tensor, picture: torch.Tensor, hidden: torch.Tensor, patch: int
) -> None:
    mask = torch.where(_over(hidden, patch), _colour(HIDDEN, 3), _colour(VISIBLE, 3))
    viz.pictures(
        {"picture": picture, "mask: hidden is grey": mask, "yours": result},
        alt="A frame of the film; its mask, with hidden patches in grey and visible ones in blue; and the "
        "frame as the learner's function returns it.",
        height=2.0,
    )


HIDE = Exercise(
    "00.hide",
    hide,
    _cases,
    {
        "the visible patches are painted over: paint over the hidden ones instead, where "
        "`hidden` is True": (
            lambda picture, hidden, patch: hide(picture, ~hidden, patch)
        ),
        "the mask's rows and columns are swapped: index it as hidden[row, column]": (
            lambda picture, hidden, patch: hide(picture, hidden.T, patch)
        ),
        "the whole mask is tiled: repeat each entry `patch` times along both axes instead": (
            lambda picture, hidden, patch: torch.where(hidden.repeat(patch, patch), 0.5, picture)
        ),
        "the mask is applied at pixel resolution and covers only one corner: enlarge it "
        "first, so that each entry covers patch x patch pixels": _corner,
        "a patch's row and column are used as a pixel's: patch (row, column) starts at pixel "
        "(row * patch, column * patch)": _index_as_pixel,
        "only the first pixel of each patch is painted over: paint over the whole patch, "
        "patch x patch pixels": _one_pixel,
        "only the first channel is painted over: set all three channels to 0.5": _one_channel,
        "the first axis of a picture is its channels: index it as picture[:, rows, columns]": (
            _no_channels
        ),
        "hidden patches are painted black: paint them grey (0.5)": lambda picture, hidden, patch: torch.where(
            _over(hidden, patch), 0.0, picture
        ),
        "hidden patches are set to a value above 1, which is displayed as white: pixel values "
        "are in [0, 1] here, so use 0.5 for grey": (
            lambda picture, hidden, patch: torch.where(_over(hidden, patch), 128.0, picture)
        ),
    },
    draw=_draw_hidden,
)  # fmt: skip

EXERCISES = (TOKEN_COUNT, HIDE)
