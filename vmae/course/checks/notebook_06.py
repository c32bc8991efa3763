"""Exercises of notebook 06: counts of visible tokens, targets, the decoder's input, the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vmae import viz
from vmae.course.checks.core import Exercise
from vmae.grid import TokenGrid, gather_tokens
from vmae.masking import Mask, all_hidden, dual, running_cell_maps, tube_visible

# ---- the right answers -------------------------------------------------------------------------


def visible_tokens(shape: tuple[int, int, int], ratio: float, family: str) -> int:
    """Tokens that the encoder sees of a grid (t, h, w).

    "mae" rounds the visible side down (`models_mae.py`), "random" the hidden side, "tube" the hidden
    places of one step (VideoMAE's `masking_generator.py`).
    """
    t, h, w = shape
    if family == "mae":
        return int(t * h * w * (1 - ratio))
    if family == "random":
        return t * h * w - int(ratio * t * h * w)
    return t * (h * w - int(ratio * h * w))


def normalize_targets(tokens: torch.Tensor) -> torch.Tensor:
    """VideoMAE's targets: each channel of each token standardised, (B, M, P) -> (B, M, P).

    Unbiased variance over the P / 3 pixels; 1e-6 is added to the deviation. Source:
    `engine_for_pretraining.py`.
    """
    pixels = tokens.unflatten(-1, (-1, 3))
    mean, std = pixels.mean(-2, keepdim=True), pixels.std(-2, keepdim=True)
    return ((pixels - mean) / (std + 1e-6)).flatten(-2)


def decoder_input(
    latents: torch.Tensor, mask_token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    """Visible tokens, then mask tokens, each with its position: (B, V + Q, E).

    Source: `modeling_pretrain.py`; there is no unshuffle.
    """
    known, asked = latents + positions[mask.visible], mask_token + positions[mask.queries]
    return torch.cat((known, asked), dim=1)


def masked_loss(predictions: torch.Tensor, goals: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Mean squared error over the mask's targets: predictions (B, Q, P), goals (B, N, P)."""
    said = gather_tokens(predictions, mask.targets)
    return (said - gather_tokens(goals, mask.target_tokens)).square().mean()


# ---- wrong ones --------------------------------------------------------------------------------


def _normalized(
    tokens: torch.Tensor,
    groups: int = 3,
    unbiased: bool = True,
    inside: bool = False,
    dims: tuple[int, ...] = (-2,),
) -> torch.Tensor:
    pixels = tokens.unflatten(-1, (-1, groups))
    mean = pixels.mean(dims, keepdim=True)
    var = pixels.var(dims, keepdim=True, correction=int(unbiased))
    scale = (var + 1e-6).sqrt() if inside else var.sqrt() + 1e-6
    return ((pixels - mean) / scale).flatten(-2)


def _channel_first(tokens: torch.Tensor) -> torch.Tensor:
    pixels = tokens.unflatten(-1, (3, -1))
    mean, std = pixels.mean(-1, keepdim=True), pixels.std(-1, keepdim=True)
    return ((pixels - mean) / (std + 1e-6)).flatten(-2)


def _only_centred(tokens: torch.Tensor) -> torch.Tensor:
    pixels = tokens.unflatten(-1, (-1, 3))
    return (pixels - pixels.mean(-2, keepdim=True)).flatten(-2)


Input = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Mask], torch.Tensor]


def _joined(known: bool = True, asked: bool = True, swapped: bool = False) -> Input:
    """The two halves, with or without positions, in the right order or not."""

    def join(
        latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
    ) -> torch.Tensor:
        first = latents + known * positions[mask.visible]
        second = (token + asked * positions[mask.queries]).expand(len(latents), -1, -1)
        return torch.cat((second, first) if swapped else (first, second), dim=1)

    return join


def _by_place(
    latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    x = latents, token.expand(*mask.queries.shape, -1)
    batch, n = len(latents), mask.visible.shape[1] + mask.queries.shape[1]
    return torch.cat(x, dim=1) + positions[:n].expand(batch, -1, -1)


def _unshuffled(
    latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    order = torch.cat((mask.visible, mask.queries), dim=1).argsort(dim=1, stable=True)
    return gather_tokens(decoder_input(latents, token, positions, mask), order)


def _first_clip(
    latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    one = Mask(*(x[:1].expand_as(x) for x in (mask.visible, mask.queries, mask.targets)))
    return decoder_input(latents, token, positions, one)


def _wrong_loss(pick: Callable[[torch.Tensor, torch.Tensor, Mask], torch.Tensor]) -> Any:
    """The mean of the squared differences that `pick` gives."""
    return lambda said, goals, mask: pick(said, goals, mask).square().mean()


def _difference(said: torch.Tensor, goals: torch.Tensor, mask: Mask) -> torch.Tensor:
    return gather_tokens(said, mask.targets) - gather_tokens(goals, mask.target_tokens)


# ---- inputs and drawings -------------------------------------------------------------------------

_GRID = TokenGrid((8, 8, 8), (2, 2, 2))  # 4x4x4 tokens of 24 values


def _masks(g: torch.Generator, batch: int) -> tuple[Mask, Mask]:
    """One mask of V1, and one of V2 whose targets are fewer than its queries."""
    visible = tube_visible(_GRID, 0.75, None, batch, g)
    return all_hidden(visible, _GRID), dual(visible, _GRID, running_cell_maps(_GRID, 0.5), g)


def _count_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    shapes = (((16, 14, 14), 0.9), ((8, 14, 14), 0.9), ((4, 5, 7), 0.8), ((8, 14, 14), 0.75))
    return [(shape, ratio, f) for shape, ratio in shapes for f in ("mae", "random", "tube")]


def _target_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    tokens = torch.rand(2, 6, 24, generator=g) * torch.rand(2, 6, 1, generator=g)
    tokens = tokens + torch.tensor([0.0, 0.3, 0.6]).repeat(8)
    tokens[:, 2] = 0.02 + 1e-3 * torch.randn(2, 24, generator=g)  # nearly flat: the epsilon shows
    flat = torch.rand(1, 4, 48, generator=g)
    flat[0, 1] = 0.25
    return [(tokens,), (flat,)]


def _input_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for mask in _masks(g, 2):
        latents = torch.randn(*mask.visible.shape, 10, generator=g)
        token = torch.randn(1, 1, 10, generator=g)
        cases.append((latents, token, torch.randn(64, 10, generator=g), mask))
    return cases


def _loss_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases: list[tuple[Any, ...]] = []
    for mask in reversed(_masks(g, 2)):  # V2's first: only there queries and targets differ
        goals = torch.randn(2, 64, 24, generator=g)
        said = gather_tokens(goals, mask.queries)
        cases.append((said + torch.randn(said.shape, generator=g), goals, mask))
    return cases


def _draw_count(result: int, shape: tuple[int, int, int], *_: Any) -> None:
    t, h, w = shape
    seen = (torch.arange(t * h * w) < result).view(t, h * w).float()
    viz.pictures(
        {f"{t * h * w} tokens, {result} of them visible": seen},
        "A matrix of all tokens, a row for each step in time; as many as you counted are lit.",
        height=0.6,
    )


def _draw_targets(result: torch.Tensor, tokens: torch.Tensor) -> None:
    viz.pictures(
        {"tokens": tokens[0], "your targets": result[0].clamp(-3, 3)},
        "Two matrices, a row for each token: pixel values, and your targets.",
        height=1.2,
    )


def _draw_input(result: torch.Tensor, latents: torch.Tensor, *_: Any) -> None:
    viz.pictures(
        {"latents": latents[0].T, "your decoder input": result[0].T},
        "Two matrices, a column for each token: the latents, and your input of the decoder.",
        height=1.0,
    )


def _draw_loss(
    result: torch.Tensor, predictions: torch.Tensor, goals: torch.Tensor, mask: Mask
) -> None:
    error = (predictions - gather_tokens(goals, mask.queries)).square().mean(-1)
    counts = torch.zeros_like(error).scatter(1, mask.targets, 1.0)
    viz.pictures(
        {f"errors at queries; your loss {result:.3f}": error, "what counts": counts},
        "Two matrices, a row for each clip: errors at the queries, and which of them count.",
        height=0.6,
    )


EXERCISES = (
    Exercise(
        "06.visible_tokens",
        visible_tokens,
        _count_cases,
        {
            "MAE rounds like VideoMAE: official MAE rounds the visible side down, int(N·(1 - ratio)), "
            "so 313 of 3136": lambda shape, ratio, family: visible_tokens(
                shape, ratio, "random" if family == "mae" else family
            ),
            "VideoMAE rounds like MAE: at random, hide int(ratio·N) and keep the rest, so 314 of "
            "3136": lambda shape, ratio, family: visible_tokens(
                shape, ratio, "mae" if family == "random" else family
            ),
            "a tube counts as random tokens: round for one step in time, over its h·w places, then "
            "multiply by t": lambda shape, ratio, family: visible_tokens(
                shape, ratio, "random" if family == "tube" else family
            ),
            "you count the hidden tokens: take them from all": lambda shape, ratio, family: (
                shape[0] * shape[1] * shape[2] - visible_tokens(shape, ratio, family)
            ),
            "a tube is counted in one step only: multiply by t": lambda shape, ratio, family: (
                visible_tokens((1, *shape[1:]) if family == "tube" else shape, ratio, family)
            ),
        },
        draw=_draw_count,
    ),
    Exercise(
        "06.normalize_targets",
        normalize_targets,
        _target_cases,
        {
            "all values of a token are standardised jointly, as MAE does: VideoMAE takes each channel "
            "on its own": lambda x: _normalized(x, groups=1),
            "this is MAE's target whole: all values jointly, epsilon inside the root. VideoMAE takes "
            "each channel, and adds 1e-6 to the deviation": lambda x: _normalized(
                x, groups=1, inside=True
            ),
            "is your epsilon inside the root? VideoMAE adds 1e-6 to the standard deviation": (
                lambda x: _normalized(x, inside=True)
            ),
            "the variance is the biased one: divide by the number of pixels less one, as torch.std "
            "does": lambda x: _normalized(x, unbiased=False),
            "biased variance and epsilon inside the root: take torch.std, and add 1e-6 to it": (
                lambda x: _normalized(x, unbiased=False, inside=True)
            ),
            "the channels are not where you look: the channel runs fastest, so split P as "
            "(pixels, 3)": _channel_first,
            "mean and deviation run over all tokens of a clip: each token has its own": (
                lambda x: _normalized(x, dims=(-3, -2))
            ),
            "only the mean is taken out: divide by the deviation too": _only_centred,
            "there is no epsilon: a flat token would divide by zero": lambda x: (
                _only_centred(x).unflatten(-1, (-1, 3))
                / x.unflatten(-1, (-1, 3)).std(-2, keepdim=True)
            ).flatten(-2),
        },
        draw=_draw_targets,
    ),
    Exercise(
        "06.decoder_input",
        decoder_input,
        _input_cases,
        {
            "the mask tokens come first: put the visible ones before them, since the decoder's "
            "answers are read from the end": _joined(swapped=True),
            "the mask tokens have no positions: then all of them are equal, and so are all answers. "
            "Add positions[mask.queries]": _joined(asked=False),
            "the latents have no positions: the decoder has a table of its own, add "
            "positions[mask.visible]": _joined(known=False),
            "no token has a position: add those of mask.visible and of mask.queries": (
                _joined(known=False, asked=False)
            ),
            "positions are added by the place in the sequence: a token keeps the position of its "
            "place in the clip, so index the table with mask.visible and mask.queries": _by_place,
            "the tokens are unshuffled, as in MAE: VideoMAE leaves the visible ones first": (
                _unshuffled
            ),
            "every clip gets the positions of the first: each row of the mask has its own": (
                _first_clip
            ),
        },
        draw=_draw_input,
    ),
    Exercise(
        "06.masked_loss",
        masked_loss,
        _loss_cases,
        {
            "your loss counts all queries: only those in mask.targets count": _wrong_loss(
                lambda said, goals, mask: said - gather_tokens(goals, mask.queries)
            ),
            "the goals are taken at mask.targets, but those are indices into the queries: token "
            "numbers are mask.target_tokens": _wrong_loss(
                lambda said, goals, mask: (
                    gather_tokens(said, mask.targets) - gather_tokens(goals, mask.targets)
                )
            ),
            "it is a sum: take the mean": lambda *given: _difference(*given).square().sum(),
            "pixels are summed: take the mean over pixels too": lambda *given: (
                _difference(*given).square().sum(-1).mean()
            ),
            "the sum over targets is divided by the number of queries: divide by that of the targets": (
                lambda said, goals, mask: (
                    masked_loss(said, goals, mask) * mask.targets.shape[1] / mask.queries.shape[1]
                )
            ),
            "that is the absolute error: square it": lambda *given: _difference(*given).abs().mean(),
            "that is the root of it: leave the root out": lambda *given: (
                masked_loss(*given).sqrt()
            ),
        },
        draw=_draw_loss,
    ),
)  # fmt: skip
