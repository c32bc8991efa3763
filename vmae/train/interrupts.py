"""What may end a run early: a signal, a lost process, too little memory, a loss that is no number."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from vmae.cost.memory import training_memory
from vmae.support.files import atomic_path
from vmae.train.checkpoint import newest_step
from vmae.train.config import FinetuneConfig, PretrainConfig

#: Exit status of a run that a signal stopped after it saved: "try again" (EX_TEMPFAIL).
STOPPED_STATUS = 75


class Stopped(RuntimeError):
    """A run that was asked to stop, and saved a checkpoint first."""


class LostPeer(RuntimeError):
    """Another process of the run is gone."""


class OutOfMemory(RuntimeError):
    """A step that does not fit; the message names the fields that make it smaller."""


class StopRequest:
    """Turns SIGTERM, and the first Ctrl-C, into a stop between two steps. A second Ctrl-C is one.

    With many processes each may hear the signal at another step, so they agree on one: `agreed` is
    for moments at which they wait for each other anyway.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.received = accelerator, 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Listen inside the block; signals can be heard in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._hear) for number in wanted]
        try:
            yield
        finally:
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def agreed(self) -> int:
        """The signal that any process has received, or 0; the same answer on all of them."""
        if self.accelerator.num_processes == 1:
            return self.received
        heard = torch.tensor([self.received], device=self.accelerator.device)
        # `received` stays as it is: a signal that comes meanwhile counts at the next meeting.
        return int(self.accelerator.gather(heard).max())


@contextmanager
def explained(
    config: PretrainConfig | FinetuneConfig, world: int, folder: Path | None
) -> Iterator[None]:
    """Say what a lost process, or too little memory, means for the run in `folder`.

    The precision of `config` is the one that is used, not "auto".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        memory = "allocate memory" in text or isinstance(error, MemoryError)
        if isinstance(error, torch.OutOfMemoryError) or memory:
            share = config.optim.batch_size // world
            raise OutOfMemory(_smaller(config, share, text)) from error
        named = ("gloo", "NCCL", "Connection", "Broken pipe", "recvBytes", "Socket")
        distributed = isinstance(error, torch.distributed.DistError)
        if world > 1 and (distributed or any(name in text for name in named)):
            kept = (
                f"the checkpoint of step {newest_step(folder / 'checkpoints')}"
                if folder
                else "none"
            )
            raise LostPeer(
                f"another of the {world} processes is gone ({text.splitlines()[0]}): its own message "
                f"says why. Kept: {kept}. Go on with resume, on any number of processes"
            ) from error
        raise


def _smaller(config: PretrainConfig | FinetuneConfig, batch: int, reason: str) -> str:
    """What to change after an error of memory, and by how much."""
    views = batch * config.repeated_aug // config.grad_accum_steps

    def needs(changed: PretrainConfig | FinetuneConfig, clips: int) -> str:
        return f"{training_memory(changed, clips).total / 1e9:.2g} GB"

    lines = [f"out of memory ({reason.splitlines()[0]})"]
    lines.append(f"A step of {views} clips is expected to take {needs(config, views)}. Less take:")
    parts = config.replace(grad_accum_steps=2 * config.grad_accum_steps)
    if batch % parts.grad_accum_steps == 0:
        less = needs(parts, views // 2)
        lines.append(f"  grad_accum_steps: {parts.grad_accum_steps}  {less}, the same numbers")
    if not config.activation_checkpointing:
        less = needs(config.replace(activation_checkpointing=True), views)
        lines.append(
            f"  activation_checkpointing: true  {less}, the same numbers, a third more work"
        )
    if config.precision == "fp32":
        less = needs(config.replace(precision="bf16"), views)
        lines.append(f"  precision: bf16  {less}, in a new folder")
    smaller = config.optim.batch_size // 2
    rate = "" if config.optim.base_batch_size else "; scale optim.lr with it"
    less = needs(config, max(1, views // 2))
    lines.append(f"  optim.batch_size: {smaller}  {less}, in a new folder{rate}")
    return "\n".join(lines)


def save_batch(path: Path, tensors: Mapping[str, torch.Tensor], videos: Sequence[str]) -> None:
    """Keep a batch for a look: its tensors, and the paths of its videos, as safetensors."""
    with atomic_path(path) as temporary:
        whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(whole, temporary, {"videos": "\n".join(videos)})


def nonfinite_error(
    loss: float, step: int, rate: float, more: str = "", kept: int = 0
) -> FloatingPointError:
    """What to say of a loss that is no number.

    more   what is to blame        kept   the step of the newest checkpoint, 0 where there is none
    """
    checkpoint = f"; the checkpoint of step {kept} is kept" if kept else ""
    return FloatingPointError(
        f"the loss is {loss} at step {step}: lower the learning rate (now {rate:.2g}), lengthen the "
        f"warm-up, or set clip_grad{checkpoint}{more}"
    )
