"""Lesson 04, video in: a clip from frames, choosing the frames, tubelets, and their embedding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vmae import ROOT, grid
from vmae.course import viz
from vmae.course.checks.core import Exercise
from vmae.course.checks.modules import ModuleCase, module_exercise
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.data.reading.sampling import Sampling
from vmae.positions import sincos_1d, sincos_2d

Sides = tuple[int, int, int]
#: (length of the video, frames, [stride,] generator) -> the frame indices of a random clip.
Sampler = Callable[..., np.ndarray]

#: Draws that characterise a random sampler: enough that no possible clip is missed by chance.
DRAWS = 600


def _film(frames: int, height: int, width: int) -> np.ndarray:
    """Frames (T, H, W, 3) of the shot that ships with the course: a rabbit gets up."""
    index = 30 + 12 * np.arange(frames)
    read = read_frames(ROOT / "data" / "big_buck_bunny_shot.mp4", lambda _: index)
    read = resize_frames(read, height)
    left = (read.shape[2] - width) // 2
    return read[:, :, left : left + width].copy()


# ---- a clip from frames ----------------------------------------------------------------------------


def to_clip(frames: np.ndarray) -> torch.Tensor:
    """Frames (T, H, W, C) as a clip (C, T, H, W); both uint8."""
    return rearrange(torch.from_numpy(frames), "t h w c -> c t h w")


def _clip_of(*order: int, relabel: bool = False, flip: int | None = None) -> Callable[..., Any]:
    """Wrong layouts: axes in another order, relabelled as if they were in the right one, or flipped."""

    def clip(frames: np.ndarray) -> torch.Tensor:
        t, h, w, c = frames.shape
        moved = torch.from_numpy(frames).permute(order)
        moved = moved.reshape(c, t, h, w) if relabel else moved
        return moved if flip is None else moved.flip(flip)

    return clip


TO_CLIP = Exercise(
    "04.to_clip",
    to_clip,
    lambda g: [
        (_film(8, 96, 144),),
        (torch.randint(256, (5, 4, 6, 3), generator=g).byte().numpy(),),
    ],
    {
        "channels and frames are mixed: a picture takes its colours from different frames. In which "
        "order do the values lie after each line of the function?": _clip_of(
            0, 3, 1, 2, relabel=True
        ),
        "a reshape alone moves no axis: each picture is made of rows that were cut in three: use "
        "`permute` or `rearrange`": _clip_of(0, 1, 2, 3, relabel=True),
        "time comes first, (T, C, H, W), as in Hugging Face's layout: put the channels first": _clip_of(
            0, 3, 1, 2
        ),
        "rows and columns are swapped, so the pictures lie on their sides: keep H before W": _clip_of(
            3, 0, 2, 1
        ),
        "red and blue are swapped: decord returns RGB, so do not flip the channels": _clip_of(
            3, 0, 1, 2, flip=0
        ),
        "the frames run backwards": _clip_of(3, 0, 1, 2, flip=1),
        "the values are floats: keep uint8, a quarter of the bytes; the model scales pixels": (
            lambda frames: to_clip(frames) / 255
        ),
    },
    draw=lambda clip, _: viz.film_strips(
        {"your clip": clip},
        alt="The clip that the learner's function makes from frames of the film, as a strip. If it is "
        "right, a rabbit gets up in natural colours.",
    ),
)


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
    names: Sequence[str],
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
        given = ", ".join(f"{name}={value}" for name, value in zip(names, case, strict=True))
        return f"with {given}, it {problem}; {len(expected)} different clips are possible"
    return None


def _random(name: str, reference: Sampler, **options: Any) -> Exercise:
    keys = ("names", "cases", "mistakes", "shown")
    judge = partial(_judge, reference, *(options[k] for k in keys))
    return Exercise(name, reference, mistakes=options["mistakes"], judge=judge)


def _dense(
    room: Callable[[int, int, int], int], repeated: str = "sampled", first: int = 0
) -> Sampler:
    """Dense sampling with other starts, that repeats other frames or none, or omits the first ones."""

    def sample(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
        start = int(rng.integers(room(length, frames, stride) + 1))
        index = start + stride * np.arange(first, first + frames)
        ends = {
            "sampled": start + max(length - 2 - start, 0) // stride * stride,
            "sampled, up to the end": start + (length - 1 - start) // stride * stride,
            "last but one": length - 2,
            "last": length - 1,
        }
        return np.minimum(index, ends.get(repeated, index))

    return sample


def _published(length: int, frames: int, stride: int) -> int:
    return max(length - frames * stride, 0)


def _span(length: int, frames: int, stride: int) -> int:
    return max(length - (frames - 1) * stride - 1, 0)


def _wrapped(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    return _dense(_published, "none")(length, frames, stride, rng) % length


def _unstrided(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(_published(length, frames, stride) + 1))
    return np.minimum(start + np.arange(frames), length - 1)


DENSE = _random(
    "04.dense_indices",
    dense_indices,
    names=("length", "frames", "stride"),
    shown=(132, 16, 4),
    cases=[(40, 8, 4), (13, 4, 3), (11, 4, 3), (9, 4, 3), (2, 4, 1)],
    mistakes={
        "the last possible start is never drawn: pass room + 1 to `rng.integers`, which "
        "excludes its upper bound": _dense(lambda n, T, s: max(n - T * s - 1, 0)),
        "the starts leave room for only (T - 1) * stride + 1 frames, a clip's exact span: "
        "leave room for T * stride frames, as in the published code": _dense(_span),
        "the start is drawn from the whole video, so clips extend past its end: leave room "
        "for T * stride frames": _dense(lambda n, T, s: n - 1, "none"),
        "the start is drawn from the whole video, so some clips end in repeats of a frame near "
        "the end: leave room for T * stride frames": _dense(lambda n, T, s: n - 1),
        "the stride is ignored when drawing the start: leave room for T * stride frames, not "
        "T": _dense(
            lambda n, T, s: max(n - T, 0)
        ),
        "the very last frame is drawn: the index advances only while the next one is below "
        "length - 1, so it ends at length - 2 at most": _dense(_published, "sampled, up to the end"),
        "the clip begins one stride after its start: the first index is the start itself": _dense(
            _published, first=1
        ),
        "the frames are consecutive: space them `stride` frames apart": _unstrided,
        "every clip starts at frame 0: draw a random start from `rng`": _dense(lambda n, T, s: 0),
        "if the video is shorter than T * stride, the room for the start is negative and "
        "`rng.integers` raises an error: clamp it with max(room, 0)": _dense(lambda n, T, s: n - T * s),
        "if the video is shorter than the clip, some indices exceed the last frame: repeat "
        "the last index that is below length - 1": _dense(_published, "none"),
        "if the video is shorter than the clip, its last frame is repeated: repeat the last "
        "index that was sampled, as the published code does": _dense(_published, "last"),
        "if the video is shorter than the clip, its last frame but one is repeated: repeat the last "
        "index that was sampled, a multiple of the stride from the start": _dense(_published, "last but one"),
        "if the video is shorter than the clip, the indices wrap around to the beginning: "
        "repeat the last index that was sampled instead": _wrapped,
        "the starts leave room for only a clip's exact span, (T - 1) * stride + 1 frames: leave room "
        "for T * stride frames, as in the published code": _dense(_span, "none"),
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


def _uneven(length: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    edges = np.linspace(0, length, frames + 1).astype(int)
    return rng.integers(edges[:-1], edges[1:])


TSN = _random(
    "04.tsn_indices",
    tsn_indices,
    names=("length", "frames"),
    shown=(132, 16),
    cases=[(9, 3), (11, 3), (8, 2), (4, 4)],
    mistakes={
        "all segments share one offset: draw one offset per segment, with size=T": (
            _tsn(lambda g, s, T: g.integers(s))
        ),
        "the offsets are added to 0, 1, 2, ...: add them to the starts of the segments, 0, S, 2S, ...": (
            lambda n, T, g: np.arange(T) + g.integers(n // T, size=T)
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
        "the segments differ in length, because the remainder is divided among them: make each "
        "exactly length // T frames long": _uneven,
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


def _film_clip(frames: int, height: int, width: int) -> torch.Tensor:
    """A clip (C, T, H, W) of the shot, in [0, 1]."""
    return to_clip(_film(frames, height, width)) / 255


def _clip_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    real = _film_clip(4, 96, 144)
    return [
        (torch.stack((real, real.flip(-1))), (2, 48, 36)),
        (torch.rand(5, 2, 6, 4, 12, generator=g), (3, 2, 4)),
    ]


def _draw_tubelets(result: torch.Tensor, clips: torch.Tensor, sides: Sides) -> None:
    """One column per token, its frames from top to bottom."""
    p_t, p_h, p_w = sides
    tokens = rearrange(result[0], "n (f p q c) -> f n p q c", f=p_t, p=p_h, q=p_w)
    with viz.style():
        count = tokens.shape[1]
        wide = 8.6 / count  # inches per token
        size = (wide * count, 1.05 * wide * p_h / p_w * p_t)
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


def _square(clips: torch.Tensor, sides: Sides) -> torch.Tensor:
    p_t, p_h, _ = sides
    return tubelets(clips, (p_t, p_h, p_h))


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
        "p_h is used for the columns, too: the third side of a tubelet is p_w": _square,
        "a reshape alone yields runs of consecutive values, not tubelets: split each axis in "
        "two, then permute the axes": _bare,
    },
    draw=_draw_tubelets,
)  # fmt: skip


# ---- the embedding ---------------------------------------------------------------------------------


class TubeletEmbed(nn.Module):
    """Embed clips (B, C, T, H, W) as tokens (B, N, D), or only those at `visible` (B, V): (B, V, D).

    The weights are those of a Conv3d, used as a linear layer on flattened tubelets, as in
    `vmae.vit.PatchEmbed`; the positions are fixed and in no checkpoint.
    """

    pos_embed: torch.Tensor

    def __init__(self, clip: Sides, tubelet: Sides, embed_dim: int) -> None:
        super().__init__()
        self.tubelet = tubelet
        self.proj = nn.Conv3d(3, embed_dim, tubelet, stride=tubelet)
        table = sincos_1d(math.prod(clip) // math.prod(tubelet), embed_dim)
        self.register_buffer("pos_embed", table, persistent=False)

    def forward(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Project the tubelets and add the position of each."""
        tokens, pos_embed = tubelets(clips, self.tubelet), self.pos_embed  # (B, N, P), (N, D)
        if visible is not None:
            tokens, pos_embed = grid.gather_tokens(tokens, visible), pos_embed[visible]
        weight = rearrange(self.proj.weight, "d c p_t p_h p_w -> d (p_t p_h p_w c)")
        return F.linear(tokens, weight, self.proj.bias) + pos_embed


def _wrong(
    order: str = "p_t p_h p_w c",
    bias: bool = True,
    place: Callable[..., Any] = lambda table, visible, _: table[visible],
    drop: bool = True,
) -> type[TubeletEmbed]:
    """Wrong embeddings: weights in another order, no bias, other positions, all tokens returned.

    place  (table, visible, tokens per time step) -> what is added
    """

    class Wrong(TubeletEmbed):
        def forward(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
            tokens = tubelets(clips, self.tubelet)
            if visible is None or not drop:
                visible = torch.arange(tokens.shape[1]).expand(len(clips), -1)
            weight = rearrange(self.proj.weight, f"d c p_t p_h p_w -> d ({order})")
            tokens = F.linear(grid.gather_tokens(tokens, visible), weight)
            per_step = len(self.pos_embed) // (clips.shape[2] // self.tubelet[0])
            added = place(self.pos_embed, visible, per_step)
            return tokens + added + (self.proj.bias if bias else 0)

    return Wrong


class _Sorted(TubeletEmbed):
    """Returns the visible tokens in ascending order."""

    def forward(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(clips, None if visible is None else visible.sort(1)[0])


class _Viewed(TubeletEmbed):
    """Makes (B, N, D) of the convolution's (B, D, t, h, w) without moving an axis."""

    def forward(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        x = self.proj(clips)
        x = x.reshape(len(x), -1, x.shape[1]) + self.pos_embed
        return x if visible is None else grid.gather_tokens(x, visible)


class _FirstRow(TubeletEmbed):
    """Picks the first clip's visible tokens from every clip, each at its own position."""

    def forward(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        x = super().forward(clips)
        return x if visible is None else x[:, visible[0]]


class _AllRows(TubeletEmbed):
    """Picks the visible tokens of every clip from every clip."""

    def forward(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        x = super().forward(clips)
        return x if visible is None else x[:, visible]


def _halves(table: torch.Tensor) -> torch.Tensor:
    """The table with all sines before all cosines."""
    return torch.cat((table[:, 0::2], table[:, 1::2]), dim=1)


def _two_d(table: torch.Tensor, visible: torch.Tensor, per_step: int) -> torch.Tensor:
    rows = int(per_step**0.5)
    rows = next(r for r in range(rows, 0, -1) if per_step % r == 0)
    space = sincos_2d(rows, per_step // rows, table.shape[1])
    return space.repeat(len(table) // per_step, 1)[visible]


def _embed_cases(g: torch.Generator) -> list[ModuleCase]:
    film = (_film_clip(4, 96, 128) - 0.45) / 0.25
    noise = torch.randn(3, 3, 6, 8, 20, generator=g)
    visible = torch.stack([torch.randperm(32, generator=g)[:5] for _ in range(3)])
    return [
        (
            {"clip": (4, 96, 128), "tubelet": (2, 4, 8), "embed_dim": 36},
            (torch.stack((film, film.flip(-1))),),
        ),
        ({"clip": (6, 8, 20), "tubelet": (3, 2, 5), "embed_dim": 24}, (noise, visible.sort(1)[0])),
        ({"clip": (6, 8, 20), "tubelet": (3, 2, 5), "embed_dim": 28}, (noise, visible)),
    ]


def _draw_embed(tokens: torch.Tensor, arguments: dict[str, Any], inputs: tuple[Any, ...]) -> None:
    """The tokens of a clip in their places; the three main directions of their vectors as colours."""
    (t, h, _), (p_t, p_h, p_w) = arguments["clip"], arguments["tubelet"]
    x = tokens[0] - tokens[0].mean(0)
    main = x @ torch.linalg.svd(x, full_matrices=False)[2][:3].T  # (N, D) -> (N, 3)
    main = (main - main.amin(0)) / (main.amax(0) - main.amin(0))
    steps = rearrange(main, "(t h w) c -> t c h w", t=t // p_t, h=h // p_h)
    shown = {
        f"time step {i}": x.repeat_interleave(p_h, 1).repeat_interleave(p_w, 2)
        for i, x in enumerate(steps)
    }
    viz.pictures(
        shown,
        alt="The tokens that the learner's module makes of a clip of the film, one coloured block per "
        "token. The colours are the three main directions of their vectors. The rabbit's outline shows if "
        "the tokens are in the right order.",
    )


_EMBED = module_exercise(
    "04.TubeletEmbed",
    TubeletEmbed,
    _embed_cases,
    {
        "no positions are added: add `pos_embed` to the projected tokens": _wrong(
            place=lambda table, visible, _: 0
        ),
        "the visible tokens get the positions 0, 1, 2, ...: give each the position that it has in the "
        "clip, `pos_embed[visible]`": _wrong(place=lambda table, visible, _: table[: visible.shape[1]]),
        "`visible` is ignored: return only the tokens at those indices": _wrong(drop=False),
        "the tokens come back sorted: keep the order of `visible`": _Sorted,
        "`x[:, visible]` picks every row of `visible` from every clip: use "
        "`x[torch.arange(B)[:, None], visible]`": _AllRows,
        "every clip gets the first clip's visible tokens: use each clip's own row of `visible`": _FirstRow,
        "after the convolution, a reshape to (B, N, D) mixes values of different tokens: use "
        "`flatten(2).transpose(1, 2)`": _Viewed,
        "the positions start again at every time step: number the tokens through the whole clip": _wrong(
            place=lambda table, visible, step: table[visible % step]
        ),
        "all tokens of a time step have the same position: number the tokens one by one": _wrong(
            place=lambda table, visible, step: table[visible // step]
        ),
        "these are MAE's 2-D positions: VideoMAE's table is `sincos_1d` over all tokens": _wrong(
            place=_two_d
        ),
        "the table has all sines first: VideoMAE's alternates sine and cosine, as `sincos_1d` does": _wrong(
            place=lambda table, visible, _: _halves(table)[visible]
        ),
        "the kernel is flattened as it is stored, channels first, but a token's values have the channel "
        "last: permute the weight before you flatten it": _wrong("c p_t p_h p_w"),
        "rows and columns of the kernel are swapped: flatten it as (p_t p_h p_w c)": _wrong(
            "p_t p_w p_h c"
        ),
        "time varies faster than rows and columns in the flattened kernel: flatten it as "
        "(p_t p_h p_w c)": _wrong("p_h p_w p_t c"),
        "the bias of `proj` is not added": _wrong(bias=False),
    },
    draw=_draw_embed,
    renamed=dict.fromkeys(("conv", "projection", "linear", "embed", "patch_embed", "weight"), "proj"),
    tolerance=1e-3,
)  # fmt: skip


def _stored(answer: Any) -> str | None:
    """What is wrong with a class before its names are compared: stored positions, overlapping windows."""
    if isinstance(answer, nn.Module):
        return None  # an object: the comparison of names says so
    made = answer(clip=(6, 8, 20), tubelet=(3, 2, 5), embed_dim=24)
    if not isinstance(made, nn.Module):
        return None
    stored = [name for name in made.state_dict() if not name.startswith("proj.")]
    for name, tensor in made.named_parameters():
        if name in stored and tensor.shape[-1] == 24 and tensor.ndim in (2, 3):
            return (
                f"`{name}` would be trained: VideoMAE's positions are fixed. Use "
                'register_buffer("pos_embed", table, persistent=False)'
            )
    if stored and stored[0] in dict(made.named_buffers()):
        return (
            f"`{stored[0]}` would be stored in checkpoints, and published ones have none: pass "
            "persistent=False to register_buffer"
        )
    proj = getattr(made, "proj", None)
    if isinstance(proj, nn.Conv3d) and proj.stride != proj.kernel_size:
        return (
            f"`proj` has stride {proj.stride} and kernel {proj.kernel_size}: its windows overlap; pass "
            "stride=tubelet"
        )
    return None


EMBED = replace(
    _EMBED, inspect=lambda answer: _stored(answer) or (_EMBED.inspect and _EMBED.inspect(answer))
)

EXERCISES = (TO_CLIP, DENSE, TSN, TUBELETS, EMBED)
