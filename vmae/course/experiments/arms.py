"""The arms of the experiments: one setting on one set for one seed. Pre-train, freeze, probe.

Experiments may share arms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vmae.course.experiments import labels, table
from vmae.course.experiments.labels import TunedArm
from vmae.course.experiments.search import Score, best, tried
from vmae.course.experiments.symmetric import SymmetricAutoencoder
from vmae.course.experiments.table import (
    EXPERIMENTS,
    PLATEAU_SEEDS,
    SEARCH_SEED,
    SEES_ALL,
    STEPS,
    TIMED,
    VARIANTS,
    Results,
)
from vmae.mae import MaskedAutoencoder
from vmae.train.config import PretrainConfig
from vmae.train.recipe import Recipe

#: Sets whose pre-training is that of a recipe, without changes.
RECIPE_SETS = ("images", "videos")


@dataclass(frozen=True)
class Arm:
    """One run: a variant on a set, for so many steps, at a rate, with a seed.

    steps   None: not known before the speed of the variant is measured
    lr      None: not known before the search of `searched` is complete
    """

    set: str
    variant: str
    steps: int | None
    seed: int
    lr: float | None

    @property
    def key(self) -> str:
        """The name of the arm's result among those of its set."""
        rate = "?" if self.lr is None else f"{self.lr:g}"
        steps = "?" if self.steps is None else self.steps
        return f"{self.variant}, {steps} steps, rate {rate}, seed {self.seed}"

    @property
    def ready(self) -> bool:
        """Whether all that the arm depends on is measured."""
        return self.lr is not None and self.steps is not None

    @property
    def build(self) -> type[MaskedAutoencoder]:
        """The model."""
        return SymmetricAutoencoder if self.variant in SEES_ALL else MaskedAutoencoder

    @property
    def config(self) -> PretrainConfig:
        """The pre-training run."""
        assert self.ready, f"{self.key}: its steps or its learning rate are not known yet"
        if self.set in RECIPE_SETS:
            config = labels.pretraining(self.set)
            optim = config.optim.replace(steps=self.steps, epochs=None, lr=self.lr)
            return config.replace(optim=optim, seed=self.seed, device="cpu", precision="fp32")
        frames = int(self.set.partition("-")[2] or 8)
        changes = table.BASE | VARIANTS[self.variant] | {"model.num_frames": frames}
        changes |= {"optim.steps": self.steps, "optim.lr": self.lr, "seed": self.seed}
        model = {k: v for k, v in changes.items() if k.startswith("model.")}
        rest = {k: v for k, v in changes.items() if k not in model}
        both = model | {"data.path": f"experiments/{self.set}"}
        return Recipe.load("cpu").changed(both=both, pretrain=rest).pretrain


def recipe_arm(set_name: str, seed: int) -> Arm:
    """The pre-training whose weights are fine-tuned, with the steps and the rate of its recipe."""
    optim = labels.pretraining(set_name).optim
    return Arm(set_name, "recipe", optim.steps, seed, optim.lr)


def steps(set_name: str, variant: str, found: Results) -> int | None:
    """Of a run; of the variants in TIMED, as many as take the time of the base, as measured."""
    if variant not in TIMED:
        return STEPS[set_name]
    speed = found.get(set_name, {}).get(f"speed, {variant}")
    return speed["steps"] if speed else None


def search(set_name: str, variant: str, found: Results) -> list[Arm]:
    """The arms that decide the learning rate of a variant on a set, as far as they are known."""
    arm, score = _searched(set_name, variant, found)
    return [arm(lr) for lr in tried(table.RATES, score)]


def rate(set_name: str, variant: str, found: Results) -> float | None:
    """The rate with the highest probe, mean over the questions; None if some are not measured yet.

    Of equals, the lowest rate. The probes of a search are judged on clips of their own (validation).
    """
    _, score = _searched(set_name, variant, found)
    return best(tried(table.RATES, score), score)


def _searched(set_name: str, variant: str, found: Results) -> tuple[Callable[[float], Arm], Score]:
    """The arm of a rate in a search, and what it scored."""
    count = steps(set_name, variant, found)

    def arm(lr: float) -> Arm:
        return Arm(set_name, variant, count, SEARCH_SEED, lr)

    def score(lr: float) -> float | None:
        row = found.get(set_name, {}).get(arm(lr).key)
        return sum(row["probe"].values()) if row else None

    return arm, score


def arms(name: str, set_name: str, seed: int, found: Results, longer: int = 1) -> list[Arm]:
    """The arms of an experiment on a set; with `longer`, base and extremes for so many times the steps."""
    experiment = EXPERIMENTS[name]
    result = []
    for variant in experiment.arms.values() if longer == 1 else experiment.searched:
        searched = variant if variant in experiment.searched else experiment.base
        lr, count = rate(set_name, searched, found), steps(set_name, variant, found)
        if longer == 1 or variant not in TIMED:
            result.append(Arm(set_name, variant, count and longer * count, seed, lr))
    return result


def wanted(
    names: Sequence[str], seeds: Sequence[int] | None, found: Results
) -> list[Arm | TunedArm]:
    """The arms of these experiments, the most important first, each once.

    seeds   None: as many as each experiment asks for

    Set by set: the searches, the first seed. Then the first seed's runs of twice the length. Then the
    other seeds, one after the other.
    """
    used = {name: range(EXPERIMENTS[name].seeds) if seeds is None else seeds for name in names}
    tuned = [name for name in names if EXPERIMENTS[name].labels]
    places = [(n, set_name) for n in names if n not in tuned for set_name in EXPERIMENTS[n].sets]
    order = sorted({seed for own in used.values() for seed in own})
    result: list[Arm | TunedArm] = []
    for seed in order:
        for name, set_name in places:
            if seed == order[0]:
                result += [
                    a for v in EXPERIMENTS[name].searched for a in search(set_name, v, found)
                ]
            if seed in used[name]:
                result += arms(name, set_name, seed, found)
        if seed in PLATEAU_SEEDS:
            result += [
                a for name, set_name in places for a in arms(name, set_name, seed, found, longer=2)
            ]
    for name in tuned:
        seeds_too = (SEARCH_SEED, *used[name])
        before = [recipe_arm(s, seed) for s in EXPERIMENTS[name].sets for seed in seeds_too]
        known = {(a.set, a.seed): a.key in found.get(a.set, {}) for a in before}
        result += [*before, *labels.wanted(name, used[name], found, known)]
    return list(dict.fromkeys(result))
