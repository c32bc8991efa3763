"""How hard each level of the motion set is, and that no label shows without the motion.

python tests/bench/levels.py [LEVEL ...] [--threads N]    measure, and write data/levels/LEVEL.json
python tests/bench/levels.py --table                      the table of data/README.md, from the files

For each level: VideoMAE's tiny classifier, trained from scratch on all labels, on the middle frame
alone, on frames in random order, and on 10 labels a class (three draws). The set is the size
"small" with more test videos. A measurement that a file already holds is not made again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from vmae import ROOT
from vmae.config import FinetuneConfig, Recipe
from vmae.data.encode import write_text
from vmae.data.motion import LEVELS, SIZES, MotionSpec, render_set
from vmae.train.evaluate import Evaluation
from vmae.train.finetune import Sources, finetune, open_sources
from vmae.train.run_folder import environment

FOLDER = ROOT / "data" / "levels"
#: Of a pair of classes, 9 of which share these: the standard error of a pair is 1.6 points.
TEST = 9_000
DRAWS = (0, 1, 2)
#: The side of a frame; steps on all labels, of 64 clips each; steps of the two baselines.
SETTINGS: dict[str, tuple[int, int, int]] = {
    "digits": (16, 2000, 1000),
    "textures": (16, 2000, 1000),
    "scenes": (32, 7000, 2000),
}


def spec_of(level: str) -> MotionSpec:
    """What is rendered for a level."""
    return replace(SIZES["small"], level=level, test=TEST)


def config_of(level: str, folder: Path, view: str = "video") -> FinetuneConfig:
    """The cpu recipe's classifier and rates, on all labels of a level."""
    size, steps, baseline = SETTINGS[level]
    patch = size // 4  # a grid of 4x4x4 tokens
    recipe = Recipe.load("cpu").changed(
        both={"data.path": str(folder), "model.size": size, "model.tubelet": [2, patch, patch]},
        finetune={
            "optim.steps": steps if view == "video" else baseline,
            "optim.batch_size": 64,
            "view": view,
        },
    )
    return recipe.finetune.replace(labels_per_class=None)


def pairs(test: Evaluation, opposites: tuple[int, ...]) -> list[float]:
    """For each pair of opposite classes: how often the right one of the two has more, in percent."""
    other = torch.tensor(opposites)[test.labels]
    right = test.logits.gather(1, test.labels[:, None]) > test.logits.gather(1, other[:, None])
    chosen = right.flatten().numpy()
    labels = test.labels.numpy()
    return [
        100 * float(np.mean(chosen[(labels == a) | (labels == b)]))
        for a, b in enumerate(opposites)
        if a < b
    ]


def measure(level: str, sources: Sources, folder: Path, view: str) -> dict[str, Any]:
    """All labels, with one view of the clips: accuracy, and by pair of opposite classes."""
    config = config_of(level, folder, view)
    result = finetune(config, sources)
    by_pair = pairs(result.test, spec_of(level).opposites)
    return {
        "accuracy": round(result.test.accuracy, 2),
        "pairs": [round(p, 2) for p in by_pair],
        "steps": config.optim.steps,
        "minutes": round(result.cost["minutes"], 1),
    }


def measure_few(sources: Sources, config: FinetuneConfig) -> dict[str, Any]:
    """10 labels a class, as the cpu recipe fine-tunes: accuracy of each draw."""
    few = Recipe.load("cpu").finetune.optim
    runs = [
        finetune(config.replace(labels_per_class=10, seed=seed, optim=few), sources)
        for seed in DRAWS
    ]
    return {"accuracies": [round(run.test.accuracy, 2) for run in runs]}


def run(level: str) -> None:
    """Measure what the level's file does not hold yet."""
    path = FOLDER / f"{level}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    folder = render_set(ROOT / "data" / f"motion-{level}-measured", spec_of(level))
    config = config_of(level, folder)
    sources = open_sources(config)
    work = {
        "video": lambda: measure(level, sources, folder, "video"),
        "10 labels": lambda: measure_few(sources, config),
        "shuffled": lambda: measure(level, sources, folder, "shuffled"),
        "single-frame": lambda: measure(level, sources, folder, "single-frame"),
    }
    for name, measurement in work.items():
        if name not in found:
            stamp = environment(torch.device("cpu"))
            found[name] = measurement() | {"made": stamp}
            write_text(path, json.dumps(found, indent=1) + "\n")
            print(level, name, {k: v for k, v in found[name].items() if k != "made"}, flush=True)


def table() -> str:
    """The files as a Markdown table."""
    lines = [
        "| level | classes | all labels | 10 labels a class, from scratch | single frame: pairs (worst) | "
        "shuffled: pairs (worst) |",
        "|---|---|---|---|---|---|",
    ]
    for level, classes in LEVELS.items():
        path = FOLDER / f"{level}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        cells = [
            _accuracy(found.get("video")),
            _draws(found.get("10 labels")),
            _pairs(found.get("single-frame")),
            _pairs(found.get("shuffled")),
        ]
        lines.append(f"| {level} | {len(classes)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _accuracy(found: dict[str, Any] | None) -> str:
    return "not measured" if found is None else f"{found['accuracy']:.1f} %"


def _draws(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not measured"
    values = found["accuracies"]
    return f"{mean(values):.1f} % ({', '.join(f'{x:.1f}' for x in values)})"


def _pairs(found: dict[str, Any] | None) -> str:
    """The mean over the pairs, and the one farthest from chance."""
    if found is None:
        return "not measured"
    values = found["pairs"]
    return f"{mean(values):.1f} % ({max(values, key=lambda p: abs(p - 50)):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("levels", nargs="*", metavar="LEVEL", help=f"of {', '.join(LEVELS)}")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for level in arguments.levels or LEVELS:
        run(level)


if __name__ == "__main__":
    main()
