"""The loop of pre-training and fine-tuning: exact resume, many processes, a clean end."""

from __future__ import annotations

import signal
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from vmae.cost import classifier_multiply_adds, flops_share, pretraining_multiply_adds
from vmae.data.reading.failures import Failures
from vmae.data.reading.loader import Batch
from vmae.data.reading.workers import named_worker_deaths
from vmae.support.progress import Progress, Silent
from vmae.train.batches import Batches
from vmae.train.checkpoint import (
    Checkpoint,
    full_state,
    load_state,
    newest_step,
    restore_optimizer,
    save_state,
)
from vmae.train.config import FinetuneConfig, PretrainConfig
from vmae.train.devices import accelerator_for
from vmae.train.interrupts import Stopped, StopRequest, explained, nonfinite_error, save_batch
from vmae.train.log import Log, cost
from vmae.train.monitoring import Watched
from vmae.train.run_folder import claim_run, lock, sweep, write_environment
from vmae.train.schedule import adamw, learning_rate, set_lr
from vmae.train.speed import checkpointed, compile_blocks

#: Fields of a run's configuration that may differ when it is resumed.
FREE_FIELDS = (
    "save_every",
    "log_every",
    "keep_checkpoints",
    "device",
    "grad_accum_steps",
    "activation_checkpointing",
    "compile",
    "on_nonfinite",
    "tensorboard",
    "log_mfu",
    "test_clips",
    "test_crops",
    "data.num_workers",
    "data.cache_dir",
    "data.cache",
    "data.cache_on_device",
)

C = TypeVar("C", PretrainConfig, FinetuneConfig)
#: What one forward pass takes: clips and a mask, or clips and labels.
P = TypeVar("P")


@contextmanager
def opened(config: PretrainConfig | FinetuneConfig, folder: Path | None) -> Iterator[Accelerator]:
    """The device and the processes of a run; inside, its folder is locked and errors explained."""
    accelerator = accelerator_for(config.precision, config.device, config.grad_accum_steps)
    used = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    with (
        lock(folder) if folder and accelerator.is_main_process else nullcontext(),
        explained(config.replace(precision=used), accelerator.num_processes, folder),
    ):
        yield accelerator


class Loop(ABC, Generic[C, P]):
    """A run; a subclass gives its model, the parts of a step, and their loss.

    Step k uses clips, draws and a rate that depend on the seed and k alone.
    """

    title: str

    def __init__(
        self,
        config: C,
        steps: Batches,
        folder: Path | None,
        resume: bool,
        progress: Progress,
        accelerator: Accelerator,
        depth: int = 0,
    ) -> None:
        """`depth`: blocks of a classifier, over which its rates may decay."""
        self.config: C = config
        self.steps, self.folder, self.accelerator = steps, folder, accelerator
        self.main, self.device = accelerator.is_main_process, accelerator.device
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.optim = steps.optim
        if folder and self.main:
            claim_run(folder, config, resume, FREE_FIELDS)
            sweep(folder)
        accelerator.wait_for_everyone()

        torch.manual_seed(config.seed)
        model = self.build()
        optimizer = adamw(model, self.optim, depth)
        found = Checkpoint()
        if folder and resume:
            found = load_state(folder / "checkpoints", model)
        self.start = self.saved = found.step
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        restore_optimizer(self.optimizer, found.optimizer)
        self.core: nn.Module = accelerator.unwrap_model(self.model)

        self.log = Log(
            config.log_every,
            self.optim.batch_size,
            self.optim.steps,
            folder / "metrics.jsonl" if folder and self.main else None,
            self.device,
            self.flops_share(),
            partial(accelerator.reduce, reduction="mean"),
            config.on_nonfinite == "skip",
        )
        self.log.resume(self.start, found.losses)
        self.shown: Progress = Watched(progress, config, folder) if self.main else Silent()
        self.failures = Failures(len(steps.dataset), config.data.max_unreadable)
        self.reported: set[int] = set()
        if folder and self.main:
            write_environment(folder, self.start, self.device, self.world)

    @abstractmethod
    def build(self) -> nn.Module:
        """The model at the start, on the CPU; the seed is set."""

    @abstractmethod
    def parts(self, step: int, batch: Batch) -> list[P]:
        """What this process computes a step from, in `accumulate` parts of one size."""

    @abstractmethod
    def inputs(self, part: P) -> tuple[Any, ...]:
        """What the model takes of a part."""

    @abstractmethod
    def loss(self, part: P) -> torch.Tensor:
        """The mean loss of a part, with gradients."""

    @abstractmethod
    def clip_losses(self, part: P) -> torch.Tensor:
        """The loss of each clip of a part, (B,)."""

    @abstractmethod
    def tensors(self, part: P) -> dict[str, torch.Tensor]:
        """A part as tensors of B rows by name, to keep it for a look."""

    def flops_share(self) -> float | None:
        """The share of the device's rate that one clip a second takes, where it is logged."""
        wanted = self.config.log_mfu
        if wanted is None:
            wanted = self.device.type == "cuda"
        if not wanted:
            return None
        config = self.config
        if isinstance(config, PretrainConfig):
            forward = pretraining_multiply_adds(config.model, config.mask)["total"]
        else:
            forward = classifier_multiply_adds(config.model)
        dtype = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float32
        return flops_share(forward * config.repeated_aug, self.device, dtype, self.world)

    def predict(self, part: P) -> torch.Tensor:
        """What the model gives, float32."""
        with self.accelerator.autocast():  # which Accelerate leaves to us under FSDP2
            return self.model(*self.inputs(part)).float()

    def compile(self) -> None:
        """Compile the blocks, and try them on black clips of the shape of every step."""
        black = self.parts(1, self.steps.black())[0]
        with self.accelerator.autocast():
            compile_blocks(self.core, *self.inputs(black))

    def step(self, step: int, batch: Batch) -> tuple[torch.Tensor, float]:
        """Train on a batch; returns the loss on this process, still on the device, and the rate."""
        accelerator = self.accelerator
        rate = learning_rate(step - 1, self.optim)
        set_lr(self.optimizer, rate)
        self.optimizer.zero_grad()
        losses = []
        for part in self.parts(step, batch):
            with accelerator.accumulate(self.model):
                loss = self.loss(part)
                accelerator.backward(loss)
            losses.append(loss.detach())
        limit = self.optim.clip_grad if self.optim.clip_grad is not None else float("inf")
        norm = accelerator.clip_grad_norm_(self.model.parameters(), limit)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # The optimizer leaves everything as it was where this is 1, and nobody waits to find out.
        self.optimizer.optimizer.found_inf = 1.0 - norm.isfinite().float()
        self.optimizer.step()
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean(), rate

    def train(self) -> None:
        """Every step that is left."""
        stop = StopRequest(self.accelerator)
        step = done = self.start
        self.shown.start(self.title, self.start, self.optim.steps)
        self.model.train()
        if self.config.compile:
            self.compile()
        try:
            with (
                stop.watched(),
                named_worker_deaths(),
                checkpointed(self.core, self.config.activation_checkpointing),
            ):
                for step, batch in enumerate(self.steps.loader(self.start), self.start + 1):
                    self.failures.add(batch.failed)
                    loss, rate = self.step(step, batch)
                    meeting = self.log.due(step) or self.save_due(step)
                    if meeting:  # losses are read here, so everybody waits anyway
                        self.check_finite(step, loss, rate)
                    record = self.log.add(step, loss, rate)
                    done = step
                    self.shown.update(step, record)
                    if self.save_due(step):
                        self.save(step)
                    if meeting or self.world == 1:
                        self.stop_if_asked(stop, step)
        except KeyboardInterrupt:
            # Not in the middle of a step, and not where other processes would have to join in.
            if done == step and self.world == 1:
                self.save(done)
            raise
        except RuntimeError:
            # Workers hear signals too, and die of them while their next batch is waited for.
            if stop.received and done == step and self.world == 1:
                self.stop_if_asked(stop, step)
            raise
        finally:
            self.shown.close()

    def save_due(self, step: int) -> bool:
        """Whether a checkpoint is made after `step`."""
        wanted = step % self.config.save_every == 0 or step == self.optim.steps
        return wanted and self.folder is not None

    def save(self, step: int) -> None:
        """Write a checkpoint, unless there is one of this step."""
        if self.folder is None or step == self.saved:
            return
        pending = list(self.log.pending().values())
        weights, optimizer = full_state(self.core), full_state(self.optimizer)
        if self.main:
            loss = self.log.records[-1].loss if self.log.records else float("inf")
            state = Checkpoint(step, optimizer, pending, loss)
            save_state(self.folder / "checkpoints", state, weights, self.config.keep_checkpoints)
        self.saved = step

    def stop_if_asked(self, stop: StopRequest, step: int) -> None:
        """Save and end the run after a signal."""
        if number := stop.agreed():
            self.save(step)
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            kept = f"; the checkpoint of step {step} is in {self.folder}" if self.folder else ""
            raise Stopped(f"stopped by a signal after step {step} of {self.optim.steps}{kept}")

    def check_finite(self, step: int, loss: torch.Tensor, rate: float) -> None:
        """Keep the clips of steps whose loss is no number; then stop, where the run is to stop."""
        losses = self.log.pending() | {step: float(self.log.mean(loss[None]))}
        bad = [s for s, x in losses.items() if x - x != 0 and s not in self.reported]
        self.reported.update(bad)
        for number in bad[:1] if self.config.on_nonfinite == "stop" else bad:
            named = self.keep_clips(number)
            if self.config.on_nonfinite == "stop":
                kept = newest_step(self.folder / "checkpoints") if self.folder else 0
                raise nonfinite_error(losses[number], number, rate, named, kept)
            if self.main:
                text = f"the loss of step {number} is {losses[number]}: the step is skipped{named}"
                warnings.warn(text, stacklevel=3)

    @torch.no_grad()
    def keep_clips(self, step: int) -> str:
        """Read the clips of a step again, save this process's, and say which are to blame."""
        videos, batch = self.steps.again(step)
        parts = self.parts(step, batch)
        wrong = torch.cat([~self.clip_losses(part).isfinite() for part in parts])
        places = wrong.nonzero().flatten().tolist()
        blamed = sorted({videos[place // self.config.repeated_aug] for place in places})
        text = f"; its clips are from {', '.join((blamed or videos)[:5])}"
        text += " and others" if len(blamed or videos) > 5 else ""
        if self.folder:
            path = self.folder / f"nonfinite-step-{step:08d}-{self.rank}.safetensors"
            each = [self.tensors(part) for part in parts]
            save_batch(path, {name: torch.cat([x[name] for x in each]) for name in each[0]}, videos)
            text += f", and lie in {path}"
        return text

    def trained(self, model: nn.Module) -> dict[str, Any]:
        """Give a plain `model` the weights of the run; returns what the run cost."""
        model.load_state_dict(full_state(self.core))
        paid = cost(self.log.records, self.device)
        return paid | {"unreadable_videos": len(self.failures.reasons)}
