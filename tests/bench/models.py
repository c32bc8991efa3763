"""Our models against Hugging Face's and the published algorithm: python tests/bench/models.py

The same clips, masks and weights go through all; their losses and gradients are compared before anything is
timed. Rounds are interleaved, and the median counts. Memory is the peak of a process of its own. The
results go to data/bench/DEVICE.json, with a stamp; --table prints what the README shows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import published
import torch
import torch.nn.functional as F
from torch import nn

from vmae import ROOT, flops
from vmae.config import MaskConfig, ModelConfig
from vmae.data.encode import write_text
from vmae.layers import NORM_EPS
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.train.run_folder import environment
from vmae.train.speed import compile_blocks
from vmae.train.watch import matmul_rate
from vmae.vit import VisionTransformer
from vmae.weights import save

FOLDER = ROOT / "data" / "bench"
V1 = MaskConfig("tube", 0.9)
V2 = MaskConfig("tube", 0.9, None, "running-cell", 0.5)
CLASSES = 400
PRECISIONS = ("fp32", "bf16")
#: A loss with gradients, from nothing: the clips are bound already.
Step = Callable[[], torch.Tensor]


class Case:
    """One size on one device: clips, and a step of each contestant."""

    def __init__(self, task: str, size: str, batch: int, device: torch.device) -> None:
        """`task`: "pre-train" (V1), "pre-train V2" or "fine-tune"."""
        self.task, self.config = task, ModelConfig.videomae(size)
        self.batch, self.device = batch, device
        torch.manual_seed(0)
        grid = self.config.grid
        shape = (batch, 3, *grid.clip)
        self.clips = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
        self.labels = torch.randint(0, CLASSES, (batch,)).to(device)
        mask = make_mask(V2 if task == "pre-train V2" else V1, grid, batch, device=device)
        self.mask, self.hidden = mask, mask.hidden(grid.tokens)
        build = MaskedAutoencoder if task != "fine-tune" else VisionTransformer
        classes = () if task != "fine-tune" else (CLASSES,)
        self.model: nn.Module = build(self.config, *classes).to(device)
        if task == "fine-tune":
            self.model.head.weight.data.mul_(1000)  # as published it is too small to compare by

    def contestants(self) -> list[str]:
        """Names of those that can do this task here."""
        compiled = ["ours, compiled"] if self.device.type == "cuda" else []
        others = ["HF SDPA", "HF eager", "published"] if self.task != "pre-train V2" else []
        return ["ours", *compiled, *others]

    def contestant(self, name: str) -> tuple[nn.Module, Step]:
        """A model with the weights of ours, and its step."""
        if name.startswith("HF"):
            model = self.hugging_face("sdpa" if "SDPA" in name else "eager")
            pixels = published.normalized(self.clips).transpose(1, 2).contiguous()
            if self.task == "fine-tune":
                return model, lambda: self.entropy(model(pixels).logits)
            return model, lambda: model(pixels, bool_masked_pos=self.hidden).loss
        model = self.model
        if name == "published":
            pixels = published.normalized(self.clips)
            if self.task == "fine-tune":
                return model, lambda: self.entropy(published.logits(model, pixels))
            return model, lambda: published.pretraining_loss(model, pixels, self.hidden)
        inputs = (self.clips,) if self.task == "fine-tune" else (self.clips, self.mask)
        if name == "ours, compiled":
            model = type(model)(self.config, *((CLASSES,) if self.task == "fine-tune" else ()))
            model = model.to(self.device)
            model.load_state_dict(self.model.state_dict())
            with torch.autocast(self.device.type, torch.bfloat16):
                compile_blocks(model, *inputs)
        if self.task == "fine-tune":
            return model, lambda: self.entropy(model(*inputs))
        return model, lambda: F.mse_loss(model(*inputs).float(), model.targets(*inputs))

    def entropy(self, logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.float(), self.labels)

    def hugging_face(self, attention: str) -> nn.Module:
        import transformers

        kind = "VideoClassification" if self.task == "fine-tune" else "PreTraining"
        with tempfile.TemporaryDirectory() as folder:
            save(self.model, Path(folder) / "hf", "hf")
            model = getattr(transformers, f"VideoMAEFor{kind}").from_pretrained(
                Path(folder) / "hf", attn_implementation=attention
            )
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = NORM_EPS  # as in the official code
        return model.to(self.device).train()

    def multiply_adds(self) -> int:
        """Of a forward pass of one clip, as ours computes it."""
        if self.task == "fine-tune":
            return flops.classifier_multiply_adds(self.config, CLASSES)
        mask = V2 if self.task == "pre-train V2" else V1
        return flops.pretraining_multiply_adds(self.config, mask)["total"]


def train(model: nn.Module, step: Step, precision: str, device: torch.device) -> float:
    """One forward and backward pass; returns the loss."""
    model.zero_grad(set_to_none=True)
    low = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with low:
        loss = step()
    loss.backward()
    return loss.item()  # waits for the device


def compare(case: Case, running: dict[str, tuple[nn.Module, Step]]) -> None:
    """All losses and the norms of all gradients agree in fp32, or there is nothing to time."""
    found = {}
    for name, (model, step) in running.items():
        loss = train(model, step, "fp32", case.device)
        squares = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
        found[name] = torch.tensor([loss, torch.stack(squares).sum().sqrt().item()])
    for name, values in found.items():
        torch.testing.assert_close(
            values, found["ours"], rtol=2e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def times(case: Case, precision: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds a step and clips a second of each contestant: medians of interleaved rounds."""
    names = case.contestants()
    running = {name: case.contestant(name) for name in names}
    compare(case, running)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, (model, step) in running.items():
            start = time.perf_counter()
            train(model, step, precision, case.device)
            if number:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rate = matmul_rate(case.device, dtype)
    rows = {}
    for name in names:
        median = statistics.median(seconds[name])
        rows[name] = {
            "seconds": round(median, 4),
            "clips a second": round(case.batch / median, 3),
            "rounds": [round(x, 4) for x in seconds[name]],
        }
        if name.startswith("ours"):
            achieved = 6 * case.multiply_adds() * case.batch / median
            rows[name]["of the matmul rate"] = round(achieved / rate, 3)
    return rows


def resident(name: str) -> float:
    """Bytes of this process on Linux: VmRSS, what it holds now; VmHWM, the most that it held."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * next(int(x.split()[1]) for x in status.splitlines() if x.startswith(name))


def peak(task: str, size: str, batch: int, name: str, precision: str) -> float:
    """Peak memory of a step in bytes, model and gradients included; run in a process of its own."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        case = Case(task, size, batch, device)
        model, step = case.contestant(name)
        case.model = model
        for _ in range(2):
            train(model, step, precision, device)
        return float(torch.cuda.max_memory_allocated())
    case = Case("pre-train", "tiny", 1, device)
    train(*case.contestant("ours"), precision, device)  # libraries are loaded by now
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    base = resident("VmRSS")
    case = Case(task, size, batch, device)
    model, step = case.contestant(name)
    case.model = model  # the one of ours is not needed any more
    for _ in range(2):
        train(model, step, precision, device)
    return resident("VmHWM") - base


def construction(size: str, rounds: int = 5) -> float:
    """Seconds to build a model for pre-training: the median."""
    config, found = ModelConfig.videomae(size), []
    for _ in range(rounds):
        start = time.perf_counter()
        MaskedAutoencoder(config)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def path_of(device: torch.device) -> Path:
    return FOLDER / f"{device.type}.json"


def table(device: str = "cpu") -> str:
    """The results as Markdown: clips a second, and how many times the others' ours are."""
    path = FOLDER / f"{device}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    lines = [
        "| step | precision | ours, clips a second | of the matmul rate | over published | over HF SDPA | over HF eager |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, entry in found.items():
        rows = entry.get("rows")
        if not rows:
            continue
        task, size, precision = key.split(", ")
        best = min((r for r in rows if r.startswith("ours")), key=lambda r: rows[r]["seconds"])
        ours = rows[best]
        ratios = [
            f"{rows[name]['seconds'] / ours['seconds']:.2f}" if name in rows else ""
            for name in ("published", "HF SDPA", "HF eager")
        ]
        share = f"{100 * ours['of the matmul rate']:.0f} %"
        lines.append(
            f"| {task}, {size} | {precision} | {ours['clips a second']:.2f} | {share} | {' | '.join(ratios)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["S", "B"])
    parser.add_argument(
        "--tasks", nargs="+", default=["pre-train", "pre-train V2", "fine-tune"]
    )  # fmt: skip
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peaks of a V1 step too")
    parser.add_argument("--table", action="store_true", help="print what was found, and stop")
    parser.add_argument("--peak-of", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.table:
        print(table(device.type))
        return
    if arguments.peak_of:
        task, size, precision = arguments.tasks[0], arguments.sizes[0], arguments.precisions[0]
        print(peak(task, size, arguments.batch, arguments.peak_of, precision))
        return

    def keep(key: str, entry: dict[str, Any]) -> None:
        path = path_of(device)
        found = json.loads(path.read_text()) if path.exists() else {}
        stamp = {"batch": arguments.batch, "made": environment(device)}
        write_text(path, json.dumps(found | {key: entry | stamp}, indent=1) + "\n")
        print(key, json.dumps(entry), flush=True)

    for size in arguments.sizes:
        keep(f"construction, {size}", {"seconds": round(construction(size), 3)})
        for task in arguments.tasks:
            for precision in arguments.precisions:
                case = Case(task, size, arguments.batch, device)
                keep(
                    f"{task}, {size}, {precision}",
                    {"rows": times(case, precision, arguments.rounds)},
                )
        if arguments.memory:
            keep(f"memory, {size}", {"gigabytes": peaks(size, arguments.batch)})


def peaks(size: str, batch: int) -> dict[str, float]:
    """Gigabytes of a V1 step in fp32 by contestant, each in a process of its own."""
    found = {}
    for name in ("ours", "HF SDPA", "HF eager", "published"):
        command = [sys.executable, __file__, "--peak-of", name, "--sizes", size, "--batch", str(batch),
                   "--tasks", "pre-train", "--precisions", "fp32"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = round(float(done.stdout.split()[-1]) / 1e9, 3)
    return found


if __name__ == "__main__":
    main()
