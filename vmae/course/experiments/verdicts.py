"""What the results say: differences paired by seed, their 95 % intervals, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from vmae.course.experiments import labels
from vmae.course.experiments.arms import arms, rate
from vmae.course.experiments.table import EXPERIMENTS, SEARCH_SEED, Claim, Results


@dataclass(frozen=True)
class Difference:
    """A mean difference in points and the half width of its 95 % interval; None for one pair.

    unit   what a pair is
    """

    mean: float
    half: float | None
    count: int
    unit: str = "seed"

    @property
    def word(self) -> str:
        """ "holds" or "reversed" if the interval excludes 0, else "inconclusive"."""
        if self.half is None or abs(self.mean) <= self.half:
            return "inconclusive"
        return "holds" if self.mean > 0 else "reversed"

    def __str__(self) -> str:
        if self.half is None:
            return f"{self.mean:+.1f} points, one {self.unit}"
        low, high = self.mean - self.half, self.mean + self.half
        return (
            f"{self.mean:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, "
            f"{self.count} {self.unit}s"
        )


def paired(better: Sequence[float], worse: Sequence[float], unit: str = "seed") -> Difference:
    """The difference of two settings over seeds, by Student's t of the differences within seeds.

    unit   what a pair is instead, such as a draw of the labels

    >>> str(paired([80.0, 82.0, 84.0], [70.0, 71.0, 75.0]))
    '+10.0 points, 95 % interval +7.5 to +12.5, 3 seeds'
    """
    differences = [a - b for a, b in zip(better, worse, strict=True)]
    count = len(differences)
    if count == 1:
        return Difference(differences[0], None, 1, unit)
    half = float(student.ppf(0.975, count - 1)) * stdev(differences) / count**0.5
    return Difference(mean(differences), half, count, unit)


def entries(
    name: str, set_name: str, found: Results, longer: int = 1, question: str = ""
) -> dict[str, dict[int, Mapping[str, Any]]]:
    """The entries of an experiment's arms on a set, by name of the arm and seed.

    question   with the experiment on labels: their number
    """
    if EXPERIMENTS[name].labels:
        return labels.entries(name, set_name, question, found)
    rows = found.get(set_name, {})
    names = {variant: label for label, variant in EXPERIMENTS[name].arms.items()}
    result: dict[str, dict[int, Mapping[str, Any]]] = {label: {} for label in names.values()}
    for seed in sorted({row["seed"] for row in rows.values() if "seed" in row} - {SEARCH_SEED}):
        for arm in arms(name, set_name, seed, found, longer):
            if row := rows.get(arm.key):
                result[names[arm.variant]][seed] = row
    return result


def accuracies(
    name: str,
    set_name: str,
    question: str,
    found: Results,
    longer: int = 1,
    column: str = "accuracy",
) -> dict[str, dict[int, float]]:
    """Percent by arm and seed; column "floor" has that of random weights.

    The accuracy is that of the probe, or of the classifier if the arms are fine-tuned.
    """
    if column == "accuracy":
        column = "tuned" if EXPERIMENTS[name].labels else "probe"
    return {
        label: {seed: row[column][question] for seed, row in by_seed.items()}
        for label, by_seed in entries(name, set_name, found, longer, question).items()
    }


def questions(set_name: str, found: Results) -> tuple[str, ...]:
    """The questions that the results on a set answer, few labels first; none before the first result."""
    asked = {q: None for row in found.get(set_name, {}).values() for q in row.get("probe", ())}
    order = [labels.question(number) for number in EXPERIMENTS["labels"].labels]
    return tuple(sorted(asked, key=lambda q: order.index(q) if q in order else 0))


def chosen_rate(name: str, set_name: str, question: str, arm: str, found: Results) -> float | None:
    """The learning rate of an arm; None if its search is not complete."""
    experiment = EXPERIMENTS[name]
    if experiment.labels:
        (number,) = (n for n in experiment.labels if labels.question(n) == question)
        return labels.rate(set_name, arm, number, found)
    variant = experiment.arms[arm]
    return rate(set_name, variant if variant in experiment.searched else experiment.base, found)


def judged(name: str, claim: Claim, found: Results) -> Difference | None:
    """A claim over the seeds that both settings have; None if there is no such seed."""
    measured = accuracies(name, claim.set, claim.question, found)
    better, worse = measured[claim.better], measured[claim.worse]
    seeds = sorted(better.keys() & worse.keys())
    return paired([better[s] for s in seeds], [worse[s] for s in seeds]) if seeds else None


def judgement(name: str, claim: Claim, found: Results) -> str:
    """The word for a claim, the claim, and the difference that the word comes from."""
    difference = judged(name, claim, found)
    said = f"{claim.better} above {claim.worse} on {claim.set}, {claim.question}"
    return f"{difference.word}: {said}: {difference}" if difference else f"not measured yet: {said}"


def gains(name: str, set_name: str, question: str, found: Results) -> dict[str, float]:
    """What twice the steps gain, in points, by arm: the mean over the seeds that have both."""
    if EXPERIMENTS[name].labels:  # of the search's seed
        (number,) = (n for n in EXPERIMENTS[name].labels if labels.question(n) == question)
        climbed = {
            start: labels.gain(set_name, start, number, found) for start in EXPERIMENTS[name].arms
        }
        return {start: value for start, value in climbed.items() if value is not None}
    short, long = (accuracies(name, set_name, question, found, longer) for longer in (1, 2))
    both = {label: short[label].keys() & long[label].keys() for label in short}
    return {
        label: mean(long[label][seed] - short[label][seed] for seed in seeds)
        for label, seeds in both.items()
        if seeds
    }
