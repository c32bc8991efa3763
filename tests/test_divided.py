"""Divided space-time attention against plain loops, and its cost against joint attention."""

from __future__ import annotations

import pytest
import torch
from conftest import random_clips, randomize

from vmae.base_config import ConfigError
from vmae.config import MaskConfig, ModelConfig
from vmae.cost import pretraining_multiply_adds
from vmae.layers import DividedBlock
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.train import PretrainConfig


def one_by_one(attention, tokens):
    """Attention within one group of tokens (N, D), head by head, in plain steps."""
    width = tokens.shape[1]
    bias = torch.cat((attention.q_bias, torch.zeros(width), attention.v_bias))
    q, k, v = (tokens @ attention.qkv.weight.T + bias).split(width, dim=1)
    size = width // attention.num_heads
    out = []
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / size**0.5
        out.append(scores.softmax(-1) @ v[:, part])
    return torch.cat(out, dim=1) @ attention.proj.weight.T + attention.proj.bias


def test_a_divided_block_equals_a_loop():
    block = randomize(DividedBlock(3, 12, 2)).eval()
    x = torch.randn(2, 3 * 5, 12, generator=torch.Generator().manual_seed(0))
    expected = x.clone().view(2, 3, 5, 12)
    normed = block.temporal_norm(expected)
    step = torch.zeros_like(expected)
    for b in range(2):
        for p in range(5):
            step[b, :, p] = block.temporal_fc(one_by_one(block.temporal_attn, normed[b, :, p]))
    expected = expected + step
    normed = block.norm1(expected)
    step = torch.zeros_like(expected)
    for b in range(2):
        for t in range(3):
            step[b, t] = one_by_one(block.attn, normed[b, t])
    expected = (expected + step).view(2, 15, 12)
    expected = expected + block.mlp(block.norm2(expected))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=2e-6)


def test_tubes_train_with_divided_attention_and_other_masks_are_refused(tiny):
    config = tiny.replace(attention="divided")
    model = MaskedAutoencoder(config)
    clips = random_clips(config, 2)
    mask = make_mask(MaskConfig("tube", 0.75), config.grid, 2)
    model.loss(clips, mask).backward()
    assert all(p.grad is not None for p in model.parameters())
    odd = make_mask(MaskConfig("random", 0.71), config.grid, 2)
    with pytest.raises(
        ValueError, match="19 tokens do not form a grid of 4 time steps: .* whole tubes. .*'joint'"
    ):
        model(clips, odd)
    with pytest.raises(ConfigError, match="form a grid"):
        PretrainConfig(model=config, mask=MaskConfig("random", 0.9))
    with pytest.raises(ConfigError, match="videomae"):
        ModelConfig.mae("B", attention="divided")


def test_a_new_divided_model_starts_as_a_spatial_one(tiny):
    blocks = MaskedAutoencoder(tiny.replace(attention="divided")).encoder.blocks
    assert all((block.temporal_fc.weight == 0).all() for block in blocks[1:])
    assert (blocks[0].temporal_fc.weight != 0).any()


def test_divided_attention_trades_products_for_projections():
    mask = MaskConfig("tube", 0.9)
    costs = {
        kind: pretraining_multiply_adds(ModelConfig.videomae("B", attention=kind), mask)["encoder"]
        for kind in ("joint", "divided")
    }
    n, t, positions, d = 160, 8, 20, 768
    assert costs["joint"] == 12 * (12 * n * d * d + 2 * n * n * d)
    # One more attention (4 d²) and its extra layer (d²), but n² becomes n·t and n·positions.
    assert costs["divided"] == 12 * (17 * n * d * d + 2 * n * t * d + 2 * n * positions * d)
