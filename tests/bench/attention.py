"""The fused attention kernel against plain products, whole and in blocks: python tests/bench/attention.py

Forward and backward of one attention, by precision and number of tokens: what `vmae.layers.Attention`
chooses between. Interleaved rounds, medians; results go to data/bench/DEVICE.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import results
import torch
import torch.nn.functional as F

from vmae.layers import attention_in_blocks

ROUNDS = 9
#: (clips, heads, tokens) of ViT-S's encoder, its decoder in V2 and in V1, and fine-tuning; that of ViT-B. d = 64.
SHAPES = {
    "encoder": (2, 6, 160),
    "V2 decoder": (2, 3, 944),
    "V1 decoder": (2, 3, 1568),
    "fine-tuning": (2, 6, 1568),
    "fine-tuning, B": (2, 12, 1568),
}


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v


KERNELS: dict[str, Callable[..., torch.Tensor]] = {
    "fused": F.scaled_dot_product_attention,
    "plain": plain,
    "in blocks": attention_in_blocks,
}


def seconds(kernel: Callable[..., torch.Tensor], qkv: torch.Tensor) -> float:
    """Of one forward and backward pass. qkv: (B, N, 3, heads, d), as a layer has it."""
    qkv = qkv.clone().requires_grad_()
    start = time.perf_counter()
    mixed = kernel(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)
    mixed.backward(torch.ones_like(mixed))
    if qkv.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for name, (clips, heads, tokens) in SHAPES.items():
            shape = (clips, tokens, 3, heads, 64)
            qkv = torch.randn(shape, dtype=dtype, device=results.device())
            times: dict[str, list[float]] = {kernel: [] for kernel in KERNELS}
            for number in range(ROUNDS + 1):
                for kernel, function in KERNELS.items():
                    found = seconds(function, qkv)
                    if number:  # the first one warms up
                        times[kernel].append(found)
            entry = {k: round(1e3 * statistics.median(x), 2) for k, x in times.items()}
            precision = "bf16" if dtype == torch.bfloat16 else "fp32"
            results.keep(f"attention, {name}, {precision}", {"shape": shape, "milliseconds": entry})


if __name__ == "__main__":
    main()
