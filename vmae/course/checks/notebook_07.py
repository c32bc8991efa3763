"""Exercises of notebook 07: weight transfer, layer-wise learning rates, mixup, multi-view testing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from vmae.course import viz
from vmae.course.checks.core import Exercise

# ---- reference solutions -------------------------------------------------------------------------


def transfer(classifier: list[str], file: list[str]) -> dict[str, str]:
    """Map each classifier tensor that the file's encoder also has: {own name: name in the file}.

    Source: `run_class_finetuning.py`, which strips "encoder." and loads whatever matches.
    """
    return {own: f"encoder.{own}" for own in classifier if f"encoder.{own}" in file}


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
    keep: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`mix_batch` with options for its mistakes."""
    kept = 1 - smoothing if keep is None else keep
    soft = F.one_hot(labels, classes) * kept + smoothing / (classes - others)
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


def _in_a_row(logits: torch.Tensor, videos: torch.Tensor) -> torch.Tensor:
    count = int(videos.max()) + 1
    return logits.softmax(1).unflatten(0, (count, -1)).mean(1)


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
        "A clip, its partner, your mix of the two, and your targets, one row per clip.",
        height=1.1,
    )


def _draw_views(result: torch.Tensor, logits: torch.Tensor, _: torch.Tensor) -> None:
    viz.pictures(
        {"every view": logits.softmax(1), "your mean": result},
        "Two matrices of probabilities with one column per class: the first has one row per "
        "view, the second one row per video.",
        height=1.1,
        limits=(0, 1),
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
            "only one view of each video is used: average over all its views": (
                _views(lambda x: x.softmax(1)[0])
            ),
        },
        draw=_draw_views,
    ),
)
