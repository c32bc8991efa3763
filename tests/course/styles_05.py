"""Right answers to the exercises of lesson 05 in other styles."""

from __future__ import annotations

import torch
from einops import rearrange, repeat

from vmae.config import MaskConfig
from vmae.grid import TokenGrid
from vmae.masking import Mask, make_mask


def tube_by_loop(noise, ratio):
    batch, t, n = noise.shape
    hidden = torch.zeros(batch, t, n, dtype=torch.bool)
    for b in range(batch):
        for place in sorted(range(n), key=lambda i: -noise[b, 0, i])[: int(ratio * n)]:
            hidden[b, :, place] = True
    return hidden.reshape(batch, -1)


def tube_by_topk(noise, ratio):
    t, n = noise.shape[1:]
    gone = noise[:, 0].topk(int(ratio * n)).indices
    frame = torch.zeros(len(noise), n).scatter(1, gone, 1.0)
    return repeat(frame, "b n -> b (t n)", t=t) > 0


def short_by_tube(noise, ratio, length):
    tubes = [tube_by_topk(part, ratio) for part in noise.split(length, dim=1)]
    return torch.cat(tubes, dim=1)


def short_by_expand(noise, ratio, length):
    noise = rearrange(noise, "b (k s) n -> b k s n", s=length)
    keep = noise.shape[-1] - int(ratio * noise.shape[-1])
    order = noise[:, :, 0].argsort(-1)[..., :keep]
    frame = torch.ones_like(noise[:, :, 0], dtype=torch.bool).scatter(2, order, False)
    return rearrange(frame[:, :, None].expand_as(noise), "b k s n -> b (k s) n").flatten(1)


def indices_by_loop(hidden):
    rows = hidden.tolist()
    visible = torch.tensor([[i for i, gone in enumerate(row) if not gone] for row in rows])
    queries = torch.tensor([[i for i, gone in enumerate(row) if gone] for row in rows])
    targets = torch.tensor([list(range(len(row))) for row in queries])
    return Mask(visible, queries, targets)


def indices_by_masked_select(hidden):
    numbers = torch.arange(hidden.shape[1]).expand_as(hidden)
    visible = numbers[~hidden].reshape(len(hidden), -1)
    queries = numbers[hidden].reshape(len(hidden), -1)
    return Mask(visible, queries, torch.arange(queries.shape[1]).repeat(len(hidden), 1))


class PermutedGenerator:
    """Permutations, clip by clip and tube by tube; the frame's columns and rows are never joined."""

    def __init__(self, input_size, mask_type, mask_ratio, length=None):
        self.t, self.h, self.w = input_size
        self.kind, self.ratio, self.steps = mask_type, mask_ratio, length

    def one(self, total, g):
        hidden = torch.zeros(total, dtype=torch.bool)
        hidden[torch.randperm(total, generator=g)[: int(self.ratio * total)]] = True
        return hidden

    def clip(self, g):
        n = self.h * self.w
        if self.kind == "random":
            return self.one(self.t * n, g)
        if self.kind == "frame":
            return self.one(self.t, g)[:, None].expand(self.t, n).reshape(-1)
        steps = self.steps or self.t
        return torch.cat([self.one(n, g).repeat(steps) for _ in range(self.t // steps)])

    def __call__(self, batch, generator):
        return indices_by_loop(torch.stack([self.clip(generator) for _ in range(batch)]))


class PackageGenerator:
    """The package's masks, on a grid whose tokens are single pixels."""

    def __init__(self, input_size, mask_type, mask_ratio, length=None):
        self.grid = TokenGrid(tuple(input_size), (1, 1, 1))
        self.config = MaskConfig(mask_type, mask_ratio, tube_length=length)

    def __call__(self, batch, generator=None):
        return make_mask(self.config, self.grid, batch, generator)


def copy_by_loop(tokens, hidden):
    out = tokens.clone()
    batch, _, n = hidden.shape
    for b in range(batch):
        mean = tokens[b][~hidden[b]].mean(0)
        gone = hidden[b].T.tolist()  # n, t
        for i in range(n):
            seen = [s for s, unseen in enumerate(gone[i]) if not unseen]
            for s, unseen in enumerate(gone[i]):
                if unseen:
                    near = min(seen, key=lambda other, s=s: abs(other - s), default=None)
                    out[b, s, i] = mean if near is None else tokens[b, near, i]
    return out


def copy_by_growing(tokens, hidden):
    """Outwards from the visible steps, one step at a time: first from before, then from after."""
    out, known = tokens.clone(), ~hidden
    for far in range(1, tokens.shape[1]):
        for to in range(tokens.shape[1]):
            for source in (to - far, to + far):
                if 0 <= source < tokens.shape[1]:
                    take = ~known[:, to] & ~hidden[:, source]
                    out[:, to] = torch.where(take[..., None], tokens[:, source], out[:, to])
                    known[:, to] |= take
    seen = (~hidden)[..., None].float()
    mean = (tokens * seen).sum((1, 2)) / seen.sum((1, 2))
    return torch.where(known[..., None], out, mean[:, None, None])


RIGHT = {
    "05.tube_mask": [tube_by_loop, tube_by_topk],
    "05.short_tubes": [short_by_tube, short_by_expand],
    "05.mask_indices": [indices_by_loop, indices_by_masked_select],
    "05.MaskingGenerator": [PermutedGenerator, PackageGenerator],
    "05.copy_in_time": [copy_by_loop, copy_by_growing],
}
