"""Checks of the exercises, one module per notebook: what is wrong, and the likely cause."""

from vmae.course.checks.core import CheckError, Exercise, check, exercises, notebooks, verdict
