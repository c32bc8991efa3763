"""Right answers to the exercises of lesson 04 in other styles."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import nn

from vmae.positions import sincos_1d


def clip_by_moveaxis(frames):
    return torch.tensor(np.moveaxis(frames, -1, 0))


def clip_by_stack(frames):
    pixels = torch.from_numpy(frames)
    return torch.stack([pixels[..., channel] for channel in range(pixels.shape[-1])])


def dense_by_loop(length, frames, stride, rng):
    last = length - frames * stride
    index = rng.choice(last + 1) if last > 0 else 0
    found = [index]
    while len(found) < frames:
        index += stride if index + stride < length - 1 else 0
        found.append(index)
    return np.array(found)


def dense_by_arange(length, frames, stride, rng):
    room = max(length - frames * stride, 0)
    start = int(rng.random() * (room + 1))
    index = np.arange(start, start + frames * stride, stride, dtype=np.int32)
    last = index[index < length - 1].max(initial=start)
    return np.where(index < length - 1, index, last)


def tsn_by_loop(length, frames, rng):
    size = length // frames
    return np.array([rng.integers(i * size, (i + 1) * size) for i in range(frames)])


def tsn_by_uniform(length, frames, rng):
    size = length // frames
    return (size * (np.arange(frames) + rng.random(frames))).astype(int)


def tubelets_by_loop(clips, sides):
    p_t, p_h, p_w = sides
    _, _, T, H, W = clips.shape
    return torch.stack(
        [
            clips[:, :, t : t + p_t, y : y + p_h, x : x + p_w].permute(0, 2, 3, 4, 1).flatten(1)
            for t in range(0, T, p_t)
            for y in range(0, H, p_h)
            for x in range(0, W, p_w)
        ],
        dim=1,
    )


def tubelets_by_unfold(clips, sides):
    for axis, side in zip((2, 3, 4), sides, strict=True):
        clips = clips.unfold(axis, side, side)
    return clips.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(4).flatten(1, 3)


class ConvolveThenSelect(nn.Module):
    """All tokens by the convolution itself; a plain tensor of positions."""

    def __init__(self, clip, tubelet, embed_dim):
        super().__init__()
        self.proj = nn.Conv3d(3, embed_dim, kernel_size=tubelet, stride=tubelet)
        t, h, w = (side // step for side, step in zip(clip, tubelet, strict=True))
        self.table = sincos_1d(t * h * w, embed_dim)

    def forward(self, clips, visible=None):
        x = self.proj(clips).flatten(2).transpose(1, 2) + self.table
        if visible is None:
            return x
        return torch.gather(x, 1, visible[..., None].expand(-1, -1, x.shape[-1]))


class MatrixOfTubelets(nn.Module):
    """The flattened kernel, channels first, on tubelets whose channels are first, too."""

    def __init__(self, clip, tubelet, embed_dim):
        super().__init__()
        self.tubelet = list(tubelet)
        self.proj = nn.Conv3d(3, embed_dim, tubelet, tubelet)
        count = (clip[0] // tubelet[0]) * (clip[1] // tubelet[1]) * (clip[2] // tubelet[2])
        self.register_buffer("positions", sincos_1d(count, embed_dim)[None], persistent=False)

    def forward(self, clips, visible=None):
        i, p, q = self.tubelet
        x = rearrange(clips, "b c (t i) (h p) (w q) -> b (t h w) (c i p q)", i=i, p=p, q=q)
        positions = self.positions.expand(len(x), -1, -1)
        if visible is not None:
            x = torch.stack([row[kept] for row, kept in zip(x, visible, strict=True)])
            positions = torch.stack(
                [row[kept] for row, kept in zip(positions, visible, strict=True)]
            )
        return x @ self.proj.weight.flatten(1).T + self.proj.bias + positions


RIGHT = {
    "04.to_clip": [clip_by_moveaxis, clip_by_stack],
    "04.dense_indices": [dense_by_loop, dense_by_arange],
    "04.tsn_indices": [tsn_by_loop, tsn_by_uniform],
    "04.tubelets": [tubelets_by_loop, tubelets_by_unfold],
    "04.TubeletEmbed": [ConvolveThenSelect, MatrixOfTubelets],
}
