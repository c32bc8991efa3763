"""Patchify and unpatchify in the published order; position tables as published."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vmae.config import ModelConfig
from vmae.grid import TokenGrid, gather_tokens, patchify, unpatchify
from vmae.positions import build_pos_embed, sincos_1d, sincos_2d


@pytest.mark.parametrize(
    "clip,tubelet,tokens,pixels",
    [
        ((16, 224, 224), (2, 16, 16), 1568, 1536),
        ((16, 224, 224), (1, 16, 16), 3136, 768),
        ((32, 224, 224), (2, 16, 16), 3136, 1536),
        ((1, 224, 224), (1, 16, 16), 196, 768),
        ((16, 224, 224), (2, 14, 14), 2048, 1176),
    ],
)
def test_published_counts(clip, tubelet, tokens, pixels):
    grid = TokenGrid(clip, tubelet)
    assert (grid.num_tokens, grid.token_dim) == (tokens, pixels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_patchify_equals_a_loop_and_unpatchify_inverts_it(dtype):
    grid = TokenGrid((4, 6, 8), (2, 3, 4))
    clips = torch.randint(0, 256, (2, 3, 4, 6, 8), generator=torch.Generator().manual_seed(0)).to(
        dtype
    )
    tokens = patchify(clips, grid)
    for n, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
        block = clips[:, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3, 4 * k : 4 * k + 4]
        expected = [
            block[:, c, f, y, x]
            for f in range(2)
            for y in range(3)
            for x in range(4)
            for c in range(3)
        ]
        assert torch.equal(tokens[:, n], torch.stack(expected, dim=1))
    assert torch.equal(unpatchify(tokens, grid), clips)


@pytest.mark.parametrize(
    "clip,tubelet,words",
    [
        ((15, 224, 224), (2, 16, 16), ["clip length 15", "14 or 16"]),
        ((16, 100, 224), (2, 16, 16), ["height 100", "96 or 112"]),
        ((16, 224, 8), (2, 16, 16), ["width 8", "use 16"]),
        ((0, 16, 16), (2, 16, 16), ["at least 1"]),
    ],
)
def test_indivisible_sizes_name_the_nearest(clip, tubelet, words):
    with pytest.raises(ValueError) as error:
        TokenGrid(clip, tubelet)
    for word in words:
        assert word in str(error.value)


def test_clips_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 3, 4, 6, 8\)"):
        patchify(torch.zeros(1, 3, 4, 6, 6), TokenGrid((4, 6, 8), (2, 3, 4)))


@pytest.mark.parametrize("n,width", [(64, 48), (1568, 384)])
def test_1d_positions_are_bit_equal_to_the_published_formula(n, width):
    """Entry by entry in Python floats: interleaved sines and cosines of the flat index."""
    table = sincos_1d(n, width)
    rng = np.random.default_rng(0)
    for i, j in zip(rng.integers(n, size=500), rng.integers(width, size=500), strict=True):
        angle = i / np.power(10000, 2 * (j // 2) / width)
        expected = np.sin(angle) if j % 2 == 0 else np.cos(angle)
        assert table[i, j].item() == np.float32(expected)


@pytest.mark.parametrize("family", ["videomae", "mae"])
def test_positions_are_recomputed_or_interpolated_for_other_clip_sizes(family):
    frames = 1 if family == "mae" else 8
    step = 1 if family == "mae" else 2
    small = ModelConfig(
        family=family,
        num_frames=frames,
        img_size=32,
        tubelet=(step, 8, 8),
        embed_dim=48,
        num_heads=4,
        depth=1,
    )
    large = small.replace(img_size=64)
    recomputed = build_pos_embed(large, 48)
    expected = sincos_2d(8, 8, 48) if family == "mae" else sincos_1d(4 * 8 * 8, 48)
    assert torch.equal(recomputed, expected)
    interpolated = build_pos_embed(large.replace(pos_embed_from=(frames, 32)), 48)
    assert interpolated.shape == recomputed.shape
    assert torch.equal(
        build_pos_embed(small.replace(pos_embed_from=(frames, 32)), 48), build_pos_embed(small, 48)
    )
    # At twice the size, each 2x2 cell of the interpolated table has the mean of a smoothed old value.
    t = frames // step
    old = build_pos_embed(small, 48).view(t, 4, 4, 48)
    cells = interpolated.view(t, 4, 2, 4, 2, 48).mean((2, 4))
    smooth = old.clone()
    for axis in (1, 2):
        before = smooth.roll(1, axis)
        after = smooth.roll(-1, axis)
        before.select(axis, 0).copy_(smooth.select(axis, 0))
        after.select(axis, 3).copy_(smooth.select(axis, 3))
        smooth = 0.125 * before + 0.75 * smooth + 0.125 * after
    torch.testing.assert_close(cells, smooth, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="height 30"):
        large.replace(pos_embed_from=(frames, 30))


def test_2d_positions_have_the_layout_of_mae():
    """[sin column | cos column | sin row | cos row], each over width / 4 frequencies."""
    rows, columns, width = 3, 5, 16
    table = sincos_2d(rows, columns, width).view(rows, columns, 4, width // 4)
    rates = 1 / 10000 ** (np.arange(4) / 4)
    for y, x in np.ndindex(rows, columns):
        expected = [np.sin(x * rates), np.cos(x * rates), np.sin(y * rates), np.cos(y * rates)]
        np.testing.assert_array_equal(table[y, x], np.float32(expected))


@pytest.mark.parametrize("batch", [1, 3])
def test_gathering_tokens_and_its_gradient_equal_a_loop(batch):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(batch, 9, 4, generator=generator)
    tokens = whole[:, 2:].clone().requires_grad_()
    index = torch.rand(3, 7, generator=generator).argsort(1)[:, :5]
    chosen = gather_tokens(tokens, index)
    rows = [tokens[i if batch > 1 else 0, index[i, k]] for i in range(3) for k in range(5)]
    assert torch.equal(chosen, torch.stack(rows).view(3, 5, 4))
    assert torch.equal(gather_tokens(whole[:, 2:], index), chosen), "a slice, not contiguous"
    weights = torch.randn(3, 5, 4, generator=generator)
    (chosen * weights).sum().backward()
    expected = torch.zeros_like(tokens)
    for i, k in np.ndindex(3, 5):
        expected[i if batch > 1 else 0, index[i, k]] += weights[i, k]
    torch.testing.assert_close(tokens.grad, expected)
