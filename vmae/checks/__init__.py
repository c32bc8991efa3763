"""Checks of the exercises, one module a notebook: what is wrong, and the likely cause."""

from vmae.checks.core import CheckError, check, exercises, notebooks, solved

__all__ = ["CheckError", "check", "exercises", "notebooks", "solved"]
