"""Masked autoencoders for video, built step by step: ViT, MAE, VideoMAE V1 and V2."""

from pathlib import Path

__version__ = "0.1.0"

#: The checkout that holds data/ and runs/. The package is installed from it in editable mode.
ROOT = Path(__file__).resolve().parents[1]


def at_root(path: str | Path) -> Path:
    """A path from a configuration: as it is where it exists, else relative to the checkout."""
    path = Path(path)
    return path if path.is_absolute() or path.exists() else ROOT / path
