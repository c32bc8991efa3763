"""Memory that pre-training needs: weights, gradients, moments, and activations kept for the way back.

Computed from the configuration, for one process. `tests/test_memory.py` holds it against what
PyTorch keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vmae.config import ModelConfig, PretrainConfig
from vmae.flops import parameters
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    weights      float32
    gradients    float32
    optimizer    AdamW's two moments, float32
    activations  kept for the backward pass, and in bf16 the weights' copies
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum; what kernels need while they run, and fragmentation, come on top."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_memory(config: PretrainConfig, clips: int, sharded: int = 1) -> Memory:
    """Expected memory of a step of `clips` clips on one process.

    `sharded`: processes that share weights, gradients and moments (FSDP2); DDP keeps all on each.
    """
    with torch.device("meta"):
        count = parameters(MaskedAutoencoder(config.model))
    share = 4 * count // sharded
    bf16 = config.precision == "bf16"
    activations = clips * clip_activations(config, bf16) + (2 * count if bf16 else 0)
    return Memory(share, share, 2 * share, activations)


def clip_activations(config: PretrainConfig, bf16: bool) -> int:
    """Bytes that one clip keeps for the backward pass.

    With checkpointing a block keeps its input only; the largest block is there once in full, while
    its gradient is computed.
    """
    model, low = config.model, 2 if bf16 else 4  # bytes of what matrix products read
    mask = make_mask(config.mask, model.grid, 1)
    visible, queries, targets = (x.shape[1] for x in (mask.visible, mask.queries, mask.targets))
    seen = visible + (model.family == "mae")  # the class token
    parts = (
        (model.depth, seen, model.width, model.heads),
        (model.decoder_depth, seen + queries, model.decoder_width, model.decoder_heads),
    )
    kept = 0
    full = [_block(tokens, width, heads, model, low) for _, tokens, width, heads in parts]
    for (depth, tokens, width, _), block in zip(parts, full, strict=True):
        kept += depth * (4 * tokens * width if config.checkpointing else block)
    if config.checkpointing:
        kept += max(full)
    pixels = model.grid.pixels
    kept += low * visible * pixels  # the patches that are embedded
    kept += seen * (4 * model.width + 8 + low * model.width)  # the encoder's norm, then its output
    kept += targets * (4 * model.decoder_width + 8 + low * model.decoder_width)  # the decoder's
    kept += targets * 4 * 2 * pixels  # predictions and targets, in the loss
    kept += 8 * (visible + queries + targets)  # the mask's indices
    return kept + model.channels * model.frames * model.size**2  # the clip itself, uint8


def _block(tokens: int, width: int, heads: int, model: ModelConfig, low: int) -> int:
    """Bytes kept by a block: what each layer needs of its input or output for its gradient.

    The residual stream is float32 and enters both norms; their statistics are two numbers a token;
    the four linear layers keep their input, GELU its input; attention keeps queries, keys, values
    and a number a head and token. (Its output is the input of the projection.)
    """
    hidden = int(width * model.mlp_ratio)
    norms = 2 * (4 * width + 8)
    products = low * (width + 3 * width + width + width + 2 * hidden)
    each = norms + products + 4 * heads
    if model.attention == "divided":  # attention over time, with a norm and a layer of its own
        each += 4 * width + 8 + low * 6 * width + 4 * heads
    return tokens * each
