"""Right answers to the exercises of lesson 08 in other styles, two of each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import repeat
from torch import nn

from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask
from vmae.vit import VisionTransformer


def cell_by_loop(shape, ratio, start):
    t, h, w = shape
    out = torch.zeros(t, h, w, dtype=torch.bool)
    off = int(4 * ratio)
    for step in range(t):
        for row in range(h):
            for column in range(w):
                place = 2 * (row % 2) + column % 2
                out[step, row, column] = (place + start + 1 + step) % 4 >= off
    return out


def cell_by_einops(shape, ratio, start):
    t, h, w = shape
    queue = [False] * int(4 * ratio) + [True] * (4 - int(4 * ratio))
    cells = []
    for _ in range(start):
        queue = queue[1:] + queue[:1]
    for _ in range(t):
        queue = queue[1:] + queue[:1]
        cells.append(torch.tensor(queue).reshape(2, 2))
    return repeat(torch.stack(cells), "t p q -> t (h p) (w q)", h=h // 2, w=w // 2)


def mask_by_list(hidden, queried):
    def rows(pick):
        return torch.tensor([[i for i, x in enumerate(row) if x] for row in pick.tolist()])

    queries = rows(queried)
    lists = [[k for k, q in enumerate(row) if hidden[b, q]] for b, row in enumerate(queries)]
    return Mask(rows(~hidden), queries, torch.tensor(lists))


def mask_by_sorting(hidden, queried):
    def first(flags, count):
        return flags.byte().argsort(dim=1, descending=True, stable=True)[:, :count]

    queries = first(queried, int(queried[0].sum()))
    counts = torch.take_along_dim(hidden, queries, 1)
    visible = first(~hidden, int((~hidden)[0].sum()))
    return Mask(visible, queries, first(counts, int(counts[0].sum())))


def loss_by_boolean(predictions, goals, hidden, queries):
    predicted, expected = [], []
    for b, row in enumerate(queries):
        counts = hidden[b][row]
        predicted.append(predictions[b][counts])
        expected.append(goals[b][row[counts]])
    return F.mse_loss(torch.cat(predicted), torch.cat(expected))


def loss_by_rows(predictions, goals, hidden, queries):
    rows = torch.arange(len(queries))[:, None]
    weight = hidden[rows, queries].double()
    error = ((predictions - goals[rows, queries]) ** 2).mean(dim=2).double()
    return ((weight * error).sum() / weight.sum()).float()


def parameters_on_meta(c, classes):
    with torch.device("meta"):
        return sum(p.numel() for p in VisionTransformer(c, classes).parameters())


class ModelWithQueriesFirst(MaskedAutoencoder):
    """Mask tokens before visible tokens, so that `targets` index the sequence directly."""

    def forward(self, clips, mask):
        rows = torch.arange(len(clips))[:, None]
        table = self.decoder_pos_embed[None]
        seen = self.encoder_to_decoder(self.encoder.forward_features(clips, mask.visible))
        seen = seen + torch.take_along_dim(table, mask.visible[..., None], 1)
        asked = self.mask_token + torch.take_along_dim(table, mask.queries[..., None], 1)
        x = nn.Sequential(*self.decoder.blocks)(torch.cat([asked, seen], dim=1))
        return self.decoder.head(self.decoder.norm(x[rows, mask.targets]))


class ModelOnAllPlaces(MaskedAutoencoder):
    """Predicts every query and keeps the targets at the very end."""

    def forward(self, clips, mask):
        x = self.encoder.forward_features(clips, mask.visible)
        (b, v), q = x.shape[:2], mask.queries.shape[1]
        place = torch.cat([mask.visible, mask.queries], dim=1)
        x = torch.cat([self.encoder_to_decoder(x), self.mask_token.repeat(b, q, 1)], dim=1)
        x = x + F.embedding(place, self.decoder_pos_embed)
        for block in self.decoder.blocks:
            x = block(x)
        pixels = self.decoder.head(self.decoder.norm(x))[:, v:]
        return torch.stack([p[i] for p, i in zip(pixels, mask.targets, strict=True)])


def parameters_by_layer(c, classes):
    d, inner = c.embed_dim, int(c.embed_dim * c.mlp_ratio)
    block = [(d, 3 * d, 0), (2, d, 0), (d, d, d), (d, inner, inner), (inner, d, d), (4, d, 0)]
    ends = [(c.grid.token_dim, d, d), (2, d, 0), (d, classes, classes)]
    total = sum(c.depth * (a * b + bias) for a, b, bias in block)
    return total + sum(a * b + bias for a, b, bias in ends)


RIGHT = {
    "08.running_cell": [cell_by_loop, cell_by_einops],
    "08.dual_mask": [mask_by_list, mask_by_sorting],
    "08.DualMasked": [ModelWithQueriesFirst, ModelOnAllPlaces],
    "08.dual_loss": [loss_by_boolean, loss_by_rows],
    "08.classifier_parameters": [parameters_on_meta, parameters_by_layer],
}
