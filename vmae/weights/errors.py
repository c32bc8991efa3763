"""The error and the warning for checkpoints that cannot be used, or only in part."""

from __future__ import annotations

import warnings


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message says why, and what to do about it."""


def warn(text: str) -> None:
    """Warn about a file, pointing at the caller's line rather than at one in this package."""
    warnings.warn(text, stacklevel=4)
