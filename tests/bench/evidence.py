"""What pre-training is worth: python tests/bench/evidence.py RECIPE [--seeds 0 1 2] [--threads N]

For each seed: pre-train by the recipe, then fine-tune with 10, 40 and all labels a class, from the
pre-trained encoder and from scratch. Writes data/evidence/RECIPE.json. Everything goes on where it
was stopped: the pre-training from its checkpoint, the rest from the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from vmae import ROOT, at_root
from vmae.course.making import render_set
from vmae.data import spec_named
from vmae.support.files import write_text
from vmae.train import FinetuneConfig, Recipe, environment, finetune, open_sources, pretrain
from vmae.weights import load_encoder

LABELS: tuple[int | None, ...] = (10, 40, None)
#: Steps and clips a step with all labels; with few, those of the recipe.
ALL_STEPS, ALL_BATCH = 1000, 64


def tuning(recipe: Recipe, labels: int | None, seed: int) -> FinetuneConfig:
    """The recipe's fine-tuning with so many labels a class."""
    config = recipe.finetune.replace(labels_per_class=labels, seed=seed)
    if labels is None:
        config = config.replace(
            optim=config.optim.replace(steps=ALL_STEPS, batch_size=ALL_BATCH, epochs=None)
        )
    return config


def run(name: str, seed: int) -> None:
    """Measure what the recipe's file does not hold yet for a seed."""
    path = ROOT / "data" / "evidence" / f"{name}.json"
    recipe = Recipe.load(name)
    folder = Path(recipe.pretrain.data.path)
    spec = spec_named(folder.name)
    if spec is not None:
        render_set(at_root(folder), spec)
    out = ROOT / "runs" / f"evidence-{name}-seed{seed}"
    weights = out / "model.safetensors"
    if not weights.exists():
        pretrain(recipe.pretrain.replace(seed=seed), out, resume=True)
    sources = open_sources(recipe.finetune)
    model = recipe.finetune.model
    for labels in LABELS:
        for start in ("pre-trained", "scratch"):
            key = f"seed {seed}, {labels or 'all'} labels a class, {start}"
            found = json.loads(path.read_text()) if path.exists() else {}
            if key in found:
                continue
            encoder = None
            if start == "pre-trained":
                encoder = load_encoder(
                    weights, num_frames=model.num_frames, img_size=model.img_size
                )
            result = finetune(tuning(recipe, labels, seed), sources, encoder)
            row = {"accuracy": round(result.test.accuracy, 2), "made": environment(_device())}
            found = json.loads(path.read_text()) if path.exists() else {}
            write_text(path, json.dumps(found | {key: row}, indent=1, sort_keys=True) + "\n")
            print(key, row["accuracy"], flush=True)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for seed in arguments.seeds:
        run(arguments.recipe, seed)


if __name__ == "__main__":
    main()
