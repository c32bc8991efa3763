"""Our models against Hugging Face's and the published algorithm: python tests/bench/models.py

The same clips, masks and weights go through all; their losses and gradients are compared before anything is
timed. Rounds go through all contestants and both precisions in turn, and the median counts. V2 is timed
beside V1. Memory is the peak of a process of its own. The results go to data/bench/DEVICE.json, with a
stamp; --table prints what the README beside it shows.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import published
import results
import torch
import torch.nn.functional as F
from torch import nn

from vmae.config import MaskConfig, ModelConfig
from vmae.cost import flops, matmul_rate
from vmae.layers import NORM_EPS
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import make_mask
from vmae.train import compile_blocks
from vmae.vit import VisionTransformer
from vmae.weights import save

V1 = MaskConfig("tube", 0.9)
V2 = MaskConfig("tube", 0.9, None, "running-cell", 0.5)
CLASSES = 400
PRECISIONS = ("fp32", "bf16")
#: A loss with gradients, from nothing: the clips are bound already.
Step = Callable[[], torch.Tensor]


class Case:
    """One size on one device: clips, and a step of each contestant."""

    def __init__(self, task: str, config: ModelConfig, batch: int, device: torch.device) -> None:
        """`task`: "pre-train" or "fine-tune"."""
        self.task, self.config, self.batch, self.device = task, config, batch, device
        torch.manual_seed(0)
        grid = self.config.grid
        shape = (batch, 3, *grid.clip)
        self.clips = torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
        self.labels = torch.randint(0, CLASSES, (batch,)).to(device)
        self.mask = make_mask(V1, grid, batch, device=device)
        self.hidden = self.mask.hidden(grid.num_tokens)
        build = MaskedAutoencoder if task != "fine-tune" else VisionTransformer
        classes = () if task != "fine-tune" else (CLASSES,)
        self.model: nn.Module = build(self.config, *classes).to(device)
        if task == "fine-tune":
            self.model.head.weight.data.mul_(1000)  # as published it is too small to compare by

    def contestants(self) -> list[str]:
        """Names of those that can do this task here."""
        others = ["HF SDPA", "HF eager", "published"]
        ours = ["ours"] if self.task == "fine-tune" else ["ours", "ours, V2"]
        if self.device.type == "cuda":
            ours += [f"{name}, compiled" for name in ours]
        return ours + others

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
        mask = self.mask
        if "V2" in name:
            mask = make_mask(V2, self.config.grid, self.batch, device=self.device)
        inputs = (self.clips,) if self.task == "fine-tune" else (self.clips, mask)
        if "compiled" in name:
            model = type(model)(self.config, *((CLASSES,) if self.task == "fine-tune" else ()))
            model = model.to(self.device)
            model.load_state_dict(self.model.state_dict())
            with torch.autocast(self.device.type, torch.bfloat16):
                compile_blocks(model, *inputs)
        if self.task == "fine-tune":
            return model, lambda: self.entropy(model(*inputs))
        return model, lambda: F.mse_loss(
            model(*inputs).float(), pixel_targets(*inputs, model.config)
        )

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

    def multiply_adds(self, name: str) -> int:
        """Of a forward pass of one clip, as ours computes it."""
        if self.task == "fine-tune":
            return flops.classifier_multiply_adds(self.config, CLASSES)
        return flops.pretraining_multiply_adds(self.config, V2 if "V2" in name else V1)["total"]


def train(model: nn.Module, step: Step, precision: str, device: torch.device) -> float:
    """One forward and backward pass; returns the loss."""
    model.zero_grad(set_to_none=True)
    low = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with low:
        loss = step()
    loss.backward()
    return loss.item()  # waits for the device


def compare(case: Case, running: dict[str, tuple[nn.Module, Step]]) -> None:
    """All losses and the norms of all gradients agree in fp32, or there is nothing to time.

    V2 has a loss of its own: tests/test_mae.py compares it with a dense transcription.
    """
    found = {}
    for name, (model, step) in running.items():
        if "V2" in name:
            continue
        loss = train(model, step, "fp32", case.device)
        squares = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
        found[name] = torch.tensor([loss, torch.stack(squares).sum().sqrt().item()])
    for name, values in found.items():
        torch.testing.assert_close(
            values, found["ours"], rtol=2e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def times(case: Case, precisions: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """By precision and contestant: seconds per step and clips per second, medians of interleaved rounds.

    A turn is three steps, of which the first is not counted: it finds the memory as another model
    left it, and in training a step follows one of its own. Each round has another order.
    """
    running = {name: case.contestant(name) for name in case.contestants()}
    compare(case, running)
    seconds: dict[tuple[str, str], list[float]] = {(p, n): [] for p in precisions for n in running}
    shuffled = random.Random(0)
    for _ in range(rounds):
        for precision, name in shuffled.sample(list(seconds), len(seconds)):
            for number in range(3):
                start = time.perf_counter()
                train(*running[name], precision, case.device)
                if number:
                    seconds[precision, name].append(time.perf_counter() - start)
    rows: dict[str, dict[str, Any]] = {precision: {} for precision in precisions}
    for precision in precisions:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        rate = matmul_rate(case.device, dtype)
        for name in running:
            median = statistics.median(seconds[precision, name])
            row: dict[str, Any] = {
                "seconds": round(median, 4),
                "clips per second": round(case.batch / median, 3),
                "steps": [round(x, 4) for x in seconds[precision, name]],
            }
            if name.startswith("ours"):
                achieved = 6 * case.multiply_adds(name) * case.batch / median
                row["of the matmul rate"] = round(achieved / rate, 3)
            rows[precision][name] = row
    return rows


def resident(name: str) -> float:
    """Bytes of this process on Linux: VmRSS, what it holds now; VmHWM, the most that it held."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * next(int(x.split()[1]) for x in status.splitlines() if x.startswith(name))


def start_of_peak(device: torch.device) -> float:
    """Bytes that are there before a measurement, libraries included; from here the peak counts."""
    case = Case("pre-train", ModelConfig.videomae("tiny"), 1, device)
    train(*case.contestant("ours"), "fp32", device)  # libraries are loaded by now
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def end_of_peak(device: torch.device, base: float) -> float:
    """The most bytes since `start_of_peak`, without the `base` that it gave."""
    cuda = device.type == "cuda"
    return (torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")) - base


def peak(task: str, size: str, batch: int, name: str, precision: str) -> float:
    """Peak memory of a step in bytes, model and gradients included; run in a process of its own."""
    device = results.device()
    base = start_of_peak(device)
    case = Case(task, ModelConfig.videomae(size), batch, device)
    model, step = case.contestant(name)
    case.model = model  # the one of ours is not needed any more
    for _ in range(2):
        train(model, step, precision, device)
    return end_of_peak(device, base)


def construction(size: str, rounds: int = 5) -> float:
    """Seconds to build a model for pre-training: the median."""
    config, found = ModelConfig.videomae(size), []
    for _ in range(rounds):
        start = time.perf_counter()
        MaskedAutoencoder(config)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def table(kind: str = "cpu") -> str:
    """The results as Markdown: clips per second, and how many times the others' ours are."""
    heads = ["step", "precision", "ours, clips per second", "of the matmul rate", "over published",
             "over published in fp32", "over HF SDPA", "over HF eager", "V2 over V1"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for key, entry in results.found(kind).items():
        for precision, rows in entry.get("rows", {}).items():
            ours = _fastest(rows, "V1")
            exact = entry["rows"].get("fp32", {})
            ratios = [
                f"{other['seconds'] / ours['seconds']:.2f}" if other else ""
                for other in (rows["published"], exact.get("published"), rows["HF SDPA"], rows["HF eager"])
            ]  # fmt: skip
            dual = _fastest(rows, "V2") if "ours, V2" in rows else None
            ratios.append(f"{ours['seconds'] / dual['seconds']:.2f}" if dual else "")
            speed = f"{ours['clips per second']:.2f} | {100 * ours['of the matmul rate']:.0f} %"
            lines.append(f"| {key} | {precision} | {speed} | {' | '.join(ratios)} |")
    for key, entry in results.found(kind).items():
        if "gigabytes" in entry:
            peaks = ", ".join(f"{name} {size:.2f}" for name, size in entry["gigabytes"].items())
            size = key.removeprefix("memory, ")
            lines += [
                "",
                f"Peak memory of a pre-training step in fp32, ViT-{size}, in GB: {peaks}.",
            ]
    return "\n".join(lines)


def _fastest(rows: dict[str, Any], version: str) -> dict[str, Any]:
    """Of our rows, compiled or not."""
    ours = [n for n in rows if n.startswith("ours") and ("V2" in n) == (version == "V2")]
    return min((rows[name] for name in ours), key=lambda row: row["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["S", "B"])
    parser.add_argument("--tasks", nargs="+", default=["pre-train", "fine-tune"])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peaks of a V1 step too")
    parser.add_argument("--table", action="store_true", help="print what was found, and stop")
    parser.add_argument("--peak-of", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = results.device()
    if arguments.table:
        print(table(device.type))
        return
    if arguments.peak_of:
        task, size, precision = arguments.tasks[0], arguments.sizes[0], arguments.precisions[0]
        print(peak(task, size, arguments.batch, arguments.peak_of, precision))
        return

    for size in arguments.sizes:
        results.keep(f"construction, {size}", {"seconds": round(construction(size), 3)})
        for task in arguments.tasks:
            case = Case(task, ModelConfig.videomae(size), arguments.batch, device)
            rows = times(case, arguments.precisions, arguments.rounds)
            results.keep(f"{task}, {size}", {"batch": arguments.batch, "rows": rows})
        if arguments.memory:
            entry = {"batch": arguments.batch, "gigabytes": peaks(size, arguments.batch)}
            results.keep(f"memory, {size}", entry)


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
