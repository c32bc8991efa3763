"""Exercises of notebook 02: random masks, an MAE in three parts, its loss, a decoder with a bug."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import nn

from vmae import ROOT, grid
from vmae.config import IMAGENET_MEAN, IMAGENET_STD
from vmae.course import viz
from vmae.course.checks.core import Exercise
from vmae.course.checks.drawings import as_colours, loss_among
from vmae.course.checks.modules import ModuleCase, module_exercise, weights_of
from vmae.grid import TokenGrid
from vmae.grid import gather_tokens as take
from vmae.init import init_linears
from vmae.layers import NORM_EPS, Block
from vmae.positions import sincos_2d

Masking = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

#: Sizes of the MAE whose trained weights are in data/weights/image.
SHIPPED: dict[str, Any] = {
    "embed_dim": 160,
    "depth": 4,
    "num_heads": 5,
    "decoder_embed_dim": 96,
    "decoder_depth": 3,
    "decoder_num_heads": 3,
}


def patchify(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Cut images (B, C, H, W) into patches (B, N, patch·patch·C), channel fastest."""
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(tokens: torch.Tensor, rows: int, columns: int, patch: int) -> torch.Tensor:
    """Reassemble patches (B, rows·columns, patch·patch·C) into images (B, C, H, W)."""
    return rearrange(
        tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, w=columns, p=patch, q=patch
    )


# ---- reference solutions -------------------------------------------------------------------------


def random_masking(noise: torch.Tensor, ratio: float) -> Masking:
    """Keep the tokens with the smallest noise (B, N), separately for each image.

    Returns ids_keep (B, V), ordered by noise; ids_restore (B, N), the index of each token after the
    shuffle; hidden (B, N) bool. Keeps int(N·(1 - ratio)) tokens. Source: MAE, section 3;
    `models_mae.py`.
    """
    ids_shuffle = noise.argsort(dim=1)
    ids_restore = ids_shuffle.argsort(dim=1)
    keep = int(noise.shape[1] * (1 - ratio))
    return ids_shuffle[:, :keep], ids_restore, ids_restore >= keep


def unshuffle(
    latents: torch.Tensor, mask_token: torch.Tensor, ids_restore: torch.Tensor
) -> torch.Tensor:
    """Append mask tokens (1, 1, E) to latents (B, V, E) and restore the token order: (B, N, E)."""
    batch, tokens = ids_restore.shape
    missing = mask_token.expand(batch, tokens - latents.shape[1], -1)
    return take(torch.cat((latents, missing), dim=1), ids_restore)


def standardize(patches: torch.Tensor) -> torch.Tensor:
    """Standardise each patch (B, N, P) to mean 0 and variance 1 over its P values.

    The variance is unbiased, and 1e-6 is added to it (MAE, section 3, "reconstruction target").
    """
    mean = patches.mean(dim=-1, keepdim=True)
    return (patches - mean) / (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def masked_loss(
    predicted: torch.Tensor, target: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over the hidden patches: (B, N, P), (B, N, P), (B, N) bool -> scalar."""
    error = (predicted - target).square().mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()


class MAEParts(nn.Module):
    """The parameters of an MAE, named and initialised as in `models_mae.py`; it computes nothing."""

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        norm_pix_loss: bool = False,
    ) -> None:
        super().__init__()
        self.norm_pix_loss = norm_pix_loss
        p, d, e, side = patch_size, embed_dim, decoder_embed_dim, img_size // patch_size
        self.grid = TokenGrid((1, img_size, img_size), (1, p, p))
        projection = nn.Conv2d(3, d, p, p)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, d))
        self.pos_embed = _fixed_positions(side, d)
        self.blocks = nn.ModuleList(Block(d, num_heads, key_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(d, e)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, e))
        self.decoder_pos_embed = _fixed_positions(side, e)
        self.decoder_blocks = nn.ModuleList(
            Block(e, decoder_num_heads, key_bias=True) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(e, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(e, p * p * 3)
        init_linears(self)
        nn.init.xavier_uniform_(projection.weight.data.flatten(1))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, N, D): each patch projected by itself; no positions yet."""
        return self.patch_embed["proj"](images).flatten(2).transpose(1, 2)

    def patchify(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, N, P)."""
        return grid.patchify(images[:, :, None], self.grid)

    def unpatchify(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, N, P) -> (B, 3, H, W)."""
        return grid.unpatchify(patches, self.grid)[:, :, 0]


def _fixed_positions(side: int, width: int) -> nn.Parameter:
    """(1, 1 + N, width): a zero row for the class token, then the sin-cos table; not trained."""
    table = nn.functional.pad(sincos_2d(side, side, width), (0, 0, 1, 0))
    return nn.Parameter(table[None], requires_grad=False)


class MAEEncoder(MAEParts):
    """With the encoder: the class token and the visible patches through all blocks and the norm."""

    def forward_encoder(self, images: torch.Tensor, noise: torch.Tensor, ratio: float) -> Masking:
        """Latents (B, 1 + V, D), hidden (B, N) bool and ids_restore (B, N)."""
        x = self.embed(images) + self.pos_embed[:, 1:]  # (B, N, D)
        ids_keep, ids_restore, hidden = random_masking(noise, ratio)
        return self._through_blocks(take(x, ids_keep)), hidden, ids_restore

    def _through_blocks(self, x: torch.Tensor) -> torch.Tensor:
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat((class_token, x), dim=1)  # (B, 1 + V, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class MAEDecoder(MAEEncoder):
    """With the decoder: mask tokens added, order restored, pixels of every patch predicted."""

    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        """(B, 1 + V, D) -> (B, N, P)."""
        x = self.decoder_embed(latents)  # (B, 1 + V, E)
        full = unshuffle(x[:, 1:], self.mask_token, ids_restore)  # (B, N, E)
        return self._pixels(torch.cat((x[:, :1], full), dim=1) + self.decoder_pos_embed)

    def _pixels(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]


class MAE(MAEDecoder):
    """The whole: encoder, decoder, loss."""

    def forward_loss(
        self, images: torch.Tensor, predicted: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared error over the hidden patches, of pixels or normalised pixels."""
        target = self.patchify(images)
        return masked_loss(predicted, standardize(target) if self.norm_pix_loss else target, hidden)

    def forward(self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75) -> Masking:
        """The loss, predicted (B, N, P) and hidden (B, N) bool."""
        latents, hidden, ids_restore = self.forward_encoder(images, noise, ratio)
        predicted = self.forward_decoder(latents, ids_restore)
        return self.forward_loss(images, predicted, hidden), predicted, hidden


def decode_any_order(
    model: MAEParts, latents: torch.Tensor, ids_restore: torch.Tensor
) -> torch.Tensor:
    """What `forward_decoder` predicts, without restoring the order before the blocks: (B, N, P)."""
    x = model.decoder_embed(latents)  # (B, 1 + V, E)
    batch, patches = ids_restore.shape
    missing = model.mask_token.expand(batch, 1 + patches - x.shape[1], -1)
    x = torch.cat((x, missing), dim=1)  # (B, 1 + N, E): class token, visible, mask tokens
    own = take(model.decoder_pos_embed[:, 1:].expand(batch, -1, -1), ids_restore.argsort(dim=1))
    x = x + torch.cat((model.decoder_pos_embed[:, :1].expand(batch, -1, -1), own), dim=1)
    for block in model.decoder_blocks:
        x = block(x)
    predicted = model.decoder_pred(model.decoder_norm(x))[:, 1:]  # (B, N, P), still shuffled
    return take(predicted, ids_restore)


# ---- mistakes ----------------------------------------------------------------------------------


def _hidden_side(noise: torch.Tensor, ratio: float) -> Masking:
    ids_shuffle, ids_restore = noise.argsort(dim=1), noise.argsort(dim=1).argsort(dim=1)
    keep = noise.shape[1] - int(ratio * noise.shape[1])
    return ids_shuffle[:, :keep], ids_restore, ids_restore >= keep


def _not_inverted(noise: torch.Tensor, ratio: float) -> Masking:
    keep, _, hidden = random_masking(noise, ratio)
    return keep, noise.argsort(dim=1), hidden


def _single_argsort(noise: torch.Tensor, ratio: float) -> Masking:
    keep, _, _ = random_masking(noise, ratio)
    return keep, noise.argsort(dim=1), noise.argsort(dim=1) >= keep.shape[1]


def _shuffled_hidden(noise: torch.Tensor, ratio: float) -> Masking:
    keep, restore, hidden = random_masking(noise, ratio)
    return keep, restore, torch.arange(hidden.shape[1]).expand_as(hidden) >= keep.shape[1]


def _compared_shuffle(noise: torch.Tensor, ratio: float) -> Masking:
    keep, restore, _ = random_masking(noise, ratio)
    return keep, restore, restore.argsort(dim=1) >= keep.shape[1]


def _inverted(noise: torch.Tensor, ratio: float) -> Masking:
    keep, restore, hidden = random_masking(noise, ratio)
    return keep, restore, ~hidden


def _sorted_keep(noise: torch.Tensor, ratio: float) -> Masking:
    keep, restore, hidden = random_masking(noise, ratio)
    return keep.sort(dim=1).values, restore, hidden


def _joined(
    latents: torch.Tensor, token: torch.Tensor, restore: torch.Tensor, extra: int = 0
) -> torch.Tensor:
    """Latents, of which `extra` stand for no patch, then mask tokens."""
    missing = token.expand(len(latents), extra + restore.shape[1] - latents.shape[1], -1)
    return torch.cat((latents, missing), dim=1)


def _tokens_first(
    latents: torch.Tensor, token: torch.Tensor, restore: torch.Tensor
) -> torch.Tensor:
    joined = _joined(latents, token, restore)
    return take(joined.roll(-latents.shape[1], dims=1), restore)


def _divided(x: torch.Tensor, dims: Any, unbiased: bool = True) -> torch.Tensor:
    """Standardised over other axes, or with the biased variance."""
    var = x.var(dim=dims, unbiased=unbiased, keepdim=True)
    return (x - x.mean(dim=dims, keepdim=True)) / (var + 1e-6).sqrt()


def _centred(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(dim=-1, keepdim=True)


def _error(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (predicted - target).square().mean(dim=-1)


class _PositionsAfterMasking(MAEEncoder):
    def forward_encoder(self, images: torch.Tensor, noise: torch.Tensor, ratio: float) -> Masking:
        ids_keep, restore, hidden = random_masking(noise, ratio)
        x = take(self.embed(images), ids_keep)
        return self._through_blocks(x + self.pos_embed[:, 1 : 1 + x.shape[1]]), hidden, restore


class _ShiftedPositions(MAEEncoder):
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return super().embed(images) + self.pos_embed[:, :-1] - self.pos_embed[:, 1:]


class _NoPositions(MAEEncoder):
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return super().embed(images) - self.pos_embed[:, 1:]


class _NoClassToken(MAEEncoder):
    def _through_blocks(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _ClassTokenWithoutPosition(MAEEncoder):
    def _through_blocks(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _ClassTokenLast(MAEEncoder):
    def _through_blocks(self, x: torch.Tensor) -> torch.Tensor:
        return super()._through_blocks(x).roll(-1, dims=1)


class _NoNorm(MAEEncoder):
    def _through_blocks(self, x: torch.Tensor) -> torch.Tensor:
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat((class_token, x), dim=1)
        for block in self.blocks:
            x = block(x)
        return x


class _BlocksUnused(MAEEncoder):
    def _through_blocks(self, x: torch.Tensor) -> torch.Tensor:
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        return self.norm(torch.cat((class_token, x), dim=1))


class _HiddenAsZeros(MAEEncoder):
    def forward_encoder(self, images: torch.Tensor, noise: torch.Tensor, ratio: float) -> Masking:
        x = self.embed(images) + self.pos_embed[:, 1:]
        _, restore, hidden = random_masking(noise, ratio)
        return self._through_blocks(x * ~hidden[..., None]), hidden, restore


class _AllPatches(MAEEncoder):
    def forward_encoder(self, images: torch.Tensor, noise: torch.Tensor, ratio: float) -> Masking:
        _, restore, hidden = random_masking(noise, ratio)
        return self._through_blocks(self.embed(images) + self.pos_embed[:, 1:]), hidden, restore


class _PositionsBeforeRestoring(MAEDecoder):
    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        x = _joined(self.decoder_embed(latents), self.mask_token, ids_restore, 1)
        x = x + self.decoder_pos_embed
        return self._pixels(torch.cat((x[:, :1], take(x[:, 1:], ids_restore)), dim=1))


class _NotRestored(MAEDecoder):
    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        x = _joined(self.decoder_embed(latents), self.mask_token, ids_restore, 1)
        return self._pixels(x + self.decoder_pos_embed)


class _NoDecoderPositions(MAEDecoder):
    def _pixels(self, x: torch.Tensor) -> torch.Tensor:
        return super()._pixels(x - self.decoder_pos_embed)


class _PositionsOfMaskTokensOnly(MAEDecoder):
    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        x = self.decoder_embed(latents)
        full = unshuffle(x[:, 1:], self.mask_token, ids_restore)
        hidden = (ids_restore >= latents.shape[1] - 1)[..., None]
        full = full + hidden * self.decoder_pos_embed[:, 1:]
        return self._pixels(torch.cat((x[:, :1] + self.decoder_pos_embed[:, :1], full), dim=1))


class _ZerosForMaskTokens(MAEDecoder):
    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        x = self.decoder_embed(latents)
        full = unshuffle(x[:, 1:], 0 * self.mask_token.detach(), ids_restore)
        return self._pixels(torch.cat((x[:, :1], full), dim=1) + self.decoder_pos_embed)


class _ClassTokenKept(MAEDecoder):
    def _pixels(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))


class _LastTokenDropped(_ClassTokenKept):
    def _pixels(self, x: torch.Tensor) -> torch.Tensor:
        return super()._pixels(x)[:, :-1]


class _NoClassTokenInDecoder(MAEDecoder):
    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        full = unshuffle(self.decoder_embed(latents)[:, 1:], self.mask_token, ids_restore)
        x = full + self.decoder_pos_embed[:, 1:]
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))


class _ClassTokenUnshuffled(MAEDecoder):
    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        x = unshuffle(self.decoder_embed(latents), self.mask_token, ids_restore)
        x = x + self.decoder_pos_embed[:, 1:]
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))


class _DecoderBlocksUnused(MAEDecoder):
    def _pixels(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]


class _NoDecoderNorm(MAEDecoder):
    def _pixels(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(x)[:, 1:]


def _with_loss(loss: Callable[[MAE, torch.Tensor, torch.Tensor, torch.Tensor], Any]) -> type[MAE]:
    """An MAE with another loss, of (model, images, predicted, hidden)."""

    class Other(MAE):
        def forward_loss(
            self, images: torch.Tensor, predicted: torch.Tensor, hidden: torch.Tensor
        ) -> torch.Tensor:
            return loss(self, images, predicted, hidden)

    return Other


def _target(model: MAE, images: torch.Tensor) -> torch.Tensor:
    target = model.patchify(images)
    return standardize(target) if model.norm_pix_loss else target


def _channel_first(patches: torch.Tensor) -> torch.Tensor:
    return rearrange(patches, "b n (p c) -> b n (c p)", c=3)


class _FixedRatio(MAE):
    def forward(self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75) -> Masking:
        return super().forward(images, noise, 0.75)


class _Swapped(MAE):
    def forward(self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75) -> Masking:
        latents, ids_restore, hidden = self.forward_encoder(images, noise, ratio)
        predicted = self.forward_decoder(latents, ids_restore)
        return self.forward_loss(images, predicted, hidden), predicted, hidden


class _PastedInto(MAE):
    def forward(self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75) -> Masking:
        loss, predicted, hidden = super().forward(images, noise, ratio)
        patches = self.patchify(images)
        return loss, torch.where(hidden[..., None], predicted, patches), hidden


class _Visible(MAE):
    def forward(self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75) -> Masking:
        loss, predicted, hidden = super().forward(images, noise, ratio)
        return loss, predicted, ~hidden


def _restored_twice(
    model: MAEParts, latents: torch.Tensor, ids_restore: torch.Tensor
) -> torch.Tensor:
    return take(decode_any_order(model, latents, ids_restore), ids_restore)


def _any_order(positions: str, restore: bool = True) -> Callable[..., torch.Tensor]:
    """The decoder that does not restore the order, with a bug in what tokens get as positions."""

    def decode(model: MAEParts, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        x = _joined(model.decoder_embed(latents), model.mask_token, ids_restore, 1)
        table = model.decoder_pos_embed.expand(len(x), -1, -1)
        index = {"first": None, "restore": ids_restore, "own": ids_restore.argsort(dim=1)}[
            positions
        ]
        if index is not None:
            table = torch.cat((table[:, :1], take(table[:, 1:], index)), dim=1)
        x = x + table
        for block in model.decoder_blocks:
            x = block(x)
        predicted = model.decoder_pred(model.decoder_norm(x))[:, 1:]
        return take(predicted, ids_restore) if restore else predicted

    return decode


# ---- drawings ----------------------------------------------------------------------------------


def _draw_masks(result: Masking, noise: torch.Tensor, ratio: float) -> None:
    patches = patchify(_cat(), 16)[:, : noise.shape[1]]  # (1, 196, 768)
    shown = [_greyed(patches, row) for row in result[2][:3]]
    viz.pictures(
        {f"image {i + 1}": x for i, x in enumerate(shown)},
        "The cat under the masks of your first three images: what you hide is grey.",
    )


def _draw_encoder(result: Masking, arguments: dict[str, Any], inputs: tuple[Any, ...]) -> None:
    latents, hidden, _ = result
    kept = inputs[1][0].argsort()[: latents.shape[1] - 1]  # patches in the order of the latents
    colours = torch.full((196, 3), 0.5)
    colours[kept] = as_colours(latents[0, 1:].detach())
    viz.pictures(
        {
            f"{int((~hidden[0]).sum())} patches not hidden": _greyed(
                patchify(_cat(), 16), hidden[0]
            ),
            f"latents, {tuple(latents[0].shape)}, as colours": colours.view(14, 14, 3),
        },
        "The patches of the cat that you report as visible; and the latents that your encoder makes of "
        "them with the shipped weights, each in its patch: three principal components as colours, so that "
        "eyes, fur and background differ.",
    )


def _draw_decoder(result: torch.Tensor, arguments: dict[str, Any], inputs: tuple[Any, ...]) -> None:
    viz.pictures(
        {"yours": _pasted(result, inputs[1])},
        "The cat: 49 visible patches, and what your decoder predicts of the others with the shipped "
        "weights.",
    )


def _draw_mae(result: Masking, arguments: dict[str, Any], inputs: tuple[Any, ...]) -> None:
    _, predicted, hidden = result
    patches = patchify(_cat(), 16)
    pasted = torch.where(hidden[:1, :, None], patchify(_picture(predicted[:1])[None], 16), patches)
    viz.pictures(
        {
            "hidden": _greyed(patches, hidden[0]),
            "with your predictions": unpatchify(pasted, 14, 14, 16)[0],
        },
        "What your model hides of the cat; and its predictions in place of the hidden patches, with the "
        "shipped weights.",
    )


def _draw_any_order(result: torch.Tensor, *case: Any) -> None:
    expected = decode_any_order(_shipped(), *case)
    viz.pictures(
        {"yours": _pasted(result, case[1]), "expected": _pasted(expected, case[1])},
        "The cat from 49 patches: hidden ones as your program decodes them, and as it should.",
    )


def _draw_tokens(result: torch.Tensor, *case: torch.Tensor) -> None:
    both = {"yours": result, "expected": unshuffle(*case)}
    viz.pictures(
        {name: unpatchify(x[:1], 14, 14, 16)[0] for name, x in both.items()},
        "The cat from its patches: visible ones in your order and in the expected one, with the mask "
        "token, an orange patch, for each hidden one.",
    )


def _draw_patches(result: torch.Tensor, patches: torch.Tensor) -> None:
    both = {"yours": result, "expected": standardize(patches)}
    viz.pictures(
        {"the cat": unpatchify(patches[:1] / 255, 14, 14, 16)[0]}
        | {name: unpatchify(x[:1] / 5 + 0.5, 14, 14, 16)[0] for name, x in both.items()},
        "The cat; its patches as your function standardises them, and as they should be: every patch has "
        "the same mean and contrast, so that whiskers and plain fur are equally strong.",
    )


def _draw_loss(result: torch.Tensor, *case: torch.Tensor) -> None:
    predicted, target, hidden = case
    loss_among(
        {
            "visible patches": masked_loss(predicted, target, ~hidden),
            "all patches": _error(predicted, target).mean(),
            "hidden patches": masked_loss(*case),
        },
        result,
    )


# ---- inputs ------------------------------------------------------------------------------------


@cache
def _cat() -> torch.Tensor:
    """The central square of the photo, (1, 3, 224, 224) in [0, 1]."""
    photo = ImageOps.fit(Image.open(ROOT / "data/photos/cat.jpg").convert("RGB"), (224, 224))
    return torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None] / 255


def _statistics() -> torch.Tensor:
    return torch.tensor([IMAGENET_MEAN, IMAGENET_STD]).view(2, 3, 1, 1)


def _to_unit(images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] from those that the model reads."""
    mean, std = _statistics()
    return (images * std + mean).clamp(0, 1)


def _both_cats() -> torch.Tensor:
    """The cat and its mirror image, as the model reads them: (2, 3, 224, 224)."""
    mean, std = _statistics()
    return (torch.cat((_cat(), _cat().flip(-1))) - mean) / std


def _picture(predicted: torch.Tensor) -> torch.Tensor:
    """Predicted patches (1, 196, 768) as an image (3, 224, 224) in [0, 1]."""
    return _to_unit(unpatchify(predicted.detach(), 14, 14, 16))[0]


def _pasted(predicted: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
    """The cat with predictions (B, 196, 768) of its hidden patches, of which there are 147."""
    hidden = (ids_restore[:1] >= 49)[..., None]
    patches = patchify(_both_cats()[:1], 16)
    return _picture(torch.where(hidden, predicted[:1].detach(), patches))


def _greyed(patches: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Patches (1, N, P) as an image, hidden (N,) ones grey; N may be a smaller square."""
    side = int(len(hidden) ** 0.5)
    chosen = patches.view(14, 14, -1)[7 - side // 2 :, 7 - side // 2 :][:side, :side]
    grey = torch.where(hidden[: side * side, None], 0.6, chosen.reshape(1, side * side, -1))
    return unpatchify(grey, side, side, 16)[0]


@cache
def _shipped() -> MAE:
    """The reference with the trained weights of data/weights/image."""
    model = MAE(**SHIPPED)
    model.load_state_dict(load_file(ROOT / "data" / "weights" / "image" / "model.safetensors"))
    return model.eval()


def _weights(reference: type[nn.Module], arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The trained weights for the model of their size, else random ones."""
    if arguments == SHIPPED:
        return _shipped().state_dict()
    return weights_of(reference, arguments)


def _small(norm_pix_loss: bool = False) -> dict[str, Any]:
    return {
        "img_size": 40, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3,
        "decoder_embed_dim": 8, "decoder_depth": 1, "decoder_num_heads": 2,
        "norm_pix_loss": norm_pix_loss,
    }  # fmt: skip


def _encoder_cases(g: torch.Generator) -> list[ModuleCase]:
    small = torch.randn(3, 3, 40, 40, generator=g), torch.rand(3, 25, generator=g), 0.6
    return [(SHIPPED, (_both_cats(), torch.rand(2, 196, generator=g), 0.75)), (_small(), small)]


def _decoder_cases(g: torch.Generator) -> list[ModuleCase]:
    cases: list[ModuleCase] = []
    with torch.no_grad():
        for images, arguments in ((_both_cats(), SHIPPED), (torch.randn(3, 3, 40, 40), _small())):
            noise = torch.rand(len(images), 196 if arguments is SHIPPED else 25, generator=g)
            encoder = _shipped() if arguments is SHIPPED else MAE(**arguments)
            latents, _, ids_restore = encoder.forward_encoder(images, noise, 0.75)
            cases.append((arguments, (latents, ids_restore)))
    return cases


def _mae_cases(g: torch.Generator) -> list[ModuleCase]:
    small = [
        (_small(normalised), (torch.randn(3, 3, 40, 40, generator=g), torch.rand(3, 25), 0.6))
        for normalised in (False, True)
    ]
    return [(SHIPPED, (_both_cats(), torch.rand(2, 196, generator=g))), *small]


def _any_order_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    return [inputs for _, inputs in _decoder_cases(g)[:1]]


def _masking_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = ((3, 196, 0.75), (2, 11, 0.75), (4, 25, 0.9))
    return [(torch.rand(batch, n, generator=g), ratio) for batch, n, ratio in sizes]


def _token_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    keep, restore, _ = random_masking(torch.rand(2, 196, generator=g), 0.75)
    patches = patchify(torch.cat((_cat(), _cat().flip(-1))), 16)
    orange = torch.tensor([0.9, 0.6, 0.1]).repeat(256).view(1, 1, 768)
    cases: list[tuple[Any, ...]] = [(take(patches, keep), orange, restore)]
    for batch, n, width in ((3, 12, 8), (2, 20, 4)):
        keep, restore, _ = random_masking(torch.rand(batch, n, generator=g), 0.75)
        latents = torch.randn(batch, keep.shape[1], width, generator=g)
        cases.append((latents, torch.randn(1, 1, width, generator=g), restore))
    return cases


def _target_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    patches = torch.randn(2, 5, 12, generator=g) * torch.rand(2, 5, 1, generator=g)
    patches = patches + torch.randn(2, 5, 1, generator=g)
    patches[:, 3] = 1e-3 * torch.randn(
        2, 12, generator=g
    )  # nearly flat, so that the epsilon matters
    flat = torch.rand(3, 4, 27, generator=g)
    flat[1, 2] = 0.5
    # the cat, and a darker one, of 0 to 255: the epsilon does not matter here
    photos = 255 * patchify(torch.cat((_cat(), 0.6 * _cat().flip(-1))), 16)  # (2, 196, 768)
    return [(photos,), (patches,), (flat,)]


def _loss_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for batch, n, pixels in ((2, 8, 27), (3, 20, 48)):
        hidden = random_masking(torch.rand(batch, n, generator=g), 0.75)[2]
        target = torch.randn(batch, n, pixels, generator=g)
        noise = torch.randn(batch, n, pixels, generator=g)
        cases.append((target + noise * (0.4 + hidden[..., None]), target, hidden))
    return cases


EXERCISES = (
    Exercise(
        "02.random_masking",
        random_masking,
        _masking_cases,
        {
            "every image gets the same mask: sort each image's noise separately, with dim=1": (
                lambda noise, ratio: random_masking(noise[:1].expand_as(noise), ratio)
            ),
            "the number of kept tokens is wrong when ratio * N is not an integer: keep "
            "int(N * (1 - ratio)) tokens and hide the rest; do not round, and do not compute the "
            "number of hidden tokens first": _hidden_side,
            "ids_restore is the shuffle itself, not its inverse: compute the argsort of "
            "ids_shuffle": _not_inverted,
            "ids_restore is the shuffle itself, not its inverse, so `hidden` marks the wrong tokens, too: "
            "compute the argsort of ids_shuffle": _single_argsort,
            "`hidden` is in shuffled order: unshuffle it with ids_restore": (_shuffled_hidden),
            "`hidden` compares the patch numbers in ids_shuffle with the number of kept ones: a patch is "
            "visible if its index in that order, ids_restore, is below it": _compared_shuffle,
            "`hidden` is inverted: set it to True for the tokens that the encoder does not "
            "see": _inverted,
            "the tokens with the largest noise values are kept: keep those with the smallest "
            "values instead": (lambda noise, ratio: random_masking(-noise, ratio)),
            "ids_keep is sorted, so it no longer matches ids_restore: leave it in shuffled "
            "order": _sorted_keep,
        },
        draw=_draw_masks,
    ),
    module_exercise(
        "02.MAEEncoder",
        MAEEncoder,
        _encoder_cases,
        {
            "the positions are added after masking, so the visible patches get those of the first "
            "ones: add them to all patches, then keep some": _PositionsAfterMasking,
            "the positions are shifted by one: row 0 of pos_embed belongs to the class token, so "
            "patches get pos_embed[:, 1:]": _ShiftedPositions,
            "the positions are missing: add pos_embed[:, 1:] to the embedded patches": _NoPositions,
            "the class token is missing: put cls_token before the visible patches": _NoClassToken,
            "the class token lacks its position: add pos_embed[:, :1] to it": (
                _ClassTokenWithoutPosition
            ),
            "the class token comes last: put it before the patches": _ClassTokenLast,
            "the final norm is missing: return self.norm(x)": _NoNorm,
            "what the blocks return is lost: assign it, x = block(x)": _BlocksUnused,
            "the hidden patches are set to zero, but still encoded: keep the visible ones only, "
            "(B, V, D), with ids_keep": _HiddenAsZeros,
            "the encoder sees all patches: keep the visible ones only, with ids_keep": _AllPatches,
        },
        draw=_draw_encoder,
        method="forward_encoder",
        weights=_weights,
    ),
    Exercise(
        "02.unshuffle",
        unshuffle,
        _token_cases,
        {
            "the tokens are not unshuffled, so the visible ones still come first: gather them "
            "with ids_restore": _joined,
            "ids_restore is applied in the wrong direction: read token i from index "
            "ids_restore[i] with a single gather, not with a scatter or a second argsort": (
                lambda x, token, restore: take(_joined(x, token, restore), restore.argsort(dim=1))
            ),
            "the mask tokens come before the visible tokens: put the visible tokens first, as "
            "ids_restore expects": _tokens_first,
            "every image is unshuffled with the first image's ids_restore: use each image's "
            "own row": lambda x, token, restore: unshuffle(
                x, token, restore[:1].expand_as(restore)
            ),
            "the hidden positions are filled with zeros: fill them with the mask token instead": (
                lambda x, token, restore: unshuffle(x, torch.zeros_like(token), restore)
            ),
        },
        draw=_draw_tokens,
    ),
    module_exercise(
        "02.MAEDecoder",
        MAEDecoder,
        _decoder_cases,
        {
            "the positions are added before the order is restored, so each token carries the "
            "position of another: call unshuffle first": _PositionsBeforeRestoring,
            "the order is not restored, so the visible tokens still come first: call unshuffle on "
            "the patches": _NotRestored,
            "the positions are missing: add decoder_pos_embed to all tokens": _NoDecoderPositions,
            "only mask tokens get positions: the visible ones need theirs as well": (
                _PositionsOfMaskTokensOnly
            ),
            "the hidden patches are filled with zeros: fill them with the mask token, or it never "
            "learns": _ZerosForMaskTokens,
            "the class token is still there: return the patches only, [:, 1:]": _ClassTokenKept,
            "the last patch is dropped in place of the class token, so all are shifted by one: "
            "return [:, 1:]": _LastTokenDropped,
            "the class token does not go through the decoder: put it back before the patches": (
                _NoClassTokenInDecoder
            ),
            "the class token is unshuffled as if it were a patch: set x[:, :1] aside, and unshuffle "
            "x[:, 1:] only": _ClassTokenUnshuffled,
            "decoder_norm is missing before decoder_pred": _NoDecoderNorm,
            "what the blocks return is lost: assign it, x = block(x)": _DecoderBlocksUnused,
        },
        draw=_draw_decoder,
        method="forward_decoder",
        weights=_weights,
    ),
    Exercise(
        "02.decode_any_order",
        decode_any_order,
        _any_order_cases,
        {
            "tokens and positions do not belong together: which patch does the token at index 1 stand "
            "for, and which position is added to it?": _any_order("first"),
            "the positions are reordered in the wrong direction: token k of the shuffled order is "
            "patch ids_shuffle[k], and ids_shuffle is ids_restore.argsort(dim=1)": (
                _any_order("restore")
            ),
            "the positions are right now, but the result is in shuffled order: restore the order of "
            "the predictions at the end": _any_order("own", restore=False),
            "the order is restored twice, before the blocks and after them: once is enough": _restored_twice,
            "the positions are still those of the original order, and the result is no longer restored": (
                _any_order("first", restore=False)
            ),
        },
        draw=_draw_any_order,
        run=lambda answer, *case: answer(_shipped(), *case).detach(),
    ),
    Exercise(
        "02.standardize",
        standardize,
        _target_cases,
        {
            "the variance is biased, since the sum is divided by P: divide by P - 1 instead, "
            "as in MAE and torch.var": lambda x: _divided(x, -1, unbiased=False),
            "the mean and variance are computed over the whole batch: compute them separately "
            "for each patch, with dim=-1": (lambda x: _divided(x, (0, 1, 2))),
            "the mean and variance are computed across the patches of an image: compute them "
            "over the values of each patch, with dim=-1": lambda x: _divided(x, 1),
            "all patches of an image share one mean and one variance: compute both per patch, "
            "with dim=-1": (lambda x: _divided(x, (1, 2))),
            "the epsilon is missing, so constant patches cause a division by zero: add 1e-6 "
            "to the variance": (lambda x: _centred(x) / x.std(dim=-1, keepdim=True)),
            "the epsilon is added to the standard deviation, as in VideoMAE: add it to the "
            "variance, inside the square root, as in MAE": (
                lambda x: _centred(x) / (x.std(dim=-1, keepdim=True) + 1e-6)
            ),
            "the values are divided by the variance: divide them by the standard deviation, "
            "its square root": (lambda x: _centred(x) / (x.var(dim=-1, keepdim=True) + 1e-6)),
            "only the mean is subtracted: divide by the standard deviation as well": _centred,
            "each channel is standardised separately, as in VideoMAE: standardise all values "
            "of a patch together, as in MAE": lambda x: _divided(
                x.unflatten(-1, (-1, 3)), -2
            ).flatten(-2),
        },
        draw=_draw_patches,
    ),
    Exercise(
        "02.masked_loss",
        masked_loss,
        _loss_cases,
        {
            "the loss also includes the visible patches: weight the errors by `hidden`": (
                lambda predicted, target, hidden: _error(predicted, target).mean()
            ),
            "the loss includes only the visible patches: average over the hidden patches "
            "instead, where `hidden` is True": (
                lambda predicted, target, hidden: masked_loss(predicted, target, ~hidden)
            ),
            "the summed error is divided by the total number of patches: divide it by the "
            "number of hidden patches, hidden.sum()": (
                lambda predicted, target, hidden: (_error(predicted, target) * hidden).mean()
            ),
            "the errors are summed over the hidden patches: divide the sum by the number of "
            "hidden patches, hidden.sum()": (
                lambda predicted, target, hidden: (_error(predicted, target) * hidden).sum()
            ),
            "the squared errors are summed over all hidden values: average them over the "
            "pixels of each patch, then over the hidden patches": lambda predicted, target, hidden: (
                (predicted - target)[hidden].square().sum()
            ),
            "the errors are summed within each patch: average them instead": (
                lambda predicted, target, hidden: (
                    masked_loss(predicted, target, hidden) * target.shape[-1]
                )
            ),
            "the loss is the mean absolute error: square the differences instead": (
                lambda predicted, target, hidden: (predicted - target)[hidden].abs().mean()
            ),
            "the loss is the root mean squared error: do not take the square root": (
                lambda predicted, target, hidden: masked_loss(predicted, target, hidden).sqrt()
            ),
        },
        draw=_draw_loss,
    ),
    module_exercise(
        "02.MAE",
        MAE,
        _mae_cases,
        {
            "the targets are never normalised: with norm_pix_loss, standardise them": _with_loss(
                lambda model, images, predicted, hidden: masked_loss(
                    predicted, model.patchify(images), hidden
                )
            ),
            "the targets are always normalised: standardise them only with norm_pix_loss": _with_loss(
                lambda model, images, predicted, hidden: masked_loss(
                    predicted, standardize(model.patchify(images)), hidden
                )
            ),
            "the predictions are standardised too: standardise the targets only": _with_loss(
                lambda model, images, predicted, hidden: masked_loss(
                    standardize(predicted) if model.norm_pix_loss else predicted,
                    _target(model, images),
                    hidden,
                )
            ),
            "the loss also includes the visible patches: use masked_loss": _with_loss(
                lambda model, images, predicted, hidden: _error(
                    predicted, _target(model, images)
                ).mean()
            ),
            "the loss includes only the visible patches: average over the hidden ones": _with_loss(
                lambda model, images, predicted, hidden: masked_loss(
                    predicted, _target(model, images), ~hidden
                )
            ),
            "the targets are cut with the channel first: the decoder predicts each pixel's channels side "
            "by side, as patchify does": _with_loss(
                lambda model, images, predicted, hidden: masked_loss(
                    predicted, _channel_first(_target(model, images)), hidden
                )
            ),
            "nothing can learn from this loss, since it is cut off from the predictions: no detach(), "
            "no item()": _with_loss(
                lambda model, images, predicted, hidden: masked_loss(
                    predicted.detach(), _target(model, images), hidden
                )
            ),
            "`ratio` is ignored: pass it on to forward_encoder": _FixedRatio,
            "`hidden` and `ids_restore` are swapped: forward_encoder returns latents, hidden and "
            "ids_restore, in this order": _Swapped,
            "the visible patches of `predicted` are pasted from the image: return what the decoder "
            "predicts": _PastedInto,
            "`hidden` is inverted: it is True for the patches that the encoder does not see": _Visible,
        },
        draw=_draw_mae,
        weights=_weights,
    ),
)
