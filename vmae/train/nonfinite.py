"""Steps whose loss or gradients are NaN or infinite: what is to blame, and whether the run may continue."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from vmae.support.files import atomic_path
from vmae.train.checkpoint import newest_step

if TYPE_CHECKING:
    from vmae.train.run import Run


def check_finite(run: Run, losses: Mapping[int, float], lr: float) -> None:
    """Save the clips of steps whose loss is not finite; raise if the run is to stop at one.

    losses   by step, over all processes
    """
    new = [s for s, x in losses.items() if x - x != 0 and s not in run.reported]
    run.reported.update(new)
    for number in new[:1] if run.config.on_nonfinite == "stop" else new:
        blame = _save_clips(run, number)
        if run.config.on_nonfinite == "stop":
            kept = newest_step(run.folder / "checkpoints") if run.folder else 0
            fp16 = "; fp16 ends at 65504, so precision fp32 may help" if run.scaler else ""
            raise nonfinite_error(losses[number], number, lr, fp16 + blame, kept)
        if run.main:
            text = f"the loss at step {number} is {losses[number]}: skipping this step{blame}"
            warnings.warn(text, stacklevel=3)


def check_scale(run: Run, step: int, lr: float) -> None:
    """Raise FloatingPointError if gradients overflow in fp16 even where the loss is not scaled up.

    Before that, a step whose gradients overflow is no failure: it is how the scale is found.
    """
    if run.scaler and (scale := run.scaler.get_scale()) < 1:
        kept = newest_step(run.folder / "checkpoints") if run.folder else 0
        losses = f", {len(run.reported)} of them for a NaN or infinite loss" if run.reported else ""
        raise FloatingPointError(
            f"gradients overflow in fp16 at step {step}, although the loss scale is down to {scale:g} "
            f"({int(run.log.skipped)} steps were skipped{losses}): lower the learning "
            f"rate (now {lr:.2g}), lengthen the warm-up, or set precision to fp32 in a new folder"
            + (f"; the checkpoint of step {kept} is kept" if kept else "")
        )


@torch.no_grad()
def _save_clips(run: Run, step: int) -> str:
    """Read the clips of a step again, save those of this process, and name the culprits."""
    videos, batch = run.batches.reread(step)
    losses, tensors = run.inspect(step, batch)
    rows = (~losses.isfinite()).nonzero().flatten().tolist()
    blamed = sorted({videos[row // run.config.repeated_aug] for row in rows}) or videos
    text = f"; its clips are from {', '.join(blamed[:5])}"
    text += " and others" if len(blamed) > 5 else ""
    if run.folder:
        path = run.folder / f"nonfinite-step-{step:08d}-{run.rank}.safetensors"
        save_batch(path, tensors, videos)
        text += f", saved in {path}"
    return text


def save_batch(path: Path, tensors: Mapping[str, torch.Tensor], videos: Sequence[str]) -> None:
    """Save a batch for inspection: its tensors, and the paths of its videos in the metadata."""
    with atomic_path(path) as temporary:
        whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(whole, temporary, {"videos": "\n".join(videos)})


def nonfinite_error(
    loss: float, step: int, lr: float, more: str = "", kept: int = 0
) -> FloatingPointError:
    """The error for a NaN or infinite loss.

    more   the clips to blame        kept   the step of the newest checkpoint; 0 if there is none
    """
    checkpoint = f"; the checkpoint of step {kept} is kept" if kept else ""
    return FloatingPointError(
        f"the loss is {loss} at step {step}: lower the learning rate (now {lr:.2g}), lengthen the "
        f"warm-up, or set clip_grad{checkpoint}{more}"
    )
