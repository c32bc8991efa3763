"""Masked autoencoders for video, built step by step: ViT, MAE, VideoMAE V1 and V2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmae.mae import MaskedAutoencoder
    from vmae.vit import VisionTransformer

__version__ = "0.1.0"

_SOURCE = Path(__file__).resolve().parents[1]
#: Where data/ and runs/ are: the checkout, or the working folder where the package has none.
ROOT = _SOURCE if (_SOURCE / "pyproject.toml").is_file() else Path.cwd()


def at_root(path: str | Path) -> Path:
    """A path from a configuration: as it is where it exists, else relative to `ROOT`."""
    path = Path(path)
    return path if path.is_absolute() or path.exists() else ROOT / path


def load(path: str | Path, **options: Any) -> MaskedAutoencoder | VisionTransformer:
    """The model in a checkpoint of any published layout; see `vmae.weights.load` for the options.

    PyTorch is imported here, not with the package, so that `vmae --help` stays quick.
    """
    from vmae.weights.checkpoints import load

    return load(path, **options)
