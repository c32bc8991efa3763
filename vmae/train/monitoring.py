"""Watching a run: the TensorBoard log, and the remark that a teacher would make."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator

from vmae.cost import classifier_multiply_adds, flops_share, pretraining_multiply_adds
from vmae.support.progress import Progress, ProgressFile, Record
from vmae.train.config import PretrainConfig, RunConfig
from vmae.train.devices import DTYPES, precision_of

#: Share of the steps after which a loss of 1.0 deserves a warning, and how close to 1 it must be.
LATE, NEAR_ONE = 0.2, 0.97


def mfu_per_clip(config: RunConfig, accelerator: Accelerator) -> float | None:
    """The model FLOPs utilisation that one clip per second gives; None if it is not logged."""
    wanted = accelerator.device.type == "cuda" if config.log_mfu is None else config.log_mfu
    if not wanted:
        return None
    if isinstance(config, PretrainConfig):
        forward = pretraining_multiply_adds(config.model, config.mask)["total"]
    else:
        forward = classifier_multiply_adds(config.model)
    dtype = DTYPES[precision_of(accelerator)]
    work = forward * config.repeated_aug  # `clips_per_second` counts videos
    return flops_share(work, accelerator.device, dtype, accelerator.num_processes)


class Watched(Progress):
    """A progress display, with VMAE_PROGRESS, a TensorBoard log and a warning about a loss of 1.0."""

    def __init__(self, shown: Progress, config: RunConfig, folder: Path | None) -> None:
        self.shown, self.config = shown, config
        self.folder = folder
        self.advised = False
        self.writer = None

    def start(self, title: str, step: int, steps: int) -> None:
        self.steps = steps
        self.file = ProgressFile(title, step, steps, self.folder)
        if self.folder is not None and self.config.tensorboard:
            self.writer = _tensorboard(self.folder, step)
        self.shown.start(title, step, steps)

    def update(self, step: int, record: Record | None) -> None:
        if record is not None:
            if self.writer is not None:
                for name, value in asdict(record).items():
                    if name != "step" and value is not None:
                        self.writer.add_scalar(name, value, step)
            self._advise(record)
            self.file.update(step, record.loss, record.clips_per_second)
        else:
            self.file.update(step)
        self.shown.update(step, record)

    def _advise(self, record: Record) -> None:
        """Warn once that 1.0 on standardised targets is the loss of a model that predicts nothing."""
        if not isinstance(self.config, PretrainConfig):
            return
        late = record.step > LATE * self.steps
        stuck = NEAR_ONE < record.loss < 2 - NEAR_ONE
        if self.config.model.normalize_targets and late and stuck and not self.advised:
            self.advised = True
            warnings.warn(
                f"the loss is {record.loss:.3f} after {record.step} of {self.steps} steps: the "
                "targets are standardised, so predicting the mean of every patch gives 1.0. "
                f"Raise optim.lr (now {self.config.optim.resolved(1).lr:g}), lengthen the "
                "warm-up, train longer, or check that the clips do not contain only noise",
                stacklevel=3,
            )

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.shown.close()


def _tensorboard(folder: Path, step: int):
    """A writer in `folder`; discards what an earlier attempt logged after `step`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn(
            "tensorboard is true, but the tensorboard package is not installed: run pip install "
            "tensorboard. Training will continue without it; metrics.jsonl has the same metrics",
            stacklevel=3,
        )
        return None
    return SummaryWriter(folder / "tensorboard", purge_step=step + 1)
