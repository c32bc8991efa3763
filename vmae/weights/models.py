"""Load a file's weights into a model: what is dropped, what must fit, and under which names."""

from __future__ import annotations

import re
from typing import TypeVar

import torch
from torch import nn

from vmae.config import ModelConfig
from vmae.init import skip_init
from vmae.layers import NORM_EPS
from vmae.mae import MaskedAutoencoder
from vmae.vit import VisionTransformer
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.files import WeightFile
from vmae.weights.names import State
from vmae.weights.processor import fold_statistics

Model = TypeVar("Model", MaskedAutoencoder, VisionTransformer)


def check_pooling(file: WeightFile, config: ModelConfig) -> None:
    """Refuse classifiers that pool tokens differently from ours."""
    if config.family == "videomae" and "fc_norm.weight" not in file.state:
        raise CheckpointError(
            f"{file.path} classifies from its first token: it has a head, but no fc_norm. "
            "transformers builds such a model if use_mean_pooling is False, as in the "
            "pre-training files on the hub. VideoMAE has no class token, so that token is just a "
            "corner patch; vmae averages all tokens instead. Pass drop_head=True to load "
            "only the encoder"
        )


def has_head(file: WeightFile) -> bool:
    """Whether a file is a classifier whose head does not read just a corner patch."""
    pooled = "fc_norm.weight" in file.state or "encoder.cls_token" in file.state
    return pooled and "head.weight" in file.state


def drop_keys(file: WeightFile, parts: tuple[str, ...], note: str) -> None:
    """Drop all parameters of some parts, with a warning that ends with `note`."""
    dropped = [name for name in file.state if name.startswith(parts)]
    for name in dropped:
        del file.state[name]
    # Blocks are listed as "blocks.*": thirty numbered lines would hide the rest.
    names = dict.fromkeys(re.sub(r"\.\d+\..*", ".*", file.names[name]) for name in dropped)
    listed = f"dropped {', '.join(names)}" if names else ""
    if listed or note:
        warn(f"{file.path}: " + "; ".join(text for text in (listed, note) if text))


def _has_norm(file: WeightFile) -> bool:
    return any(name.startswith("encoder.norm.") for name in file.state)


def reduce_to_encoder(file: WeightFile, tuning: bool = False) -> None:
    """Drop the decoder and head, with a warning; `fc_norm` stays.

    tuning   the encoder is for fine-tuning, which uses no decoder and no final norm: warn of a head only
    """
    decoder = ("decoder.", "mask_token", "encoder_to_decoder.")
    note = (
        ""
        if tuning or _has_norm(file) or "fc_norm.weight" in file.state
        else "the file has no final norm, so the loaded encoder has none either"
    )
    if tuning:
        file.state = {n: tensor for n, tensor in file.state.items() if not n.startswith(decoder)}
    drop_keys(file, (*decoder, "head."), note)
    file.tables.pop("decoder_pos_embed", None)


def encoder_of(file: WeightFile, config: ModelConfig) -> VisionTransformer:
    """The encoder with the file's weights and norms; an identity replaces a missing final norm."""
    with skip_init():
        model = VisionTransformer(config)
    if not _has_norm(file):
        model.add_module("norm", nn.Identity())
    if "fc_norm.weight" in file.state:
        model.add_module("fc_norm", nn.LayerNorm(config.embed_dim, eps=NORM_EPS))
    return load_into(model, file)


def load_into(model: Model, file: WeightFile) -> Model:
    """Copy a file's weights into a model; returns the model, in eval mode.

    Raises CheckpointError listing all names that are missing, unexpected or of another shape.
    """
    own, state = named_parameters(model), file.state
    problems = [f"missing: {name}" for name in own.keys() - state.keys()]
    problems += [f"not in this model: {file.names[name]}" for name in state.keys() - own.keys()]
    problems += [
        f"{file.names[name]}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the "
        "model"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    if problems:
        listed = "\n  ".join(sorted(problems))
        hint = ""
        if "encoder.norm.weight" not in state and isinstance(model, MaskedAutoencoder):
            hint = (
                "\nThe encoder has no final norm: transformers omits it if use_mean_pooling is "
                "True, but VideoMAE is pre-trained with one. Use load_encoder to load the "
                "encoder without it"
            )
        raise CheckpointError(f"{file.path} does not fit the model:\n  {listed}{hint}")
    fold_statistics(file, model)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])
    return model.eval()


def named_parameters(model: nn.Module) -> State:
    """A model's parameters under the names of `vmae.weights.names`, sharing its memory."""
    state = model.state_dict()
    if not isinstance(model, VisionTransformer):
        return state
    top = ("fc_norm.", "head.")
    return {n if n.startswith(top) else f"encoder.{n}": tensor for n, tensor in state.items()}
