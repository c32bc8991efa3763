"""The checks of notebook 06: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from conftest import random_clips, randomize
from einops import rearrange

from vmae.config import MaskConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_06 as right
from vmae.grid import TokenGrid, patchify
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


# ---- right answers in other styles ---------------------------------------------------------------


def counted_by_list(shape, ratio, family):
    t, h, w = shape
    everything = list(range(t * h * w))
    if family == "mae":
        return len(everything[: int(len(everything) * (1 - ratio))])
    if family == "random":
        return len(everything[int(ratio * len(everything)) :])
    return sum(len(range(int(ratio * h * w), h * w)) for _ in range(t))


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


def loss_by_gather(predictions, goals, mask):
    def take(x, index):
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))

    predicted, expected = take(predictions, mask.targets), take(goals, mask.target_tokens)
    return torch.nn.functional.mse_loss(predicted, expected)


def loss_by_loop(predictions, goals, mask):
    errors = []
    for b, row in enumerate(mask.targets):
        for i in row:
            errors.append((predictions[b, i] - goals[b, mask.queries[b, i]]).square().mean())
    return torch.stack(errors).mean()


@right_answers(
    {
        "visible_tokens": [counted_by_list],
        "normalize_targets": [targets_by_einops, targets_by_loop],
        "decoder_input": [input_by_loop, input_at_once],
        "masked_loss": [loss_by_gather, loss_by_loop],
    }
)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[f"06.{name}"], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def rounded(shape, ratio, family):
    t, h, w = shape
    return round(t * h * w * (1 - ratio))


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


def all_queries(predictions, goals, mask):
    rows = torch.arange(len(goals))[:, None]
    return (predictions - goals[rows, mask.queries]).square().mean()


def in_place(predictions, goals, mask):
    predictions -= right.gather_tokens(goals, mask.queries)
    return right.gather_tokens(predictions, mask.targets).square().mean()


@wrong_answers(
    {
        "visible_tokens": [
            (rounded, "for MAE, the number of hidden tokens is rounded down"),
            (only_tubes, "got 320; expected 313"),
            (lambda shape, ratio, _: counted_by_list(shape, ratio, "mae"), "314 of"),
        ],
        "normalize_targets": [
            (as_mae, "the targets are computed as in MAE"),
            (biased_inside, "the variance is biased and the epsilon is inside"),
            (unflat, "the shape is"),
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
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"06.{name}"], answer, words)


def test_a_wrong_target_is_drawn_too(drawn):
    verdict(ALL["06.normalize_targets"], as_mae)
    assert len(drawn) == 1
