"""Images, matrices and patches side by side, and clips in a player."""

from __future__ import annotations

import base64
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from IPython.display import HTML, display

from vmae.data.writing.encode import write_video
from vmae.figures.figure import show, style, text_width
from vmae.figures.strips import to_frames

#: Size of the names above pictures, in points.
_NAME = 9


def player(clips: Mapping[str, torch.Tensor], alt: str, fps: int = 8, height: int = 160) -> None:
    """Play clips (C, T, H, W) side by side in a synchronised loop, with controls.

    The H.264 video is embedded in the notebook, so it needs neither a file nor the network.
    """
    gap = 4
    rows = []
    for clip in clips.values():
        frames = to_frames(clip)
        factor = max(1, round(height / frames.shape[1]))
        rows.append(frames.repeat(factor, axis=1).repeat(factor, axis=2))
    tall = max(frames.shape[1] for frames in rows)
    padded = [
        np.pad(frames, ((0, 0), (0, tall - frames.shape[1]), (0, gap), (0, 0)), constant_values=128)
        for frames in rows
    ]
    picture = np.concatenate(padded, axis=2)[:, :, :-gap]
    picture = np.pad(
        picture, ((0, 0), (0, tall % 2), (0, picture.shape[2] % 2), (0, 0)), mode="edge"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "player.mp4"
        write_video(path, np.concatenate([picture] * max(1, 16 // len(picture))), fps=fps)
        data = base64.b64encode(path.read_bytes()).decode()
    names = "".join(
        f'<span style="flex:{frames.shape[2]};text-align:center">{escape(name)}</span>'
        for name, frames in zip(clips, rows, strict=True)
    )
    display(
        HTML(
            f'<div style="width:{picture.shape[2]}px;max-width:100%">'
            f'<div style="display:flex;font-size:90%">{names}</div>'
            f'<video controls autoplay loop muted playsinline width="100%" aria-label="{escape(alt)}" '
            f'title="{escape(alt)}" src="data:video/mp4;base64,{data}"></video></div>'
        )
    )


def pictures(
    items: Mapping[str, torch.Tensor | np.ndarray]
    | Sequence[tuple[str, torch.Tensor | np.ndarray]],
    alt: str,
    height: float = 1.6,
    columns: int | None = None,
    cmap: str = "viridis",
    limits: tuple[float | None, float | None] = (None, None),
) -> None:
    """Show images and matrices side by side, with their names above.

    items     by name: images (3, H, W) or (H, W, 3), uint8 or float in [0, 1]; matrices (H, W). Pairs
              of name and picture, where names repeat
    height    of each picture, in inches
    columns   pictures per row; None: all in one row
    limits    for matrices: the values of the first and last colour; None: each matrix's own range
    """
    pairs = list(items.items() if isinstance(items, Mapping) else items)
    values = [_for_matplotlib(item) for _, item in pairs]
    across = columns or len(pairs)
    rows = -(-len(pairs) // across)
    widths = [min(4.0, max(0.4, x.shape[1] / x.shape[0])) for x in values[:across]]
    size = (height * sum(widths) + 0.15 * across, (height + 0.25) * rows)
    options: Any = {"cmap": cmap, "aspect": "auto", "interpolation": "nearest"}
    options |= {"vmin": limits[0], "vmax": limits[1]}
    with style():
        figure, axes = plt.subplots(rows, across, figsize=size, width_ratios=widths, squeeze=False)
        try:
            figure.subplots_adjust(wspace=0.08)
            for axis in axes.flat:
                axis.axis("off")
            names = [
                _wrapped(name, axis.get_position().width * size[0])
                for (name, _), axis in zip(pairs, axes.flat, strict=False)
            ]
            for axis, name, x in zip(axes.flat, names, values, strict=False):
                axis.imshow(x, **options)
                axis.set_title(name, fontsize=_NAME)
            lines = 1 + max(name.count("\n") for name in names)
            figure.subplots_adjust(hspace=(0.2 + 0.16 * lines) / height)  # for names
            show(figure, alt)
        finally:  # otherwise a failed figure appears later, unfinished and without alt text
            plt.close(figure)


def _wrapped(name: str, inches: float) -> str:
    """The name of a picture, in as many lines as keep it from running into the next one's."""
    needed = text_width(name, _NAME) / 72
    if needed <= inches:
        return name
    return textwrap.fill(name, max(1, int(len(name) * inches / needed)), break_long_words=False)


def _for_matplotlib(item: torch.Tensor | np.ndarray) -> np.ndarray:
    """A matrix unchanged; an image with channels last and values clamped to [0, 1]."""
    x = torch.as_tensor(item).detach().cpu()
    if x.ndim == 3:
        x = x.permute(1, 2, 0) if len(x) == 3 and x.shape[2] != 3 else x
        x = x.clamp(0, 1) if x.is_floating_point() else x
    return x.numpy()


def tiles(patches: torch.Tensor, columns: int, channels: int = 3) -> torch.Tensor:
    """Lay out patches (N, p·p·C) in a grid of `columns`, with white gaps: (H, W, 3)."""
    side = round((patches.shape[1] / channels) ** 0.5)
    images = rearrange(patches, "n (p q c) -> n p q c", p=side, c=channels)
    gap = max(1, side // 6)
    spaced = F.pad(images.expand(-1, -1, -1, 3), (0, 0, 0, gap, 0, gap), value=1.0)
    return rearrange(spaced, "(h w) p q c -> (h p) (w q) c", w=columns)[:-gap, :-gap].clamp(0, 1)
