"""Charts of speed and memory: bars made of parts, and the roofline."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np

from vmae.figures.figure import INK, PALETTE, show, style


def stacked(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]],
    alt: str,
    levels: Mapping[str, float] | None = None,
) -> None:
    """Horizontal bars made of parts, with the sum of each at its end.

    panels   {horizontal axis, with its unit: {row: {part: value}}}; panels share their rows
    levels   dashed lines with a name, in every panel
    """
    rows = list(next(iter(panels.values())))
    with style():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(4.6 * len(panels) ** 0.8 + 2, 1.0 + 0.36 * len(rows)),
            sharey=True, squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis, (unit, bars) in zip(axes[0], panels.items(), strict=True):
            _bars(axis, unit, bars, levels or {})
        axes[0, 0].invert_yaxis()
    show(figure, alt)


def _bars(
    axis: plt.Axes,
    unit: str,
    bars: Mapping[str, Mapping[str, float]],
    levels: Mapping[str, float],
) -> None:
    left = np.zeros(len(bars))
    parts = list(next(iter(bars.values())))
    for number, part in enumerate(parts):
        values = np.array([row[part] for row in bars.values()])
        hatch = ("", "//", "..", "xx", "--")[number % 5]  # colour is never the only sign
        axis.barh(
            list(bars), values, left=left, label=part, height=0.62,
            color=PALETTE[number % len(PALETTE)], hatch=hatch, edgecolor="white", linewidth=0,
        )  # fmt: skip
        left += values
    furthest = max([*left, *levels.values()]) or 1.0
    for row, total in enumerate(left):
        text = f" {total:,.0f}" if total >= 100 else f" {total:.3g}"
        axis.text(total + 0.015 * furthest, row, text, va="center", fontsize=9)
    for name, level in levels.items():
        axis.axvline(level, color=INK, ls="--", lw=1)
        axis.text(level, -0.55, name, fontsize=8, ha="center", va="bottom")
    axis.set_xlim(0, 1.16 * furthest)
    axis.set_xlabel(unit)
    axis.grid(axis="y", visible=False)
    if len(parts) > 1:
        axis.legend(ncols=len(parts), loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)


def roofline(
    places: Mapping[str, tuple[float, float]], rate: float, bandwidth: float, alt: str
) -> None:
    """A device's roofline, and operations below it.

    places      {operation: (FLOPs per byte, FLOP/s achieved)}
    rate        FLOP/s of matrix products
    bandwidth   bytes per second of the memory
    """
    ridge = rate / bandwidth
    with style():
        figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
        line = np.geomspace(min(0.2, *(x for x, _ in places.values())), 100 * ridge, 200)
        axis.loglog(line, np.minimum(rate, line * bandwidth) / 1e9, color=INK, lw=2)
        axis.axvline(ridge, color=INK, ls=":", lw=1)
        axis.text(ridge, line[0] * bandwidth / 1e9, f" {ridge:.0f} FLOPs per byte", fontsize=9)
        for number, (name, (intensity, achieved)) in enumerate(places.items()):
            axis.plot(
                intensity, achieved / 1e9, "osD^vPX*"[number % 8], ms=8, label=name,
                color=PALETTE[number % len(PALETTE)], mec=INK, mew=0.5,
            )  # fmt: skip
        axis.set_xlabel("arithmetic intensity, FLOPs per byte")
        axis.set_ylabel("GFLOP/s")
        figure.legend(loc="outside right center", fontsize=9)
    show(figure, alt)
