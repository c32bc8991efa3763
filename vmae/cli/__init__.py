"""`vmae`, also `python -m vmae`: the package's work from the command line."""

from vmae.cli.main import main

__all__ = [
    "main",
]
