"""What the encoder sees, what the decoder is asked for, what counts: `Mask` and the schemes.

Every scheme draws whole batches on the device, with counts that are the same for every clip, so
that the training step has static shapes and never waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from vmae.config import MaskConfig
from vmae.grid import TokenGrid


@dataclass(frozen=True)
class Mask:
    """Three index tensors, one row a clip.

    visible  (B, V)  tokens the encoder sees, ascending
    queries  (B, Q)  positions that get a mask token in the decoder, ascending
    targets  (B, M)  indices into `queries`, ascending: the positions whose loss counts
    """

    visible: torch.Tensor
    queries: torch.Tensor
    targets: torch.Tensor

    @property
    def target_tokens(self) -> torch.Tensor:
        """(B, M): token indices of the positions whose loss counts."""
        return self.queries.gather(1, self.targets)

    def hidden(self, tokens: int) -> torch.Tensor:
        """(B, N) bool, True where the encoder does not see the token: for pictures and tests."""
        return _hidden(self.visible, tokens)


class MaskError(ValueError):
    """A mask that the grid does not allow; the message names value, limit and way out."""


def make_mask(
    config: MaskConfig,
    grid: TokenGrid,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Mask:
    """Draw masks for a batch of clips.

    Raises MaskError where the ratio leaves nothing visible or nothing to predict, or where the
    decoder's scheme does not fit the grid.

    >>> grid = TokenGrid((16, 224, 224), (2, 16, 16))
    >>> mask = make_mask(MaskConfig("tube", 0.9, decoder="running-cell", decoder_ratio=0.5), grid, 1)
    >>> mask.visible.shape[1], mask.queries.shape[1], mask.targets.shape[1]
    (160, 784, 704)
    """
    draw = {"random": random_visible, "frame": frame_visible}
    if config.encoder == "tube":
        visible = tube_visible(grid, config.ratio, config.tube_length, batch, generator, device)
    else:
        visible = draw[config.encoder](grid, config.ratio, batch, generator, device)
    if config.decoder == "every":
        return every_token(visible, grid)
    if config.decoder == "all" or config.decoder_ratio == 0:
        return all_hidden(visible, grid)
    if config.decoder == "drop-visible":
        return drop_visible(visible, grid, config.decoder_ratio, generator)
    if config.decoder == "random":
        return dual_random(visible, grid, config.decoder_ratio, generator)
    if config.encoder != "tube" or config.tube_length is not None:
        raise MaskError(
            f"decoder mask {config.decoder!r} hides the same number of visible tokens in every "
            "clip only with tubes over the whole clip: use encoder 'tube' without tube_length, "
            "or decoder 'all' or 'random'"
        )
    maps = _maps_on(config.decoder, grid, config.decoder_ratio, visible.device)
    return dual(visible, grid, maps, generator)


# ---- the encoder's side ------------------------------------------------------------------------


def random_visible(
    grid: TokenGrid,
    ratio: float,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Every token for itself: hide int(ratio·N) of them. Returns visible (B, V).

    As in MAE; in the notes' account, V1 masks clips so too.
    """
    keep = _keep(grid.tokens, ratio, "tokens")
    return _choose(grid.tokens, keep, batch, generator, device)


def tube_visible(
    grid: TokenGrid,
    ratio: float,
    length: int | None,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Hide int(ratio·h·w) positions, the same ones throughout a tube. Returns visible (B, V).

    `length` is in frames. None is VideoMAE's published tube, over the whole clip (V1, section
    3.3); a shorter tube draws anew every `length` frames, as the notes describe it.
    """
    t, _, _ = grid.shape
    keep = _keep(grid.positions, ratio, "positions of a frame")
    if length is None:
        steps = t
    else:
        steps, rest = divmod(length, grid.tubelet[0])
        if steps < 1 or rest or t % steps:
            raise MaskError(
                f"tube_length {length} must be a multiple of the tubelet's {grid.tubelet[0]} "
                f"frames and divide the clip's {grid.clip[0]}"
            )
    tubes = t // steps
    chosen = _choose(grid.positions, keep, batch * tubes, generator, device)
    chosen = chosen.view(batch, tubes, 1, keep).expand(-1, -1, steps, -1).reshape(batch, t, keep)
    offsets = torch.arange(t, device=device)[:, None] * grid.positions
    return (chosen + offsets).flatten(1)


def frame_visible(
    grid: TokenGrid,
    ratio: float,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Hide int(ratio·t) whole steps in time (V1, Table 1b). Returns visible (B, V)."""
    keep = _keep(grid.shape[0], ratio, "steps in time")
    chosen = _choose(grid.shape[0], keep, batch, generator, device)
    places = torch.arange(grid.positions, device=device)
    return (chosen[:, :, None] * grid.positions + places).flatten(1)


# ---- the decoder's side ------------------------------------------------------------------------


def all_hidden(visible: torch.Tensor, grid: TokenGrid) -> Mask:
    """MAE and V1: ask for every token that the encoder does not see."""
    queries = _complement(visible, grid.tokens)
    targets = torch.arange(queries.shape[1], device=visible.device).expand_as(queries)
    return Mask(visible, queries, targets)


def every_token(visible: torch.Tensor, grid: TokenGrid) -> Mask:
    """MAE's ablation (section 4.1): ask for all tokens, and count the loss on all of them."""
    tokens = torch.arange(grid.tokens, device=visible.device).expand(visible.shape[0], -1)
    return Mask(visible, tokens, tokens)


def dual(
    visible: torch.Tensor, grid: TokenGrid, maps: torch.Tensor, generator: torch.Generator | None
) -> Mask:
    """V2's dual masking: the decoder is asked at one of `maps` (K, Q), drawn for each clip.

    Queries that lie on visible tokens stay in the sequence; the loss leaves them out, as in the
    official code. The maps must ask at every position equally often over time.
    """
    batch, device = visible.shape[0], visible.device
    pick = torch.randint(len(maps), (batch,), generator=generator, device=device)
    queries = maps[pick]
    # Each position is asked `often` times, and V / t positions are visible: so many queries
    # overlap in every clip. This makes M a constant that needs no look at the mask.
    often = maps.shape[1] // grid.positions
    overlap = visible.shape[1] // grid.shape[0] * often
    return _with_targets(visible, queries, queries.shape[1] - overlap, grid)


def dual_random(
    visible: torch.Tensor, grid: TokenGrid, ratio: float, generator: torch.Generator | None
) -> Mask:
    """V2's ablation: ask at positions drawn at random, the same share of visible and hidden ones."""
    hidden = _complement(visible, grid.tokens)
    parts, kept = [], []
    for pool in (visible, hidden):
        keep = pool.shape[1] - int(ratio * pool.shape[1])
        index = _choose(pool.shape[1], keep, len(pool), generator, visible.device)
        parts.append(pool.gather(1, index))
        kept.append(keep)
    queries = torch.cat(parts, dim=1).sort(dim=1).values
    return _with_targets(visible, queries, kept[1], grid)


def drop_visible(
    visible: torch.Tensor, grid: TokenGrid, ratio: float, generator: torch.Generator | None
) -> Mask:
    """The popular account of dual masking, not the published one: drop part of the visible tokens.

    The dropped tokens are neither seen nor predicted; they only get a mask token. On 3136 tokens
    at 90 % and one half: 157 visible, 2979 queries, 2822 targets.
    """
    keep = _keep(visible.shape[1], ratio, "visible tokens")
    index = _choose(visible.shape[1], keep, len(visible), generator, visible.device)
    fewer = visible.gather(1, index)
    queries = _complement(fewer, grid.tokens)
    return Mask(
        fewer,
        queries,
        _with_targets(visible, queries, grid.tokens - visible.shape[1], grid).targets,
    )


@lru_cache(maxsize=32)
def running_cell_maps(grid: TokenGrid, ratio: float) -> torch.Tensor:
    """The four maps (4, Q) of V2's running cell: which tokens the decoder is asked for, ascending.

    A 2x2 cell with 4·ratio places switched off is tiled over the frame, and rolls by one place at
    each step in time; the maps differ in where they start. Source: `RunningCellMaskingGenerator`.
    Raises MaskError on an odd grid, on a ratio other than 1/4, 1/2, 3/4, and where the clip's
    steps in time are no multiple of 4 (positions would not be asked equally often).
    """
    t, h, w = grid.shape
    if ratio not in (0.25, 0.5, 0.75):
        raise MaskError(f"running cell has no ratio {ratio}: use 0.25, 0.5 or 0.75")
    if h % 2 or w % 2:
        raise MaskError(
            f"running cell tiles frames with 2x2 cells, and the grid is {h}x{w} tokens: use an "
            "even number of patches a side (another image or patch size), or decoder 'all'"
        )
    if t % 4:
        raise MaskError(
            f"running cell has a period of 4 steps in time, and the clip has {t}: use a multiple "
            f"of {4 * grid.tubelet[0]} frames, or decoder 'all'"
        )
    off = int(4 * ratio)
    cell = torch.tensor([False] * off + [True] * (4 - off))  # True: asked for
    maps = []
    for start in range(4):
        frames = [
            cell.roll(-(start + step + 1)).view(2, 2).repeat(h // 2, w // 2) for step in range(t)
        ]
        maps.append(torch.stack(frames).flatten().nonzero().squeeze(1))
    return torch.stack(maps)


@lru_cache(maxsize=32)
def frame_maps(grid: TokenGrid, ratio: float) -> torch.Tensor:
    """V2's ablation: ask for whole steps in time, evenly spaced; one map for each phase."""
    t = grid.shape[0]
    keep = t - int(ratio * t)
    every = t / keep
    phases = max(1, int(every))
    maps = []
    for phase in range(phases):
        steps = torch.tensor([int(i * every) + phase for i in range(keep)])
        places = torch.arange(grid.positions)
        maps.append((steps[:, None] * grid.positions + places).flatten())
    return torch.stack(maps)


@lru_cache(maxsize=32)
def _maps_on(decoder: str, grid: TokenGrid, ratio: float, device: torch.device) -> torch.Tensor:
    """The maps of a decoder mask, kept on the device: a copy at every step would wait for it."""
    maps = running_cell_maps if decoder == "running-cell" else frame_maps
    return maps(grid, ratio).to(device)


# ---- helpers -----------------------------------------------------------------------------------


def _keep(total: int, ratio: float, what: str) -> int:
    """How many stay: the official code hides int(ratio·total)."""
    hidden = int(ratio * total)
    if hidden >= total or hidden < 1:
        problem = "nothing to predict" if hidden < 1 else "nothing visible"
        raise MaskError(
            f"mask ratio {ratio} of {total} {what} leaves {problem}: use a ratio from "
            f"{1 / total:.3g} to {(total - 1) / total:.3g}"
        )
    return total - hidden


def _choose(
    total: int,
    keep: int,
    batch: int,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> torch.Tensor:
    """(batch, keep): for each row `keep` different numbers below `total`, ascending."""
    noise = torch.rand(batch, total, generator=generator, device=device)
    return noise.topk(keep, dim=1, sorted=False).indices.sort(dim=1).values


def _hidden(visible: torch.Tensor, tokens: int) -> torch.Tensor:
    shape = (visible.shape[0], tokens)
    hidden = torch.ones(shape, dtype=torch.bool, device=visible.device)
    return hidden.scatter(1, visible, False)


def _first_true(flags: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the True entries of each row, ascending, where every row has `count` of them."""
    return flags.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :count]


def _complement(visible: torch.Tensor, tokens: int) -> torch.Tensor:
    """(B, N - V): the tokens not in `visible`, ascending."""
    return _first_true(_hidden(visible, tokens), tokens - visible.shape[1])


def _with_targets(
    visible: torch.Tensor, queries: torch.Tensor, count: int, grid: TokenGrid
) -> Mask:
    """Targets: the queries that do not lie on `visible`; `count` of them in every clip."""
    asked_and_hidden = _hidden(visible, grid.tokens).gather(1, queries)
    return Mask(visible, queries, _first_true(asked_and_hidden, count))
