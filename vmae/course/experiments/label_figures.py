"""The picture of the experiment on labels and steps."""

from __future__ import annotations

from statistics import mean

import matplotlib.pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes

from vmae.course.diagrams import Diagram
from vmae.course.experiments.labels import LADDER, climb, plateau, question
from vmae.course.experiments.panels import WIDTH, drawn, mark
from vmae.course.experiments.table import EXPERIMENTS, Results
from vmae.course.experiments.verdicts import accuracies, judgement
from vmae.figures.figure import INK, style

#: Numbers of labels whose climb is drawn.
DRAWN = (10, 100)


def labels_and_steps(name: str, set_name: str, found: Results) -> Diagram:
    """Left: accuracy over labels per class at the plateau, beside linear probes. Right: over steps.

    Left has a point per seed on test clips, right the search's seed on validation clips.
    """
    with style():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(WIDTH, 3.8), width_ratios=(1.3, 1), sharey=True, layout="constrained"
        )
        said = _over_labels(left, name, set_name, found)
        steps = _over_steps(right, name, set_name, found)
        left.set_title("at the plateau, on test clips", fontsize=9)
        right.set_title("by steps, on validation clips, one seed", fontsize=9)
        left.set_ylabel(f"{set_name}: accuracy, %")
        for axis in (left, right):
            if not axis.lines:  # the vertical axis is shared: its numbers belong to the other panel
                axis.text(0.5, 0.5, "not measured yet", ha="center", transform=axis.transAxes)
                axis.set_xticks([])
        if not left.lines and not right.lines:
            plt.close(figure)
            figure = plt.figure(figsize=(WIDTH, 0.4))
            figure.text(0.5, 0.5, f"{set_name}: not measured yet", ha="center", va="center")
    verdicts = [judgement(name, c, found) for c in EXPERIMENTS[name].claims if c.set == set_name]
    alt = f"{EXPERIMENTS[name].title} On {set_name}. Test accuracy in percent per seed at the plateau. "
    text = [said, f"By steps, one seed: {steps}", *verdicts]
    return drawn(figure, alt + ". ".join(text) + ".")


def _over_labels(axis: Axes, name: str, set_name: str, found: Results) -> str:
    experiment = EXPERIMENTS[name]
    said = []
    for index, start in enumerate(experiment.arms):
        colour, marker = mark(index)
        places, means = [], []
        probes: dict[str, list[float]] = {"probe": [], "floor": []}
        for place, number in enumerate(experiment.labels):
            asked = question(number)
            values = accuracies(name, set_name, asked, found)[start]
            if not values:
                said.append(f"{start}, {asked} not measured yet")
                continue
            runs = [values[seed] for seed in sorted(values)]
            axis.plot([place] * len(runs), runs, marker, color=colour, ms=5, mec=INK, mew=0.5)
            places.append(place)
            means.append(mean(runs))
            for column, levels in probes.items():
                levels.append(
                    mean(accuracies(name, set_name, asked, found, 1, column)[start].values())
                )
            listed = ", ".join(f"{run:.1f}" for run in runs)
            said.append(f"{start}, {asked} {listed} (linear probe {probes['probe'][-1]:.1f})")
        if places:
            axis.plot(places, means, color=colour, lw=2, label=start)
            random = start == "from scratch"
            label = "probe of random weights" if random else "probe of pre-trained weights"
            axis.plot(places, probes["floor" if random else "probe"], "--", lw=1.2, label=label,
                      color=INK if random else colour)  # fmt: skip
    if axis.lines:
        axis.legend(fontsize=8)
        names = [str(number or "all") for number in experiment.labels]
        axis.set_xticks(range(len(names)), names)
        axis.set_xlabel("labels per class")
    return "; ".join(said)


def _over_steps(axis: Axes, name: str, set_name: str, found: Results) -> str:
    said = []
    for line, number in zip(("-", ":"), DRAWN, strict=True):
        for index, start in enumerate(EXPERIMENTS[name].arms):
            measured = climb(set_name, start, number, found)
            if not measured:
                continue
            colour, marker = mark(index)
            label = f"{start}, {question(number)}"
            axis.plot(list(measured), list(measured.values()), line, color=colour, marker=marker,
                      ms=4, lw=1.5, label=label)  # fmt: skip
            end = plateau(set_name, start, number, found)
            reached = f"plateau from {end} steps" if end else "plateau not reached yet"
            if end == LADDER[-1]:
                reached = "still rising"
            listed = ", ".join(f"{steps}: {value:.1f}" for steps, value in measured.items())
            said.append(f"{label} {listed} ({reached})")
    if axis.lines:
        axis.set_xscale("log", base=2)
        axis.set_xticks(LADDER, [f"{steps:,}" for steps in LADDER], fontsize=8)
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.set_xlabel("fine-tuning steps")
        axis.legend(fontsize=8)
    return "; ".join(said) or "not measured yet"
