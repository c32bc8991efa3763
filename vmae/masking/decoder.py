"""What the decoder is asked for, and what of it counts: from `visible` to a `Mask`."""

from __future__ import annotations

from functools import lru_cache

import torch

from vmae.grid import TokenGrid
from vmae.masking.core import Mask, MaskError, choose, complement, count_kept, with_targets


def all_hidden(visible: torch.Tensor, grid: TokenGrid) -> Mask:
    """MAE and V1: ask for every token that the encoder does not see."""
    queries = complement(visible, grid.num_tokens)
    targets = torch.arange(queries.shape[1], device=visible.device).expand_as(queries)
    return Mask(visible, queries, targets)


def every_token(visible: torch.Tensor, grid: TokenGrid) -> Mask:
    """MAE's ablation (section 4.1): ask for all tokens, and count the loss on all of them."""
    tokens = torch.arange(grid.num_tokens, device=visible.device).expand(visible.shape[0], -1)
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
    often = maps.shape[1] // grid.tokens_per_frame
    overlap = visible.shape[1] // grid.shape[0] * often
    return with_targets(visible, queries, queries.shape[1] - overlap, grid)


def dual_random(
    visible: torch.Tensor, grid: TokenGrid, ratio: float, generator: torch.Generator | None
) -> Mask:
    """V2's ablation: ask at positions drawn at random, the same share of visible and hidden ones."""
    hidden = complement(visible, grid.num_tokens)
    parts, kept = [], []
    for pool in (visible, hidden):
        keep = pool.shape[1] - int(ratio * pool.shape[1])
        index = choose(pool.shape[1], keep, len(pool), generator, visible.device)
        parts.append(pool.gather(1, index))
        kept.append(keep)
    queries = torch.cat(parts, dim=1).sort(dim=1).values
    return with_targets(visible, queries, kept[1], grid)


def drop_visible(
    visible: torch.Tensor, grid: TokenGrid, ratio: float, generator: torch.Generator | None
) -> Mask:
    """The popular account of dual masking, not the published one: drop part of the visible tokens.

    The dropped tokens are neither seen nor predicted; they only get a mask token. On 3136 tokens
    at 90 % and one half: 157 visible, 2979 queries, 2822 targets.
    """
    keep = count_kept(visible.shape[1], ratio, "visible tokens")
    index = choose(visible.shape[1], keep, len(visible), generator, visible.device)
    fewer = visible.gather(1, index)
    queries = complement(fewer, grid.num_tokens)
    return Mask(
        fewer,
        queries,
        with_targets(visible, queries, grid.num_tokens - visible.shape[1], grid).targets,
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
        places = torch.arange(grid.tokens_per_frame)
        maps.append((steps[:, None] * grid.tokens_per_frame + places).flatten())
    return torch.stack(maps)


@lru_cache(maxsize=32)
def maps_on(decoder: str, grid: TokenGrid, ratio: float, device: torch.device) -> torch.Tensor:
    """The maps of a decoder mask, kept on the device: a copy at every step would wait for it."""
    maps = running_cell_maps if decoder == "running-cell" else frame_maps
    return maps(grid, ratio).to(device)
