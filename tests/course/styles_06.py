"""Right answers to the exercises of lesson 06 in other styles, two of each."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import nn

from vmae.course.checks import notebook_06 as course
from vmae.grid import gather_tokens
from vmae.masking import make_mask


def counted_by_list(shape, ratio, family):
    t, h, w = shape
    everything = list(range(t * h * w))
    if family == "mae":
        return len(everything[: int(len(everything) * (1 - ratio))])
    if family == "random":
        return len(everything[int(ratio * len(everything)) :])
    return sum(len(range(int(ratio * h * w), h * w)) for _ in range(t))


def counted_by_table(shape, ratio, family):
    t, h, w = shape
    n = t * h * w
    return {
        "mae": int(n * (1 - ratio)),
        "random": n - int(n * ratio),
        "tube": t * (h * w - int(h * w * ratio)),
    }[family]


def targets_by_einops(tokens):
    x = rearrange(tokens, "b n (p c) -> b n p c", c=3)
    var, mean = torch.var_mean(x, dim=2, keepdim=True)
    return rearrange((x - mean) / (var**0.5 + 1e-6), "b n p c -> b n (p c)")


def targets_by_loop(tokens):
    out = torch.empty_like(tokens)
    for channel in range(3):
        x = tokens[..., channel::3]
        out[..., channel::3] = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
    return out


def input_by_loop(latents, mask_token, positions, mask):
    rows = []
    for b in range(len(latents)):
        known = [x + positions[i] for x, i in zip(latents[b], mask.visible[b], strict=True)]
        asked = [mask_token[0, 0] + positions[i] for i in mask.queries[b]]
        rows.append(torch.stack(known + asked))
    return torch.stack(rows)


def input_at_once(latents, mask_token, positions, mask):
    empty = mask_token.repeat(*mask.queries.shape, 1)
    where = torch.cat((mask.visible, mask.queries), dim=1)
    return torch.cat((latents, empty), dim=1) + positions[where]


def loss_by_gather(predictions, pixels, mask):
    def take(x, index):
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))

    predicted, expected = take(predictions, mask.targets), take(pixels, mask.target_tokens)
    return torch.nn.functional.mse_loss(predicted, expected)


def loss_by_loop(predictions, pixels, mask):
    errors = []
    for b, row in enumerate(mask.targets):
        for i in row:
            errors.append((predictions[b, i] - pixels[b, mask.queries[b, i]]).square().mean())
    return torch.stack(errors).mean()


class VisibleOnly(course.VideoMAEParts):
    """Embeds the visible tubelets only, by a linear layer, as the package does."""

    def forward(self, clips, mask):
        seen = gather_tokens(self.patchify((clips - self.mean) / self.std), mask.visible)
        proj = self.encoder.patch_embed.proj
        weight = rearrange(proj.weight, "d c t p q -> d (t p q c)")
        x = nn.functional.linear(seen, weight, proj.bias) + self.pos_embed[mask.visible]
        x = self.encoder.norm(nn.Sequential(*self.encoder.blocks)(x))
        x = input_at_once(self.encoder_to_decoder(x), self.mask_token, self.decoder_pos_embed, mask)
        x = nn.Sequential(*self.decoder.blocks)(x)
        predictions = self.decoder.head(self.decoder.norm(x[:, mask.visible.shape[1] :]))
        pixels = self.patchify(clips)
        pixels = targets_by_einops(pixels) if self.normalize else pixels
        return loss_by_gather(predictions, pixels, mask), predictions


class InOriginalOrder(course.VideoMAEParts):
    """Restores the order before the decoder, as MAE does, and predicts all tokens."""

    def forward(self, clips, mask):
        x = self.embed(clips) + self.pos_embed[None]
        rows = torch.arange(len(x))[:, None]
        x = x[rows, mask.visible]
        for i in range(len(self.encoder.blocks)):
            x = self.encoder.blocks[i](x)
        y = self.encoder_to_decoder(self.encoder.norm(x))
        full = repeat(self.mask_token, "1 1 e -> b n e", b=len(x), n=self.grid.num_tokens).clone()
        full[rows, mask.visible] = y
        y = full + self.decoder_pos_embed
        for block in self.decoder.blocks:
            y = block(y)
        every = self.decoder.head(self.decoder.norm(y))  # (B, N, P)
        predictions = every[rows, mask.queries]
        pixels = self.patchify(clips)
        if self.normalize:
            pixels = targets_by_loop(pixels)
        error = (predictions - pixels[rows, mask.queries]).pow(2).mean(-1)
        return error.gather(1, mask.targets).mean(), predictions


def _step(model, optimizer, batch, mask):
    loss, _ = model(batch, mask)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def seeded_by_step(model, clips, scheme, steps, lr, seed):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
    losses = []
    for step, batch in zip(range(steps), clips, strict=False):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        mask = make_mask(scheme, model.grid, len(batch), generator)
        losses.append(_step(model, optimizer, batch, mask))
        schedule.step()
    return losses


def seeded_once(model, clips, scheme, steps, lr, seed):
    g = torch.Generator()
    g.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95))
    batches = iter(clips)
    draws = (
        (batch, make_mask(scheme, model.grid, batch.shape[0], g))
        for batch in (next(batches) for _ in range(steps))
    )
    return [_step(model, optimizer, *draw) for draw in draws]


#: By exercise.
RIGHT = {
    "06.visible_tokens": [counted_by_list, counted_by_table],
    "06.decoder_input": [input_by_loop, input_at_once],
    "06.normalize_targets": [targets_by_einops, targets_by_loop],
    "06.masked_loss": [loss_by_gather, loss_by_loop],
    "06.VideoMAE": [VisibleOnly, InOriginalOrder],
    "06.pretrain": [seeded_by_step, seeded_once],
}
