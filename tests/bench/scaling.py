"""Time and memory of V1's step as clips, batches and models grow: python tests/bench/scaling.py

A point is a process of its own: the median of its steps (fp32 on a CPU, bf16 on a GPU), the peak of its
memory, the multiply-adds that `vmae.cost.flops` counts and the bytes that `vmae.cost.memory` expects. Results go
to data/bench/DEVICE.json; tests/bench/charts.py draws them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import models
import results
import torch

from vmae.config import ModelConfig
from vmae.cost import flops, training_memory
from vmae.train import PretrainConfig

#: What grows, from a clip of 16 frames of 224x224 through ViT-S: (model, frames, size, clips) by value.
SERIES: dict[str, dict[int | str, tuple[str, int, int, int]]] = {
    "frames": {x: ("S", x, 224, 1) for x in (16, 32, 64)},
    "size": {x: ("S", 16, x, 1) for x in (112, 160, 224, 320)},
    "clips": {x: ("S", 16, 224, x) for x in (1, 2, 4, 8)},
    "model": {x: (x, 16, 224, 1) for x in ("S", "B", "L")},
}


def point(name: str, frames: int, size: int, clips: int, steps: int) -> dict[str, Any]:
    """Measured and expected, of this process."""
    device = results.device()
    precision = "bf16" if device.type == "cuda" else "fp32"
    base = models.start_of_peak(device)
    config = ModelConfig.videomae(name, num_frames=frames, img_size=size)
    case = models.Case("pre-train", config, clips, device)
    running = case.contestant("ours")
    seconds = []
    for number in range(steps + 1):
        start = time.perf_counter()
        models.train(*running, precision, device)
        if number:  # the first one warms up
            seconds.append(time.perf_counter() - start)
    expected = training_memory(
        PretrainConfig(model=config, mask=models.V1, precision=precision), clips
    )
    return {
        "seconds": round(statistics.median(seconds), 4),
        "gigabytes": round(models.end_of_peak(device, base) / 1e9, 4),
        "multiply-adds": clips * flops.pretraining_multiply_adds(config, models.V1)["total"],
        "expected gigabytes": round((expected.total - expected.optimizer) / 1e9, 4),
        "tokens": config.grid.num_tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--point", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.point:
        name, *numbers = arguments.point
        print(json.dumps(point(name, *map(int, numbers), arguments.steps)))
        return
    measured: dict[tuple[str, int, int, int], Any] = {}
    for series, values in SERIES.items():
        for setting in values.values():
            if setting not in measured:
                command = [sys.executable, __file__, "--steps", str(arguments.steps), "--point"]
                done = subprocess.run(
                    [*command, *map(str, setting)], capture_output=True, text=True, check=True
                )
                measured[setting] = json.loads(done.stdout.splitlines()[-1])
        points = {str(value): measured[setting] for value, setting in values.items()}
        results.keep(f"scaling, {series}", {"points": points})


if __name__ == "__main__":
    main()
