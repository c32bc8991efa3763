"""Everything about a run that is not learning: device, processes, folder, resume, signals, log.

`pretrain` and `finetune` call a `Run` explicitly, in the order in which things happen. That order is
the contract behind exact resume: step k uses clips, draws and a learning rate that depend on the
seed and k alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from vmae.data.reading.failures import Failures
from vmae.data.reading.loader import Batch
from vmae.data.reading.workers import named_worker_deaths
from vmae.support.progress import Progress, Silent
from vmae.train.batches import Batches
from vmae.train.checkpoint import (
    Checkpoint,
    full_state,
    load_state,
    restore_optimizer,
    save_state,
)
from vmae.train.config import RunConfig
from vmae.train.devices import accelerator_for, precision_of
from vmae.train.interrupts import Stopped, StopRequest, explained
from vmae.train.log import Log, cost
from vmae.train.monitoring import Watched, mfu_per_clip, require_tracker
from vmae.train.nonfinite import check_finite, check_scale
from vmae.train.run_folder import (
    check_folder,
    claim_run,
    claim_start,
    lock,
    sweep,
)
from vmae.train.speed import checkpointed, compile_blocks
from vmae.vit import VisionTransformer

#: Of a step: the loss of each clip, (B,), and what it was computed from, tensors of B rows by name.
Inspect = Callable[[int, Batch], tuple[torch.Tensor, dict[str, torch.Tensor]]]


@contextmanager
def open_run(
    config: RunConfig, folder: str | Path | None, resume: bool, progress: Progress
) -> Iterator[Run]:
    """Start the processes and lock the folder of a run; what ends it early is explained.

    Ctrl-C and SIGTERM between two steps save a checkpoint before they leave the block. Raises
    Stopped after SIGTERM, LostPeer if another process is gone, OutOfMemory with the fields that
    need less, CheckpointError if the folder is in use.
    """
    path = Path(folder) if folder is not None else None
    require_tracker(config, path)
    accelerator = accelerator_for(
        config.precision, config.device, config.grad_accum_steps, config.log_with, path
    )
    used = config.replace(precision=precision_of(accelerator))
    with (
        lock(path) if path and accelerator.is_main_process else nullcontext(),
        explained(used, accelerator.num_processes, path),
    ):
        if path and accelerator.is_main_process:
            check_folder(path, config, resume)  # before anything is decoded
        run = Run(config, path, resume, progress, accelerator)
        try:
            try:
                with named_worker_deaths():  # a worker may die at any time, also during a step
                    yield run
            finally:
                run.training.close()
        except KeyboardInterrupt:
            # Not in the middle of a step, and not where other processes would have to take part.
            if run.is_between_steps and run.world_size == 1:
                run.save(run.done)
            raise
        except RuntimeError:
            # Workers receive signals too, and die of them while the run waits for a batch.
            if run.stop.received and run.is_between_steps and run.world_size == 1:
                run.stop_if_asked(run.done)
            raise


class Run:
    """What `pretrain` and `finetune` train in; `open_run` makes one."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path | None,
        resume: bool,
        progress: Progress,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.folder, self.resume = config, folder, resume
        self.accelerator, self.device = accelerator, accelerator.device
        self.scaler: torch.amp.GradScaler | None = accelerator.scaler  # of the loss, in fp16
        self.main = accelerator.is_main_process
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.stop = StopRequest(accelerator)
        self.shown: Progress = (
            Watched(progress, config, folder, accelerator) if self.main else Silent()
        )
        self.training = ExitStack()  # what holds from the first step to the last
        self.start = self.step = self.done = self.saved = 0
        self.reported: set[int] = set()
        self.best_by_loss = (
            True  # without validation, the best checkpoint is that of the lowest loss
        )

    @property
    def is_between_steps(self) -> bool:
        """Whether the step that began last has ended."""
        return self.done == self.step

    def main_process_first(self) -> AbstractContextManager[None]:
        """The main process runs the block while the others wait: it decodes, they find the cache."""
        return self.accelerator.main_process_first()

    # ---- before the first step -----------------------------------------------------------------

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches
    ) -> tuple[nn.Module, Any]:
        """The model and its optimizer on the device, wrapped for the processes, resumed.

        From here on the folder is that of this run.
        """
        if self.folder and self.main:
            sweep(self.folder)
        self.accelerator.wait_for_everyone()
        found = Checkpoint()
        if self.folder and self.resume:
            found = load_state(self.folder / "checkpoints", model)
        self.start = self.step = self.done = self.saved = found.step
        model, optimizer = self.accelerator.prepare(model, optimizer)
        restore_optimizer(optimizer, found.optimizer)
        if self.scaler and found.scaler:
            self.scaler.load_state_dict(found.scaler)
        self.model: nn.Module = self.accelerator.unwrap_model(model)
        self.optimizer = optimizer
        self.batches = batches
        self._open_log(batches, found)
        return model, optimizer

    def _open_log(self, batches: Batches, found: Checkpoint) -> None:
        self.log = Log(
            self.config.log_every,
            batches.optim.batch_size,
            batches.optim.steps,
            self.folder / "metrics.jsonl" if self.folder and self.main else None,
            self.device,
            mfu_per_clip(self.config, self.accelerator),
            partial(self.accelerator.reduce, reduction="mean"),
            self.config.on_nonfinite == "skip",
        )
        self.log.resume(self.start, found.losses, found.skipped)
        self.failures = Failures(len(batches.dataset), self.config.data.max_unreadable)
        if self.folder and self.main:
            claim_run(self.folder, self.config, self.start, self.device, self.world_size)

    def starts_from(self, source: VisionTransformer | None) -> None:
        """Note the pre-trained weights; raises CheckpointError if the run began from others."""
        if self.folder and self.main:
            claim_start(self.folder, source)

    def compile(self, *inputs: Any) -> None:
        """Compile the blocks, and try them on inputs of the shape of every step."""
        with self.autocast():
            compile_blocks(self.model, *inputs)

    # ---- a step --------------------------------------------------------------------------------

    def steps(self, title: str, inspect: Inspect) -> Iterator[tuple[int, Batch]]:
        """Every step that is left, with its batch; `end_step` belongs to each.

        inspect   called only for steps whose loss is NaN or infinite, to name the clips
        """
        self.inspect = inspect
        self.shown.start(title, self.start, self.log.steps)
        self.training.callback(self.shown.close)
        self.training.enter_context(self.stop.watched())
        wanted = self.config.activation_checkpointing
        self.training.enter_context(checkpointed(self.model, wanted))
        for step, batch in enumerate(self.batches.loader(self.start), self.start + 1):
            self.step = step
            self.failures.add(batch.failed)
            yield step, batch
        self.training.close()

    def accumulate(self, model: nn.Module) -> AbstractContextManager[None]:
        """Around a micro-batch: processes exchange gradients after the last one only."""
        return self.accelerator.accumulate(model)

    def autocast(self) -> AbstractContextManager[None]:
        """Around a forward pass: the run's precision."""
        return self.accelerator.autocast()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a micro-batch, divided by the number of micro-batches."""
        self.accelerator.backward(loss)

    def clip_or_skip(self, model: nn.Module, optimizer: Any) -> None:
        """Clip the norm of all gradients; if it is not finite, the optimizer's step does nothing.

        `found_inf` stays on the device: nobody waits to find out. In fp16, gradients are unscaled
        first, and after a step that does nothing the loss is scaled by half as much.
        """
        limit = self.batches.optim.clip_grad
        limit = float("inf") if limit is None else limit
        norm = self.accelerator.clip_grad_norm_(model.parameters(), limit)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        optimizer.optimizer.found_inf = 1.0 - norm.isfinite().float()
        self.log.skipped += ~norm.isfinite()

    def end_step(self, step: int, losses: list[torch.Tensor], lr: float) -> None:
        """Log a step from the losses of its micro-batches; save and stop if it is time to."""
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
        meeting = self.log.due(step) or self._save_is_due(step)
        if meeting:  # losses are read here, so every process waits anyway
            losses_by_step = self.log.pending() | {step: float(self.log.mean(loss[None]))}
            check_finite(self, losses_by_step, lr)
            check_scale(self, step, lr)
        record = self.log.add(step, loss, lr)
        self.done = step
        self.shown.update(step, record)
        if self._save_is_due(step):
            self.save(step)
        if meeting or self.world_size == 1:
            self.stop_if_asked(step)

    def _save_is_due(self, step: int) -> bool:
        due = step % self.config.save_every == 0 or step == self.log.steps
        return due and self.folder is not None

    def save(self, step: int) -> None:
        """Write a checkpoint, unless there is one of this step. All processes must call it."""
        if self.folder is None or step == self.saved:
            return
        pending = list(self.log.pending().values())
        weights, optimizer = full_state(self.model), full_state(self.optimizer)
        if self.main:
            loss = self.log.records[-1].loss if self.log.records else float("inf")
            scaler = self.scaler.state_dict() if self.scaler else None
            skipped = int(self.log.skipped)
            state = Checkpoint(step, optimizer, pending, loss, skipped, scaler)
            keep = self.config.keep_checkpoints
            save_state(self.folder / "checkpoints", state, weights, keep, self.best_by_loss)
        self.saved = step

    def stop_if_asked(self, step: int) -> None:
        """Save and end the run after a signal that any process received."""
        if number := self.stop.agreed():
            self.save(step)
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            kept = (
                f"; the checkpoint of step {step} is in {self.folder}"
                if self.folder and step
                else ""
            )
            raise Stopped(f"stopped by a signal after step {step} of {self.log.steps}{kept}")

    # ---- after the last step -------------------------------------------------------------------

    def finish(self, model: nn.Module) -> dict[str, Any]:
        """Give a plain `model` the trained weights; returns what the run cost."""
        model.load_state_dict(full_state(self.model))
        spent = cost(self.log.records, self.device)
        return spent | {"unreadable_videos": len(self.failures.reasons)}
