"""A checkpoint that ships, from a finished run: python solutions/ship.py runs/evening"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

import vmae
from vmae.support.files import write_text
from vmae.train import RECIPES, PretrainConfig, Recipe
from vmae.weights import CheckpointError, save

TINY = vmae.ROOT / "data" / "tiny"
#: Bytes of weights, by the name of the folder: every clone of the repository carries them.
LARGEST = {"tiny": 6_000_000, "image": 4_000_000, "film": 8_000_000}


def recipe_of(config: PretrainConfig) -> str | None:
    """The shipped recipe that a run followed in model, mask, data and optimizer; None: none."""
    parts = ("model", "mask", "data", "optim")
    wanted = {part: getattr(config, part) for part in parts}
    for name in sorted(path.stem for path in RECIPES.glob("*.yaml")):
        recipe = Recipe.load(name).pretrain
        if wanted == {part: getattr(recipe, part) for part in parts}:
            return name
    return None


def stamp_of(run: Path) -> dict:
    """What the weights came from: the recipe, its data, the steps, and where each start ran."""
    config = PretrainConfig.from_yaml(run / "config.yaml")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    starts = json.loads((run / "environment.json").read_text())
    kept = ("step", "time", "commit", "changed_files", "torch", "device")
    return {
        "recipe": recipe_of(config),
        "data": config.data.path,
        "seed": config.seed,
        "steps": last["step"],
        "loss": round(last["loss"], 5),
        "minutes": round(last["seconds"] / 60, 1),
        "starts": [{name: start[name] for name in kept} for start in starts],
    }


def ship(run: Path, target: Path = TINY, half: bool = False, official: bool = False) -> Path:
    """Write a run's final weights, its model's config and a stamp into `target`.

    half      in half precision; else in single
    official  with the parameter names of the model's authors

    Raises CheckpointError for a run that has not ended, ValueError for a model that is too large.
    """
    model, stamp = vmae.load(run), stamp_of(run)
    size = sum((2 if half else 4) * parameter.numel() for parameter in model.parameters())
    most = LARGEST.get(target.name, LARGEST["tiny"])
    if size > most:
        raise ValueError(
            f"{run} has {size / 1e6:.1f} MB of weights; at most {most / 1e6:.0f} ship: take a "
            "recipe with a smaller model"
        )
    (target / "stamp.json").unlink(missing_ok=True)
    save(model.half() if half else model, target)
    if official:
        with TemporaryDirectory() as folder:
            file = save(model, Path(folder) / "model.pth", to="official")
            state = torch.load(file, weights_only=True)["model"]
        save_file({k: v.contiguous() for k, v in state.items()}, target / "model.safetensors")
    write_text(target / "stamp.json", json.dumps(stamp, indent=1) + "\n")
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder given to `vmae pretrain` as --out")
    try:
        print(ship(parser.parse_args().run))
    except (CheckpointError, ValueError) as error:
        raise SystemExit(f"ship.py: {error}") from None
