"""Which outputs of a model depend on which of its inputs."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Patch

from vmae.figures.colours import DECODER, ENCODER
from vmae.figures.figure import INK, show, style

#: Of each matrix, in inches.
HEIGHT = 2.4


def dependence(items: Mapping[str, tuple[torch.Tensor, int]], alt: str) -> None:
    """One matrix per model, outputs down and inputs across, filled where the output depends on the input.

    items   by the model's name: (outputs, inputs) bool, and how many of the first outputs are the
            encoder's; the others are the decoder's
    """
    shapes = [matrix.shape[1] / matrix.shape[0] for matrix, _ in items.values()]
    with style():
        figure, axes = plt.subplots(
            1, len(items), figsize=(HEIGHT * sum(shapes) + 0.8 * len(items), HEIGHT + 0.9),
            width_ratios=shapes, squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis, (name, (matrix, encoders)) in zip(axes[0], items.items(), strict=True):
            for row, depends in enumerate(matrix.tolist()):
                role = ENCODER if row < encoders else DECODER
                for column in (i for i, there in enumerate(depends) if there):
                    axis.add_patch(plt.Rectangle((column, row), 1, 1, fc=role.colour, ec="none"))
            axis.axhline(encoders, color=INK, lw=1)
            axis.set(xlim=(0, matrix.shape[1]), ylim=(matrix.shape[0], 0), aspect="equal")
            axis.set_title(name, fontsize=10)
            axis.set_xlabel("input")
            axis.set_ylabel("output")
            for spine in axis.spines.values():
                spine.set_visible(True)
        figure.legend(
            handles=[Patch(color=r.colour, label=f"{r.name}'s output") for r in (ENCODER, DECODER)],
            loc="outside lower center", ncols=2,
        )  # fmt: skip
    show(figure, alt)
