"""Figures and players for notebooks: readable on light and dark pages, each with alt text."""

from vmae.course.viz.charts import bars, seeds, spreads, timeline
from vmae.course.viz.dependence import dependence
from vmae.course.viz.explorer import explorer
from vmae.course.viz.masks import roles
from vmae.course.viz.performance import roofline, stacked
from vmae.course.viz.pictures import pictures, player, tiles
from vmae.course.viz.progress import LiveCurve, track
from vmae.figures.charts import confusion, curves, lines, table
from vmae.figures.figure import INK, PALETTE, show, style
from vmae.figures.report import results, write_report
from vmae.figures.strips import film_strips, to_frames
