"""Small-scale tests of the papers' claims, for the trend only: `vmae claims`, on two CPU cores.

Each claim compares pre-training runs that differ in one setting. The data is the motion set at level
"textures"; model, learning rates and batch size come from the recipe cpu, with VideoMAE V1's masks.
Each run is evaluated by a linear probe on all labels and by fine-tuning on 10 labels per class.
Results go to data/claims/results.json, one entry per setting and seed; finished entries are not
measured again, and an interrupted run resumes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch

from vmae import ROOT
from vmae.train.recipe import Recipe

RESULTS = ROOT / "data" / "claims" / "results.json"
#: Steps of each pre-training run; the recipe cpu has 8,000.
STEPS = 3000

#: Differences from the base: fields of the pre-training config, or the number of videos.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "random": {"mask.mask_type": "random"},
    "frame": {"mask.mask_type": "frame"},
    "ratio 0.5": {"mask.mask_ratio": 0.5},
    "ratio 0.9": {"mask.mask_ratio": 0.9},
    "ratio 0.95": {"mask.mask_ratio": 0.95},
    "depth 1": {"model.decoder_depth": 1},
    "depth 4": {"model.decoder_depth": 4},
    "normalised": {"model.normalize_targets": True},
    "every token": {"mask.decoder_mask_type": "every"},
    "running cell": {"mask.decoder_mask_type": "running-cell", "mask.decoder_mask_ratio": 0.5},
    "decoder random": {"mask.decoder_mask_type": "random", "mask.decoder_mask_ratio": 0.5},
    "decoder frame": {"mask.decoder_mask_type": "frame", "mask.decoder_mask_ratio": 0.5},
    "1,000 videos": {"videos": 1000},
    "4,000 videos": {"videos": 4000},
}

#: The settings that each claim compares, {name in a figure: variant}. The base hides 75 % of the
#: tokens in tubes, reconstructs the hidden ones only, has two decoder blocks and raw pixels as
#: targets, and uses 16,000 videos.
CLAIMS: dict[str, dict[str, str]] = {
    "masking": {"tube": "base", "random": "random", "frame": "frame"},
    "ratio": {"50 %": "ratio 0.5", "75 %": "base", "90 %": "ratio 0.9", "95 %": "ratio 0.95"},
    "decoder depth": {"1": "depth 1", "2": "base", "4": "depth 4"},
    "targets": {"pixels": "base", "normalised": "normalised"},
    "loss": {"hidden tokens": "base", "all tokens": "every token"},
    "decoder mask": {
        "none": "base",
        "running cell": "running cell",
        "random": "decoder random",
        "frame": "decoder frame",
    },
    "data": {"1,000": "1,000 videos", "4,000": "4,000 videos", "16,000": "base"},
}

#: The setting preferred by the papers on MAE and VideoMAE V1, for the claims about V1.
PREFERRED = {
    "masking": "tube",
    "ratio": "90 %",
    "decoder depth": "4",
    "targets": "normalised",
    "loss": "hidden tokens",
    "data": "16,000",
}


def verdict(found: Mapping[str, Sequence[float]], best: str) -> str:
    """Whether setting `best` leads all others by more than the spread between seeds.

    found   accuracies by setting, as returned by `values`: one per seed, in order

    Runs with the same seed share the encoder's initial weights, the order of clips and the labels, so
    the verdict also counts the seeds in which `best` is ahead of its strongest rival.

    >>> verdict({"tube": [80, 82], "random": [70, 71], "frame": []}, "tube")
    'holds: +10.5 vs. random, ahead in 2 of 2 seeds, spread 2.0; not measured yet: frame'
    """
    runs = {name: accuracies for name, accuracies in found.items() if accuracies}
    if best not in runs or len(runs) < 2:
        return "not measured yet"
    rivals = {name: mean(accuracies) for name, accuracies in runs.items() if name != best}
    rival = max(rivals, key=lambda name: rivals[name])
    lead = mean(runs[best]) - rivals[rival]
    spread = max(max(accuracies) - min(accuracies) for accuracies in runs.values())
    pairs = list(zip(runs[best], runs[rival], strict=False))  # some seeds may be missing
    ahead = sum(own > other for own, other in pairs)
    conclusive = min(map(len, runs.values())) > 1 and abs(lead) > spread
    outcome = ("holds" if lead > 0 else "does not hold") if conclusive else "inconclusive"
    missing = ", ".join(name for name in found if name not in runs)
    note = f"; not measured yet: {missing}" if missing else ""
    return (
        f"{outcome}: {lead:+.1f} vs. {rival}, ahead in {ahead} of {len(pairs)} seeds, "
        f"spread {spread:.1f}{note}"
    )


def values(claim: str, test: Literal["10 labels", "probe"]) -> dict[str, list[float]]:
    """Accuracies in percent by setting of the claim, one per seed; empty if not measured."""
    found = _found()
    return {
        name: [row[test] for key, row in sorted(found.items()) if _variant(key) == variant]
        for name, variant in CLAIMS[claim].items()
    }


def measure(claims: Sequence[str], seeds: Sequence[int], steps: int = STEPS) -> None:
    """Run what is missing for these claims and seeds; each result is saved as soon as it is known."""
    from vmae.data.making.motion import SIZES, render_set, set_name, with_sizes
    from vmae.support.files import write_text

    spec = with_sizes(SIZES["small"], level="textures")
    folder = render_set(ROOT / "data" / set_name("textures", "small"), spec)
    for seed in seeds:
        for variant in dict.fromkeys(v for claim in claims for v in CLAIMS[claim].values()):
            key = f"{variant}, seed {seed}"
            if key not in _found():
                row = _measured(variant, seed, folder, steps)
                write_text(RESULTS, json.dumps(_found() | {key: row}, indent=1) + "\n")
                print(key, {k: v for k, v in row.items() if k != "made"}, flush=True)


def recipe_of(variant: str, folder: Path, steps: int) -> Recipe:
    """The recipe cpu with V1's masks and the changes of the variant."""
    changes = {k: v for k, v in VARIANTS[variant].items() if k != "videos"}
    model = {k: v for k, v in changes.items() if k.startswith("model.")}
    rest = {k: v for k, v in changes.items() if not k.startswith("model.")}
    masks = {"mask.decoder_mask_type": "all", "mask.decoder_mask_ratio": 0.0, "optim.steps": steps}
    return Recipe.load("cpu").changed(
        both={"data.path": str(folder), **model}, pretrain={**masks, **rest}
    )


def _measured(variant: str, seed: int, folder: Path, steps: int) -> dict[str, Any]:
    from vmae.data.reading.loader import Subset
    from vmae.data.reading.sampling import Sampling
    from vmae.train.evaluate import linear_probe, pooled_features
    from vmae.train.finetune import finetune, open_sources
    from vmae.train.pretrain import pretrain
    from vmae.train.run_folder import environment

    recipe = recipe_of(variant, folder, steps)
    sources = open_sources(recipe.finetune)
    videos = VARIANTS[variant].get("videos")
    pool = Subset(sources.train, list(range(videos))) if videos else sources.train
    out = ROOT / "runs" / f"claim-{variant.replace(' ', '-').replace(',', '')}-seed{seed}"
    done = pretrain(recipe.pretrain.replace(seed=seed), out, resume=True, source=pool)
    encoder = done.model.encoder
    sampling = Sampling.of(recipe.finetune.data, recipe.finetune.model.num_frames)
    train, test = (pooled_features(encoder, s, sampling) for s in (sources.train, sources.test))
    tuned = finetune(recipe.finetune.replace(seed=seed), sources, encoder)
    return {
        "probe": round(linear_probe(train, test), 2),
        "10 labels": round(tuned.test.accuracy, 2),
        "loss": done.records[-1].loss,
        "minutes": round(done.cost["minutes"], 1),
        "steps": steps,
        "made": environment(torch.device("cpu")),
    }


def _found() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _variant(key: str) -> str:
    return key.rsplit(", seed ", 1)[0]
