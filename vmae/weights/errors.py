"""The error and the warning for checkpoints that cannot be used, or only in part."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message says why, and what to do about it."""


def warn(text: str) -> None:
    """Warn about a file, pointing at the caller's line rather than at one in this folder."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and Path(frame.f_code.co_filename).parent == Path(__file__).parent:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
