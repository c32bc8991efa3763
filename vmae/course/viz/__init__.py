"""Figures and players for notebooks: readable on light and dark pages, each with alt text."""

from vmae.course.viz.charts import bars, spreads, timeline
from vmae.course.viz.dependence import dependence
from vmae.course.viz.explorer import explorer
from vmae.course.viz.masks import roles
from vmae.course.viz.performance import roofline, stacked
from vmae.course.viz.pictures import pictures, player, tiles
from vmae.course.viz.progress import LiveCurve, track
from vmae.figures import (
    INK,
    PALETTE,
    confusion,
    curves,
    film_strips,
    lines,
    results,
    show,
    style,
    table,
    to_frames,
    write_report,
)
