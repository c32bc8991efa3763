"""Exercises of notebook 08: running cells, dual masks, their model and loss, parameter counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vmae import ROOT
from vmae.config import MaskConfig, ModelConfig
from vmae.course import viz
from vmae.course.checks.core import Exercise
from vmae.course.checks.drawings import loss_among
from vmae.course.checks.modules import ModuleCase, module_exercise, weights_of
from vmae.course.making import render
from vmae.data import MotionSpec, resize_frames
from vmae.grid import TokenGrid, patchify, unpatchify
from vmae.grid import gather_tokens as take
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask, running_cell_maps, tube_visible
from vmae.weights import load

# ---- reference solutions -------------------------------------------------------------------------


def running_cell(shape: tuple[int, int, int], ratio: float, start: int) -> torch.Tensor:
    """One of V2's four running-cell maps: (t, h, w) bool, True for queries of the decoder.

    Source: `RunningCellMaskingGenerator` of VideoMAEv2's `masking_generator.py`.
    """
    return _cells(shape, ratio, lambda step: start + 1 + step)


def dual_mask(hidden: torch.Tensor, queried: torch.Tensor) -> Mask:
    """Two masks (B, N) bool as indices: `hidden` is True for unseen tokens, `queried` for queries.

    Queries on visible tokens are kept, without loss. Source: `engine_for_pretraining.py` of VideoMAEv2.
    """
    queries = _columns(queried)
    return Mask(_columns(~hidden), queries, _columns(hidden.gather(1, queries)))


def dual_loss(
    predictions: torch.Tensor, goals: torch.Tensor, hidden: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over the queries that the encoder did not see.

    predictions (B, Q, P), goals (B, N, P), hidden (B, N) bool, queries (B, Q). Source: as above.
    """
    error, counts = _errors(predictions, goals, queries), hidden.gather(1, queries)
    return (error * counts).sum() / counts.sum()


class DualMasked(MaskedAutoencoder):
    """VideoMAE, written out: a mask token per query, predictions of the targets only."""

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Predict the targets (B, M, P)."""
        x = self.decoded(self.seen(clips, mask), self.asked(mask))  # (B, V + Q, E)
        return self.predicted(x, mask.visible.shape[1] + mask.targets)

    def seen(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Visible tokens (B, V, E) with their positions."""
        latents = self.encoder.forward_features(clips, mask.visible)
        return self.encoder_to_decoder(latents) + self.decoder_pos_embed[mask.visible]

    def asked(self, mask: Mask) -> torch.Tensor:
        """Mask tokens (B, Q, E) with their positions."""
        return self.mask_token + self.decoder_pos_embed[mask.queries]

    def decoded(self, visible: torch.Tensor, mask_tokens: torch.Tensor) -> torch.Tensor:
        """Both through the decoder's blocks, (B, V + Q, E)."""
        x = torch.cat((visible, mask_tokens), dim=1)
        for block in self.decoder.blocks:
            x = block(x)
        return x

    def predicted(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Pixels (B, K, P) for tokens `index` (B, K)."""
        return self.decoder.head(self.decoder.norm(take(x, index)))


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


def _along_rows(shape: tuple[int, int, int], ratio: float, start: int) -> torch.Tensor:
    """Each row of the cell is rolled by itself."""
    t, h, w = shape
    cell = (torch.arange(4) >= int(4 * ratio)).view(2, 2)
    return torch.stack([_tiled(cell.roll(-(start + 1 + s), dims=1), h, w) for s in range(t)])


def _rolled_again(shape: tuple[int, int, int], ratio: float, start: int) -> torch.Tensor:
    """Each step rolls the queue that the step before has left."""
    return _cells(shape, ratio, lambda step: sum(start + 1 + s for s in range(step + 1)))


def _of_mask(change: Callable[..., tuple[torch.Tensor, ...]]) -> Callable[..., Mask]:
    """A mask with the indices change(hidden, queried)."""
    return lambda hidden, queried: Mask(*change(hidden, queried))


def _all_are_targets(hidden: torch.Tensor, queried: torch.Tensor) -> tuple[torch.Tensor, ...]:
    queries = _columns(queried)
    return _columns(~hidden), queries, torch.arange(queries.shape[1]).expand_as(queries)


def _first_tokens(hidden: torch.Tensor, queried: torch.Tensor) -> torch.Tensor:
    return _columns(hidden[:, : _columns(queried).shape[1]])


def _token_numbers(hidden: torch.Tensor, queried: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _columns(~hidden), _columns(queried), _columns(hidden & queried)


def _errors(predictions: torch.Tensor, goals: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """(B, Q): the mean squared error at each query."""
    return (predictions - take(goals, queries)).square().mean(-1)


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


def _every_clip(
    predictions: torch.Tensor, goals: torch.Tensor, hidden: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    counts = hidden[:, queries]  # (B, B, Q)
    return (_errors(predictions, goals, queries) * counts).sum() / counts.sum()


class _AllPredictions(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        x = self.decoded(self.seen(clips, mask), self.asked(mask))
        return self.decoder.head(self.decoder.norm(x[:, mask.visible.shape[1] :]))


class _AllTokens(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        x = self.decoded(self.seen(clips, mask), self.asked(mask))
        return self.decoder.head(self.decoder.norm(x))


class _FromTheStart(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        x = self.decoded(self.seen(clips, mask), self.asked(mask))
        return self.predicted(x, mask.targets)


class _FirstQueries(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        x = self.decoded(self.seen(clips, mask), self.asked(mask))
        count = torch.arange(mask.targets.shape[1]).expand_as(mask.targets)
        return self.predicted(x, mask.visible.shape[1] + count)


class _LastTokens(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        x = self.decoded(self.seen(clips, mask), self.asked(mask))
        return self.decoder.head(self.decoder.norm(x[:, -mask.targets.shape[1] :]))


class _PositionsInOrder(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        visible = self.encoder_to_decoder(self.encoder.forward_features(clips, mask.visible))
        mask_tokens = self.mask_token.expand(*mask.queries.shape, -1)
        table, seen = self.decoder_pos_embed, visible.shape[1]
        first, then = table[:seen], table[seen : seen + mask_tokens.shape[1]]
        x = self.decoded(visible + first, mask_tokens + then)
        return self.predicted(x, seen + mask.targets)


class _SeesAll(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        every = torch.arange(self.grid.num_tokens).expand(len(clips), -1)
        return super().forward(clips, Mask(every, mask.queries, mask.targets))


class _TargetsOnly(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        every = torch.arange(mask.targets.shape[1]).expand_as(mask.targets)
        return super().forward(clips, Mask(mask.visible, mask.target_tokens, every))


class _EveryHidden(DualMasked):
    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        rest = _columns(mask.hidden(self.grid.num_tokens))
        index = torch.searchsorted(rest, mask.target_tokens)
        return super().forward(clips, Mask(mask.visible, rest, index))


class _SeesQueriesOnly(DualMasked):
    """Nothing is seen where the decoder is not queried."""

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        queried = torch.zeros(len(mask.queries), self.grid.num_tokens, dtype=torch.bool)
        kept = _columns(queried.scatter(1, mask.queries, True) & ~mask.hidden(queried.shape[1]))
        return super().forward(clips, Mask(kept, mask.queries, mask.targets))


class _NoQueryPositions(DualMasked):
    def asked(self, mask: Mask) -> torch.Tensor:
        return self.mask_token.expand(*mask.queries.shape, -1)


class _NoVisiblePositions(DualMasked):
    def seen(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        return self.encoder_to_decoder(self.encoder.forward_features(clips, mask.visible))


class _FirstPositions(DualMasked):
    def asked(self, mask: Mask) -> torch.Tensor:
        return (self.mask_token + self.decoder_pos_embed[: mask.queries.shape[1]]).expand(
            len(mask.queries), -1, -1
        )


class _NoMaskToken(DualMasked):
    def asked(self, mask: Mask) -> torch.Tensor:
        return self.decoder_pos_embed[mask.queries]


class _NoNorm(DualMasked):
    def predicted(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return self.decoder.head(take(x, index))


class _NoBlocks(DualMasked):
    def decoded(self, visible: torch.Tensor, mask_tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat((visible, mask_tokens), dim=1)


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
    """`hidden` and `queried`, (B, N) bool: tubes, and running cells that differ between clips."""
    visible = tube_visible(_GRID, 0.75, None, batch, g)
    queries = running_cell_maps(_GRID, ratio)[torch.arange(batch) % 4]
    queried = torch.zeros(batch, _GRID.num_tokens, dtype=torch.bool).scatter(1, queries, True)
    return torch.ones_like(queried).scatter(1, visible, False), queried


def _mask_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    return [_masks(g, batch, ratio) for batch, ratio in ((2, 0.25), (3, 0.5), (1, 0.75))]


def _loss_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    """First a predictor that errs on visible tokens only, then some that err everywhere."""
    cases: list[tuple[Any, ...]] = []
    for number, (hidden, queried) in enumerate([_masks(g, 3, 0.5), *_mask_cases(g)]):
        goals, queries = torch.randn(*hidden.shape, 24, generator=g), _columns(queried)
        right, error = take(goals, queries), torch.randn(*queries.shape, 24, generator=g)
        if number == 0:
            error *= ~hidden.gather(1, queries)[..., None]
        cases.append((right + error, goals, hidden, queries))
    return cases


def _shipped() -> MaskedAutoencoder:
    model = load(ROOT / "data" / "tiny")
    assert isinstance(model, MaskedAutoencoder)
    return model


def _model_cases(g: torch.Generator) -> list[ModuleCase]:
    """Rendered clips through the shipped weights; then two small models on other grids."""
    shipped = _shipped().config
    frames = [
        resize_frames(render(MotionSpec("textures"), "test", i)[0], shipped.img_size)
        for i in (3, 5)
    ]
    films = torch.stack([torch.from_numpy(x.copy()).permute(3, 0, 1, 2) for x in frames])
    v2 = MaskConfig("tube", 0.75, None, "running-cell", 0.5)
    cases: list[ModuleCase] = [({"config": shipped}, (films, make_mask(v2, shipped.grid, 2, g)))]
    sizes = {"embed_dim": 24, "num_heads": 2, "depth": 1, "decoder_embed_dim": 18}
    for batch, frames_, side, ratio in ((3, 8, 24, 0.25), (2, 16, 16, 0.75)):
        c = ModelConfig.videomae("tiny", num_frames=frames_, img_size=side, **sizes)
        clips = torch.rand(batch, *(3, frames_, side, side), generator=g)
        mask = make_mask(v2.replace(decoder_mask_ratio=ratio), c.grid, batch, g)
        cases.append(({"config": c}, (clips, mask)))
    return cases


def _model_weights(
    reference: type[torch.nn.Module], arguments: dict[str, Any]
) -> dict[str, torch.Tensor]:
    shipped = _shipped()
    return (
        shipped.state_dict()
        if arguments["config"] == shipped.config
        else weights_of(reference, arguments)
    )


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


def _draw_mask(result: Mask, *_: torch.Tensor) -> None:
    frames = viz.roles(result, _GRID)
    viz.pictures(
        {f"step {step}": frames[:, step] for step in range(_GRID.shape[0])},
        "Your mask for the first clip, step by step. Blue: visible; orange: target; outlined: queried "
        "without loss; hatched: neither visible nor queried; a blue centre: a target that is visible.",
        height=1.2,
    )


def _draw_model(
    output: torch.Tensor, arguments: dict[str, Any], inputs: tuple[torch.Tensor, Mask]
) -> None:
    (clips, mask), grid = inputs, arguments["config"].grid
    clip, grey = clips[:1].float() / 255, 0.74
    tokens = patchify(clip, grid)
    seen, guessed = torch.full_like(tokens, grey), torch.full_like(tokens, grey)
    seen[0, mask.visible[0]] = tokens[0, mask.visible[0]]
    guessed[0, mask.target_tokens[0]] = output[0].clamp(0, 1)
    viz.film_strips(
        {
            "clip": clip[0],
            "visible": unpatchify(seen, grid)[0],
            "your predictions": unpatchify(guessed, grid)[0],
        },
        "Three rows of frames of a drifting photo, 16 pixels high: the clip, its visible squares on "
        "grey, and the squares that your model predicts with the shipped weights.",
    )


def _draw_loss(
    result: torch.Tensor,
    predictions: torch.Tensor,
    goals: torch.Tensor,
    hidden: torch.Tensor,
    queries: torch.Tensor,
) -> None:
    error, counts = _errors(predictions, goals, queries), _at(hidden, queries)
    loss_among(
        {
            "queries on visible tokens": error[~counts].mean(),
            "all queries": error.mean(),
            "queries on hidden tokens": error[counts].mean(),
        },
        result,
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
            "the rolls add up: at each time step, roll the queue of the beginning, by start + 1 + step": (
                _rolled_again
            ),
            "`ratio` is ignored: the first int(4·ratio) entries of the queue are off": (
                lambda shape, ratio, start: running_cell(shape, 0.5, start)
            ),
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
            "the rows of the cell are rolled separately: roll the queue of four, then reshape it": (
                _along_rows
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
                lambda hidden, queried: _all_are_targets(hidden, queried & hidden)
            ),
            "all queries are targets: index `hidden` with the queries, and exclude the "
            "visible tokens": _of_mask(_all_are_targets),
            "`targets` contains token indices: use indices into `queries`": _of_mask(_token_numbers),
            "the pairs that nonzero() gives are returned: keep the second column, reshaped to one row "
            "per clip": _of_mask(
                lambda hidden, queried: (
                    (~hidden).nonzero(), queried.nonzero(), hidden.gather(1, _columns(queried)).nonzero()
                )
            ),
            "the pairs that nonzero() gives are returned, and the targets are tokens: keep the second "
            "column, reshaped to one row per clip, and look the queries up in `hidden`": _of_mask(
                lambda hidden, queried: (
                    (~hidden).nonzero(), queried.nonzero(), (hidden & queried).nonzero()
                )
            ),
            "the targets are looked up in the first Q tokens: index `hidden` with the queries": _of_mask(
                lambda hidden, queried: (
                    _columns(~hidden), _columns(queried), _first_tokens(hidden, queried)
                )
            ),
            "the targets are the queries on visible tokens: use the queries on hidden tokens "
            "instead": _of_mask(
                lambda hidden, queried: (
                    _columns(~hidden), _columns(queried), _columns(~_at(hidden, _columns(queried)))
                )
            ),
            "`visible` lacks some visible tokens: include every token that is not hidden, "
            "since dual masking does not reduce the encoder's input": _of_mask(
                lambda hidden, queried: (
                    _columns(~hidden & queried), _columns(queried), dual_mask(hidden, queried).targets
                )
            ),
            "`visible` lists the hidden tokens: negate `hidden` first": _of_mask(
                lambda hidden, queried: (
                    _columns(hidden), _columns(queried), dual_mask(hidden, queried).targets
                )
            ),
            "visible and hidden tokens are swapped: take the visible tokens where `hidden` is "
            "False": (
                lambda hidden, queried: dual_mask(~hidden, queried)
            ),
            "the queries are taken where `queried` is False: take them where it is True instead": (
                lambda hidden, queried: dual_mask(hidden, ~queried)
            ),
            "every clip gets the first clip's indices: use each clip's own row of `hidden` "
            "and `queried`": lambda *case: dual_mask(
                *(x[:1].expand_as(x) for x in case)
            ),
        },
        draw=_draw_mask,
    ),
    module_exercise(
        "08.DualMasked",
        DualMasked,
        _model_cases,
        {
            "all queries are returned: keep the targets only, (B, M, P)": _AllPredictions,
            "the whole sequence is returned: keep the targets only, (B, M, P)": _AllTokens,
            "the targets are picked from the start of the sequence, where the visible tokens are: add V to "
            "mask.targets, since the queries come after them": _FromTheStart,
            "the last M tokens are returned: pick the queries at mask.targets": _LastTokens,
            "the sequence gets the positions of the first V + Q tokens: use decoder_pos_embed[mask.visible] "
            "and decoder_pos_embed[mask.queries]": _PositionsInOrder,
            "the encoder sees all tokens: pass mask.visible to forward_features": _SeesAll,
            "the first M queries are returned: pick the queries at mask.targets": _FirstQueries,
            "mask tokens are made for the targets only: queries on visible tokens stay in the sequence, as "
            "published": _TargetsOnly,
            "every hidden position gets a mask token, as in V1: make them for mask.queries only": (
                _EveryHidden
            ),
            "visible tokens that are not queried are dropped: encode all of mask.visible, since dual masking "
            "takes nothing from the encoder": _SeesQueriesOnly,
            "the mask tokens have no positions, so all predictions of a clip are alike: add "
            "decoder_pos_embed[mask.queries]": _NoQueryPositions,
            "the visible tokens lack their positions in the decoder: add decoder_pos_embed[mask.visible]": (
                _NoVisiblePositions
            ),
            "the mask tokens get the positions of the first Q tokens: use decoder_pos_embed[mask.queries]": (
                _FirstPositions
            ),
            "the mask token is missing: add self.mask_token to the positions of the queries": _NoMaskToken,
            "decoder.norm is missing before decoder.head": _NoNorm,
            "the decoder's blocks are missing: apply each of decoder.blocks": _NoBlocks,
        },
        draw=_draw_model,
        weights=_model_weights,
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
            # Tubes repeat, so the first Q tokens and the last Q give the same weights.
            "the right number of queries counts, but not the right ones: which token does each "
            "weight belong to?": _weighted(
                lambda hidden, queries: hidden[:, : queries.shape[1]]
            ),
            "each clip's weights come from every clip's queries: take its own, e.g. hidden.gather(1, "
            "queries)": _every_clip,
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
            "2·D parameters per block are missing: the biases of queries and values, or half of the norms' "
            "(a block has two, each with a weight and a bias)": (
                lambda c, classes: _parameters(c, classes, biases=0)
            ),
            "the attention has no biases: add 2·D for queries and values, and D for the projection": (
                lambda c, classes: _parameters(c, classes, biases=-1)
            ),
            "the MLP has no biases: each of its two layers has one": lambda c, classes: _parameters(
                c, classes, extra=-c.depth * (int(c.embed_dim * c.mlp_ratio) + c.embed_dim)
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
