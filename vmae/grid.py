"""The token grid: how a clip is cut into tubelets, and how to patchify and unpatchify it.

Tokens are ordered by time, then row, then column. Within a token, pixels are ordered by frame, row,
column and channel (channel fastest), as in the targets of MAE and VideoMAE.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange


@dataclass(frozen=True)
class TokenGrid:
    """A clip of shape (T, H, W) cut into tubelets of shape (p_t, p_h, p_w).

    Raises ValueError if a side is not divisible, and suggests the nearest sizes that are.

    >>> TokenGrid((16, 224, 224), (2, 16, 16)).shape
    (8, 14, 14)
    """

    clip: tuple[int, int, int]
    tubelet: tuple[int, int, int]
    channels: int = 3

    def __post_init__(self) -> None:
        names = ("clip length", "height", "width")
        for name, size, step in zip(names, self.clip, self.tubelet, strict=True):
            if size < 1 or step < 1:
                raise ValueError(
                    f"{name} is {size} and the tubelet size is {step}; both must be at least 1"
                )
            if size % step:
                below, above = size // step * step, (size // step + 1) * step
                nearest = f"{above}" if below == 0 else f"{below} or {above}"
                raise ValueError(
                    f"{name} {size} is not divisible by tubelet size {step}: use {nearest}, "
                    f"or change the tubelet, {self.tubelet}"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(t, h, w): number of tubelets along time, rows and columns."""
        (T, H, W), (p_t, p_h, p_w) = self.clip, self.tubelet
        return T // p_t, H // p_h, W // p_w

    @property
    def num_tokens(self) -> int:
        """N = t·h·w."""
        t, h, w = self.shape
        return t * h * w

    @property
    def tokens_per_frame(self) -> int:
        """h·w: tokens per time step."""
        return self.shape[1] * self.shape[2]

    @property
    def token_dim(self) -> int:
        """P = p_t·p_h·p_w·C: values per token."""
        p_t, p_h, p_w = self.tubelet
        return p_t * p_h * p_w * self.channels


def patchify(clips: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """Cut clips (B, C, T, H, W) into tokens (B, N, P).

    Raises ValueError if the clips do not have the grid's shape.

    >>> patchify(torch.zeros(1, 3, 16, 224, 224), TokenGrid((16, 224, 224), (2, 16, 16))).shape
    torch.Size([1, 1568, 1536])
    """
    expected = (grid.channels, *grid.clip)
    if clips.ndim != 5 or tuple(clips.shape[1:]) != expected:
        raise ValueError(
            f"clips of shape {tuple(clips.shape)} do not fit the grid: "
            f"expected (B, C, T, H, W) = (B, {', '.join(map(str, expected))})"
        )
    p_t, p_h, p_w = grid.tubelet
    return rearrange(
        clips,
        "b c (t p_t) (h p_h) (w p_w) -> b (t h w) (p_t p_h p_w c)",
        p_t=p_t,
        p_h=p_h,
        p_w=p_w,
    )


def unpatchify(tokens: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """Reassemble clips (B, C, T, H, W) from tokens (B, N, P): the inverse of `patchify`."""
    if tokens.ndim != 3 or tuple(tokens.shape[1:]) != (grid.num_tokens, grid.token_dim):
        raise ValueError(
            f"tokens of shape {tuple(tokens.shape)} do not fit the grid: "
            f"expected (B, N, P) = (B, {grid.num_tokens}, {grid.token_dim})"
        )
    (t, h, w), (p_t, p_h, p_w) = grid.shape, grid.tubelet
    return rearrange(
        tokens,
        "b (t h w) (p_t p_h p_w c) -> b c (t p_t) (h p_h) (w p_w)",
        t=t,
        h=h,
        w=w,
        p_t=p_t,
        p_h=p_h,
        p_w=p_w,
    )


def gather_tokens(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Select the tokens at `index` (B, K) of `tokens` (B, N, ...) or (1, N, ...): (B, K, ...).

    Rows of one long list, in and out: on a CPU, with the backward pass, 1.3 to 2.5 times as fast as
    advanced indexing and 1.6 to 5 times as fast as `torch.gather` (tests/bench/gather.py).

    >>> gather_tokens(torch.tensor([[10, 11, 12]]), torch.tensor([[2, 0]]))
    tensor([[12, 10]])
    """
    batch, count = tokens.shape[:2]
    first = count * torch.arange(batch, device=tokens.device)[:, None]  # of each clip, in the list
    rows = (first + index).flatten()
    return tokens.flatten(0, 1).index_select(0, rows).unflatten(0, index.shape)
