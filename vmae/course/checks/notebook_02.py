"""Exercises of notebook 02: unpatchify, random masks, unshuffling, standardised targets, the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from PIL import Image

from vmae import ROOT, viz
from vmae.course.checks.core import Exercise

Masking = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

# ---- reference solutions -------------------------------------------------------------------------


def unpatchify(tokens: torch.Tensor, rows: int, columns: int, patch: int) -> torch.Tensor:
    """Reassemble patches (B, rows·columns, patch·patch·C) into images (B, C, H, W).

    Inside a patch the order is row, column, channel (MAE, `unpatchify` in `models_mae.py`).
    """
    return rearrange(
        tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, w=columns, p=patch, q=patch
    )


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
    return _take(torch.cat((latents, missing), dim=1), ids_restore)


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


# ---- mistakes ----------------------------------------------------------------------------------


def _take(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def _order(pattern: str) -> Callable[..., torch.Tensor]:
    """Patches reassembled in another order."""
    return lambda x, rows, columns, patch: rearrange(
        x, f"{pattern} -> b c (h p) (w q)", h=rows, w=columns, p=patch, q=patch
    )


def _reshaped(tokens: torch.Tensor, rows: int, columns: int, patch: int) -> torch.Tensor:
    return tokens.reshape(len(tokens), -1, rows * patch, columns * patch)


def _image_reshaped(tokens: torch.Tensor, rows: int, columns: int, patch: int) -> torch.Tensor:
    return tokens.reshape(len(tokens), rows * patch, columns * patch, -1).permute(0, 3, 1, 2)


def _hidden_side(noise: torch.Tensor, ratio: float) -> Masking:
    ids_shuffle, ids_restore = noise.argsort(dim=1), noise.argsort(dim=1).argsort(dim=1)
    keep = noise.shape[1] - int(ratio * noise.shape[1])
    return ids_shuffle[:, :keep], ids_restore, ids_restore >= keep


def _not_inverted(noise: torch.Tensor, ratio: float) -> Masking:
    keep, _, hidden = random_masking(noise, ratio)
    return keep, noise.argsort(dim=1), hidden


def _shuffled_hidden(noise: torch.Tensor, ratio: float) -> Masking:
    keep, restore, hidden = random_masking(noise, ratio)
    return keep, restore, torch.arange(hidden.shape[1]).expand_as(hidden) >= keep.shape[1]


def _inverted(noise: torch.Tensor, ratio: float) -> Masking:
    keep, restore, hidden = random_masking(noise, ratio)
    return keep, restore, ~hidden


def _sorted_keep(noise: torch.Tensor, ratio: float) -> Masking:
    keep, restore, hidden = random_masking(noise, ratio)
    return keep.sort(dim=1).values, restore, hidden


def _joined(latents: torch.Tensor, token: torch.Tensor, restore: torch.Tensor) -> torch.Tensor:
    missing = token.expand(len(latents), restore.shape[1] - latents.shape[1], -1)
    return torch.cat((latents, missing), dim=1)


def _tokens_first(
    latents: torch.Tensor, token: torch.Tensor, restore: torch.Tensor
) -> torch.Tensor:
    joined = _joined(latents, token, restore)
    return _take(joined.roll(-latents.shape[1], dims=1), restore)


def _divided(x: torch.Tensor, dims: Any, unbiased: bool = True) -> torch.Tensor:
    """Standardised over other axes, or with the biased variance."""
    var = x.var(dim=dims, unbiased=unbiased, keepdim=True)
    return (x - x.mean(dim=dims, keepdim=True)) / (var + 1e-6).sqrt()


def _centred(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(dim=-1, keepdim=True)


def _error(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (predicted - target).square().mean(dim=-1)


# ---- drawings ----------------------------------------------------------------------------------


def _draw_image(result: torch.Tensor, *case: Any) -> None:
    both = {"yours": result, "expected": unpatchify(*case)}
    viz.pictures(
        {name: x[0] for name, x in both.items()},
        "The image that your function assembles from the patches, beside the photo of the cat.",
    )


def _draw_masks(result: Masking, noise: torch.Tensor, ratio: float) -> None:
    side = int(noise.shape[1] ** 0.5)
    viz.pictures(
        {f"image {i + 1}": row.view(side, side) for i, row in enumerate(result[2])},
        "Your masks: one square per image, one cell per token; hidden tokens are light.",
    )


def _draw_tokens(result: torch.Tensor, *case: torch.Tensor) -> None:
    both = {"yours": result, "expected": unshuffle(*case)}
    viz.pictures(
        {name: x[0] for name, x in both.items()},
        "The tokens of the first image, one row per token, in your order and in the expected "
        "one. All mask tokens have the same pattern of colours.",
    )


def _draw_patches(result: torch.Tensor, patches: torch.Tensor) -> None:
    both = {"patches": patches, "yours": result, "expected": standardize(patches)}
    with viz.style():
        figure, axes = plt.subplots(1, 3, figsize=(6.2, 1.5), layout="constrained")
        for axis, (name, x) in zip(axes, both.items(), strict=True):
            ink = {part: {"color": viz.INK} for part in ("boxprops", "whiskerprops", "capprops")}
            axis.boxplot(x[0].T.numpy(), showfliers=False, **ink)
            axis.set_title(name, fontsize=8)
            axis.set_xlabel("patch", fontsize=8)
    viz.show(
        figure,
        "Box plots of the values in each patch: as given, after your function, and as expected.",
    )


def _draw_loss(result: torch.Tensor, *case: torch.Tensor) -> None:
    predicted, target, hidden = case
    over = {
        "visible patches": masked_loss(predicted, target, ~hidden),
        "all patches": _error(predicted, target).mean(),
        "hidden patches": masked_loss(*case),
    }
    with viz.style():
        figure, axis = plt.subplots(figsize=(5, 1.3))
        axis.barh(list(over), [float(x) for x in over.values()], color=viz.PALETTE[0], alpha=0.75)
        axis.axvline(float(result), color=viz.PALETTE[4], lw=2)
        axis.set_title(f"mean squared error; the line marks yours, {float(result):.3g}", fontsize=8)
    viz.show(
        figure,
        f"Mean squared errors over visible, all and hidden patches; yours is {float(result):.3g}.",
    )


# ---- inputs ------------------------------------------------------------------------------------


def _patch_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    photo = np.asarray(Image.open(ROOT / "data" / "photos" / "cat.jpg").convert("RGB"))
    cat = torch.from_numpy(photo[60:220, 100:292].copy()).float() / 255  # 160 x 192 pixels
    tokens = rearrange(cat, "(h p) (w q) c -> 1 (h w) (p q c)", p=16, q=16)
    return [(tokens, 10, 12, 16), (torch.rand(2, 6, 48, generator=g), 2, 3, 4)]


def _masking_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    sizes = ((3, 16, 0.75), (2, 11, 0.75), (4, 196, 0.9))
    return [(torch.rand(batch, n, generator=g), ratio) for batch, n, ratio in sizes]


def _token_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases = []
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
    return [(patches,), (flat,)]


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
        "02.unpatchify",
        unpatchify,
        _patch_cases,
        {
            "each patch is read as if the channel came first: the values are stored "
            "channel-last, so split them as (p, q, c) and move c to the front": _order(
                "b (h w) (c p q)"
            ),
            "rows and columns are swapped within each patch: split the values as (p, q, c), "
            "where p indexes the row": _order("b (h w) (q p c)"),
            "the patches are laid out column by column: lay them out row by row, splitting N "
            "into (rows, columns)": _order("b (w h) (p q c)"),
            "a reshape alone does not reorder the values: split both axes, permute them so "
            "that p follows rows and q follows columns, then merge each pair": _reshaped,
            "reshaping straight to (H, W, C) does not reorder the values: first permute the "
            "axes so that p follows rows and q follows columns": _image_reshaped,
        },
        draw=_draw_image,
    ),
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
            "`hidden` is in shuffled order: unshuffle it with ids_restore": (_shuffled_hidden),
            "`hidden` is inverted: set it to True for the tokens that the encoder does not "
            "see": _inverted,
            "the tokens with the largest noise values are kept: keep those with the smallest "
            "values instead": (lambda noise, ratio: random_masking(-noise, ratio)),
            "ids_keep is sorted, so it no longer matches ids_restore: leave it in shuffled "
            "order": _sorted_keep,
        },
        draw=_draw_masks,
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
                lambda x, token, restore: _take(_joined(x, token, restore), restore.argsort(dim=1))
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
)
