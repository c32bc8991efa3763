"""Charts of numbers for lessons: accuracies of runs, spreads over clips, a timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from vmae.figures.figure import INK, PALETTE, show, style


def bars(values: Mapping[str, Sequence[float]], alt: str, chance: float | None = None) -> None:
    """Accuracies in percent, one row per entry: the mean as a bar, runs as dots, chance as a line."""
    with style():
        figure, axis = plt.subplots(figsize=(7, 0.7 + 0.42 * len(values)))
        for row, runs in enumerate(values.values()):
            axis.barh(row, np.mean(runs), color=PALETTE[0], alpha=0.75, height=0.62)
            axis.plot(runs, [row] * len(runs), "o", color=PALETTE[1], ms=4, mec=INK, mew=0.5)
            axis.text(
                float(np.max(runs)) + 1.5,
                row,
                f"{np.mean(runs):.1f}",
                va="center",
                fontsize=9,
            )
        if chance is not None:
            axis.axvline(chance, color=INK, ls="--", lw=1)
            axis.text(chance, -0.6, "chance", fontsize=8, ha="center", va="bottom")
        axis.set_yticks(range(len(values)), list(values))
        axis.invert_yaxis()
        axis.set_xlim(0, 112)
        axis.set_xticks(range(0, 101, 20))
        axis.set_xlabel("test accuracy, %")
        axis.grid(axis="y", visible=False)
    show(figure, alt)


def spreads(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], np.ndarray]]],
    alt: str,
    xlabel: str,
    top: float | None = None,
) -> None:
    """Numbers of many clips over x: a line through the mean, bars from the 10th to the 90th percentile.

    panels   {vertical axis: {line: (x, values (len(x), clips))}}
    top      upper end of all vertical axes, which then begin at 0; None: each has its own range
    """
    with style():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(8.6, 2.9), squeeze=False, layout="constrained"
        )
        for axis, (name, lines) in zip(axes[0], panels.items(), strict=True):
            for row, (line, (x, values)) in enumerate(lines.items()):
                each = np.asarray(values)
                low, high = np.quantile(each, (0.1, 0.9), axis=1)
                middle = each.mean(axis=1)
                bars = np.maximum((middle - low, high - middle), 0)
                aside = 0.006 * np.ptp(x) * row  # so that bars do not hide one another
                axis.errorbar(
                    np.asarray(x) + aside, middle, bars, marker="osD^vP"[row], ms=4, lw=1.5,
                    elinewidth=0.8, label=line,
                )  # fmt: skip
            axis.set_xlabel(xlabel)
            axis.set_ylabel(name)
            if top is not None:
                axis.set_ylim(0, top)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    show(figure, alt)


def timeline(rows: Mapping[str, np.ndarray], length: int, alt: str) -> None:
    """Mark the frames that each row samples from a video of `length` frames on a timeline."""
    with style():
        figure, axis = plt.subplots(figsize=(8, 0.55 + 0.3 * len(rows)))
        for row, indices in enumerate(rows.values()):
            axis.plot([0, length - 1], [row, row], color=INK, lw=0.6, alpha=0.5)
            axis.plot(indices, np.full(len(indices), row), "|", ms=11, mew=1.8)
        axis.set_yticks(range(len(rows)), list(rows))
        axis.invert_yaxis()
        axis.margins(y=0.15 if len(rows) > 1 else 1)
        axis.set_xlabel("frame of the video")
        axis.grid(axis="y", visible=False)
        show(figure, alt)
