"""Watching a run: utilisation, TensorBoard, and what a teacher would say."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path

from vmae.support.progress import Progress, Record
from vmae.train.config import FinetuneConfig, PretrainConfig

#: Share of the steps after which a loss of 1.0 is worth a word, and how near to 1 it must be.
LATE, NEAR_ONE = 0.2, 0.97


class Watched(Progress):
    """A progress display with a TensorBoard log and a teacher's remarks beside it."""

    def __init__(
        self, shown: Progress, config: PretrainConfig | FinetuneConfig, folder: Path | None
    ) -> None:
        self.shown, self.config = shown, config
        self.folder = folder if config.tensorboard else None
        self.advised = False
        self.writer = None

    def start(self, title: str, step: int, steps: int) -> None:
        self.steps = steps
        if self.folder is not None:
            self.writer = _tensorboard(self.folder, step)
        self.shown.start(title, step, steps)

    def update(self, step: int, record: Record | None) -> None:
        if record is not None:
            if self.writer is not None:
                for name, value in asdict(record).items():
                    if name != "step" and value is not None:
                        self.writer.add_scalar(name, value, step)
            self._advise(record)
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
