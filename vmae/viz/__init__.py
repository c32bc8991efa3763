"""Figures and players for notebooks: readable on light and dark pages, each with alt text."""

from vmae.viz.charts import bars, confusion, curves, lines, seeds, spreads, table, timeline
from vmae.viz.dependence import dependence
from vmae.viz.explorer import explorer
from vmae.viz.figure import INK, PALETTE, show, style
from vmae.viz.masks import roles
from vmae.viz.performance import roofline, stacked
from vmae.viz.pictures import film_strips, pictures, player, tiles, to_frames
from vmae.viz.progress import LiveCurve, track
from vmae.viz.report import results, write_report
