"""The style of the figures, and how they are shown: transparent, with alt text."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from cycler import cycler
from IPython.display import display
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image, ImageFont

from vmae.figures.colours import CLASS_TOKEN, DECODER, ENCODER, PREDICTED, TARGET, VISIBLE

#: Colours that colour-blind readers can tell apart (Okabe and Ito), in order of use.
PALETTE = tuple(role.colour for role in (ENCODER, TARGET, PREDICTED, CLASS_TOKEN, DECODER, VISIBLE))
#: Grey with enough contrast on both light and dark backgrounds.
INK = "#7a7a7a"
#: Pixels of a picture per unit of its size on the page.
SHARP = 2

#: Fonts for letters that Matplotlib's own lacks, such as those of Chinese names, where installed.
_FONTS = ("Noto Sans CJK TC", "Noto Sans CJK JP", "PingFang TC", "Hiragino Sans", "Microsoft JhengHei",
          "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS")  # fmt: skip

_STYLE: Any = {
    "font.family": [
        "DejaVu Sans",
        *sorted({f.name for f in font_manager.fontManager.ttflist} & set(_FONTS), key=_FONTS.index),
    ],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
    "font.size": 10,
    "figure.dpi": 110,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the course's style: transparent background, grey ink, the palette above."""
    with plt.rc_context(_STYLE):
        yield


def _png(figure: Figure) -> tuple[bytes, tuple[int, int]]:
    """A figure as PNG, sharp on a screen with two pixels per unit, and its size in units; closes it.

    256 colours, some of them see-through, keep it smaller than half the resolution in all colours.
    """
    drawn, buffer = io.BytesIO(), io.BytesIO()
    dpi = SHARP * _STYLE["figure.dpi"]
    figure.savefig(drawn, format="png", bbox_inches="tight", dpi=dpi)
    plt.close(figure)
    picture = Image.open(drawn).convert("RGBA").quantize(256, Image.Quantize.FASTOCTREE)
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue(), (picture.width // SHARP, picture.height // SHARP)


def bundle(figure: Figure, alt: str) -> tuple[dict[str, str], dict[str, Any]]:
    """A figure as Jupyter data and metadata: the PNG, its size on the page, and its alt text in both."""
    png, (width, height) = _png(figure)
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": alt}
    return data, {"image/png": {"alt": alt, "width": width, "height": height}}


def show(figure: Figure, alt: str) -> None:
    """Display a figure with alt text in a notebook, and close it."""
    publish(*bundle(figure, alt))


#: Parts of the page that is being written; None: a notebook is shown everything.
_page: ContextVar[list[str] | None] = ContextVar("_page", default=None)


@contextmanager
def page() -> Iterator[list[str]]:
    """Inside, what would be displayed in a notebook becomes parts of an HTML page, in order."""
    parts: list[str] = []
    before = _page.set(parts)
    try:
        yield parts
    finally:
        _page.reset(before)


def publish(data: dict[str, str], metadata: dict[str, Any] | None = None) -> None:
    """Display Jupyter data, a PNG or HTML, in a notebook or as a part of the `page`."""
    parts = _page.get()
    if parts is None:
        display(data, metadata=metadata, raw=True)
    elif "image/png" in data:
        alt, width = (metadata or {})["image/png"]["alt"], (metadata or {})["image/png"]["width"]
        source = f"data:image/png;base64,{data['image/png']}"
        parts.append(f'<img src="{source}" alt="{escape(alt)}" width="{width}">')
    else:
        parts.append(data["text/html"])


def paragraph(text: str, tag: str = "p") -> None:
    """Display a paragraph of text, or a heading such as "h2"."""
    publish({"text/html": f"<{tag}>{escape(text)}</{tag}>", "text/plain": text})


@lru_cache(maxsize=2)
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), 100)


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of a line in pixels, in DejaVu Sans: the widest of the fonts that a browser may choose."""
    return _font(bold).getlength(text) * size / 100
