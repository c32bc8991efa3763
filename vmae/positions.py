"""Fixed sin-cos position tables, computed in float64 and rounded once to float32."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from vmae.config import ModelConfig
from vmae.grid import TokenGrid


def _angles(positions: np.ndarray, frequencies: int) -> np.ndarray:
    """(n, frequencies): position / 10000^(k / frequencies) for k = 0 .. frequencies - 1."""
    wavelengths = 10000.0 ** (np.arange(frequencies) / frequencies)
    return positions[:, None] / wavelengths


def sincos_1d(n: int, width: int) -> torch.Tensor:
    """VideoMAE's table (n, width): sines in even columns, cosines in odd ones.

    The position is the flat token index; time, rows and columns have no axes of their own.
    Source: `get_sinusoid_encoding_table`.
    """
    angles = _angles(np.arange(n, dtype=np.float64), width // 2)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(n, width)
    return torch.from_numpy(table.astype(np.float32))


def sincos_2d(rows: int, columns: int, width: int) -> torch.Tensor:
    """MAE's table (rows·columns, width): [sin of column | cos of column | sin of row | cos of row]."""
    y, x = np.divmod(np.arange(rows * columns, dtype=np.float64), columns)
    angles = [_angles(axis, width // 4) for axis in (x, y)]
    table = np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)
    return torch.from_numpy(table.astype(np.float32))


def interpolate_pos_embed(
    table: torch.Tensor, source: TokenGrid, target: TokenGrid
) -> torch.Tensor:
    """Resize a table (N, width) from one grid to another, linearly in time, rows and columns."""
    t, h, w = source.shape
    volume = rearrange(table, "(t h w) d -> 1 d t h w", t=t, h=h, w=w)
    volume = F.interpolate(volume, size=target.shape, mode="trilinear", align_corners=False)
    return rearrange(volume, "1 d t h w -> (t h w) d")


def build_pos_embed(config: ModelConfig, width: int) -> torch.Tensor:
    """Build the position table (N, width) of a model; width is that of its encoder or decoder.

    By default the table is computed for the model's own clip size, as in the official code. With
    `config.pos_embed_from` it is computed for another clip size and interpolated.
    """
    grid = config.grid
    if config.pos_embed_from is not None:
        frames, size = config.pos_embed_from
        other = config.replace(num_frames=frames, img_size=size, pos_embed_from=None)
        return interpolate_pos_embed(build_pos_embed(other, width), other.grid, grid)
    if config.family == "mae":
        t, h, w = grid.shape
        return sincos_2d(h, w, width).repeat(t, 1)
    return sincos_1d(grid.num_tokens, width)
