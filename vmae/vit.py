"""The vision transformer: encoder of every model here, and classifier of images and clips."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.grid import gather_tokens, patchify
from vmae.layers import NORM_EPS, Block, DividedBlock
from vmae.positions import position_table


class PatchEmbed(nn.Module):
    """Project tokens of raw pixels to the encoder's width: (B, K, P) -> (B, K, D).

    The weights lie in a Conv3d, as in every published checkpoint. A convolution whose stride is
    its kernel is a linear layer on the flattened tubelet, so it is computed as one, and only for
    the tokens that are given.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(config.channels, config.width, config.tubelet, config.tubelet)
        mean, std = (_channels(values, config.channels) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def normalize(self, tokens: torch.Tensor) -> torch.Tensor:
        """Pixels (B, K, P), uint8 or in [0, 1], with ImageNet's channel statistics taken out."""
        x = to_unit(tokens).unflatten(-1, (-1, len(self.mean)))  # (B, K, P / C, C)
        return ((x - self.mean) / self.std).flatten(-2)

    def denormalize(self, tokens: torch.Tensor) -> torch.Tensor:
        """The inverse of `normalize`: back to [0, 1]."""
        x = tokens.unflatten(-1, (-1, len(self.mean)))
        return (x * self.std + self.mean).flatten(-2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.normalize(tokens)
        # Pixels come by frame, row, column and channel.
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return nn.functional.linear(x, weight, self.proj.bias)


class VisionTransformer(nn.Module):
    """Encoder (`classes=None`) or classifier of clips; an image is a clip of one frame.

    The encoder ends in `norm`. The VideoMAE classifier averages the tokens, applies `fc_norm`,
    then `head`; the MAE one reads the class token after `norm`. Parameter names are the official
    ones. Positions are added to the embedded tokens before any is dropped.
    """

    positions: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        classes: int | None = None,
        drop_path: float = 0.0,
        head_drop: float = 0.0,
        init_scale: float = 0.001,
    ) -> None:
        super().__init__()
        self.config, self.grid, self.classes = config, config.grid, classes
        self.class_names: tuple[str, ...] | None = None  # set by those who load or train it
        mae = config.family == "mae"
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width)) if mae else None
        table = position_table(config, config.width)
        self.register_buffer("positions", table[None], persistent=False)
        rates = [drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        block = Block if config.attention == "joint" else partial(DividedBlock, self.grid.shape[0])
        self.blocks = nn.ModuleList(
            block(config.width, config.heads, config.mlp_ratio, rate, key_bias=mae)
            for rate in rates
        )
        self.mean_pool = classes is not None and not mae
        if not self.mean_pool:
            self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        if classes is not None:
            if self.mean_pool:
                self.fc_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
            self.head_drop = nn.Dropout(head_drop)
            self.head = nn.Linear(config.width, classes)
        self._initialize(init_scale)

    def _initialize(self, init_scale: float) -> None:
        """As published: xavier for pre-training, truncated normal and a small head for fine-tuning."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if self.classes is None:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.classes is not None:
            self.head.weight.data.mul_(init_scale)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
            nn.init.xavier_uniform_(self.patch_embed.proj.weight.data.flatten(1))
        for number, block in enumerate(self.blocks):
            if isinstance(block, DividedBlock) and number > 0:
                nn.init.zeros_(block.temporal_fc.weight)

    def embed(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens with positions, (B, V, D), for clips (B, C, T, H, W), uint8 or float in [0, 1].

        With `visible` (B, V) only those tokens are computed. A class token comes first.
        """
        tokens, positions = patchify(clips, self.grid), self.positions
        if visible is not None:
            tokens = gather_tokens(tokens, visible)
            positions = positions[0][visible]
        x = self.patch_embed(tokens) + positions
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        return x

    def features(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """All tokens after the last block (and `norm`, where the model has one): (B, V, D)."""
        x = self.embed(clips, visible)
        for block in self.blocks:
            x = block(x)
        return x if self.mean_pool else self.norm(x)

    @torch.no_grad()
    def attention_maps(self, clips: torch.Tensor, layer: int) -> torch.Tensor:
        """Who looks at whom in block `layer` (from 0; -1 is the last): (B, heads, N, N), rows sum to 1.

        N counts the class token where there is one. Joint attention only.
        """
        if self.config.attention != "joint":
            raise ValueError('attention maps over all tokens exist for attention "joint" only')
        layer = range(len(self.blocks))[layer]
        x = self.embed(clips)
        for block in self.blocks[:layer]:
            x = block(x)
        chosen = self.blocks[layer]
        assert isinstance(chosen, Block)
        return chosen.attn.weights(chosen.norm1(x))

    def pooled(self, clips: torch.Tensor) -> torch.Tensor:
        """One vector a clip, (B, D): the class token, or the mean of the tokens."""
        x = self.features(clips)
        return x[:, 0] if self.cls_token is not None else x.mean(1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes); features (B, N, D) where the model is an encoder only."""
        if self.classes is None:
            return self.features(clips)
        x = self.pooled(clips)
        if self.mean_pool:
            x = self.fc_norm(x)
        return self.head(self.head_drop(x))

    @torch.no_grad()
    def load_encoder(self, encoder: VisionTransformer) -> None:
        """Take over the weights of a pre-trained encoder: all but its `norm` and any head.

        The official code drops the pre-trained `norm` too where the classifier averages tokens.
        """
        state = encoder.state_dict()
        own = {k for k in self.state_dict() if not k.startswith(("head.", "fc_norm."))}
        missing = own - set(state)
        problems = [f"it lacks {name}" for name in sorted(missing)]
        problems += [
            f"{name} is of shape {tuple(state[name].shape)}, not {tuple(self.state_dict()[name].shape)}"
            for name in sorted(own - missing)
            if state[name].shape != self.state_dict()[name].shape
        ]
        if encoder.config.family != self.config.family:
            problems.append(
                f"it is of family {encoder.config.family!r}, not {self.config.family!r}"
            )
        if problems:
            listed = "; ".join(problems[:8]) + ("; ..." if len(problems) > 8 else "")
            raise ValueError(
                f"the encoder does not fit this classifier: {listed}. Build the classifier with the "
                "configuration of the encoder"
            )
        self.load_state_dict({k: state[k] for k in own}, strict=False)


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 as float 0..1; floats are taken to be in [0, 1] already."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def _channels(values: tuple[float, ...], channels: int) -> torch.Tensor:
    """Statistics for each channel; their mean where the clips are not RGB."""
    tensor = torch.tensor(values)
    return tensor if channels == len(values) else tensor.mean().repeat(channels)
