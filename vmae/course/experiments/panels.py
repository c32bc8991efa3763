"""The pieces that the pictures of the experiments are made of."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from statistics import mean
from textwrap import fill

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vmae.course.diagrams import Diagram
from vmae.course.experiments.table import Claim, Results
from vmae.course.experiments.verdicts import judged, questions
from vmae.figures.figure import INK, PALETTE

#: Colour is never the only sign: the n-th arm has the n-th colour and the n-th marker.
MARKERS = "osD^vPX*"
WIDTH = 8.6


def drawn(figure: Figure, alt: str) -> Diagram:
    """A figure as SVG, the same text every time; closes the figure."""
    buffer = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "vmae", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Title": alt})
    plt.close(figure)
    return Diagram("\n".join(map(str.rstrip, buffer.getvalue().splitlines())) + "\n", alt)


def mark(index: int) -> tuple[str, str]:
    """Colour and marker of the arm with this index."""
    return PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]


def listed(by_arm: Mapping[str, Mapping[int, float]]) -> str:
    """Values by arm and seed as text, for `alt`."""
    parts = []
    for arm, values in by_arm.items():
        text = ", ".join(f"{value:.1f}" for _, value in sorted(values.items()))
        parts.append(f"{arm} {text}" if values else f"{arm} not measured yet")
    return "; ".join(parts)


def floor_text(by_arm: Mapping[str, Mapping[int, float]]) -> str:
    """Mean floors by arm as text, for `alt`."""
    means = {arm: mean(values.values()) for arm, values in by_arm.items() if values}
    return ", ".join(f"{arm} {value:.1f}" for arm, value in means.items()) or "not measured yet"


def empty(axis: Axes) -> None:
    """Say that there is nothing to draw yet."""
    axis.text(0.5, 0.5, "not measured yet", ha="center", transform=axis.transAxes)
    axis.set_xticks([])
    axis.set_yticks([])


def points(
    axis: Axes, values: Mapping[str, Mapping[int, float]], floors: Mapping[str, Mapping[int, float]]
) -> None:
    """One column per arm: a point per seed, a line at their mean, a dashed one at their floor."""
    for column, (arm, by_seed) in enumerate(values.items()):
        colour, marker = mark(column)
        if not by_seed:
            axis.text(column, 0.5, "not measured yet", rotation=90, ha="center", va="center",
                      fontsize=8, transform=axis.get_xaxis_transform())  # fmt: skip
            continue
        spread = [column + 0.08 * (i - (len(by_seed) - 1) / 2) for i in range(len(by_seed))]
        runs = [value for _, value in sorted(by_seed.items())]
        axis.plot(spread, runs, marker, color=colour, ms=5, mec=INK, mew=0.5)
        for level, kind in ((mean(runs), "-"), (mean(floors[arm].values()), "--")):
            width = 2.0 if kind == "-" else 1.2
            axis.plot([column - 0.35, column + 0.35], [level] * 2, kind, color=INK, lw=width)
    axis.plot([], [], "-", color=INK, lw=2, label="mean")
    axis.plot([], [], "--", color=INK, lw=1.2, label="random weights")
    axis.legend(fontsize=8, loc="best")
    axis.set_xticks(range(len(values)), [wrapped(arm) for arm in values], fontsize=8)
    axis.set_xlim(-0.6, len(values) - 0.4)
    axis.margins(y=0.15)
    axis.grid(axis="x", visible=False)


def wrapped(name: str) -> str:
    """The name of an arm in short lines."""
    return fill(name, 12, break_long_words=False)


def intervals(axis: Axes, name: str, tested: Iterable[Claim], found: Results) -> None:
    """Paired differences with their 95 % intervals, one row per claim, and the word for each."""
    names = []
    for row, claim in enumerate(tested):
        difference = judged(name, claim, found)
        question = f", {claim.question}" if len(questions(claim.set, found)) > 1 else ""
        names.append(f"{claim.better}\nabove {claim.worse}{question}")
        word = difference.word if difference else "not measured yet"
        if difference:
            colour, marker = mark({"holds": 2, "reversed": 4}.get(word, 0))
            axis.errorbar(difference.mean, row, xerr=difference.half, fmt=marker, color=colour,
                          ecolor=INK, capsize=3, ms=6)  # fmt: skip
            word += "" if difference.half is not None else " (one seed)"
        axis.text(difference.mean if difference else 0, row - 0.22, word, ha="center", fontsize=8)
    axis.axvline(0, color=INK, lw=1)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.5, -0.6)
    axis.margins(x=0.25)
    axis.set_xlabel("difference in points,\n95 % interval")
