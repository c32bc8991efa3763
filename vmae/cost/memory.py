"""Memory that training needs: weights, gradients, moments, and activations kept for the way back.

Computed from the configuration, for one process. `tests/test_memory.py` holds it against what
PyTorch keeps.
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

if TYPE_CHECKING:  # of the floor above: their fields are all that is used
    from vmae.train.config import FinetuneConfig, RunConfig


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


def training_memory(config: RunConfig, clips: int, sharded: int = 1) -> Memory:
    """Expected memory of a step of `clips` clips on one process.

    `sharded`: processes that share weights, gradients and moments (FSDP2); DDP keeps all on each.
    A classifier's last layer, whose classes the configuration does not tell, is left out.
    """
    with torch.device("meta"):
        masked = hasattr(config, "mask")
        model = MaskedAutoencoder(config.model) if masked else VisionTransformer(config.model)
        count = parameters(model)
    share = 4 * count // sharded
    bf16 = config.precision == "bf16"
    activations = clips * clip_activations(config, bf16) + (2 * count if bf16 else 0)
    return Memory(share, share, 2 * share, activations)


def clip_activations(config: RunConfig, bf16: bool) -> int:
    """Bytes that one clip keeps for the backward pass.

    With checkpointing a block keeps its input only; the largest block is there once in full, while
    its gradient is computed.
    """
    model, low = config.model, 2 if bf16 else 4  # bytes of what matrix products read
    class_token = model.family == "mae"
    clip = model.channels * model.num_frames * model.img_size**2
    pixels, width = model.grid.token_dim, model.embed_dim
    mask_config: MaskConfig | None = getattr(config, "mask", None)
    if mask_config is not None:
        mask = make_mask(mask_config, model.grid, 1, torch.Generator())
        visible, queries, targets = (x.shape[1] for x in (mask.visible, mask.queries, mask.targets))
        seen, narrow = visible + class_token, model.decoder_embed_dim
        parts = [
            (model.depth, seen, width, model.num_heads),
            (model.decoder_depth, seen + queries, narrow, model.decoder_num_heads),
        ]
        kept = seen * _norm_and_layer(width, low)  # to the decoder
        kept += targets * _norm_and_layer(narrow, low)  # to pixels
        kept += targets * 4 * 2 * pixels  # predictions and targets, in the loss
        kept += 8 * (visible + queries + targets)  # the mask's indices
    else:
        visible = model.grid.num_tokens
        seen = visible + class_token
        parts = [(model.depth, seen, width, model.num_heads)]
        # The norm is that of every token where the class token is read, else that of their mean.
        kept = seen * (4 * width + 8) if class_token else 4 * width + 8
        kept += low * width  # to the classes
        tuning = cast("FinetuneConfig", config)
        mixed: object = tuning.mixup or tuning.cutmix
        mixed = mixed or tuning.randaug_num_ops or tuning.random_erase_prob or tuning.crop_area
        clip *= 4 if mixed else 1  # changed clips are float32
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    fused = is_fused(device, torch.bfloat16 if bf16 else torch.float32)
    full = [_block(tokens, wide, heads, model, low, fused) for _, tokens, wide, heads in parts]
    for (depth, tokens, wide, _), block in zip(parts, full, strict=True):
        kept += depth * (4 * tokens * wide if config.activation_checkpointing else block)
    if config.activation_checkpointing:
        kept += max(full)
    return kept + low * visible * pixels + clip  # the patches that are embedded, and the clip


def _norm_and_layer(width: int, low: int) -> int:
    """Bytes kept of a token by a norm, and by the linear layer after it."""
    return 4 * width + 8 + low * width


def _block(tokens: int, width: int, heads: int, model: ModelConfig, low: int, fused: bool) -> int:
    """Bytes kept by a block: what each layer needs of its input or output for its gradient.

    The residual stream is float32 and enters both norms; their statistics are two numbers a token;
    the four linear layers keep their input, GELU its input; attention keeps queries, keys, values
    and a number a head and token, or a row of its matrix where no kernel is fused. (Its output is
    the input of the projection.)
    """

    def rows(asked: int) -> int:  # of attention between so many tokens
        return heads * (4 if fused else low * asked)

    hidden = int(width * model.mlp_ratio)
    norms = 2 * (4 * width + 8)
    products = low * (width + 3 * width + width + width + 2 * hidden)
    each = norms + products
    if model.attention == "divided":  # attention over time, with a norm and a layer of its own
        steps = model.grid.shape[0]
        each += 4 * width + 8 + low * 6 * width + rows(steps) + rows(tokens // steps)
    else:
        each += rows(tokens)
    return tokens * each
