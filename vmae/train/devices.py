"""The device and the processes of a run."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from datetime import timedelta

import psutil
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from vmae.config import ConfigError

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


def peak_memory(device: torch.device) -> int:
    """The most memory that PyTorch has held on a GPU, or else this process, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
