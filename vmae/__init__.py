"""Masked autoencoders for video, built step by step: ViT, MAE, VideoMAE V1 and V2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmae.mae import MaskedAutoencoder
    from vmae.vit import VisionTransformer

__version__ = "1.0.0"

_SOURCE = Path(__file__).resolve().parents[1]
#: The folder of data/ and runs/: the checkout, or the working folder if there is no checkout.
ROOT = _SOURCE if (_SOURCE / "pyproject.toml").is_file() else Path.cwd()


def at_root(path: str | Path) -> Path:
    """Resolve a path from a configuration: unchanged if it exists, else relative to `ROOT`.

    A `~` at its start is the home folder: the shell does not expand that of `--set data.path=~/videos`.
    """
    path = Path(os.path.expanduser(path))
    return path if path.is_absolute() or path.exists() else ROOT / path


def load(path: str | Path, **options: Any) -> MaskedAutoencoder | VisionTransformer:
    """Load the model from a checkpoint in any published layout; `vmae.weights.load` has the options.

    PyTorch is imported here rather than with the package, to keep `vmae --help` fast.
    """
    from vmae.weights.loading import load

    return load(path, **options)
