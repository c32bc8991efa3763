"""The speed of a device, measured."""

from __future__ import annotations

import time
from functools import lru_cache

import torch


@lru_cache(maxsize=8)
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of square matrix products on `device`: the best of the runs in a fifth of a second."""
    gpu = device.type == "cuda"
    side = 8192 if gpu else 512
    # Random, since a GPU multiplies zeros and ones faster: fewer bits change, so its clock stays higher.
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best, end = float("inf"), None
    while end is None or time.perf_counter() < end:
        if gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        a @ b
        if gpu:
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if end is None:  # the first run is a warm-up and not counted
            end = now + 0.2
        else:
            best = min(best, now - start)
    return 2 * side**3 / best if best < float("inf") else 2 * side**3 / (now - start)


def flops_share(
    multiply_adds: int, device: torch.device, dtype: torch.dtype, world_size: int = 1
) -> float:
    """The fraction of the matmul rate of `world_size` devices that training on one clip per second uses.

    multiply_adds   of one clip's forward pass

    As usual for model FLOPs utilisation (MFU), the backward pass counts twice the forward pass, and
    recomputed activations do not count.
    """
    # 1 forward + 2 backward passes, 2 FLOPs per multiply-add
    return 3 * 2 * multiply_adds / (world_size * matmul_rate(device, dtype))
