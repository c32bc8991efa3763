"""Exercises of notebook 09: visible-only embedding, attention, intensity, accumulation, planning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from vmae import viz
from vmae.course.checks.core import Exercise
from vmae.grid import gather_tokens

# ---- reference solutions -------------------------------------------------------------------------


def embed_visible(
    tokens: torch.Tensor,
    visible: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Project the visible tokens only and add their positions: (B, V, D).

    tokens (B, N, P), visible (B, V), weight (D, P), bias (D,), positions (N, D).
    """
    return F.linear(gather_tokens(tokens, visible), weight, bias) + positions[visible]


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(QKᵀ / √d) V, written out: (B, heads, N, d) three times -> (B, heads, N, d)."""
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v


def linear_intensity(rows: int, wide_in: int, wide_out: int, size: int) -> float:
    """Arithmetic intensity of a matrix product (rows, wide_in) x (wide_in, wide_out), in FLOPs per byte.

    A multiply-add is two FLOPs. Both inputs are read and the output is written, at `size` bytes per
    number.
    """
    numbers = rows * wide_in + wide_in * wide_out + rows * wide_out
    return 2 * rows * wide_in * wide_out / (size * numbers)


def accumulated_gradient(
    weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor, parts: int
) -> torch.Tensor:
    """The gradient of mse_loss(x @ weight, y) for `weight`, accumulated over `parts` equal parts."""
    own = weight.detach().clone().requires_grad_()
    for rows, target in zip(x.chunk(parts), y.chunk(parts), strict=True):
        (F.mse_loss(rows @ own, target) / parts).backward()
    assert own.grad is not None
    return own.grad


def plan(
    base_lr: float,
    batch: int,
    repeat: int,
    processes: int,
    accumulate: int,
    videos: int,
    warmup_epochs: int,
) -> tuple[float, int, int]:
    """(learning rate, clips per forward pass of one process, warm-up steps) by the published rule.

    The learning rate is base_lr · batch / 256, where `batch` counts the videos of all processes but
    not the repeated samples. Source:
    `run_mae_pretraining.py` of VideoMAE V1 and V2.
    """
    clips = batch * repeat // (processes * accumulate)
    return base_lr * batch / 256, clips, warmup_epochs * (videos // batch)


# ---- mistakes ----------------------------------------------------------------------------------


def _one_row(tokens: torch.Tensor, visible: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    return embed_visible(tokens, visible[:1].expand_as(visible), *others)


def _mixed(scale: Callable[[torch.Tensor], float], dim: int = -1, soft: bool = True) -> Any:
    """Attention with another scale, with the softmax over another axis, or without it."""

    def mistaken(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = q @ k.transpose(-2, -1) * scale(q)
        return (scores.softmax(dim) if soft else scores) @ v

    return mistaken


def _after_softmax(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(-2, -1)).softmax(-1) * q.shape[-1] ** -0.5 @ v


def _root(q: torch.Tensor) -> float:
    return float(q.shape[-1] ** -0.5)


def _moved(*kept: bool) -> Callable[[int, int, int, int], float]:
    """Intensity that counts only some of the input, the weights and the output."""

    def mistaken(rows: int, wide_in: int, wide_out: int, size: int) -> float:
        each = (rows * wide_in, wide_in * wide_out, rows * wide_out)
        numbers = sum(n for n, counts in zip(each, kept, strict=True) if counts)
        return 2 * rows * wide_in * wide_out / (size * numbers)

    return mistaken


def _only(part: int) -> Callable[..., torch.Tensor]:
    """The contribution of a single part to the gradient."""

    def mistaken(
        weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor, parts: int
    ) -> torch.Tensor:
        rows, target = x.chunk(parts)[part], y.chunk(parts)[part]
        return accumulated_gradient(weight, rows, target, 1) / parts

    return mistaken


def _last_whole(weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor, parts: int) -> torch.Tensor:
    return accumulated_gradient(weight, x.chunk(parts)[-1], y.chunk(parts)[-1], 1)


def _rate(rate: Callable[..., float]) -> Callable[..., tuple[float, int, int]]:
    """A plan with another learning rate, from base_lr, batch, repeat, processes, accumulate."""
    return lambda *given: (rate(*given[:5]), *plan(*given)[1:])


def _clips(clips: Callable[[int, int, int, int], int]) -> Callable[..., tuple[float, int, int]]:
    """A plan with another number of clips, from batch, repeat, processes, accumulate."""
    return lambda *given: (plan(*given)[0], clips(*given[1:5]), plan(*given)[2])


def _warmup(steps: Callable[..., int]) -> Callable[..., tuple[float, int, int]]:
    """A plan with another number of warm-up steps, from all arguments."""
    return lambda *given: (*plan(*given)[:2], steps(*given))


# ---- inputs and drawings -----------------------------------------------------------------------


def _embed_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for batch, n, v, pixels, width in ((2, 12, 5, 6, 8), (3, 20, 4, 9, 4)):
        visible = torch.rand(batch, n, generator=g).argsort(1)[:, :v].sort(1).values
        shapes = ((batch, n, pixels), (width, pixels), (width,), (n, width))
        tokens, *others = (torch.randn(*shape, generator=g) for shape in shapes)
        cases.append((tokens, visible, *others))
    return cases


def _attention_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    shapes = ((1, 2, 7, 8), (2, 3, 10, 4))
    return [tuple(torch.randn(*shape, generator=g) for _ in range(3)) for shape in shapes]


def _intensity_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    return [(160, 768, 3072, 2), (1, 768, 768, 4), (5000, 384, 1536, 4)]


def _gradient_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for batch, parts in ((12, 3), (8, 4)):
        shapes = ((5, 4), (batch, 5), (batch, 4))
        cases.append((*(torch.randn(*shape, generator=g) for shape in shapes), parts))
    return cases


def _plan_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    return [
        (1e-3, 1024, 4, 32, 2, 100_000, 20),
        (1.5e-4, 2048, 1, 64, 1, 240_000, 40),
        (3e-4, 192, 2, 8, 3, 9_537, 5),
    ]


def _draw_embed(result: torch.Tensor, tokens: torch.Tensor, *_: Any) -> None:
    viz.pictures(
        {"tokens": tokens[0].T, "your embedding": result[0].T},
        "Two matrices with one column per token: the pixels of all tokens, and your embedding.",
        height=1.0,
    )


def _draw_attention(result: torch.Tensor, q: torch.Tensor, k: torch.Tensor, *_: Any) -> None:
    viz.pictures(
        {"scores q·k": (q @ k.transpose(-2, -1))[0, 0], "your output": result[0, 0]},
        "Two matrices with one row per query: the scores of all keys, and your output.",
        height=1.2,
    )


def _draw_gradient(result: torch.Tensor, weight: torch.Tensor, *_: Any) -> None:
    viz.pictures(
        {"weights": weight, "your gradient": result},
        "Two matrices: the weights, and the gradient that you accumulated.",
        height=1.0,
    )


def _draw_intensity(result: float, rows: int, wide_in: int, wide_out: int, size: int) -> None:
    shapes = {"input": (rows, wide_in), "weights": (wide_in, wide_out), "output": (rows, wide_out)}
    viz.pictures(
        {
            f"{name} {a} x {b}": torch.full((max(1, a // 32), max(1, b // 32)), float(a * b))
            for name, (a, b) in shapes.items()
        },
        f"Three matrices to scale: input, weights and output; you count {result:.1f} FLOPs per byte.",
        height=1.0,
        limits=(0, 3e6),
    )


def _draw_plan(result: tuple[float, int, int], *given: Any) -> None:
    processes, accumulate, clips = given[3], given[4], result[1]
    viz.pictures(
        {f"{clips} clips at a time": torch.full((accumulate, processes), float(clips))},
        f"A matrix with one column per process and one row per accumulated part: each cell is a "
        f"forward pass of {clips} clips.",
        height=0.6,
    )


EXERCISES = (
    Exercise(
        "09.embed_visible",
        embed_visible,
        _embed_cases,
        {
            "positions are added in sequence order: add positions[visible], since each token "
            "keeps its position in the clip": (
                lambda tokens, visible, weight, bias, positions: (
                    F.linear(gather_tokens(tokens, visible), weight, bias)
                    + positions[: visible.shape[1]]
                )
            ),
            "every clip gets the first clip's visible tokens: use each clip's own row of "
            "`visible`": (
                _one_row
            ),
            "the bias is missing: add it to the projection": (
                lambda tokens, visible, weight, bias, positions: embed_visible(
                    tokens, visible, weight, 0 * bias, positions
                )
            ),
            "the position embeddings are missing: add positions[visible]": (
                lambda tokens, visible, weight, bias, positions: embed_visible(
                    tokens, visible, weight, bias, 0 * positions
                )
            ),
            "all tokens are embedded, which saves no computation: select the visible tokens "
            "before the projection": (
                lambda tokens, visible, weight, bias, positions: (
                    F.linear(tokens, weight, bias) + positions
                )
            ),
        },
        draw=_draw_embed,
    ),
    Exercise(
        "09.attention",
        attention,
        _attention_cases,
        {
            "the scores are not scaled: divide them by the square root of d, the head width": _mixed(
                lambda q: 1.0
            ),
            "the scores are divided by d: divide them by the square root of d instead": (
                _mixed(lambda q: 1 / q.shape[-1])
            ),
            "the scale is computed from the total width of all heads: use d, the width of one "
            "head": (
                _mixed(lambda q: (q.shape[1] * q.shape[-1]) ** -0.5)
            ),
            "the softmax is taken over the queries: take it over the keys with softmax(-1), "
            "so that each query's weights sum to 1": _mixed(_root, dim=-2),
            "the softmax is missing: apply it to the scaled scores over the keys": _mixed(_root, soft=False),
            "the weights are scaled after the softmax: scale the scores before the softmax "
            "instead": _after_softmax,
        },
        draw=_draw_attention,
    ),
    Exercise(
        "09.linear_intensity",
        linear_intensity,
        _intensity_cases,
        {
            "each multiply-add is counted as one FLOP: count it as two FLOPs": lambda *given: (
                linear_intensity(*given) / 2
            ),
            "the weights are missing from the memory traffic: add the wide_in · wide_out "
            "elements that are read": _moved(True, False, True),
            "the output is missing from the memory traffic: add the rows · wide_out elements "
            "that are written": _moved(True, True, False),
            "the input is missing from the memory traffic: add the rows · wide_in elements "
            "that are read": _moved(False, True, True),
            "the memory traffic is counted in elements, not bytes: multiply it by `size`, the "
            "number of bytes per element": (
                lambda rows, wide_in, wide_out, size: linear_intensity(rows, wide_in, wide_out, 1)
            ),
            "the result is in bytes per FLOP: invert the ratio": lambda *given: (
                1 / linear_intensity(*given)
            ),
        },
        draw=_draw_intensity,
        tolerance=1e-6,
    ),
    Exercise(
        "09.accumulated_gradient",
        accumulated_gradient,
        _gradient_cases,
        {
            "the gradient is too large by a factor of `parts`: divide each part's loss by the "
            "number of parts, since the loss is already a mean": lambda weight, x, y, parts: (
                parts * accumulated_gradient(weight, x, y, parts)
            ),
            "the gradient includes only the last part: zero it once before the first part, "
            "not before each part": _only(-1),
            "the gradient includes only the last part, at full weight: accumulate the "
            "gradients of all parts, and divide each part's loss by the number of parts": _last_whole,
            "the gradient includes only the first part: is the `return` inside the loop?": _only(0),
            "the gradient is divided by the number of parts twice: divide it only once": (
                lambda weight, x, y, parts: (
                    accumulated_gradient(weight, x, y, parts) / parts
                )
            ),
        },
        draw=_draw_gradient,
    ),
    Exercise(
        "09.plan",
        plan,
        _plan_cases,
        {
            "the learning rate is not scaled: multiply it by batch / 256": _rate(lambda base, *_: base),
            "the learning rate is multiplied by `repeat`: omit this factor, since the "
            "published rule does not include num_sample": _rate(
                lambda base, batch, repeat, *_: base * batch * repeat / 256
            ),
            "the learning rate is scaled by a single process's batch size: use the total "
            "batch size across all processes": _rate(
                lambda base, batch, repeat, processes, _: base * batch / processes / 256
            ),
            "the learning rate is multiplied by the number of processes: omit this factor, "
            "since `batch` already counts the videos of all processes": (
                _rate(lambda base, batch, repeat, processes, _: base * batch * processes / 256)
            ),
            "the learning rate grows with the square root of the batch size: scale it "
            "linearly, as in the published rule": _rate(
                lambda base, batch, *_: base * (batch / 256) ** 0.5
            ),
            "the number of clips ignores `repeat`: multiply by it, since every view takes up "
            "memory": _clips(
                lambda batch, repeat, processes, accumulate: batch // (processes * accumulate)
            ),
            "the number of clips ignores `accumulate`: divide by it, since each forward pass "
            "processes a single part": _clips(
                lambda batch, repeat, processes, accumulate: batch * repeat // processes
            ),
            "the number of clips is the total across all processes: divide it by the number "
            "of processes": _clips(
                lambda batch, repeat, processes, accumulate: batch * repeat // accumulate
            ),
            "the warm-up is computed from a single process's batch size: use `batch`, the "
            "total number of videos per step across all processes": (
                _warmup(lambda *given: plan(*given)[2] * given[3])
            ),
            "the warm-up is in epochs: multiply it by the number of steps per epoch, videos // "
            "batch": (
                _warmup(lambda *given: given[6])
            ),
            "the warm-up counts incomplete batches: an epoch has videos // batch steps, since the "
            "official loader drops its last, incomplete batch": (
                _warmup(lambda *given: round(given[6] * given[5] / given[1]))
            ),
        },
        draw=_draw_plan,
        tolerance=1e-8,
    ),
)  # fmt: skip
