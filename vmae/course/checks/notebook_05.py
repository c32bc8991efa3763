"""Exercises of notebook 05: tube masks, masks as indices, and the copying baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from vmae import ROOT, viz
from vmae.course.checks.core import Exercise
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.data.reading.sampling import crop_square
from vmae.grid import TokenGrid, patchify, unpatchify
from vmae.masking import Mask

#: The grid of the film clips on which the copying baseline is tried.
FILM_GRID = TokenGrid((16, 56, 56), (2, 8, 8))

# ---- reference solutions -------------------------------------------------------------------------


def tube_mask(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    """Hide int(ratio·n) positions throughout the clip: noise (B, t, n) -> hidden (B, t·n) bool.

    They are those with the largest noise at the first time step. Source: VideoMAE V1, section 3.3;
    `masking_generator.py`.
    """
    return short_tubes(noise, ratio, noise.shape[1])


def short_tubes(noise: torch.Tensor, ratio: float, length: int) -> torch.Tensor:
    """The same with tubes of `length` time steps, each chosen by the noise at its first step."""
    hidden = _largest(noise[:, ::length], int(ratio * noise.shape[2]))
    return hidden.repeat_interleave(length, dim=1).flatten(1)


def mask_indices(hidden: torch.Tensor) -> Mask:
    """The mask of MAE and V1 for hidden (B, N) bool, with the same number of True in every row."""
    order = hidden.to(torch.uint8).argsort(dim=1, stable=True)  # visible first, both ascending
    seen = int((~hidden[0]).sum())
    visible, queries = order[:, :seen], order[:, seen:]
    return Mask(visible, queries, torch.arange(queries.shape[1]).expand_as(queries))


def copy_in_time(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Fill each hidden token from the nearest visible step at its position, the earlier on a tie.

    tokens (B, t, n, P), hidden (B, t, n) bool. Positions that are never visible get the mean of the
    clip's visible tokens.
    """
    step = torch.arange(tokens.shape[1])
    away = (step[:, None] - step).abs() + 0.1 * (step > step[:, None])  # (t to, t from)
    return _copied(tokens, hidden, away[None, :, :, None] + 1e6 * hidden[:, None])


# ---- mistakes ----------------------------------------------------------------------------------

Masking = Callable[..., torch.Tensor]


def _largest(noise: torch.Tensor, count: int) -> torch.Tensor:
    """True for the `count` largest values along the last axis."""
    return noise.argsort(-1).argsort(-1) >= noise.shape[-1] - count


def _copied(tokens: torch.Tensor, hidden: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
    """Copy from the step of least cost (B, t to, t from, n); the mean if all steps are hidden."""
    source = cost.argmin(dim=2)  # (B, t, n)
    copies = tokens.gather(1, source[..., None].expand_as(tokens))
    return torch.where(hidden.all(1)[:, None, :, None], _mean(tokens, hidden), copies)


def _mean(tokens: torch.Tensor, hidden: torch.Tensor, dims: tuple[int, ...] = (1, 2)) -> Any:
    seen = (~hidden)[..., None]
    return (tokens * seen).sum(dims, keepdim=True) / seen.sum(dims, keepdim=True)


def _interleaved(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    first = _largest(noise[:, 0], int(ratio * noise.shape[2]))
    return first.repeat_interleave(noise.shape[1], dim=1)


def _threshold(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    return (noise[:, :1] > 1 - ratio).expand_as(noise).flatten(1)


def _visible_down(noise: torch.Tensor, ratio: float, length: int | None = None) -> torch.Tensor:
    n = noise.shape[2]
    hide = n - int((1 - ratio) * n)
    return short_tubes(noise, hide / n + 1e-6, length or noise.shape[1])


def _random(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    flat = noise.flatten(1)
    return _largest(flat, int(ratio * flat.shape[1]))


def _alternating(noise: torch.Tensor, ratio: float, length: int) -> torch.Tensor:
    tubes = _largest(noise[:, ::length], int(ratio * noise.shape[2]))
    return tubes.repeat(1, length, 1).flatten(1)


def _first_noise(noise: torch.Tensor, ratio: float, length: int) -> torch.Tensor:
    tubes = noise.shape[1] // length
    return short_tubes(noise[:, :tubes].repeat_interleave(length, dim=1), ratio, length)


def _changed(change: Callable[..., tuple[torch.Tensor, ...]]) -> Callable[[torch.Tensor], Mask]:
    """Correct indices after change(visible, queries, targets, total number of tokens)."""

    def indices(hidden: torch.Tensor) -> Mask:
        right = mask_indices(hidden)
        return Mask(*change(right.visible, right.queries, right.targets, hidden.shape[1]))

    return indices


def _continued_numbers(v: torch.Tensor, q: torch.Tensor, m: torch.Tensor, n: int) -> Any:
    before = torch.arange(len(v))[:, None] * n
    return v + before, q + before, m


def _by_step(cost: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Masking:
    """Copying from the visible step of least cost(step to, step from)."""

    def copy(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        step = torch.arange(tokens.shape[1])
        away = cost(step[:, None], step)[None, :, :, None].float()
        return _copied(tokens, hidden, away + 1e6 * hidden[:, None])

    return copy


def _neighbour_step(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    before = torch.cat((tokens[:, 1:2], tokens[:, :-1]), dim=1)
    return torch.where(hidden[..., None], before, tokens)


def _only_back(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    filled = [torch.where(hidden[:, :1, :, None], _mean(tokens, hidden), tokens[:, :1])]
    for i in range(1, tokens.shape[1]):
        filled.append(torch.where(hidden[:, i, :, None], filled[-1][:, 0], tokens[:, i])[:, None])
    return torch.cat(filled, dim=1)


def _in_space(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    turned = copy_in_time(tokens.transpose(1, 2), hidden.transpose(1, 2))
    return turned.transpose(1, 2)


def _never(tokens: torch.Tensor, hidden: torch.Tensor, value: Any) -> torch.Tensor:
    """Another value for positions that are never visible."""
    return torch.where(hidden.all(1)[:, None, :, None], value, copy_in_time(tokens, hidden))


# ---- drawings ----------------------------------------------------------------------------------


def _draw_mask(result: torch.Tensor, noise: torch.Tensor, *_: Any) -> None:
    batch, t, n = noise.shape
    steps = F.pad(result.view(batch, t, int(n**0.5), -1).float(), (0, 1, 0, 1), value=0.5)
    viz.pictures(
        {
            "yours: one row per clip, time from left to right": rearrange(
                steps, "b t h w -> (b h) (t w)"
            )
        },
        "Your masks: one row per clip, one square per time step; hidden tokens are light.",
        height=1.3,
    )


def _draw_indices(result: Mask, hidden: torch.Tensor) -> None:
    roles = torch.zeros(hidden.shape)
    roles.scatter_(1, result.queries, 1.0).scatter_(1, result.target_tokens, 2.0)
    roles.scatter_(1, result.visible, 3.0)
    viz.pictures(
        {
            "input: hidden in yellow": 3.0 * hidden,
            "yours: visible in yellow, targets in green": roles,
        },
        "The mask, one row per clip, and the roles that your indices assign, from dark to light: "
        "unassigned, query without loss, target, visible.",
        height=0.8,
        limits=(0, 3),
    )


def _draw_copies(result: torch.Tensor, tokens: torch.Tensor, hidden: torch.Tensor) -> None:
    masked = torch.where(hidden[..., None], 0.5, tokens)
    rows = {"masked": masked, "yours": result, "expected": copy_in_time(tokens, hidden)}
    viz.film_strips(
        {name: unpatchify(x.flatten(1, 2), FILM_GRID)[0] for name, x in rows.items()},
        "Three rows of frames: the masked clip, your reconstruction and the expected one.",
        frames=4,
    )


# ---- inputs ------------------------------------------------------------------------------------


def _noise_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = ((2, 4, 36, 0.9), (3, 2, 10, 0.75), (2, 8, 196, 0.9))
    return [(torch.rand(b, t, n, generator=g), ratio) for b, t, n, ratio in sizes]


def _tube_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = ((2, 8, 36, 0.9, 4), (3, 6, 10, 0.75, 2), (2, 8, 196, 0.9, 2))
    return [(torch.rand(b, t, n, generator=g), ratio, length) for b, t, n, ratio, length in sizes]


def _hidden_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = ((3, 4, 6, 0.75), (2, 3, 10, 0.5))
    return [(_random(torch.rand(b, t, n, generator=g), ratio),) for b, t, n, ratio in sizes]


def _token_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    def far_apart(_: int) -> np.ndarray:
        return np.concatenate([start + 4 * np.arange(16) for start in (0, 68)])

    film = read_frames(ROOT / "data" / "big_buck_bunny_shot.mp4", far_apart)
    pixels = torch.from_numpy(crop_square(resize_frames(film, 56))) / 255
    clips = pixels.unflatten(0, (2, 16)).permute(0, 4, 1, 2, 3)  # (B, C, T, H, W)
    cases = []
    for tokens in (
        patchify(clips, FILM_GRID).view(2, 8, 49, -1),
        torch.rand(3, 4, 6, 5, generator=g),
    ):
        batch, t, n = tokens.shape[:3]
        noise = torch.rand(batch, t, n, generator=g)
        cases.append((tokens, _random(noise, 0.8).view(batch, t, n)))
    return cases  # fmt: skip


EXERCISES = (
    Exercise(
        "05.tube_mask",
        tube_mask,
        _noise_cases,
        {
            "every clip in the batch gets the same mask: sort each clip's noise, not just the "
            "first clip's": lambda noise, ratio: tube_mask(noise[:1].expand_as(noise), ratio),
            "the mask changes over time: select positions using the first step's noise, and "
            "hide the same positions at every step": lambda noise, ratio: short_tubes(noise, ratio, 1),
            "time and space are swapped when the mask is flattened: time varies slowest, so "
            "repeat the frame mask as a whole, not entry by entry": _interleaved,
            "the number of hidden tokens differs from clip to clip, because each position is "
            "thresholded independently: sort the noise, and hide exactly int(ratio * n) "
            "positions": _threshold,
            "the number of hidden positions is rounded the wrong way: hide int(ratio * n) "
            "positions, which rounds the number of visible positions up": _visible_down,
            "the mask is inverted: set it to True for hidden tokens": (
                lambda noise, ratio: ~tube_mask(noise, ratio)
            ),
            "the positions with the smallest noise values are hidden: hide those with the "
            "largest values instead": (
                lambda noise, ratio: tube_mask(-noise, ratio)
            ),
            "each token is masked independently, as in random masking: choose positions once "
            "per clip, and hide them at every step": _random,
        },
        draw=_draw_mask,
    ),
    Exercise(
        "05.short_tubes",
        short_tubes,
        _tube_cases,
        {
            "the masks alternate from step to step: repeat each mask `length` times in a row, "
            "with repeat_interleave": _alternating,
            "one tube spans the whole clip: choose new positions every `length` steps": (
                lambda noise, ratio, length: tube_mask(noise, ratio)
            ),
            "the mask changes at every step: reuse each mask for `length` steps": (
                lambda noise, ratio, length: short_tubes(noise, ratio, 1)
            ),
            "the tubes are half as long as they should be: do not halve `length`, since it is "
            "already measured in time steps of two frames each": (
                lambda noise, ratio, length: short_tubes(noise, ratio, length // 2)
            ),
            "the tubes use the noise from the clip's first few steps: use the noise at each "
            "tube's first step, noise[:, ::length]": _first_noise,
            "every clip in the batch gets the same mask: sort each clip's noise separately": (
                lambda noise, *rest: short_tubes(noise[:1].expand_as(noise), *rest)
            ),
            "the number of hidden positions is rounded the wrong way: hide int(ratio * n) "
            "positions": _visible_down,
            "the mask is inverted: set it to True for hidden tokens": lambda *case: ~short_tubes(*case),
        },
        draw=_draw_mask,
    ),
    Exercise(
        "05.mask_indices",
        mask_indices,
        _hidden_cases,
        {
            "`visible` and `queries` are swapped: take the queries where `hidden` is True, "
            "and the visible tokens where it is False": (
                lambda hidden: mask_indices(~hidden)
            ),
            "`targets` contains token indices: use indices into `queries`, here 0 to Q - 1": (
                _changed(lambda v, q, m, n: (v, q, q))
            ),
            "`queries` contains all tokens: include only the tokens that the encoder does not "
            "see": _changed(lambda v, q, m, n: (v, torch.arange(n).expand(len(v), n), q)),
            "the indices continue from one clip to the next: number each clip's tokens from 0 "
            "to N - 1": _changed(
                _continued_numbers
            ),
            "every clip gets the first clip's indices: use each clip's own row of `hidden`": (
                lambda hidden: mask_indices(hidden[:1].expand_as(hidden))
            ),
            "the indices are in descending order: sort them in ascending order": (
                _changed(lambda v, q, m, n: (v.flip(1), q.flip(1), m))
            ),
        },
        draw=_draw_indices,
    ),
    Exercise(
        "05.copy_in_time",
        copy_in_time,
        _token_cases,
        {
            "tokens are copied from the previous step even if they are hidden there: copy "
            "only visible tokens": (
                _neighbour_step
            ),
            "if two visible steps are equally close, the later one is used: use the earlier "
            "one": _by_step(
                lambda to, source: (to - source).abs() + 0.1 * (source < to)
            ),
            "only earlier steps are searched: search later steps too, since one of them may "
            "be closer": _only_back,
            "the first visible step is always used: use the nearest visible step": _by_step(
                lambda to, source: source.expand(len(to), -1)
            ),
            "visible tokens are overwritten too: leave them unchanged": (
                _by_step(lambda to, source: (to - source).abs() + 0.1 * (source > to) + 1e3 * (to == source))
            ),
            "tokens are copied from another position at the same step: keep the position "
            "fixed and search along time, axis 1": _in_space,
            "positions that are never visible are left black: fill them with the mean of the "
            "clip's visible tokens": lambda tokens, hidden: _never(tokens, hidden, 0.0),
            "the mean includes hidden tokens, which leaks the answer: average only the "
            "visible tokens": (
                lambda tokens, hidden: _never(tokens, hidden, tokens.mean((1, 2), keepdim=True))
            ),
            "the mean is taken over the whole batch: compute one mean per clip": (
                lambda tokens, hidden: _never(tokens, hidden, _mean(tokens, hidden, (0, 1, 2)))
            ),
            "visible tokens are replaced by copies of hidden ones: replace only the tokens "
            "where `hidden` is True": (
                lambda tokens, hidden: copy_in_time(tokens, ~hidden)
            ),
        },
        draw=_draw_copies,
    ),
)  # fmt: skip
