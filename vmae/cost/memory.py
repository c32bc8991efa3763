"""Memory of training: weights, gradients, moments, and activations kept for the backward pass.

Computed from the configuration, for one process. `tests/cost/test_memory.py` compares it with what
PyTorch really keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from vmae.config import MaskConfig, ModelConfig
from vmae.cost.flops import parameters
from vmae.layers import is_fused
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.vit import VisionTransformer

if TYPE_CHECKING:  # train/ comes after cost/; only fields of its configurations are used
    from vmae.train.config import FinetuneConfig, RunConfig


@dataclass(frozen=True)
class Memory:
    """Bytes per process.

    weights      float32
    gradients    float32
    optimizer    AdamW's two moments, float32
    activations  kept for the backward pass, plus in bf16 and fp16 the copies of the weights
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum; workspace of kernels and fragmentation come on top."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_memory(config: RunConfig, clips: int, sharded: int = 1) -> Memory:
    """Estimate the memory of a step of `clips` clips in one process.

    `sharded` is the number of processes that share weights, gradients and moments (FSDP2); with DDP
    each keeps them all. A classifier's head is not included, since the configuration does not state
    the number of classes.
    """
    with torch.device("meta"):
        model: MaskedAutoencoder | VisionTransformer
        if hasattr(config, "mask"):
            model, frozen = MaskedAutoencoder(config.model), 0
        else:
            model = VisionTransformer(config.model)
            frozen = sum(map(parameters, list(model.blocks.children())[: _frozen(config)]))
        count = parameters(model)
    share, trained = 4 * count // sharded, 4 * (count - frozen) // sharded
    half = config.precision in ("bf16", "fp16")
    activations = clips * clip_activations(config, half) + (2 * count if half else 0)
    return Memory(share, trained, 2 * trained, activations)


def _frozen(config: RunConfig) -> int:
    """Blocks that fine-tuning does not train, which keep nothing for the backward pass."""
    return getattr(config, "frozen_layers", 0)


def clip_activations(config: RunConfig, half: bool) -> int:
    """Bytes that one clip keeps for the backward pass; `half`: in bf16 or fp16.

    With activation checkpointing a block keeps only its input, and the largest block is held once in
    full while its gradient is computed.
    """
    model, low = config.model, 2 if half else 4  # bytes per number that matrix products read
    class_token = model.family == "mae"
    clip = model.channels * model.num_frames * model.img_size**2
    pixels, width = model.grid.token_dim, model.embed_dim
    mask_config: MaskConfig | None = getattr(config, "mask", None)
    if mask_config is not None:
        mask = make_mask(mask_config, model.grid, 1, torch.Generator())
        visible, queries, targets = (x.shape[1] for x in (mask.visible, mask.queries, mask.targets))
        encoded, decoder_width = visible + class_token, model.decoder_embed_dim
        stacks = [
            (model.depth, encoded, width, model.num_heads),
            (model.decoder_depth, encoded + queries, decoder_width, model.decoder_num_heads),
        ]
        kept = encoded * _norm_and_layer(width, low)  # encoder to decoder
        kept += targets * _norm_and_layer(decoder_width, low)  # decoder to pixels
        kept += targets * 4 * 2 * pixels  # predictions and targets, in the loss
        kept += 8 * (visible + queries + targets)  # the mask's indices
    else:
        visible = model.grid.num_tokens
        encoded = visible + class_token
        stacks = [(model.depth - _frozen(config), encoded, width, model.num_heads)]
        # With a class token the norm reads every token, otherwise only their mean.
        kept = encoded * (4 * width + 8) if class_token else 4 * width + 8
        kept += low * width  # head
        tuning = cast("FinetuneConfig", config)
        augmented: object = tuning.mixup or tuning.cutmix or tuning.crop_area
        augmented = augmented or tuning.randaug_num_ops or tuning.random_erase_prob
        clip *= 4 if augmented else 1  # augmented clips are float32
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    fused = is_fused(device, torch.bfloat16 if half else torch.float32)
    blocks = [_block(tokens, dim, heads, model, low, fused) for _, tokens, dim, heads in stacks]
    for (depth, tokens, dim, _), block in zip(stacks, blocks, strict=True):
        kept += depth * (4 * tokens * dim if config.activation_checkpointing else block)
    if config.activation_checkpointing:
        kept += max(blocks)
    patches = 0 if _frozen(config) else low * visible * pixels
    return kept + patches + clip


def _norm_and_layer(width: int, low: int) -> int:
    """Bytes per token kept by a norm and by the linear layer after it."""
    return 4 * width + 8 + low * width


def _block(tokens: int, width: int, heads: int, model: ModelConfig, low: int, fused: bool) -> int:
    """Bytes kept by a block: the inputs or outputs that each layer needs for its gradient.

    - Both norms keep their input, the float32 residual stream, and two statistics per token.
    - The four linear layers and GELU keep their input.
    - Attention keeps queries, keys and values, and per head and token either one number (fused) or a
      row of the attention matrix. Its output is already counted: it is the projection's input.
    """

    def attention_rows(keys: int) -> int:  # per token, attending to this many keys
        return heads * (4 if fused else low * keys)

    hidden = int(width * model.mlp_ratio)
    norms = 2 * (4 * width + 8)
    products = low * (width + 3 * width + width + width + 2 * hidden)
    per_token = norms + products
    if model.attention == "divided":  # attention over time has another norm and linear layer
        steps = model.grid.shape[0]
        per_token += 4 * width + 8 + low * 6 * width
        per_token += attention_rows(steps) + attention_rows(tokens // steps)
    else:
        per_token += attention_rows(tokens)
    return tokens * per_token
