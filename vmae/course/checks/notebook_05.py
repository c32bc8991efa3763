"""Exercises of notebook 05: tube masks, masks as indices, a generator of masks, the copying baseline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from einops import rearrange

from vmae import ROOT
from vmae.course import viz
from vmae.course.checks.core import Exercise, difference
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.figures.colours import HIDDEN, TARGET
from vmae.grid import TokenGrid, patchify, unpatchify
from vmae.masking import Mask

Sides = tuple[int, int, int]

#: The grid of the film clips that are drawn: 8 time steps of 6 x 9 tokens.
FILM_GRID = TokenGrid((16, 72, 108), (2, 12, 12))

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


class MaskingGenerator:
    """Draws masks of clips: random, tube (whole or of `length` time steps) or frame.

    Source of the first two arguments: `TubeMaskingGenerator` of VideoMAE's `masking_generator.py`.
    """

    def __init__(
        self, input_size: Sides, mask_type: str, mask_ratio: float, length: int | None = None
    ) -> None:
        self.input_size, self.mask_type = input_size, mask_type
        self.mask_ratio, self.length = mask_ratio, length

    def __call__(self, batch: int, generator: torch.Generator) -> Mask:
        """Masks of `batch` clips."""
        t, h, w = self.input_size
        noise = torch.rand(batch, t, h * w, generator=generator)
        return mask_indices(self.hidden(noise))

    def hidden(self, noise: torch.Tensor) -> torch.Tensor:
        """(B, t·n) bool for noise (B, t, n)."""
        _, t, n = noise.shape
        if self.mask_type == "tube":
            return short_tubes(noise, self.mask_ratio, self.length or t)
        if self.mask_type == "frame":
            return _largest(noise[:, :, 0], int(self.mask_ratio * t)).repeat_interleave(n, dim=1)
        return _random(noise, self.mask_ratio)


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


def _once(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    """Tubes by an order that is taken for ranks."""
    n = noise.shape[2]
    hidden = noise[:, 0].argsort(1) >= n - int(ratio * n)
    return hidden.repeat(1, noise.shape[1])


def _once_down(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    n = noise.shape[2]
    hidden = noise[:, 0].argsort(1, descending=True) < int(ratio * n)
    return hidden.repeat(1, noise.shape[1])


def _in_time(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    """Ranks along the time axis."""
    t = noise.shape[1]
    return (noise.argsort(1).argsort(1) >= t - int(ratio * t)).flatten(1)


def _from_rank(first: Callable[[float], float]) -> Masking:
    """Hides the ranks from first(ratio · n) on."""

    def hide(noise: torch.Tensor, ratio: float) -> torch.Tensor:
        rank = noise[:, 0].argsort(1).argsort(1)
        return (rank >= first(ratio * noise.shape[2])).repeat(1, noise.shape[1])

    return hide


def _by_tube(mask: Masking) -> Masking:
    """A mistake of full tubes, made in each tube of a few steps."""

    def hide(noise: torch.Tensor, ratio: float, length: int) -> torch.Tensor:
        return torch.cat([mask(part, ratio) for part in noise.split(length, dim=1)], dim=1)

    return hide


def _wider(noise: torch.Tensor, ratio: float, length: int) -> torch.Tensor:
    tubes = _largest(noise[:, ::length], int(ratio * noise.shape[2]))
    return tubes.repeat_interleave(length, dim=2).flatten(1)


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


def _pairs(hidden: torch.Tensor) -> Mask:
    visible, queries = (x.nonzero().reshape(len(x), -1) for x in (~hidden, hidden))
    return Mask(visible, queries, torch.arange(queries.shape[1]).expand_as(queries))


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


def _carry(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Carries visible tokens forward; what comes before the first stays."""
    filled = [tokens[:, 0]]
    for i in range(1, tokens.shape[1]):
        filled.append(torch.where(hidden[:, i, :, None], filled[-1], tokens[:, i]))
    return torch.stack(filled, dim=1)


def _in_space(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    turned = copy_in_time(tokens.transpose(1, 2), hidden.transpose(1, 2))
    return turned.transpose(1, 2)


def _never(tokens: torch.Tensor, hidden: torch.Tensor, value: Any) -> torch.Tensor:
    """Another value for positions that are never visible."""
    return torch.where(hidden.all(1)[:, None, :, None], value, copy_in_time(tokens, hidden))


# ---- drawings ----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _film() -> torch.Tensor:
    """Two clips (2, C, T, H, W) in [0, 1] of the shot that ships with the course: a rabbit gets up."""
    index = np.concatenate([start + 4 * np.arange(16) for start in (0, 68)])
    frames = resize_frames(
        read_frames(ROOT / "data" / "big_buck_bunny_shot.mp4", lambda _: index), 72
    )
    left = (frames.shape[2] - 108) // 2
    pixels = torch.from_numpy(frames[:, :, left : left + 108]) / 255
    return rearrange(pixels, "(b t) h w c -> b c t h w", b=2)


def _rgb(colour: str) -> torch.Tensor:
    return torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _steps(tokens: torch.Tensor) -> torch.Tensor:
    """One frame of each of the first six time steps: tokens (B, N, P) -> (B, C, 6, H, W)."""
    return unpatchify(tokens, FILM_GRID)[:, :, : 6 * FILM_GRID.tubelet[0] : FILM_GRID.tubelet[0]]


def _masked(hidden: torch.Tensor) -> torch.Tensor:
    """The film clips, grey where hidden (B, N): (B, C, 6, H, W)."""
    tokens = patchify(_film()[: len(hidden)], FILM_GRID)
    return _steps(torch.where(hidden[..., None], _rgb(HIDDEN.colour)[0], tokens))


def _draw_mask(result: torch.Tensor, noise: torch.Tensor, *_: Any) -> None:
    clips = _masked(result.reshape(len(noise), -1) > 0)
    viz.film_strips(
        {f"your mask, clip {i}": clip for i, clip in enumerate(clips)},
        "Your masks on two clips of the film: one row per clip, one frame for each of the first six "
        "time steps; hidden tokens are grey.",
    )


def _draw_indices(result: Mask, hidden: torch.Tensor) -> None:
    tokens = patchify(_film(), FILM_GRID)
    roles = torch.zeros_like(tokens)
    orange = _rgb(TARGET.colour).repeat(FILM_GRID.token_dim // 3)
    grey = _rgb(HIDDEN.colour).repeat(FILM_GRID.token_dim // 3)
    for clip, queries, targets, visible in zip(
        range(len(tokens)), result.queries, result.target_tokens, result.visible, strict=True
    ):
        roles[clip, queries], roles[clip, targets] = grey, orange
        roles[clip, visible] = tokens[clip, visible]
    viz.film_strips(
        {"given: `hidden`": _masked(hidden)[0], "your indices": _steps(roles)[0]},
        "A masked clip, and the roles that your indices give its tokens: visible ones show the film, "
        "targets are orange, queries without loss grey, and tokens without a role black.",
        frames=4,
    )


def _unsorted(answer: Any) -> str | None:
    """Whether a mask has the right indices in another order, neither ascending nor descending."""
    (hidden,) = _hidden_cases(torch.Generator().manual_seed(0))[0]
    mask, expected = answer(hidden), mask_indices(hidden)
    if not isinstance(mask, Mask):
        return None
    for name in ("visible", "queries"):
        own, right = getattr(mask, name), getattr(expected, name)
        if not isinstance(own, torch.Tensor) or own.shape != right.shape:
            return None
        kept = torch.equal(own, right) or torch.equal(own, right.flip(1))
        if not kept and torch.equal(own.sort(1).values, right):
            return (
                f"the indices in `{name}` are not in ascending order: sort them; `argsort` keeps the "
                "order of equal values only with stable=True"
            )
    return None


def _draw_copies(result: torch.Tensor, tokens: torch.Tensor, hidden: torch.Tensor) -> None:
    rows = {"yours": result, "expected": copy_in_time(tokens, hidden)}
    strips = {name: _steps(x.flatten(1, 2))[0] for name, x in rows.items()}
    viz.film_strips(
        {"masked": _masked(hidden.flatten(1))[0]} | strips,
        "Three rows of frames: the masked clip, your reconstruction and the expected one.",
        frames=5,
    )


# ---- inputs ------------------------------------------------------------------------------------


def _noise_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = ((2, 8, 54, 0.75), (3, 2, 10, 0.75), (5, 8, 196, 0.9))
    return [(torch.rand(b, t, n, generator=g), ratio) for b, t, n, ratio in sizes]


def _tube_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = ((2, 8, 54, 0.75, 4), (3, 6, 10, 0.75, 2), (5, 8, 196, 0.9, 2))
    return [(torch.rand(b, t, n, generator=g), ratio, length) for b, t, n, ratio, length in sizes]


def _hidden_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = ((2, 8, 54, 0.75), (5, 3, 10, 0.6))
    return [(_random(torch.rand(b, t, n, generator=g), ratio),) for b, t, n, ratio in sizes]


def _token_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for tokens in (
        patchify(_film(), FILM_GRID).unflatten(1, (8, 54)),
        torch.rand(3, 4, 6, 5, generator=g),
    ):
        batch, t, n = tokens.shape[:3]
        noise = torch.rand(batch, t, n, generator=g)
        cases.append((tokens, _random(noise, 0.8).view(batch, t, n)))
    return cases


# ---- the generator, judged by what every correct one has in common ---------------------------------

#: Time steps, rows and columns of the masks that are judged, and their ratio.
SIZE, RATIO = (6, 3, 4), 0.7
#: mask_type and length, and the number of visible tokens: 72 - int(.7·72), 6·(12 - int(.7·12)), ...
KINDS = {("random", None): 22, ("tube", None): 24, ("tube", 2): 24, ("frame", None): 24}

EVERY_STEP = (
    'type "random" hides the same number of tokens in every time step: rank the noise of all t·n tokens '
    "of a clip together"
)
ONE_MASK = "all clips of a batch get the same mask: draw noise for each of them, (batch, t, n)"
REPEATED = (
    "every call returns the same masks: draw new noise in `__call__`, not in `__init__`, and do not "
    "seed the generator again"
)
UNSEEDED = "two generators with the same seed give different masks: pass `generator` to torch.rand"
NO_LENGTH = "`length` is ignored: with length=2, draw new positions every 2 time steps"
SCATTERED = (
    'type "frame" hides scattered tokens: hide whole time steps, so repeat each step\'s value n times '
    "in a row, with repeat_interleave"
)
CHANGING = 'type "tube" without `length` changes over time: hide the same positions at all steps'
BACKWARDS = (
    "the visible and the hidden tokens are swapped: {0} of {1} tokens are visible; hide "
    "int(mask_ratio · ...) of them"
)
ROUNDED = (
    'type "{0}" leaves {1} of 72 tokens visible, but {2} are expected for a ratio of 0.7 and '
    "input_size=(6, 3, 4): hide int(mask_ratio · N) tokens, int(mask_ratio · n) positions, or "
    "int(mask_ratio · t) steps"
)
UNEVEN = "some tokens are hidden more often than others: every token must be hidden equally often"


def _drawn(answer: Any, kind: tuple[str, int | None], batch: int, seed: int = 0) -> Any:
    made = answer(SIZE, kind[0], RATIO, kind[1])
    return made(batch, torch.Generator().manual_seed(seed))


def _show_masks(answer: Any) -> None:
    """The masks of every type on the film."""
    rows = {}
    for name, kind, length in (
        ("random", "random", None), ("tube", "tube", None),
        ("tube, length=2", "tube", 2), ("frame", "frame", None),
    ):  # fmt: skip
        mask = answer(FILM_GRID.shape, kind, 0.9, length)(1, torch.Generator().manual_seed(0))
        rows[name] = _masked(mask.hidden(FILM_GRID.num_tokens))[0]
    viz.film_strips(
        rows,
        "A clip of the film under the masks that your generator draws, one row per type, one frame for "
        "each of the first six time steps; hidden tokens are grey.",
    )


def _form(mask: Any, visible: int, kind: str) -> str | None:
    """What is wrong with the indices of a mask, whatever was drawn."""
    if not isinstance(mask, Mask):
        return f"calling the generator returns {type(mask).__name__}; expected a Mask"
    total = int(np.prod(SIZE))
    for name in ("visible", "queries", "targets"):
        index = getattr(mask, name)
        if not isinstance(index, torch.Tensor) or index.ndim != 2 or len(index) != 5:
            shape = tuple(index.shape) if isinstance(index, torch.Tensor) else type(index).__name__
            return f"`{name}` has shape {shape}; expected one row for each of the 5 clips"
    seen = mask.visible.shape[1]
    if seen == total - visible:
        return BACKWARDS.format(seen, total)
    if kind == "random" and seen == 24:  # the count of full steps
        return EVERY_STEP
    if seen != visible:
        return ROUNDED.format(kind, seen, visible)
    problem = difference(mask, mask_indices(mask.hidden(total)), 0.0)
    return f"type {kind!r}: {problem}" if problem else None


def _hidden_of(answer: Any, kind: tuple[str, int | None], batch: int, seed: int) -> torch.Tensor:
    """(B, t, n) bool."""
    t, h, w = SIZE
    return _drawn(answer, kind, batch, seed).hidden(t * h * w).view(batch, t, h * w)


def _structure(answer: Any) -> str | None:
    """What is wrong with which tokens are hidden together."""
    tube, short, frame = (_hidden_of(answer, kind, 20, 1) for kind in KINDS if kind[0] != "random")
    if not (tube == tube[:, :1]).all():
        return CHANGING
    if (short == short[:, :1]).all():
        return NO_LENGTH
    if not (short[:, ::2] == short[:, 1::2]).all():
        return (
            "the tubes of length=2 change at every time step: repeat each tube's mask for its 2 steps in "
            "a row"
        )
    return None if (frame == frame[..., :1]).all() else SCATTERED


def _chance(answer: Any) -> str | None:
    """What is wrong with how masks are drawn."""
    for kind, seen in KINDS.items():
        one, again = (_drawn(answer, kind, 20).visible for _ in range(2))
        if not torch.equal(one, again):
            return UNSEEDED
        made, g = answer(SIZE, kind[0], RATIO, kind[1]), torch.Generator().manual_seed(0)
        if torch.equal(made(20, g).visible, made(20, g).visible):
            return REPEATED if not (one == one[:1]).all() else ONE_MASK
        if (one == one[:1]).all():
            return ONE_MASK
        often = _hidden_of(answer, kind, 3000, 2).float().mean(0)
        expected = 1 - seen / int(np.prod(SIZE))
        if (often - expected).abs().max() > 0.06:  # 7 standard deviations
            return UNEVEN
    return None


def _judge_generator(answer: Any) -> str | None:
    with suppress(Exception):  # a wrong result cannot always be drawn
        _show_masks(answer)
    for kind, visible in KINDS.items():
        problem = _form(_drawn(answer, kind, 5), visible, kind[0])
        if problem is not None:
            return problem
    return _structure(answer) or _chance(answer)


def _generator(
    hide: Callable[[MaskingGenerator, torch.Tensor], torch.Tensor] | None = None,
    noise: Callable[[torch.Tensor, torch.Generator], torch.Tensor] = lambda drawn, _: drawn,
) -> type[MaskingGenerator]:
    """Wrong generators: other tokens are hidden, or other noise is used."""

    class Wrong(MaskingGenerator):
        def __call__(self, batch: int, generator: torch.Generator) -> Mask:
            t, h, w = self.input_size
            drawn = noise(torch.rand(batch, t, h * w, generator=generator), generator)
            return mask_indices(hide(self, drawn) if hide else self.hidden(drawn))

    return Wrong


def _instead(kind: str, mask: Masking) -> Callable[[MaskingGenerator, torch.Tensor], torch.Tensor]:
    """The right mask, but another one for one type."""
    return lambda made, noise: (
        mask(noise, made.mask_ratio) if made.mask_type == kind else made.hidden(noise)
    )


def _whole_steps(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    t, n = noise.shape[1:]
    return _largest(noise[:, :, 0], int(ratio * t)).repeat(1, n)


def _consecutive(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    """A run of positions from a random start, which never wraps around."""
    t, n = noise.shape[1:]
    seen = n - int(ratio * n)
    start = (noise[:, 0, :1] * (n - seen + 1)).long()
    index = torch.arange(n)
    return ((index < start) | (index >= start + seen)).repeat(1, t)


GENERATOR = Exercise(
    "05.MaskingGenerator",
    MaskingGenerator,
    mistakes={
        EVERY_STEP: _generator(
            _instead("random", lambda noise, ratio: short_tubes(noise, ratio, 1))
        ),
        ONE_MASK: _generator(noise=lambda drawn, _: drawn[:1].expand_as(drawn)),
        REPEATED: _generator(
            noise=lambda drawn, _: torch.rand(
                drawn.shape, generator=torch.Generator().manual_seed(3)
            )
        ),
        UNSEEDED: _generator(noise=lambda drawn, _: torch.rand_like(drawn)),
        NO_LENGTH: _generator(_instead("tube", tube_mask)),
        SCATTERED: _generator(_instead("frame", _whole_steps)),
        CHANGING: _generator(_instead("tube", lambda noise, ratio: short_tubes(noise, ratio, 1))),
        BACKWARDS.format(50, 72): _generator(lambda made, noise: ~made.hidden(noise)),
        UNEVEN: _generator(
            lambda made, noise: (
                _consecutive(noise, made.mask_ratio)
                if made.mask_type == "tube" and made.length is None
                else made.hidden(noise)
            )
        ),
    },
    judge=_judge_generator,
)

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
            "one argsort gives the order in which the positions come, not the rank of each: apply "
            "argsort a second time, to the result": _once,
            "one argsort gives the order in which the positions come, not the rank of each: apply argsort "
            "a second time, to the result (largest first, as you sort)": _once_down,
            "the noise is ranked along time, axis 1: take the first step's noise, and rank its positions": (
                _in_time
            ),
            "as many positions are hidden as should be visible: hide the ranks from n - int(ratio * n) on": (
                _from_rank(int)
            ),
            "as many positions are hidden as should be visible, up to rounding: hide the ranks from "
            "n - int(ratio * n) on": _from_rank(float),
        },
        draw=_draw_mask,
    ),
    Exercise(
        "05.short_tubes",
        short_tubes,
        _tube_cases,
        {
            "the masks alternate from step to step: in which order does the program put the tubes on "
            "the time steps?": _alternating,
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
            "one argsort gives the order in which the positions come, not the rank of each: apply "
            "argsort a second time, to the result": _by_tube(_once),
            "each position is repeated, not each time step: repeat along axis 1, the tubes": _wider,
            "every token is masked independently: choose positions once per tube": (
                lambda noise, ratio, length: _random(noise, ratio)
            ),
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
            "the three tensors come as a tuple: return Mask(visible, queries, targets)": (
                lambda hidden: (lambda m: (m.visible, m.queries, m.targets))(mask_indices(hidden))
            ),
            "`nonzero()` of a matrix returns pairs (row, column), and both are kept: keep the columns, "
            "`[:, 1]`": _pairs,
            "`targets` has only one row: give every clip its own, (B, Q)": _changed(
                lambda v, q, m, n: (v, q, m[0])
            ),
        },
        draw=_draw_indices,
        inspect=_unsorted,
    ),
    GENERATOR,
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
            "the hidden tokens are returned unchanged: fill them without looking at their content": (
                lambda tokens, hidden: tokens.clone()
            ),
            "positions that are never visible keep their hidden content, which leaks the answer: fill "
            "them with the mean of the clip's visible tokens": (
                lambda tokens, hidden: _never(tokens, hidden, tokens)
            ),
            "hidden tokens are copied from themselves: the distance must be large where the step to copy "
            "from is hidden, hidden[:, None], not where the token to fill is": (
                lambda tokens, hidden: torch.where(
                    hidden.all(1)[:, None, :, None], _mean(tokens, hidden), tokens
                )
            ),
            "the last visible token is carried forward, and tokens before the first visible one keep "
            "their hidden content: search later steps too, and copy only visible tokens": _carry,
            "the mean includes hidden tokens, which leaks the answer: average only the "
            "visible tokens": (
                lambda tokens, hidden: _never(tokens, hidden, tokens.mean((1, 2), keepdim=True))
            ),
            "the mean is taken over each time step: compute one mean per clip, over all steps": (
                lambda tokens, hidden: _never(tokens, hidden, _mean(tokens, hidden, (2,)))
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
