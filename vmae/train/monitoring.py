"""Watching a run: its tracker, and the remark that a teacher would make."""

from __future__ import annotations

import os
import uuid
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from vmae.base_config import ConfigError
from vmae.cost import classifier_multiply_adds, flops_share, pretraining_multiply_adds
from vmae.support.files import write_text
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
    """A progress display, with VMAE_PROGRESS, a tracker and a warning about a loss of 1.0."""

    def __init__(
        self, shown: Progress, config: RunConfig, folder: Path | None, accelerator: Accelerator
    ) -> None:
        self.shown, self.config, self.folder = shown, config, folder
        self.accelerator = accelerator
        self.advised = False

    def start(self, title: str, step: int, steps: int) -> None:
        self.steps = steps
        self.file = ProgressFile(title, step, steps, self.folder)
        if self.folder is not None and self.config.log_with:
            _open_tracker(self.accelerator, self.config, self.folder, step)
        self.shown.start(title, step, steps)

    def update(self, step: int, record: Record | None) -> None:
        if record is not None:
            values = {k: v for k, v in asdict(record).items() if k != "step" and v is not None}
            self.accelerator.log(values, step)
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
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.shown.close()


def require_tracker(config: RunConfig, folder: Path | None) -> None:
    """Raise ConfigError if a run's tracker is not installed, or the run has no folder to resume from."""
    name = config.log_with
    if name is None:
        return
    if folder is None:
        raise ConfigError(
            f'log_with is "{name}", but the run has no folder: pass one, or set log_with to null'
        )
    if name not in map(str, get_available_trackers()):
        raise ConfigError(
            f'log_with is "{name}", but the package {name} is not installed: install the extra of '
            f'that name (pip install "vmae[{name}]"; in a checkout, pip install -e ".[{name}]"), or '
            "set log_with to null"
        )


def _open_tracker(accelerator: Accelerator, config: RunConfig, folder: Path, step: int) -> None:
    """Start the tracker of a run at `step`, so that a resumed run continues its curve.

    TensorBoard drops what an earlier attempt logged after `step`. The others know the run again by a
    name in tracker.txt; a row that they already have is the same, because resuming is exact.
    """
    noted = folder / "tracker.txt"
    if step == 0 or not noted.exists():
        write_text(noted, f"{folder.name}-{uuid.uuid4().hex[:8]}\n")
    name = noted.read_text().strip()
    options: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": step + 1},
        "wandb": {"id": name, "name": name, "resume": "allow", "dir": str(folder)},
        "trackio": {"name": name, "resume": "allow"},
    }
    project = os.environ.get("WANDB_PROJECT", "vmae")
    settings: dict[str, Any] | None = config.to_dict()
    if config.log_with == "tensorboard":
        # A project is a folder here, and settings would be a second curve.
        project, settings = "tensorboard", None
    try:
        accelerator.init_trackers(project, settings, options)
    except Exception as error:  # trackers fail in many ways: no network, no login
        raise ConfigError(
            f"{config.log_with} did not start ({error}): log in or work offline as its manual says, "
            "or set log_with to null"
        ) from error
