"""What `vmae experiments` prints: results, verdicts, and what is missing and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import mean, median

from vmae.course.experiments.arms import Arm, wanted
from vmae.course.experiments.labels import LADDER, TunedArm
from vmae.course.experiments.measure import found, missing, token_counts
from vmae.course.experiments.speed import seconds_per_step
from vmae.course.experiments.table import EXPERIMENTS, PLATEAU, RATES, STEPS, TIMED, Results
from vmae.course.experiments.verdicts import accuracies, gains, judgement, questions


def listing(names: Sequence[str], seeds: Sequence[int] | None) -> Iterator[str]:
    """Lines about these experiments, recomputed from the results."""
    have = found(names)
    for name in names:
        experiment = EXPERIMENTS[name]
        yield f"{name}: {experiment.title}"
        for set_name in experiment.sets:
            yield from _results(name, set_name, have)
        for claim in experiment.claims:
            yield f"  {judgement(name, claim, have)}"
        todo, total = missing([name], seeds), len(wanted([name], seeds, have))
        if todo:
            left = minutes(todo, have)
            yield (
                f"  {total - len(todo)} of {total} arms are measured; the other {len(todo)} take about "
                f"{left / 60:.1f} hours of one core"
            )


def _results(name: str, set_name: str, have: Results) -> Iterator[str]:
    for question in questions(set_name, have):
        values = accuracies(name, set_name, question, have)
        floors = accuracies(name, set_name, question, have, column="floor")
        longer = gains(name, set_name, question, have)
        for label, by_seed in values.items():
            if by_seed:
                listed = ", ".join(f"{by_seed[seed]:.1f}" for seed in sorted(by_seed))
                line = (
                    f"  {set_name}, {question}: {label:28} {mean(by_seed.values()):5.1f} ({listed})"
                )
                line += f", floor {mean(floors[label].values()):.1f}"
                if label in longer:
                    plateau = "on its plateau" if longer[label] < PLATEAU else "still rising"
                    line += f", {longer[label]:+.1f} with twice the steps: {plateau}"
                yield line
    for variant in EXPERIMENTS[name].arms.values():
        if row := have[set_name].get(f"copier, {variant}"):
            errors = ", ".join(f"{k} {v:.4f}" for k, v in row["errors"].items())
            yield f"  {set_name}, errors of copiers under {variant!r}: {errors}"


def minutes(todo: Sequence[Arm | TunedArm], have: Results) -> float:
    """The time that arms take here: from measured arms of the same size, else from a few steps.

    Fine-tunings whose plateau is not known yet count with the steps in the middle of the ladder.
    """
    known: dict[tuple[int | str, ...], list[float]] = {}
    for set_name, rows in have.items():
        for row in rows.values():
            if "tuned" in row:
                known.setdefault((set_name,), []).append(row["minutes"] / row["steps"])
            if "tokens" in row and row["variant"] not in TIMED:
                known.setdefault(tuple(row["tokens"]), []).append(row["minutes"] / row["steps"])
    total = 0.0
    for arm in todo:
        if isinstance(arm, TunedArm):
            arm = replace(arm, lr=RATES[0], steps=arm.steps or LADDER[len(LADDER) // 2])
            if (arm.set,) not in known:
                known[(arm.set,)] = [seconds_per_step([arm], rounds=5)[0] / 60]
            total += (arm.steps or 0) * median(known[(arm.set,)])
            continue
        variant = "base" if arm.variant in TIMED else arm.variant  # they take the same time
        count = STEPS[arm.set] if arm.variant in TIMED else arm.steps
        arm = Arm(arm.set, variant, count, arm.seed, arm.lr or RATES[0])
        size = tuple(token_counts(arm))
        if size not in known:
            known[size] = [seconds_per_step([arm], rounds=5)[0] / 60]
        total += (count or 0) * median(known[size])
    return total
