"""Exercises of notebook 03: learning-rate schedule, weight decay, features for a linear probe."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch

from vmae import viz
from vmae.config import ModelConfig
from vmae.course.checks.core import Exercise
from vmae.mae import MaskedAutoencoder
from vmae.train import schedule
from vmae.train.config import OptimConfig
from vmae.vit import VisionTransformer

Shapes = dict[str, tuple[int, ...]]
Pair = tuple[torch.Tensor, torch.Tensor]

# ---- reference solutions -------------------------------------------------------------------------


def learning_rates(steps: int, warmup: int, base: float, batch: int) -> list[float]:
    """The learning rate at each step: warm-up over `warmup` steps, then cosine decay to 0.

    The peak learning rate is base·batch / 256 (MAE, appendix A.1; `main_pretrain.py`).
    """
    config = OptimConfig(
        steps=steps, warmup_ratio=warmup / steps, lr=base, base_batch_size=256, batch_size=batch
    ).resolved(videos=batch)
    return [schedule.learning_rate(step, config) for step in range(steps)]


def decayed(shapes: Shapes, exempt: set[str]) -> list[str]:
    """Names of the parameters with weight decay: those with several axes that are not exempt.

    `exempt` is what VideoMAE's `no_weight_decay` returns; MAE's code exempts nothing by name.
    """
    return [name for name, shape in shapes.items() if len(shape) > 1 and name not in exempt]


def standardize_features(train: torch.Tensor, test: torch.Tensor) -> Pair:
    """Standardise features (n, D) and (m, D) by the mean and standard deviation of the training ones.

    The standard deviation divides by n, as BatchNorm and scikit-learn's StandardScaler do.
    """
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
    return (train - mean) / std, (test - mean) / std


# ---- mistakes ----------------------------------------------------------------------------------


def _shaped(
    rise: Callable[[int, int], float], fall: Callable[[int, int, int], float]
) -> Callable[..., list[float]]:
    """A schedule of another shape: rise(step, warmup), then fall(step, steps, warmup), times the peak."""

    def rates(steps: int, warmup: int, base: float, batch: int) -> list[float]:
        factors = [rise(k, warmup) if k < warmup else fall(k, steps, warmup) for k in range(steps)]
        return [base * batch / 256 * factor for factor in factors]

    return rates


def _up(step: int, warmup: int) -> float:
    return (step + 1) / warmup


def _down(step: int, steps: int, warmup: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def _scaled(train: torch.Tensor, test: torch.Tensor, by: torch.Tensor, **how: Any) -> Pair:
    """Both standardised by the statistics of `by`."""
    mean, std = by.mean(dim=0), by.std(dim=0, **({"correction": 0} | how))
    return (train - mean) / std, (test - mean) / std


def _each(train: torch.Tensor, test: torch.Tensor) -> Pair:
    return _scaled(train, train, train)[0], _scaled(test, test, test)[0]


def _rows(train: torch.Tensor, test: torch.Tensor) -> Pair:
    first, second = _each(train.T, test.T)
    return first.T, second.T


def _named(
    keep: Callable[[str, tuple[int, ...], set[str]], bool],
) -> Callable[[Shapes, set[str]], list[str]]:
    return lambda shapes, exempt: [n for n, shape in shapes.items() if keep(n, shape, exempt)]


# ---- drawings ----------------------------------------------------------------------------------


def _draw_rates(result: list[float], *case: Any) -> None:
    with viz.style():
        figure, axis = plt.subplots(figsize=(5, 1.6), layout="constrained")
        axis.plot(learning_rates(*case), lw=4, alpha=0.4, color=viz.INK, label="expected")
        axis.plot(result, lw=1.5, color=viz.PALETTE[1], label="yours")
        axis.set_xlabel("step", fontsize=8)
        axis.legend(fontsize=7)
    viz.show(figure, "Learning rate over steps: your curve drawn over the expected one.")


def _draw_decayed(result: list[str], shapes: Shapes, exempt: set[str]) -> None:
    colours = [viz.PALETTE[0] if name in result else "none" for name in shapes]
    with viz.style():
        figure, axis = plt.subplots(figsize=(6, 1.2), layout="constrained")
        axes = [len(shape) for shape in shapes.values()]
        axis.bar(range(len(axes)), axes, color=colours, edgecolor=viz.INK, linewidth=0.6)
        axis.set_ylabel("axes", fontsize=8)
        axis.set_xlabel("parameter, in order; filled: decayed by yours", fontsize=8)
    viz.show(
        figure,
        "One bar per parameter, its height the number of axes; filled if your function decays it.",
    )


def _draw_features(result: Pair, *case: torch.Tensor) -> None:
    names = ("train", "test")
    with viz.style():
        figure, axes = plt.subplots(1, 2, figsize=(6, 1.9), layout="constrained")
        expected = standardize_features(*case)
        for axis, name, ours, right in zip(axes, names, result, expected, strict=True):
            axis.plot(
                right[:, 0], right[:, 1], "o", ms=6, mfc="none", mec=viz.INK, label="expected"
            )
            axis.plot(ours[:, 0], ours[:, 1], ".", ms=4, color=viz.PALETTE[1], label="yours")
            axis.set_title(name, fontsize=8)
        axes[0].legend(fontsize=7)
    viz.show(
        figure,
        "Two features of the training and test images: your values as dots, the expected ones as rings.",
    )


# ---- inputs ------------------------------------------------------------------------------------


def _rate_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    return [(100, 10, 1.5e-4, 4096), (40, 8, 1e-3, 64)]


def _shape_cases(_: torch.Generator) -> list[tuple[Shapes, set[str]]]:
    small = ModelConfig.mae("tiny", img_size=32, tubelet=(1, 8, 8), depth=1, decoder_depth=1)
    clips = ModelConfig.videomae("tiny", depth=1, decoder_depth=1)
    models = (
        MaskedAutoencoder(small),
        MaskedAutoencoder(clips),
        VisionTransformer(small, num_classes=10),
    )
    return [
        ({name: tuple(p.shape) for name, p in model.named_parameters()}, model.no_weight_decay())
        for model in models
    ]


def _feature_cases(g: torch.Generator) -> list[Pair]:
    """Test features are distributed differently from training ones, so that any leakage shows."""
    cases = []
    for n, m, width in ((40, 25, 6), (30, 50, 3)):
        spread = 0.5 + 3 * torch.rand(width, generator=g)
        train = torch.randn(n, width, generator=g) * spread + 2
        cases.append((train, torch.randn(m, width, generator=g) * 1.5 * spread + 3))
    return cases


EXERCISES = (
    Exercise(
        "03.learning_rates",
        learning_rates,
        _rate_cases,
        {
            "the base learning rate is not scaled: multiply it by batch / 256": (
                lambda steps, warmup, base, batch: learning_rates(steps, warmup, base, 256)
            ),
            "the learning rate is scaled by 256 / batch: scale it by batch / 256, so that it "
            "grows with the batch size": lambda steps, warmup, base, batch: learning_rates(
                steps, warmup, base, 256 * 256 / batch
            ),
            "the learning rate is 0 at step 0, so that step is wasted: count the warm-up "
            "steps from 1, (step + 1) / warmup": _shaped(lambda step, warmup: step / warmup, _down),
            "there is no warm-up: increase the learning rate linearly over the first `warmup` "
            "steps": (_shaped(lambda *_: 1.0, _down)),
            "the cosine starts at step 0, so the learning rate drops abruptly after the "
            "warm-up: start the cosine after the warm-up, (step - warmup) / (steps - warmup)": _shaped(
                _up, lambda step, steps, _: _down(step, steps, 0)
            ),
            "the learning rate falls linearly after the warm-up: use a cosine instead, 0.5 * "
            "(1 + cos(pi * progress))": _shaped(
                _up, lambda step, steps, warmup: (steps - step) / (steps - warmup)
            ),
        },
        draw=_draw_rates,
        tolerance=1e-8,
    ),
    Exercise(
        "03.decayed",
        decayed,
        _shape_cases,
        {
            "weight decay is applied to every parameter: exclude vectors, such as biases and "
            "norm weights": (lambda shapes, _: list(shapes)),
            "weight decay is applied to the norm weights: exclude them as well as the biases, "
            "since they are vectors too and decay would pull them towards 0": _named(
                lambda name, *_: not name.endswith("bias")
            ),
            "weight decay is applied to the mask token although the model exempts it: exclude "
            "the names in `exempt`, despite their three axes": _named(
                lambda _, shape, __: len(shape) > 1
            ),
            "the mask token and the class token are always excluded: exclude a token only if it is "
            "in `exempt`, since MAE decays both": _named(
                lambda name, shape, _: len(shape) > 1 and "token" not in name
            ),
            "the list contains the parameters excluded from weight decay: return the names of "
            "the decayed parameters instead": (
                lambda shapes, exempt: [n for n in shapes if n not in decayed(shapes, exempt)]
            ),
            "the patch embedding's convolution is excluded: test for more than one axis, not "
            "for exactly two, since its weight acts as a matrix but has five axes": _named(
                lambda _, shape, __: len(shape) == 2
            ),
        },
        draw=_draw_decayed,
    ),
    Exercise(
        "03.standardize_features",
        standardize_features,
        _feature_cases,
        {
            "the test features are standardised with their own statistics, which could not be "
            "computed for a single test image: use the training statistics instead": _each,
            "the statistics are computed over training and test features together, which "
            "leaks test data into training: compute them over the training features alone": (
                lambda train, test: _scaled(train, test, torch.cat((train, test)))
            ),
            "the statistics are computed over the test features, which leaks test data: "
            "compute them over the training features instead": (
                lambda train, test: _scaled(train, test, test)
            ),
            "each image's features are standardised separately: compute each feature's mean "
            "and standard deviation across images, with dim=0": _rows,
            "only the mean is subtracted: divide by each feature's standard deviation as well": (
                lambda train, test: (train - train.mean(dim=0), test - train.mean(dim=0))
            ),
            "the standard deviation is computed with n - 1: divide by n instead, with "
            "correction=0": (lambda train, test: _scaled(train, test, train, correction=1)),
        },
        draw=_draw_features,
    ),
)
