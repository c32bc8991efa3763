"""A model's parameters as one safetensors file."""

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
    """Write a model's parameters as one safetensors file."""
    write_weights(model.state_dict(), path, metadata)


def write_weights(
    state: dict[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors by name as one safetensors file, whole or not at all."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Read parameters written by `save_weights`; every one must be there and fit.

    Raises CheckpointError with the names that are missing, extra or of another shape.
    """
    path = Path(path)
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged, or no safetensors file ({error})") from None
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
            f"{path} holds another model:\n  {listed}\nBuild the model with the configuration that the "
            "checkpoint was trained with (config.yaml beside it)"
        )
    model.load_state_dict(state)
