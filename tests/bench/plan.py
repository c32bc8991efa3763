"""`vmae plan` against runs on this CPU: python tests/bench/plan.py

Each recipe is planned, then run for a few steps in a process of its own, on small rendered videos and with a
batch that a CPU can bear. Predicted and measured seconds per step and gigabytes go to
data/bench/cpu.json; tests/train/test_plan.py holds them against each other, and plans again from the rates of
the machine, which are kept too. Measure on a quiet machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import results
import torch

from vmae.course.making import render_set
from vmae.data import SIZES
from vmae.support.progress import Silent
from vmae.train import PretrainConfig, Recipe, pretrain
from vmae.train.devices import peak_memory
from vmae.train.plan import clips_of, hardware, planned

#: Videos per step, and steps, by recipe.
RUNS = {"cpu": (64, 60), "film": (8, 8), "gpu": (8, 8), "v1-k400-s": (4, 5)}


def config_of(name: str, folder: Path = Path("not-there")) -> PretrainConfig:
    """A recipe's pre-training on the set in `folder`, on the CPU; stride 1, since the videos are short."""
    batch, steps = RUNS[name]
    config = Recipe.load(name).pretrain
    data = config.data.replace(
        path=str(folder / "set"), root=None, stride=1, cache=True,
        cache_dir=str(folder / "stores"), cache_on_device=False, num_workers=0,
    )  # fmt: skip
    optim = config.optim.replace(batch_size=batch, steps=steps, epochs=None)
    return config.replace(
        data=data, optim=optim, device="cpu", precision="fp32", compile=False, log_every=1,
        repeated_aug=1,
    )  # fmt: skip


def measured(name: str) -> dict[str, Any]:
    """Planned and measured, of this process."""
    warnings.simplefilter("ignore")  # the batch is larger than the set
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config, cpu = config_of(name, Path(folder)), hardware("cpu")
        size = max(64, config.model.img_size)
        spec = replace(SIZES["mini"], level="textures", frames=32, size=size)
        render_set(config.data.path, spec, workers=1)
        plan = planned(config, cpu, clips_of(config))
        run = pretrain(config, progress=Silent())
    batch, _ = RUNS[name]
    seconds = [batch / record.clips_per_second for record in run.records[1:]]
    return {
        "batch": batch,
        "planned seconds": round(plan.seconds / plan.steps, 4),
        "measured seconds": round(statistics.median(seconds), 4),
        "planned gigabytes": round(plan.memory / 1e9, 3),
        "measured gigabytes": round(peak_memory(torch.device("cpu")) / 1e9, 3),
        "parts": {part: round(value, 4) for part, value in plan.parts.items()},
        "machine": {"matmul": cpu.matmul["fp32"], "bandwidth": cpu.bandwidth},
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1])))
        return
    for name in RUNS:
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.keep(f"plan, {name}", json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
