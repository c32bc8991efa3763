"""Figures and players for notebooks: readable on light and dark pages, each with alt text."""

from vmae.viz.charts import bars, confusion, curves, seeds, table, timeline
from vmae.viz.core import INK, PALETTE, show, style
from vmae.viz.explorer import explorer
from vmae.viz.pictures import film_strips, pictures, player, tiles, to_frames
from vmae.viz.progress import LiveCurve, track

__all__ = [
    "INK",
    "PALETTE",
    "LiveCurve",
    "bars",
    "confusion",
    "curves",
    "explorer",
    "film_strips",
    "pictures",
    "player",
    "seeds",
    "show",
    "style",
    "table",
    "tiles",
    "timeline",
    "to_frames",
    "track",
]
