"""What the encoder sees: each scheme gives `visible` (B, V), ascending."""

from __future__ import annotations

import torch

from vmae.grid import TokenGrid
from vmae.masking.core import MaskError, choose, count_kept


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
    keep = count_kept(grid.num_tokens, ratio, "tokens")
    return choose(grid.num_tokens, keep, batch, generator, device)


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
    keep = count_kept(grid.tokens_per_frame, ratio, "positions of a frame")
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
    chosen = choose(grid.tokens_per_frame, keep, batch * tubes, generator, device)
    chosen = chosen.view(batch, tubes, 1, keep).expand(-1, -1, steps, -1).reshape(batch, t, keep)
    offsets = torch.arange(t, device=device)[:, None] * grid.tokens_per_frame
    return (chosen + offsets).flatten(1)


def frame_visible(
    grid: TokenGrid,
    ratio: float,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Hide int(ratio·t) whole steps in time (V1, Table 1b). Returns visible (B, V)."""
    keep = count_kept(grid.shape[0], ratio, "steps in time")
    chosen = choose(grid.shape[0], keep, batch, generator, device)
    places = torch.arange(grid.tokens_per_frame, device=device)
    return (chosen[:, :, None] * grid.tokens_per_frame + places).flatten(1)
