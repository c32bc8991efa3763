"""What may end a run early: a signal, a lost process, too little memory."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator

from vmae.cost.memory import training_memory
from vmae.train.checkpoint import newest_step
from vmae.train.config import RunConfig
from vmae.train.devices import auto_precision

#: Exit status of a run that saved a checkpoint and stopped at a signal: "try again" (EX_TEMPFAIL).
STOPPED_STATUS = 75


class Stopped(RuntimeError):
    """The run was asked to stop; it saved a checkpoint first."""


class LostPeer(RuntimeError):
    """Another process of the run died."""


class OutOfMemory(RuntimeError):
    """A step does not fit into memory; the message names the fields that reduce it."""


class StopRequest:
    """Turns SIGTERM and the first Ctrl-C into a stop between two steps; a second Ctrl-C interrupts.

    With several processes each may receive the signal at a different step, so they have to agree on
    one: `agreed` is for moments at which they wait for each other anyway.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.received = accelerator, 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Handle the signals inside the block; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._receive) for number in wanted]
        try:
            yield
        finally:
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def agreed(self) -> int:
        """The signal that any of the processes received, or 0; the same answer on all of them."""
        if self.accelerator.num_processes == 1:
            return self.received
        received = torch.tensor([self.received], device=self.accelerator.device)
        # `self.received` is kept: a signal that arrives meanwhile counts the next time.
        return int(self.accelerator.gather(received).max())


@contextmanager
def explained(config: RunConfig, world: int, folder: Path | None) -> Iterator[None]:
    """Explain a lost process, or too little memory, in terms of the run in `folder`.

    `config.precision` is the precision in use, not "auto".
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
            newest = newest_step(folder / "checkpoints") if folder else 0
            kept = f"step {newest}" if newest else "none"
            raise LostPeer(
                f"another of the {world} processes died ({text.splitlines()[0]}); see that "
                f"process's output for the reason. Saved checkpoint: {kept}. You can resume with any "
                "number of processes"
            ) from error
        raise


def _smaller(config: RunConfig, batch: int, reason: str) -> str:
    """What to change after running out of memory, and how much each change saves."""
    views = batch * config.repeated_aug // config.grad_accum_steps

    def needs(changed: RunConfig, clips: int) -> str:
        return f"{training_memory(changed, clips).total / 1e9:.2g} GB"

    lines = [f"out of memory ({reason.splitlines()[0]})"]
    lines.append(
        f"A step of {views} clips should need about {needs(config, views)}. To reduce this, set:"
    )
    parts = config.replace(grad_accum_steps=2 * config.grad_accum_steps)
    if batch % parts.grad_accum_steps == 0:
        less = needs(parts, views // 2)
        lines.append(f"  grad_accum_steps: {parts.grad_accum_steps}  {less}, same results")
    if not config.activation_checkpointing:
        less = needs(config.replace(activation_checkpointing=True), views)
        lines.append(
            f"  activation_checkpointing: true  {less}, same results, a third more compute"
        )
    if config.precision == "fp32":
        half = auto_precision(config.device != "cpu" and torch.cuda.is_available())
        half = "bf16" if half == "fp32" else half
        less = needs(config.replace(precision=half), views)
        lines.append(f"  precision: {half}  {less}, in a new folder")
    smaller = config.optim.batch_size // 2
    rate = "" if config.optim.base_batch_size else "; scale optim.lr with it"
    less = needs(config, max(1, views // 2))
    lines.append(f"  optim.batch_size: {smaller}  {less}, in a new folder{rate}")
    return "\n".join(lines)
