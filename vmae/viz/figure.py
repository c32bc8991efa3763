"""The style of the figures, and how they are shown: transparent, with alt text."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from vmae.viz.colours import CLASS_TOKEN, DECODER, ENCODER, PREDICTED, TARGET, VISIBLE

#: Colours that colour-blind readers can tell apart (Okabe and Ito), in order of use.
PALETTE = tuple(role.colour for role in (ENCODER, TARGET, PREDICTED, CLASS_TOKEN, DECODER, VISIBLE))
#: Grey with enough contrast on both light and dark backgrounds.
INK = "#7a7a7a"
#: Pixels of a picture per unit of its size on the page.
SHARP = 2

_STYLE: Any = {
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
    data, metadata = bundle(figure, alt)
    display(data, metadata=metadata, raw=True)
