"""Charts of numbers: curves, lines, a confusion matrix, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from vmae.figures.figure import INK, publish, show, style
from vmae.support.progress import Record
from vmae.support.text import aligned


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
        powers = ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if fine else (1, 2, 5))
        even = ticker.MaxNLocator(5)  # within a factor of two, powers would leave one tick or two
        axis.yaxis.set_major_locator(even if high < 2 * low else powers)
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
            axis.annotate(name, (x[-1], height), xytext=(0, 2), textcoords="offset points",
                          ha="right", va="bottom", fontsize=9)  # fmt: skip
        if all(float(value).is_integer() for value in x):
            whole = ticker.MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])
            axis.xaxis.set_major_locator(whole)
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
