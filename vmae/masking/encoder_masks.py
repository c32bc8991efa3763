"""Encoder masks: each scheme draws the visible tokens (B, V), ascending."""

from __future__ import annotations

from collections.abc import Callable

import torch

from vmae.config import MASK_TYPES
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


#: Schemes by name, but for the tube, which has a length too.
_SCHEMES: dict[str, Callable[..., torch.Tensor]] = {
    "random": random_visible,
    "frame": frame_visible,
}


_OWN = tuple(MASK_TYPES)


def register_mask(name: str, draw: Callable[..., torch.Tensor]) -> None:
    """Make a scheme of your own a `mask_type`, in this process.

    draw(grid, ratio, batch, generator, device) returns the visible tokens (B, V) int64, on `device`: the
    same number for every clip, ascending, without repetition, drawn with `generator` alone, so that a
    resumed run repeats them. `choose` in vmae.masking.mask draws so many of so many; registering a
    name again replaces its scheme. Raises ValueError for a name that the package has itself.
    """
    if name in _OWN:
        raise ValueError(f"{name!r} is one of the package's own masks: choose another name")
    _SCHEMES[name] = draw
    if name not in MASK_TYPES:
        MASK_TYPES.append(name)


def draw_visible(
    name: str,
    grid: TokenGrid,
    ratio: float,
    batch: int,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> torch.Tensor:
    """Visible tokens (B, V) of a scheme, by name. Raises MaskError for what is not a mask."""
    visible = _SCHEMES[name](grid, ratio, batch, generator, device)
    count = visible.shape[-1] if visible.ndim else 0
    if (
        visible.shape != (batch, count)
        or visible.dtype != torch.int64
        or not 0 < count < grid.num_tokens
    ):
        raise MaskError(
            f"mask {name!r} returned {visible.dtype} of shape {tuple(visible.shape)}; it must return int64 "
            f"token indices ({batch}, V), with V from 1 to {grid.num_tokens - 1}"
        )
    if name not in _OWN and visible.device.type == "cpu":  # a GPU would have to wait for the answer
        rising = bool((visible.diff(dim=1) > 0).all())
        if not rising or visible.min() < 0 or visible.max() >= grid.num_tokens:
            raise MaskError(
                f"mask {name!r} returned indices from {visible.min()} to {visible.max()}; each row must "
                f"rise, name no token twice, and lie between 0 and {grid.num_tokens - 1}: sort it"
            )
    return visible
