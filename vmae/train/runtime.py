"""What pre-training and fine-tuning share: the device, progress reports, what a run cost."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from tqdm import tqdm

from vmae.config import ConfigError
from vmae.data.encode import DiskError, write_text

#: A process that hears nothing from the others for so long gives up. Decoding a set counts too.
PEER_TIMEOUT = timedelta(hours=1)


def accelerator_for(precision: str, device: str = "auto", accumulate: int = 1) -> Accelerator:
    """Accelerate's view of the device and the processes, at a precision.

    A GPU is one that PyTorch calls "cuda" (NVIDIA's and AMD's). On Apple's nothing here was ever
    tried, so a Mac takes its CPU. Precision "auto" is bf16 on a GPU that has it and fp32 elsewhere:
    the tiny model, which is what a CPU trains, is slower in bf16. A ViT-S may gain from "bf16" on a
    CPU too. Raises ConfigError where a GPU is asked for and there is none.
    """
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise ConfigError(
            f'device is "cuda", and PyTorch {torch.__version__} finds no GPU here: run on a machine '
            'with one, install the PyTorch build for its driver, set device to "cpu", or take the '
            "recipe `cpu`, which is made for two CPU cores"
        )
    if precision == "auto":
        bf16 = device != "cpu" and gpu and torch.cuda.is_bf16_supported()
        precision = "bf16" if bf16 else "fp32"
    wanted = "no" if precision == "fp32" else precision
    # Accelerate would take any accelerator; processes without one talk over gloo on the CPU only.
    cpu = device == "cpu" or not gpu
    # Accelerate keeps one state a process; a notebook may run two settings in turn.
    if AcceleratorState._shared_state:
        state = AcceleratorState()
        moved = cpu != (state.device.type == "cpu")
        if moved and state.num_processes == 1:
            AcceleratorState._reset_state(reset_partial_state=True)
        elif state.mixed_precision != wanted:
            AcceleratorState._reset_state()
    sharding = _sharding() if os.environ.get("ACCELERATE_USE_FSDP") == "true" else None
    accelerator = Accelerator(
        mixed_precision=wanted,
        cpu=cpu,
        gradient_accumulation_steps=accumulate,
        fsdp_plugin=sharding,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PEER_TIMEOUT)],
    )
    if sharding and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # CPU processes can shard too: Accelerate knows how, but only tells accelerators to.
        if wanted != "no":
            sharding.set_mixed_precision(wanted)
        accelerator.state.fsdp_plugin = sharding
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState().distributed_type = DistributedType.FSDP  # each new state copies this one
    return accelerator


def _sharding() -> FullyShardedDataParallelPlugin:
    """FSDP2, one shard a block, whatever else `accelerate launch --use_fsdp` was told."""
    # Nothing here changes what the model returns in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="TRANSFORMER_BASED_WRAP",
        transformer_cls_names_to_wrap=["Block"],
        # Each process reads the checkpoint; Accelerate's way cannot take parameters of the root.
        cpu_ram_efficient_loading=False,
    )


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = platform.processor() or platform.machine()
    return f"CPU ({kind}, {torch.get_num_threads()} threads)"


@dataclass
class Record:
    """The state of a run at a step: what is logged, shown and kept.

    memory_gb     the most memory that the process has held so far; on a GPU, of the GPU
    utilisation   achieved FLOP/s over the measured matmul rate of the device, where that is known
    """

    step: int
    loss: float
    lr: float
    clips_per_second: float
    seconds: float
    memory_gb: float = 0.0
    utilisation: float | None = None


class Progress(Protocol):
    """Something that shows a run: a bar on a terminal, a live curve in a notebook."""

    def start(self, title: str, step: int, steps: int) -> None:
        """Before the first step after `step`, of `steps` in all."""
        ...

    def update(self, step: int, record: Record | None) -> None:
        """After every step; `record` every `log_every` steps."""
        ...

    def close(self) -> None:
        """At the end, also after an error."""
        ...


class Bar(Progress):
    """A progress bar on the terminal."""

    def start(self, title: str, step: int, steps: int) -> None:
        self._bar = tqdm(total=steps, initial=step, desc=title, unit="step", file=sys.stderr)

    def update(self, step: int, record: Record | None) -> None:
        self._bar.update(step - self._bar.n)
        if record:
            shown = {"loss": f"{record.loss:.4f}", "clips/s": f"{record.clips_per_second:.0f}"}
            if record.utilisation is not None:
                shown["of peak"] = f"{record.utilisation:.0%}"
            self._bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        self._bar.close()


class Silent(Progress):
    """Shows nothing: for tests, and for all processes but the first."""

    def start(self, title: str, step: int, steps: int) -> None: ...

    def update(self, step: int, record: Record | None) -> None: ...

    def close(self) -> None: ...


@dataclass
class Log:
    """Records of a run, kept in memory and, with a `path`, as JSON lines.

    device       whose memory is logged; None: not at all
    flops_share  what share of the device's rate one clip a second takes; None: not logged
    mean         the mean of a tensor over all processes
    skips        whether steps whose loss is no number are left out of the mean
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

    def resume(self, step: int, pending: list[float] | None = None) -> None:
        """Keep what was logged up to `step`, and losses since then; start the clock from there."""
        if self.path and self.path.exists():
            rows = (
                json.loads(line)
                for line in self.path.read_text().splitlines()
                if line.endswith("}")
            )
            self.records = [Record(**row) for row in rows if row["step"] <= step]
            text = "".join(json.dumps(asdict(r)) + "\n" for r in self.records)
            write_text(self.path, text)
        self._before = self.records[-1].seconds if self.records else 0.0
        self._start = self._last = time.perf_counter()
        self._step, self._timed = step, step
        self._known = list(pending or ())
        self._waiting: list[torch.Tensor] = []

    def pending(self) -> dict[int, float]:
        """Losses by step since the last record, over all processes. Waits for the device.

        All processes must ask at the same step.
        """
        if self._waiting:
            self._known += self.mean(torch.stack(self._waiting)).tolist()
            self._waiting = []
        first = self._step - len(self._known) + 1
        return dict(enumerate(self._known, first))

    def due(self, step: int) -> bool:
        """Whether a record is made at `step`."""
        return step % self.every == 0 or step == self.steps

    def add(self, step: int, loss: torch.Tensor, lr: float) -> Record | None:
        """Count a step; every `every` steps (and at the end) return a record of them.

        Losses stay on the device until then: reading one would make the device wait.
        """
        self._step = step
        self._waiting.append(loss)
        if not self.due(step):
            return None
        # On the host and in float32, so that a checkpoint between two records changes no bit.
        losses = torch.tensor(list(self.pending().values()), dtype=torch.float32)
        self._known = []
        if self.skips and losses.isfinite().any():
            losses = losses[losses.isfinite()]
        now = time.perf_counter()
        rate = (step - self._timed) * self.batch / (now - self._last)
        record = Record(
            step, losses.mean().item(), lr, rate, self._before + now - self._start,
            peak_memory(self.device) / 1e9 if self.device else 0.0,
            self.flops_share and rate * self.flops_share,
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
                f"cannot write {self.path} ({'the disk is full' if full else error}): free some space "
                "or mend its rights, then go on with resume; the last checkpoint is kept"
            ) from error


def cost(records: list[Record], device: torch.device) -> dict[str, Any]:
    """Device, minutes, clips a second (median), peak memory in GB (on a CPU, of the process)."""
    rates = sorted(record.clips_per_second for record in records)
    return {
        "device": device_name(device),
        "minutes": records[-1].seconds / 60 if records else 0.0,
        "clips_per_second": rates[len(rates) // 2] if rates else 0.0,
        "peak_memory_gb": peak_memory(device) / 1e9,
    }


def peak_memory(device: torch.device) -> int:
    """The most memory that PyTorch has held on a GPU, or else this process, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def seeded(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one step: what it draws depends on nothing that came before."""
    return torch.Generator(device=device).manual_seed(step_seed(seed, step))


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, of 64 bits."""
    # A CPU generator reads the lower 32 bits only, so both numbers must show there.
    return (seed << 32) + (step + seed * 0x9E3779B1) % (1 << 32)


def nonfinite_error(
    loss: float, step: int, rate: float, more: str = "", kept: int = 0
) -> FloatingPointError:
    """What to say of a loss that is no number.

    more   what is to blame        kept   the step of the newest checkpoint, 0 where there is none
    """
    checkpoint = f"; the checkpoint of step {kept} is kept" if kept else ""
    return FloatingPointError(
        f"the loss is {loss} at step {step}: lower the learning rate (now {rate:.2g}), lengthen the "
        f"warm-up, or set clip_grad{checkpoint}{more}"
    )
