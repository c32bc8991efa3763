"""Checkpoints: weights as safetensors, the rest of a run's state beside them; whole or not there."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from vmae.config import Config, ConfigError, FinetuneConfig
from vmae.data.encode import atomic_path, write_text
from vmae.vit import VisionTransformer


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message says why and what to do."""


def save_weights(
    model: nn.Module, path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a model's parameters as one safetensors file."""
    _write_weights(full_state(model), path, metadata)


def _write_weights(
    state: dict[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def full_state(stateful: nn.Module | torch.optim.Optimizer) -> dict[str, Any]:
    """A state dict whose tensors are whole, also where processes hold shards of them (FSDP2).

    All processes must ask together.
    """
    return tree_map(
        lambda x: x.full_tensor().cpu() if isinstance(x, DTensor) else x, stateful.state_dict()
    )


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


@dataclass
class Checkpoint:
    """Where a run stands after `step` steps, beside the weights.

    losses   those since the last record of the log
    loss     the last logged mean; by it the best checkpoint is chosen
    """

    step: int = 0
    optimizer: dict[str, Any] | None = None
    losses: list[float] = field(default_factory=list)
    loss: float = math.inf


def save_state(
    folder: Path, state: Checkpoint, weights: dict[str, torch.Tensor], keep: int
) -> None:
    """Write step-NNNNNNNN below `folder` whole; then remove all but the newest `keep` and the best.

    `best.json` beside `folder` names the best: the one with the lowest logged mean loss.
    """
    target = folder / f"step-{state.step:08d}"
    _remove(target)  # one that was damaged
    with atomic_path(target) as temporary:
        temporary.mkdir()
        _write_weights(weights, temporary / "model.safetensors")
        torch.save({"optimizer": state.optimizer}, temporary / "state.pt")
        facts = {"step": state.step, "loss": state.loss, "losses": state.losses}
        (temporary / "step.json").write_text(json.dumps(facts))
    losses = {path: _loss(path) for path in _steps(folder)}
    best = min(losses, key=lambda path: (losses[path], -int(path.name[5:])))
    named = {"checkpoint": f"{folder.name}/{best.name}", "loss": losses[best]}
    write_text(folder.parent / "best.json", json.dumps(named, indent=1) + "\n")
    for old in _steps(folder)[:-keep]:
        if old != best:
            _remove(old)


def load_state(folder: Path, model: nn.Module) -> Checkpoint:
    """Restore the weights of the newest checkpoint that is whole; returns the rest of it.

    A damaged one is passed over with a warning. Raises CheckpointError for another model's.
    """
    for path in reversed(_steps(folder)):
        try:
            facts = json.loads((path / "step.json").read_text())
            state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
            with safe_open(path / "model.safetensors", "pt"):
                pass  # its header says whether the file is whole
            found = Checkpoint(
                int(facts["step"]), state["optimizer"], facts.get("losses", []), _loss(path)
            )
        except Exception as error:  # whatever a damaged file makes the readers raise
            warnings.warn(f"{path} is damaged ({error}); trying the one before it", stacklevel=2)
            continue
        load_weights(model, path / "model.safetensors")
        return found
    return Checkpoint()


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any] | None) -> None:
    """Load a whole state into an optimizer whose parameters may be sharded by now."""
    if state is None:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, values in state["state"].items():
        owner = parameters[number]
        if isinstance(owner, DTensor):
            mesh, placed = owner.device_mesh, owner.placements
            for name, value in values.items():
                if value.shape == owner.shape:  # moments; the step is a scalar
                    value = value.to(owner.device)  # every process has read the same file
                    values[name] = distribute_tensor(value, mesh, placed, src_data_rank=None)
    optimizer.load_state_dict(state)


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    steps = _steps(folder)
    return int(steps[-1].name[5:]) if steps else 0


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _loss(path: Path) -> float:
    """The logged mean loss at a checkpoint; infinite where it is not known."""
    try:
        loss = float(json.loads((path / "step.json").read_text()).get("loss", math.inf))
    except (OSError, ValueError):
        return math.inf
    return math.inf if math.isnan(loss) else loss


def _remove(path: Path) -> None:
    """Remove a checkpoint so that it is never seen half there, even if this is interrupted."""
    if path.exists():
        gone = path.with_name(f".{path.name}.part")
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a run's folder."""
    for place in (folder, folder / "checkpoints"):
        for part in place.glob(".*.part"):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


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
    if saved.exists() and not resume:
        raise CheckpointError(
            f"{folder} holds a run already: set resume to go on with it, or give another folder"
        )
    refuse_other(folder, config, free)
    with atomic_path(saved) as temporary:
        config.to_yaml(temporary)


def refuse_other(folder: Path, config: Config, free: tuple[str, ...] = ()) -> None:
    """Raise CheckpointError where `folder` holds a run of another configuration or kind."""
    saved = folder / "config.yaml"
    if not saved.exists():
        return
    try:
        found = type(config).from_yaml(saved).to_dict()
    except ConfigError as error:
        raise CheckpointError(
            f"{folder} holds a run that is no {type(config).__name__}: {error}\nGive another folder"
        ) from None
    lines = [d for d in differences(found, config.to_dict()) if d.split(":")[0] not in free]
    if lines:
        listed = "\n  ".join(lines)
        raise CheckpointError(
            f"{folder} holds a run of another configuration:\n  {listed}\nGive another folder, or "
            "the old values"
        )


def claim_start(folder: Path, weights: Mapping[str, torch.Tensor] | None) -> None:
    """Note what a fine-tuning in `folder` begins from: a hash of `weights`; None: from scratch.

    Raises CheckpointError where the run began from something else.
    """
    start = "scratch"
    if weights is not None:
        digest = hashlib.sha256()
        for name, tensor in sorted(weights.items()):
            values = tensor.detach().cpu().flatten().view(torch.uint8)  # of any type
            digest.update(name.encode() + values.numpy().tobytes())
        start = f"an encoder with sha256 {digest.hexdigest()[:16]}"
    noted = folder / "start.txt"
    before = noted.read_text().strip() if noted.exists() else start
    if before != start:
        raise CheckpointError(
            f"{folder} holds a run that began from {before}, not from {start}: give the encoder that "
            "it began with, or another folder"
        )
    write_text(noted, start + "\n")


def save_classifier(
    model: VisionTransformer, classes: Sequence[str], config: FinetuneConfig, folder: str | Path
) -> None:
    """Write a classifier's folder: model.safetensors, classes.txt, config.yaml.

    Raises CheckpointError where the folder holds a run of another configuration.
    """
    folder = Path(folder)
    refuse_other(folder, config)
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
