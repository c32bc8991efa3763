"""Exercises of notebook 08: running cells, the dual mask, its loss, and the size of a giant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vmae import viz
from vmae.config import ModelConfig
from vmae.course.checks.core import Exercise
from vmae.grid import TokenGrid, gather_tokens
from vmae.masking import Mask, running_cell_maps, tube_visible

# ---- the right answers -------------------------------------------------------------------------


def running_cell(shape: tuple[int, int, int], ratio: float, start: int) -> torch.Tensor:
    """One of V2's four maps: (t, h, w) bool, True where the decoder is asked.

    Source: `RunningCellMaskingGenerator` of VideoMAEv2's `masking_generator.py`.
    """
    return _cells(shape, ratio, lambda step: start + 1 + step)


def dual_mask(hidden: torch.Tensor, asked: torch.Tensor) -> Mask:
    """Two masks (B, N) bool as indices: True in `hidden` is unseen, True in `asked` is a query.

    Source: `engine_for_pretraining.py` of VideoMAEv2: queries on visible tokens stay, without loss.
    """
    queries = _columns(asked)
    return Mask(_columns(~hidden), queries, _columns(hidden.gather(1, queries)))


def dual_loss(
    predictions: torch.Tensor, goals: torch.Tensor, hidden: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over the queries that the encoder did not see.

    predictions (B, Q, P), goals (B, N, P), hidden (B, N) bool, queries (B, Q). Source: as above.
    """
    error, counts = _errors(predictions, goals, queries), hidden.gather(1, queries)
    return (error * counts).sum() / counts.sum()


def classifier_parameters(c: ModelConfig, classes: int) -> int:
    """Trainable numbers in a VideoMAE classifier of configuration `c`."""
    return _parameters(c, classes)


# ---- wrong ones --------------------------------------------------------------------------------


def _columns(flags: torch.Tensor) -> torch.Tensor:
    """(B, K): the numbers of the True entries of each row, of which each row has K."""
    return flags.nonzero()[:, 1].view(len(flags), -1)


def _tiled(cell: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return cell.view(2, 2).repeat(h // 2, w // 2)


def _cells(
    shape: tuple[int, int, int],
    ratio: float,
    turns: Callable[[int], int],
    lay: Callable[[torch.Tensor, int, int], torch.Tensor] = _tiled,
) -> torch.Tensor:
    """The queue of a cell, rolled left by turns(step) and laid out over the frame at every step."""
    t, h, w = shape
    queue = torch.arange(4) >= int(4 * ratio)
    return torch.stack([lay(queue.roll(-turns(step)), h, w) for step in range(t)])


def _enlarged(cell: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return cell.view(2, 2).repeat_interleave(h // 2, 0).repeat_interleave(w // 2, 1)


def _in_rows(cell: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return cell.repeat(h * w // 4).view(h, w)


def _down_columns(cell: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return cell.view(2, 2).T.repeat(h // 2, w // 2)


def _of_mask(change: Callable[..., tuple[torch.Tensor, ...]]) -> Callable[..., Mask]:
    """Other indices made of (hidden, asked)."""
    return lambda hidden, asked: Mask(*change(hidden, asked))


def _all_count(hidden: torch.Tensor, asked: torch.Tensor) -> tuple[torch.Tensor, ...]:
    queries = _columns(asked)
    return _columns(~hidden), queries, torch.arange(queries.shape[1]).expand_as(queries)


def _token_numbers(hidden: torch.Tensor, asked: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _columns(~hidden), _columns(asked), _columns(hidden & asked)


def _errors(predictions: torch.Tensor, goals: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """(B, Q): the mean squared error of each query."""
    return (predictions - gather_tokens(goals, queries)).square().mean(-1)


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _weighted(
    counts_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    total_of: Callable[[torch.Tensor], Any] = lambda counts: counts.sum(),
) -> Loss:
    """The loss with other weights of the queries, or divided by something else."""

    def loss(
        said: torch.Tensor, goals: torch.Tensor, hidden: torch.Tensor, queries: torch.Tensor
    ) -> torch.Tensor:
        counts = counts_of(hidden, queries).float()
        return (_errors(said, goals, queries) * counts).sum() / total_of(counts)

    return loss


def _at(hidden: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return hidden.gather(1, queries)


def _first_goals(
    said: torch.Tensor, goals: torch.Tensor, hidden: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    error, counts = (said - goals[:, : said.shape[1]]).square().mean(-1), _at(hidden, queries)
    return (error * counts).sum() / counts.sum()


def _parameters(
    c: ModelConfig,
    classes: int,
    biases: int = 2,
    mlp_ratio: float | None = None,
    norms: int = 4,
    patch_bias: bool = True,
    extra: int = 0,
) -> int:
    """The count; `biases` and `norms` are vectors of width D in a block's attention and norms."""
    d, pixels = c.embed_dim, c.grid.token_dim
    inner = int(d * (mlp_ratio or c.mlp_ratio))
    attention = 4 * d * d + (biases + 1) * d  # qkv and the projection, which has a bias too
    block = attention + norms * d + 2 * d * inner + inner + d
    ends = pixels * d + patch_bias * d + 2 * d + d * classes + classes
    return ends + c.depth * block + extra


# ---- inputs and drawings -------------------------------------------------------------------------

_GRID = TokenGrid((8, 12, 8), (2, 2, 2))  # 4x6x4 tokens of 24 values


def _cell_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    shapes = (((4, 8, 8), 0.25, 1), ((8, 4, 6), 0.5, 2), ((8, 14, 14), 0.75, 3))
    return [*shapes, ((8, 14, 14), 0.5, 0)]


def _masks(g: torch.Generator, batch: int, ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
    """hidden and asked, (B, N) bool: tubes, and a running cell that differs from clip to clip."""
    visible = tube_visible(_GRID, 0.75, None, batch, g)
    queries = running_cell_maps(_GRID, ratio)[torch.arange(batch) % 4]
    asked = torch.zeros(batch, _GRID.num_tokens, dtype=torch.bool).scatter(1, queries, True)
    return torch.ones_like(asked).scatter(1, visible, False), asked


def _mask_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    return [_masks(g, batch, ratio) for batch, ratio in ((2, 0.25), (3, 0.5), (1, 0.75))]


def _loss_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases: list[tuple[Any, ...]] = []
    for hidden, asked in _mask_cases(g):
        goals, queries = torch.randn(*hidden.shape, 24, generator=g), _columns(asked)
        said = gather_tokens(goals, queries)
        cases.append((said + torch.randn(said.shape, generator=g), goals, hidden, queries))
    return cases


def _size_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = (("B", 400), ("g", 710), ("S", 174), ("tiny", 8))
    return [(ModelConfig.videomae(name), classes) for name, classes in sizes]


def _draw_cells(result: torch.Tensor, *_: Any) -> None:
    viz.pictures(
        {f"step {step}": x.float() for step, x in enumerate(result[:4])},
        "Your map at the first steps in time: bright places are those that the decoder is asked for.",
        height=1.0,
        limits=(0, 1),
    )


def _draw_mask(result: Mask, hidden: torch.Tensor, asked: torch.Tensor) -> None:
    t, h, w = _GRID.shape
    kind = torch.zeros(hidden.shape[1])
    kind[result.queries[0]] = 1
    kind[result.target_tokens[0]] = 2
    kind[result.visible[0]] += 3
    viz.pictures(
        {f"step {step}": x for step, x in enumerate(kind.view(t, h, w))},
        "Your mask of the first clip, step by step. From dark to bright: neither seen nor asked; asked "
        "without loss; target; seen; seen and asked.",
        height=1.2,
        limits=(0, 5),
    )


def _draw_loss(
    result: torch.Tensor,
    predictions: torch.Tensor,
    goals: torch.Tensor,
    hidden: torch.Tensor,
    queries: torch.Tensor,
) -> None:
    viz.pictures(
        {
            f"errors at queries; your loss {result:.3f}": _errors(predictions, goals, queries),
            "what counts": _at(hidden, queries).float(),
        },
        "Two matrices, a row for each clip: errors at the queries, and which of them count.",
        height=0.6,
    )


def _draw_count(result: int, *_: Any) -> None:
    millions = torch.zeros(5, 40)
    millions.view(-1)[: round(result / 1e6)] = 1
    viz.pictures(
        {f"ViT-B: you count {result:,}": millions},
        "Two hundred squares, of which one is lit for each million that you count.",
        height=0.7,
    )


EXERCISES = (
    Exercise(
        "08.running_cell",
        running_cell,
        _cell_cases,
        {
            "it is inverted: True is where the decoder is asked, and 4·ratio places of a cell are "
            "off": lambda *case: ~running_cell(*case),
            "ratio is the share that is not asked: so int(4·ratio) places of the queue are off, and "
            "the rest is on": lambda shape, ratio, start: running_cell(shape, 1 - ratio, start),
            "the cell stands still: roll it by one more place at each step in time": (
                lambda shape, ratio, start: _cells(shape, ratio, lambda step: start + 1)
            ),
            "the queue rolls to the right: to the left is torch's negative shift": (
                lambda shape, ratio, start: _cells(shape, ratio, lambda step: -(start + 1 + step))
            ),
            "it runs one step late: the published pointer moves before the first step, so roll by "
            "start + 1 + step": lambda shape, ratio, start: running_cell(shape, ratio, start - 1),
            "it runs one step ahead: the queue begins with the places that are off, and is rolled by "
            "start + 1 + step": lambda shape, ratio, start: running_cell(shape, ratio, start + 1),
            "`start` says where it begins, not how fast it runs: roll by start + 1 + step": (
                lambda shape, ratio, start: _cells(
                    shape, ratio, lambda step: (start + 1) * (step + 1)
                )
            ),
            "the cell is blown up to the size of the frame: tile it, as `repeat` does": (
                lambda shape, ratio, start: _cells(
                    shape, ratio, lambda step: start + 1 + step, _enlarged
                )
            ),
            "the queue lies along the rows: make it a cell of 2x2 first, then tile": (
                lambda shape, ratio, start: _cells(
                    shape, ratio, lambda step: start + 1 + step, _in_rows
                )
            ),
            "the cell is filled down its columns: fill it row by row, as `view(2, 2)` does": (
                lambda shape, ratio, start: _cells(
                    shape, ratio, lambda step: start + 1 + step, _down_columns
                )
            ),
        },
        draw=_draw_cells,
    ),
    Exercise(
        "08.dual_mask",
        dual_mask,
        _mask_cases,
        {
            "queries on visible tokens are left out: in the published code they stay, and only the "
            "loss leaves them out": _of_mask(
                lambda hidden, asked: _all_count(hidden, asked & hidden)
            ),
            "all queries count: those that the encoder has seen must not. Look `hidden` up at the "
            "queries": _of_mask(_all_count),
            "targets hold token numbers: they are places in `queries`": _of_mask(_token_numbers),
            "targets are the queries that the encoder has seen: take the others": _of_mask(
                lambda hidden, asked: (
                    _columns(~hidden), _columns(asked), _columns(~_at(hidden, _columns(asked)))
                )
            ),
            "the encoder loses tokens: dual masking takes nothing from the encoder, so visible is "
            "all that is not hidden": _of_mask(
                lambda hidden, asked: (
                    _columns(~hidden & asked), _columns(asked), dual_mask(hidden, asked).targets
                )
            ),
            "visible and hidden are swapped: True in `hidden` is what the encoder does not see": (
                lambda hidden, asked: dual_mask(~hidden, asked)
            ),
            "it asks where `asked` is False: True is a query": lambda hidden, asked: dual_mask(
                hidden, ~asked
            ),
            "every clip has the indices of the first: each row has its own": lambda *case: dual_mask(
                *(x[:1].expand_as(x) for x in case)
            ),
        },
        draw=_draw_mask,
    ),
    Exercise(
        "08.dual_loss",
        dual_loss,
        _loss_cases,
        {
            "your loss counts all queries: those on visible tokens have a weight of zero": _weighted(
                lambda hidden, queries: torch.ones_like(queries)
            ),
            "the sum is divided by all queries, as the paper writes it: the code divides by the number "
            "that counts": _weighted(_at, lambda counts: counts.numel()),
            "the weights are inverted: hidden queries count": _weighted(
                lambda hidden, queries: ~_at(hidden, queries)
            ),
            "the weights are those of the first Q tokens: look `hidden` up at the queries": _weighted(
                lambda hidden, queries: hidden[:, : queries.shape[1]]
            ),
            "the goals are those of the first Q tokens: take them at the queries": _first_goals,
            "it is a sum over queries: divide by the number that counts": _weighted(
                _at, lambda counts: 1
            ),
            "pixels are summed: take the mean over them": lambda said, *rest: (
                dual_loss(said, *rest) * said.shape[-1]
            ),
            "that is the root of it: leave the root out": lambda *case: dual_loss(*case).sqrt(),
        },
        draw=_draw_loss,
    ),
    Exercise(
        "08.classifier_parameters",
        classifier_parameters,
        _size_cases,
        {
            "keys have a bias: in VideoMAE queries and values have one, keys have none": (
                lambda c, classes: _parameters(c, classes, biases=3)
            ),
            "queries and values have no bias: 2·D numbers in each block are missing": (
                lambda c, classes: _parameters(c, classes, biases=0)
            ),
            "the MLP is four times as wide in every size: ViT-g has int(D·48/11). Use c.mlp_ratio": (
                lambda c, classes: _parameters(c, classes, mlp_ratio=4.0)
            ),
            "the two norms of a block are missing: each has a weight and a bias of D": (
                lambda c, classes: _parameters(c, classes, norms=0)
            ),
            "a norm has a bias too: 2·D numbers each": (
                lambda c, classes: _parameters(c, classes, norms=2, extra=-c.embed_dim)
            ),
            "the patch embedding has a bias of D": (
                lambda c, classes: _parameters(c, classes, patch_bias=False)
            ),
            "the norm before the head is missing": (
                lambda c, classes: _parameters(c, classes, extra=-2 * c.embed_dim)
            ),
            "the head is missing: D·classes numbers and a bias": (
                lambda c, classes: _parameters(c, 0)
            ),
            "the head's bias is missing": (
                lambda c, classes: _parameters(c, classes, extra=-classes)
            ),
            "positions are counted: they are fixed sines, and not trained": (
                lambda c, classes: _parameters(c, classes, extra=c.grid.num_tokens * c.embed_dim)
            ),
            "a class token is counted: VideoMAE has none": (
                lambda c, classes: _parameters(c, classes, extra=c.embed_dim)
            ),
        },
        draw=_draw_count,
    ),
)  # fmt: skip
