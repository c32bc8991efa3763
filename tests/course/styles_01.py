"""Right answers to lesson 01's exercises in other styles than the solution's."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import einsum
from torch import nn

from vmae.course.checks import notebook_01


def patchify_by_reshape(images, side):
    b, c, height, width = images.shape
    x = images.reshape(b, c, height // side, side, width // side, side)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, side * side * c)


def patchify_by_loops(images, side):
    rows, columns = images.shape[2] // side, images.shape[3] // side
    cut = [
        images[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side]
        for y in range(rows)
        for x in range(columns)
    ]
    return torch.stack([patch.permute(0, 2, 3, 1).flatten(1) for patch in cut], dim=1)


def patchify_by_unfold(images, side):
    x = F.unfold(images, side, stride=side).transpose(1, 2)  # channel, row, column inside
    return x.unflatten(2, (images.shape[1], -1)).transpose(2, 3).flatten(2)


def attention_by_exp(q, k, v):
    scores = einsum(q, k, "b h n d, b h m d -> b h n m") / math.sqrt(q.shape[-1])
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return einsum(weights, v, "b h n m, b h m d -> b h n d"), weights


def attention_scaled_first(q, k, v):
    weights = ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1)
    return [weights @ v, weights]


class AttentionByChunks(nn.Module):
    """One head after another."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.heads = num_heads
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.qkv = nn.Linear(embed_dim, embed_dim * 3)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        parts = zip(*(part.chunk(self.heads, dim=-1) for part in (q, k, v)), strict=True)
        outputs = [notebook_01.attention(*(y[:, None] for y in part))[0][:, 0] for part in parts]
        return self.proj(torch.cat(outputs, dim=-1))


class AttentionByViews(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.qkv, self.proj = nn.Linear(embed_dim, 3 * embed_dim), nn.Linear(embed_dim, embed_dim)
        self.h = num_heads

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.h, d // self.h).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class BlockInOneLine(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.mlp = notebook_01.layers.MLP(embed_dim, embed_dim * 4)
        self.attn = notebook_01.Attention(embed_dim, num_heads)
        self.norm2, self.norm1 = (nn.LayerNorm(embed_dim) for _ in range(2))

    def forward(self, x):
        return (y := x + self.attn(self.norm1(x))) + self.mlp(self.norm2(y))


class OwnMLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class BlockWithOwnMLP(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = AttentionByViews(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = OwnMLP(embed_dim)

    def forward(self, x):
        for norm, branch in ((self.norm1, self.attn), (self.norm2, self.mlp)):
            x = torch.add(x, branch(norm(x)))
        return x


def positions_by_columns(n, width):
    table = torch.zeros(n, width)
    for position in range(n):
        for column in range(0, width, 2):
            angle = position / 10000 ** (column / width)
            table[position, column] = math.sin(angle)
            table[position, column + 1] = math.cos(angle)
    return table


def positions_by_exp(n, width):
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(n, width)
    table[:, 0::2] = torch.sin(torch.arange(n)[:, None] * rates)
    table[:, 1::2] = torch.cos(torch.arange(n)[:, None] * rates)
    return table


class SequentialViT(nn.Module):
    """Blocks in nn.Sequential; zeros for the class token, positions of standard deviation 1."""

    def __init__(self, img_size, patch_size, channels, embed_dim, depth, num_heads, num_classes):
        super().__init__()
        n = (img_size // patch_size) ** 2
        self.patch_embed = notebook_01.PatchEmbed(patch_size, channels, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.randn(1, n + 1, embed_dim))
        blocks = [BlockInOneLine(embed_dim, num_heads) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images):
        patches = self.patch_embed(images)
        first = self.cls_token.repeat(images.shape[0], 1, 1)
        x = self.blocks(torch.cat([first, patches], 1) + self.pos_embed)
        return self.head(self.norm(x[:, 0]))


class OwnPatches(nn.Module):
    def __init__(self, patch_size, channels, embed_dim):
        super().__init__()
        self.proj = nn.Conv2d(channels, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images):
        return self.proj(images).flatten(2).mT


class ConvolutionalViT(nn.Module):
    """The patches by convolution; positions added to class token and patches one by one."""

    def __init__(self, img_size, patch_size, channels, embed_dim, depth, num_heads, num_classes):
        super().__init__()
        self.patch_embed = OwnPatches(patch_size, channels, embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            self.blocks.append(BlockWithOwnMLP(embed_dim, num_heads))
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim).normal_(std=0.02))
        side = img_size // patch_size
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side + 1, embed_dim))

    def forward(self, images):
        patches = self.patch_embed(images) + self.pos_embed[:, 1:]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(images), 1, -1)
        x = torch.hstack((first, patches))
        for i in range(len(self.blocks)):
            x = self.blocks[i](x)
        return self.head(self.norm(x)[:, 0, :])


def train_with_enumerate(model, batches, optimizer, scheduler):
    losses = []
    for _, batch in enumerate(batches):
        model.train()
        optimizer.zero_grad(set_to_none=False)
        loss = nn.CrossEntropyLoss()(model(batch[0]), batch[1])
        losses += [float(loss)]
        loss.backward()
        optimizer.step()
        scheduler.step()
    model.eval()
    return losses


def train_with_tensors(model, batches, optimizer, scheduler):
    """Losses are tensors without a graph; gradients are cleared at the end of each step."""
    model.train()
    losses = []
    for x, y in batches:
        loss = F.nll_loss(F.log_softmax(model(x), dim=1), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return tuple(losses)


class FixedByTransposing(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.attend = nn.MultiheadAttention(embed_dim, num_heads)

    def forward(self, x):
        x = x.transpose(0, 1)  # (B, N, D) -> (N, B, D)
        output, _ = self.attend(x, x, x)
        return output.transpose(0, 1)


RIGHT = {
    "01.patchify": [patchify_by_reshape, patchify_by_loops, patchify_by_unfold],
    "01.attention": [attention_by_exp, attention_scaled_first],
    "01.Attention": [AttentionByChunks, AttentionByViews],
    "01.Block": [BlockInOneLine, BlockWithOwnMLP],
    "01.sincos_1d": [positions_by_columns, positions_by_exp],
    "01.VisionTransformer": [SequentialViT, ConvolutionalViT],
    "01.train": [train_with_enumerate, train_with_tensors],
    "01.TorchAttention": [FixedByTransposing, AttentionByViews],
}
