"""Results that nobody measured, for tests of what is drawn and written from results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vmae.course.experiments.arms import wanted
from vmae.course.experiments.table import EXPERIMENTS, RATES, SEARCH_SEED, STEPS, TIMED

#: Accuracy from question, arm's index, seed, and 2 for a run of twice the steps, else 1.
Value = Callable[[str, int, int, int], float]


def made_up(
    name: str, questions: dict[str, Sequence[str]], value: Value, seeds: Sequence[int] = (0, 1, 2)
) -> dict[str, dict[str, dict[str, Any]]]:
    """Results of an experiment on the sets of `questions`, with a floor of 40.

    Every search finds its second rate the best.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {set: {} for set in EXPERIMENTS[name].sets}
    variants = list(EXPERIMENTS[name].arms.values())
    for set in questions:
        found[set] = {f"speed, {v}": {"steps": 2000} for v in variants if v in TIMED}
    for _ in range(4):  # the searches, then what depends on them
        for arm in wanted([name], seeds, found):
            known = arm.key in found[arm.set]
            if known or not arm.ready or arm.set not in questions:
                continue
            index = variants.index(arm.variant)
            longer = max(1, (arm.steps or 0) // STEPS[arm.set])
            worse = 5.0 * (arm.seed == SEARCH_SEED and arm.lr != RATES[1])
            found[arm.set][arm.key] = {
                "variant": arm.variant, "steps": arm.steps, "lr": arm.lr, "seed": arm.seed,
                "probe": {q: value(q, index, arm.seed, longer) - worse for q in questions[arm.set]},
                "floor": dict.fromkeys(questions[arm.set], 40.0),
                "curve": [[50 * k, 1.0 / k + 0.1 * index] for k in range(1, 21)],
                "minutes": 3.0 + index, "tokens": [64, 16, 48],
            }  # fmt: skip
    if EXPERIMENTS[name].copiers:
        errors = {"mean": 0.057, "blend": 0.06, "copy": 0.04, "moving": 0.02}
        for set in questions:
            for variant in variants:
                found[set][f"copier, {variant}"] = {"variant": variant, "errors": errors}
    return found
