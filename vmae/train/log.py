"""The log of a run, and what the run cost."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vmae.base_config import current_names
from vmae.support.files import DiskError, write_text
from vmae.support.progress import Record
from vmae.train.devices import device_name, peak_memory


@dataclass
class Log:
    """Records of a run, kept in memory and, with a `path`, as JSON lines.

    device       whose memory is logged; None: not logged
    flops_share  share of the device's rate that one clip per second takes; None: not logged
    mean         the mean of a tensor over all processes
    skips        whether steps with a NaN or infinite loss are excluded from the mean
    """

    every: int
    batch: int
    steps: int
    path: Path | None = None
    device: torch.device | None = None
    flops_share: float | None = None
    mean: Callable[[torch.Tensor], torch.Tensor] = lambda losses: losses
    skips: bool = False
    records: list[Record] = field(default_factory=list)

    def resume(self, step: int, pending: list[float] | None = None, skipped: int = 0) -> None:
        """Keep the records up to `step` and the losses since the last one; start the clock from there."""
        self.skipped = torch.tensor(skipped, device=self.device)
        if self.path and self.path.exists():
            self.records = [row for row in read_records(self.path) if row.step <= step]
            text = "".join(json.dumps(asdict(r)) + "\n" for r in self.records)
            write_text(self.path, text)
        self._before = self.records[-1].seconds if self.records else 0.0
        self._start = self._last = time.perf_counter()
        self._step, self._timed = step, step
        self._known = list(pending or ())
        self._waiting: list[torch.Tensor] = []

    def leave_out(self, seconds: float) -> None:
        """Do not count the last `seconds`, spent on something else, in the clips per second."""
        self._last += seconds

    def pending(self) -> dict[int, float]:
        """Losses by step since the last record, over all processes. Waits for the device.

        All processes must call it at the same step.
        """
        if self._waiting:
            self._known += self.mean(torch.stack(self._waiting)).tolist()
            self._waiting = []
        first = self._step - len(self._known) + 1
        return dict(enumerate(self._known, first))

    def due(self, step: int) -> bool:
        """Whether `step` ends with a record."""
        return step % self.every == 0 or step == self.steps

    def add(self, step: int, loss: torch.Tensor, lr: float) -> Record | None:
        """Add a step; every `every` steps, and at the end, returns a record of them.

        Losses stay on the device until then: reading one would make the device wait.
        """
        self._step = step
        self._waiting.append(loss)
        if not self.due(step):
            return None
        # On the host and in float32, so that a checkpoint between two records does not change a bit.
        losses = torch.tensor(list(self.pending().values()), dtype=torch.float32)
        self._known = []
        if self.skips and losses.isfinite().any():
            losses = losses[losses.isfinite()]
        now = time.perf_counter()
        rate = (step - self._timed) * self.batch / (now - self._last)
        record = Record(
            step, losses.mean().item(), lr, rate, self._before + now - self._start,
            peak_memory(self.device) / 1e9 if self.device else 0.0,
            self.flops_share and rate * self.flops_share, int(self.skipped),
        )  # fmt: skip
        self._last, self._timed = now, step
        self.records.append(record)
        if self.path:
            self._append(json.dumps(asdict(record)) + "\n")
        return record

    def _append(self, line: str) -> None:
        assert self.path is not None
        try:
            with open(self.path, "a") as file:
                file.write(line)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise DiskError(
                f"cannot write {self.path} ({'the disk is full' if full else error}): free up "
                "some space or fix the file's permissions, then resume from the last checkpoint"
            ) from error


def read_records(path: Path) -> list[Record]:
    """The records in a run's metrics.jsonl, also of the first edition; an unfinished line is left out."""
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return [Record(**current_names(Record, json.loads(line))) for line in lines]


def cost(records: list[Record], device: torch.device) -> dict[str, Any]:
    """Device, minutes, clips per second (median), peak memory in GB (on a CPU, of the process)."""
    rates = sorted(record.clips_per_second for record in records)
    return {
        "device": device_name(device),
        "minutes": records[-1].seconds / 60 if records else 0.0,
        "clips_per_second": rates[len(rates) // 2] if rates else 0.0,
        "peak_memory_gb": peak_memory(device) / 1e9,
    }
