"""Multiply-adds of a forward pass, stage by stage, counted by PyTorch as the model runs.

Papers call one multiply-add one FLOP. As in papers, norms, softmax and additions are not counted.

>>> stages = pretraining_multiply_adds(ModelConfig.videomae("B"), MaskConfig("tube", 0.9))
>>> round(stages["published"] / 1e9, 1)
35.4
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vmae.config import MaskConfig, ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask
from vmae.vit import VisionTransformer


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@lru_cache(maxsize=64)
def classifier_multiply_adds(config: ModelConfig, classes: int = 400) -> int:
    """Multiply-adds of one clip through the classifier; papers report them as GFLOPs."""
    with torch.device("meta"):  # shapes only: no memory, no work
        model = VisionTransformer(_with_one_block(config), classes)
        counts = _count(model, _clip(config))
    return counts["Global"] + (config.depth - 1) * counts["VisionTransformer.blocks.0"]


def pretraining_multiply_adds(
    config: ModelConfig,
    mask: MaskConfig,
    build: Callable[[ModelConfig], MaskedAutoencoder] = MaskedAutoencoder,
) -> dict[str, int]:
    """Multiply-adds of one clip through a masked autoencoder, by stage.

    "patch embed", "encoder", "encoder to decoder", "decoder" and "head" are the stages that run here,
    and "total" their sum. "skipped" is what the official code computes in addition: embeddings of
    tokens that are then dropped, and pixels for queries without loss. "published" is total plus
    skipped, the number in the papers.

    build   makes the model, as in `pretrain`
    """
    return dict(_pretraining_stages(config, mask, build))  # a copy: callers cannot change the cache


@lru_cache(maxsize=64)
def _pretraining_stages(
    config: ModelConfig, mask: MaskConfig, build: Callable[[ModelConfig], MaskedAutoencoder]
) -> dict[str, int]:
    grid = config.grid
    drawn = make_mask(mask, grid, 1, torch.Generator())  # leaves the global generator untouched
    shapes = Mask(*(index.to("meta") for index in (drawn.visible, drawn.queries, drawn.targets)))
    with torch.device("meta"):
        model = build(_with_one_block(config))
        counts = _count(model, _clip(config), shapes)
    name = type(model).__name__
    stages = {
        "patch embed": counts[f"{name}.encoder.patch_embed"],
        "encoder": config.depth * counts[f"{name}.encoder.blocks.0"],
        "encoder to decoder": counts[f"{name}.encoder_to_decoder"],
        "decoder": config.decoder_depth * counts.get(f"{name}.decoder.blocks.0", 0),
        "head": counts[f"{name}.decoder.head"],
    }
    dropped = grid.num_tokens - drawn.visible.shape[1]
    without_loss = drawn.queries.shape[1] - drawn.targets.shape[1]
    skipped = (
        dropped * config.embed_dim + without_loss * config.decoder_embed_dim
    ) * grid.token_dim
    total = sum(stages.values())
    return {**stages, "total": total, "skipped": skipped, "published": total + skipped}


def _with_one_block(config: ModelConfig) -> ModelConfig:
    """The same model with one block in each part: all blocks of a part cost the same."""
    return config.replace(depth=1, decoder_depth=min(1, config.decoder_depth))


def _clip(config: ModelConfig) -> torch.Tensor:
    return torch.empty(1, config.channels, *config.grid.clip, dtype=torch.uint8, device="meta")


def _count(model: nn.Module, *inputs: object) -> dict[str, int]:
    """Multiply-adds by module name, down to the third level; "Global" is the whole model."""
    model = model.to("meta")  # position tables are computed in NumPy, so they are not on it yet
    with torch.no_grad(), FlopCounterMode(display=False, depth=4) as counter:
        model(*inputs)
    return {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
