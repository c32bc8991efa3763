"""Labels and steps: fine-tuning from scratch and from pre-trained weights, both to their plateau.

Rates and steps are chosen with a seed of their own on clips of their own (validation). Steps double
until that gains less than `PLATEAU` points, in a run that has left the loss of guessing behind. Then
every seed is fine-tuned for the fewest steps and for as many as the plateau takes; both starts share the
seed's labelled clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vmae.config import MaskConfig, ModelConfig
from vmae.course.experiments.search import Score, best, tried
from vmae.course.experiments.table import EXPERIMENTS, PLATEAU, SEARCH_SEED, Results
from vmae.train.config import FinetuneConfig, OptimConfig, PretrainConfig
from vmae.train.recipe import Recipe

#: Steps that are tried, from the fewest; doubling is judged from `JUDGED` on, since fewer may all
#: lie on the flat beginning of a curve.
LADDER, JUDGED = (300, 600, 1200, 2400, 4800, 9600), 600
#: A run has begun to learn if its training loss is below this share of that of guessing. Before that its
#: accuracy is flat as well, and a plateau at chance is none.
BEGUN = 0.75
CLASSES = {"images": 10, "videos": 8}
#: Rates that are tried first, with `JUDGED` steps, at two numbers of labels; the others take the rate of
#: the number that they are listed under.
RATES = (5e-4, 1e-3, 2e-3)
SEARCHED: dict[int, tuple[int | None, ...]] = {10: (5, 10, 20), 100: (50, 100, None)}
_PRETRAINED = "pre-trained"


@dataclass(frozen=True)
class TunedArm:
    """One fine-tuning on a set, from `start`: "pre-trained" or "from scratch".

    labels   per class; None: all
    steps    None: the plateau is not known yet
    lr       None: not known before the search, or the pre-trained weights, are complete
    """

    set: str
    start: str
    labels: int | None
    steps: int | None
    seed: int
    lr: float | None

    @property
    def key(self) -> str:
        """The name of the arm's result among those of its set."""
        steps = "?" if self.steps is None else self.steps
        rate = "?" if self.lr is None else f"{self.lr:g}"
        labels = question(self.labels)
        return f"{self.start}, {labels}, {steps} steps, rate {rate}, seed {self.seed}"

    @property
    def ready(self) -> bool:
        """Whether all that the arm depends on is measured."""
        return self.lr is not None and self.steps is not None

    @property
    def config(self) -> FinetuneConfig:
        """The fine-tuning: lesson 03's for images, that of the recipe cpu for videos."""
        assert self.ready, f"{self.key}: its steps or its learning rate are not known yet"
        config = _images()[1] if self.set == "images" else Recipe.load("cpu").finetune
        return config.replace(
            optim=config.optim.replace(steps=self.steps, epochs=None, lr=self.lr),
            labels_per_class=self.labels, seed=self.seed, device="cpu", precision="fp32",
        )  # fmt: skip


def _images() -> tuple[PretrainConfig, FinetuneConfig]:
    """Both runs of lesson 03."""
    model = ModelConfig.mae(
        "tiny", img_size=16, tubelet=(1, 4, 4), depth=3, decoder_embed_dim=32, decoder_num_heads=2,
        decoder_depth=1, normalize_targets=False,
    )  # fmt: skip
    optim = OptimConfig(steps=1500, batch_size=64, lr=3e-3, warmup_ratio=0.1, clip_grad=None)
    return (
        PretrainConfig(model=model, mask=MaskConfig("random", 0.75), optim=optim),
        FinetuneConfig(model=model, optim=optim.replace(betas=(0.9, 0.999))),
    )


def pretraining(set_name: str) -> PretrainConfig:
    """The pre-training: lesson 03's for images, that of the recipe cpu for videos."""
    return _images()[0] if set_name == "images" else Recipe.load("cpu").pretrain


def question(labels: int | None) -> str:
    """What the results of a number of labels are listed under."""
    return "all labels" if labels is None else f"{labels} labels"


def rate(set_name: str, start: str, labels: int | None, found: Results) -> float | None:
    """The rate with the highest accuracy in the search; None if that is incomplete. Of equals, the lowest."""
    searched = next(number for number, others in SEARCHED.items() if labels in others)
    score = _score(set_name, start, searched, found)
    return best(tried(RATES, score), score)


def _score(set_name: str, start: str, labels: int | None, found: Results) -> Score:
    """Accuracy by rate in the search of a number of labels."""

    def score(lr: float) -> float | None:
        arm = TunedArm(set_name, start, labels, JUDGED, SEARCH_SEED, lr)
        row = found.get(set_name, {}).get(arm.key)
        return row["tuned"][question(labels)] if row else None

    return score


def climb(set_name: str, start: str, labels: int | None, found: Results) -> dict[int, float]:
    """Accuracy of the search's seed by steps, on the validation clips, as far as measured in order."""
    rows = _climbed(set_name, start, labels, found)
    return {steps: row["tuned"][question(labels)] for steps, row in rows.items()}


def _climbed(
    set_name: str, start: str, labels: int | None, found: Results
) -> dict[int, Mapping[str, Any]]:
    lr, result = rate(set_name, start, labels, found), dict[int, Mapping[str, Any]]()
    for steps in LADDER:
        row = found.get(set_name, {}).get(
            TunedArm(set_name, start, labels, steps, SEARCH_SEED, lr).key
        )
        if row is None:
            break
        result[steps] = row
    return result


def plateau(set_name: str, start: str, labels: int | None, found: Results) -> int | None:
    """The fewest steps whose doubling gains less than `PLATEAU`, once the run has begun to learn.

    The most if there are none; None: not known yet.
    """
    measured = climb(set_name, start, labels, found)
    rows = _climbed(set_name, start, labels, found)
    guessing = math.log(CLASSES[set_name])
    for steps, twice in pairwise(measured):
        begun = rows[steps]["loss"] < BEGUN * guessing
        if steps >= JUDGED and begun and measured[twice] - measured[steps] < PLATEAU:
            return steps
    return LADDER[-1] if len(measured) == len(LADDER) else None


def gain(set_name: str, start: str, labels: int | None, found: Results) -> float | None:
    """What the last doubling gained, in points; None if the plateau is not known yet."""
    if plateau(set_name, start, labels, found) is None:
        return None
    *_, before, last = climb(set_name, start, labels, found).values()
    return last - before


def wanted(
    name: str, seeds: Sequence[int], found: Results, pretrained: Mapping[tuple[str, int], bool]
) -> list[TunedArm]:
    """The arms of an experiment, one set after the other, so that its picture is complete early: searches,
    ladders as far as they are known to go, then seed by seed.

    pretrained   by set and seed: whether the weights are measured, without which an arm has to wait
    """
    experiment, result = EXPERIMENTS[name], list[TunedArm]()

    def arm(
        set_name: str,
        start: str,
        labels: int | None,
        steps: int | None,
        seed: int,
        lr: float | None,
    ):
        waits = start == _PRETRAINED and not pretrained[set_name, seed]
        result.append(TunedArm(set_name, start, labels, steps, seed, None if waits else lr))

    for set_name in experiment.sets:
        runs = [(set_name, start, n) for n in experiment.labels for start in experiment.arms]
        for run in runs:
            for lr in tried(RATES, _score(*run, found)) if run[2] in SEARCHED else ():
                arm(*run, JUDGED, SEARCH_SEED, lr)
        for run in runs:
            measured, known = climb(*run, found), plateau(*run, found) is not None
            for steps in LADDER[: max(3, len(measured) + (not known))]:
                arm(*run, steps, SEARCH_SEED, rate(*run, found))
        for seed in seeds:
            for run in runs:
                arm(*run, LADDER[0], seed, rate(*run, found))
                arm(*run, plateau(*run, found), seed, rate(*run, found))
    return list(dict.fromkeys(result))


def entries(name: str, set_name: str, asked: str, found: Results) -> dict[str, dict[int, Any]]:
    """The entries of the fine-tunings that reach their plateau, by start and seed."""
    experiment = EXPERIMENTS[name]
    (labels,) = (number for number in experiment.labels if question(number) == asked)
    rows = found.get(set_name, {})
    seeds = sorted({row["seed"] for row in rows.values() if "seed" in row} - {SEARCH_SEED})
    result: dict[str, dict[int, Any]] = {}
    for start in experiment.arms:
        steps, lr = plateau(set_name, start, labels, found), rate(set_name, start, labels, found)
        keys = {seed: TunedArm(set_name, start, labels, steps, seed, lr).key for seed in seeds}
        result[start] = {seed: rows[key] for seed, key in keys.items() if key in rows}
    return result
