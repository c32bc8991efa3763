"""Right answers to the exercises of lesson 03 in other styles, two of each."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from sklearn.preprocessing import StandardScaler
from styles_02 import MAEByIndex

from vmae.course.checks import notebook_02


class MAEByScatter(notebook_02.MAEParts):
    """Writes the latents over a table of mask tokens, class token included."""

    def forward(self, images, noise, ratio=0.75):
        batch, n = noise.shape
        order = torch.argsort(noise, 1)[:, : int(n * (1 - ratio))]
        tokens = rearrange(self.patch_embed.proj(images), "b d h w -> b (h w) d")
        x = torch.cat([self.cls_token.expand(batch, -1, -1), tokens], 1) + self.pos_embed
        seen = torch.cat([torch.zeros(batch, 1, dtype=torch.long), 1 + order], 1)
        x = self.norm(torch.nn.Sequential(*self.blocks)(x[torch.arange(batch)[:, None], seen]))
        y = self.decoder_embed(x)
        full = self.mask_token.repeat(batch, 1 + n, 1).scatter(1, seen[..., None].expand_as(y), y)
        full = torch.nn.Sequential(*self.decoder_blocks)(full + self.decoder_pos_embed)
        z = self.decoder_pred(self.decoder_norm(full[:, 1:]))
        hidden = torch.ones(batch, n, dtype=torch.bool).scatter(1, order, False)
        return [F.mse_loss(z[hidden], self.patchify(images)[hidden]), z, hidden]


def rates_by_numpy(steps, warmup, base, batch):
    rise = np.arange(1, warmup + 1) / warmup
    fall = (1 + np.cos(np.pi * np.arange(steps - warmup) / (steps - warmup))) / 2
    return list(np.concatenate((rise, fall)) * base * batch / 256)


def rates_by_half_angle(steps, warmup, base, batch):
    found = []
    for step in range(steps):
        share = (step + 1) / warmup
        if step >= warmup:
            share = math.cos(math.pi / 2 * (step - warmup) / (steps - warmup)) ** 2
        found.append(share * base * batch / 256)
    return found


def decayed_by_loop(shapes, exempt):
    names = []
    for name in shapes:
        if len(shapes[name]) == 1 or name in exempt:
            continue
        names.append(name)
    return names


def decayed_by_filter(shapes, exempt):
    return list(filter(lambda name: shapes[name][1:] and name not in exempt, shapes))


def pretrain_by_shuffling(model, images, optimizer, rates, batch, ratio, generator):
    """Goes through all images before any comes again; clears the gradients at the end of a step."""
    losses, order = [], []
    for lr in rates:
        if len(order) < batch:
            order = torch.randperm(len(images), generator=generator).tolist()
        chosen, order = order[:batch], order[batch:]
        noise = torch.rand(batch, model.grid.num_tokens, generator=generator)
        for group in optimizer.param_groups:
            group.update(lr=lr)
        loss = model(images[chosen], noise, ratio=ratio)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def pretrain_by_normal_noise(model, images, optimizer, rates, batch, ratio, generator):
    result = ()
    for k in range(len(rates)):
        index = (torch.rand(batch, generator=generator) * len(images)).long()
        noise = torch.randn((batch, model.grid.num_tokens), generator=generator)
        loss, *_ = model(images.index_select(0, index), noise, ratio)
        optimizer.zero_grad()
        loss.backward()
        for i in range(len(optimizer.param_groups)):
            optimizer.param_groups[i]["lr"] = rates[k]
        optimizer.step()
        result += (loss.item(),)
    return list(result)


def load_by_copying(encoder, checkpoint):
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            value = checkpoint["module." + name]
            parameter.copy_(value.unsqueeze(2) if name == "patch_embed.proj.weight" else value)
    return encoder


def load_by_splitting(encoder, checkpoint):
    own, found = encoder.state_dict(), {}
    for name, value in checkpoint.items():
        short = name.split(".", 1)[1]
        if short in own:
            found[short] = value.view_as(own[short])
    encoder.load_state_dict(found, strict=True)
    return encoder


def features_by_sklearn(train, test):
    scaler = StandardScaler().fit(train)
    return tuple(torch.from_numpy(scaler.transform(x)).float() for x in (train, test))


def features_by_batch_norm(train, test):
    mean, var = train.mean(0), train.var(0, unbiased=False)
    return [F.batch_norm(x, mean, var, eps=0.0) for x in (train, test)]


#: By exercise.
RIGHT = {
    "03.MAE": [MAEByIndex, MAEByScatter],
    "03.learning_rates": [rates_by_numpy, rates_by_half_angle],
    "03.decayed": [decayed_by_loop, decayed_by_filter],
    "03.pretrain": [pretrain_by_shuffling, pretrain_by_normal_noise],
    "03.load_encoder": [load_by_copying, load_by_splitting],
    "03.standardize_features": [features_by_sklearn, features_by_batch_norm],
}
