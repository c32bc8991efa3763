"""The charts of data/bench/DEVICE.json: python tests/bench/charts.py [cpu|cuda]

speed      every contestant's clips per second, as a multiple of the published algorithm's in fp32
scaling    time and memory of V1's step, measured and expected, as clips, batches and models grow
"""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt
import results
from matplotlib import ticker
from matplotlib.figure import Figure

from vmae.figures import INK, PALETTE, style

#: From the bottom up. Precisions differ in colour and in pattern.
LOOK: dict[str, dict[str, Any]] = {
    "fp32": {"color": PALETTE[0]},
    "bf16": {"color": PALETTE[1], "hatch": "///", "edgecolor": INK},
}
SERIES = {"frames": "frames of 224x224", "size": "pixels per side, 16 frames", "clips": "clips per step",
          "model": "model"}  # fmt: skip


def speed(kind: str) -> Figure:
    """A panel a step: contestants by row, the two precisions in each."""
    entries = {k: e["rows"] for k, e in results.found(kind).items() if "rows" in e}
    with style():
        figure, axes = plt.subplots(
            1, len(entries), figsize=(2.9 * len(entries) + 1, 3), sharex=True, sharey=True,
            squeeze=False,
            layout="constrained",
        )  # fmt: skip
        names = ["published", "HF eager", "HF SDPA", "ours", "ours, compiled", "ours, V2", "ours, V2, compiled"]  # fmt: skip
        names = [n for n in names if any(n in r for e in entries.values() for r in e.values())]
        for axis, (title, rows) in zip(axes[0], entries.items(), strict=True):
            unit = rows["fp32"]["published"]["seconds"]
            for number, (precision, look) in enumerate(LOOK.items()):
                for place, name in enumerate(names):
                    if name in rows.get(precision, {}):
                        ratio = unit / rows[precision][name]["seconds"]
                        y = place + 0.4 * number - 0.2
                        label = precision if place == 0 else None
                        axis.barh(y, ratio, 0.36, label=label, **look)
                        axis.text(ratio, y, f" {ratio:.1f}", va="center", fontsize=8)
            axis.axvline(1, color=INK, lw=0.8, ls=":")
            axis.set_title(title, fontsize=10)
            axis.margins(x=0.14)
            axis.grid(axis="y", visible=False)
        axes[0, 0].set_yticks(range(len(names)), names)
        axes[0, 0].legend(loc="lower right", fontsize=8)
        figure.supxlabel("times the published algorithm in fp32", fontsize=10, color=INK)
    return figure


def scaling(kind: str) -> Figure:
    """Dots: measured. Lines: the multiply-adds, in seconds of the smallest point; expected bytes."""
    found = results.found(kind)
    with style():
        figure, axes = plt.subplots(
            2, len(SERIES), figsize=(10, 4.6), sharey="row", layout="constrained"
        )
        for column, (series, label) in enumerate(SERIES.items()):
            points = found[f"scaling, {series}"]["points"]
            rows, x = list(points.values()), range(len(points))
            rate = rows[0]["seconds"] / rows[0]["multiply-adds"]
            expected = {
                "seconds": [rate * row["multiply-adds"] for row in rows],
                "gigabytes": [row["expected gigabytes"] for row in rows],
            }
            for axis, (measure, line) in zip(axes[:, column], expected.items(), strict=True):
                (lines,) = axis.plot(x, line, color=PALETTE[0])
                (dots,) = axis.plot(x, [row[measure] for row in rows], "o", color=PALETTE[4])
                axis.set_xticks(x, list(points))
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
                axis.yaxis.set_minor_locator(ticker.NullLocator())
                axis.margins(x=0.15)
            axes[1, column].set_xlabel(label)
        axes[0, 0].set_ylabel("seconds a step")
        axes[1, 0].set_ylabel("gigabytes a step")
        said = [
            "measured",
            "expected: multiply-adds from the first dot on; bytes of vmae.cost.memory",
        ]
        figure.legend([dots, lines], said, loc="outside upper center", ncols=2, fontsize=9)
    return figure


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else results.device().type
    for chart in (speed, scaling):
        path = results.FOLDER / f"{chart.__name__}-{kind}.png"
        chart(kind).savefig(path, dpi=110)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
