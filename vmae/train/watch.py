"""Watching a run: utilisation, TensorBoard, and what a teacher would say."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch

from vmae.config import FinetuneConfig, PretrainConfig
from vmae.data.progress_file import ProgressFile
from vmae.flops import classifier_multiply_adds, pretraining_multiply_adds
from vmae.train.runtime import Progress, Record

#: Share of the steps after which a loss of 1.0 is worth a word, and how near to 1 it must be.
LATE, NEAR_ONE = 0.2, 0.97


@lru_cache(maxsize=8)
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of square matrix products on `device`, the best of a few tries in a fifth of a second."""
    gpu = device.type == "cuda"
    side = 8192 if gpu else 512
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), None
    while end is None or time.perf_counter() < end:
        if gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        a @ b
        if gpu:
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if end is None:  # the first one sets things up, and is not counted
            end = now + 0.2
        else:
            best = min(best, now - start)
    return 2 * side**3 / best if best < float("inf") else 2 * side**3 / (now - start)


def flops_share(
    config: PretrainConfig | FinetuneConfig, device: torch.device, precision: str, world: int
) -> float:
    """The share of all devices' matmul rate that one clip a second takes, forward and backward.

    The backward pass costs twice the forward one; activations computed again are not counted.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if isinstance(config, PretrainConfig):
        multiply_adds = pretraining_multiply_adds(config.model, config.mask)["total"]
    else:
        multiply_adds = classifier_multiply_adds(config.model)
    return 3 * 2 * multiply_adds * config.repeat / (world * matmul_rate(device, dtype))


class Watched(Progress):
    """A progress display with a TensorBoard log, VMAE_PROGRESS and a teacher's remarks beside it."""

    def __init__(
        self, shown: Progress, config: PretrainConfig | FinetuneConfig, folder: Path | None
    ) -> None:
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
        """Say once that a loss of 1.0 on standardised targets is the loss of predicting nothing."""
        if not isinstance(self.config, PretrainConfig):
            return
        late = record.step > LATE * self.steps
        stuck = NEAR_ONE < record.loss < 2 - NEAR_ONE
        if self.config.model.normalize_targets and late and stuck and not self.advised:
            self.advised = True
            warnings.warn(
                f"the loss is {record.loss:.3f} after {record.step} of {self.steps} steps: targets are "
                "standardised, so 1.0 is what a model reaches that predicts every patch's mean. Raise "
                f"optim.lr (now {self.config.optim.resolved(1).lr:g}), warm up longer, train longer, or look "
                "whether the clips hold anything but noise",
                stacklevel=3,
            )

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.shown.close()


def _tensorboard(folder: Path, step: int):
    """A writer below `folder`; what an earlier try logged after `step` no longer counts."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn(
            "tensorboard is set and the package is not installed: pip install tensorboard. The run "
            "goes on; metrics.jsonl holds the same numbers",
            stacklevel=3,
        )
        return None
    return SummaryWriter(folder / "tensorboard", purge_step=step + 1)
