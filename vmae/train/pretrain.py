"""Pre-training: one loop for MAE, VideoMAE V1 and V2, on one device or many processes."""

from __future__ import annotations

import signal
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from vmae.config import PretrainConfig
from vmae.data.build import named_worker_deaths
from vmae.data.loader import Failures, Source, open_set, open_source
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask
from vmae.train.checkpoint import (
    Checkpoint,
    claim_run,
    full_state,
    load_state,
    restore_optimizer,
    save_state,
    save_weights,
    sweep,
)
from vmae.train.run_folder import lock, write_environment
from vmae.train.runtime import (
    Bar,
    Log,
    Progress,
    Record,
    Silent,
    accelerator_for,
    cost,
    nonfinite_error,
)
from vmae.train.schedule import adamw, learning_rate, set_rate
from vmae.train.speed import checkpointed, compile_blocks
from vmae.train.steps import Steps
from vmae.train.trouble import Stopped, StopRequest, explained, save_batch
from vmae.train.watch import Watched, flops_share

#: Fields of a run's configuration that may differ when it is resumed.
FREE_FIELDS = (
    "save_every",
    "log_every",
    "keep",
    "device",
    "accumulate",
    "checkpointing",
    "compile",
    "on_nonfinite",
    "tensorboard",
    "utilisation",
    "data.workers",
    "data.stores",
    "data.store",
    "data.on_device",
)


@dataclass
class PretrainResult:
    """The trained model, on the CPU; its log; what it cost; the run's folder."""

    model: MaskedAutoencoder
    records: list[Record]
    cost: dict[str, Any]
    folder: Path | None


def pretrain(
    config: PretrainConfig,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    source: Source | None = None,
) -> PretrainResult:
    """Pre-train a masked autoencoder.

    folder    where config.yaml, environment.json, metrics.jsonl, checkpoints and the final weights
              go; None: nowhere. All processes must see it
    resume    go on with the run in `folder`, from its newest checkpoint; start it if there is none
    source    clips to train on; by default the training videos of `config.data.path`

    Step k uses clips, masks and a rate that depend on the seed and k alone, so a resumed run gives
    the numbers of one that was never interrupted, and many processes give those of one. Ctrl-C and
    SIGTERM save a checkpoint first; SIGTERM then raises Stopped. Raises LostPeer where another
    process is gone, OutOfMemory with the fields that help, FloatingPointError at a loss that is no
    number (unless such steps are skipped).
    """
    accelerator = accelerator_for(config.precision, config.device, config.accumulate)
    run = Path(folder) if folder is not None else None
    used = "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
    with (
        lock(run) if run and accelerator.is_main_process else nullcontext(),
        explained(config.replace(precision=used), accelerator.num_processes, run),
    ):
        return _Run(config, run, resume, progress, source, accelerator).train()


class _Run:
    """One call of `pretrain`: what it needs at every step."""

    def __init__(
        self,
        config: PretrainConfig,
        folder: Path | None,
        resume: bool,
        progress: Progress | None,
        source: Source | None,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.main, self.device = accelerator.is_main_process, accelerator.device
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        if source is None:
            with accelerator.main_process_first():  # one process decodes, the others find the store
                videos = open_set(config.data).train
                source = open_source(
                    config.data, videos, config.model.size, config.model.frames, self.device
                )
        self.steps = Steps(config, source, self.device, self.rank, self.world)
        self.optim = self.steps.optim
        # A mask that cannot be is an error before the start.
        make_mask(config.mask, config.model.grid, 1)
        if folder and self.main:
            claim_run(folder, config, resume, FREE_FIELDS)
            sweep(folder)
        accelerator.wait_for_everyone()

        torch.manual_seed(config.seed)
        model = MaskedAutoencoder(config.model)
        optimizer = adamw(model, self.optim)
        found = Checkpoint()
        if folder and resume:
            found = load_state(folder / "checkpoints", model)
        self.start = self.saved = found.step
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        restore_optimizer(self.optimizer, found.optimizer)
        self.core: MaskedAutoencoder = accelerator.unwrap_model(self.model)

        wanted = config.utilisation
        if wanted is None:
            wanted = self.device.type == "cuda"
        self.log = Log(
            config.log_every,
            self.optim.batch_size,
            self.optim.steps,
            folder / "metrics.jsonl" if folder and self.main else None,
            self.device,
            flops_share(config, self.device, accelerator.mixed_precision, self.world)
            if wanted
            else None,
            partial(accelerator.reduce, reduction="mean"),
            config.on_nonfinite == "skip",
        )
        self.log.resume(self.start, found.losses)
        shown = Watched(progress or Bar(), config, folder)
        self.shown: Progress = shown if self.main else Silent()
        self.reported: set[int] = set()
        if folder and self.main:
            write_environment(folder, self.start, self.device, self.world)

    def predict(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        """The model's pixels at the targets, float32."""
        with self.accelerator.autocast():  # which Accelerate leaves to us under FSDP2
            return self.model(clips, mask).float()

    def step(self, step: int, clips: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Train on a batch; returns the loss on this process, still on the device, and the rate."""
        accelerator = self.accelerator
        rate = learning_rate(step - 1, self.optim)
        set_rate(self.optimizer, rate)
        self.optimizer.zero_grad()
        losses = []
        for part, mask in self.steps.parts(step, clips):
            with accelerator.accumulate(self.model):
                loss = F.mse_loss(self.predict(part, mask), self.core.targets(part, mask))
                accelerator.backward(loss)
            losses.append(loss.detach())
        limit = self.optim.clip_grad if self.optim.clip_grad is not None else float("inf")
        norm = accelerator.clip_grad_norm_(self.model.parameters(), limit)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # The optimizer leaves everything as it was where this is 1, and nobody waits to find out.
        self.optimizer.optimizer.found_inf = 1.0 - norm.isfinite().float()
        self.optimizer.step()
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean(), rate

    def train(self) -> PretrainResult:
        """Every step that is left."""
        config, accelerator = self.config, self.accelerator
        if config.compile:
            compile_blocks(self.core, *self.steps.example())
        failures = Failures(len(self.steps.dataset), config.data.max_bad)
        stop = StopRequest(accelerator)
        step = done = self.start
        self.shown.start("pre-train", self.start, self.optim.steps)
        self.model.train()
        try:
            with (
                stop.watched(),
                named_worker_deaths(),
                checkpointed(self.core, config.checkpointing),
            ):
                for step, batch in enumerate(self.steps.loader(self.start), self.start + 1):
                    failures.add(batch.failed)
                    loss, rate = self.step(step, batch.clips)
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
        return self.result(len(failures.reasons))

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
            save_state(self.folder / "checkpoints", state, weights, self.config.keep)
        self.saved = step

    def stop_if_asked(self, stop: StopRequest, step: int) -> None:
        """Save and end the run after a signal."""
        if stop.agreed():
            self.save(step)
            if stop.received == signal.SIGINT:
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
                raise nonfinite_error(losses[number], number, rate, named)
            if self.main:
                text = f"the loss of step {number} is {losses[number]}: the step is skipped{named}"
                warnings.warn(text, stacklevel=3)

    @torch.no_grad()
    def keep_clips(self, step: int) -> str:
        """Read the clips of a step again, save this process's, and say which are to blame."""
        videos, parts = self.steps.again(step)
        wrong = []
        for part, mask in parts:
            errors = (self.predict(part, mask) - self.core.targets(part, mask)).square()
            wrong.append(~errors.flatten(1).mean(1).isfinite())
        places = torch.cat(wrong).nonzero().flatten().tolist()
        blamed = sorted({videos[place // self.config.repeat] for place in places})
        text = f"; its clips are from {', '.join((blamed or videos)[:5])}"
        text += " and others" if len(blamed or videos) > 5 else ""
        if self.folder:
            path = self.folder / f"nonfinite-step-{step:08d}-{self.rank}.safetensors"
            clips = torch.cat([part for part, _ in parts])
            indices = zip(*((m.visible, m.queries, m.targets) for _, m in parts), strict=True)
            save_batch(path, clips, Mask(*(torch.cat(x) for x in indices)), videos)
            text += f", and lie in {path}"
        return text

    def result(self, unreadable: int) -> PretrainResult:
        """The model as a plain one on the CPU, saved where the run has a folder."""
        model = MaskedAutoencoder(self.config.model)
        model.load_state_dict(full_state(self.core))
        if self.folder and self.main:
            save_weights(model, self.folder / "model.safetensors")
        paid = cost(self.log.records, self.device) | {"unreadable_videos": unreadable}
        return PretrainResult(model.eval(), self.log.records, paid, self.folder)
