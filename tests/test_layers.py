"""Every implementation of attention computes the same formula."""

import pytest
import torch

from vmae.layers import BLOCK, Attention, attention_in_blocks


def formula(layer: Attention, x: torch.Tensor) -> torch.Tensor:
    """Attention head by head, as written in the paper."""
    width, size = x.shape[-1], x.shape[-1] // layer.num_heads
    rows = layer.qkv.weight.view(3, layer.num_heads, size, width)
    values = layer.v_bias.view(layer.num_heads, size)
    queries = layer.q_bias.view(layer.num_heads, size)
    mixed = []
    for head in range(layer.num_heads):
        q = x @ rows[0, head].T + queries[head]
        k, v = x @ rows[1, head].T, x @ rows[2, head].T + values[head]
        mixed.append((q @ k.transpose(1, 2) / size**0.5).softmax(-1) @ v)
    return torch.cat(mixed, -1) @ layer.proj.weight.T + layer.proj.bias


@pytest.fixture
def layer() -> Attention:
    torch.manual_seed(0)
    layer = Attention(64, 4)
    for bias in (layer.q_bias, layer.v_bias):
        torch.nn.init.normal_(bias)
    torch.nn.init.normal_(layer.qkv.weight, std=0.1)
    return layer


def results(layer: Attention, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of the input and all parameters."""
    x = x.clone().requires_grad_()
    y = layer(x)
    gradients = torch.autograd.grad((y.float() ** 2).sum(), [x, *layer.parameters()])
    return [y.float(), *gradients]


def expected(layer: Attention, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    y = formula(layer, x)
    return [y, *torch.autograd.grad((y**2).sum(), [x, *layer.parameters()])]


def test_attention_is_the_formula(layer: Attention) -> None:
    x = torch.randn(2, 30, 64)
    for ours, theirs in zip(results(layer, x), expected(layer, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_bf16_attention_is_the_formula_within_its_rounding(layer: Attention) -> None:
    x = torch.randn(2, 30, 64)
    with torch.autocast("cpu", torch.bfloat16):
        low = results(layer, x)
    for ours, theirs in zip(low, expected(layer, x), strict=True):
        assert (
            ours - theirs
        ).norm() < 0.01 * theirs.norm()  # bf16 keeps 8 bits: 0.004 per rounding


@pytest.mark.parametrize("tokens", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_attention_in_blocks_is_attention(tokens: int) -> None:
    qkv = [torch.randn(2, 3, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weight = torch.randn(2, 3, tokens, 8, dtype=torch.float64)
    ours, fused = (
        [y, *torch.autograd.grad((y * weight).sum(), qkv)]
        for y in (attention_in_blocks(*qkv), torch.nn.functional.scaled_dot_product_attention(*qkv))
    )
    torch.testing.assert_close(ours, fused)


def test_attention_maps_are_the_weights_that_mix_the_values(layer: Attention) -> None:
    x = torch.randn(2, 30, 64)
    weights = layer.weights(x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 30))
    _, _, v = layer._project(x)
    mixed = (weights @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(layer.proj(mixed), layer(x), rtol=1e-4, atol=1e-4)
