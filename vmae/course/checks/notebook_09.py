"""Exercises of notebook 09: a training step, embedding, attention, a leak, intensity, planning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps
from torch.utils.flop_counter import FlopCounterMode

from vmae import ROOT
from vmae.config import MaskConfig, ModelConfig
from vmae.cost import saved_tensors
from vmae.course import viz
from vmae.course.checks.core import Exercise
from vmae.grid import gather_tokens
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask
from vmae.support.progress import Record

#: A clip and a mask for each of its batches.
Batches = Sequence[tuple[torch.Tensor, Mask]]

# ---- reference solutions -------------------------------------------------------------------------


def train_step(
    model: MaskedAutoencoder,
    optimizer: torch.optim.Optimizer,
    clips: torch.Tensor,
    mask: Mask,
    parts: int = 1,
) -> float:
    """One step of training on clips (B, C, T, H, W), forward and backward in `parts` equal parts.

    Returns the mean loss. The gradient is that of the whole batch.
    """
    optimizer.zero_grad()
    total = 0.0
    for rows in torch.arange(len(clips)).chunk(parts):
        loss = model.loss(clips[rows], _rows(mask, rows)) / parts
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def evaluation_loss(model: MaskedAutoencoder, batches: Batches) -> float:
    """The mean loss over batches of equal size; no batch's graph outlives its loss."""
    with torch.no_grad():
        return sum(model.loss(clips, mask).item() for clips, mask in batches) / len(batches)


def _rows(mask: Mask, rows: torch.Tensor) -> Mask:
    return Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])


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


def _selected_late(
    tokens: torch.Tensor,
    visible: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    return gather_tokens(F.linear(tokens, weight, bias) + positions, visible)


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


Step = Callable[..., float]


def _sum(losses: list[float], parts: int) -> float:
    return sum(losses)


def _divided(losses: list[float], parts: int) -> float:
    return sum(losses) / parts


def _stepped(
    shares: Callable[[int], float] = lambda parts: 1 / parts,
    zero: str = "once",
    step: str = "once",
    used: Callable[[int], Sequence[int]] = range,
    told: Callable[[list[float], int], float] = lambda losses, _: sum(losses) / len(losses),
    retain: bool = False,
) -> Step:
    """A training step with a mistake.

    shares  what each part's loss is multiplied by, from the number of parts
    zero    when gradients are set to zero: "once", "each" part or "never"
    step    when the optimizer steps: "once", after "each" part or "never"
    used    the parts that are computed, from their number
    told    what is returned, from the losses of the parts computed and the number of all parts
    retain  whether backward passes keep their graphs
    """

    def mistaken(model: Any, optimizer: Any, clips: torch.Tensor, mask: Mask, parts: int) -> float:
        rows = torch.arange(len(clips)).chunk(parts)
        if zero == "once":
            optimizer.zero_grad()
        losses = []
        for part in used(parts):
            if zero == "each":
                optimizer.zero_grad()
            loss = model.loss(clips[rows[part]], _rows(mask, rows[part]))
            (loss * shares(parts)).backward(retain_graph=retain)
            losses.append(loss.item())
            if step == "each":
                optimizer.step()
        if step == "once":
            optimizer.step()
        return told(losses, parts)

    return mistaken


def _first_part(shares: Callable[[int], float], told: Callable[[list[float], int], float]) -> Step:
    """A training step that ends after its first part."""
    return _stepped(shares, used=lambda parts: [0], told=told)


def _one_backward(model: Any, optimizer: Any, clips: torch.Tensor, mask: Mask, parts: int) -> float:
    optimizer.zero_grad()
    rows = torch.arange(len(clips)).chunk(parts)
    loss = torch.stack([model.loss(clips[part], _rows(mask, part)) for part in rows]).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def _whole(model: Any, optimizer: Any, clips: torch.Tensor, mask: Mask, parts: int) -> float:
    return train_step(model, optimizer, clips, mask, 1)


def _first_masks(model: Any, optimizer: Any, clips: torch.Tensor, mask: Mask, parts: int) -> float:
    first = torch.arange(len(clips)).chunk(parts)[0].repeat(parts)
    return train_step(model, optimizer, clips, _rows(mask, first), parts)


def _of_equal_size(
    model: Any, optimizer: Any, clips: torch.Tensor, mask: Mask, parts: int
) -> float:
    optimizer.zero_grad()
    total = 0.0
    for rows in torch.arange(len(clips)).split(parts):
        loss = model.loss(clips[rows], _rows(mask, rows)) / parts
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def _leaking(keep: Callable[[torch.Tensor], Any], told: Callable[[Any], Any]) -> Callable[..., Any]:
    """An evaluation that adds up what `keep` makes of each loss."""

    def mistaken(model: MaskedAutoencoder, batches: Batches) -> Any:
        total: Any = 0.0
        for clips, mask in batches:
            total = total + keep(model.loss(clips, mask))
        return told(total / len(batches))

    return mistaken


def _last_batch(model: MaskedAutoencoder, batches: Batches) -> float:
    return evaluation_loss(model, batches[-1:])


def _sum_of_batches(model: MaskedAutoencoder, batches: Batches) -> float:
    return len(batches) * evaluation_loss(model, batches)


def _rate(rate: Callable[..., float]) -> Callable[..., tuple[float, int, int]]:
    """A plan with another learning rate, from base_lr, batch, repeat, processes, accumulate."""
    return lambda *given: (rate(*given[:5]), *plan(*given)[1:])


def _clips(clips: Callable[[int, int, int, int], int]) -> Callable[..., tuple[float, int, int]]:
    """A plan with another number of clips, from batch, repeat, processes, accumulate."""
    return lambda *given: (plan(*given)[0], clips(*given[1:5]), plan(*given)[2])


def _warmup(steps: Callable[..., float]) -> Callable[..., tuple[float, int, float]]:
    """A plan with another number of warm-up steps, from all arguments."""
    return lambda *given: (*plan(*given)[:2], steps(*given))


# ---- inputs and drawings -----------------------------------------------------------------------


@cache
def _cat(side: int) -> torch.Tensor:
    """The cat of data/photos, (3, side, side) in [0, 1]."""
    with Image.open(ROOT / "data" / "photos" / "cat.jpg") as photo:
        small = ImageOps.fit(photo.convert("RGB"), (side, side))
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(
        side, side, 3
    ).permute(2, 0, 1) / 255  # fmt: skip


def _embed_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    """A cat whose patches of 8x8 become patches of 4x4; then random numbers."""
    patches = rearrange(_cat(96).mean(0), "(h p) (w q) -> (h w) (p q)", p=8, q=8)  # (144, 64)
    shrink = torch.zeros(4, 4, 8, 8)
    for row in range(4):
        for column in range(4):
            shrink[row, column, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0.25
    tokens = torch.stack((patches, patches.flip(0), 1 - patches))  # (3, 144, 64)
    visible = torch.rand(3, 144, generator=g).argsort(1)[:, :60].sort(1).values
    lighter = torch.linspace(0, 0.3, 144)[:, None].expand(144, 16).contiguous()
    cases: list[tuple[Any, ...]] = [
        (tokens, visible, shrink.view(16, 64), torch.full((16,), -0.1), lighter)
    ]
    for batch, n, v, pixels, width in ((2, 12, 5, 6, 8), (3, 20, 4, 9, 7)):
        visible = torch.rand(batch, n, generator=g).argsort(1)[:, :v].sort(1).values
        shapes = ((batch, n, pixels), (width, pixels), (width,), (n, width))
        tokens, *others = (torch.randn(*shape, generator=g) for shape in shapes)
        cases.append((tokens, visible, *others))
    return cases


@dataclass
class Embedded:
    """What an embedding returned, and whether it projected more than the visible tokens."""

    output: torch.Tensor
    projects_hidden: bool


def _embedded(answer: Callable[..., Any], *case: torch.Tensor) -> Embedded:
    _, visible, weight, *_ = case
    with FlopCounterMode(display=False) as counter:
        output = answer(*case)
    return Embedded(output, counter.get_total_flops() > 2 * visible.numel() * weight.numel())


def _attention_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    """A cat, row by row: each row asks one head for itself, the other for its mirror image."""
    rows = _cat(64).mean(0)[:, ::2]  # (64, 32): N tokens of width d
    places = torch.arange(64)[:, None] / torch.tensor([2.0 * 1.5**k for k in range(16)])
    code = 1.7 * torch.cat((places.sin(), places.cos()), dim=1)  # (64, 32)
    k = torch.stack((code, code.flip(0), code))[None]  # (1, 3, 64, 32)
    q, v = code.expand(1, 3, -1, -1).contiguous(), rows.expand(1, 3, -1, -1).contiguous()
    shapes = ((1, 2, 7, 8), (2, 3, 10, 4))
    random = [tuple(torch.randn(*shape, generator=g) for _ in range(3)) for shape in shapes]
    return [(q, k, v), *random]


def _intensity_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    return [(160, 768, 3072, 2), (1, 768, 768, 4), (5000, 384, 1536, 4)]


@dataclass
class Stepped:
    """What a few steps did: the losses returned, the weights after them, and how many clips at once."""

    losses: list[float]
    weights: torch.Tensor
    at_once: int


_SMALL = ModelConfig.videomae("tiny", num_frames=4, embed_dim=24, depth=1, num_heads=2,
                              decoder_embed_dim=20, decoder_depth=1, decoder_num_heads=1)  # fmt: skip


class _OtherRows(ValueError):
    """Clips came with the masks of others."""


class _Watched(MaskedAutoencoder):
    """Notes the largest batch that it gets."""

    at_once = 0

    def loss(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        if len(clips) != len(mask.visible):
            raise _OtherRows(
                f"{len(clips)} clips came with the masks of {len(mask.visible)}: take the same rows of "
                "clips, visible, queries and targets"
            )
        return super().loss(clips, mask)

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        self.at_once = max(self.at_once, len(clips))
        return super().forward(clips, mask)


def _clips_of(count: int, seed: int) -> tuple[torch.Tensor, Mask]:
    """Rows of the cat that drift, (count, 3, 4, 16, 16) uint8, and masks."""
    picture = (255 * _cat(40)).round().to(torch.uint8)  # (3, 40, 40)
    cut = [
        torch.stack([picture[:, 2 * i : 2 * i + 16, i + t : i + t + 16] for t in range(4)], dim=1)
        for i in range(count)
    ]
    g = torch.Generator().manual_seed(seed)
    return torch.stack(cut), make_mask(MaskConfig("tube", 0.75), _SMALL.grid, count, g)


def _step_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    return [(*_clips_of(count, parts), parts) for count, parts in ((6, 3), (4, 2), (5, 1))]


def _steps(answer: Step, clips: torch.Tensor, mask: Mask, parts: int) -> Stepped:
    """Eight steps with plain gradient descent, which shows the size of a gradient."""
    torch.manual_seed(0)
    model = _Watched(_SMALL)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    losses = [float(answer(model, optimizer, clips, mask, parts)) for _ in range(8)]
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return Stepped(losses, weights, model.at_once)


ONE_BACKWARD = (
    "backward is called once, after the loop, so the graphs of all parts are held at the same time: call "
    "it inside the loop"
)
TWO_GRAPHS = (
    "the graphs of two parts are held at the same time: run the model once per part, and call backward "
    "without retain_graph"
)


def _kept_graph(answer: Step) -> str | None:
    """Whether a step keeps a graph for longer than it must: in the loss it returns, or for its parts."""
    torch.manual_seed(0)
    model, parts = _Watched(_SMALL), 3
    clips, mask = _clips_of(2 * parts, 0)
    own = [*model.parameters(), *model.buffers()]
    with saved_tensors(own) as one:
        model.loss(clips[:2], _rows(mask, torch.arange(2)))
    model.at_once = 0
    with saved_tensors(own) as saved:
        try:
            loss = answer(model, torch.optim.SGD(model.parameters(), lr=0.1), clips, mask, parts)
        except _OtherRows as error:
            return str(error)
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        return (
            "the returned loss is a tensor that keeps the graph of its step in memory: add up and "
            "return loss.item()"
        )
    if model.at_once > 2 or saved.peak < 1.5 * one.peak:  # larger parts have a message of their own
        return None
    return ONE_BACKWARD if saved.peak > (parts - 0.5) * one.peak else TWO_GRAPHS


@dataclass
class Evaluated:
    """What an evaluation returned, and whether it held the graphs of several batches at once."""

    loss: float
    leaks: bool

    def __post_init__(self) -> None:
        self.held: list[float] = []  # MB before each batch: to be drawn, not compared


class _Metered(MaskedAutoencoder):
    """Calls `note` before each batch."""

    note: Callable[[], None] = staticmethod(lambda: None)

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        self.note()
        return super().forward(clips, mask)


def _evaluation_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    counts = (4, 3)
    return [([_clips_of(5, 10 * n + i) for i in range(n)],) for n in counts]


def _evaluated(answer: Callable[..., Any], batches: Batches) -> Evaluated:
    torch.manual_seed(0)
    model, held = _Metered(_SMALL), []
    own = [*model.parameters(), *model.buffers()]
    with saved_tensors(own) as one:
        model.loss(*batches[0])
    with saved_tensors(own) as saved:
        model.note = lambda: held.append(saved.now / 1e6)
        loss = float(torch.as_tensor(answer(model, batches)).detach())
    # The graph of one batch may still be there while the next is computed.
    result = Evaluated(loss, saved.peak > 2.5 * one.peak)
    result.held = held
    return result


def _kind_of_loss(answer: Callable[..., Any]) -> str | None:
    """What is wrong with the type of an evaluation's result."""
    torch.manual_seed(0)
    loss = answer(MaskedAutoencoder(_SMALL), [_clips_of(2, 0)])
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        case = _evaluation_cases(torch.Generator())[0]
        _draw_evaluation(_evaluated(answer, *case))  # the check stops here, before its own figure
        return (
            "memory still grows with every batch: the sum is a tensor with a graph, which keeps the "
            "activations of every batch for a backward pass that never comes"
        )
    return None


def _plan_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    return [
        (1e-3, 1536, 4, 32, 2, 100_000, 20),
        (1.5e-4, 2048, 1, 64, 1, 240_000, 40),
        (3e-4, 192, 2, 8, 3, 9_537, 5),
    ]


def _draw_embed(result: Embedded, tokens: torch.Tensor, visible: torch.Tensor, *_: Any) -> None:
    shown = torch.ones(144, 16)
    shown[visible[0]] = result.output[0]
    viz.pictures(
        {
            "tokens": rearrange(tokens[0], "(h w) (p q) -> (h p) (w q)", h=12, p=8),
            "your embeddings, where they were seen": rearrange(
                shown, "(h w) (p q) -> (h p) (w q)", h=12, p=4
            ),
        },
        "A grey cat of 144 patches; and 60 of these patches, smaller and lighter towards the bottom, each "
        "where it was, with white between them.",
        height=1.7,
        cmap="gray",
        limits=(0, 1),
    )


def _draw_attention(
    result: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> None:
    viz.pictures(
        {
            "v: a row per token": v[0, 0],
            "head 1": result[0, 0],
            "head 2": result[0, 1],
        },
        "A grey cat, one token per row of the picture; the output of your head 1, the same, a little "
        "blurred; and that of your head 2, upside down.",
        height=1.7,
        cmap="gray",
    )


def _draw_steps(result: Stepped, *_: Any) -> None:
    records = [Record(i + 1, loss, 0.0, 0.0, 0.0) for i, loss in enumerate(result.losses)]
    viz.curves(
        {"your step": records},
        "The loss over eight of the learner's steps on six small clips of a cat.",
    )


def _draw_evaluation(result: Evaluated, *_: Any) -> None:
    viz.stacked(
        {"MB held": {f"before batch {i + 1}": {"held": x} for i, x in enumerate(result.held)}},
        "Memory held for backward passes before each of four batches: at or near zero, or growing like "
        "a staircase if the evaluation leaks.",
    )


def _draw_intensity(result: float, rows: int, wide_in: int, wide_out: int, size: int) -> None:
    shapes = f"input {rows} x {wide_in}, weights {wide_in} x {wide_out}, output {rows} x {wide_out}"
    m, k, n = (max(1, size // 16) for size in (rows, wide_in, wide_out))
    gap = 4
    laid_out = torch.full((k + gap + m, k + gap + n), torch.nan)  # NaN is left blank
    for colour, (top, left, high, wide) in enumerate(
        ((k + gap, 0, m, k), (0, k + gap, k, n), (k + gap, k + gap, m, n)), start=2
    ):
        laid_out[top : top + high, left : left + wide] = colour
    viz.pictures(
        {shapes: laid_out},
        f"Three matrices to scale: {shapes}. The input is at the bottom left, the weights above the output, "
        f"on the right; you count {result:.1f} FLOPs per byte.",
        height=1.2,
        limits=(0, 5),
    )


def _draw_plan(result: tuple[float, int, int], *given: Any) -> None:
    processes, accumulate, clips = given[3], given[4], result[1]
    cells = torch.full((7 * accumulate - 1, 7 * processes - 1), torch.nan)  # NaN: gaps, left blank
    for row in range(accumulate):
        for column in range(processes):
            cells[7 * row : 7 * row + 6, 7 * column : 7 * column + 6] = 1.0
    name = f"{processes} processes across, {accumulate} parts down, {clips} clips in each"
    viz.pictures(
        {name: cells},
        f"{processes} columns, one per process, and {accumulate} rows, one per accumulated part: each cell "
        f"is a forward pass of {clips} clips.",
        height=0.9,
        limits=(0, 1.5),
    )


EXERCISES = (
    Exercise(
        "09.train_step",
        train_step,
        _step_cases,
        {
            "the gradient is too large by a factor of `parts`: divide each part's loss by the "
            "number of parts, since the loss is already a mean": _stepped(lambda parts: 1.0),
            "the gradient and the returned loss are too large by a factor of `parts`: divide each "
            "part's loss by the number of parts, since it is already a mean": _stepped(
                lambda parts: 1.0, told=_sum
            ),
            "the gradient includes only the last part: zero it once before the first part, "
            "not before each part": _stepped(zero="each"),
            "the gradient includes only the last part, at full weight: accumulate the "
            "gradients of all parts, and divide each part's loss by the number of parts": _stepped(
                lambda parts: 1.0, zero="each", told=_sum
            ),
            "the gradient includes only the last part, at full weight: call optimizer.zero_grad() once, "
            "and divide each part's loss by the number of parts": _stepped(
                lambda parts: 1.0, zero="each"
            ),
            "only the first part is computed: is the `return` inside the loop?": _stepped(
                used=lambda parts: [0], step="never", told=_divided
            ),
            "only the first part is computed, and its whole loss is returned: is the `return` inside the "
            "loop?": _stepped(used=lambda parts: [0], step="never", told=_sum),
            "the optimizer steps after the first part: are optimizer.step() and the `return` inside the "
            "loop?": _first_part(lambda parts: 1 / parts, _divided),
            "the optimizer steps after the first part, whose whole loss is returned: are optimizer.step() "
            "and the `return` inside the loop?": _first_part(lambda parts: 1 / parts, _sum),
            "the optimizer steps after the first part, at full weight: are optimizer.step() and the "
            "`return` inside the loop?": _first_part(lambda parts: 1.0, _divided),
            "the optimizer steps after the first part, whose loss is not divided by the number of parts: "
            "are optimizer.step() and the `return` inside the loop?": _first_part(
                lambda parts: 1.0, _sum
            ),
            ONE_BACKWARD: _one_backward,
            TWO_GRAPHS: _stepped(retain=True),
            "the gradient is divided by the number of parts twice: divide it only once": _stepped(
                lambda parts: 1 / parts**2
            ),
            "the gradients of earlier steps are still there: call optimizer.zero_grad() first": _stepped(
                zero="never"
            ),
            "the weights never change: call optimizer.step() after the last part": _stepped(
                step="never"
            ),
            "optimizer.step() is called for each part: call it once, after the last": _stepped(
                step="each"
            ),
            "`parts` is ignored: all clips go through the model at once": _whole,
            "each part is masked by the rows of the first: take the same rows of clips and mask": (
                _first_masks
            ),
            "the returned loss is that of the last part: return the mean of all": _stepped(
                told=lambda losses, _: losses[-1]
            ),
            "the returned loss is only the last part's share of it: add up those of all parts": _stepped(
                told=lambda losses, parts: losses[-1] / parts
            ),
            "`parts` is taken for the number of clips in a part: divide the batch into `parts` equal "
            "parts": _of_equal_size,
            "the returned loss is the sum over the parts: return the mean": _stepped(told=_sum),
            "the returned loss is divided by the number of parts twice: divide it only once": _stepped(
                told=lambda losses, parts: sum(losses) / parts**2
            ),
        },
        draw=_draw_steps,
        inspect=_kept_graph,
        run=_steps,
    ),
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
            "all tokens are projected before the visible ones are selected, which saves no "
            "computation: select first": _selected_late,
        },
        draw=_draw_embed,
        run=_embedded,
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
        "09.evaluation_loss",
        evaluation_loss,
        _evaluation_cases,
        {
            "memory still grows with every batch: the total becomes a number only after the last one. "
            "Until then it is a tensor whose graph keeps the activations of every batch": _leaking(
                lambda loss: loss, torch.Tensor.item
            ),
            "this is the loss of the last batch only: add up all of them": _last_batch,
            "this is the sum: divide it by the number of batches": _sum_of_batches,
        },
        draw=_draw_evaluation,
        inspect=_kind_of_loss,
        run=_evaluated,
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
            "the steps of an epoch are rounded up: round them down with videos // batch, since the "
            "incomplete last batch is dropped": _warmup(
                lambda *given: given[6] * math.ceil(given[5] / given[1])
            ),
            "the warm-up is not a whole number of steps: an epoch has videos // batch": _warmup(
                lambda *given: given[6] * given[5] / given[1]
            ),
            "the warm-up counts `repeat`: an epoch shows each video once, so it has videos // batch "
            "steps": _warmup(lambda *given: given[6] * (given[5] * given[2] // given[1])),
        },
        draw=_draw_plan,
        tolerance=1e-8,
    ),
)  # fmt: skip
