"""Right answers to the exercises of lesson 09 in other styles, two of each."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum, repeat

from vmae.mae import pixel_targets
from vmae.masking import Mask


def step_by_slices(model, optimizer, clips, mask, parts=1):
    size, losses = len(clips) // parts, []
    optimizer.zero_grad(set_to_none=False)
    for first in range(0, len(clips), size):
        rows = slice(first, first + size)
        own = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
        loss = model.loss(clips[rows], own)
        (loss / parts).backward()
        losses.append(loss.detach())
    optimizer.step()
    return torch.stack(losses).mean()


def step_by_scaled_gradients(model, optimizer, clips, mask, parts=1):
    for p in model.parameters():
        p.grad = None
    total = 0
    chunks = (x.chunk(parts) for x in (clips, mask.visible, mask.queries, mask.targets))
    for some, *indices in zip(*chunks, strict=True):
        loss = model.loss(some, Mask(*indices))
        loss.backward()
        total += float(loss.detach())
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= parts
    optimizer.step()
    return np.float64(total / parts)


def embedded_by_clip(tokens, visible, weight, bias, positions):
    return torch.stack(
        [x[v] @ weight.T + bias + positions[v] for x, v in zip(tokens, visible, strict=True)]
    )


def embedded_by_gather(tokens, visible, weight, bias, positions):
    index = repeat(visible, "b v -> b v p", p=tokens.shape[-1])
    return torch.addmm(
        bias, tokens.gather(1, index).flatten(0, 1), weight.T
    ).unflatten(0, visible.shape) + positions[visible]  # fmt: skip


def attended_by_einsum(q, k, v):
    scores = einsum(q, k, "b h i d, b h j d -> b h i j") / np.sqrt(q.shape[-1])
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return einsum(weights, v, "b h i j, b h j d -> b h i d")


def attended_row_by_row(q, k, v):
    d = q.shape[-1]
    heads = [
        torch.softmax(a.mm(b.t()) * d**-0.5, dim=1).mm(c)
        for a, b, c in zip(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), strict=True)
    ]
    return torch.stack(heads).unflatten(0, q.shape[:2])


def evaluated_by_item(model, batches):
    return np.mean([model.loss(clips, mask).item() for clips, mask in batches])


@torch.inference_mode()
def evaluated_in_inference_mode(model, batches):
    total = torch.zeros(())
    for clips, mask in batches:
        total += F.mse_loss(model(clips, mask), pixel_targets(clips, mask, model.config)).cpu()
    return float(total / len(batches))


def counted_by_name(rows, wide_in, wide_out, size):
    flops = rows * wide_out * (2 * wide_in)
    moved = size * rows * wide_in + size * wide_in * wide_out + size * rows * wide_out
    return flops / moved


def counted_per_side(rows, wide_in, wide_out, size):
    return 2 / size / (1 / wide_out + 1 / rows + 1 / wide_in)


def planned_by_steps(base_lr, batch, repeat, processes, accumulate, videos, warmup_epochs):
    each = batch // processes // accumulate * repeat
    return base_lr / 256 * batch, each, (videos - videos % batch) // batch * warmup_epochs


def planned_as_list(base_lr, batch, repeat, processes, accumulate, videos, warmup_epochs):
    clips, _ = divmod(batch * repeat, processes * accumulate)
    return [base_lr * (batch / 256), clips, warmup_epochs * int(videos / batch)]


RIGHT = {
    "09.train_step": [step_by_slices, step_by_scaled_gradients],
    "09.embed_visible": [embedded_by_clip, embedded_by_gather],
    "09.attention": [attended_row_by_row, attended_by_einsum],
    "09.evaluation_loss": [evaluated_by_item, evaluated_in_inference_mode],
    "09.linear_intensity": [counted_by_name, counted_per_side],
    "09.plan": [planned_by_steps, planned_as_list],
}
