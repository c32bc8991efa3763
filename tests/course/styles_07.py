"""Right answers to the exercises of lesson 07 in other styles, two of each."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import reduce
from torch import nn

from vmae.course.checks import notebook_07 as course
from vmae.layers import Block
from vmae.positions import build_pos_embed
from vmae.vit import PatchEmbed


def transfer_from_the_file(classifier, file):
    found = {}
    for theirs in file:
        own = theirs.removeprefix("encoder.")
        if theirs.startswith("encoder.") and own in classifier:
            found[own] = theirs
    return found


def transfer_by_part(classifier, file):
    kept = [x for x in classifier if x.split(".")[0] in ("patch_embed", "blocks")]
    return {x: "encoder." + x for x in kept}


def rate_by_table(name, depth, decay):
    part, _, rest = name.partition(".")
    layer = {"patch_embed": 0, "blocks": rest.split(".")[0]}.get(part, depth)
    scales = [decay**k for k in range(depth + 1, -1, -1)]
    return scales[int(layer) + (part != "patch_embed")]


def mixed_by_loop(clips, labels, classes, share, smoothing):
    out, targets = torch.empty_like(clips), torch.full((len(labels), classes), smoothing / classes)
    for i, label in enumerate(labels):
        j = len(labels) - 1 - i
        out[i] = torch.lerp(clips[j], clips[i], share)
        targets[i, label] += share * (1 - smoothing)
        targets[i, labels[j]] += (1 - share) * (1 - smoothing)
    return out, targets


def views_by_index(logits, videos):
    total = torch.zeros(int(videos.max()) + 1, logits.shape[1])
    total.index_add_(0, videos, F.softmax(logits, dim=-1))
    return total / torch.bincount(videos)[:, None]


def views_by_matrix(logits, videos):
    whose = F.one_hot(videos).float()  # (views, videos)
    return (whose / whose.sum(0)).T @ logits.softmax(-1)


def rate_by_counting(name, depth, decay):
    scale = 1.0
    parts = ["patch_embed.", *(f"blocks.{i}." for i in range(depth))]
    for above in range(depth + 1, 0, -1):
        if name.startswith(parts[depth + 1 - above]):
            return scale * decay**above
    return scale


def mixed_by_einsum(clips, labels, classes, share, smoothing):
    n = len(clips)
    weights = share * torch.eye(n) + (1 - share) * torch.eye(n).flip(0)  # (B, B)
    soft = torch.full((n, classes), smoothing / classes)
    soft[torch.arange(n), labels] += 1 - smoothing
    return torch.einsum("ij,jcthw->icthw", weights, clips), weights @ soft


class ClassifierOfParts(nn.Module):
    """Without the lesson's parts."""

    def __init__(self, config, num_classes):
        super().__init__()
        d = config.embed_dim
        self.grid = config.grid
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.Sequential(
            *[Block(d, config.num_heads, config.mlp_ratio) for _ in range(config.depth)]
        )
        self.fc_norm = nn.LayerNorm(d, eps=1e-6)
        self.head = nn.Linear(d, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.head.weight, std=0.02 * 0.001)
        self.table = build_pos_embed(config, d)

    def forward(self, clips):
        tokens = self.patch_embed(course.patchify(clips, self.grid))
        x = self.blocks(tokens + self.table)
        return self.head(self.fc_norm(reduce(x, "b n d -> b d", "mean")))


class ClassifierByHand(course.EncoderParts):
    def __init__(self, config, num_classes):
        super().__init__(config)
        self.fc_norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.head = nn.Linear(config.embed_dim, num_classes)
        with torch.no_grad():
            self.head.weight *= 1e-3
            self.head.bias *= 1e-3

    def forward(self, clips):
        x = torch.add(self.patch_embed(course.patchify(clips, self.grid)), self.pos_embed[None])
        for i in range(len(self.blocks)):
            x = self.blocks[i](x)
        x = self.fc_norm(x.sum(dim=1) / x.shape[1])
        return x @ self.head.weight.T + self.head.bias


def _groups(model, decay, depth):
    for name, p in model.named_parameters():
        scale = course.rate_scale(name, depth, decay)
        yield {"params": [p], "scale": scale, "weight_decay": 0.05 if p.ndim > 1 else 0.0}


def loop_with_a_scheduler(model, batches, steps, lr=1e-3, decay=1.0):
    groups = list(_groups(model, decay, len(model.blocks)))
    for group in groups:
        group["lr"] = lr * group["scale"]
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: min(1, (k + 1) / (0.1 * steps)) * (1 + math.cos(math.pi * k / steps)) / 2,
    )
    model.train()
    losses = []
    for clips, targets in batches:
        if len(losses) == steps:
            break
        loss = F.cross_entropy(model(clips), targets)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach().numpy().item())
    return losses


def loop_over_an_iterator(model, batches, steps, lr=1e-3, decay=1.0):
    optimizer = torch.optim.AdamW(list(_groups(model, decay, len(model.blocks))), lr=lr)
    model.train()
    batches, losses = iter(batches), torch.zeros(steps)
    for step in range(steps):
        clips, targets = next(batches)
        optimizer.zero_grad(set_to_none=True)
        losses[step] = loss = -(targets * model(clips).log_softmax(-1)).sum(-1).mean()
        loss.backward(retain_graph=True)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        rise = (step + 1) / (0.1 * steps)
        factor = min(rise, 1.0) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        for g in optimizer.param_groups:
            g.update(lr=lr * factor * g["scale"])
        optimizer.step()
    return losses.tolist()


def drop_by_bernoulli(branch, rate, training):
    if not training:
        return branch
    kept = torch.bernoulli(torch.full((branch.shape[0],), 1 - rate))
    return branch * kept[:, None, None] / (1 - rate)


def drop_by_index(branch, rate, training):
    out = branch.clone()
    if training and rate > 0:
        gone = [i for i in range(len(branch)) if torch.rand(()).item() < rate]
        out = out / (1 - rate)
        out[gone] = 0
    return out


RIGHT = {
    "07.transfer": [transfer_from_the_file, transfer_by_part],
    "07.Classifier": [ClassifierOfParts, ClassifierByHand],
    "07.rate_scale": [rate_by_table, rate_by_counting],
    "07.fine_tune": [loop_with_a_scheduler, loop_over_an_iterator],
    "07.mix_batch": [mixed_by_loop, mixed_by_einsum],
    "07.drop_path": [drop_by_bernoulli, drop_by_index],
    "07.mean_over_views": [views_by_index, views_by_matrix],
}
