"""What is said of a checkpoint that cannot be used, or not in full."""

from __future__ import annotations

import warnings


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message says why and what to do."""


def warn(text: str) -> None:
    """Say something about a file, with the line of who asked for it rather than one of ours."""
    warnings.warn(text, stacklevel=4)
