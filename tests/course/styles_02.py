"""Right answers to the exercises of lesson 02 in other styles, two of each."""

from __future__ import annotations

import torch
from einops import rearrange, repeat

from vmae.course.checks import notebook_02 as course


def masking_by_topk(noise, ratio):
    batch, n = noise.shape
    keep = noise.topk(int(n * (1 - ratio)), largest=False).indices
    restore = torch.empty(batch, n, dtype=torch.long)
    restore.scatter_(1, noise.argsort(1), torch.arange(n).expand(batch, n))
    return keep, restore, torch.ones(batch, n, dtype=torch.bool).scatter(1, keep, False)


def masking_by_loop(noise, ratio):
    keeps, restores, hiddens = [], [], []
    for row in noise.tolist():
        order = sorted(range(len(row)), key=row.__getitem__)
        keeps.append(order[: int(len(row) * (1 - ratio))])
        restores.append([order.index(i) for i in range(len(row))])
        hiddens.append([i not in keeps[-1] for i in range(len(row))])
    return torch.tensor(keeps), torch.tensor(restores), torch.tensor(hiddens)


def unshuffle_by_scatter(latents, mask_token, ids_restore):
    """Fills all N places with mask tokens, then writes the latents over them."""
    batch, n = ids_restore.shape
    x = repeat(mask_token, "1 1 e -> b n e", b=batch, n=n).clone()
    where = ids_restore.argsort(1)[:, : latents.shape[1]]
    return x.scatter(1, where[..., None].expand_as(latents), latents)


def unshuffle_by_rows(latents, mask_token, ids_restore):
    missing = mask_token[0].repeat(ids_restore.shape[1] - latents.shape[1], 1)
    rows = zip(latents, ids_restore, strict=True)
    return torch.stack([torch.cat([x, missing])[ids] for x, ids in rows])


def standardize_by_var_mean(patches):
    var, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) * torch.rsqrt(var + 1e-6)


def standardize_by_hand(patches):
    rest = patches - patches.mean(-1, keepdim=True)
    var = (rest**2).sum(-1, keepdim=True) / (patches.shape[-1] - 1)
    return rest / (var + 1e-6) ** 0.5


def loss_by_index(predicted, target, hidden):
    return torch.nn.functional.mse_loss(predicted[hidden], target[hidden])


def loss_by_loop(predicted, target, hidden):
    pairs = [
        ((p - t) ** 2).mean()
        for rows in zip(predicted, target, hidden, strict=True)
        for p, t, h in zip(*rows, strict=True)
        if h
    ]
    return sum(pairs) / len(pairs)


class EncoderByIndex(course.MAEParts):
    """Embeds the visible patches only, picked with advanced indexing."""

    def forward_encoder(self, images, noise, ratio):
        keep, restore, hidden = masking_by_topk(noise, ratio)
        rows = torch.arange(len(images), device=images.device)[:, None]
        x = self.embed(images)[rows, keep] + self.pos_embed[0, 1 + keep]
        cls = (self.cls_token + self.pos_embed[:, 0]).repeat(len(x), 1, 1)
        return self.norm(torch.nn.Sequential(*self.blocks)(torch.cat([cls, x], 1))), hidden, restore


class EncoderByRows(course.MAEParts):
    """Convolves, adds the class token first, then picks the rows of each image."""

    def forward_encoder(self, images, noise, ratio):
        keep, restore, hidden = masking_by_loop(noise, ratio)
        x = rearrange(self.patch_embed.proj(images), "b d h w -> b (h w) d")
        x = torch.cat([repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x)), x], 1) + self.pos_embed
        first = torch.zeros(len(x), 1, dtype=torch.long)
        ids = torch.cat([first, keep + 1], 1)
        x = torch.stack([row[index] for row, index in zip(x, ids, strict=True)])
        for i in range(len(self.blocks)):
            x = self.blocks[i](x)
        x = self.norm(x)
        return [x, hidden, restore]


class DecoderByScatter(EncoderByIndex):
    def forward_decoder(self, latents, ids_restore):
        cls, seen = self.decoder_embed(latents).split([1, latents.shape[1] - 1], dim=1)
        full = unshuffle_by_scatter(seen, self.mask_token, ids_restore)
        x = torch.cat([cls, full], 1)
        x = torch.nn.Sequential(*self.decoder_blocks)(x + self.decoder_pos_embed)
        return self.decoder_pred(self.decoder_norm(x[:, 1:]))


class DecoderByRows(EncoderByRows):
    def forward_decoder(self, latents, ids_restore):
        y = self.decoder_embed(latents)
        full = unshuffle_by_rows(y[:, 1:], self.mask_token, ids_restore)
        full = full + self.decoder_pos_embed[:, 1:]
        y = torch.cat([y[:, :1] + self.decoder_pos_embed[:, :1], full], dim=1)
        for block in self.decoder_blocks:
            y = block(y)
        y = self.decoder_pred(self.decoder_norm(y))
        return y[:, -ids_restore.shape[1] :]


class MAEByIndex(DecoderByScatter):
    def forward_loss(self, images, predicted, hidden):
        target = self.patchify(images)
        if self.norm_pix_loss:
            target = standardize_by_var_mean(target)
        return ((predicted - target) ** 2)[hidden].mean()

    def forward(self, images, noise, ratio=0.75):
        latents, hidden, ids_restore = self.forward_encoder(images, noise, ratio)
        predicted = self.forward_decoder(latents, ids_restore)
        return self.forward_loss(images, predicted, hidden), predicted, hidden


class MAEInOne(DecoderByRows):
    def forward_loss(self, images, predicted, hidden):
        p = self.grid.tubelet[-1]
        x = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, C, h, p, w, p)
        x = x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return loss_by_loop(predicted, standardize_by_hand(x) if self.norm_pix_loss else x, hidden)

    def forward(self, images, noise, ratio=0.75):
        y, hidden, ids = self.forward_encoder(images, noise, ratio)
        y = self.forward_decoder(y, ids)
        return [self.forward_loss(images, y, hidden), y, hidden]


def decode_restored(model, latents, ids_restore):
    """Restores first, as MAE does."""
    return DecoderByRows.forward_decoder(model, latents, ids_restore)


def decode_with_indexed_positions(model, latents, ids_restore):
    ids_shuffle = torch.argsort(ids_restore, dim=1)
    x = model.decoder_embed(latents)
    missing = model.mask_token.repeat(len(x), 1 + ids_restore.shape[1] - x.shape[1], 1)
    x = torch.cat([x, missing], dim=1)
    x[:, 1:] = x[:, 1:] + model.decoder_pos_embed[0, 1 + ids_shuffle]
    x[:, :1] = x[:, :1] + model.decoder_pos_embed[:, :1]
    for block in model.decoder_blocks:
        x = block(x)
    predicted = model.decoder_pred(model.decoder_norm(x))[:, 1:]
    rows = torch.arange(len(x))[:, None]
    return predicted[rows, ids_restore]


#: By exercise.
RIGHT = {
    "02.random_masking": [masking_by_topk, masking_by_loop],
    "02.MAEEncoder": [EncoderByIndex, EncoderByRows],
    "02.unshuffle": [unshuffle_by_scatter, unshuffle_by_rows],
    "02.MAEDecoder": [DecoderByScatter, DecoderByRows],
    "02.decode_any_order": [decode_restored, decode_with_indexed_positions],
    "02.standardize": [standardize_by_var_mean, standardize_by_hand],
    "02.masked_loss": [loss_by_index, loss_by_loop],
    "02.MAE": [MAEByIndex, MAEInOne],
}
