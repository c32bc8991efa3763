"""What a mask gives away to those who have learned nothing: mean squared errors of copiers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from einops import rearrange

from vmae.grid import TokenGrid
from vmae.masking import Mask, make_mask
from vmae.train.config import PretrainConfig

#: Clips that are looked at, and the velocities that are tried, in pixels per frame of 8.
CLIPS, VELOCITIES = 128, np.arange(-2, 2.01, 0.5)


def copying_errors(
    pixels: np.ndarray,
    config: PretrainConfig,
    wraps: bool,
    velocities: Sequence[float] | np.ndarray = VELOCITIES,
) -> dict[str, float]:
    """Errors on the hidden pixels of clips (N, T, H, W) or (N, T, H, W, 3) uint8, in [0, 1] squared.

    wraps       whether what leaves a frame on one side comes in on the other
    velocities  tried in both directions by the oracle; none: without it

    mean     the mean visible pixel of the clip
    blend    all visible tokens, weighted by 1 / distance², steps and positions counted alike
    copy     the same place at the nearest time at which it is visible, else the blend
    moving   the same, along the constant velocity that copies this clip best: an oracle
    """
    if pixels.ndim == 5:  # the mean of the colours, each under the same masks
        each = [copying_errors(x, config, wraps, velocities) for x in np.moveaxis(pixels, -1, 0)]
        return {name: round(sum(e[name] for e in each) / len(each), 5) for name in each[0]}
    chosen = np.linspace(0, len(pixels) - 1, min(CLIPS, len(pixels))).astype(int)
    clips = pixels[chosen] / 255
    grid = config.model.grid
    generator = torch.Generator().manual_seed(0)
    mask = make_mask(config.mask, grid, len(clips), generator)
    hidden_tokens, hidden = mask.hidden(grid.num_tokens), hidden_pixels(mask, grid)

    def errors(guess: np.ndarray) -> np.ndarray:
        return (np.square(guess - clips) * hidden).sum((1, 2, 3)) / hidden.sum((1, 2, 3))

    seen = (clips * ~hidden).sum((1, 2, 3), keepdims=True) / (~hidden).sum((1, 2, 3), keepdims=True)
    blend = _blend(clips, hidden_tokens.numpy(), grid)
    moving = [
        errors(_copy(clips, hidden, blend, np.array(v) * 8 / clips.shape[1], wraps))
        for v in product(velocities, velocities)
    ]
    found = {
        "mean": errors(np.broadcast_to(seen, clips.shape)),
        "blend": errors(blend),
        "copy": errors(_copy(clips, hidden, blend, np.zeros(2), wraps)),
    }
    if moving:
        found["moving"] = np.min(moving, axis=0)
    return {name: round(float(values.mean()), 5) for name, values in found.items()}


def hidden_pixels(mask: Mask, grid: TokenGrid) -> np.ndarray:
    """(B, T, H, W) bool: the pixels of hidden tokens."""
    p_t, p_h, p_w = grid.tubelet
    tokens = mask.hidden(grid.num_tokens).numpy().reshape(-1, *grid.shape)
    return tokens.repeat(p_t, 1).repeat(p_h, 2).repeat(p_w, 3)


def _blend(clips: np.ndarray, hidden: np.ndarray, grid: TokenGrid) -> np.ndarray:
    """Every token as the weighted mean of the visible ones, (B, T, H, W)."""
    t, h, w = grid.shape
    p_t, p_h, p_w = grid.tubelet
    places = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    apart = np.square(places[:, None] - places).sum(-1)  # (N, N)
    weights = 1 / np.maximum(apart, 1) * ~hidden[:, None]  # (B, N, N)
    weights /= weights.sum(-1, keepdims=True)
    parts = {"t": t, "h": h, "w": w, "i": p_t, "j": p_h, "k": p_w}
    tokens = rearrange(clips, "b (t i) (h j) (w k) -> b (t h w) (i j k)", **parts)
    return rearrange(weights @ tokens, "b (t h w) (i j k) -> b (t i) (h j) (w k)", **parts)


def _copy(
    clips: np.ndarray, hidden: np.ndarray, guess: np.ndarray, velocity: np.ndarray, wraps: bool
) -> np.ndarray:
    """Hidden pixels from the nearest visible time, along `velocity` (rows, columns per frame)."""
    filled, open_ = np.where(hidden, guess, clips), hidden.copy()
    frames, size = clips.shape[1], clips.shape[2]
    places = np.arange(size)
    for distance in range(1, frames):
        for step in (-distance, distance):  # the earlier of two
            shift = np.rint(velocity * step).astype(int)
            rolled = (-step, -int(shift[0]), -int(shift[1]))
            usable = ~np.roll(hidden, rolled, axis=(1, 2, 3)) & open_
            usable &= _inside(np.arange(frames) + step, frames)[:, None, None]
            if not wraps:
                usable &= _inside(places + shift[0], size)[:, None]
                usable &= _inside(places + shift[1], size)
            filled = np.where(usable, np.roll(clips, rolled, axis=(1, 2, 3)), filled)
            open_ &= ~usable
    return filled


def _inside(index: np.ndarray, length: int) -> np.ndarray:
    return (index >= 0) & (index < length)
