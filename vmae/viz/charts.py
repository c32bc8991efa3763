"""Charts of numbers: curves, bars, spreads, a confusion matrix, a timeline, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from vmae.support.progress import Record
from vmae.support.text import aligned
from vmae.viz.figure import INK, PALETTE, publish, show, style


def curves(records: Mapping[str, Sequence[Record]], alt: str, ylabel: str = "loss") -> None:
    """Loss over steps, one line per run."""
    show(curve_figure(records, ylabel), alt)


def curve_figure(records: Mapping[str, Sequence[Record]], ylabel: str) -> Figure:
    """Loss over steps on a logarithmic axis, one line per run; not displayed yet."""
    with style():
        figure, axis = plt.subplots(figsize=(7, 2.6))
        for name, run in records.items():
            mark = "o" if len(run) < 3 else None  # a line through one point would be invisible
            axis.plot([r.step for r in run], [r.loss for r in run], label=name, lw=1.5, marker=mark)
        axis.set_xlabel("step")
        axis.set_ylabel(ylabel)
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        fine = high < 20 * low  # over more decades, so many ticks would overlap
        axis.yaxis.set_major_locator(
            ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if fine else (1, 2, 5))
        )
        digits = 3 if high > 1.05 * low else 5
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter(f"%.{digits}g"))
        axis.yaxis.set_minor_locator(ticker.NullLocator())
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        if len(records) > 1:
            axis.legend()
    return figure


def lines(
    x: Sequence[float],
    ys: Mapping[str, Sequence[float]],
    alt: str,
    xlabel: str,
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    top: float | None = None,
) -> None:
    """One line per entry of `ys` over `x`; `levels` are dashed and named.

    top   upper end of the vertical axis, which then begins at 0
    """
    with style():
        figure, axis = plt.subplots(figsize=(7, 2.8))
        mark = "o" if len(x) < 20 else None
        for name, values in ys.items():
            axis.plot(x, values, label=name, lw=1.5, marker=mark, ms=4)
        for name, height in (levels or {}).items():
            axis.axhline(height, color=INK, ls="--", lw=1)
            axis.text(x[-1], height, name, ha="right", va="bottom", fontsize=9)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        if top is not None:
            axis.set_ylim(0, top)
        if len(ys) > 1:
            axis.legend()
    show(figure, alt)


def confusion(matrix: np.ndarray, classes: Sequence[str], alt: str, counts: bool = False) -> None:
    """A confusion matrix (rows: true, columns: predicted), coloured and labelled in percent of each row.

    counts   label the cells with numbers of videos instead
    """
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.2 + 0.48 * len(classes)
    with style():
        figure, axis = plt.subplots(figsize=(side + 1, side))
        axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(share):
            if matrix[row, column] if counts else value >= 0.5:
                ink = "white" if value > 55 else "#333333"
                axis.text(
                    column,
                    row,
                    f"{matrix[row, column] if counts else value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=ink,
                )
        axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axis.set_yticks(range(len(classes)), classes)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        axis.grid(False)
    show(figure, alt)


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


def seeds(panels: Mapping[str, Mapping[str, Sequence[float]]], alt: str) -> None:
    """Compare accuracies in percent, one panel per question: every run as a dot, the mean as a line.

    All panels share the vertical axis, so that differences are comparable. Settings without runs stay
    empty.
    """
    with style():
        widths = [len(panel) for panel in panels.values()]
        figure, axes = plt.subplots(
            1, len(panels), figsize=(1.2 + 0.85 * sum(widths), 2.6), sharey=True,
            squeeze=False, width_ratios=widths, layout="constrained",
        )  # fmt: skip
        for axis, (title, panel) in zip(axes[0], panels.items(), strict=True):
            for column, runs in enumerate(panel.values()):
                axis.plot([column] * len(runs), runs, "o", color=PALETTE[1], ms=5, mec=INK, mew=0.5)
                if runs:
                    mean = np.mean(runs)
                    axis.plot([column - 0.3, column + 0.3], [mean, mean], color=PALETTE[0], lw=2.5)
            names = [name.replace(" ", "\n") if len(name) > 5 else name for name in panel]
            axis.set_xticks(range(len(panel)), names)
            axis.set_xlim(-0.6, len(panel) - 0.4)
            axis.grid(axis="x", visible=False)
            axis.set_title(title, fontsize=10)
        axes[0, 0].set_ylabel("test accuracy, %")
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


def table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> None:
    """Show rows with the same keys as a table, with a text version for viewers without HTML."""
    heads = list(rows[0])
    cells = [[_cell(row[head]) for head in heads] for row in rows]
    html = "".join(f'<th scope="col" style="text-align:left">{escape(head)}</th>' for head in heads)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row)
        + "</tr>"
        for row in cells
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    publish(
        {
            "text/html": f"<table>{title}<thead><tr>{html}</tr></thead><tbody>{body}</tbody></table>",
            "text/plain": "\n".join(aligned([heads, *cells])),
        }
    )


def _cell(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


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
