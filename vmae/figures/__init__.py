"""Figures: their style and colours, charts, film strips, and the report of a classifier."""
