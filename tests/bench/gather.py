"""Ways to select tokens, forward and backward: python tests/bench/gather.py

What `vmae.grid.gather_tokens` chooses between. All give equal tokens and equal gradients, which is
checked first. Interleaved rounds, medians; results go to data/bench/DEVICE.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import results
import torch

from vmae.grid import gather_tokens

ROUNDS = 15
#: (clips, tokens, selected, width): what V2's decoder of ViT-S, ViT-B and the tiny model select.
SHAPES = {
    "tiny": (64, 128, 64, 48),
    "ViT-S": (8, 944, 704, 192),
    "ViT-B": (8, 944, 704, 384),
}


def by_index(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Advanced indexing: its backward pass sorts the index (index_put)."""
    return tokens[torch.arange(len(tokens), device=tokens.device)[:, None], index]


def by_gather(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


WAYS: dict[str, Callable[..., torch.Tensor]] = {
    "rows": gather_tokens,
    "index": by_index,
    "gather": by_gather,
}


def seconds(way: Callable[..., torch.Tensor], tokens: torch.Tensor, index: torch.Tensor) -> float:
    """Of one forward and backward pass."""
    tokens.grad = None
    start = time.perf_counter()
    chosen = way(tokens, index)
    chosen.backward(torch.ones_like(chosen))
    if tokens.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for name, (clips, count, selected, width) in SHAPES.items():
            device = results.device()
            tokens = torch.randn(clips, count, width, dtype=dtype, device=device)
            tokens.requires_grad_()
            noise = torch.rand(clips, count, device=device)
            index = noise.topk(selected, dim=1).indices.sort(dim=1).values
            gradients = []
            for way in WAYS.values():
                seconds(way, tokens, index)
                gradients.append(tokens.grad)
                torch.testing.assert_close(way(tokens, index), WAYS["rows"](tokens, index))
                torch.testing.assert_close(gradients[-1], gradients[0], rtol=0, atol=0)
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way, function in WAYS.items():
                    times[way].append(seconds(function, tokens, index))
            entry = {k: round(1e3 * statistics.median(x), 3) for k, x in times.items()}
            precision = "bf16" if dtype == torch.bfloat16 else "fp32"
            shape = (clips, count, selected, width)
            results.keep(f"gather, {name}, {precision}", {"shape": shape, "milliseconds": entry})


if __name__ == "__main__":
    main()
