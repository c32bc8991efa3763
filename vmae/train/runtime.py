"""What pre-training and fine-tuning share: the device, progress reports, what a run cost."""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tqdm import tqdm

from vmae.train.schedule import set_rate


def accelerator_for(precision: str) -> Accelerator:
    """Accelerate's view of the device and the processes, at a precision.

    "auto" is bf16 on a GPU that has it and fp32 elsewhere: models of the size that a CPU trains
    are slower in bf16.
    """
    if precision == "auto":
        gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16" if gpu else "fp32"
    wanted = "no" if precision == "fp32" else precision
    # Accelerate keeps one state a process; a notebook may run two precisions in turn.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != wanted:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=wanted)


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = platform.processor() or platform.machine()
    return f"CPU ({kind}, {torch.get_num_threads()} threads)"


@dataclass
class Record:
    """The state of a run at a step: what is logged, shown and kept."""

    step: int
    loss: float
    lr: float
    clips_per_second: float
    seconds: float


class Progress(Protocol):
    """Something that shows a run: a bar on a terminal, a live curve in a notebook."""

    def start(self, title: str, step: int, steps: int) -> None: ...

    def update(self, step: int, record: Record | None) -> None:
        """After every step; `record` every `log_every` steps."""
        ...

    def close(self) -> None: ...


class Bar:
    """A progress bar on the terminal."""

    def start(self, title: str, step: int, steps: int) -> None:
        self._bar = tqdm(total=steps, initial=step, desc=title, unit="step", file=sys.stderr)

    def update(self, step: int, record: Record | None) -> None:
        self._bar.update(step - self._bar.n)
        if record:
            rate = f"{record.clips_per_second:.0f}"
            self._bar.set_postfix({"loss": f"{record.loss:.4f}", "clips/s": rate}, refresh=False)

    def close(self) -> None:
        self._bar.close()


class Silent:
    """Shows nothing: for tests, and for all processes but the first."""

    def start(self, title: str, step: int, steps: int) -> None: ...

    def update(self, step: int, record: Record | None) -> None: ...

    def close(self) -> None: ...


@dataclass
class Log:
    """Records of a run, kept in memory and, with a `path`, as JSON lines."""

    every: int
    batch: int
    steps: int
    path: Path | None = None
    records: list[Record] = field(default_factory=list)

    def resume(self, step: int) -> None:
        """Keep what was logged up to `step`; start the clock from there."""
        if self.path and self.path.exists():
            rows = (
                json.loads(line)
                for line in self.path.read_text().splitlines()
                if line.endswith("}")
            )
            self.records = [Record(**row) for row in rows if row["step"] <= step]
            self.path.write_text("".join(json.dumps(asdict(r)) + "\n" for r in self.records))
        self._before = self.records[-1].seconds if self.records else 0.0
        self._start = self._last = time.perf_counter()
        self._losses: list[torch.Tensor] = []

    def add(self, step: int, loss: torch.Tensor, lr: float) -> Record | None:
        """Count a step; every `every` steps (and at the end) return a record of them.

        Losses stay on the device until then: reading one would make the device wait.
        """
        self._losses.append(loss)
        if step % self.every and step != self.steps:
            return None
        mean = torch.stack(self._losses).mean().item()
        now = time.perf_counter()
        rate = len(self._losses) * self.batch / (now - self._last)
        record = Record(step, mean, lr, rate, self._before + now - self._start)
        self._losses, self._last = [], now
        self.records.append(record)
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(asdict(record)) + "\n")
        return record


def cost(records: list[Record], device: torch.device) -> dict[str, Any]:
    """Device, minutes, clips a second (median), peak memory in GB (on a CPU, of the process)."""
    rates = sorted(record.clips_per_second for record in records)
    gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if gpu else _peak_memory()
    return {
        "device": device_name(device),
        "minutes": records[-1].seconds / 60 if records else 0.0,
        "clips_per_second": rates[len(rates) // 2] if rates else 0.0,
        "peak_memory_gb": peak / 1e9,
    }


def _peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def take_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: torch.Tensor,
    rate: float,
    clip_grad: float | None,
) -> None:
    """One step of the optimizer down the gradient of `loss`, at a learning rate."""
    set_rate(optimizer, rate)
    optimizer.zero_grad()
    accelerator.backward(loss)
    if clip_grad is not None:
        accelerator.clip_grad_norm_(model.parameters(), clip_grad)
    optimizer.step()


def seeded(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one step: what it draws depends on nothing that came before."""
    return torch.Generator(device=device).manual_seed((seed << 32) + step)


def check_finite(record: Record | None) -> None:
    """Raise FloatingPointError where the loss is no number any more."""
    if record and not torch.isfinite(torch.tensor(record.loss)):
        raise FloatingPointError(
            f"the loss is {record.loss} at step {record.step}: lower the learning rate (now "
            f"{record.lr:.2g}), lengthen the warm-up, or set clip_grad; the last checkpoint is kept"
        )
