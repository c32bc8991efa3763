"""Devices as a plan sees them: rates of matrix products and of memory, and what a run has to share.

Rates of the cards are from their data sheets (dense, without sparsity); those of this machine are measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil
import torch

from vmae.cost.rates import matmul_rate


@dataclass(frozen=True)
class Hardware:
    """A device.

    matmul     FLOP/s of matrix products, by precision; what is missing the device cannot do natively
    bandwidth  bytes per second of its memory
    memory     bytes
    efficiency share of `matmul` that the products of a step reach
    passes     how often a step moves, in all, what it keeps for the backward pass: forward and
               backward, norms, activations, copies
    held       memory of a step over what `vmae.cost.memory` computes, frames apart
    host       seconds of a step that its launches take at least, and more per block
    overlaps   whether launches and the device's work run at the same time
    """

    name: str
    matmul: dict[str, float]
    bandwidth: float
    memory: float
    efficiency: float
    passes: float
    held: float
    host: tuple[float, float]
    overlaps: bool


def _card(
    name: str, low: dict[str, float], fp32: float, bandwidth: float, memory: float
) -> Hardware:
    """A GPU. What is not from its data sheet is fitted to data/bench/cuda.json, a few steps of one card."""
    rates = {"fp32": fp32, **low}
    return Hardware(name, rates, bandwidth, memory, 0.5, 12.0, 1.9, (0.004, 0.0012), True)


#: By the name that `vmae plan --device` takes.
CARDS = {
    "h200": _card("NVIDIA H200", {"bf16": 990e12, "fp16": 990e12}, 67e12, 4.8e12, 141e9),
    "h100": _card("NVIDIA H100", {"bf16": 990e12, "fp16": 990e12}, 67e12, 3.35e12, 80e9),
    "a100": _card("NVIDIA A100", {"bf16": 312e12, "fp16": 312e12}, 19.5e12, 2.04e12, 80e9),
    "l4": _card("NVIDIA L4", {"bf16": 121e12, "fp16": 121e12}, 30e12, 0.3e12, 24e9),
    "t4": _card("NVIDIA T4", {"fp16": 65e12}, 8.1e12, 0.32e12, 16e9),
}


def this_cpu() -> Hardware:
    """This machine's CPU with the threads that PyTorch uses; takes about a second.

    What is not measured here is fitted to data/bench/cpu.json.
    """
    cpu = torch.device("cpu")
    matmul = {
        "fp32": matmul_rate(cpu, torch.float32),
        "bf16": matmul_rate(cpu, torch.bfloat16),
    }
    threads = torch.get_num_threads()
    name = f"this CPU, {threads} thread{'s' if threads > 1 else ''}"
    memory = float(psutil.virtual_memory().total)
    return Hardware(name, matmul, _bandwidth(), memory, 0.67, 3.4, 1.0, (0.010, 0.003), False)


def _bandwidth() -> float:
    """Bytes per second, read and written, of copying what no cache holds: the best of five copies."""
    source = torch.ones(32_000_000)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best
