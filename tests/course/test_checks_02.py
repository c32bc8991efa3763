"""The checks of notebook 02: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from einops import rearrange, repeat

from vmae.config import ModelConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_02 as right
from vmae.grid import TokenGrid, patchify
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


def unpatchify_by_reshape(tokens, rows, columns, patch):
    x = tokens.reshape(len(tokens), rows, columns, patch, patch, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, rows * patch, columns * patch)


def unpatchify_by_loop(tokens, rows, columns, patch):
    batch, _, pixels = tokens.shape
    image = torch.empty(batch, pixels // patch**2, rows * patch, columns * patch)
    for n in range(rows * columns):
        r, c = divmod(n, columns)
        piece = tokens[:, n].view(batch, patch, patch, -1).permute(0, 3, 1, 2)
        image[:, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] = piece
    return image


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


@right_answers(
    {
        "unpatchify": [unpatchify_by_reshape, unpatchify_by_loop],
        "random_masking": [masking_by_topk, masking_by_loop],
        "unshuffle": [unshuffle_by_scatter, unshuffle_by_rows],
        "standardize": [standardize_by_var_mean, standardize_by_hand],
        "masked_loss": [loss_by_index, loss_by_loop],
    }
)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[f"02.{name}"], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def channels_first(tokens, rows, columns, patch):
    x = tokens.reshape(len(tokens), rows, columns, -1, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, rows * patch, columns * patch)


def channels_last_image(tokens, rows, columns, patch):
    return rearrange(
        tokens, "b (h w) (p q c) -> b (h p) (w q) c", h=rows, w=columns, p=patch, q=patch
    )


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


@wrong_answers(
    {
        "unpatchify": [
            (channels_first, "read as if the channel came first"),
            (channels_last_image, r"the shape is \(1, 160, 192, 3\); expected \(1, 3, 160, 192\)"),
        ],
        "random_masking": [
            (one_mask, "every image gets the same mask"),
            (rounded, "wrong when ratio \\* N is not an integer"),
            (one_argsort, "ids_restore is the shuffle itself"),
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
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"02.{name}"], answer, words)


def test_a_wrong_picture_is_drawn_too(drawn):
    verdict(ALL["02.unpatchify"], channels_first)
    assert len(drawn) == 1


def test_the_cat_in_the_first_case_is_a_picture():
    """Not a flat area, where any order of the pixels would look the same."""
    tokens, rows, columns, patch = ALL["02.unpatchify"].cases(torch.Generator())[0]
    image = right.unpatchify(tokens, rows, columns, patch)
    assert image.shape == (1, 3, 160, 192)
    assert np.std(image.numpy()) > 0.1
