"""Exercises of notebook 08: running cells, dual masks, their loss, and parameter counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vmae import viz
from vmae.config import ModelConfig
from vmae.course.checks.core import Exercise
from vmae.grid import TokenGrid, gather_tokens
from vmae.masking import Mask, running_cell_maps, tube_visible

# ---- reference solutions -------------------------------------------------------------------------


def running_cell(shape: tuple[int, int, int], ratio: float, start: int) -> torch.Tensor:
    """One of V2's four running-cell maps: (t, h, w) bool, True for queries of the decoder.

    Source: `RunningCellMaskingGenerator` of VideoMAEv2's `masking_generator.py`.
    """
    return _cells(shape, ratio, lambda step: start + 1 + step)


def dual_mask(hidden: torch.Tensor, asked: torch.Tensor) -> Mask:
    """Two masks (B, N) bool as indices: `hidden` is True for unseen tokens, `asked` for queries.

    Queries on visible tokens are kept, without loss. Source: `engine_for_pretraining.py` of VideoMAEv2.
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
    """Number of trainable parameters of a VideoMAE classifier with configuration `c`."""
    return _parameters(c, classes)


# ---- mistakes ----------------------------------------------------------------------------------


def _columns(flags: torch.Tensor) -> torch.Tensor:
    """(B, K): the indices of the True entries in each row, of which there are K."""
    return flags.nonzero()[:, 1].view(len(flags), -1)


def _tiled(cell: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return cell.view(2, 2).repeat(h // 2, w // 2)


def _cells(
    shape: tuple[int, int, int],
    ratio: float,
    turns: Callable[[int], int],
    lay: Callable[[torch.Tensor, int, int], torch.Tensor] = _tiled,
) -> torch.Tensor:
    """The cell's queue, rolled left by turns(step) and laid out over the frame at each step."""
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
    """A mask with the indices change(hidden, asked)."""
    return lambda hidden, asked: Mask(*change(hidden, asked))


def _all_are_targets(hidden: torch.Tensor, asked: torch.Tensor) -> tuple[torch.Tensor, ...]:
    queries = _columns(asked)
    return _columns(~hidden), queries, torch.arange(queries.shape[1]).expand_as(queries)


def _token_numbers(hidden: torch.Tensor, asked: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _columns(~hidden), _columns(asked), _columns(hidden & asked)


def _errors(predictions: torch.Tensor, goals: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """(B, Q): the mean squared error at each query."""
    return (predictions - gather_tokens(goals, queries)).square().mean(-1)


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _weighted(
    counts_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    total_of: Callable[[torch.Tensor], Any] = lambda counts: counts.sum(),
) -> Loss:
    """The loss with other query weights, or another divisor."""

    def loss(
        predictions: torch.Tensor,
        goals: torch.Tensor,
        hidden: torch.Tensor,
        queries: torch.Tensor,
    ) -> torch.Tensor:
        counts = counts_of(hidden, queries).float()
        return (_errors(predictions, goals, queries) * counts).sum() / total_of(counts)

    return loss


def _at(hidden: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return hidden.gather(1, queries)


def _first_goals(
    predictions: torch.Tensor, goals: torch.Tensor, hidden: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    error = (predictions - goals[:, : predictions.shape[1]]).square().mean(-1)
    counts = _at(hidden, queries)
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
    """The count, with `biases` and `norms` vectors of width D in the attention and norms of a block."""
    d, pixels = c.embed_dim, c.grid.token_dim
    inner = int(d * (mlp_ratio or c.mlp_ratio))
    attention = 4 * d * d + (biases + 1) * d  # qkv, and the output projection with its bias
    block = attention + norms * d + 2 * d * inner + inner + d
    ends = pixels * d + patch_bias * d + 2 * d + d * classes + classes
    return ends + c.depth * block + extra


# ---- inputs and drawings -------------------------------------------------------------------------

_GRID = TokenGrid((8, 12, 8), (2, 2, 2))  # 4x6x4 tokens of 24 values


def _cell_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    shapes = (((4, 8, 8), 0.25, 1), ((8, 4, 6), 0.5, 2), ((8, 14, 14), 0.75, 3))
    return [*shapes, ((8, 14, 14), 0.5, 0)]


def _masks(g: torch.Generator, batch: int, ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`hidden` and `asked`, (B, N) bool: tubes, and running cells that differ between clips."""
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
        right = gather_tokens(goals, queries)
        cases.append((right + torch.randn(right.shape, generator=g), goals, hidden, queries))
    return cases


def _size_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = (("B", 400), ("g", 710), ("S", 174), ("tiny", 8))
    return [(ModelConfig.videomae(name), classes) for name, classes in sizes]


def _draw_cells(result: torch.Tensor, *_: Any) -> None:
    viz.pictures(
        {f"step {step}": x.float() for step, x in enumerate(result[:4])},
        "Your map at the first time steps: bright positions are decoder queries.",
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
        "Your mask for the first clip, step by step. From dark to bright: neither visible nor "
        "queried; queried without loss; target; visible; visible and queried.",
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
            f"error of each query (your loss is {result:.3f})": _errors(
                predictions, goals, queries
            ),
            "included in the loss": _at(hidden, queries).float(),
        },
        "Two matrices with one row per clip: the error of each query, and the queries that are "
        "included in the loss.",
        height=0.6,
    )


def _draw_count(result: int, *_: Any) -> None:
    millions = torch.zeros(5, 40)
    millions.view(-1)[: round(result / 1e6)] = 1
    viz.pictures(
        {f"ViT-B: you count {result:,}": millions},
        "Two hundred squares; one is lit for each million parameters that you count.",
        height=0.7,
    )


EXERCISES = (
    Exercise(
        "08.running_cell",
        running_cell,
        _cell_cases,
        {
            "the map is inverted: set it to True for the decoder's queries and to False for "
            "int(4·ratio) positions in each cell": lambda *case: ~running_cell(*case),
            "`ratio` is treated as the fraction of tokens queried, but it is the fraction not "
            "queried: set int(4·ratio) entries of the queue to False and the rest to True": (
                lambda shape, ratio, start: running_cell(shape, 1 - ratio, start)
            ),
            "the cell does not move: roll the queue by one more position at each time step": (
                lambda shape, ratio, start: _cells(shape, ratio, lambda step: start + 1)
            ),
            "the queue is rolled to the right: roll it to the left, with a negative shift in "
            "torch.roll": (
                lambda shape, ratio, start: _cells(shape, ratio, lambda step: -(start + 1 + step))
            ),
            "the cell is one step behind: roll the queue by start + 1 + step, since the "
            "published code moves the pointer before the first step": (
                lambda shape, ratio, start: running_cell(shape, ratio, start - 1)
            ),
            "the cell is one step ahead: start the queue with the False entries and roll it "
            "by start + 1 + step": lambda shape, ratio, start: running_cell(shape, ratio, start + 1),
            "`start` affects how fast the cell moves, but it should only set its initial "
            "position: roll the queue by start + 1 + step": (
                lambda shape, ratio, start: _cells(
                    shape, ratio, lambda step: (start + 1) * (step + 1)
                )
            ),
            "the cell is enlarged to the size of the frame: tile it instead, e.g. with "
            "`repeat`": (
                lambda shape, ratio, start: _cells(
                    shape, ratio, lambda step: start + 1 + step, _enlarged
                )
            ),
            "the queue is laid out along the rows: reshape it to a 2x2 cell first, then tile "
            "the cell": (
                lambda shape, ratio, start: _cells(
                    shape, ratio, lambda step: start + 1 + step, _in_rows
                )
            ),
            "the cell is filled column by column: fill it row by row, e.g. with `view(2, 2)`": (
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
            "queries on visible tokens are dropped: keep them as queries and exclude them "
            "only from the loss, as in the published code": _of_mask(
                lambda hidden, asked: _all_are_targets(hidden, asked & hidden)
            ),
            "all queries are targets: index `hidden` with the queries, and exclude the "
            "visible tokens": _of_mask(_all_are_targets),
            "`targets` contains token indices: use indices into `queries`": _of_mask(_token_numbers),
            "the targets are the queries on visible tokens: use the queries on hidden tokens "
            "instead": _of_mask(
                lambda hidden, asked: (
                    _columns(~hidden), _columns(asked), _columns(~_at(hidden, _columns(asked)))
                )
            ),
            "`visible` lacks some visible tokens: include every token that is not hidden, "
            "since dual masking does not reduce the encoder's input": _of_mask(
                lambda hidden, asked: (
                    _columns(~hidden & asked), _columns(asked), dual_mask(hidden, asked).targets
                )
            ),
            "visible and hidden tokens are swapped: take the visible tokens where `hidden` is "
            "False": (
                lambda hidden, asked: dual_mask(~hidden, asked)
            ),
            "the queries are taken where `asked` is False: take them where it is True instead": (
                lambda hidden, asked: dual_mask(hidden, ~asked)
            ),
            "every clip gets the first clip's indices: use each clip's own row of `hidden` "
            "and `asked`": lambda *case: dual_mask(
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
            "the loss is averaged over all queries: give queries on visible tokens a weight "
            "of zero": _weighted(
                lambda hidden, queries: torch.ones_like(queries)
            ),
            "the summed error is divided by the total number of queries, as in the paper: "
            "divide it by the number of hidden queries, as in the published code": (
                _weighted(_at, lambda counts: counts.numel())
            ),
            "the weights are inverted: give hidden queries a weight of one and all others a "
            "weight of zero": _weighted(
                lambda hidden, queries: ~_at(hidden, queries)
            ),
            "the weights are taken from the first Q tokens: index `hidden` with the queries": _weighted(
                lambda hidden, queries: hidden[:, : queries.shape[1]]
            ),
            "the first Q tokens' goals are used: gather the goals with the query indices": _first_goals,
            "the errors are summed over the queries: divide the sum by the number of hidden "
            "queries": _weighted(
                _at, lambda counts: 1
            ),
            "the errors are summed over pixels: average them instead": lambda predictions, *rest: (
                dual_loss(predictions, *rest) * predictions.shape[-1]
            ),
            "the loss is the root mean squared error: do not take the square root": (
                lambda *case: dual_loss(*case).sqrt()
            ),
        },
        draw=_draw_loss,
    ),
    Exercise(
        "08.classifier_parameters",
        classifier_parameters,
        _size_cases,
        {
            "a key bias is counted: count only the query and value biases, since VideoMAE has "
            "no key bias": (
                lambda c, classes: _parameters(c, classes, biases=3)
            ),
            "the query and value biases are missing: add 2·D parameters per block": (
                lambda c, classes: _parameters(c, classes, biases=0)
            ),
            "the MLP is assumed to be 4·D wide in every model: use c.mlp_ratio, since ViT-g's "
            "MLP is int(D·48/11) wide": (
                lambda c, classes: _parameters(c, classes, mlp_ratio=4.0)
            ),
            "the two norms of each block are missing: add a weight and a bias of size D for "
            "each": (
                lambda c, classes: _parameters(c, classes, norms=0)
            ),
            "the norm biases are missing: count 2·D parameters per norm": (
                lambda c, classes: _parameters(c, classes, norms=2, extra=-c.embed_dim)
            ),
            "the patch embedding's bias is missing: add D parameters": (
                lambda c, classes: _parameters(c, classes, patch_bias=False)
            ),
            "the norm before the head is missing: add 2·D parameters": (
                lambda c, classes: _parameters(c, classes, extra=-2 * c.embed_dim)
            ),
            "the head is missing: add D·classes weights and one bias per class": (
                lambda c, classes: _parameters(c, 0)
            ),
            "the head's bias is missing: add one parameter per class": (
                lambda c, classes: _parameters(c, classes, extra=-classes)
            ),
            "the position embeddings are counted: exclude them, since they are fixed "
            "sinusoids, not trained parameters": (
                lambda c, classes: _parameters(c, classes, extra=c.grid.num_tokens * c.embed_dim)
            ),
            "a class token is counted: exclude it, since VideoMAE has none": (
                lambda c, classes: _parameters(c, classes, extra=c.embed_dim)
            ),
        },
        draw=_draw_count,
    ),
)  # fmt: skip
