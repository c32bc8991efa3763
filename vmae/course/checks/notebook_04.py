"""Lesson 04, video in: choosing the frames of a clip, tubelets, and their embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from vmae import ROOT, grid, viz
from vmae.course.checks.core import Exercise
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.data.reading.sampling import Sampling

Sides = tuple[int, int, int]
#: (length of the video, frames, [stride,] generator) -> the frame indices of a random clip.
Sampler = Callable[..., np.ndarray]

#: Draws that characterise a random sampler: enough that no possible clip is missed by chance.
DRAWS = 600


# ---- random frames ---------------------------------------------------------------------------------


def dense_indices(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Indices (T,) of a random clip with an exact stride: `Sampling.train`, scheme "dense"."""
    return Sampling(frames, stride, short="repeat").train(length, rng)


def tsn_indices(length: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Indices (T,), one random frame of each segment: `Sampling.train`, scheme "tsn"."""
    return Sampling(frames, scheme="tsn").train(length, rng)


def _outcomes(sampler: Sampler, case: Sequence[int]) -> set[tuple[int, ...] | str]:
    """Every clip that a sampler draws, or the name of the exception that it raises."""
    try:
        clips = (sampler(*case, np.random.default_rng(i)) for i in range(DRAWS))
        return {tuple(np.asarray(clip).tolist()) for clip in clips}
    except Exception as error:  # a learner's code may raise anything
        return {type(error).__name__}


def _form(result: Any, frames: int) -> str | None:
    """What is wrong with the type and shape of a sampler's result."""
    if result is None:
        return "the result is None: is the `return` missing?"
    if not isinstance(result, np.ndarray):
        return f"the result is of type {type(result).__name__}; expected ndarray"
    if result.shape != (frames,):
        return f"the shape is {result.shape}; expected {(frames,)}"
    if not np.issubdtype(result.dtype, np.integer):
        return f"the dtype is {result.dtype}; expected an integer dtype, since frame indices are integers"
    return None


def _judge(
    reference: Sampler,
    cases: Sequence[tuple[int, ...]],
    mistakes: Mapping[str, Sampler],
    shown: tuple[int, ...],
    sampler: Sampler,
) -> str | None:
    """Compare the set of clips that a sampler can draw with the set it should draw."""
    draws, again = (
        {f"draw {i + 1}": sampler(*shown, np.random.default_rng(i)) for i in range(5)}
        for _ in range(2)
    )
    with suppress(Exception):  # a wrong result cannot always be drawn
        viz.timeline(
            draws,
            shown[0],
            alt=f"The frames that the learner's function samples from a video of {shown[0]} frames, "
            "in five draws, one per line.",
        )
    problem = _form(draws["draw 1"], shown[1])
    if problem is not None:
        return problem
    # One draw of a few dozen possible clips may repeat by chance; five in a row will not.
    if not all(np.array_equal(clip, again[name]) for name, clip in draws.items()):
        return "two generators with the same seed give different clips: draw all random numbers from `rng`"
    for case in cases:
        got, expected = _outcomes(sampler, case), _outcomes(reference, case)
        if got == expected:
            continue
        for message, mistaken in mistakes.items():
            if got == _outcomes(mistaken, case):
                return message
        odd = sorted(map(str, got - expected or expected - got))[0]
        verb = "raises" if odd.isidentifier() else "can draw"
        problem = (
            f"{verb} {odd}, but should not" if got - expected else f"never draws {odd}, but should"
        )
        return (
            f"with the arguments {case}, it {problem}; {len(expected)} different clips are possible"
        )
    return None


def _random(name: str, reference: Sampler, **options: Any) -> Exercise:
    judge = partial(_judge, reference, *(options[k] for k in ("cases", "mistakes", "shown")))
    return Exercise(name, reference, mistakes=options["mistakes"], judge=judge)


def _dense(room: Callable[[int, int, int], int], repeated: str = "sampled") -> Sampler:
    """Dense sampling with another range of starts, or that repeats the "last" frame or "none"."""

    def sample(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
        start = int(rng.integers(room(length, frames, stride) + 1))
        index = start + stride * np.arange(frames)
        sampled = start + max(length - 2 - start, 0) // stride * stride
        return np.minimum(index, {"sampled": sampled, "last": length - 1}.get(repeated, index))

    return sample


def _published(length: int, frames: int, stride: int) -> int:
    return max(length - frames * stride, 0)


def _wrapped(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    return _dense(_published, "none")(length, frames, stride, rng) % length


def _unstrided(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(_published(length, frames, stride) + 1))
    return np.minimum(start + np.arange(frames), length - 1)


DENSE = _random(
    "04.dense_indices",
    dense_indices,
    shown=(132, 16, 4),
    cases=[(40, 8, 4), (13, 4, 3), (11, 4, 3), (9, 4, 3), (2, 4, 1)],
    mistakes={
        "the last possible start is never drawn: pass room + 1 to `rng.integers`, which "
        "excludes its upper bound": _dense(lambda n, T, s: max(n - T * s - 1, 0)),
        "the starts leave room for only (T - 1) * stride + 1 frames, a clip's exact span: "
        "leave room for T * stride frames, as in the published code": _dense(
            lambda n, T, s: max(n - (T - 1) * s - 1, 0)
        ),
        "the start is drawn from the whole video, so clips extend past its end: leave room "
        "for T * stride frames": _dense(lambda n, T, s: n - 1, "none"),
        "the start is drawn from the whole video, so some clips end in repeats of a frame near "
        "the end: leave room for T * stride frames": _dense(lambda n, T, s: n - 1),
        "the stride is ignored when drawing the start: leave room for T * stride frames, not "
        "T": _dense(
            lambda n, T, s: max(n - T, 0)
        ),
        "the frames are consecutive: space them `stride` frames apart": _unstrided,
        "every clip starts at frame 0: draw a random start from `rng`": _dense(lambda n, T, s: 0),
        "if the video is shorter than T * stride, the room for the start is negative and "
        "`rng.integers` raises an error: clamp it with max(room, 0)": _dense(lambda n, T, s: n - T * s),
        "if the video is shorter than the clip, some indices exceed the last frame: repeat "
        "the last index that is below length - 1": _dense(_published, "none"),
        "if the video is shorter than the clip, its last frame is repeated: repeat the last "
        "index that was sampled, as the published code does": _dense(_published, "last"),
        "if the video is shorter than the clip, the indices wrap around to the beginning: "
        "repeat the last index that was sampled instead": _wrapped,
    },
)  # fmt: skip


def _tsn(offset: Callable[[np.random.Generator, int, int], Any], spread: bool = False) -> Sampler:
    """Segments with other offsets, or with the remainder spread over them."""

    def sample(length: int, frames: int, rng: np.random.Generator) -> np.ndarray:
        size = length // frames
        steps = np.arange(frames)
        starts = steps * length // frames if spread else steps * size
        return starts + offset(rng, size, frames)

    return sample


def _anywhere(length: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(length, frames, replace=False))


TSN = _random(
    "04.tsn_indices",
    tsn_indices,
    shown=(132, 16),
    cases=[(9, 3), (11, 3), (8, 2), (4, 4)],
    mistakes={
        "all segments share one offset: draw one offset per segment, with size=T": (
            _tsn(lambda g, s, T: g.integers(s))
        ),
        "the first frame of each segment is always chosen: draw a random offset per segment "
        "from `rng`": _tsn(
            lambda g, s, T: 0
        ),
        "the middle frame of each segment is always chosen, as at test time: in training, "
        "draw a random offset per segment": _tsn(lambda g, s, T: s // 2),
        "the frames are drawn from the whole video, so two can come from the same segment: "
        "draw one frame from each segment": _anywhere,
        "the last frame of a segment is never drawn: use `rng.integers(size)`, which already "
        "excludes its upper bound": _tsn(lambda g, s, T: g.integers(max(s - 1, 1), size=T)),
        "an offset can reach into the next segment: use `rng.integers(size)`, which returns 0 "
        "to size - 1": _tsn(
            lambda g, s, T: g.integers(s + 1, size=T)
        ),
        "the remainder is spread over the segments: make each segment exactly length // T "
        "frames long, and ignore the leftover frames at the end": (
            _tsn(lambda g, s, T: g.integers(s, size=T), spread=True)
        ),
    },
)  # fmt: skip


# ---- tubelets --------------------------------------------------------------------------------------


def tubelets(clips: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Cut clips (B, C, T, H, W) into tokens (B, N, P): `vmae.grid.patchify`."""
    channels, *clip = clips.shape[1:]
    return grid.patchify(clips, grid.TokenGrid((clip[0], clip[1], clip[2]), sides, channels))


def _film(frames: int, height: int, width: int) -> torch.Tensor:
    """A clip (C, T, H, W) in [0, 1] from the film that ships with the course."""
    index = 30 + 12 * np.arange(frames)
    read = read_frames(ROOT / "data" / "big_buck_bunny_shot.mp4", lambda _: index)
    left = read.shape[2] // 4
    read = resize_frames(read[:, :, left:], height)[:, :, :width]
    return torch.from_numpy(read.copy()).permute(3, 0, 1, 2) / 255


def _clip_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    real = _film(4, 48, 64)
    return [
        (torch.stack((real, real.flip(-1))), (2, 16, 16)),
        (torch.rand(2, 2, 6, 4, 6, generator=g), (3, 2, 2)),
    ]


def _draw_tubelets(result: torch.Tensor, clips: torch.Tensor, sides: Sides) -> None:
    """One column per token, its frames from top to bottom."""
    p_t, p_h, p_w = sides
    tokens = rearrange(result[0], "n (f p q c) -> f n p q c", f=p_t, p=p_h, q=p_w)
    with viz.style():
        count = tokens.shape[1]
        size = (0.36 * count, 0.42 * p_t)
        figure, axes = plt.subplots(p_t, count, figsize=size, squeeze=False)
        for (row, column), axis in np.ndenumerate(axes):
            axis.imshow(tokens[row, column].clamp(0, 1).numpy(), interpolation="nearest")
            axis.axis("off")
            if row == 0:
                axis.set_title(str(column), fontsize=7, pad=2)
        figure.subplots_adjust(wspace=0.1, hspace=0.1)
        viz.show(
            figure,
            alt=f"The {count} tokens that the learner's function cuts from a clip, numbered, one per "
            "column, with their frames from top to bottom.",
        )


def _cut(
    inside: str, outside: str = "t h w", axes: str = "(t i) (h p) (w q)"
) -> Callable[..., Any]:
    """Wrong orders: of the tokens, of the pixels inside them, or of the parts of an axis."""

    def cut(clips: torch.Tensor, sides: Sides) -> torch.Tensor:
        i, p, q = sides
        return rearrange(clips, f"b c {axes} -> b ({outside}) ({inside})", i=i, p=p, q=q)

    return cut


def _bare(clips: torch.Tensor, sides: Sides) -> torch.Tensor:
    return clips.reshape(len(clips), -1, clips.shape[1] * int(np.prod(sides)))


TUBELETS = Exercise(
    "04.tubelets",
    tubelets,
    _clip_cases,
    {
        "the tokens' time index varies fastest: make it vary slowest, (t h w), so that each "
        "time step's tokens stay together": _cut(
            "i p q c", outside="h w t"
        ),
        "within each time step, the tokens are ordered column by column: order them row by "
        "row, (t h w)": _cut(
            "i p q c", outside="t w h"
        ),
        "the channel varies slowest within each token, as in Conv3d: make it vary fastest, "
        "(p_t p_h p_w c)": _cut(
            "c i p q"
        ),
        "the channel varies more slowly than rows and columns within each token: make it vary "
        "fastest, (p_t p_h p_w c)": _cut("i c p q"),
        "time varies faster than rows and columns within each token: make it vary slowest, "
        "(p_t p_h p_w c)": _cut(
            "p q i c"
        ),
        "the pixels within each frame of a tubelet are ordered column by column: order them "
        "row by row, (p_t p_h p_w c)": _cut("i q p c"),
        "each tubelet contains frames and pixels from all over the clip: when splitting an "
        "axis, put the grid index first, (t p_t), not (p_t t)": _cut("i p q c", axes="(i t) (p h) (q w)"),
        "a reshape alone yields runs of consecutive values, not tubelets: split each axis in "
        "two, then permute the axes": _bare,
    },
    draw=_draw_tubelets,
)  # fmt: skip


# ---- the embedding ---------------------------------------------------------------------------------


def conv3d_weight(weight: torch.Tensor, sides: Sides) -> torch.Tensor:
    """Rearrange a linear layer's weights on tubelets (D, P) for a Conv3d, (D, C, p_t, p_h, p_w).

    The inverse of what `vmae.vit.PatchEmbed` does.
    """
    return _kernel("i p q c", weight, sides)


def _kernel(inside: str, weight: torch.Tensor, sides: Sides, to: str = "c i p q") -> torch.Tensor:
    i, p, q = sides
    return rearrange(weight, f"d ({inside}) -> d {to}", i=i, p=p, q=q)


def _weight_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    return [
        (torch.randn(6, 2 * 4 * 4 * 3, generator=g), (2, 4, 4)),
        (torch.randn(5, 3 * 2 * 4 * 2, generator=g), (3, 2, 4)),
    ]


def _draw_weight(result: torch.Tensor, weight: torch.Tensor, sides: Sides) -> None:
    """The outputs of both layers for one clip, as matrices: one row per output, one column per token."""
    clips = torch.rand(1, 3, 4, 8, 16, generator=torch.Generator().manual_seed(1))
    linear = tubelets(clips, sides) @ weight.T
    conv = F.conv3d(clips, result, stride=sides).flatten(2).transpose(1, 2)
    shown = {"linear layer": linear, "your Conv3d": conv, "difference": conv - linear}
    limit = linear.abs().max().item()
    viz.pictures(
        {name: values[0].T for name, values in shown.items()},
        alt="The outputs of the linear layer, of a Conv3d with the learner's weights, and their "
        "difference, one column per token. The difference is blank if the weights are right.",
        cmap="RdBu",
        limits=(-limit, limit),
    )


CONV3D = Exercise(
    "04.conv3d_weight",
    conv3d_weight,
    _weight_cases,
    {
        "a reshape alone is not enough: permute the axes too, since channels vary fastest in "
        "the linear layer's weights but are the second axis of a Conv3d kernel": partial(
            _kernel, "c i p q"
        ),
        "the channel axis still comes last, (D, p_t, p_h, p_w, C): move it to second place, "
        "as Conv3d expects": partial(_kernel, "i p q c", to="i p q c"),
        "the tubelet's rows and columns are swapped: split each row of the weight matrix as "
        "(p_t p_h p_w c)": partial(_kernel, "i q p c"),
        "each row of the weight matrix is split as if time varied faster than rows and "
        "columns: split it as (p_t p_h p_w c), where time varies slowest": partial(
            _kernel, "p q i c"
        ),
        "the kernel is flipped: do not flip it, since PyTorch's convolution is a "
        "cross-correlation": lambda weight, sides: conv3d_weight(weight, sides).flip(2, 3, 4),
    },
    draw=_draw_weight,
)

EXERCISES = (DENSE, TSN, TUBELETS, CONV3D)
