"""What the results say: differences paired by seed, their 95 % intervals, and the words for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import t as student

from vmae.course.experiments.table import EXPERIMENTS, SEARCH_SEED, Claim, Results, arms


@dataclass(frozen=True)
class Difference:
    """A mean difference in points and the half width of its 95 % interval; None for one seed."""

    mean: float
    half: float | None
    seeds: int

    @property
    def word(self) -> str:
        """ "holds" or "reversed" if the interval excludes 0, else "inconclusive"."""
        if self.half is None or abs(self.mean) <= self.half:
            return "inconclusive"
        return "holds" if self.mean > 0 else "reversed"

    def __str__(self) -> str:
        if self.half is None:
            return f"{self.mean:+.1f} points, one seed"
        low, high = self.mean - self.half, self.mean + self.half
        return (
            f"{self.mean:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, {self.seeds} seeds"
        )


def paired(better: Sequence[float], worse: Sequence[float]) -> Difference:
    """The difference of two settings over seeds, by Student's t of the differences within seeds.

    >>> str(paired([80.0, 82.0, 84.0], [70.0, 71.0, 75.0]))
    '+10.0 points, 95 % interval +7.5 to +12.5, 3 seeds'
    """
    differences = [a - b for a, b in zip(better, worse, strict=True)]
    count = len(differences)
    if count == 1:
        return Difference(differences[0], None, 1)
    half = float(student.ppf(0.975, count - 1)) * stdev(differences) / count**0.5
    return Difference(mean(differences), half, count)


def accuracies(
    name: str, set: str, question: str, found: Results, longer: int = 1, column: str = "probe"
) -> dict[str, dict[int, float]]:
    """Percent by arm and seed; column "floor" has that of random weights."""
    rows = found.get(set, {})
    labels = {variant: label for label, variant in EXPERIMENTS[name].arms.items()}
    result: dict[str, dict[int, float]] = {label: {} for label in labels.values()}
    for seed in sorted({row["seed"] for row in rows.values() if "seed" in row} - {SEARCH_SEED}):
        for arm in arms(name, set, seed, found, longer):
            if row := rows.get(arm.key):
                result[labels[arm.variant]][seed] = row[column][question]
    return result


def judged(name: str, claim: Claim, found: Results) -> Difference | None:
    """A claim over the seeds that both settings have; None if there is no such seed."""
    measured = accuracies(name, claim.set, claim.question, found)
    better, worse = measured[claim.better], measured[claim.worse]
    seeds = sorted(better.keys() & worse.keys())
    return paired([better[s] for s in seeds], [worse[s] for s in seeds]) if seeds else None


def gains(name: str, set: str, question: str, found: Results) -> dict[str, float]:
    """What twice the steps gain, in points, by arm: the mean over the seeds that have both."""
    short, long = (accuracies(name, set, question, found, longer) for longer in (1, 2))
    both = {label: short[label].keys() & long[label].keys() for label in short}
    return {
        label: mean(long[label][seed] - short[label][seed] for seed in seeds)
        for label, seeds in both.items()
        if seeds
    }
