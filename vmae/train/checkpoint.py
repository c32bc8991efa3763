"""Checkpoints: weights as safetensors, the rest of a run's state beside them; whole or not there."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vmae.config import Config, FinetuneConfig
from vmae.data.encode import atomic_path, write_text
from vmae.vit import VisionTransformer


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message says why and what to do."""


def save_weights(
    model: nn.Module, path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a model's parameters as one safetensors file."""
    state = {
        name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata)


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


def save_state(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, keep: int
) -> None:
    """Write step-NNNNNN below `folder` whole, then remove all but the newest `keep`."""
    target = folder / f"step-{step:08d}"
    shutil.rmtree(target, ignore_errors=True)  # one that was damaged
    with atomic_path(target) as temporary:
        temporary.mkdir()
        save_weights(model, temporary / "model.safetensors")
        torch.save({"optimizer": optimizer.state_dict()}, temporary / "state.pt")
        (temporary / "step.json").write_text(json.dumps({"step": step}))
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore the newest checkpoint that is whole; returns its step, 0 where there is none.

    A damaged one is passed over with a warning. Raises CheckpointError for another model's.
    """
    for path in reversed(_steps(folder)):
        try:
            step = int(json.loads((path / "step.json").read_text())["step"])
            state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes the readers raise
            warnings.warn(f"{path} is damaged ({error}); trying the one before it", stacklevel=2)
            continue
        load_weights(model, path / "model.safetensors")
        optimizer.load_state_dict(state["optimizer"])
        return step
    return 0


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def differences(found: dict[str, Any], asked: dict[str, Any], where: str = "") -> list[str]:
    """What differs between two configurations as dicts, one line a field."""
    lines = []
    for key in sorted(found.keys() | asked.keys()):
        a, b = found.get(key), asked.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{where}{key}.")
        elif a != b:
            lines.append(f"{where}{key}: {a!r} there, {b!r} asked")
    return lines


def claim_run(folder: Path, config: Config, resume: bool, free: tuple[str, ...]) -> None:
    """Make `folder` the run of `config`: new, or with `resume` the same run again.

    Fields named in `free` may change on resuming. Raises CheckpointError where the folder holds
    a run and `resume` is off, or a run of another configuration (with the differences).
    """
    saved = folder / "config.yaml"
    if saved.exists():
        if not resume:
            raise CheckpointError(
                f"{folder} holds a run already: set resume to go on with it, or give another folder"
            )
        found = type(config).from_yaml(saved).to_dict()
        lines = [d for d in differences(found, config.to_dict()) if d.split(":")[0] not in free]
        if lines:
            listed = "\n  ".join(lines)
            raise CheckpointError(
                f"{folder} holds a run of another configuration:\n  {listed}\nGive another folder, or "
                "the old values"
            )
    with atomic_path(saved) as temporary:
        config.to_yaml(temporary)


def save_classifier(
    model: VisionTransformer, classes: Sequence[str], config: FinetuneConfig, folder: str | Path
) -> None:
    """Write a classifier's folder: model.safetensors, classes.txt, config.yaml."""
    folder = Path(folder)
    save_weights(model, folder / "model.safetensors")
    write_text(folder / "classes.txt", "\n".join(classes) + "\n")
    with atomic_path(folder / "config.yaml") as temporary:
        config.to_yaml(temporary)


def load_classifier(
    folder: str | Path,
) -> tuple[VisionTransformer, tuple[str, ...], FinetuneConfig]:
    """Read what `save_classifier` wrote: the model, its class names, its configuration."""
    folder = Path(folder)
    config = FinetuneConfig.from_yaml(folder / "config.yaml")
    classes = tuple((folder / "classes.txt").read_text(encoding="utf-8").splitlines())
    model = VisionTransformer(config.model, len(classes))
    load_weights(model, folder / "model.safetensors")
    model.class_names = classes
    return model.eval(), classes, config
