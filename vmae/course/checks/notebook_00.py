"""Exercises of notebook 00, to see how exercises work: count tokens, paint what is hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vmae import ROOT, grid, viz
from vmae.course.checks.core import Exercise
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.data.reading.sampling import crop_square

Sides = tuple[int, int, int]

# ---- counting ------------------------------------------------------------------------------------


def token_count(frames: int, height: int, width: int, tubelet: Sides) -> int:
    """N, the tubelets in a clip: `vmae.grid.TokenGrid.tokens`."""
    return grid.TokenGrid((frames, height, width), tubelet).num_tokens


def _steps(frames: int, height: int, width: int, tubelet: Sides) -> Sides:
    return grid.TokenGrid((frames, height, width), tubelet).shape


def _count(of: Callable[[Sides, Sides, Sides], int]) -> Callable[..., int]:
    """A count from the clip's sides, the tubelet's, and the steps (t, h, w)."""

    def count(frames: int, height: int, width: int, tubelet: Sides) -> int:
        return of((frames, height, width), tubelet, _steps(frames, height, width, tubelet))

    return count


def _draw_count(
    result: int, frames: int, height: int, width: int, tubelet: Sides, most: int = 8
) -> None:
    """As many squares as the learner counts, a picture a step in time, filled row by row."""
    _, h, w = _steps(frames, height, width, tubelet)
    steps = min(most, max(1, -(-result // (h * w))))
    filled = (torch.arange(steps * h * w) < result).view(1, steps, h, w)
    colours = torch.tensor([[0.75, 0.75, 0.75], [0.0, 0.447, 0.698]]).view(2, 3, 1, 1, 1)
    viz.film_strips(
        {f"{result} tokens": torch.where(filled, colours[1], colours[0])},
        alt=f"{result} blue squares, one a token that the learner's function counts, on a grid of "
        f"{h} by {w}, one picture a step in time.",
        grid=1,
    )


TOKEN_COUNT = Exercise(
    "00.token_count",
    token_count,
    lambda _: [(4, 32, 48, (2, 16, 16)), (16, 224, 224, (2, 16, 16)), (6, 24, 40, (3, 4, 8))],
    {
        "time is cut too: a tubelet is p_t frames long, so there are T / p_t steps": _count(
            lambda clip, p, n: clip[0] * n[1] * n[2]
        ),
        "these are the tokens of one step in time: there are T / p_t steps": _count(
            lambda clip, p, n: n[1] * n[2]
        ),
        "these are the steps (t, h, w): the number of tokens is their product": _steps,
        "the steps in time, rows and columns are added: multiply them": _count(
            lambda clip, p, n: sum(n)
        ),
        "these are P, the values in one token: count the tokens": _count(
            lambda clip, p, n: 3 * p[0] * p[1] * p[2]
        ),
        "the channels are counted: a token holds all three colours of its pixels": _count(
            lambda clip, p, n: 3 * n[0] * n[1] * n[2]
        ),
        "the frames are taken for squares: rows are H / p_h, columns W / p_w": _count(
            lambda clip, p, n: n[0] * n[1] * n[1]
        ),
        "tubelets do not overlap: a side of L pixels has L / p of them, not L - p + 1": _count(
            lambda clip, p, n: (clip[0] - p[0] + 1) * (clip[1] - p[1] + 1) * (clip[2] - p[2] + 1)
        ),
    },
    draw=_draw_count,
)

# ---- painting --------------------------------------------------------------------------------------


def hide(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """A picture (C, H, W) in [0, 1] with its hidden patches (h, w) painted grey, 0.5."""
    return torch.where(_over(hidden, patch), 0.5, picture)


def _over(hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """A mask of patches (h, w) as one of pixels (H, W)."""
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
    viz.pictures(
        {"picture": picture, "hidden (yellow)": hidden.float(), "yours": result},
        alt="A frame of the film; the mask, hidden patches yellow; and the frame as the learner's "
        "function painted it.",
    )


HIDE = Exercise(
    "00.hide",
    hide,
    _cases,
    {
        "the visible patches are painted: True in `hidden` is what the model does not see": (
            lambda picture, hidden, patch: hide(picture, ~hidden, patch)
        ),
        "rows and columns are swapped: hidden[0, 1] is the second patch of the first row": (
            lambda picture, hidden, patch: hide(picture, hidden.T, patch)
        ),
        "the whole mask is repeated side by side: each of its values must be repeated, patch times "
        "down and patch times across": (
            lambda picture, hidden, patch: torch.where(hidden.repeat(patch, patch), 0.5, picture)
        ),
        "the mask is laid on the pixels of one corner: one value of it stands for patch x patch "
        "pixels": _corner,
        "only the first pixel of each patch is painted: a patch has patch x patch of them": _one_pixel,
        "only the first colour is painted: grey is 0.5 in all three": _one_channel,
        "hidden patches are black: grey is 0.5": lambda picture, hidden, patch: torch.where(
            _over(hidden, patch), 0.0, picture
        ),
        "hidden patches are white or beyond: pixels lie in [0, 1] here, so grey is 0.5": (
            lambda picture, hidden, patch: torch.where(_over(hidden, patch), 128.0, picture)
        ),
    },
    draw=_draw_hidden,
)  # fmt: skip

EXERCISES = (TOKEN_COUNT, HIDE)
