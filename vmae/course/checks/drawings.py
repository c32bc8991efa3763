"""Drawings that the checks of several lessons share."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from sklearn.decomposition import PCA

from vmae.course import viz


def loss_among(errors: Mapping[str, torch.Tensor], result: torch.Tensor) -> None:
    """The learner's loss as a line across bars: what it would be over each selection of tokens."""
    with viz.style():
        figure, axis = plt.subplots(figsize=(5, 1.3))
        values = [float(x) for x in errors.values()]
        axis.barh(list(errors), values, color=viz.PALETTE[0], alpha=0.75)
        axis.axvline(float(result), color=viz.PALETTE[4], lw=2)
        axis.set_title(f"mean squared error; the line marks yours, {float(result):.3g}", fontsize=8)
    *names, last = errors
    viz.show(
        figure,
        f"Bars for the mean squared error over {', '.join(names)} and {last}; yours, a line, is "
        f"{float(result):.3g}.",
    )


def as_colours(latents: torch.Tensor) -> torch.Tensor:
    """Three principal components of latents (N, D) as colours in [0, 1], (N, 3): like with like."""
    components = torch.tensor(PCA(3, random_state=0).fit_transform(latents.numpy()))
    low, high = (components.quantile(q, dim=0) for q in (0.02, 0.98))
    return ((components - low) / (high - low)).clamp(0, 1)
