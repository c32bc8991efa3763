"""Published sizes: parameters to the digits printed, multiply-adds within 0.5 %."""

from __future__ import annotations

import pytest
import torch

from vmae.config import MaskConfig, ModelConfig
from vmae.cost import (
    classifier_multiply_adds,
    clip_activations,
    parameters,
    pretraining_multiply_adds,
)
from vmae.mae import MaskedAutoencoder
from vmae.train import PretrainConfig
from vmae.vit import VisionTransformer

TUBE = MaskConfig("tube", 0.9)


def on_meta(build):
    with torch.device("meta"):
        return build()


@pytest.mark.parametrize(
    ("size", "version", "encoder", "decoder"),
    [
        ("S", 1, 21.88, 2.15),
        ("B", 1, 86.23, 7.98),
        ("L", 1, 303.86, 39.14),
        ("L", 2, 303.86, 13.92),
        ("H", 1, 631.61, 60.88),
        ("H", 2, 631.61, 14.05),
        ("g", 2, 1011.6, 14.70),
    ],
)
def test_parameters_of_pretraining(size, version, encoder, decoder):
    model = on_meta(lambda: MaskedAutoencoder(ModelConfig.videomae(size, version)))
    inside = parameters(model.encoder)
    digits = 1 if size == "g" else 2
    assert round(inside / 1e6, digits) == encoder
    assert round((parameters(model) - inside) / 1e6, 2) == decoder


@pytest.mark.parametrize(
    ("size", "millions"), [("S", 22.03), ("L", 304.27), ("H", 632.12), ("g", 1012.2)]
)
def test_parameters_of_the_classifier(size, millions):
    model = on_meta(lambda: VisionTransformer(ModelConfig.videomae(size), 400))
    assert round(parameters(model) / 1e6, 1 if size == "g" else 2) == millions


def test_the_base_classifier_has_as_many_parameters_as_its_authors_logged():
    assert (
        parameters(on_meta(lambda: VisionTransformer(ModelConfig.videomae("B"), 400))) == 86_534_800
    )


@pytest.mark.parametrize(
    ("size", "encoder", "decoder"), [("B", 85.65, 26.01), ("L", 303.1, 26.1), ("H", 630.4, 26.2)]
)
def test_parameters_of_mae(size, encoder, decoder):
    model = on_meta(lambda: MaskedAutoencoder(ModelConfig.mae(size)))
    inside = parameters(model.encoder)
    digits = 2 if size == "B" else 1
    assert inside / 1e6 == pytest.approx(encoder, abs=0.51 * 10**-digits)
    assert (parameters(model) - inside) / 1e6 == pytest.approx(decoder, abs=0.51 * 10**-digits)


def test_giant_has_its_odd_mlp():
    model = on_meta(lambda: MaskedAutoencoder(ModelConfig.videomae("g")))
    assert model.encoder.blocks[0].mlp.fc1.out_features == 6144
    assert model.decoder.blocks[0].mlp.fc1.out_features == 2234
    assert model.decoder.head.out_features == 1176


@pytest.mark.parametrize(("size", "giga"), [("S", 57), ("B", 180), ("L", 597), ("H", 1192)])
def test_multiply_adds_of_the_classifier(size, giga):
    assert classifier_multiply_adds(ModelConfig.videomae(size)) / 1e9 == pytest.approx(
        giga, rel=0.005
    )


@pytest.mark.parametrize(
    ("mask", "giga"),
    [
        (TUBE, 35.48),
        (TUBE.replace(decoder_mask_type="running-cell", decoder_mask_ratio=0.25), 31.63),
        (TUBE.replace(decoder_mask_type="running-cell", decoder_mask_ratio=0.5), 25.87),
        (TUBE.replace(decoder_mask_type="running-cell", decoder_mask_ratio=0.75), 21.06),
        (TUBE.replace(decoder_mask_type="frame", decoder_mask_ratio=0.5), 25.87),
    ],
)
def test_multiply_adds_of_pretraining(mask, giga):
    counts = pretraining_multiply_adds(ModelConfig.videomae("B"), mask)
    assert counts["published"] / 1e9 == pytest.approx(giga, rel=0.005)
    assert counts["total"] == sum(list(counts.values())[:5])
    assert counts["skipped"] > 0


def test_stages_match_a_count_by_hand():
    """V1-B, from the shapes alone."""
    counts = pretraining_multiply_adds(ModelConfig.videomae("B"), TUBE)

    def blocks(depth, n, d):  # qkv, the two products of attention, projection, MLP
        return depth * (3 * n * d * d + 2 * n * n * d + n * d * d + 8 * n * d * d)

    assert counts["patch embed"] == 160 * 1536 * 768
    assert counts["encoder"] == blocks(12, 160, 768)
    assert counts["encoder to decoder"] == 160 * 768 * 384
    assert counts["decoder"] == blocks(4, 1568, 384)
    assert counts["head"] == 1408 * 384 * 1536


def test_counting_leaves_the_generator_and_the_cache_alone():
    small = ModelConfig.videomae("tiny")
    counts = [pretraining_multiply_adds, lambda config, mask: {"all": classifier_multiply_adds(config)},
              lambda config, mask: {"all": clip_activations(PretrainConfig(model=config, mask=mask), False)}]  # fmt: skip
    for count in counts:
        torch.manual_seed(0)
        found = count(small, MaskConfig("random", 0.75))
        drawn = torch.rand(1)
        torch.manual_seed(0)
        assert torch.equal(drawn, torch.rand(1)), "the global generator is the caller's"
        before = dict(found)
        found.clear()  # a caller may change its copy; the cache must not
        assert count(small, MaskConfig("random", 0.75)) == before
