"""What model a checkpoint is: from its shapes, from config.json beside it, from its arguments.

Heads are in no shape, and frames and size in none of VideoMAE's files, since its positions are
computed and not stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.layers import NORM_EPS
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.files import WeightFile
from vmae.weights.names import State, table_of

#: Heads of the published sizes, by width. Any other width gets heads of 64 dimensions.
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
DECODER_HEADS = {"videomae": {192: 3, 384: 6, 512: 8, 640: 8}, "mae": {512: 16}}

# What transformers takes a field to be that config.json leaves out.
_HF_DEFAULTS: dict[str, Any] = {
    "image_size": 224, "num_frames": 16, "num_attention_heads": 12, "decoder_hidden_size": 384,
    "decoder_num_hidden_layers": 4, "decoder_num_attention_heads": 6, "norm_pix_loss": True,
}  # fmt: skip
_HF_MAE_DEFAULTS: dict[str, Any] = {
    **_HF_DEFAULTS, "num_frames": 1, "decoder_hidden_size": 512, "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16, "norm_pix_loss": False,
}  # fmt: skip
HF_DEFAULTS = {"videomae": _HF_DEFAULTS, "vit_mae": _HF_MAE_DEFAULTS, "vit": _HF_MAE_DEFAULTS}


def config_of(file: WeightFile, **asked: int | None) -> ModelConfig:
    """The configuration of a file's model, with its stored position tables checked against it."""
    given = {name: value for name, value in asked.items() if value is not None}
    hf = file.hf.get("model_type") in HF_DEFAULTS
    guessed: list[str] = []
    try:
        if file.config is not None:
            config = file.config.replace(**given)
        else:
            hints = _hints_from_arguments(file.arguments)
            if hf:
                hints |= hints_from_hf(file.hf)
            config, guessed = infer_config(file.state | file.tables, hints | given)
    except KeyError as error:
        first = ", ".join(list(file.names.values())[:6])
        raise CheckpointError(
            f"{file.path} is no VideoMAE or MAE known here: it has nothing that is {error.args[0]}. "
            f"Its names begin with {first}"
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"{file.path}: {error}. Where the file does not tell, give num_frames=, img_size=, num_heads=, "
            "decoder_num_heads="
        ) from None
    if guessed:
        warn(f"{file.path} does not tell {' and '.join(guessed)}: give them if that is wrong")
    published = HEADS.get(config.embed_dim, config.num_heads)
    if hf and "num_heads" not in given and config.num_heads != published:
        warn(
            f"{file.path}: config.json says {config.num_heads} heads at width {config.embed_dim}, where the "
            f"published model has {published} (transformers' converter wrote 16 for VideoMAE-small): "
            f"give heads={published} if the weights are official"
        )
    for name, table in file.tables.items():
        _check_table(file, name, table, table_of(config, name))
    return config


def _hints_from_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the argparse.Namespace in an official file says: V1 and V2 run_*.py, MAE main_*.py."""
    hints: dict[str, Any] = {}
    for theirs, ours, kind in (
        ("num_frames", "num_frames", int),
        ("input_size", "img_size", int),
        ("normlize_target", "normalize_targets", bool),  # as VideoMAE spells it
        ("norm_pix_loss", "normalize_targets", bool),
    ):
        if type(arguments.get(theirs)) is kind:
            hints[ours] = arguments[theirs]
    return hints


def _check_table(file: WeightFile, name: str, stored: torch.Tensor, ours: torch.Tensor) -> None:
    """Stored positions are not loaded, so they must be the fixed ones that are computed here."""
    where = f"{file.path}: {file.names[name]}"
    if stored.numel() != ours.numel():
        raise CheckpointError(
            f"{where} is of shape {tuple(stored.shape)}, and the model's table {tuple(ours.shape)}: "
            "give the frames= and size= it was trained with, or for another clip also interpolate=True"
        )
    if not stored.any():
        raise CheckpointError(
            f"{where} is all zero: transformers leaves ViTMAE's positions so when it builds a model "
            "from scratch, and such a model has learned without positions"
        )
    off = (stored.reshape(ours.shape).float() - ours).abs().max().item()
    if not off <= (1e-5 if stored.dtype == torch.float32 else 1e-2):
        raise CheckpointError(
            f"{where} differs from the fixed sin-cos table by up to {off:.2g}: learned positions "
            "(MAE's fine-tuning trains them) have no place in the models here"
        )


def infer_config(state: State, hints: Mapping[str, Any]) -> tuple[ModelConfig, list[str]]:
    """The model whose parameters, under our names, have these shapes; and what had to be guessed.

    hints: fields of ModelConfig that shapes do not tell (num_frames, img_size, num_heads, decoder_num_heads,
    normalize_targets); where a file has no decoder, also its width and depth.
    Raises ValueError where the shapes are of no model here, KeyError where the name is missing.
    """
    kernel = state["encoder.patch_embed.proj.weight"].shape
    if len(kernel) != 5:
        raise ValueError(f"the patch embedding is of shape {tuple(kernel)}, no 2-D or 3-D kernel")
    width, channels, *tubelet = kernel
    sizes = [(width, len(state["encoder.blocks.0.mlp.fc1.weight"]))]
    family: Literal["mae", "videomae"] = "mae" if "encoder.cls_token" in state else "videomae"
    values = dict(hints)
    if "encoder.blocks.0.temporal_attn.qkv.weight" in state:
        values["attention"] = "divided"
    if "decoder.blocks.0.mlp.fc1.weight" in state:
        hidden, decoder_width = state["decoder.blocks.0.mlp.fc1.weight"].shape
        values |= {"decoder_embed_dim": decoder_width, "decoder_depth": _depth(state, "decoder")}
        sizes.append((decoder_width, hidden))
    elif family == "mae":
        values = {"decoder_embed_dim": 512, "decoder_depth": 8} | values
    if family == "mae":
        values.setdefault("num_frames", 1)
        if (
            "pos_embed" in state and "img_size" not in values
        ):  # square, with a row for the class token
            values["img_size"] = math.isqrt(state["pos_embed"].shape[-2] - 1) * tubelet[-1]
    guessed = []
    for field, at, table in (
        ("num_heads", width, HEADS),
        ("decoder_num_heads", values.get("decoder_embed_dim", 384), DECODER_HEADS[family]),
    ):
        if field not in values:
            values[field] = table.get(at, _heads_of_64(at))
            if at not in table:
                guessed.append(f"{field}={values[field]} (width {at} in heads of 64)")
    return ModelConfig(
        family=family, channels=channels, tubelet=(tubelet[0], tubelet[1], tubelet[2]), embed_dim=width,
        depth=_depth(state, "encoder"), mlp_ratio=_mlp_ratio(sizes), **values,
    ), guessed  # fmt: skip


def _heads_of_64(width: int) -> int:
    """So many heads of 64 as fit the width; fewer where it does not divide into them."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)


def _depth(state: State, part: str) -> int:
    numbers = {name.split(".")[2] for name in state if name.startswith(f"{part}.blocks.")}
    return len(numbers)


def _mlp_ratio(sizes: list[tuple[int, int]]) -> float:
    """One ratio with int(width · ratio) = hidden for each (width, hidden); giant's is 48/11."""
    low = max(hidden / width for width, hidden in sizes)
    high = min((hidden + 1) / width for width, hidden in sizes)
    for ratio in (low, math.nextafter(low, math.inf), (low + high) / 2):
        if all(int(width * ratio) == hidden for width, hidden in sizes):
            return ratio
    raise ValueError(f"no MLP ratio gives the hidden sizes of (width, hidden) {sizes}")


def hints_from_hf(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelConfig that a Hugging Face config.json tells and shapes do not."""
    values = {**HF_DEFAULTS[hf["model_type"]], **hf}
    size = values["image_size"]
    if isinstance(size, list):
        if size[0] != size[-1]:
            raise ValueError(f"image_size is {size}; the clips here are square")
        size = size[0]
    if values.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"hidden_act is {values['hidden_act']!r}; the models here have gelu")
    return {
        "num_frames": 1 if hf["model_type"] != "videomae" else values["num_frames"],
        "img_size": size,
        "num_heads": values["num_attention_heads"],
        "decoder_embed_dim": values["decoder_hidden_size"],
        "decoder_depth": values["decoder_num_hidden_layers"],
        "decoder_num_heads": values["decoder_num_attention_heads"],
        "normalize_targets": values["norm_pix_loss"],
    }


def hf_config(state: State, config: ModelConfig, classes: tuple[str, ...]) -> dict[str, Any]:
    """The config.json that goes with `to_hf`. `classes` names a classifier's outputs.

    Raises ValueError where transformers has no such model.
    """
    mae, decoder, head = config.family == "mae", "mask_token" in state, "head.weight" in state
    if config.tubelet[1] != config.tubelet[2]:
        raise ValueError(f"tubelet is {config.tubelet}; transformers knows square patches only")
    names = ("ViTMAEModel", "ViTForImageClassification", "ViTMAEForPreTraining") if mae else (
        "VideoMAEModel", "VideoMAEForVideoClassification", "VideoMAEForPreTraining"
    )  # fmt: skip
    values: dict[str, Any] = {
        "architectures": [names[2 if decoder else int(head)]],
        "model_type": ("vit" if head else "vit_mae") if mae else "videomae",
        "image_size": config.img_size, "patch_size": config.tubelet[1],
        "num_channels": config.channels, "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth, "num_attention_heads": config.num_heads,
        "intermediate_size": int(config.embed_dim * config.mlp_ratio), "hidden_act": "gelu",
        "layer_norm_eps": NORM_EPS, "qkv_bias": True,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "decoder_hidden_size": config.decoder_embed_dim,
        "decoder_num_hidden_layers": config.decoder_depth,
        "decoder_num_attention_heads": config.decoder_num_heads,
        "decoder_intermediate_size": int(config.decoder_embed_dim * config.mlp_ratio),
        "norm_pix_loss": config.normalize_targets,
    }  # fmt: skip
    if mae:
        values["mask_ratio"] = 0.75 if decoder else 0.0  # ViTMAEModel hides tokens at inference too
    else:
        values |= {"num_frames": config.num_frames, "tubelet_size": config.tubelet[0]}
        values["use_mean_pooling"] = "encoder.norm.weight" not in state
    if head:
        values["id2label"] = {str(i): name for i, name in enumerate(classes)}
        values["label2id"] = {name: i for i, name in enumerate(classes)}
    return values


def hf_processor(config: ModelConfig) -> dict[str, Any]:
    """preprocessor_config.json: without it transformers normalises clips with 0.5, not ImageNet's."""
    side = {"height": config.img_size, "width": config.img_size}
    mae = config.family == "mae"
    return {
        "image_processor_type": "ViTImageProcessor" if mae else "VideoMAEImageProcessor",
        "do_resize": True, "size": side if mae else {"shortest_edge": config.img_size},
        "do_center_crop": not mae, "crop_size": side,
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD),
    }  # fmt: skip
