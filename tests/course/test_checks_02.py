"""The checks of notebook 02: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from styles_02 import RIGHT

from vmae.config import ModelConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_02 as right
from vmae.grid import TokenGrid, gather_tokens, patchify
from vmae.grid import unpatchify as package_unpatchify
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import all_hidden
from vmae.vit import normalize_pixels

ALL = exercises("02")

pytestmark = pytest.mark.usefixtures("drawn")


# ---- the exercises themselves --------------------------------------------------------------------


def test_the_package_computes_the_same():
    g = torch.Generator().manual_seed(3)
    grid = TokenGrid((1, 32, 48), (1, 16, 16))
    images = torch.rand(2, 3, 1, 32, 48, generator=g)
    tokens = patchify(images, grid)
    assert torch.equal(
        right.unpatchify(tokens, 2, 3, 16), package_unpatchify(tokens, grid)[:, :, 0]
    )

    config = ModelConfig.mae("tiny", img_size=64)
    keep, _, hidden = right.random_masking(torch.rand(3, 16, generator=g), 0.75)
    mask = all_hidden(keep.sort(dim=1).values, config.grid)
    assert torch.equal(mask.hidden(16), hidden)
    model = MaskedAutoencoder(config)
    images = torch.rand(3, 3, 1, 64, 64, generator=g)
    pixels = normalize_pixels(patchify(images, config.grid))
    targets = right.standardize(pixels)
    rows = torch.arange(3)[:, None]
    torch.testing.assert_close(
        targets[rows, mask.target_tokens], pixel_targets(images, mask, model.config)
    )
    predicted = torch.zeros_like(targets)
    predicted[rows, mask.target_tokens] = model(images, mask)
    torch.testing.assert_close(
        right.masked_loss(predicted, targets, hidden), model.loss(images, mask)
    )


# ---- right answers in other styles ---------------------------------------------------------------


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def one_mask(noise, ratio):
    batch, n = noise.shape
    order = noise[0].argsort()
    keep, restore = order[: n - int(ratio * n)], order.argsort()
    hidden = torch.ones(n, dtype=torch.bool)
    hidden[keep] = False
    return tuple(x.expand(batch, -1) for x in (keep, restore, hidden))


def rounded(noise, ratio):
    order = noise.argsort(1)
    keep = noise.shape[1] - round(ratio * noise.shape[1])
    restore = order.argsort(1)
    return order[:, :keep], restore, restore >= keep


def one_argsort(noise, ratio):
    order = noise.argsort(1)
    keep = noise.shape[1] - int(ratio * noise.shape[1])
    hidden = torch.ones_like(noise, dtype=torch.bool).scatter(1, order[:, :keep], False)
    return order[:, :keep], order, hidden


def one_argsort_throughout(noise, ratio):
    order = noise.argsort(1)
    keep = int(noise.shape[1] * (1 - ratio))
    return order[:, :keep], order, order >= keep


def hidden_from_the_shuffle(noise, ratio):
    order = noise.argsort(dim=1)
    keep = int(noise.shape[1] * (1 - ratio))
    return order[:, :keep], order.argsort(dim=1), order >= keep


def masks_as_numbers(noise, ratio):
    keep, restore, hidden = right.random_masking(noise, ratio)
    return keep, restore, hidden.float()


def scattered(latents, mask_token, ids_restore):
    """Token i goes to ids_restore[i], the wrong way round."""
    x = torch.cat([latents, mask_token.repeat(len(latents), ids_restore.shape[1], 1)], dim=1)
    x = x[:, : ids_restore.shape[1]]
    return torch.empty_like(x).scatter(1, ids_restore[..., None].expand_as(x), x)


def not_unshuffled(latents, mask_token, ids_restore):
    missing = mask_token.repeat(len(latents), ids_restore.shape[1] - latents.shape[1], 1)
    return torch.cat([latents, missing], dim=1)


def one_mask_token(latents, mask_token, ids_restore):
    x = torch.cat([latents, mask_token.expand(len(latents), -1, -1)], dim=1)
    return x.gather(1, ids_restore[..., None].expand(-1, -1, x.shape[-1]))


def biased(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()


def whole_batch(x):
    return (x - x.mean()) / (x.var() + 1e-6).sqrt()


def no_epsilon(x):
    return (x - x.mean(-1, keepdim=True)) / x.var(-1, keepdim=True).sqrt()


def in_place(x):
    x -= x.mean(-1, keepdim=True)
    return x / (x.var(-1, keepdim=True) + 1e-6).sqrt()


def all_patches(predicted, target, hidden):
    return torch.nn.functional.mse_loss(predicted, target)


def visible_patches(predicted, target, hidden):
    return ((predicted - target)[~hidden] ** 2).mean()


def summed(predicted, target, hidden):
    return (((predicted - target) ** 2).mean(-1) * hidden).sum()


def a_number(predicted, target, hidden):
    return right.masked_loss(predicted, target, hidden).item()


def through(model, x):
    for block in model.blocks:
        x = block(x)
    return model.norm(x)


class GreyPatches(right.MAEParts):
    """Hides pixels by replacing embedded patches with zeros."""

    def forward_encoder(self, images, noise, ratio):
        _, restore, hidden = right.random_masking(noise, ratio)
        x = self.embed(images) + self.pos_embed[:, 1:]
        x[hidden] = 0
        return (
            through(self, torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)),
            hidden,
            restore,
        )


class NoClassToken(right.MAEParts):
    def forward_encoder(self, images, noise, ratio):
        keep, restore, hidden = right.random_masking(noise, ratio)
        x = self.embed(images) + self.pos_embed[:, 1:]
        return through(self, gather_tokens(x, keep)), hidden, restore


class FirstPositions(right.MAEParts):
    def forward_encoder(self, images, noise, ratio):
        keep, restore, hidden = right.random_masking(noise, ratio)
        x = gather_tokens(self.embed(images), keep)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        return through(self, x + self.pos_embed[:, : x.shape[1]]), hidden, restore


class WrongRows(right.MAEParts):
    def forward_encoder(self, images, noise, ratio):
        keep, restore, hidden = right.random_masking(noise, ratio)
        x = gather_tokens(self.embed(images) + self.pos_embed[:, :-1], keep)
        cls = self.cls_token + self.pos_embed[:, :1]
        return through(self, torch.cat([cls.expand(len(x), -1, -1), x], 1)), hidden, restore


class LostOutput(right.MAEEncoder):
    """Calls the blocks, and drops what they return."""

    def _through_blocks(self, x):
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            block(x)
        return self.norm(x)


class AllPositions(right.MAEParts):
    def forward_encoder(self, images, noise, ratio):
        return through(self, self.embed(images) + self.pos_embed)


class MaskAsNumbers(right.MAEEncoder):
    def forward_encoder(self, images, noise, ratio):
        latents, hidden, restore = super().forward_encoder(images, noise, ratio)
        return latents, hidden.float(), restore


class Unwritten(right.MAEParts):
    pass


class PositionsTooEarly(right.MAEEncoder):
    def forward_decoder(self, latents, ids_restore):
        y = self.decoder_embed(latents)
        missing = self.mask_token.expand(len(y), 1 + ids_restore.shape[1] - y.shape[1], -1)
        y = torch.cat([y, missing], 1) + self.decoder_pos_embed
        y = torch.cat([y[:, :1], gather_tokens(y[:, 1:], ids_restore)], 1)
        for block in self.decoder_blocks:
            y = block(y)
        return self.decoder_pred(self.decoder_norm(y))[:, 1:]


class ClassTokenRestoredToo(right.MAEEncoder):
    """Forgets that the first latent stands for no patch."""

    def forward_decoder(self, latents, ids_restore):
        y = right.unshuffle(self.decoder_embed(latents), self.mask_token, ids_restore)
        y = y + self.decoder_pos_embed[:, 1:]
        for block in self.decoder_blocks:
            y = block(y)
        return self.decoder_pred(self.decoder_norm(y))


class LastForFirst(right.MAEDecoder):
    def _pixels(self, x):
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, :-1]


class LostDecoderOutput(right.MAEDecoder):
    def _pixels(self, x):
        for block in self.decoder_blocks:
            block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]


class EncodersBlocks(right.MAEEncoder):
    """The encoder's blocks are too wide for the decoder's tokens."""

    def forward_decoder(self, latents, ids_restore):
        y = self.decoder_embed(latents)
        for block in self.blocks:
            y = block(y)
        return y


class EncodersNorm(right.MAEDecoder):
    def _pixels(self, x):
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.norm(x))[:, 1:]


class NoNorm(right.MAEDecoder):
    def _pixels(self, x):
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(x)[:, 1:]


class OnlyTheLoss(right.MAE):
    def forward(self, images, noise, ratio=0.75):
        return super().forward(images, noise, ratio)[0]


class RawTargets(right.MAE):
    def forward_loss(self, images, predicted, hidden):
        return right.masked_loss(predicted, self.patchify(images), hidden)


class OverAll(right.MAE):
    def forward_loss(self, images, predicted, hidden):
        target = self.patchify(images)
        target = right.standardize(target) if self.norm_pix_loss else target
        return torch.nn.functional.mse_loss(predicted, target)


class ChannelFirst(right.MAE):
    """Cuts patches as (c, p, q)."""

    def forward_loss(self, images, predicted, hidden):
        p = self.grid.tubelet[-1]
        x = (
            images.unfold(2, p, p)
            .unfold(3, p, p)
            .permute(0, 2, 3, 1, 4, 5)
            .flatten(3)
            .flatten(1, 2)
        )
        return right.masked_loss(
            predicted, right.standardize(x) if self.norm_pix_loss else x, hidden
        )


class Detached(right.MAE):
    def forward_loss(self, images, predicted, hidden):
        return super().forward_loss(images, predicted.detach(), hidden)


class Swapped(right.MAE):
    """Takes two values of forward_encoder in the order in which random_masking returns them."""

    def forward(self, images, noise, ratio=0.75):
        latents, restore, hidden = self.forward_encoder(images, noise, ratio)
        predicted = self.forward_decoder(latents, restore)
        return self.forward_loss(images, predicted, hidden), predicted, hidden


class IgnoresRatio(right.MAE):
    def forward(self, images, noise, ratio=0.75):
        return super().forward(images, noise)


def unchanged(model, latents, ids_restore):
    """The program with the bug, as the lesson gives it."""
    x = model.decoder_embed(latents)
    missing = model.mask_token.expand(len(x), 1 + ids_restore.shape[1] - x.shape[1], -1)
    x = torch.cat((x, missing), dim=1) + model.decoder_pos_embed
    for block in model.decoder_blocks:
        x = block(x)
    predicted = model.decoder_pred(model.decoder_norm(x))[:, 1:]
    return gather_tokens(predicted, ids_restore)


def restored_twice(model, latents, ids_restore):
    x = model.decoder_embed(latents)
    full = right.unshuffle(x[:, 1:], model.mask_token, ids_restore)
    x = torch.cat((x[:, :1], full), dim=1) + model.decoder_pos_embed
    for block in model.decoder_blocks:
        x = block(x)
    return gather_tokens(model.decoder_pred(model.decoder_norm(x))[:, 1:], ids_restore)


def reordered(order, end):
    def decode(model, latents, ids_restore):
        x = model.decoder_embed(latents)
        missing = model.mask_token.expand(len(x), 1 + ids_restore.shape[1] - x.shape[1], -1)
        table = model.decoder_pos_embed.expand(len(x), -1, -1)
        own = gather_tokens(table[:, 1:], order(ids_restore))
        x = torch.cat((x, missing), dim=1) + torch.cat((table[:, :1], own), dim=1)
        for block in model.decoder_blocks:
            x = block(x)
        return end(model.decoder_pred(model.decoder_norm(x)), ids_restore)

    return decode


not_inverted = reordered(lambda ids: ids, lambda x, ids: gather_tokens(x[:, 1:], ids))
left_shuffled = reordered(lambda ids: ids.argsort(1), lambda x, ids: x[:, 1:])
class_token_left = reordered(lambda ids: ids.argsort(1), lambda x, ids: gather_tokens(x, ids))


@wrong_answers(
    {
        "random_masking": [
            (one_mask, "every image gets the same mask"),
            (rounded, "wrong when ratio \\* N is not an integer"),
            (one_argsort, "ids_restore is the shuffle itself"),
            (one_argsort_throughout, "`hidden` marks the wrong tokens, too"),
            (hidden_from_the_shuffle, "compares the patch numbers"),
            (masks_as_numbers, "value 3: the dtype is torch.float32; expected torch.bool"),
            (
                lambda noise, ratio: right.random_masking(noise, ratio)[:2],
                "got 2 values; expected 3 values",
            ),
        ],
        "unshuffle": [
            (scattered, "applied in the wrong direction"),
            (not_unshuffled, "the tokens are not unshuffled"),
            (one_mask_token, "raises RuntimeError: index .* is out of bounds"),
        ],
        "standardize": [
            (biased, "the variance is biased"),
            (whole_batch, "computed over the whole batch"),
            (no_epsilon, "the epsilon is missing"),
            (in_place, "it modifies its arguments"),
        ],
        "masked_loss": [
            (all_patches, "also includes the visible patches"),
            (visible_patches, "includes only the visible patches"),
            (summed, "summed over the hidden patches"),
            (a_number, "of type float; expected Tensor"),
        ],
        "MAEEncoder": [
            (GreyPatches, "still encoded"),
            (NoClassToken, "the class token is missing"),
            (FirstPositions, "added after masking"),
            (WrongRows, "shifted by one"),
            (LostOutput, "what the blocks return is lost"),
            (AllPositions, "raises RuntimeError"),
            (MaskAsNumbers, "the dtype is torch.float32; expected torch.bool"),
            (Unwritten, "raises AttributeError: .* has no attribute 'forward_encoder'"),
        ],
        "MAEDecoder": [
            (PositionsTooEarly, "before the order is restored"),
            (ClassTokenRestoredToo, "unshuffled as if it were a patch"),
            (LastForFirst, "all are shifted by one"),
            (EncodersNorm, "raises RuntimeError"),
            (EncodersBlocks, "raises RuntimeError.* at `y = block\\(y\\)`"),
            (LostDecoderOutput, "what the blocks return is lost"),
            (NoNorm, "decoder_norm is missing"),
        ],
        "decode_any_order": [
            (unchanged, "tokens and positions do not belong together"),
            (not_inverted, "in the wrong direction"),
            (left_shuffled, "restore the order of the predictions"),
            (restored_twice, "the order is restored twice"),
            (class_token_left, "values are wrong"),
        ],
        "MAE": [
            (OnlyTheLoss, "got 1 value; expected 3 values"),
            (RawTargets, "never normalised"),
            (OverAll, "also includes the visible patches"),
            (ChannelFirst, "channel first"),
            (Detached, "cut off from the predictions"),
            (IgnoresRatio, "`ratio` is ignored"),
            (Swapped, "`hidden` and `ids_restore` are swapped"),
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"02.{name}"], answer, words)
