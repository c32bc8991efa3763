"""Exercises of notebook 07: transfer, classifier, layer decay, its loop, mixup, drop path, views."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from vmae import ROOT
from vmae.config import ModelConfig
from vmae.course import viz
from vmae.course.checks.core import Exercise
from vmae.course.checks.modules import ModuleCase, module_exercise
from vmae.course.making import render
from vmae.data import MotionSpec, resize_frames
from vmae.grid import patchify
from vmae.init import init_linears
from vmae.layers import NORM_EPS, Block
from vmae.positions import build_pos_embed
from vmae.vit import PatchEmbed

# ---- reference solutions -------------------------------------------------------------------------


def transfer(classifier: list[str], file: list[str]) -> dict[str, str]:
    """Map each classifier tensor that the file's encoder also has: {own name: name in the file}.

    Source: `run_class_finetuning.py`, which strips "encoder." and loads whatever matches.
    """
    return {own: f"encoder.{own}" for own in classifier if f"encoder.{own}" in file}


class EncoderParts(nn.Module):
    """What a classifier keeps of pre-training: `patch_embed` and `blocks`, by their official names."""

    pos_embed: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.grid = config, config.grid
        self.patch_embed = PatchEmbed(config)
        table = build_pos_embed(config, config.embed_dim)  # (N, D)
        self.register_buffer("pos_embed", table, persistent=False)
        sizes = config.embed_dim, config.num_heads, config.mlp_ratio
        self.blocks = nn.ModuleList(Block(*sizes) for _ in range(config.depth))
        init_linears(self, partial(nn.init.trunc_normal_, std=0.02))


class Classifier(EncoderParts):
    """Encoder, mean pooling, `fc_norm` and `head`. Source: `modeling_finetune.py`."""

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__(config)
        self.fc_norm = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.head = nn.Linear(config.embed_dim, num_classes)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.mul_(HEAD_SCALE)

    def embedded(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (B, C, T, H, W), uint8 or in [0, 1], to the blocks' input (B, N, D)."""
        return self.patch_embed(patchify(clips, self.grid)) + self.pos_embed

    def encoded(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens after all blocks, (B, N, D)."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        """One vector per clip: (B, N, D) -> (B, D)."""
        return self.fc_norm(tokens.mean(1))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of clips (B, C, T, H, W)."""
        return self.head(self.pooled(self.encoded(self.embedded(clips))))


#: Factor on the initial weights of a head (`init_scale`).
HEAD_SCALE = 0.001


def fine_tune(
    model: Any,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    lr: float = 1e-3,
    decay: float = 1.0,
) -> list[float]:
    """Train a classifier on clips and targets (B, classes); the loss of every step."""
    return _trained(model, batches, steps, lr, decay)


def drop_path(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Drop the branches (B, N, D) of some clips, and scale up the others. Source: timm's `drop_path`."""
    if not training or rate == 0:
        return branch
    kept = torch.rand(len(branch), 1, 1) >= rate
    return branch * kept / (1 - rate)


def rate_scale(name: str, depth: int, decay: float) -> float:
    """The factor by which a classifier parameter's learning rate is scaled.

    decay^(depth + 1 - layer): the patch embedding is layer 0, block i is layer i + 1, everything
    else is layer depth + 1.
    Source: `optim_factory.py`.
    """
    layer = depth + 1
    if name.startswith("patch_embed"):
        layer = 0
    if name.startswith("blocks."):
        layer = int(name.split(".")[1]) + 1
    return decay ** (depth + 1 - layer)


def mix_batch(
    clips: torch.Tensor, labels: torch.Tensor, classes: int, share: float, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply mixup to clips (B, C, T, H, W) and labels (B,): mixed clips, and targets (B, classes).

    Clip i is mixed with clip B - 1 - i. Source: `mixup.py`.
    """
    soft = F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return share * clips + (1 - share) * clips.flip(0), share * soft + (1 - share) * soft.flip(0)


def mean_over_views(logits: torch.Tensor, videos: torch.Tensor) -> torch.Tensor:
    """Average probabilities over views: logits (views, classes), video indices (views,) -> (videos, classes).

    Source: `merge` in `engine_for_finetuning.py`.
    """
    shares = logits.softmax(1)
    return torch.stack([shares[videos == v].mean(0) for v in range(int(videos.max()) + 1)])


# ---- mistakes ----------------------------------------------------------------------------------


def _own_names_first(classifier: list[str], file: list[str]) -> dict[str, str]:
    return {theirs: own for own, theirs in transfer(classifier, file).items()}


def _last_norm(classifier: list[str], file: list[str]) -> dict[str, str]:
    norms = {f"fc_norm.{kind}": f"encoder.norm.{kind}" for kind in ("weight", "bias")}
    return transfer(classifier, file) | {k: v for k, v in norms.items() if k in classifier}


def _all_of_the_encoder(_: list[str], file: list[str]) -> dict[str, str]:
    return {x.removeprefix("encoder."): x for x in file if x.startswith("encoder.")}


def _by_ending(classifier: list[str], file: list[str]) -> dict[str, str]:
    ends = {name.split(".", 1)[-1]: name for name in file}  # the decoder's come last and win
    return {own: ends[own] for own in classifier if own in ends}


def _head_too(classifier: list[str], file: list[str]) -> dict[str, str]:
    heads = {own: own for own in classifier if own in file}
    return transfer(classifier, file) | heads


def _only_names(classifier: list[str], file: list[str]) -> list[str]:
    return list(transfer(classifier, file))


def _norm_as_a_layer(name: str, depth: int, decay: float) -> float:
    return decay if name.startswith("fc_norm") else rate_scale(name, depth, decay)


def _embedding_as_a_block(name: str, depth: int, decay: float) -> float:
    return rate_scale(name.replace("patch_embed", "blocks.0"), depth, decay)


def _scale(power: Callable[[int, int], int]) -> Callable[[str, int, float], float]:
    """The scale with the exponent power(layer, depth)."""

    def scale(name: str, depth: int, decay: float) -> float:
        layer = next(
            n for n in range(depth + 2) if rate_scale(name, depth, 0.5) == 0.5 ** (depth + 1 - n)
        )
        return decay ** power(layer, depth)

    return scale


def _one_digit(name: str, depth: int, decay: float) -> float:
    short = f"blocks.{name[7]}." if name.startswith("blocks.") else name
    return rate_scale(short, depth, decay)


def _linear(name: str, depth: int, decay: float) -> float:
    steps = round(torch.tensor(rate_scale(name, depth, 0.5)).log2().item())
    return 1 + steps * (1 - decay)


def _mixed(
    clips: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    share: float,
    smoothing: float,
    partner: Callable[[torch.Tensor], torch.Tensor] = lambda x: x.flip(0),
    swap: bool = False,
    only: str = "",
    others: int = 0,
    spread: int = 0,
    keep: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`mix_batch` with options for its mistakes."""
    kept = 1 - smoothing if keep is None else keep
    soft = F.one_hot(labels, classes) * kept + smoothing / (spread or classes - others)
    if others:
        soft = soft.clamp(max=kept)
    own = 1 - share if swap else share
    mixed = share * clips + (1 - share) * partner(clips)
    targets = own * soft + (1 - own) * partner(soft)
    return (clips if only == "targets" else mixed), (soft if only == "clips" else targets)


def _views(pick: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Apply `pick` to the logits of each video's views."""
    return lambda logits, videos: torch.stack(
        [pick(logits[videos == v]) for v in range(int(videos.max()) + 1)]
    )


def _by_appearance(logits: torch.Tensor, videos: torch.Tensor) -> torch.Tensor:
    order = list(dict.fromkeys(videos.tolist()))
    return mean_over_views(logits, videos)[order]


def _in_a_row(logits: torch.Tensor, videos: torch.Tensor) -> torch.Tensor:
    count = int(videos.max()) + 1
    return logits.softmax(1).unflatten(0, (count, -1)).mean(1)


class _NoPositions(Classifier):
    def embedded(self, clips: torch.Tensor) -> torch.Tensor:
        return self.patch_embed(patchify(clips, self.grid))


class _PositionsLate(Classifier):
    def embedded(self, clips: torch.Tensor) -> torch.Tensor:
        return self.patch_embed(patchify(clips, self.grid))

    def encoded(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().encoded(tokens) + self.pos_embed


class _NoBlocks(Classifier):
    def encoded(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens


class _OneBlock(Classifier):
    def encoded(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.blocks[-1](tokens)  # each block is given the same input


class _SecondResidual(Classifier):
    def encoded(self, tokens: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return tokens


class _FirstToken(Classifier):
    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc_norm(tokens[:, 0])


class _LastToken(Classifier):
    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc_norm(tokens[:, -1])


class _Largest(Classifier):
    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc_norm(tokens.amax(1))


class _OverTheWidth(Classifier):
    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc_norm(tokens.mean(2))  # fails unless there are as many tokens as channels


class _NormFirst(Classifier):
    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc_norm(tokens).mean(1)


class _NoNorm(Classifier):
    def pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(1)


class _WithSoftmax(Classifier):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return super().forward(clips).softmax(-1)


class _LargeHead(Classifier):
    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.head.reset_parameters()


HEAD_TOO_LARGE = (
    "the head's initial weights are too large: multiply them by 0.001, so that all classes begin with "
    "nearly the same probability"
)
HEAD_ALL_ZERO = (
    "the head's initial weights are all 0, so no gradient reaches the encoder in the first step: "
    "multiply them by 0.001 instead"
)

BIAS_TOO_LARGE = "the head's initial bias is too large: multiply it by 0.001, like the weight"
OTHER_EPS = "fc_norm has eps={0:g}: give it the eps of the card, 1e-6"


def _fresh(answer: Any) -> str | None:
    """What is wrong with a fresh model of a learner's class, whose structure is right."""
    torch.manual_seed(0)
    model = answer(ModelConfig.videomae("tiny"), 5)
    weight, bias, eps = model.head.weight, model.head.bias, model.fc_norm.eps
    if not weight.any():
        return HEAD_ALL_ZERO
    if weight.abs().max() > 0.01:
        return HEAD_TOO_LARGE
    if bias.abs().max() > 0.01:
        return BIAS_TOO_LARGE
    return OTHER_EPS.format(eps) if eps != NORM_EPS else None


class _LargeBias(Classifier):
    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.head.bias.data.div_(HEAD_SCALE)


class _OtherEps(Classifier):
    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.fc_norm = nn.LayerNorm(config.embed_dim)


class _ZeroHead(Classifier):
    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        nn.init.zeros_(self.head.weight)


def _schedule(step: int, steps: int, lr: float) -> float:
    """Warm-up over a tenth of the steps, and a cosine."""
    return _warmup(step, steps, lr) * _cosine(step, steps, 1.0)


def _warmup(step: int, steps: int, lr: float) -> float:
    return lr * min(1.0, (step + 1) / (0.1 * steps))


def _cosine(step: int, steps: int, lr: float) -> float:
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))


def _scaled(group: dict[str, Any], now: float) -> None:
    group["lr"] = now * group["scale"]


def _same(group: dict[str, Any], now: float) -> None:
    group["lr"] = now


def _shrinking(group: dict[str, Any], now: float) -> None:
    group["rate"] = group.get("rate", 1.0) * group["scale"]
    group["lr"] = now * group["rate"]


def _once(group: dict[str, Any]) -> None:
    """What the lines before the planted loop do: the scale is in `lr` before the first step."""
    if not group.setdefault("begun", False):
        group["lr"] *= group["scale"]
        group["begun"] = True


def _times_the_schedule(group: dict[str, Any], now: float) -> None:
    _once(group)
    group["lr"] *= now


def _times_the_scale(group: dict[str, Any], now: float) -> None:
    _once(group)
    group["lr"] *= group["scale"]


def _divided(group: dict[str, Any], now: float) -> None:
    group["lr"] = now / group["scale"]


def _trained(
    model: Any,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    lr: float,
    decay: float,
    set_lr: Callable[[dict[str, Any], float], None] = _scaled,
    zero: bool = True,
    update: bool = True,
    scales: Callable[[str, int, float], float] = rate_scale,
    schedule: Callable[[int, int, float], float] = _schedule,
    clip: bool = True,
) -> list[float]:
    """`fine_tune` with options for its mistakes."""
    groups = [
        {
            "params": [p],
            "scale": scales(name, len(model.blocks), decay),
            "weight_decay": 0.05 * (p.ndim > 1),
        }
        for name, p in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    model.train()
    losses = []
    for step, (clips, targets) in zip(range(steps), batches, strict=False):
        for group in optimizer.param_groups:
            set_lr(group, schedule(step, steps, lr))
        loss = F.cross_entropy(model(clips), targets)
        if zero:
            optimizer.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if update:
            optimizer.step()
        losses.append(loss.item())
    return losses


def _loop(**options: Any) -> Callable[..., list[float]]:
    """A training loop that makes a mistake."""

    def loop(
        model: Any, batches: Any, steps: int, lr: float = 1e-3, decay: float = 1.0
    ) -> list[float]:
        return _trained(model, batches, steps, lr, decay, **options)

    return loop


def _head_scaled_too(name: str, depth: int, decay: float) -> float:
    return decay * rate_scale(name, depth, decay)


# ---- the dropped branches, judged by what every correct function has in common --------------------


def _judge_drop(function: Callable[..., Any]) -> str | None:
    """What is wrong with a function that drops branches, or None."""
    g, rate = torch.Generator().manual_seed(0), 0.25
    x = torch.rand(96, 5, 7, generator=g) + 0.5
    torch.manual_seed(0)
    with suppress(Exception):  # a wrong result cannot always be drawn
        _draw_drop(function)
    given = x.clone()
    out = function(given, rate, True)
    if out is None:
        return "the result is None: is the `return` missing?"
    if not isinstance(out, torch.Tensor) or out.shape != x.shape:
        shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        return f"the result is {shape}; expected a tensor of shape {tuple(x.shape)}"
    if out.dtype != x.dtype:
        return f"the dtype is {out.dtype}; expected {x.dtype}"
    if not torch.equal(given, x):
        return IN_PLACE
    tested = function(x.clone(), rate, False)
    if not torch.allclose(tested, x):
        return SCALED_IN_THE_TEST if tested.all() else IN_THE_TEST
    draws = torch.stack([function(x.clone(), rate, True) / x for _ in range(60)])  # (60, B, N, D)
    if problem := _spread(draws) or _size(draws, rate):
        return problem
    if not torch.allclose(function(x.clone(), 0.0, True), x):
        return "with a rate of 0, branches change: nothing may be dropped then"
    return None


def _spread(draws: torch.Tensor) -> str | None:
    """Whether any branch is dropped, with a draw for each clip, and new draws in each call."""
    if draws.all():
        return NEVER_DROPPED
    clip = draws[:, :, :1, :1]
    if (draws - clip).abs().max() > 1e-4:
        tokens = (draws - draws[..., :1]).abs().max() <= 1e-4
        if (draws - draws[:, :1]).abs().max() <= 1e-4:
            return "all clips share one draw: draw once per clip, with a tensor of shape (B, 1, 1)"
        return TOKEN_BY_TOKEN if tokens else ONE_BY_ONE
    if (clip - clip[:, :1]).abs().max() <= 1e-4:
        return WHOLE_BATCH
    if all(torch.equal(draws[0], other) for other in draws[1:]):
        return SAME_DRAWS
    return None


def _size(draws: torch.Tensor, rate: float) -> str | None:
    """Whether branches are kept as often, and scaled as much, as they should be."""
    kept = draws[..., 0, 0] != 0
    share, scale = kept.double().mean().item(), draws[..., 0, 0][kept].mean().item()
    if abs(share - rate) < 0.05:
        return SWAPPED
    if abs(share - (1 - rate)) > 0.03:
        return f"{100 * share:.0f} % of the branches are kept; expected {100 * (1 - rate):.0f} %"
    if abs(scale - 1) < 1e-3:
        return UNSCALED
    if abs(scale - (1 - rate)) < 1e-3:
        return SHRUNK
    if abs(scale - 1 / rate) < 1e-3:
        return BY_RATE
    if abs(scale - 1 / (1 - rate)) > 1e-3:
        return f"the branches that are kept are multiplied by {scale:.3f}; expected {1 / (1 - rate):.3f}"
    return None


IN_PLACE = "it modifies its arguments in place: work on a copy, since the caller still needs them"
IN_THE_TEST = "branches are dropped in the test, too: return the branch unchanged unless `training`"
SCALED_IN_THE_TEST = (
    "branches are scaled in the test: return the branch unchanged unless `training`, since the scale in "
    "training keeps the mean"
)
NEVER_DROPPED = "no branch is ever dropped: draw for each clip whether to drop it"
TOKEN_BY_TOKEN = (
    "tokens are dropped one by one: a clip's whole branch is kept or dropped, so draw with the shape "
    "(B, 1, 1)"
)
ONE_BY_ONE = (
    "numbers are dropped one by one, as in dropout: a clip's whole branch is kept or dropped, so draw "
    "with the shape (B, 1, 1)"
)
WHOLE_BATCH = (
    "all clips of the batch are kept or dropped together: draw for each clip, with the shape "
    "(B, 1, 1)"
)
SAME_DRAWS = "every call drops the same clips: do not seed the generator inside"
SWAPPED = "branches are kept with probability `rate`: that is the probability to drop them"
UNSCALED = "the branches that are kept are not scaled, so the mean shrinks: divide them by 1 - rate"
SHRUNK = "the branches that are kept are multiplied by 1 - rate: divide by it instead"
BY_RATE = "the branches that are kept are divided by `rate`: divide by 1 - rate instead"


def _dropped(
    shape: Callable[[torch.Tensor], tuple[int, ...]] = lambda x: (len(x), 1, 1),
    keep: Callable[[float], float] = lambda rate: 1 - rate,
    scale: Callable[[float], float] = lambda rate: 1 / (1 - rate),
    always: bool = False,
    seeded: bool = False,
    test: float = 1.0,
) -> Callable[[torch.Tensor, float, bool], torch.Tensor]:
    """`drop_path` with options for its mistakes."""

    def drop(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
        if rate == 0 or not (training or always):
            return branch * test
        g = torch.Generator().manual_seed(0) if seeded else None
        kept = torch.rand(shape(branch), generator=g) < keep(rate)
        return branch * kept * scale(rate)

    return drop


def _in_place(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    if training and rate:
        branch *= (torch.rand(len(branch), 1, 1) >= rate) / (1 - rate)
    return branch


# ---- inputs and drawings -------------------------------------------------------------------------


def _names(depth: int, old_head: bool = False) -> tuple[list[str], list[str]]:
    """Tensor names of a classifier and of a pre-training file, a few of each kind."""
    block = [
        f"{part}.{kind}" for part in ("norm1", "attn.qkv", "mlp.fc1") for kind in ("weight", "bias")
    ]
    blocks = [f"blocks.{i}.{x}" for i in range(depth) for x in block]
    embed = ["patch_embed.proj.weight", "patch_embed.proj.bias"]
    ends = {x: [f"{x}.weight", f"{x}.bias"] for x in ("norm", "fc_norm", "head")}
    file = ["mask_token", "encoder_to_decoder.weight"]
    file += [f"encoder.{x}" for x in embed + blocks + ends["norm"]]
    file += [f"decoder.{x}" for x in blocks[: len(block)] + ends["norm"] + ends["head"]]
    return embed + blocks + ends["fc_norm"] + ends["head"], file + ends["head"] * old_head


def _transfer_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    return [_names(2), _names(3, old_head=True)]


def _rate_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    names = [
        "head.weight", "patch_embed.proj.bias", "blocks.0.norm1.weight",
        "blocks.3.attn.qkv.weight", "blocks.10.mlp.fc2.weight", "fc_norm.bias",
    ]  # fmt: skip
    return [(name, depth, decay) for depth, decay in ((12, 0.75), (24, 0.9)) for name in names]


def _classifier_cases(g: torch.Generator) -> list[ModuleCase]:
    """Rendered clips for a model of their size; then another on a grid with three different sides."""
    tiny = ModelConfig.videomae("tiny")
    frames = [
        resize_frames(render(MotionSpec("textures"), "test", i)[0], tiny.img_size) for i in (3, 5)
    ]
    clips = torch.stack([torch.from_numpy(x.copy()).permute(3, 0, 1, 2) for x in frames])
    other = tiny.replace(num_frames=6, img_size=20, embed_dim=24, num_heads=2, depth=1)
    noise = torch.rand(3, 3, *other.grid.clip, generator=g)
    return [
        ({"config": tiny, "num_classes": 8}, (clips,)),
        ({"config": other, "num_classes": 5}, (noise,)),
    ]


#: Of the check of the loop: steps, layer decay, classes.
_STEPS, _DECAY, _CLASSES = 12, 0.4, 5


def _loop_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    """Depth and size of a classifier, and batches of clips with soft targets.

    One batch has a single class: its gradient is large, so clipping matters.
    """
    config = ModelConfig.videomae("tiny", depth=3, embed_dim=24, num_heads=2, num_frames=4)
    batches = [
        (
            torch.rand(6, 3, *config.grid.clip, generator=g),
            torch.rand(6, _CLASSES, generator=g).softmax(1),
        )
        for _ in range(_STEPS + 3)
    ]
    batches[3] = batches[3][0], F.one_hot(torch.zeros(6, dtype=torch.long), _CLASSES).float()
    return [(config, batches)]


def _run_loop(
    answer: Callable[..., Any], config: ModelConfig, batches: list[Any]
) -> dict[str, Any]:
    """The losses, how far each layer has moved, in percent of the head, and how far the head has."""
    torch.manual_seed(0)
    model = Classifier(config, _CLASSES)
    nn.init.normal_(model.head.weight, std=0.1)  # otherwise the first steps leave the encoder alone
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = answer(model, iter(batches), _STEPS, lr=2e-3, decay=_DECAY)  # not its default
    moved: dict[int, list[float]] = {}
    for name, p in model.named_parameters():
        if p.ndim > 1:
            layer = round(math.log(rate_scale(name, 3, 0.5), 0.5))
            moved.setdefault(4 - layer, []).append((p - before[name]).abs().mean().item())
    means = [float(np.mean(moved[layer])) for layer in sorted(moved)]
    if isinstance(losses, list | tuple) and len(losses) == _STEPS:
        losses = [float(x) if isinstance(x, torch.Tensor) else x for x in losses]
    moves = {
        f"how far layer {i} moves, in % of the head": 100 * x / (means[-1] or 1)
        for i, x in enumerate(means)
    }
    return {"the losses": losses} | moves | {"how far the head moves": 1000 * means[-1]}


def _draw_loop(result: dict[str, Any], *_: Any) -> None:
    yours = [value for name, value in result.items() if "% of the head" in name]
    right = [100 * _DECAY ** (4 - layer) for layer in range(5)]
    viz.lines(
        range(5),
        {"your loop": yours, f"layer decay {_DECAY}": right},
        "How far each layer moves in your loop, from the patch embedding to the head, beside the share "
        "of the head's learning rate that layer decay gives it.",
        xlabel="layer: 0 the patch embedding, 1 to 3 the blocks, 4 the head",
        ylabel="how far it moves, % of the head",
    )


def _draw_drop(function: Callable[..., Any]) -> None:
    rates = [0.5 * block / 11 for block in range(12)]
    rows = [function(torch.ones(32, 2, 3), rate, True)[:, 0, 0] for rate in rates]
    viz.pictures(
        {"your function: rows are 12 blocks, columns 32 clips; dark: dropped": torch.stack(rows)},
        "A matrix with a row for each of 12 blocks, whose rates rise from 0 to 0.5, and a column for each "
        "of 32 clips: dark where the branch is dropped.",
        height=1.8,
        cmap="gray",
        limits=(0, None),
    )


def _photo(name: str, rows: int, columns: int) -> torch.Tensor:
    """A photo that ships, (3, rows, columns) in [0, 1]."""
    image = Image.open(ROOT / "data" / "photos" / f"{name}.jpg").convert("RGB")
    pixels = np.asarray(image.resize((columns, rows), Image.Resampling.BOX)).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def _mix_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    """Two-frame clips of photos, the second frame shifted; then noise."""
    stills = [_photo(name, 60, 80) for name in ("cat", "astronaut", "coffee", "rocket")]
    photos = torch.stack([torch.stack((x, x.roll(4, 2)), 1) for x in stills])  # (4, 3, 2, 60, 80)
    noise = torch.rand(4, 3, 2, 6, 8, generator=g)
    return [
        (photos, torch.tensor([0, 3, 1, 2]), 5, 0.7, 0.1),
        (noise, torch.tensor([2, 0, 2, 1]), 3, 0.2, 0.3),
    ]


def _view_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    first = 3 * torch.randn(9, 5, generator=g)
    second = 3 * torch.randn(8, 4, generator=g)
    return [
        (first, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])),
        (second, torch.tensor([1, 1, 0, 0, 1, 0, 1, 0])),
    ]


def _draw_transfer(result: dict[str, str], classifier: list[str], file: list[str]) -> None:
    taken = torch.tensor(
        [[float(result.get(own) == theirs) for theirs in file] for own in classifier]
    )
    viz.pictures(
        {"rows: classifier tensors; columns: file tensors": taken},
        "A matrix with one row per classifier tensor and one column per tensor in the file; the "
        "pairs that you transfer are lit.",
        height=1.2,
    )


def _draw_rate(result: float, name: str, depth: int, decay: float) -> None:
    right = [decay ** (depth + 1 - layer) for layer in range(depth + 2)]
    rows = torch.tensor([right, [result] * (depth + 2)])
    viz.pictures(
        {f"top: scale of each layer; bottom: your scale for {name}, {result:.4f}": rows},
        "Two rows of colour: the learning-rate scale of each layer from first to last, and your scale.",
        height=0.5,
        limits=(0, 1),
    )


def _draw_mix(result: tuple[torch.Tensor, torch.Tensor], clips: torch.Tensor, *_: Any) -> None:
    viz.pictures(
        {
            "clip": clips[0, :, 0],
            "partner": clips[-1, :, 0],
            "your mix": result[0][0, :, 0],
            "your targets": result[1],
        },
        "A cat, its partner a rocket, your mix of the two, and your targets, one row per clip.",
        height=1.3,
    )


def _draw_classifier(output: torch.Tensor, arguments: dict[str, Any], inputs: Any) -> None:
    clips = inputs[0]
    shown = {f"clip {i}": x[:, 0] for i, x in enumerate(clips)}
    viz.pictures(
        shown | {"your logits, one row per clip": output},
        "The first frames of two clips with photo textures, and the logits of your classifier, which has "
        "random weights: a row for each clip, a column for each of eight classes.",
        height=1.3,
    )


def _draw_views(result: torch.Tensor, logits: torch.Tensor, _: torch.Tensor) -> None:
    viz.pictures(
        {"every view": logits.softmax(1), "your mean": result},
        "Two matrices of probabilities with one column per class: the first has one row per "
        "view, the second one row per video.",
        height=1.1,
        limits=(0, 1),
    )


_CLASSIFIER = module_exercise(
    "07.Classifier",
    Classifier,
    _classifier_cases,
    {
        "the positions are not used: add self.pos_embed to the tokens, before the blocks": _NoPositions,
        "the positions are added after the blocks: they belong to the blocks' input": _PositionsLate,
        "the blocks are not used: send the tokens through each of them, `x = block(x)`": _NoBlocks,
        "only the last block counts: each block must be given what the one before it returned": (
            _OneBlock
        ),
        "a block's input is added to its output, which holds it already: `x = block(x)`": (
            _SecondResidual
        ),
        "only the first token is classified: VideoMAE has no class token, so token 0 is one corner "
        "tubelet. Average all tokens": _FirstToken,
        "only the last token is classified: average all tokens": _LastToken,
        "the largest value over the tokens is taken: take their mean": _Largest,
        "the mean is taken over the width: average over the tokens, axis 1": _OverTheWidth,
        "fc_norm is applied to each token: average first, then normalise the mean": _NormFirst,
        "fc_norm is not used: normalise the mean before the head": _NoNorm,
        "the result is a softmax: return the logits, since cross_entropy applies it": _WithSoftmax,
        HEAD_TOO_LARGE: _LargeHead,
        HEAD_ALL_ZERO: _ZeroHead,
        BIAS_TOO_LARGE: _LargeBias,
        OTHER_EPS.format(1e-5): _OtherEps,
    },
    draw=_draw_classifier,
    inspect=_fresh,
    renamed={"norm": "fc_norm", "fc": "head", "classifier": "head", "linear": "head"},
)

EXERCISES = (
    Exercise(
        "07.transfer",
        transfer,
        _transfer_cases,
        {
            "the dictionary is inverted: use the classifier's names as keys and the file's "
            "names as values": (_own_names_first),
            "fc_norm is loaded from the encoder's norm, which was trained on individual "
            "tokens: keep fc_norm's initial values, as in the published code": _last_norm,
            "the dictionary includes tensors that the classifier does not have, e.g. "
            "encoder.norm: iterate over the classifier's names": _all_of_the_encoder,
            "only names are returned: return a dictionary, {the classifier's name: the file's name}": (
                _only_names
            ),
            "some tensors come from the decoder: use only names that start with `encoder.`": _by_ending,
            "the file's head is loaded, although it was trained on other classes: keep the "
            "classifier head's initial values": _head_too,
            "nothing is transferred: add the `encoder.` prefix when looking up each name, "
            "because the names in the file have it": lambda own, file: {
                name: name for name in own if name in file and not name.startswith("head.")
            },
        },
        draw=_draw_transfer,
    ),
    _CLASSIFIER,
    Exercise(
        "07.rate_scale",
        rate_scale,
        _rate_cases,
        {
            "the patch embedding gets the full learning rate: treat it as layer 0, which gets "
            "the smallest scale": (
                lambda name, depth, decay: rate_scale(
                    name.replace("patch_embed", "head"), depth, decay
                )
            ),
            "block i is treated as layer i: treat it as layer i + 1, since the patch "
            "embedding is layer 0": _scale(
                lambda layer, depth: depth + 1 - max(0, layer - (0 < layer <= depth))
            ),
            "only one digit of the block number is read: read all digits up to the next dot": _one_digit,
            "the learning rate decreases by a constant amount per layer: multiply it by "
            "`decay` per layer instead": _linear,
            "the first layers get the largest scale: use the exponent depth + 1 - layer, so "
            "that they get the smallest": (_scale(lambda layer, _: layer)),
            "the patch embedding gets the scale of block 0: its exponent is one larger, depth + 1": (
                _embedding_as_a_block
            ),
            "fc_norm is treated as a layer of its own: it is in the same layer as the head, with a scale of "
            "1": _norm_as_a_layer,
            "the exponent is one too small: use depth + 1 - layer, which is 0 for the head": _scale(
                lambda layer, depth: depth - layer
            ),
            "the exponent is one too large: use depth + 1 - layer, which is 0 for the head": _scale(
                lambda layer, depth: depth + 2 - layer
            ),
        },
        draw=_draw_rate,
    ),
    Exercise(
        "07.mix_batch",
        mix_batch,
        _mix_cases,
        {
            "only the clips are mixed: mix the targets too, since a clip that is 70 % cat "
            "needs a target that is 70 % cat": (partial(_mixed, only="clips")),
            "only the targets are mixed: mix the clips too": partial(_mixed, only="targets"),
            "the target weights are swapped: weight each clip's own target by `share`": (
                partial(_mixed, swap=True)
            ),
            "each clip is mixed with the next one: mix the batch with its reverse, flip(0), "
            "as in the published code": partial(_mixed, partner=lambda x: x.roll(-1, 0)),
            "each clip is mixed with the one before it: mix the batch with its reverse, flip(0), "
            "as in the published code": partial(_mixed, partner=lambda x: x.roll(1, 0)),
            "all of `smoothing` is added to every class: divide it by the number of classes first": (
                partial(_mixed, spread=1)
            ),
            "the labels are not smoothed: apply `smoothing` to the one-hot labels": (
                lambda clips, labels, classes, share, _: mix_batch(
                    clips, labels, classes, share, 0.0
                )
            ),
            "smoothing is applied only to the other classes: add smoothing / classes to every "
            "class, including the correct one, as in the published code": partial(_mixed, others=1),
            "the targets sum to more than 1: scale the one-hot labels by 1 - smoothing before "
            "adding smoothing / classes": (partial(_mixed, keep=1.0)),
            "the labels are mixed as class indices: convert them to one-hot vectors before "
            "mixing": (
                lambda clips, labels, classes, share, smoothing: (
                    mix_batch(clips, labels, classes, share, smoothing)[0],
                    mix_batch(
                        clips,
                        (share * labels + (1 - share) * labels.flip(0)).long(),
                        classes,
                        1.0,
                        smoothing,
                    )[1],
                )
            ),
        },
        draw=_draw_mix,
    ),
    Exercise(
        "07.fine_tune",
        fine_tune,
        _loop_cases,
        {
            "every layer moves at the head's rate: follow a group's `lr` from the lines that scale it to "
            "optimizer.step()": _loop(set_lr=_same),
            "the learning rate is multiplied by the schedule's in every step, so it vanishes: compute it "
            "afresh, from the schedule and the scale": _loop(set_lr=_times_the_schedule),
            "the scale is multiplied in at every step, and the schedule is lost: compute each rate from the "
            "schedule's, which does not contain the scale": _loop(set_lr=_times_the_scale),
            "the scale is multiplied in at every step, so the early layers soon stop: compute each rate "
            "from the schedule's, which does not contain the scale": _loop(set_lr=_shrinking),
            "early layers learn faster than the head: multiply by the scale, do not divide": _loop(
                set_lr=_divided
            ),
            "warm-up and cosine are lost: multiply the schedule's rate of this step by the scale": (
                _loop(schedule=lambda step, steps, lr: lr)
            ),
            "the warm-up is missing: let the learning rate rise over the first tenth of the steps": (
                _loop(schedule=_cosine)
            ),
            "the cosine is missing: let the learning rate fall to 0 as half a cosine": _loop(
                schedule=_warmup
            ),
            "`lr` is ignored: it is the head's learning rate at the peak of the schedule": _loop(
                schedule=lambda step, steps, lr: _schedule(step, steps, 1e-3)
            ),
            "gradients are not clipped: call clip_grad_norm_ between backward and the step": _loop(
                clip=False
            ),
            "the gradients of all steps add up: call optimizer.zero_grad() before backward": _loop(
                zero=False
            ),
            "no weight changes: call optimizer.step() after backward": _loop(update=False),
            "the head is slowed down, too: its scale is 1": _loop(scales=_head_scaled_too),
        },
        draw=_draw_loop,
        run=_run_loop,
        tolerance=2e-3,
    ),
    Exercise(
        "07.drop_path",
        drop_path,
        mistakes={
            IN_THE_TEST: _dropped(always=True),
            SCALED_IN_THE_TEST: _dropped(test=0.75),
            NEVER_DROPPED: _dropped(keep=lambda rate: 1.0),
            ONE_BY_ONE: _dropped(shape=lambda x: tuple(x.shape)),
            TOKEN_BY_TOKEN: _dropped(shape=lambda x: (*x.shape[:2], 1)),
            WHOLE_BATCH: _dropped(shape=lambda x: (1, 1, 1)),
            SWAPPED: _dropped(keep=lambda rate: rate),
            UNSCALED: _dropped(scale=lambda rate: 1.0),
            SHRUNK: _dropped(scale=lambda rate: 1 - rate),
            BY_RATE: _dropped(scale=lambda rate: 1 / rate),
            SAME_DRAWS: _dropped(seeded=True),
            IN_PLACE: _in_place,
        },
        judge=_judge_drop,
    ),
    Exercise(
        "07.mean_over_views",
        mean_over_views,
        _view_cases,
        {
            "the logits are averaged: apply the softmax to each view first, then average the "
            "probabilities": _views(lambda x: x.mean(0)),
            "the softmax is applied to the averaged logits: apply it to each view first, then "
            "average the probabilities, as in the published code": _views(
                lambda x: x.mean(0).softmax(0)
            ),
            "the probabilities are summed: average them instead, so that each row sums to 1": _views(
                lambda x: x.softmax(1).sum(0)
            ),
            "the views of each video are assumed to be consecutive: group them by `videos`, "
            "since they can be in any order": _in_a_row,
            "each view votes for its most likely class: average the probabilities instead, "
            "since they also reflect each view's confidence": _views(
                lambda x: F.one_hot(x.argmax(1), x.shape[1]).float().mean(0)
            ),
            "the softmax is taken over the views: take it over the classes, the last axis": (
                lambda logits, videos: torch.stack(
                    [logits.softmax(0)[videos == v].mean(0) for v in range(int(videos.max()) + 1)]
                )
            ),
            "the rows are in the order in which the videos first appear: row v belongs to video v": (
                _by_appearance
            ),
            "only one view of each video is used: average over all its views": (
                _views(lambda x: x.softmax(1)[0])
            ),
        },
        draw=_draw_views,
    ),
)
