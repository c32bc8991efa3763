"""Figures: their style and colours, charts, film strips, and the report of a classifier."""

from vmae.figures.charts import confusion, curves, lines, table
from vmae.figures.figure import INK, PALETTE, show, style
from vmae.figures.report import results
from vmae.figures.report_page import write_report
from vmae.figures.strips import film_strips, to_frames
