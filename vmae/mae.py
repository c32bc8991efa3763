"""The masked autoencoder. MAE, VideoMAE V1 and VideoMAE V2 are one class; they differ in the mask."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from vmae.config import ModelConfig
from vmae.grid import gather_tokens, patchify, unpatchify
from vmae.init import init_linears, skip_init
from vmae.layers import NORM_EPS, Block
from vmae.masking import Mask
from vmae.positions import build_pos_embed
from vmae.vit import VisionTransformer, denormalize_pixels, normalize_pixels, to_unit

#: Added to the standard deviation (VideoMAE) or variance (MAE) on normalising targets.
TARGET_EPS = 1e-6


class Reconstruction(NamedTuple):
    """Float clips (B, C, T, H, W) in [0, 1], grey outside the tokens shown.

    masked      the visible tokens
    predicted   the predicted targets
    pasted      both
    """

    masked: torch.Tensor
    predicted: torch.Tensor
    pasted: torch.Tensor


class Decoder(nn.Module):
    """Transformer blocks over all tokens, then pixels for the targets: (B, V + Q, E) -> (B, M, P)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        with skip_init():
            self.blocks = nn.ModuleList(
                Block(
                    config.decoder_embed_dim,
                    config.decoder_num_heads,
                    config.mlp_ratio,
                    key_bias=config.family == "mae",
                )
                for _ in range(config.decoder_depth)
            )
            self.norm = nn.LayerNorm(config.decoder_embed_dim, eps=NORM_EPS)
            self.head = nn.Linear(config.decoder_embed_dim, config.grid.token_dim)
        init_linears(self)

    def forward(self, x: torch.Tensor, queries: int, targets: torch.Tensor) -> torch.Tensor:
        """Pixels (B, M, P) for `targets` (B, M), indices into the last `queries` tokens of `x`."""
        # apply transformer blocks
        for block in self.blocks:
            x = block(x)
        # remove visible tokens
        visible = x.shape[1] - queries
        all_count = targets.shape[1] == queries  # not in V2, with queries at visible positions
        x = x[:, visible:] if all_count else gather_tokens(x, visible + targets)
        # predict pixels
        return self.head(self.norm(x))


class MaskedAutoencoder(nn.Module):
    """Encode the visible tokens, decode mask tokens at the queries, compare pixels at the targets.

    Parameter names and initialisation are the official ones (VideoMAE `modeling_pretrain.py`, MAE
    `models_mae.py`). MAE's `ids_keep` is `mask.visible` here. MAE restores the original order of
    tokens before its decoder; here the visible tokens come first, then the mask tokens. The result
    is the same: attention ignores order, and each token carries its position.
    """

    decoder_pos_embed: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.grid = config, config.grid
        mae = config.family == "mae"
        self.encoder = VisionTransformer(config)
        # VideoMAE leaves this layer at PyTorch's default initialisation; MAE uses Xavier, as elsewhere.
        self.encoder_to_decoder = nn.Linear(config.embed_dim, config.decoder_embed_dim, bias=mae)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_embed_dim))
        self.decoder = Decoder(config)
        table = build_pos_embed(config, config.decoder_embed_dim)
        self.register_buffer("decoder_pos_embed", table, persistent=False)
        if mae:
            init_linears(self.encoder_to_decoder)
            nn.init.normal_(self.mask_token, std=0.02)
        else:
            nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that pre-training does not decay, beside all vectors.

        VideoMAE's code exempts the mask token. MAE's exempts vectors only, so its mask and class
        token, (1, 1, D), decay.
        """
        return {"mask_token"} if self.config.family == "videomae" else set()

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Predict the targets of clips (B, C, T, H, W), uint8 or float in [0, 1]: (B, M, P)."""
        # encode visible tokens
        latents = self.encoder.forward_features(clips, mask.visible)  # (B, V, D)
        x = self.encoder_to_decoder(latents)  # (B, V, E); MAE: (B, 1 + V, E), class token first
        # append mask tokens
        pos_embed = self.decoder_pos_embed  # (N, E)
        visible_pos, query_pos = pos_embed[mask.visible], pos_embed[mask.queries]
        if self.encoder.cls_token is not None:
            visible_pos = F.pad(visible_pos, (0, 0, 1, 0))  # the class token's position is zero
        mask_tokens = (self.mask_token + query_pos).to(x.dtype)  # (B, Q, E)
        x = torch.cat((x + visible_pos, mask_tokens), dim=1)  # (B, V + Q, E)
        # decode the targets
        return self.decoder(x, mask.queries.shape[1], mask.targets)

    def loss(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Mean squared error over the targets, a float32 scalar (VideoMAE, equation 1)."""
        return F.mse_loss(self(clips, mask).float(), pixel_targets(clips, mask, self.config))

    @torch.no_grad()
    def reconstruct(self, clips: torch.Tensor, mask: Mask) -> Reconstruction:
        """Show what the model sees and predicts, computed on its device.

        Normalised targets lack each tubelet's mean and contrast. Both are restored from the input,
        as in the official visualisation: structure comes from the model, brightness does not.
        """
        device = self.mask_token.device
        clips = clips.to(device)
        mask = Mask(*(index.to(device) for index in (mask.visible, mask.queries, mask.targets)))
        tokens = patchify(clips, self.grid)
        index = mask.target_tokens
        predictions = self(clips, mask).float()
        # undo both normalisations
        if self.config.normalize_targets:
            pixels = _predicted_pixels(gather_tokens(tokens, index), self.config)
            mean, scale = _statistics(pixels, self.config)
            predictions = (_by_group(predictions, self.config) * scale + mean).flatten(-2)
        if self.config.family == "mae":
            predictions = denormalize_pixels(predictions, self.config.channels)
        # place on grey
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        unit = to_unit(tokens)
        masked, predicted = torch.full_like(unit, 0.5), torch.full_like(unit, 0.5)
        masked[rows, mask.visible] = unit[rows, mask.visible]
        predicted[rows, index] = predictions.clamp(0, 1)
        pasted = masked.clone()
        pasted[rows, index] = predicted[rows, index]
        return Reconstruction(*(unpatchify(x, self.grid) for x in (masked, predicted, pasted)))


@torch.no_grad()
def pixel_targets(clips: torch.Tensor, mask: Mask, config: ModelConfig) -> torch.Tensor:
    """The pixels that a perfect model would predict, (B, M, P) float32, for the targets only."""
    tokens = gather_tokens(patchify(clips, config.grid), mask.target_tokens)
    pixels = _predicted_pixels(tokens, config)
    if not config.normalize_targets:
        return pixels
    mean, scale = _statistics(pixels, config)
    # In place: `pixels` is already a copy, and on a CPU allocating costs more than the arithmetic.
    return _by_group(pixels, config).sub_(mean).div_(scale).flatten(-2)


def _predicted_pixels(tokens: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """Pixels as the model predicts them: VideoMAE's in [0, 1], MAE's ImageNet-normalised."""
    return normalize_pixels(tokens, config.channels) if config.family == "mae" else to_unit(tokens)


def _by_group(tokens: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """(B, M, P) -> (B, M, P / G, G), where each of the G groups is normalised separately.

    VideoMAE has one group per channel, MAE a single one for all values of a patch.
    """
    groups = config.channels if config.family == "videomae" else 1
    return tokens.unflatten(-1, (-1, groups))


def _statistics(tokens: torch.Tensor, config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and scale (B, M, 1, G) of each group of each token, from the unbiased variance."""
    var, mean = torch.var_mean(_by_group(tokens, config), dim=-2, keepdim=True)
    if config.family == "mae":
        return mean, (var + TARGET_EPS).sqrt()
    return mean, var.sqrt() + TARGET_EPS
