"""Exercises of notebook 07: the transfer, rates by layer, mixing, the mean over views."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from vmae import viz
from vmae.course.checks.core import Exercise

# ---- the right answers -------------------------------------------------------------------------


def transfer(classifier: list[str], file: list[str]) -> dict[str, str]:
    """For each tensor of the classifier that the file has in its encoder: {own name: name in the file}.

    Source: `run_class_finetuning.py`, which strips "encoder." and loads what fits.
    """
    return {own: f"encoder.{own}" for own in classifier if f"encoder.{own}" in file}


def rate_scale(name: str, depth: int, decay: float) -> float:
    """The share of the rate that a parameter of a classifier learns with.

    decay^(depth + 1 - layer); layer 0 is the patch embedding, i + 1 block i, depth + 1 the rest.
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
    """Mixup of clips (B, C, T, H, W) and labels (B,): mixed clips, and targets (B, classes).

    The partner of clip i is clip B - 1 - i. Source: `mixup.py`.
    """
    soft = F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return share * clips + (1 - share) * clips.flip(0), share * soft + (1 - share) * soft.flip(0)


def mean_over_views(logits: torch.Tensor, videos: torch.Tensor) -> torch.Tensor:
    """Logits (views, classes) of videos numbered (views,): mean probabilities (videos, classes).

    Source: `merge` in `engine_for_finetuning.py`.
    """
    shares = logits.softmax(1)
    return torch.stack([shares[videos == v].mean(0) for v in range(int(videos.max()) + 1)])


# ---- wrong ones --------------------------------------------------------------------------------


def _own_names_first(classifier: list[str], file: list[str]) -> dict[str, str]:
    return {theirs: own for own, theirs in transfer(classifier, file).items()}


def _last_norm(classifier: list[str], file: list[str]) -> dict[str, str]:
    norms = {f"fc_norm.{kind}": f"encoder.norm.{kind}" for kind in ("weight", "bias")}
    return transfer(classifier, file) | {k: v for k, v in norms.items() if k in classifier}


def _all_of_the_encoder(_: list[str], file: list[str]) -> dict[str, str]:
    return {x.removeprefix("encoder."): x for x in file if x.startswith("encoder.")}


def _by_ending(classifier: list[str], file: list[str]) -> dict[str, str]:
    ends = {name.split(".", 1)[-1]: name for name in file}  # the decoder's come last
    return {own: ends[own] for own in classifier if own in ends}


def _head_too(classifier: list[str], file: list[str]) -> dict[str, str]:
    heads = {own: own for own in classifier if own in file}
    return transfer(classifier, file) | heads


def _scale(power: Callable[[int, int], int]) -> Callable[[str, int, float], float]:
    """The rate where the exponent is `power` of the layer and the depth."""

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
    keep: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`mix_batch`, and what may be wrong in it."""
    kept = 1 - smoothing if keep is None else keep
    soft = F.one_hot(labels, classes) * kept + smoothing / (classes - others)
    if others:
        soft = soft.clamp(max=kept)
    own = 1 - share if swap else share
    mixed = share * clips + (1 - share) * partner(clips)
    targets = own * soft + (1 - own) * partner(soft)
    return (clips if only == "targets" else mixed), (soft if only == "clips" else targets)


def _views(pick: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`pick` of the logits of each video's views."""
    return lambda logits, videos: torch.stack(
        [pick(logits[videos == v]) for v in range(int(videos.max()) + 1)]
    )


def _in_a_row(logits: torch.Tensor, videos: torch.Tensor) -> torch.Tensor:
    count = int(videos.max()) + 1
    return logits.softmax(1).unflatten(0, (count, -1)).mean(1)


# ---- inputs and drawings -------------------------------------------------------------------------


def _names(depth: int, old_head: bool = False) -> tuple[list[str], list[str]]:
    """Names of a classifier and of a pre-training file, a few of each kind."""
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


def _mix_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases: list[tuple[Any, ...]] = []
    for labels, classes, share, smoothing in (
        ([0, 3, 1, 2], 5, 0.7, 0.1),
        ([2, 0, 2, 1], 3, 0.2, 0.3),
    ):
        clips = torch.rand(4, 3, 2, 6, 8, generator=g)
        cases.append((clips, torch.tensor(labels), classes, share, smoothing))
    return cases


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
        {"rows: the classifier's tensors, columns: the file's": taken},
        "A matrix, a row for each tensor of the classifier, a column for each of the file; what you "
        "bring over is lit.",
        height=1.2,
    )


def _draw_rate(result: float, name: str, depth: int, decay: float) -> None:
    right = [decay ** (depth + 1 - layer) for layer in range(depth + 2)]
    rows = torch.tensor([right, [result] * (depth + 2)])
    viz.pictures(
        {f"rates by layer; below, yours for {name}: {result:.4f}": rows},
        "Two rows of colour: the share of the rate of every layer from first to last, and yours.",
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
        "A clip, its partner and your mix of both; and your targets, a row for each clip.",
        height=1.1,
    )


def _draw_views(result: torch.Tensor, logits: torch.Tensor, _: torch.Tensor) -> None:
    viz.pictures(
        {"every view": logits.softmax(1), "your mean": result},
        "Two matrices of probabilities, a column for each class: a row for each view, and a row for "
        "each video.",
        height=1.1,
        limits=(0, 1),
    )


EXERCISES = (
    Exercise(
        "07.transfer",
        transfer,
        _transfer_cases,
        {
            "the dictionary is turned round: the classifier's name is the key, the file's name the "
            "value": _own_names_first,
            "fc_norm gets the encoder's norm: that one was trained on single tokens. Published code "
            "drops it and starts fc_norm afresh": _last_norm,
            "you bring over tensors that the classifier does not have, such as encoder.norm: go "
            "through the classifier's names": _all_of_the_encoder,
            "some of yours come from the decoder: take names that begin with encoder. only": (
                _by_ending
            ),
            "the head of the file is taken: it names other classes. Start the head afresh": _head_too,
            "nothing is brought over: the file writes encoder. before each name": lambda own, file: {
                name: name for name in own if name in file and not name.startswith("head.")
            },
        },
        draw=_draw_transfer,
    ),
    Exercise(
        "07.rate_scale",
        rate_scale,
        _rate_cases,
        {
            "the patch embedding has the whole rate: it is layer 0, the slowest": (
                lambda name, depth, decay: rate_scale(
                    name.replace("patch_embed", "head"), depth, decay
                )
            ),
            "block i counts as layer i: layer 0 is the patch embedding, block i is i + 1": _scale(
                lambda layer, depth: depth + 1 - max(0, layer - (0 < layer <= depth))
            ),
            "you read one digit of the block's number: take all up to the next point": _one_digit,
            "the rate falls by the same amount a layer: multiply by decay instead": _linear,
            "the first layers learn fastest: the exponent falls with the layer, depth + 1 - layer": (
                _scale(lambda layer, _: layer)
            ),
            "one too few: the head is layer depth + 1, and it has the whole rate": _scale(
                lambda layer, depth: depth - layer
            ),
            "one too many: the head has the whole rate, so its exponent is 0": _scale(
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
            "the targets are not mixed: a clip that is 70 % cat is a 70 % cat in its target too": (
                partial(_mixed, only="clips")
            ),
            "the clips are not mixed, only their targets are": partial(_mixed, only="targets"),
            "the shares of the targets are swapped: `share` is the clip's own": (
                partial(_mixed, swap=True)
            ),
            "the partner is the next clip: published is the batch in reverse order, flip(0)": (
                partial(_mixed, partner=lambda x: x.roll(-1, 0))
            ),
            "labels are not smoothed": lambda clips, labels, classes, share, _: mix_batch(
                clips, labels, classes, share, 0.0
            ),
            "smoothing goes to the other classes only: published, all classes get smoothing / "
            "classes, the right one too": partial(_mixed, others=1),
            "a target sums to more than 1: the right class has to give up the smoothing": (
                partial(_mixed, keep=1.0)
            ),
            "labels are mixed first as numbers: make them one-hot, then mix": (
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
        "07.mean_over_views",
        mean_over_views,
        _view_cases,
        {
            "logits are averaged: take the softmax of each view first, then the mean": _views(
                lambda x: x.mean(0)
            ),
            "the softmax comes after the mean: published code takes it of each view first": _views(
                lambda x: x.mean(0).softmax(0)
            ),
            "probabilities are summed: take the mean, so that each row sums to 1": _views(
                lambda x: x.softmax(1).sum(0)
            ),
            "views count as if those of a video lay in a row: their order is any, `videos` tells "
            "whose they are": _in_a_row,
            "views vote for their best class: average probabilities, which also say how sure a view "
            "is": _views(lambda x: F.one_hot(x.argmax(1), x.shape[1]).float().mean(0)),
            "the softmax runs over the views: over the classes, the last axis": (
                lambda logits, videos: torch.stack(
                    [logits.softmax(0)[videos == v].mean(0) for v in range(int(videos.max()) + 1)]
                )
            ),
            "only one view of each video is used": _views(lambda x: x.softmax(1)[0]),
        },
        draw=_draw_views,
    ),
)
