"""The first edition's measurements of the papers' claims, which stay as they were made.

Each claim compares pre-training runs that differ in one setting: 3,000 steps on the motion set at
level "textures", with the recipe cpu's model and plain pixels. They show no floor, stop before their
plateau and do not have the published base, so they are never mixed with `table`. Each entry of
data/experiments/first_edition.json names its commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, Literal

from vmae import ROOT

RESULTS = ROOT / "data" / "experiments" / "first_edition.json"
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


def _found() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _variant(key: str) -> str:
    return key.rsplit(", seed ", 1)[0]
