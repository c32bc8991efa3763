"""Clips as film strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange

from vmae.figures.figure import INK, show, style


def to_frames(clip: torch.Tensor | np.ndarray) -> np.ndarray:
    """Convert a clip (C, T, H, W), uint8 or float in [0, 1], to frames (T, H, W, 3) uint8."""
    clip = torch.as_tensor(clip)
    if clip.dtype != torch.uint8:
        clip = (clip.clamp(0, 1) * 255).round().to(torch.uint8)
    frames = rearrange(clip, "c t h w -> t h w c")
    return frames.expand(*frames.shape[:3], 3).cpu().numpy()


def film_strips(
    clips: Mapping[str, torch.Tensor] | Sequence[tuple[str, torch.Tensor]],
    alt: str,
    frames: int = 8,
    grid: int | None = None,
) -> None:
    """Show clips (C, T, H, W) as rows of frames, one labelled row per clip.

    At most `frames` frames are shown, evenly spaced; `grid` is the distance in pixels between lines
    that mark patch borders.
    """
    items = list(clips.items() if isinstance(clips, Mapping) else clips)
    pictures = [to_frames(clip) for _, clip in items]
    steps = np.unique(
        np.linspace(0, len(pictures[0]) - 1, min(frames, len(pictures[0]))).round().astype(int)
    )
    size = min(1.15, 9.5 / len(steps))
    tall = max(x.shape[1] / x.shape[2] for x in pictures)  # of its width
    with style():
        figure, axes = plt.subplots(
            len(items),
            len(steps),
            figsize=(size * len(steps), size * (tall + 0.04) * len(items)),
            squeeze=False,
        )
        for row, (name, _) in enumerate(items):
            for column, step in enumerate(steps):
                axis = axes[row, column]
                axis.imshow(pictures[row][step], interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(False)
                for spine in axis.spines.values():
                    spine.set_visible(False)
                if grid:
                    height, width = pictures[row].shape[1:3]
                    for line in range(grid, max(height, width), grid):
                        axis.axhline(line - 0.5, color=INK, lw=0.4, alpha=0.6)
                        axis.axvline(line - 0.5, color=INK, lw=0.4, alpha=0.6)
                if row == 0:
                    axis.set_title(f"t={step}", fontsize=8)
            axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        figure.subplots_adjust(wspace=0.06, hspace=0.06)
    show(figure, alt)
