"""Exercises of notebook 06: the number of visible tokens, targets, decoder input and loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vmae import viz
from vmae.course.checks.core import Exercise
from vmae.grid import TokenGrid, gather_tokens
from vmae.masking import Mask, all_hidden, dual, running_cell_maps, tube_visible

# ---- reference solutions -------------------------------------------------------------------------


def visible_tokens(shape: tuple[int, int, int], ratio: float, family: str) -> int:
    """The number of tokens that the encoder sees of a grid (t, h, w).

    "mae" rounds down the number of visible tokens (`models_mae.py`), "random" that of hidden tokens,
    "tube" that of hidden tokens per time step (VideoMAE's `masking_generator.py`).
    """
    t, h, w = shape
    if family == "mae":
        return int(t * h * w * (1 - ratio))
    if family == "random":
        return t * h * w - int(ratio * t * h * w)
    return t * (h * w - int(ratio * h * w))


def normalize_targets(tokens: torch.Tensor) -> torch.Tensor:
    """VideoMAE's targets: standardise each channel of each token, (B, M, P) -> (B, M, P).

    Unbiased variance over the P / 3 pixels; 1e-6 is added to the standard deviation. Source:
    `engine_for_pretraining.py`.
    """
    pixels = tokens.unflatten(-1, (-1, 3))
    mean, std = pixels.mean(-2, keepdim=True), pixels.std(-2, keepdim=True)
    return ((pixels - mean) / (std + 1e-6)).flatten(-2)


def decoder_input(
    latents: torch.Tensor, mask_token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    """Visible tokens, then mask tokens, each with its position embedding: (B, V + Q, E).

    There is no unshuffling. Source: `modeling_pretrain.py`.
    """
    visible, queries = latents + positions[mask.visible], mask_token + positions[mask.queries]
    return torch.cat((visible, queries), dim=1)


def masked_loss(predictions: torch.Tensor, goals: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Mean squared error over the mask's targets: predictions (B, Q, P), goals (B, N, P)."""
    predicted = gather_tokens(predictions, mask.targets)
    return (predicted - gather_tokens(goals, mask.target_tokens)).square().mean()


# ---- mistakes ----------------------------------------------------------------------------------


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


def _joined(visible: bool = True, queries: bool = True, swapped: bool = False) -> Input:
    """Both groups of tokens, with or without positions, possibly swapped."""

    def join(
        latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
    ) -> torch.Tensor:
        first = latents + visible * positions[mask.visible]
        second = (token + queries * positions[mask.queries]).expand(len(latents), -1, -1)
        return torch.cat((second, first) if swapped else (first, second), dim=1)

    return join


def _by_sequence_index(
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
    """The mean square of the differences that `pick` returns."""
    return lambda predicted, goals, mask: pick(predicted, goals, mask).square().mean()


def _difference(predicted: torch.Tensor, goals: torch.Tensor, mask: Mask) -> torch.Tensor:
    return gather_tokens(predicted, mask.targets) - gather_tokens(goals, mask.target_tokens)


# ---- inputs and drawings -------------------------------------------------------------------------

_GRID = TokenGrid((8, 8, 8), (2, 2, 2))  # 4x4x4 tokens of 24 values


def _masks(g: torch.Generator, batch: int) -> tuple[Mask, Mask]:
    """One mask of V1, and one of V2, which has fewer targets than queries."""
    visible = tube_visible(_GRID, 0.75, None, batch, g)
    return all_hidden(visible, _GRID), dual(visible, _GRID, running_cell_maps(_GRID, 0.5), g)


def _count_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    shapes = (((16, 14, 14), 0.9), ((8, 14, 14), 0.9), ((4, 5, 7), 0.8), ((8, 14, 14), 0.75))
    return [(shape, ratio, f) for shape, ratio in shapes for f in ("mae", "random", "tube")]


def _target_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    tokens = torch.rand(2, 6, 24, generator=g) * torch.rand(2, 6, 1, generator=g)
    tokens = tokens + torch.tensor([0.0, 0.3, 0.6]).repeat(8)
    tokens[:, 2] = 0.02 + 1e-3 * torch.randn(
        2, 24, generator=g
    )  # nearly flat, so that the epsilon matters
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
    for mask in reversed(_masks(g, 2)):  # V2 first: only there do queries and targets differ
        goals = torch.randn(2, 64, 24, generator=g)
        right = gather_tokens(goals, mask.queries)
        cases.append((right + torch.randn(right.shape, generator=g), goals, mask))
    return cases


def _draw_count(result: int, shape: tuple[int, int, int], *_: Any) -> None:
    t, h, w = shape
    seen = (torch.arange(t * h * w) < result).view(t, h * w).float()
    viz.pictures(
        {f"{t * h * w} tokens; you count {result} as visible": seen},
        "A matrix of all tokens, one row per time step; the number you counted are lit.",
        height=0.6,
    )


def _draw_targets(result: torch.Tensor, tokens: torch.Tensor) -> None:
    viz.pictures(
        {"tokens": tokens[0], "your targets": result[0].clamp(-3, 3)},
        "Two matrices with one row per token: pixel values, and your targets.",
        height=1.2,
    )


def _draw_input(result: torch.Tensor, latents: torch.Tensor, *_: Any) -> None:
    viz.pictures(
        {"latents": latents[0].T, "your decoder input": result[0].T},
        "Two matrices with one column per token: the latents, and your decoder input.",
        height=1.0,
    )


def _draw_loss(
    result: torch.Tensor, predictions: torch.Tensor, goals: torch.Tensor, mask: Mask
) -> None:
    error = (predictions - gather_tokens(goals, mask.queries)).square().mean(-1)
    counts = torch.zeros_like(error).scatter(1, mask.targets, 1.0)
    viz.pictures(
        {f"error of each query (your loss is {result:.3f})": error, "targets": counts},
        "Two matrices with one row per clip: the error of each query, and the queries that are "
        "targets.",
        height=0.6,
    )


EXERCISES = (
    Exercise(
        "06.visible_tokens",
        visible_tokens,
        _count_cases,
        {
            "for MAE, the number of hidden tokens is rounded down, as in VideoMAE: round down "
            "the number of visible tokens instead, int(N·(1 - ratio)), which gives 313 of "
            "3136": (
                lambda shape, ratio, family: visible_tokens(
                    shape, ratio, "random" if family == "mae" else family
                )
            ),
            "for random masking, the number of visible tokens is rounded down, as in MAE: "
            "hide int(ratio·N) tokens and keep the rest, which gives 314 of 3136": (
                lambda shape, ratio, family: visible_tokens(
                    shape, ratio, "mae" if family == "random" else family
                )
            ),
            "for tubes, the count is rounded for the whole clip: round the count for the h·w "
            "positions of a single time step, then multiply by t": (
                lambda shape, ratio, family: visible_tokens(
                    shape, ratio, "random" if family == "tube" else family
                )
            ),
            "the result is the number of hidden tokens: subtract it from the total": (
                lambda shape, ratio, family: (
                    shape[0] * shape[1] * shape[2] - visible_tokens(shape, ratio, family)
                )
            ),
            "for tubes, only one time step is counted: multiply by t": lambda shape, ratio, family: (
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
            "all values in a token are standardised together, as in MAE: standardise each "
            "channel separately, as in VideoMAE": lambda x: _normalized(x, groups=1),
            "the targets are computed as in MAE, with all values standardised together and "
            "the epsilon inside the square root: standardise each channel separately, and add "
            "1e-6 to the standard deviation": (
                lambda x: _normalized(x, groups=1, inside=True)
            ),
            "the epsilon is inside the square root: add 1e-6 to the standard deviation "
            "instead, as in VideoMAE": (
                lambda x: _normalized(x, inside=True)
            ),
            "the variance is biased: divide by the number of pixels minus one, as in "
            "torch.std": lambda x: _normalized(x, unbiased=False),
            "the variance is biased and the epsilon is inside the square root: use torch.std, "
            "and add 1e-6 to its result": (
                lambda x: _normalized(x, unbiased=False, inside=True)
            ),
            "P is split in the wrong order: split it as (pixels, 3), since the channel varies "
            "fastest": (
                _channel_first
            ),
            "the mean and standard deviation are computed over all tokens of a clip: compute "
            "them per token": (
                lambda x: _normalized(x, dims=(-3, -2))
            ),
            "only the mean is subtracted: divide by the standard deviation as well": _only_centred,
            "the epsilon is missing, so constant tokens cause a division by zero: add 1e-6 to "
            "the standard deviation": lambda x: (
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
            "the mask tokens come first: put the visible tokens before them, since the "
            "predictions are read from the end of the sequence": _joined(swapped=True),
            "the mask tokens lack position embeddings, so they and their predictions are all "
            "identical: add positions[mask.queries]": _joined(queries=False),
            "the latents lack position embeddings: add positions[mask.visible], since the "
            "decoder has its own position table": _joined(visible=False),
            "the tokens lack position embeddings: add positions[mask.visible] and "
            "positions[mask.queries]": (
                _joined(visible=False, queries=False)
            ),
            "positions are added in sequence order: index the position table with "
            "mask.visible and mask.queries, since each token keeps its position in the clip": (
                _by_sequence_index
            ),
            "the tokens are unshuffled, as in MAE: keep the visible tokens first, as in "
            "VideoMAE": (
                _unshuffled
            ),
            "every clip gets the first clip's positions: use each clip's own row of the mask": (
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
            "the loss is averaged over all queries: include only the queries in mask.targets": _wrong_loss(
                lambda predicted, goals, mask: predicted - gather_tokens(goals, mask.queries)
            ),
            "the goals are gathered with mask.targets, which indexes the queries: gather them "
            "with the token indices, mask.target_tokens": _wrong_loss(
                lambda predicted, goals, mask: (
                    gather_tokens(predicted, mask.targets) - gather_tokens(goals, mask.targets)
                )
            ),
            "the squared errors are summed: average them instead": (
                lambda *given: _difference(*given).square().sum()
            ),
            "the errors are summed over pixels: average over pixels too": lambda *given: (
                _difference(*given).square().sum(-1).mean()
            ),
            "the summed error of the targets is divided by the number of queries: divide it "
            "by the number of targets": (
                lambda predicted, goals, mask: (
                    masked_loss(predicted, goals, mask) * mask.targets.shape[1] / mask.queries.shape[1]
                )
            ),
            "the loss is the mean absolute error: square the differences instead": (
                lambda *given: _difference(*given).abs().mean()
            ),
            "the loss is the root mean squared error: do not take the square root": lambda *given: (
                masked_loss(*given).sqrt()
            ),
        },
        draw=_draw_loss,
    ),
)  # fmt: skip
