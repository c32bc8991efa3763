"""VideoMAE as its paper and its official code compute it, step by step: what the benchmark compares with.

Written for the benchmark from the published algorithm, with its known costs: every token is embedded
by a 3-D convolution, masks are boolean, attention writes its matrix down, targets are computed for
all tokens. It reads the parameters of our model, so both have the same weights, and their gradients
arrive at the same place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vmae.config import IMAGENET_MEAN, IMAGENET_STD
from vmae.layers import NORM_EPS, Block
from vmae.mae import MaskedAutoencoder
from vmae.vit import VisionTransformer


def normalized(clips: torch.Tensor) -> torch.Tensor:
    """uint8 clips (B, C, T, H, W) as ImageNet-normalised floats, as the official loader gives them."""
    mean, std = (torch.tensor(x).view(1, 3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (clips.float() / 255 - mean.to(clips.device)) / std.to(clips.device)


def norm(x: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, NORM_EPS)


def block(x: torch.Tensor, weights: Block) -> torch.Tensor:
    """Pre-norm attention with the softmax written out, then the MLP."""
    batch, tokens, width = x.shape
    attn, heads = weights.attn, weights.attn.num_heads
    bias = torch.cat((attn.q_bias, torch.zeros_like(attn.v_bias), attn.v_bias))
    qkv = F.linear(norm(x, weights.norm1), attn.qkv.weight, bias)
    q, k, v = qkv.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
    x = x + attn.proj(mixed)
    return x + weights.mlp.fc2(F.gelu(weights.mlp.fc1(norm(x, weights.norm2))))


def embed(pixels: torch.Tensor, encoder: VisionTransformer) -> torch.Tensor:
    """All tokens (B, N, D) by a 3-D convolution, with positions."""
    conv = encoder.patch_embed.proj
    x = F.conv3d(pixels, conv.weight, conv.bias, stride=encoder.grid.tubelet)
    return x.flatten(2).transpose(1, 2) + encoder.pos_embed


def targets(pixels: torch.Tensor, model: MaskedAutoencoder, hidden: torch.Tensor) -> torch.Tensor:
    """Targets of all tokens, of which the hidden ones are then taken: (B, M, P)."""
    mean, std = (torch.tensor(x, device=pixels.device) for x in (IMAGENET_MEAN, IMAGENET_STD))
    unit = pixels * std.view(1, 3, 1, 1, 1) + mean.view(1, 3, 1, 1, 1)
    (t, h, w), (p_t, p_h, p_w) = model.grid.shape, model.grid.tubelet
    cubes = unit.reshape(len(unit), 3, t, p_t, h, p_h, w, p_w).permute(0, 2, 4, 6, 3, 5, 7, 1)
    cubes = cubes.reshape(len(unit), t * h * w, p_t * p_h * p_w, 3)
    if model.config.normalize_targets:
        spread = cubes.var(-2, unbiased=True, keepdim=True).sqrt() + 1e-6
        cubes = (cubes - cubes.mean(-2, keepdim=True)) / spread
    tokens = cubes.flatten(2)
    return tokens[hidden].reshape(len(unit), -1, tokens.shape[2])


def pretraining_loss(
    model: MaskedAutoencoder, pixels: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """V1's loss for normalised clips and a boolean mask (B, N), True where a token is hidden."""
    batch, width = len(pixels), model.config.embed_dim
    x = embed(pixels, model.encoder)
    x = x[~hidden].reshape(batch, -1, width)
    for weights in model.encoder.blocks:
        x = block(x, weights)
    x = model.encoder_to_decoder(norm(x, model.encoder.norm))
    positions = model.decoder_pos_embed.expand(batch, -1, -1)
    known = positions[~hidden].reshape(batch, -1, x.shape[2])
    asked = positions[hidden].reshape(batch, -1, x.shape[2])
    x = torch.cat((x + known, model.mask_token + asked), dim=1)
    for weights in model.decoder.blocks:
        x = block(x, weights)
    answers = model.decoder.head(norm(x[:, -asked.shape[1] :], model.decoder.norm))
    return F.mse_loss(answers.float(), targets(pixels, model, hidden))


def logits(model: VisionTransformer, pixels: torch.Tensor) -> torch.Tensor:
    """The classifier's answer (B, classes) for normalised clips."""
    x = embed(pixels, model)
    for weights in model.blocks:
        x = block(x, weights)
    return model.head(norm(x.mean(1), model.fc_norm))
