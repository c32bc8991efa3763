"""The transformer block of ViT, MAE and VideoMAE: pre-norm attention, then a pre-norm MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

#: LayerNorm's epsilon in the official code of MAE and VideoMAE (PyTorch's own default is 1e-5).
NORM_EPS = 1e-6
#: Queries per block when attention is not fused.
BLOCK = 392


class DropPath(nn.Module):
    """Drop a sample's whole residual branch with probability `rate`; scale up the branches kept.

    Also called stochastic depth. Does nothing in eval mode.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep_prob = 1 - self.rate
        kept = torch.empty(x.shape[0], 1, 1, device=x.device, dtype=x.dtype).bernoulli_(keep_prob)
        return x * kept / keep_prob  # the expected value stays that of x

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def is_fused(device: str, dtype: torch.dtype) -> bool:
    """Whether attention uses the fused kernel on this type of device.

    It does except in bf16 on a CPU, where plain matrix products are faster
    (tests/bench/attention.py). Those store the attention weights, (B, heads, N, N), for the
    backward pass.
    """
    return (device, dtype) != ("cpu", torch.bfloat16)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens: (B, N, D) -> (B, N, D).

    `key_bias=False` is VideoMAE's variant: queries and values have a bias, keys do not.
    """

    def __init__(self, embed_dim: int, num_heads: int, key_bias: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=key_bias)
        if not key_bias:
            self.q_bias = nn.Parameter(torch.zeros(embed_dim))
            self.v_bias = nn.Parameter(torch.zeros(embed_dim))
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self._project(x)
        if is_fused(q.device.type, q.dtype):
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = attention_in_blocks(q, k, v)
        return self.proj(rearrange(x, "b heads n d -> b n (heads d)"))

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """The attention weights (B, heads, N, N), which the fused kernel never materialises."""
        q, k, _ = self._project(x)
        return _weights(q, k)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values, (3, B, heads, N, D / heads)."""
        bias = self.qkv.bias
        if bias is None:
            bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        return rearrange(
            qkv, "b n (three heads d) -> three b heads n d", three=3, heads=self.num_heads
        )


def attention_in_blocks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(QKᵀ / √d) V by plain products, one block of queries at a time.

    All tensors are (B, heads, N, d). On a CPU a large result gets freshly allocated memory, which is
    expensive (lesson 09 measures it); the result of a block fits in memory that gets reused.
    """
    return torch.cat([_weights(block, k) @ v for block in q.split(BLOCK, dim=-2)], dim=-2)


def _weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)


class MLP(nn.Module):
    """Two linear layers with the exact (erf) GELU in between: (B, N, D) -> (B, N, D)."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): (B, N, D) -> (B, N, D)."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        key_bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.attn = Attention(embed_dim, num_heads, key_bias)
        self.norm2 = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.mlp = MLP(embed_dim, int(embed_dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class DividedBlock(Block):
    """Attention over time, then over space, then the MLP: the divided block of TimeSformer.

    The tokens must form a grid of `steps` time steps with the same positions in each, ordered by
    time: (B, steps·positions, D) -> the same shape. The visible tokens of full-length tubes form
    one, so masked clips can be encoded too. `temporal_fc` starts at zero in all blocks but the first,
    so these begin as purely spatial blocks. Source: Bertasius et al. 2021 (arXiv 2102.05095),
    figure 2, "divided space-time attention".

    Raises ValueError if the number of tokens is not divisible by `steps`.
    """

    def __init__(
        self,
        steps: int,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        key_bias: bool = False,
    ) -> None:
        super().__init__(embed_dim, num_heads, mlp_ratio, drop_path, key_bias)
        self.steps = steps
        self.temporal_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.temporal_attn = Attention(embed_dim, num_heads, key_bias)
        self.temporal_fc = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] % self.steps:
            raise ValueError(
                f"{x.shape[1]} tokens do not form a grid of {self.steps} time steps: divided "
                "attention requires whole tubes. Set mask_type to 'tube' without tube_length, or "
                "attention to 'joint'"
            )
        batch = x.shape[0]
        # attend over time: each position is a sequence of its own
        time = rearrange(x, "b (t p) d -> (b p) t d", t=self.steps)
        time = self.temporal_fc(self.temporal_attn(self.temporal_norm(time)))
        x = x + self.drop_path(rearrange(time, "(b p) t d -> b (t p) d", b=batch))
        # attend over space: each time step is a sequence of its own
        space = rearrange(x, "b (t p) d -> (b t) p d", t=self.steps)
        space = self.attn(self.norm1(space))
        x = x + self.drop_path(rearrange(space, "(b t) p d -> b (t p) d", b=batch))
        return x + self.drop_path(self.mlp(self.norm2(x)))
