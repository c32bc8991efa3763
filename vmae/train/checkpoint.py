"""Checkpoints: weights as safetensors, with the rest of a run's state beside them, written atomically."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from vmae.support.files import atomic_path, write_text
from vmae.weights.tensors import load_weights, write_weights


def full_state(stateful: nn.Module | torch.optim.Optimizer) -> dict[str, Any]:
    """A state dict of whole tensors, even if each process holds a shard of them (FSDP2).

    All processes must call it together.
    """
    return tree_map(
        lambda x: x.full_tensor().cpu() if isinstance(x, DTensor) else x, stateful.state_dict()
    )


@dataclass
class Checkpoint:
    """The state of a run after `step` steps, apart from the weights.

    losses   those since the last record of the log
    loss     the last logged mean, by which the best checkpoint is chosen
    skipped  steps so far that changed nothing, because a gradient was NaN or infinite
    scaler   the state of the loss scaler in fp16
    """

    step: int = 0
    optimizer: dict[str, Any] | None = None
    losses: list[float] = field(default_factory=list)
    loss: float = math.inf
    skipped: int = 0
    scaler: dict[str, Any] | None = None


def save_state(
    folder: Path,
    state: Checkpoint,
    weights: dict[str, torch.Tensor],
    keep: int,
    by_loss: bool = True,
) -> None:
    """Write step-NNNNNNNN in `folder`, then remove all but the newest `keep` and the best.

    `best.json` beside `folder` names the best: the one with the lowest logged mean loss. With
    `by_loss` false there is none: validation decides.
    """
    target = folder / f"step-{state.step:08d}"
    _remove(target)  # one that was damaged
    with atomic_path(target) as temporary:
        temporary.mkdir()
        write_weights(weights, temporary / "model.safetensors")
        kept = {"optimizer": state.optimizer, "scaler": state.scaler}
        torch.save(kept, temporary / "state.pt")
        facts = {name: getattr(state, name) for name in ("step", "loss", "losses", "skipped")}
        (temporary / "step.json").write_text(json.dumps(facts))
    best = None
    if by_loss:
        losses = {path: _loss(path) for path in _steps(folder)}
        best = min(losses, key=lambda path: (losses[path], -int(path.name[5:])))
        named = {"checkpoint": f"{folder.name}/{best.name}", "loss": losses[best]}
        write_text(folder.parent / "best.json", json.dumps(named, indent=1) + "\n")
    for old in _steps(folder)[:-keep]:
        if old != best:
            _remove(old)


def load_state(folder: Path, model: nn.Module) -> Checkpoint:
    """Restore the weights of the newest intact checkpoint; returns the rest of it.

    A damaged one is skipped with a warning. Raises CheckpointError for a checkpoint of another model.
    """
    for path in reversed(_steps(folder)):
        try:
            facts = json.loads((path / "step.json").read_text())
            state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
            with safe_open(path / "model.safetensors", "pt"):
                pass  # the header shows whether the file is complete
            found = Checkpoint(
                int(facts["step"]), state["optimizer"], facts.get("losses", []), _loss(path),
                facts.get("skipped", 0), state.get("scaler"),
            )  # fmt: skip
        except Exception as error:  # the readers raise many kinds for a damaged file
            warnings.warn(
                f"{path} is corrupt ({error}): the previous checkpoint will be used instead",
                stacklevel=2,
            )
            continue
        load_weights(model, path / "model.safetensors")
        return found
    return Checkpoint()


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any] | None) -> None:
    """Load an unsharded state into an optimizer whose parameters may be sharded."""
    if state is None:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, values in state["state"].items():
        owner = parameters[number]
        if isinstance(owner, DTensor):
            mesh, placed = owner.device_mesh, owner.placements
            for name, value in values.items():
                if value.shape == owner.shape:  # moments, unlike the step, which is a scalar
                    value = value.to(owner.device)  # every process read the same file
                    values[name] = distribute_tensor(value, mesh, placed, src_data_rank=None)
    optimizer.load_state_dict(state)


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint; 0 if there is none."""
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
