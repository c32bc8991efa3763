"""How hard each level of the motion set is, and that no label shows without the motion.

python tests/bench/levels.py [LEVEL ...] [--threads N]    measure, and write data/levels/LEVEL.json
python tests/bench/levels.py --table                      the table of data/README.md, from the files

For each level: VideoMAE's tiny classifier, trained on all labels, on the middle frame alone, on
frames in random order, and, from scratch, on 10 labels per class (three draws). On "scenes" the
encoder is pre-trained first, on the level's videos without their labels, and 10 labels per class are
measured from there too. The set is the size "small" with more test videos. A measurement that a
file already holds is not made again; a pre-training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from vmae import ROOT
from vmae.course.making import render_set
from vmae.data import SIZES, MotionSpec
from vmae.data.sets.motion_specs import LEVELS
from vmae.support.files import write_text
from vmae.train import (
    Evaluation,
    FinetuneConfig,
    Recipe,
    Sources,
    environment,
    finetune,
    open_sources,
    pretrain,
)
from vmae.vit import VisionTransformer

FOLDER = ROOT / "data" / "levels"
#: Test videos. A pair of 8 classes has 2,250 of them, a pair of 18 has 1,000: near chance, the standard
#: error of a pair is 1.1 or 1.6 points.
TEST = 9_000
DRAWS = (0, 1, 2)


@dataclass(frozen=True)
class Setting:
    """The side of a frame; steps, of 64 clips each: pre-training, all labels, the two baselines.

    crop   multi-scale crops in training: the level has few photos, so its clips are soon memorised
    """

    size: int
    pretraining: int
    steps: int
    baseline: int
    crop: bool = False


SETTINGS = {
    "digits": Setting(16, 0, 2000, 1000),
    "textures": Setting(16, 0, 2000, 1000),
    "scenes": Setting(32, 8000, 12000, 2000, crop=True),
}


def spec_of(level: str) -> MotionSpec:
    """What is rendered for a level."""
    return replace(SIZES["small"], level=level, test=TEST)


def recipe_of(level: str, folder: Path, view: str = "video") -> Recipe:
    """The cpu recipe's model and rates, on all labels of a level."""
    setting = SETTINGS[level]
    patch = setting.size // 4  # a grid of 4x4x4 tokens
    recipe = Recipe.load("cpu").changed(
        both={
            "data.path": str(folder),
            "model.img_size": setting.size,
            "model.tubelet": [2, patch, patch],
        },
        pretrain={"optim.steps": setting.pretraining} if setting.pretraining else {},
        finetune={
            "optim.steps": setting.steps if view == "video" else setting.baseline,
            "optim.batch_size": 64,
            "view": view,
            "crop": setting.crop,
        },
    )
    return replace(recipe, finetune=recipe.finetune.replace(labels_per_class=None))


def encoder_of(level: str, recipe: Recipe, sources: Sources) -> VisionTransformer | None:
    """An encoder pre-trained on the level's videos; None where the level is learned from scratch."""
    if not SETTINGS[level].pretraining:
        return None
    folder = ROOT / "runs" / f"level-{level}"
    return pretrain(recipe.pretrain, folder, resume=True, source=sources.train).model.encoder


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


def measure(
    level: str, sources: Sources, config: FinetuneConfig, encoder: VisionTransformer | None
) -> dict[str, Any]:
    """All labels, with one view of the clips: accuracy, and by pair of opposite classes."""
    result = finetune(config, sources, encoder)
    by_pair = pairs(result.test, spec_of(level).opposites)
    return {
        "accuracy": round(result.test.accuracy, 2),
        "pairs": [round(p, 2) for p in by_pair],
        "steps": config.optim.steps,
        "minutes": round(result.cost["minutes"], 1),
    }


def measure_few(
    sources: Sources, config: FinetuneConfig, encoder: VisionTransformer | None
) -> dict[str, Any]:
    """10 labels per class, as the cpu recipe fine-tunes: accuracy of each draw."""
    few = Recipe.load("cpu").finetune.optim
    config = config.replace(labels_per_class=10, optim=few, crop=False)
    runs = [finetune(config.replace(seed=seed), sources, encoder) for seed in DRAWS]
    return {"accuracies": [round(run.test.accuracy, 2) for run in runs]}


def run(level: str) -> None:
    """Measure what the level's file does not hold yet."""
    path = FOLDER / f"{level}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    folder = render_set(ROOT / "data" / f"motion-{level}-measured", spec_of(level))
    recipes = {v: recipe_of(level, folder, v) for v in ("video", "shuffled", "single-frame")}
    video = recipes["video"].finetune
    sources = open_sources(video)
    encoder = encoder_of(level, recipes["video"], sources)
    work: dict[str, Callable[[], dict[str, Any]]] = {
        view: partial(measure, level, sources, recipe.finetune, encoder)
        for view, recipe in recipes.items()
    }
    work["10 labels"] = partial(measure_few, sources, video, None)
    if encoder is not None:
        work["10 labels, pre-trained"] = partial(measure_few, sources, video, encoder)
    for name, measurement in work.items():
        if name not in found:
            stamp = environment(torch.device("cpu"))
            found[name] = measurement() | {"made": stamp}
            write_text(path, json.dumps(found, indent=1) + "\n")
            print(level, name, {k: v for k, v in found[name].items() if k != "made"}, flush=True)


def table() -> str:
    """The files as a Markdown table."""
    lines = [
        "| level | classes | all labels | 10 labels per class, from scratch | the same, pre-trained | "
        "single frame: pairs (worst) | shuffled: pairs (worst) |",
        "|---|---|---|---|---|---|---|",
    ]
    for level, classes in LEVELS.items():
        path = FOLDER / f"{level}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        cells = [
            _accuracy(found.get("video")),
            _draws(found.get("10 labels")),
            _draws(found.get("10 labels, pre-trained")),
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
