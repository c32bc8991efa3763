"""The checks of notebook 06: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from conftest import random_clips, randomize
from einops import rearrange
from styles_06 import RIGHT, InOriginalOrder, VisibleOnly, counted_by_list, targets_by_einops

from vmae.config import MaskConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_06 as right
from vmae.grid import TokenGrid, gather_tokens, patchify
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask

ALL = exercises("06")

pytestmark = pytest.mark.usefixtures("drawn")


# ---- the exercises themselves --------------------------------------------------------------------


@pytest.mark.parametrize("frames", [16, 32])
@pytest.mark.parametrize("family", ["random", "tube"])
def test_the_package_shows_the_same_number_of_tokens(frames, family):
    grid = TokenGrid((frames, 224, 224), (2, 16, 16))
    mask = make_mask(MaskConfig(family, 0.9), grid, 1)
    assert mask.visible.shape[1] == right.visible_tokens(grid.shape, 0.9, family)


@pytest.mark.parametrize("decoder", ["all", "running-cell"])
def test_the_parts_make_the_package_model(tiny, decoder):
    model = randomize(MaskedAutoencoder(tiny.replace(normalize_targets=True))).eval()
    clips = random_clips(tiny, 2)
    share = 0.5 if decoder == "running-cell" else 0.0
    mask = make_mask(MaskConfig("tube", 0.75, None, decoder, share), tiny.grid, 2)
    pixels = patchify(clips, tiny.grid) / 255
    with torch.no_grad():
        latents = model.encoder_to_decoder(model.encoder.forward_features(clips, mask.visible))
        x = right.decoder_input(latents, model.mask_token, model.decoder_pos_embed, mask)
        for block in model.decoder.blocks:
            x = block(x)
        predicted = model.decoder.head(model.decoder.norm(x[:, -mask.queries.shape[1] :]))
        loss = right.masked_loss(predicted, right.normalize_targets(pixels), mask)
        torch.testing.assert_close(loss, model.loss(clips, mask), rtol=1e-4, atol=1e-5)


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def rounded(shape, ratio, family):
    t, h, w = shape
    return round(t * h * w * (1 - ratio))


def hidden_rounded(shape, ratio, family):
    t, h, w = shape
    if family == "mae":
        return int(t * h * w * (1 - ratio))
    if family == "random":
        return t * h * w - round(t * h * w * ratio)
    return t * (h * w - round(h * w * ratio))


def only_tubes(shape, ratio, family):
    return right.visible_tokens(shape, ratio, "tube")


def as_mae(tokens):
    var, mean = torch.var_mean(tokens, dim=-1, keepdim=True)
    return (tokens - mean) / (var + 1e-6).sqrt()


def biased_inside(tokens):
    x = tokens.unflatten(-1, (-1, 3))
    var, mean = torch.var_mean(x, dim=-2, keepdim=True, correction=0)
    return ((x - mean) / (var + 1e-6).sqrt()).flatten(-2)


def unflat(tokens):
    return targets_by_einops(tokens).unflatten(-1, (-1, 3))


def by_variance(tokens):
    x = rearrange(tokens, "b m (p c) -> b m p c", c=3)
    x = (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True) + 1e-6)
    return rearrange(x, "b m p c -> b m (p c)")


def token_first(latents, mask_token, positions, mask):
    asked = mask_token + positions[mask.queries]
    return torch.cat((asked, latents + positions[mask.visible]), dim=1)


def forgotten(latents, mask_token, positions, mask):
    empty = mask_token.expand(*mask.queries.shape, -1)
    return torch.cat((latents + positions[mask.visible], empty), dim=1)


def scattered(latents, mask_token, positions, mask):
    x = mask_token.repeat(len(latents), len(positions), 1)
    for b in range(len(latents)):
        x[b, mask.visible[b]] = latents[b]
    return x + positions


def all_queries(predictions, pixels, mask):
    rows = torch.arange(len(pixels))[:, None]
    return (predictions - pixels[rows, mask.queries]).square().mean()


def sliced(predictions, pixels, mask):
    return (predictions[:, mask.targets] - pixels[:, mask.target_tokens]).square().mean()


def of_the_first_clip(predictions, pixels, mask):
    wanted = predictions[:, mask.targets[0]] - pixels[:, mask.target_tokens[0]]
    return wanted.square().mean()


def in_place(predictions, pixels, mask):
    predictions -= right.gather_tokens(pixels, mask.queries)
    return right.gather_tokens(predictions, mask.targets).square().mean()


class AfterTheHead(VisibleOnly):
    """Returns predictions of every token."""

    def forward(self, clips, mask):
        loss, predictions = super().forward(clips, mask)
        return loss, torch.cat((predictions, predictions[:, : mask.visible.shape[1]]), dim=1)


class Flattened(InOriginalOrder):
    def forward(self, clips, mask):
        loss, predictions = super().forward(clips, mask)
        return loss.item(), predictions


class Renamed(right.VideoMAE):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.enc_to_dec = self.encoder_to_decoder
        del self.encoder_to_decoder


class NoPositionsAtAll(right.VideoMAE):
    def forward(self, clips, mask):
        x = gather_tokens(self.embed(clips), mask.visible)
        for block in self.encoder.blocks:
            x = block(x)
        x = self.encoder_to_decoder(self.encoder.norm(x))
        x = right.decoder_input(x, self.mask_token, self.decoder_pos_embed, mask)
        for block in self.decoder.blocks:
            x = block(x)
        predictions = self.decoder.head(self.decoder.norm(x[:, -mask.queries.shape[1] :]))
        targets = self.patchify(clips)
        targets = right.normalize_targets(targets) if self.normalize else targets
        return right.masked_loss(predictions, targets, mask), predictions


class NotSliced(right.VideoMAE):
    """Forgets to keep the last Q tokens."""

    def forward(self, clips, mask):
        x = gather_tokens(self.embed(clips) + self.pos_embed, mask.visible)
        for block in self.encoder.blocks:
            x = block(x)
        x = self.encoder_to_decoder(self.encoder.norm(x))
        x = right.decoder_input(x, self.mask_token, self.decoder_pos_embed, mask)
        for block in self.decoder.blocks:
            x = block(x)
        predictions = self.decoder.head(self.decoder.norm(x))
        targets = self.patchify(clips)
        targets = right.normalize_targets(targets) if self.normalize else targets
        return right.masked_loss(predictions, targets, mask), predictions


class AlwaysNormalized(right.VideoMAE):
    def forward(self, clips, mask):
        _, predictions = super().forward(clips, mask)
        targets = right.normalize_targets(self.patchify(clips))
        return right.masked_loss(predictions, targets, mask), predictions


class OnlyTheLoss(right.VideoMAE):
    def forward(self, clips, mask):
        return super().forward(clips, mask)[0]


def trained(draw, last=lambda losses: losses, step=True, record=lambda loss: loss.item()):
    """A loop with a bug: draw(scheme, model, batch, step, seed, kept) is the mask of a step."""

    def loop(model, clips, scheme, steps, lr, seed):
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        losses, kept = [], {}
        for number, batch in zip(range(steps), clips, strict=False):
            loss, _ = model(batch, draw(scheme, model, batch, number, seed, kept))
            optimizer.zero_grad()
            loss.backward()
            if step:
                optimizer.step()
            losses.append(record(loss))
        return last(losses)

    return loop


def _drawn(scheme, model, batch, seed):
    return make_mask(scheme, model.grid, len(batch), torch.Generator().manual_seed(seed))


def seeded_in_the_loop(scheme, model, batch, number, seed, kept):
    return _drawn(scheme, model, batch, seed)


def drawn_before_the_loop(scheme, model, batch, number, seed, kept):
    return kept.setdefault("mask", _drawn(scheme, model, batch, seed))


def unseeded(scheme, model, batch, number, seed, kept):
    return make_mask(scheme, model.grid, len(batch))


def step_alone(scheme, model, batch, number, seed, kept):
    return _drawn(scheme, model, batch, number)


def by_step(scheme, model, batch, number, seed, kept):
    return _drawn(scheme, model, batch, 1000 * seed + number)


@wrong_answers(
    {
        "visible_tokens": [
            (rounded, "for tubes, the count is rounded for the whole clip"),
            (hidden_rounded, "rounded to the nearest"),
            (only_tubes, "got 18; expected 16"),
            (lambda shape, ratio, _: counted_by_list(shape, ratio, "mae"), "314 of"),
        ],
        "normalize_targets": [
            (as_mae, "the targets are computed as in MAE"),
            (biased_inside, "the variance is biased and the epsilon is inside"),
            (unflat, "the shape is"),
            (by_variance, "divided by the variance"),
        ],
        "decoder_input": [
            (token_first, "mask tokens come first"),
            (forgotten, "mask tokens lack position embeddings"),
            (scattered, "unshuffled"),
        ],
        "masked_loss": [
            (all_queries, "averaged over all queries"),
            (lambda *x: right.masked_loss(*x).sqrt(), "do not take the square root"),
            (in_place, "it modifies its arguments"),
            (sliced, "takes the rows of every clip"),
            (of_the_first_clip, "the first clip's indices"),
        ],
        "VideoMAE": [
            (NoPositionsAtAll, "the encoder's positions are missing"),
            (AlwaysNormalized, "the targets are always normalised"),
            (AfterTheHead, "the shape is"),
            (NotSliced, "the slice is missing"),
            (Flattened, "value 1"),
            (Renamed, "`enc_to_dec` must be called `encoder_to_decoder`"),
            (OnlyTheLoss, "got 1 value; expected 2"),
        ],
        "pretrain": [
            (trained(seeded_in_the_loop), "all steps use the same masks"),
            (trained(drawn_before_the_loop), "all steps use the same masks"),
            (trained(unseeded), "pass the seeded generator"),
            (trained(step_alone), "different seeds draw the same masks"),
            (trained(by_step, step=False), "have not changed"),
            (trained(by_step, last=lambda losses: losses[-1]), "a list of 150 losses"),
            (trained(by_step, record=lambda loss: loss), "use loss.item"),
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"06.{name}"], answer, words)


def test_a_wrong_target_is_drawn_too(drawn):
    verdict(ALL["06.normalize_targets"], as_mae)
    assert len(drawn) == 1
