"""Decoder masks: from the visible tokens (B, V) to a `Mask` with queries and targets."""

from __future__ import annotations

from functools import lru_cache

import torch

from vmae.grid import TokenGrid
from vmae.masking.encoder_masks import random_visible
from vmae.masking.mask import (
    Mask,
    MaskError,
    all_targets,
    choose,
    complement,
    count_kept,
    with_targets,
)


def all_hidden(visible: torch.Tensor, grid: TokenGrid) -> Mask:
    """MAE and V1: query every token that the encoder does not see; all are targets."""
    return all_targets(visible, complement(visible, grid.num_tokens))


def every_token(visible: torch.Tensor, grid: TokenGrid) -> Mask:
    """MAE's ablation (section 4.1): query all tokens, with the loss on all of them."""
    tokens = torch.arange(grid.num_tokens, device=visible.device).expand(visible.shape[0], -1)
    return all_targets(visible, tokens)


def dual(
    visible: torch.Tensor, grid: TokenGrid, maps: torch.Tensor, generator: torch.Generator | None
) -> Mask:
    """V2's dual masking: the queries of each clip are one of the `maps` (K, Q), drawn at random.

    Queries at visible positions stay in the sequence but carry no loss, as in the official code.
    Every map must query each position of a frame equally often over time.
    """
    batch, device = visible.shape[0], visible.device
    drawn = torch.randint(len(maps), (batch,), generator=generator, device=device)
    queries = maps[drawn]
    # V / t positions of a frame are visible, each of them queried `times` over the clip. So the
    # overlap, and with it M, is a constant: computing it never looks at the mask's values.
    times = maps.shape[1] // grid.tokens_per_frame
    overlap = visible.shape[1] // grid.shape[0] * times
    return with_targets(visible, queries, queries.shape[1] - overlap, grid)


def dual_random(
    visible: torch.Tensor, grid: TokenGrid, ratio: float, generator: torch.Generator | None
) -> Mask:
    """V2's ablation: query random tokens, the same fraction of the visible and the hidden ones."""
    hidden = complement(visible, grid.num_tokens)
    queried = []
    for pool in (visible, hidden):
        keep = pool.shape[1] - int(ratio * pool.shape[1])
        index = choose(pool.shape[1], keep, len(pool), generator, visible.device)
        queried.append(pool.gather(1, index))
    queries = torch.cat(queried, dim=1).sort(dim=1).values
    return with_targets(visible, queries, queried[1].shape[1], grid)


def drop_visible(
    visible: torch.Tensor, grid: TokenGrid, ratio: float, generator: torch.Generator | None
) -> Mask:
    """A common misconception of dual masking: drop some of the visible tokens.

    The dropped tokens are neither encoded nor targets; they only get a mask token. With 3136 tokens,
    90 % masked and half of the rest dropped: 157 visible, 2979 queries, 2822 targets.
    """
    keep = count_kept(visible.shape[1], ratio, "visible tokens")
    index = choose(visible.shape[1], keep, len(visible), generator, visible.device)
    remaining = visible.gather(1, index)
    queries = complement(remaining, grid.num_tokens)
    mask = with_targets(visible, queries, grid.num_tokens - visible.shape[1], grid)
    return Mask(remaining, queries, mask.targets)


def independent(
    visible: torch.Tensor, grid: TokenGrid, ratio: float, generator: torch.Generator | None
) -> Mask:
    """A common misconception of dual masking: targets drawn without regard to the encoder's mask.

    So visible tokens are queried too, with loss. With 3136 tokens, 60 % hidden from the encoder and
    90 % as targets (a ratio of 0.1): 1255 visible, 2822 queries, 2822 targets.
    """
    unqueried = random_visible(grid, 1 - ratio, len(visible), generator, visible.device)
    return all_targets(visible, complement(unqueried, grid.num_tokens))


@lru_cache(maxsize=32)
def running_cell_maps(grid: TokenGrid, ratio: float) -> torch.Tensor:
    """The four query maps (4, Q) of V2's running cell, each ascending.

    A 2x2 cell with 4·ratio positions switched off is tiled over the frame and rolls by one position
    per time step; the maps differ in where they start. Source: `RunningCellMaskingGenerator`.
    Raises MaskError if the grid is odd, if the ratio is not 1/4, 1/2 or 3/4, or if the number of
    time steps is not a multiple of 4 (positions would not be queried equally often).
    """
    t, h, w = grid.shape
    if ratio not in (0.25, 0.5, 0.75):
        raise MaskError(
            f"running-cell masking masks whole quarters of each 2x2 cell, so a ratio of {ratio} is "
            "not possible: use 0.25, 0.5 or 0.75"
        )
    if h % 2 or w % 2:
        raise MaskError(
            f"running-cell masking tiles each frame with 2x2 cells, but the grid is {h}x{w} "
            "tokens: choose an img_size or tubelet with an even number of patches per side, or "
            "set decoder_mask_type to 'all'"
        )
    if t % 4:
        raise MaskError(
            f"running-cell masking repeats every 4 time steps, but the clip has {t}: use a "
            f"multiple of {4 * grid.tubelet[0]} frames, or set decoder_mask_type to 'all'"
        )
    off = int(4 * ratio)
    cell = torch.tensor([False] * off + [True] * (4 - off))  # True: queried
    maps = []
    for start in range(4):
        frames = [
            cell.roll(-(start + step + 1)).view(2, 2).repeat(h // 2, w // 2) for step in range(t)
        ]
        maps.append(torch.stack(frames).flatten().nonzero().squeeze(1))
    return torch.stack(maps)


@lru_cache(maxsize=32)
def frame_maps(grid: TokenGrid, ratio: float) -> torch.Tensor:
    """V2's ablation: query whole time steps, evenly spaced; one map (Q,) per phase."""
    t = grid.shape[0]
    keep = t - int(ratio * t)
    spacing = t / keep
    phases = max(1, int(spacing))
    positions = torch.arange(grid.tokens_per_frame)
    maps = []
    for phase in range(phases):
        steps = torch.tensor([int(i * spacing) + phase for i in range(keep)])
        maps.append((steps[:, None] * grid.tokens_per_frame + positions).flatten())
    return torch.stack(maps)


@lru_cache(maxsize=32)
def maps_on(decoder: str, grid: TokenGrid, ratio: float, device: torch.device) -> torch.Tensor:
    """The maps (K, Q) of a decoder mask, kept on the device: copying them each step would wait."""
    maps = running_cell_maps if decoder == "running-cell" else frame_maps
    return maps(grid, ratio).to(device)
