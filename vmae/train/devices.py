"""The device and the processes of a run."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from vmae.base_config import ConfigError

#: Of matrix products, by the name of a precision.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: A process that waits this long for the others gives up; waiting for a set to be decoded counts.
PEER_TIMEOUT = timedelta(hours=1)


def accelerator_for(
    precision: str,
    device: str = "auto",
    accumulate: int = 1,
    log_with: str | None = None,
    folder: Path | None = None,
) -> Accelerator:
    """Accelerate's view of the device and the processes, at a precision; its tracker writes to `folder`.

    A GPU is one that PyTorch calls "cuda" (NVIDIA or AMD). Nothing here has been tried on Apple's
    GPUs, so a Mac uses its CPU. Precision "auto" is that of `auto_precision`. In "fp16",
    `accelerator.scaler` scales the loss. Raises ConfigError if a GPU is requested and there is none,
    or a precision that the device lacks.
    """
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise ConfigError(
            f'device is "cuda", but PyTorch {torch.__version__} finds no GPU: use a machine that '
            'has one, install the PyTorch build that matches its driver, set device to "cpu", or '
            "use the recipe `cpu`, which is designed for two CPU cores"
        )
    native = auto_precision(gpu and device != "cpu")
    if precision == "bf16" and native == "fp16":
        raise ConfigError(
            f'precision is "bf16", which {torch.cuda.get_device_name()} can only emulate: set '
            'precision to "fp16", or to "auto", which chooses it'
        )
    if precision == "fp16" and native == "fp32":
        raise ConfigError(
            'precision is "fp16", which needs a GPU: set precision to "auto", which is fp32 on a CPU'
        )
    if precision == "auto":
        precision = native
    wanted = "no" if precision == "fp32" else precision
    # Accelerate would pick any accelerator; processes without one communicate by gloo, on the CPU only.
    cpu = device == "cpu" or not gpu
    # Accelerate keeps one state per process, but a notebook may run two settings in turn.
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
        log_with=log_with,
        project_dir=folder,
        fsdp_plugin=sharding,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PEER_TIMEOUT)],
    )
    if sharding and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # CPU processes can shard too, but Accelerate enables it for accelerators only.
        if wanted != "no":
            sharding.set_mixed_precision(wanted)
        accelerator.state.fsdp_plugin = sharding
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState().distributed_type = DistributedType.FSDP  # every new state copies this one
    return accelerator


def auto_precision(gpu: bool) -> str:
    """bf16 on a GPU that computes in it; fp16 on an older one, which would only emulate bf16; fp32 on a
    CPU: the tiny model, which is what a CPU trains, is slower in bf16 (a ViT-S may be faster)."""
    if not gpu:
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def precision_of(accelerator: Accelerator) -> str:
    """The precision in use, by the name that configurations give it."""
    return "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision


def inference_autocast(
    device: torch.device | str, accelerator: Accelerator | None = None
) -> AbstractContextManager[None]:
    """Around forward passes without gradients: the precision of the run of `accelerator`, or else the
    one that suits the GPU. On a CPU nothing changes."""
    gpu = torch.device(device).type == "cuda"
    wanted = precision_of(accelerator) if accelerator else auto_precision(gpu)
    if wanted == "fp32" or not gpu:
        return nullcontext()
    return torch.autocast("cuda", DTYPES[wanted])


def _sharding() -> FullyShardedDataParallelPlugin:
    """FSDP2 with one shard per block, whatever other options `accelerate launch --use_fsdp` got."""
    # Nothing here modifies the model's output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="TRANSFORMER_BASED_WRAP",
        transformer_cls_names_to_wrap=["Block"],
        # Each process reads the checkpoint: Accelerate's own way cannot handle parameters of the root.
        cpu_ram_efficient_loading=False,
    )


def device_name(device: torch.device) -> str:
    """A readable name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"CPU ({kind}, {threads} thread{'s' * (threads != 1)})"


def peak_memory(device: torch.device) -> int:
    """The most memory that PyTorch has held on a GPU, or else this process, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
