"""data/experiments/README.md and its pictures, written from the results: `vmae experiments --report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from vmae.course.diagrams import Diagram
from vmae.course.experiments import results
from vmae.course.experiments.arms import wanted
from vmae.course.experiments.figures import accuracy_and_cost, claims, what_and_how
from vmae.course.experiments.label_figures import labels_and_steps
from vmae.course.experiments.measure import found, missing
from vmae.course.experiments.search import BEYOND
from vmae.course.experiments.table import EXPERIMENTS, PLATEAU, Results
from vmae.course.experiments.verdicts import (
    Difference,
    accuracies,
    chosen_rate,
    entries,
    gains,
    judged,
    questions,
)
from vmae.support.files import write_text

_INTRODUCTION = f"""\
# What the experiments found

The papers' claims, tested with small models on small clips. `vmae experiments --report` writes this page
and its pictures from the JSON files beside it; do not edit it.

An arm is one setting, pre-trained with one seed and tested by a linear probe. The *floor* is the
probe of the same encoder with its random initial weights. In the experiment on labels the arms are
fine-tuned, and both starts share their labelled clips. Two settings are compared seed by seed: a
claim *holds* or is *reversed* if the 95 % interval of the mean difference excludes 0, and is
*inconclusive* otherwise; differences are in points, ± half of that interval. The learning rate of the
first setting of each experiment, and of those at its extremes, is searched on clips of their own: three
rates, and beyond them for as long as the best is at an edge: twice the highest or half the lowest, at
most {BEYOND} times.
A setting is *on its plateau* if twice the steps gain less than {PLATEAU:g} points; a run that has not left
the loss of guessing behind is not. In the pictures, every point is a seed.

`first_edition.json` is another matter: plain pixels, shorter runs, no floor. Lesson 08 shows it.
"""


def write(folder: Path | None = None) -> Path:
    """Write the page and its pictures, and remove pictures of an earlier page; returns the page.

    folder   by default that of the results
    """
    folder = folder or results.FOLDER
    have = found(list(EXPERIMENTS))
    kept = pictures(have)
    for old in folder.glob("*.svg"):
        if old.name not in kept:
            old.unlink()
    for name, picture in kept.items():
        write_text(folder / name, picture.svg)
    page = folder / "README.md"
    write_text(page, text(have, kept))
    return page


def pictures(have: Results) -> dict[str, Diagram]:
    """The pictures of what is measured, by file name."""
    drawings: dict[str, Diagram] = {}
    for name, experiment in EXPERIMENTS.items():
        for set_name in experiment.sets:
            if experiment.labels:
                if have[set_name]:
                    drawings[f"{name}-{set_name}.svg"] = labels_and_steps(name, set_name, have)
                continue
            asked, stem = questions(set_name, have), f"{name}-{set_name}".replace(" ", "-")
            measured = any(any(accuracies(name, set_name, q, have).values()) for q in asked)
            copied = any(f"copier, {v}" in have[set_name] for v in experiment.arms.values())
            if experiment.copiers and (measured or copied):
                drawings[f"{stem}.svg"] = what_and_how(name, set_name, have)
            if measured:
                drawings[f"{stem}-claims.svg"] = claims(name, set_name, have)
            if measured and experiment.costs:
                for q in asked:
                    drawings[f"{stem}-cost-{q}.svg"] = accuracy_and_cost(name, set_name, q, have)
    return drawings


def text(have: Results, drawings: dict[str, Diagram]) -> str:
    """The page."""
    lines = [_INTRODUCTION]
    for number, (name, experiment) in enumerate(EXPERIMENTS.items(), 1):
        lines += [f"## {number} · {experiment.title}", "", *finding(name, have), ""]
        stem = f"{name}-".replace(" ", "-")
        for file, drawing in drawings.items():
            if file.startswith(stem):
                lines += [f"![{drawing.alt}]({file})", ""]
        lines += [*_table(name, have), _missing(name, have), ""]
        quoted = f'"{name}"' if " " in name else name
        lines += ["```", f"vmae experiments {quoted} --measure", "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def finding(name: str, have: Results) -> Iterator[str]:
    """Two sentences: what became of the claims, and how to read the numbers."""
    sorted_out: dict[str, dict[str, list[str]]] = {}
    for claim in EXPERIMENTS[name].claims:
        difference = judged(name, claim, have)
        word = difference.word if difference else "not measured yet"
        pair = f"{claim.better} above {claim.worse} on {claim.set}"
        said = claim.question + (f" {_points(name, difference)}" if difference else "")
        sorted_out.setdefault(word, {}).setdefault(pair, []).append(said)
    if list(sorted_out) == ["not measured yet"]:
        yield "Not measured yet."
        return
    order = ("holds", "reversed", "inconclusive", "not measured yet")
    sentence = "; ".join(
        f"{word}: " + ", ".join(f"{pair} ({', '.join(x)})" for pair, x in sorted_out[word].items())
        for word in order
        if word in sorted_out
    )
    yield f"{sentence[0].upper()}{sentence[1:]}."
    floors, changes = [], []
    for set_name in EXPERIMENTS[name].sets:
        for q in questions(set_name, have):
            by_arm = accuracies(name, set_name, q, have, column="floor")
            floors += [value for by_seed in by_arm.values() for value in by_seed.values()]
            changes += list(gains(name, set_name, q, have).values())
    rising = sum(gain >= PLATEAU for gain in changes)
    plateau = "whether twice the steps gain anything is not measured yet"
    if changes:
        plateau = (
            f"twice the steps gain {PLATEAU:g} points or more in {rising} of {len(changes)} cases"
        )
    if EXPERIMENTS[name].labels:
        yield from _last_gain(name, have)
    yield f"Random weights alone reach {min(floors):.1f} to {max(floors):.1f} %; {plateau}."


def _points(name: str, difference: Difference) -> str:
    if difference.half is None:
        return f"{difference.mean:+.1f}, one seed"
    fewer = difference.count < EXPERIMENTS[name].seeds
    seeds = f", {difference.count} of {EXPERIMENTS[name].seeds} seeds" if fewer else ""
    return f"{difference.mean:+.1f} ± {difference.half:.1f}{seeds}"


def _last_gain(name: str, have: Results) -> Iterator[str]:
    """Where the gain of pre-training ends."""
    for set_name in EXPERIMENTS[name].sets:
        own = [claim for claim in EXPERIMENTS[name].claims if claim.set == set_name]
        found_so_far = [(claim, judged(name, claim, have)) for claim in own]
        held = [claim.question for claim, d in found_so_far if d and d.word == "holds"]
        if all(d for _, d in found_so_far):
            most = f"up to {held[-1]} per class" if held else "at no number of labels"
            most = most.replace("all labels per class", "all labels")
            yield f"On {set_name}, {own[0].better} is ahead {most}."


def _table(name: str, have: Results) -> list[str]:
    experiment = EXPERIMENTS[name]
    rows = []
    for set_name in experiment.sets:
        for q in questions(set_name, have):
            values = accuracies(name, set_name, q, have)
            floors, longer = (
                accuracies(name, set_name, q, have, 1, "floor"),
                gains(name, set_name, q, have),
            )
            for arm, by_seed in values.items():
                if not by_seed:
                    continue
                lr = chosen_rate(name, set_name, q, arm, have)
                steps = min(
                    row["steps"] for row in entries(name, set_name, have, 1, q)[arm].values()
                )
                gain = longer.get(arm)
                plateau = (
                    "on its plateau" if gain is not None and gain < PLATEAU else "still rising"
                )
                cells = (
                    set_name, q, arm, f"{mean(by_seed.values()):.1f}",
                    ", ".join(f"{by_seed[seed]:.1f}" for seed in sorted(by_seed)),
                    f"{mean(floors[arm].values()):.1f}", f"{lr:g}", f"{steps:,}",
                    "" if gain is None else f"{gain:+.1f}, {plateau}",
                )  # fmt: skip
                rows.append(f"| {' | '.join(cells)} |")
    if not rows:
        return []
    heads = "set | question | setting | mean, % | by seed | floor | learning rate | steps | twice the steps"
    return [f"| {heads} |", "|---" * (heads.count("|") + 1) + "|", *rows, ""]


def _missing(name: str, have: Results) -> str:
    todo = Counter(arm.set for arm in missing([name], None))
    total = Counter(arm.set for arm in wanted([name], None, have))
    parts = [
        f"{set_name} {todo[set_name]} of {total[set_name]}"
        for set_name in EXPERIMENTS[name].sets
        if todo[set_name]
    ]
    return f"Arms not measured yet: {', '.join(parts)}." if parts else "Every arm is measured."
