"""Encoder masks: each scheme draws the visible tokens (B, V), ascending."""

from __future__ import annotations

import torch

from vmae.grid import TokenGrid
from vmae.masking.mask import MaskError, choose, count_kept


def random_visible(
    grid: TokenGrid,
    ratio: float,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Hide tokens, each drawn independently of its neighbours. Returns visible (B, V).

    MAE's scheme for images, of which int((1 - ratio)·N) tokens stay visible; V2's code has it for
    clips, of which int(ratio·N) are hidden. A common misconception has V1 mask clips this way too.
    """
    image = grid.shape[0] == 1
    keep = count_kept(grid.num_tokens, ratio, "tokens", round_visible=image)
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

    `length` is in frames. None is VideoMAE's published tube, over the whole clip (V1, section 3.3).
    Shorter tubes, another common misconception, are redrawn every `length` frames.
    Raises MaskError if `length` is not a multiple of the tubelet's frames that divides the clip.
    """
    t, _, _ = grid.shape
    keep = count_kept(grid.tokens_per_frame, ratio, "positions per frame")
    if length is None:
        steps = t
    else:
        steps, rest = divmod(length, grid.tubelet[0])
        if steps < 1 or rest or t % steps:
            raise MaskError(
                f"tube_length {length} must be a multiple of the tubelet length "
                f"({grid.tubelet[0]} frames) and a divisor of the clip length ({grid.clip[0]} frames)"
            )
    tubes = t // steps
    chosen = choose(grid.tokens_per_frame, keep, batch * tubes, generator, device)
    # repeat each tube's positions at all of its time steps: (B, t, keep)
    chosen = chosen.view(batch, tubes, 1, keep).expand(-1, -1, steps, -1).reshape(batch, t, keep)
    first_tokens = torch.arange(t, device=device)[:, None] * grid.tokens_per_frame  # of each step
    return (first_tokens + chosen).flatten(1)


def frame_visible(
    grid: TokenGrid,
    ratio: float,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Hide int(ratio·t) whole time steps (V1, Table 1b). Returns visible (B, V)."""
    keep = count_kept(grid.shape[0], ratio, "time steps")
    chosen = choose(grid.shape[0], keep, batch, generator, device)
    positions = torch.arange(grid.tokens_per_frame, device=device)
    return (chosen[:, :, None] * grid.tokens_per_frame + positions).flatten(1)
