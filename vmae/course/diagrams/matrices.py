"""Attention step by step, in small matrices."""

from __future__ import annotations

from functools import partial

import torch

from vmae.course.diagrams.drawing import DARK, Canvas, Diagram, shape
from vmae.figures.colours import ENCODER, NEUTRAL, VISIBLE, Role, mix
from vmae.layers import Attention

#: Height of a row of a matrix.
ROW = 24


def attention(layer: Attention, x: torch.Tensor, head: int = 0, follow: int = 1) -> Diagram:
    """Self-attention step by step, in small numbers: what one head of `layer` does to tokens `x`.

    x       (n, D), best 3 to 5 tokens of 2 to 5 values
    follow  the token whose row is outlined through all steps

    The values are those that the layer computes. Raises ValueError for more than 5 tokens or values.
    """
    with torch.no_grad():
        q, k, v = (part[0, head] for part in layer._project(x[None]))
        scores = q @ k.T * q.shape[-1] ** -0.5
        weights = layer.weights(x[None])[0, head]
    if max(*x.shape, v.shape[1]) > 5:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and a head {v.shape[1]} values: at most 5 tokens and 5 values"
        )
    draw, n, d = Canvas(), len(x), v.shape[1]
    cell = min(44.0, 760 / max(2 * (n + d), x.shape[1] + 3 * d))
    matrix = partial(_matrix, draw, cell, follow)
    tall, top = n * ROW, 62
    low = top + tall + 78
    for i in range(n):
        for first in (top, low):
            draw.text(50, first + (i + 0.5) * ROW + 4, str(i + 1), anchor="end")
    end = matrix(60, top, x, "tokens X", VISIBLE)
    gap, middle = (800 - end - 3 * d * cell) / 3, top + tall / 2
    draw.arrow((end + 8, middle), (end + gap - 8, middle))
    draw.text(end + gap / 2, middle - 12, "learned linear")
    draw.text(end + gap / 2, middle + 22, f"{x.shape[1]} → 3 · {d}")
    end += gap / 2
    for name, values in (("queries Q", q), ("keys K", k), ("values V", v)):
        end = matrix(end + gap / 2, top, values, name, ENCODER)
    middle = low + tall / 2
    space = (800 - 2 * n * cell - 2 * d * cell) / 3
    end = matrix(60, low, scores, f"scores QKᵀ / √{d}", NEUTRAL)
    draw.arrow((end + 8, middle), (end + space - 8, middle))
    draw.lines(end + space / 2, middle - 26, ["softmax", "of each row"])
    end = matrix(end + space, low, weights, "weights", NEUTRAL)
    draw.text(end + space / 4, middle + 6, "×", 18, bold=True)
    end = _matrix(draw, cell, None, end + space / 2, low, v, "values V", ENCODER)
    draw.text(end + space / 2, middle + 6, "=", 18, bold=True)
    matrix(end + space, low, weights @ v, "output", VISIBLE)
    best = int(weights[follow].argmax())
    row_sum = round(sum(round(weight, 2) for weight in weights[follow].tolist()), 2)
    said = (
        f"Token {follow + 1} attends most to token {best + 1}, with a weight of "
        f"{float(weights[follow, best]):.2f}; each row of weights sums to 1"
        + ("" if row_sum == 1 else ", before rounding")
    )
    draw.text(430, low + tall + 52, said, 13, bold=True)
    note = "outlined: one token through all steps; darker: larger in its matrix, with either sign"
    draw.text(430, low + tall + 72, note)
    alt = (
        f"Self-attention of {n} tokens of {x.shape[1]} values, one head of {d}: queries, keys and values "
        f"by a linear layer; scores QKᵀ/√{d}; softmax of each row; the weighted mean of the values. {said}."
    )
    return draw.finish(low + tall + 86, alt)


def _matrix(
    draw: Canvas,
    cell: float,
    follow: int | None,
    left: float,
    top: float,
    values: torch.Tensor,
    name: str,
    role: Role,
) -> float:
    """Values (rows, columns) in cells of this width, with row `follow` outlined; returns the right edge."""
    largest = float(values.abs().max()) or 1.0
    for i, line in enumerate(values.tolist()):
        for j, value in enumerate(line):
            fill = mix(role.colour, 0.08 + 0.6 * abs(value) / largest)
            draw.rect(left + j * cell, top + i * ROW, cell, ROW, fill, "#ffffff")
            at = (left + (j + 0.5) * cell, top + (i + 0.5) * ROW + 4)
            draw.text(*at, f"{value + 0.0:.2f}".replace("-", "−"), 12, fill=DARK)
    w = values.shape[1] * cell
    if follow is not None:
        draw.rect(left, top + follow * ROW, w, ROW, "none", ENCODER.colour, 2.6)
    draw.heading(left + w / 2, top - 10, name)
    draw.text(left + w / 2, top + len(values) * ROW + 18, shape(*values.shape))
    return left + w
