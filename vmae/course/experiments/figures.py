"""Pictures of what the experiments found, for lessons and for data/experiments/README.md.

Every function returns a `Diagram`: Jupyter shows it, `save` writes the SVG file, `alt` has the same
numbers as the picture. What is not measured yet is left out of the picture and named in `alt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

import matplotlib.pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes

from vmae.cost import pretraining_multiply_adds
from vmae.course.diagrams import Diagram
from vmae.course.experiments.arms import Arm
from vmae.course.experiments.panels import (
    WIDTH,
    drawn,
    empty,
    floor_text,
    intervals,
    listed,
    mark,
    points,
    wrapped,
)
from vmae.course.experiments.table import EXPERIMENTS, RATES, Results
from vmae.course.experiments.verdicts import accuracies, entries, judgement, questions
from vmae.figures.colours import HIDDEN, PREDICTED, VISIBLE
from vmae.figures.figure import INK, style


def what_and_how(name: str, set_name: str, found: Results) -> Diagram:
    """What each mask teaches on a set, beside what copying gives away under it.

    Left, with two questions: "what" over "how", one point per mask and seed, and lines for the floor
    of random weights. With one question: a strip of points per mask. Right: of the error of guessing
    the mean pixel, the share that copying removes, the share that knowing the motion removes beyond
    that, and what is left.
    """
    asked = questions(set_name, found)
    values = {q: accuracies(name, set_name, q, found) for q in asked}
    floors = {q: accuracies(name, set_name, q, found, column="floor") for q in asked}
    with style():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(WIDTH, 3.6), width_ratios=(1.15, 1), layout="constrained"
        )
        if len(asked) == 2:
            _plane(left, values, floors)
        elif asked:
            points(left, values[asked[0]], floors[asked[0]])
            left.set_ylabel(f"{asked[0]}: probe, %")
        else:
            empty(left)
        left.set_title(f"{set_name}: what the probe finds", fontsize=10)
        copied = _copied(right, name, set_name, found)
    said = [f"{q}: {listed(values[q])}; floors {floor_text(floors[q])}" for q in asked]
    alt = f"{EXPERIMENTS[name].title} On {set_name}. Probe in percent per seed. "
    return drawn(figure, alt + ". ".join(said or ["Not measured yet"]) + f". {copied}")


def _plane(
    axis: Axes,
    values: Mapping[str, Mapping[str, Mapping[int, float]]],
    floors: Mapping[str, Mapping[str, Mapping[int, float]]],
) -> None:
    for index, arm in enumerate(values["how"]):
        colour, marker = mark(index)
        how, what = values["how"][arm], values["what"][arm]
        if how:
            seeds = sorted(how)
            place = [how[s] for s in seeds], [what[s] for s in seeds]
            axis.plot(*place, marker, color=colour, ms=6, mec=INK, mew=0.5, label=arm)
    for q, draw in (("how", axis.axvline), ("what", axis.axhline)):
        if level := [v for by_seed in floors[q].values() for v in by_seed.values()]:
            draw(mean(level), color=INK, ls="--", lw=1, label="random weights" * (q == "how"))
    axis.set_xlabel("how it moves: probe, %")
    axis.set_ylabel("what it is: probe, %")
    axis.margins(0.12)
    if axis.get_legend_handles_labels()[1]:  # no arm while nothing is measured
        axis.legend(fontsize=8)


def _copied(axis: Axes, name: str, set_name: str, found: Results) -> str:
    """Draw the errors of copiers; returns them as text."""
    arms = {
        arm: entry["errors"]
        for arm, variant in EXPERIMENTS[name].arms.items()
        if (entry := found.get(set_name, {}).get(f"copier, {variant}"))
    }
    axis.set_title("copiers' squared error on hidden pixels", fontsize=10)
    if not arms:
        empty(axis)
        return "Copiers: not measured yet."
    parts = (("left over", HIDDEN), ("knowing the motion", PREDICTED), ("copying", VISIBLE))
    for row, errors in enumerate(arms.values()):
        free = min(errors["mean"], errors["blend"], errors["copy"])
        edges = (0, min(free, errors["moving"]), free, errors["mean"])
        for (label, role), low, high in zip(parts, edges[:-1], edges[1:], strict=True):
            axis.barh(row, high - low, left=low, color=role.colour, ec=INK, lw=0.5, height=0.55,
                      hatch="///" if role.hatched else None, label=label if not row else None)  # fmt: skip
    axis.set_yticks(range(len(arms)), [wrapped(arm) for arm in arms], fontsize=8)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("the error of guessing the mean, and what removes it")
    axis.locator_params(axis="x", nbins=5)
    axis.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.24))
    kinds = ("mean", "blend", "copy", "moving")
    said = [f"{arm} " + ", ".join(f"{k} {e[k]:.4f}" for k in kinds) for arm, e in arms.items()]
    return f"Errors of copiers: {'; '.join(said)}."


def claims(name: str, set_name: str, found: Results) -> Diagram:
    """An experiment on one set: accuracy per arm and seed, means, floors; its claims' intervals."""
    experiment, asked = EXPERIMENTS[name], questions(set_name, found)
    tested = [claim for claim in experiment.claims if claim.set == set_name]
    panels = max(1, len(asked))
    with style():
        figure, axes = plt.subplots(
            1, panels + 1, figsize=(WIDTH, 2.2 + 0.35 * max(3, len(tested))), squeeze=False,
            width_ratios=[1.0 + 0.2 * len(experiment.arms)] * panels + [1.6], layout="constrained",
        )  # fmt: skip
        said = []
        for axis, question in zip(axes[0], asked, strict=False):
            values = accuracies(name, set_name, question, found)
            floors = accuracies(name, set_name, question, found, column="floor")
            points(axis, values, floors)
            if len(experiment.arms) > 5:
                axis.tick_params(axis="x", rotation=90)
            axis.set_ylabel(f"{set_name}, {question}: probe, %")
            said.append(f"{question}: {listed(values)}; floors {floor_text(floors)}")
        if not asked:
            empty(axes[0, 0])
        intervals(axes[0, -1], name, tested, found)
    verdicts = [judgement(name, claim, found) for claim in tested]
    said = [*(said or ["Not measured yet"]), *verdicts]
    return drawn(figure, f"{experiment.title} On {set_name}. Percent per seed. {'. '.join(said)}.")


def losses(name: str, set_name: str, found: Results) -> Diagram:
    """The training loss of an experiment's arms on a set, mean over seeds, for both lengths."""
    with style():
        figure, axis = plt.subplots(figsize=(WIDTH, 3.0), layout="constrained")
        said = []
        for longer, line in ((1, "-"), (2, ":")):
            for index, (arm, by_seed) in enumerate(entries(name, set_name, found, longer).items()):
                if by_seed:
                    curves = [row["curve"] for row in by_seed.values()]
                    steps = [step for step, _ in curves[0]]
                    means = [mean(x[1] for x in at) for at in zip(*curves, strict=True)]
                    label = arm + " (twice the steps)" * (longer == 2)
                    colour, marker = mark(index)
                    axis.plot(steps, means, line, color=colour, lw=1.5, label=label, marker=marker,
                              ms=4, markevery=5)  # fmt: skip
                    said.append(f"{label} {means[0]:.3f} at step {steps[0]} to {means[-1]:.3f}")
                elif longer == 1:
                    said.append(f"{arm} not measured yet")
        axis.set_xlabel("step")
        axis.set_ylabel("training loss")
        if axis.lines:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%.3g"))
            axis.yaxis.set_minor_locator(ticker.NullLocator())
            axis.legend(fontsize=8)
        else:
            empty(axis)
    return drawn(
        figure, f"{EXPERIMENTS[name].title} Loss on {set_name}, by arm: {'; '.join(said)}."
    )


def accuracy_and_cost(name: str, set_name: str, question: str, found: Results) -> Diagram:
    """Accuracy over the multiply-adds of a step's forward pass, and over the minutes it took.

    Minutes are those of the machine that measured, with whatever else it was doing.
    """
    values = accuracies(name, set_name, question, found)
    rows, floors = (
        entries(name, set_name, found),
        accuracies(name, set_name, question, found, 1, "floor"),
    )
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2), sharey=True, layout="constrained")
        said = []
        for index, (arm, by_seed) in enumerate(values.items()):
            if not by_seed:
                said.append(f"{arm} not measured yet")
                continue
            seeds, (colour, marker) = sorted(by_seed), mark(index)
            work = multiply_adds(name, set_name, arm) / 1e9
            taken = [rows[arm][seed]["minutes"] for seed in seeds]
            for axis, cost in zip(axes, ([work] * len(seeds), taken), strict=True):
                axis.plot(cost, [by_seed[s] for s in seeds], marker, color=colour, ms=6, mec=INK,
                          mew=0.5, label=arm)  # fmt: skip
            said.append(
                f"{arm} {mean(by_seed.values()):.1f} % for {work:.2f} G and {mean(taken):.1f} minutes"
            )
        for axis, label in zip(
            axes, ("multiply-adds per step, forward, G", "minutes"), strict=True
        ):
            axis.set_xlabel(label)
            if level := [v for by_seed in floors.values() for v in by_seed.values()]:
                axis.axhline(mean(level), color=INK, ls="--", lw=1, label="random weights")
            axis.margins(0.15)
        if any(values.values()):
            axes[0].set_ylabel(f"{set_name}, {question}: probe, %")
            axes[0].legend(fontsize=8)
        else:
            empty(axes[0])
    alt = f"{EXPERIMENTS[name].title} Accuracy and cost on {set_name}, {question}: {'; '.join(said)}; "
    return drawn(figure, f"{alt}floors {floor_text(floors)}.")


def multiply_adds(name: str, set_name: str, arm: str) -> int:
    """Of the forward pass of one step of an arm."""
    chosen = Arm(set_name, EXPERIMENTS[name].arms[arm], 1, 0, RATES[0])
    config = chosen.config
    total = pretraining_multiply_adds(config.model, config.mask, chosen.build)["total"]
    return total * config.optim.batch_size
