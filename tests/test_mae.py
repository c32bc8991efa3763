"""The masked autoencoder against a plain, dense version of the published algorithm."""

from __future__ import annotations

import math
import shutil
from itertools import product

import pytest
import torch
from conftest import random_clips, randomize
from torch.overrides import TorchFunctionMode

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, MaskConfig, ModelConfig
from vmae.data import multi_scale_crop
from vmae.grid import patchify, unpatchify
from vmae.layers import DropPath
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import make_mask
from vmae.vit import VisionTransformer

V2 = MaskConfig("tube", 0.75, None, "running-cell", 0.5)


def draw(config: MaskConfig, model: ModelConfig, batch: int = 3):
    return make_mask(config, model.grid, batch, torch.Generator().manual_seed(2))


def normalized(clips: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (clips.float() / 255 - mean) / std


def assert_same_gradients(model, a: torch.Tensor, b: torch.Tensor, **bounds: float) -> None:
    """Assert that two losses have the same gradient for every parameter of the model."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = (torch.autograd.grad(loss, parameters) for loss in (a, b))
    for name, x, y in zip(names, *gradients, strict=True):
        torch.testing.assert_close(x, y, **bounds, msg=lambda m, n=name: f"{n}: {m}")


def dense_loss(model: MaskedAutoencoder, clips: torch.Tensor, mask) -> torch.Tensor:
    """V2's step as in its code: embed all tokens, boolean masks, all targets, weighted loss."""
    config, grid = model.config, model.grid
    batch, n = len(clips), grid.num_tokens
    hidden = mask.hidden(n)
    dropped = torch.ones(batch, n, dtype=torch.bool).scatter(1, mask.queries, False)
    x = model.encoder.patch_embed.proj(normalized(clips)).flatten(2).transpose(1, 2)
    x = (x + model.encoder.pos_embed)[~hidden].reshape(batch, -1, config.embed_dim)
    for block in model.encoder.blocks:
        x = block(x)
    x = model.encoder_to_decoder(model.encoder.norm(x))
    positions = model.decoder_pos_embed.expand(batch, -1, -1)
    visible_pos = positions[~hidden].reshape(batch, -1, config.decoder_embed_dim)
    query_pos = positions[~dropped].reshape(batch, -1, config.decoder_embed_dim)
    x = torch.cat([x + visible_pos, model.mask_token + query_pos], dim=1)
    for block in model.decoder.blocks:
        x = block(x)
    out = model.decoder.head(model.decoder.norm(x[:, -query_pos.shape[1] :]))

    tokens = (patchify(clips, grid).float() / 255).unflatten(-1, (-1, 3))  # all tokens, by channel
    labels = (tokens - tokens.mean(-2, keepdim=True)) / (
        tokens.var(-2, unbiased=True, keepdim=True).sqrt() + 1e-6
    )
    labels = labels.flatten(-2)[~dropped].reshape(batch, -1, grid.token_dim)
    loss = ((out - labels) ** 2).mean(-1)
    counts = hidden[~dropped].reshape(batch, -1)  # queried by the decoder, hidden from the encoder
    return (loss * counts).sum() / counts.sum()


@pytest.mark.parametrize(
    "scheme", [V2, MaskConfig("tube", 0.75), MaskConfig("random", 0.9)], ids=["V2", "V1", "random"]
)
def test_loss_and_gradients_equal_the_dense_algorithm(tiny, scheme):
    model = randomize(MaskedAutoencoder(tiny))
    clips, mask = random_clips(tiny, 3), draw(scheme, tiny)
    ours, dense = model.loss(clips, mask), dense_loss(model, clips, mask)
    torch.testing.assert_close(ours, dense, rtol=2e-6, atol=2e-6)
    assert_same_gradients(model, ours, dense, rtol=1e-4, atol=2e-6)


def test_v2_without_a_decoder_ratio_is_v1(tiny):
    model = randomize(MaskedAutoencoder(tiny))
    clips = random_clips(tiny, 3)
    losses = [
        model.loss(clips, draw(c, tiny))
        for c in (MaskConfig("tube", 0.75), V2.replace(decoder_mask_ratio=0.0))
    ]
    assert torch.equal(*losses)


def test_patch_embedding_is_a_convolution_also_for_visible_tokens_only(tiny):
    model = randomize(VisionTransformer(tiny))
    clips, mask = random_clips(tiny, 3), draw(V2, tiny)
    tokens = model.embed(clips)
    conv = model.patch_embed.proj(normalized(clips)).flatten(2).transpose(1, 2) + model.pos_embed
    torch.testing.assert_close(tokens, conv, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(
        model.embed(clips, mask.visible),
        tokens[torch.arange(3)[:, None], mask.visible],
        rtol=0,
        atol=1e-6,
    )
    torch.testing.assert_close(model.embed(clips.float() / 255), tokens, rtol=0, atol=1e-6)


def test_nothing_hidden_reaches_the_encoder(tiny):
    """Changing hidden pixels does not change predictions; changing visible ones does."""
    model = randomize(MaskedAutoencoder(tiny))
    clips, mask = random_clips(tiny, 3), draw(V2, tiny)
    hidden = mask.hidden(tiny.grid.num_tokens)
    noise = random_clips(tiny, 3, seed=9)
    mixed = torch.where(hidden[..., None], patchify(noise, tiny.grid), patchify(clips, tiny.grid))
    assert torch.equal(model(unpatchify(mixed, tiny.grid), mask), model(clips, mask))
    assert not torch.allclose(model(noise, mask), model(clips, mask))


def test_loss_near_one_means_the_mean_is_predicted(tiny):
    """With normalised targets, a model that predicts 0 has a loss near 1: it has learned nothing."""
    model = MaskedAutoencoder(tiny)
    torch.nn.init.zeros_(model.decoder.head.weight)
    loss = model.loss(random_clips(tiny, 3), draw(V2, tiny)).item()
    pixels = tiny.grid.token_dim // 3
    assert loss == pytest.approx((pixels - 1) / pixels, abs=1e-3)


def test_reconstruction_shows_visible_and_predicted_tokens(tiny):
    model = randomize(MaskedAutoencoder(tiny))
    clips, mask = random_clips(tiny, 3), draw(V2, tiny)
    shown = [patchify(x, tiny.grid) for x in model.reconstruct(clips, mask)]
    masked, predicted, pasted = shown
    hidden = mask.hidden(tiny.grid.num_tokens)
    unit = patchify(clips, tiny.grid).float() / 255
    assert torch.equal(masked[~hidden], unit[~hidden])
    assert (masked[hidden] == 0.5).all()
    target = torch.zeros_like(hidden).scatter(1, mask.target_tokens, True)
    assert torch.equal(pasted[target], predicted[target])
    assert torch.equal(pasted[~hidden], unit[~hidden])
    assert (predicted[~target] == 0.5).all()
    assert all(x.min() >= 0 and x.max() <= 1 for x in shown)


def test_a_perfect_prediction_reconstructs_the_clip(tiny, monkeypatch):
    for config in (tiny, tiny.replace(normalize_targets=False)):
        model = MaskedAutoencoder(config)
        clips, mask = random_clips(config, 2), draw(MaskConfig("tube", 0.75), config, 2)

        def perfect(model, clips, mask):
            return pixel_targets(clips, mask, model.config)

        monkeypatch.setattr(MaskedAutoencoder, "forward", perfect)
        torch.testing.assert_close(
            model.reconstruct(clips, mask).pasted, clips.float() / 255, rtol=0, atol=1e-5
        )
        monkeypatch.undo()


def test_initialisation_is_the_published_one():
    config = ModelConfig(
        embed_dim=96,
        depth=2,
        num_heads=4,
        decoder_embed_dim=48,
        decoder_depth=1,
        decoder_num_heads=4,
    )
    torch.manual_seed(0)
    model = MaskedAutoencoder(config)
    assert 0 < model.mask_token.abs().max() <= 0.02
    for name, parameter in ((n, p.detach()) for n, p in model.named_parameters()):
        if name.endswith("bias"):
            if "patch_embed" not in name:
                assert (parameter == 0).all(), name
        elif parameter.ndim == 2:
            rows, columns = parameter.shape
            bound = math.sqrt(6 / (rows + columns))  # xavier
            if name.startswith("encoder_to_decoder"):
                bound = 1 / math.sqrt(columns)  # PyTorch's default, unchanged in the official code
            assert bound * 0.97 < parameter.abs().max() <= bound, name
    fan_in = 3 * 2 * 16 * 16
    assert model.encoder.patch_embed.proj.weight.abs().max() <= 1 / math.sqrt(fan_in)
    classifier = VisionTransformer(config, num_classes=50)
    assert classifier.head.weight.std().item() == pytest.approx(0.02 * 0.001, rel=0.1)
    assert classifier.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("num_classes", [None, 5])
def test_every_initial_weight_is_drawn_once(num_classes, tiny):
    class Draws(TorchFunctionMode):
        drawn = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in (
                torch.Tensor.uniform_,
                torch.Tensor.normal_,
                torch.nn.init.kaiming_uniform_,
            ):
                self.drawn += (args[0] if args else kwargs["tensor"]).numel()
            return function(*args, **(kwargs or {}))

    with Draws() as draws:
        model = VisionTransformer(tiny, num_classes)
    assert all(p.any() for n, p in model.named_parameters() if p.ndim > 1), (
        "nothing is left at zero"
    )
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert matrices <= draws.drawn <= 1.01 * matrices, "PyTorch's own draw of each layer is skipped"


def test_initialisation_of_mae_is_the_published_one():
    config = ModelConfig.mae(
        "tiny", img_size=64, embed_dim=96, num_heads=4, decoder_embed_dim=48, decoder_num_heads=4
    )
    torch.manual_seed(0)
    model = MaskedAutoencoder(config)
    tokens = torch.cat([model.mask_token.flatten(), model.encoder.cls_token.flatten()])
    assert tokens.std().item() == pytest.approx(0.02, rel=0.3)
    for name, parameter in ((n, p.detach()) for n, p in model.named_parameters()):
        if parameter.ndim > 1 and not name.endswith("token"):
            rows, columns = (
                len(parameter),
                parameter[0].numel(),
            )  # the patch embedding is linear too
            bound = math.sqrt(6 / (rows + columns))
            assert bound * 0.97 < parameter.abs().max() <= bound, name
        elif name.endswith("bias") and "patch_embed" not in name:
            assert (parameter == 0).all(), name


def test_drop_path_drops_whole_samples_and_keeps_the_mean(tiny):
    drop = DropPath(0.3).train()
    torch.manual_seed(0)
    out = drop(torch.ones(4000, 2, 3)).flatten(1)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (out == out[:, :1]).all()
    assert out.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(torch.ones(2, 2, 3)), torch.ones(2, 2, 3))
    rates = [b.drop_path.rate for b in VisionTransformer(tiny, num_classes=2, drop_path=0.2).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_bf16_agrees_with_fp32(tiny):
    """bf16 keeps 8 significant bits: outputs agree within 3 % of their scale, the loss within 1 %."""
    model = randomize(MaskedAutoencoder(tiny))
    clips, mask = random_clips(tiny, 3), draw(V2, tiny)
    full, loss = model(clips, mask), model.loss(clips, mask)
    with torch.autocast("cpu", torch.bfloat16):
        half, half_loss = model(clips, mask), model.loss(clips, mask)
    assert half.dtype == torch.bfloat16
    assert half_loss.dtype == torch.float32
    assert (half - full).abs().mean() < 0.03 * full.abs().mean()
    assert half_loss.item() == pytest.approx(loss.item(), rel=0.01)


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("g++") and not shutil.which("cl"), reason="torch.compile needs a C++ compiler"
)
def test_the_whole_step_compiles_without_a_break_and_agrees(tiny):
    """fullgraph=True fails on any host sync or data-dependent shape, such as a boolean index."""
    model = randomize(MaskedAutoencoder(tiny.replace(depth=1, decoder_depth=1)))
    clips, mask = random_clips(tiny, 2), draw(V2, tiny, 2)
    compiled = torch.compile(model.loss, fullgraph=True)
    loss, expected = compiled(clips, mask), model.loss(clips, mask)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert_same_gradients(model, loss, expected, rtol=1e-3, atol=1e-5)


def test_attention_maps_are_the_softmax_that_the_block_uses(tiny):
    model = randomize(VisionTransformer(tiny))
    clips = random_clips(tiny, 2)
    maps = model.attention_maps(clips, layer=-1)
    n = tiny.grid.num_tokens
    assert maps.shape == (2, tiny.num_heads, n, n)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, tiny.num_heads, n))
    x = model.embed(clips)
    for block in model.blocks[:-1]:
        x = block(x)
    block = model.blocks[-1]
    values = block.attn._project(block.norm1(x))[2]
    out = block.attn.proj((maps @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, block.attn(block.norm1(x)), rtol=1e-4, atol=1e-5)
    assert torch.equal(model.attention_maps(clips, layer=2), maps)
    with pytest.raises(IndexError):
        model.attention_maps(clips, layer=3)


@pytest.mark.parametrize("family", ["videomae", "mae"])
def test_targets_and_losses_do_not_change_the_clips(family: str) -> None:
    config = ModelConfig(num_frames=1 if family == "mae" else 8, img_size=32, embed_dim=32, depth=1, num_heads=2,
                         decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2, family=family,
                         tubelet=(1, 8, 8) if family == "mae" else (2, 8, 8))  # fmt: skip
    model = MaskedAutoencoder(config)
    mask = draw(MaskConfig("random", 0.75), config)
    for clips in (random_clips(config, 3), torch.rand(3, 3, *config.grid.clip)):
        before = clips.clone()
        targets = pixel_targets(clips, mask, model.config)
        model.loss(clips, mask).backward()
        assert torch.equal(clips, before)
        assert torch.equal(targets, pixel_targets(clips, mask, model.config))


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        *product(
            ("tube", "random", "frame"), ("all", "every", "random", "drop-visible", "independent")
        ),
        ("tube", "running-cell"),
        ("tube", "frame"),
    ],
)
def test_a_step_never_waits_for_a_device(encoder, decoder):
    """Meta tensors have no values: reading one, or a shape that depends on one, raises."""
    meta = torch.device("meta")
    config = ModelConfig.videomae("tiny", num_frames=16, img_size=64)
    model = MaskedAutoencoder(config).to(meta)
    clips = torch.empty(3, 3, 16, 64, 64, dtype=torch.uint8, device=meta)
    ratio = 0.0 if decoder in ("all", "every") else 0.5
    mask = make_mask(MaskConfig(encoder, 0.75, None, decoder, ratio), config.grid, 3, None, meta)
    crops = multi_scale_crop(clips)
    loss = model.loss(crops, mask)
    loss.backward()
    assert all(x.grad is not None and x.grad.device == meta for x in model.parameters())
    hidden = mask.hidden(config.grid.num_tokens)
    with pytest.raises(NotImplementedError, match="nonzero"):
        patchify(crops, config.grid)[hidden]  # as published: a shape that depends on values
