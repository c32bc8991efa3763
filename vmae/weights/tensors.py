"""Save and load a model's parameters as a single safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vmae.support.files import atomic_path
from vmae.weights.errors import CheckpointError


def save_weights(
    model: nn.Module, path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a model's parameters to a single safetensors file, atomically."""
    write_weights(model.state_dict(), path, metadata)


def write_weights(
    state: dict[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors by name to a single safetensors file, atomically."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load parameters written by `save_weights`; all must be present and fit.

    Raises CheckpointError listing the names that are missing, unexpected or of another shape.
    """
    path = Path(path)
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the file does not exist") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is corrupt or not a safetensors file ({error})") from None
    own = model.state_dict()
    problems = [f"missing: {name}" for name in own.keys() - state.keys()]
    problems += [f"not in this model: {name}" for name in state.keys() - own.keys()]
    problems += [
        f"{name}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    if problems:
        listed = "\n  ".join(sorted(problems))
        raise CheckpointError(
            f"{path} contains a different model:\n  {listed}\nBuild the model from the "
            "checkpoint's configuration, the config.yaml file in the same folder"
        )
    model.load_state_dict(state)
