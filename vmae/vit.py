"""The vision transformer: the encoder of every model here, and a classifier of images and clips."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.grid import gather_tokens, patchify
from vmae.inference import Inference
from vmae.init import init_linears, skip_init
from vmae.layers import NORM_EPS, Block, DividedBlock
from vmae.positions import build_pos_embed


class PatchEmbed(nn.Module):
    """Project tokens of raw pixels to the encoder's width: (B, K, P) -> (B, K, D).

    The weights are those of a Conv3d, as in every published checkpoint. A convolution whose stride
    equals its kernel size is a linear layer on flattened tubelets. Computing it as one allows
    embedding only some of the tokens, such as the visible ones.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.channels = config.channels
        self.proj = nn.Conv3d(config.channels, config.embed_dim, config.tubelet, config.tubelet)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = normalize_pixels(tokens, self.channels)
        # (D, C, p_t, p_h, p_w) -> (D, P), in the pixel order of a token: channel last
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return nn.functional.linear(x, weight, self.proj.bias)


class VisionTransformer(nn.Module):
    """An encoder (`num_classes=None`) or a classifier of clips; an image is a clip of one frame.

    The encoder ends with `norm`. VideoMAE's classifier averages the tokens, then applies `fc_norm`
    and `head`; MAE's applies `head` to the class token after `norm` or, with `global_pool`, averages
    the patch tokens like VideoMAE's. An encoder loaded from a classifier that averages has no `norm`
    and keeps `fc_norm`. Parameter names are the official ones.

    drop_path   probability of dropping a residual branch in the last block, rising linearly from 0
    head_drop   dropout before `head`
    init_scale  factor on the initial weights of `head`
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
        # set on loading or training a classifier
        self.class_names: tuple[str, ...] | None = None
        self.inference = Inference()
        mae = config.family == "mae"
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim)) if mae else None
        table = build_pos_embed(config, config.embed_dim)
        if config.learned_pos_embed:
            self.pos_embed = nn.Parameter(table[None])
        else:
            self.register_buffer("pos_embed", table[None], persistent=False)
        rates = [drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        block = Block if config.attention == "joint" else partial(DividedBlock, self.grid.shape[0])
        with skip_init():
            self.blocks = nn.ModuleList(
                block(config.embed_dim, config.num_heads, config.mlp_ratio, rate, key_bias=mae)
                for rate in rates
            )
        self.mean_pool = num_classes is not None and (not mae or config.global_pool)
        if not self.mean_pool:
            self.norm = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.fc_norm = (
            nn.LayerNorm(config.embed_dim, eps=NORM_EPS) if self.mean_pool else nn.Identity()
        )
        if num_classes is not None:
            self.head_drop = nn.Dropout(head_drop)
            with skip_init():
                self.head = nn.Linear(config.embed_dim, num_classes)
        self._initialize(init_scale)

    def _initialize(self, init_scale: float) -> None:
        """Initialise as published: Xavier for pre-training; truncated normal for fine-tuning."""
        if self.num_classes is None:
            init_linears(self, nn.init.xavier_uniform_)
        else:
            init_linears(self, partial(nn.init.trunc_normal_, std=0.02))
            self.head.weight.data.mul_(init_scale)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
            nn.init.xavier_uniform_(self.patch_embed.proj.weight.data.flatten(1))
        for i, block in enumerate(self.blocks):
            if isinstance(block, DividedBlock) and i > 0:
                nn.init.zeros_(block.temporal_fc.weight)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that fine-tuning does not decay, beside all vectors."""
        return {"cls_token", "pos_embed"}

    def embed(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Embed clips (B, C, T, H, W), uint8 or float in [0, 1], as tokens (B, N, D).

        With `visible` (B, V), only those tokens are computed: (B, V, D). MAE's class token is
        prepended, one token more.
        """
        tokens, pos_embed = patchify(clips, self.grid), self.pos_embed  # (B, N, P), (1, N, D)
        # keep visible tokens
        if visible is not None:
            tokens = gather_tokens(tokens, visible)
            pos_embed = pos_embed[0][visible]
        # embed, add positions
        x = self.patch_embed(tokens) + pos_embed
        # prepend class token
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        return x

    def forward_features(
        self, clips: torch.Tensor, visible: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Encode clips: the tokens after the last block and `norm`, if the model has one.

        (B, N, D), or (B, V, D) for the tokens `visible` (B, V); plus the class token, if any.
        MAE's code calls this `forward_encoder`.
        """
        x = self.embed(clips, visible)
        # apply transformer blocks
        for block in self.blocks:
            x = block(x)
        return x if self.mean_pool else self.norm(x)

    @torch.no_grad()
    def attention_maps(self, clips: torch.Tensor, layer: int) -> torch.Tensor:
        """Attention weights of block `layer` (from 0; -1 is the last): (B, heads, N, N).

        Each row sums to 1. N includes the class token, if any. Raises ValueError unless attention
        is joint, IndexError if there is no such block.
        """
        if self.config.attention != "joint":
            raise ValueError(
                f'attention is {self.config.attention!r}, but only "joint" attention has maps '
                "over all tokens"
            )
        layer = range(len(self.blocks))[layer]
        x = self.embed(clips)
        for block in self.blocks[:layer]:
            x = block(x)
        chosen = self.blocks[layer]
        assert isinstance(chosen, Block)
        return chosen.attn.weights(chosen.norm1(x))

    def pooled(self, clips: torch.Tensor) -> torch.Tensor:
        """One vector per clip, (B, D), after `fc_norm`, if there is one: what a classifier's head reads.

        The class token or, without one or with `global_pool`, the mean of all other tokens.
        """
        x = self.forward_features(clips)
        if self.cls_token is not None and not self.config.global_pool:
            return x[:, 0]
        patches = x if self.cls_token is None else x[:, 1:]
        return self.fc_norm(patches.mean(1))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_classes) of a classifier, features (B, N, D) of an encoder."""
        if self.num_classes is None:
            return self.forward_features(clips)
        return self.head(self.head_drop(self.pooled(clips)))

    @torch.no_grad()
    def load_encoder(self, encoder: VisionTransformer) -> None:
        """Copy the weights of a pre-trained or fine-tuned encoder, all but any head.

        A classifier that averages tokens has no `norm`, so that of the encoder is dropped, as in the
        official code; its `fc_norm` is copied from a fine-tuned encoder and otherwise starts fresh.
        Raises ValueError naming parameters that are missing or of another shape.
        """
        state = {"pos_embed": encoder.pos_embed} | encoder.state_dict()
        own = self.state_dict()
        fresh = ("head.",) if "fc_norm.weight" in state else ("head.", "fc_norm.")
        needed = {name for name in own if not name.startswith(fresh)}
        missing = needed - set(state)
        problems = [f"{name} is missing" for name in sorted(missing)]
        problems += [
            f"{name} has shape {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
            for name in sorted(needed - missing)
            if state[name].shape != own[name].shape
        ]
        if encoder.config.family != self.config.family:
            problems.append(
                f"the encoder's family is {encoder.config.family!r}, not {self.config.family!r}"
            )
        if encoder.config.learned_pos_embed and not self.config.learned_pos_embed:
            problems.append("the encoder's positions are learned: set learned_pos_embed to true")
        if problems:
            listed = "; ".join(problems[:8]) + ("; ..." if len(problems) > 8 else "")
            raise ValueError(
                f"the encoder does not fit this classifier: {listed}. Build the classifier with the "
                "encoder's configuration"
            )
        self.load_state_dict({name: state[name] for name in needed}, strict=False)


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 pixels to floats in [0, 1]; floats are assumed to be in that range already."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def normalize_pixels(tokens: torch.Tensor, channels: int = 3) -> torch.Tensor:
    """Standardise pixels (B, K, P), uint8 or in [0, 1], by ImageNet's channel statistics."""
    mean, std = channel_statistics(channels, tokens.device)
    return ((to_unit(tokens).unflatten(-1, (-1, channels)) - mean) / std).flatten(-2)


def denormalize_pixels(tokens: torch.Tensor, channels: int = 3) -> torch.Tensor:
    """The inverse of `normalize_pixels`: back to [0, 1]."""
    mean, std = channel_statistics(channels, tokens.device)
    return (tokens.unflatten(-1, (-1, channels)) * std + mean).flatten(-2)


def channel_statistics(channels: int, device: torch.device) -> list[torch.Tensor]:
    """ImageNet's mean and standard deviation (C,), averaged over channels if clips are not RGB.

    Filled in on the device: copying a tensor from the host would make the device wait.
    """
    statistics = []
    for values in (IMAGENET_MEAN, IMAGENET_STD):
        tensor = torch.stack([torch.full((), value, device=device) for value in values])
        statistics.append(tensor if channels == len(values) else tensor.mean().repeat(channels))
    return statistics
