"""Every diagram on one page, on white and on dark: `python tests/viz/gallery.py PAGE.html`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

import torch

from vmae.config import MaskConfig, ModelConfig
from vmae.course import diagrams
from vmae.course.diagrams import Diagram
from vmae.grid import TokenGrid
from vmae.layers import Attention
from vmae.train.recipe import Recipe


def small_attention() -> Diagram:
    """One small random head on four tokens, whose weights add up to 1 as printed too."""
    generator = torch.Generator().manual_seed(28)
    layer = Attention(4, 2)
    with torch.no_grad():
        layer.qkv.weight.copy_(0.7 * torch.randn(12, 4, generator=generator))
    return diagrams.attention(layer, torch.randn(4, 4, generator=generator))


_B, _LONG = ModelConfig.videomae("B"), ModelConfig.videomae("B", num_frames=32)
_IMAGE, _CUBES = ModelConfig.mae("B"), TokenGrid((16, 96, 96), (2, 16, 16))


def _stages() -> Diagram:
    giant, target = Recipe.load("v2-hybrid-g"), Recipe.load("v2-hybrid-g-k400")
    return diagrams.progressive_training(giant.pretrain, giant.finetune, target.finetune)


#: Every diagram by name, of the published models.
DIAGRAMS: dict[str, Callable[[], Diagram]] = {
    "key": diagrams.key,
    "vit": lambda: diagrams.vit(_IMAGE),
    "block": lambda: diagrams.block(_IMAGE),
    "attention": small_attention,
    "transformers": lambda: diagrams.transformers(_IMAGE, _IMAGE),
    "mae": lambda: diagrams.mae(_IMAGE),
    "tubelets": lambda: diagrams.tubelets(_B),
    "conv_and_linear": lambda: diagrams.conv_and_linear(_B),
    "masks": lambda: diagrams.masks(_CUBES),
    "rolling_ball": lambda: diagrams.rolling_ball(_CUBES),
    "videomae": lambda: diagrams.videomae(_LONG, _B),
    "videomae-random": lambda: diagrams.videomae(_LONG, _B, mask=MaskConfig("random", 0.9)),
    "asymmetry": lambda: diagrams.asymmetry(_B),
    "asymmetry-2000": lambda: diagrams.asymmetry(_B.replace(num_frames=40, img_size=160)),
    "dual_masking": lambda: diagrams.dual_masking(_B),
    "dual_masking-32": lambda: diagrams.dual_masking(_LONG),
    "fine_tuning": lambda: diagrams.fine_tuning(Recipe.load("v1-k400-b").finetune),
    "progressive_training": _stages,
    "data_path": lambda: diagrams.data_path(Recipe.load("v2-hybrid-b").pretrain),
}


def page() -> str:
    """The gallery as HTML, each diagram on both backgrounds with its alt text below."""
    rows = []
    for name, make in DIAGRAMS.items():
        made = make()
        rows.append(f"<h2>{name}</h2>")
        for colour in ("#fff", "#111"):
            rows.append(f'<div style="background:{colour};padding:16px">{made.html()}</div>')
        rows.append(f"<p>{escape(made.alt)}</p>")
    style = "font-family:sans-serif;max-width:892px;margin:auto;color:#555"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Diagrams</title>'
        f'<body style="{style}">{"".join(rows)}</body></html>'
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
