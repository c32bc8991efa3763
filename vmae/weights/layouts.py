"""Infer a checkpoint's model from its shapes, config.json and training arguments.

No shape reveals the number of heads. Nor do VideoMAE's files reveal the clip size, since its position
table is computed rather than stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from vmae.config import ModelConfig
from vmae.layers import NORM_EPS
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.files import WeightFile
from vmae.weights.names import State
from vmae.weights.tables import settle_tables

#: Number of heads of the published sizes, by width. Other widths get heads of 64 dimensions.
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
DECODER_HEADS = {"videomae": {192: 3, 384: 6, 512: 8, 640: 8}, "mae": {512: 16}}

# The defaults of transformers for fields missing from config.json.
_HF_DEFAULTS: dict[str, Any] = {
    "image_size": 224, "num_frames": 16, "num_attention_heads": 12, "decoder_hidden_size": 384,
    "decoder_num_hidden_layers": 4, "decoder_num_attention_heads": 6, "norm_pix_loss": True,
}  # fmt: skip
_HF_MAE_DEFAULTS: dict[str, Any] = {
    **_HF_DEFAULTS, "num_frames": 1, "decoder_hidden_size": 512, "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16, "norm_pix_loss": False,
}  # fmt: skip
HF_DEFAULTS = {"videomae": _HF_DEFAULTS, "vit_mae": _HF_MAE_DEFAULTS, "vit": _HF_MAE_DEFAULTS}


def config_of(file: WeightFile, **overrides: int | None) -> ModelConfig:
    """The configuration of a file's model; settles the stored position tables (`tables`)."""
    given = {name: value for name, value in overrides.items() if value is not None}
    hf = file.hf.get("model_type") in HF_DEFAULTS
    guessed: list[str] = []
    try:
        if file.config is not None:
            config = file.config.replace(**given)
        else:
            hints = _hints_from_arguments(file.arguments)
            if hf:
                hints |= hints_from_hf(file.hf)
            elif isinstance(nested := file.hf.get("model_config"), dict):
                hints |= hints_from_videomae_v2(nested)
            config, guessed = infer_config(file.state | file.tables, hints | given)
    except KeyError as error:
        first = ", ".join(list(file.names.values())[:6])
        raise CheckpointError(
            f"{file.path} is not a recognised VideoMAE or MAE checkpoint: it contains no parameter "
            f"named {error.args[0]}. Its first parameters are named {first}"
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"{file.path}: {error}. Pass the settings that the file does not store: num_frames=, img_size=, "
            "num_heads=, decoder_num_heads="
        ) from None
    if guessed:
        warn(
            f"{file.path} does not store every setting; the loader guessed {' and '.join(guessed)}: pass "
            "the correct values if these are wrong"
        )
    published = HEADS.get(config.embed_dim, config.num_heads)
    if hf and "num_heads" not in given and config.num_heads != published:
        warn(
            f"{file.path}: config.json has {config.num_heads} heads at width {config.embed_dim}, "
            f"but the published model has {published} (transformers' converter wrote 16 for "
            f"VideoMAE-small): pass num_heads={published} if these are the official weights"
        )
    return settle_tables(file, config)


def _hints_from_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Hints from the training arguments in an official file: V1 and V2 run_*.py, MAE main_*.py."""
    hints: dict[str, Any] = {}
    for theirs, ours, kind in (
        ("num_frames", "num_frames", int),
        ("input_size", "img_size", int),
        ("normlize_target", "normalize_targets", bool),  # as VideoMAE spells it
        ("norm_pix_loss", "normalize_targets", bool),
    ):
        if type(arguments.get(theirs)) is kind:
            hints[ours] = arguments[theirs]
    segments = arguments.get("num_segments")  # the scripts pass all_frames = their product
    if "num_frames" in hints and type(segments) is int:
        hints["num_frames"] *= segments
    return hints | _interpolated(arguments)


def _interpolated(values: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The clip size that positions are interpolated from, as our exports of MAE store it."""
    size = values.get("pos_embed_from")
    if not isinstance(size, list | tuple) or [type(side) for side in size] != [int, int]:
        return {}
    return {"pos_embed_from": (size[0], size[1])}


def official_arguments(state: State, config: ModelConfig) -> dict[str, Any]:
    """The arguments to store in an official file, a plain dict, which every torch.load accepts."""
    arguments: dict[str, Any] = {}
    if "mask_token" in state:
        name = "norm_pix_loss" if config.family == "mae" else "normlize_target"
        arguments[name] = config.normalize_targets
    if config.pos_embed_from is not None:
        arguments["pos_embed_from"] = config.pos_embed_from
    return arguments


def infer_config(state: State, hints: Mapping[str, Any]) -> tuple[ModelConfig, list[str]]:
    """Infer a model from the shapes of its parameters, under our names; also lists the guesses.

    hints   fields of ModelConfig that shapes do not determine: num_frames, img_size, num_heads,
            decoder_num_heads, normalize_targets; without a decoder also its width and depth

    Raises ValueError if no model here has these shapes, KeyError if an essential name is missing.
    """
    kernel = state["encoder.patch_embed.proj.weight"].shape
    if len(kernel) != 5:
        raise ValueError(
            f"the patch embedding has shape {tuple(kernel)}; it must be that of a 2-D or 3-D convolution"
        )
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
    guessed = []
    if family == "mae":
        values.setdefault("num_frames", 1)
        # without a norm after the last block, there is one after averaging
        values["global_pool"] = "encoder.norm.weight" not in state
        if "normalize_targets" not in values:
            values["normalize_targets"] = False
            if "mask_token" in state:
                guessed.append("normalize_targets=False (the default of MAE's code, norm_pix_loss)")
        # the table of a square image has a row for the class token
        if "pos_embed" in state and "img_size" not in values:
            values["img_size"] = math.isqrt(state["pos_embed"].shape[-2] - 1) * tubelet[-1]
    for field, dim, published in (
        ("num_heads", width, HEADS),
        ("decoder_num_heads", values.get("decoder_embed_dim", 384), DECODER_HEADS[family]),
    ):
        if field not in values:
            values[field] = published.get(dim, _heads_of_64(dim))
            if dim not in published:
                guessed.append(f"{field}={values[field]} (width {dim}, 64 per head)")
    return ModelConfig(
        family=family, channels=channels, tubelet=(tubelet[0], tubelet[1], tubelet[2]), embed_dim=width,
        depth=_depth(state, "encoder"), mlp_ratio=_mlp_ratio(sizes), **values,
    ), guessed  # fmt: skip


def _heads_of_64(width: int) -> int:
    """The number of heads of 64 that fit the width; fewer if it is not divisible by that."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)


def _depth(state: State, part: str) -> int:
    numbers = {name.split(".")[2] for name in state if name.startswith(f"{part}.blocks.")}
    return len(numbers)


def _mlp_ratio(sizes: list[tuple[int, int]]) -> float:
    """A ratio with int(width · ratio) = hidden for each (width, hidden); that of giant is 48/11."""
    low = max(hidden / width for width, hidden in sizes)
    high = min((hidden + 1) / width for width, hidden in sizes)
    for ratio in (low, math.nextafter(low, math.inf), (low + high) / 2):
        if all(int(width * ratio) == hidden for width, hidden in sizes):
            return ratio
    raise ValueError(f"no single MLP ratio gives these hidden sizes: (width, hidden) = {sizes}")


def hints_from_hf(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelConfig that a Hugging Face config.json adds to the shapes.

    Raises ValueError if the models here cannot express the configuration.
    """
    values = {**HF_DEFAULTS[hf["model_type"]], **hf}
    size = values["image_size"]
    if isinstance(size, list):
        if size[0] != size[-1]:
            raise ValueError(f"image_size is {size}; only square frames are supported")
        size = size[0]
    if values.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"hidden_act is {values['hidden_act']!r}, but only 'gelu' is supported")
    return {
        "num_frames": 1 if hf["model_type"] != "videomae" else values["num_frames"],
        "img_size": size,
        "num_heads": values["num_attention_heads"],
        "decoder_embed_dim": values["decoder_hidden_size"],
        "decoder_depth": values["decoder_num_hidden_layers"],
        "decoder_num_heads": values["decoder_num_attention_heads"],
        "normalize_targets": values["norm_pix_loss"],
    } | _interpolated(values)


def hints_from_videomae_v2(nested: Mapping[str, Any]) -> dict[str, Any]:
    """The same from the nested model_config of the folders OpenGVLab/VideoMAEv2-* on the hub.

    Raises ValueError if the models here cannot express the configuration.
    """
    for name, needed in (
        ("cos_attn", False), ("use_learnable_pos_emb", False), ("use_mean_pooling", True)
    ):  # fmt: skip
        if (value := nested.get(name, needed)) is not needed:
            raise ValueError(f"{name} is {value}, but only {needed} is supported")
    return {
        name: nested[name] for name in ("num_frames", "img_size", "num_heads") if name in nested
    }


def hf_config(state: State, config: ModelConfig, classes: tuple[str, ...]) -> dict[str, Any]:
    """The config.json to go with `to_hf`; `classes` names a classifier's outputs.

    Raises ValueError if transformers has no such model.
    """
    mae, decoder, head = config.family == "mae", "mask_token" in state, "head.weight" in state
    if config.tubelet[1] != config.tubelet[2]:
        raise ValueError(
            f"tubelet is {config.tubelet}; transformers supports only square patches: "
            'save with to="vmae"'
        )
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
    if config.pos_embed_from is not None:
        values["pos_embed_from"] = list(config.pos_embed_from)
    if mae:
        values["mask_ratio"] = 0.75 if decoder else 0.0  # ViTMAEModel hides tokens at inference too
    else:
        values |= {"num_frames": config.num_frames, "tubelet_size": config.tubelet[0]}
        values["use_mean_pooling"] = "encoder.norm.weight" not in state
    if head:
        values["id2label"] = {str(i): name for i, name in enumerate(classes)}
        values["label2id"] = {name: i for i, name in enumerate(classes)}
    return values
