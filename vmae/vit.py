"""The vision transformer: encoder of every model here, and classifier of images and clips."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.grid import gather_tokens, patchify
from vmae.layers import NORM_EPS, Block, DividedBlock
from vmae.positions import build_pos_embed


class PatchEmbed(nn.Module):
    """Project tokens of raw pixels to the encoder's width: (B, K, P) -> (B, K, D).

    The weights lie in a Conv3d, as in every published checkpoint. A convolution whose stride is
    its kernel is a linear layer on the flattened tubelet, so it is computed as one, and only for
    the tokens that are given.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels = config.channels
        self.proj = nn.Conv3d(config.channels, config.embed_dim, config.tubelet, config.tubelet)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = normalize_pixels(tokens, self.channels)
        # Pixels come by frame, row, column and channel.
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return nn.functional.linear(x, weight, self.proj.bias)


class VisionTransformer(nn.Module):
    """Encoder (`num_classes=None`) or classifier of clips; an image is a clip of one frame.

    The encoder ends in `norm`. The VideoMAE classifier averages the tokens, applies `fc_norm`,
    then `head`; the MAE one reads the class token after `norm`. Parameter names are the official
    ones. Positions are added to the embedded tokens before any is dropped.
    """

    pos_embed: torch.Tensor

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int | None = None,
        drop_path: float = 0.0,
        head_drop: float = 0.0,
        init_scale: float = 0.001,
    ) -> None:
        super().__init__()
        self.config, self.grid, self.num_classes = config, config.grid, num_classes
        self.class_names: tuple[str, ...] | None = None  # set by those who load or train it
        mae = config.family == "mae"
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim)) if mae else None
        table = build_pos_embed(config, config.embed_dim)
        self.register_buffer("pos_embed", table[None], persistent=False)
        rates = [drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        block = Block if config.attention == "joint" else partial(DividedBlock, self.grid.shape[0])
        self.blocks = nn.ModuleList(
            block(config.embed_dim, config.num_heads, config.mlp_ratio, rate, key_bias=mae)
            for rate in rates
        )
        self.mean_pool = num_classes is not None and not mae
        if not self.mean_pool:
            self.norm = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        if num_classes is not None:
            if self.mean_pool:
                self.fc_norm = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
            self.head_drop = nn.Dropout(head_drop)
            self.head = nn.Linear(config.embed_dim, num_classes)
        self._initialize(init_scale)

    def _initialize(self, init_scale: float) -> None:
        """As published: xavier for pre-training, truncated normal and a small head for fine-tuning."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if self.num_classes is None:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.num_classes is not None:
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
        tokens, positions = patchify(clips, self.grid), self.pos_embed
        if visible is not None:
            tokens = gather_tokens(tokens, visible)
            positions = positions[0][visible]
        x = self.patch_embed(tokens) + positions
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        return x

    def forward_features(
        self, clips: torch.Tensor, visible: torch.Tensor | None = None
    ) -> torch.Tensor:
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
        x = self.forward_features(clips)
        return x[:, 0] if self.cls_token is not None else x.mean(1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_classes); features (B, N, D) where the model is an encoder only."""
        if self.num_classes is None:
            return self.forward_features(clips)
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


def normalize_pixels(tokens: torch.Tensor, channels: int = 3) -> torch.Tensor:
    """Pixels (B, K, P), uint8 or in [0, 1], standardised by ImageNet's channel statistics."""
    mean, std = _statistics(channels, tokens.device)
    return ((to_unit(tokens).unflatten(-1, (-1, channels)) - mean) / std).flatten(-2)


def denormalize_pixels(tokens: torch.Tensor, channels: int = 3) -> torch.Tensor:
    """The inverse of `normalize_pixels`: back to [0, 1]."""
    mean, std = _statistics(channels, tokens.device)
    return (tokens.unflatten(-1, (-1, channels)) * std + mean).flatten(-2)


def _statistics(channels: int, device: torch.device) -> list[torch.Tensor]:
    """Mean and standard deviation (C,); their mean over the channels where clips are not RGB.

    Filled on the device, because a copy of a tensor from the host would make the device wait.
    """
    found = []
    for values in (IMAGENET_MEAN, IMAGENET_STD):
        tensor = torch.stack([torch.full((), value, device=device) for value in values])
        found.append(tensor if channels == len(values) else tensor.mean().repeat(channels))
    return found
