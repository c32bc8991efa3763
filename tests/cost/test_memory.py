"""The estimated memory of a training step, compared with what autograd really keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import random_clips

from vmae.config import MaskConfig, ModelConfig
from vmae.cost import clip_activations, saved_tensors, training_memory
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import make_mask
from vmae.train import FinetuneConfig, PretrainConfig, checkpointed
from vmae.train.schedule import freeze
from vmae.vit import VisionTransformer

S = ModelConfig.videomae("S", num_frames=8, img_size=96)
V1, V2 = MaskConfig(), MaskConfig("tube", 0.75, None, "running-cell", 0.5)


def kept(config: PretrainConfig | FinetuneConfig, clips: int, bf16: bool) -> int:
    """Bytes that autograd saves in a forward pass, counting each storage once, without parameters."""
    pre = isinstance(config, PretrainConfig)
    model = MaskedAutoencoder(config.model) if pre else VisionTransformer(config.model, 8)
    if isinstance(model, VisionTransformer):
        freeze(model, config.frozen_layers)
    batch = random_clips(config.model, clips)
    with (
        checkpointed(model, config.activation_checkpointing),
        saved_tensors([*model.parameters(), *model.buffers()]) as saved,
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        if isinstance(config, PretrainConfig):
            mask = make_mask(config.mask, config.model.grid, clips)
            F.mse_loss(model(batch, mask).float(), pixel_targets(batch, mask, model.config))
        else:
            F.cross_entropy(model(batch).float(), torch.zeros(clips, dtype=torch.int64))
    return saved.peak


@pytest.mark.parametrize("model", [ModelConfig.videomae("tiny"), S], ids=["tiny", "S"])
@pytest.mark.parametrize("mask", [V1, V2], ids=["V1", "V2"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_activations_match_what_autograd_keeps(model, mask, bf16):
    config = PretrainConfig(model=model, mask=mask.replace(mask_ratio=0.75), device="cpu")
    found = kept(config, 4, bf16) - kept(
        config, 2, bf16
    )  # the difference drops what all clips share
    assert 2 * clip_activations(config, bf16) == pytest.approx(found, rel=0.03)


@pytest.mark.parametrize(
    "model", [ModelConfig.videomae("tiny"), S, ModelConfig.mae("S", img_size=96)],
    ids=["tiny", "S", "image"],
)  # fmt: skip
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_activations_of_a_classifier_match_what_autograd_keeps(model, bf16):
    config = FinetuneConfig(model=model, device="cpu")
    found = kept(config, 4, bf16) - kept(config, 2, bf16)
    assert 2 * clip_activations(config, bf16) == pytest.approx(found, rel=0.03)


def test_frozen_layers_keep_nothing():
    config = FinetuneConfig(model=S, device="cpu", frozen_layers=S.depth - 1)
    found = kept(config, 4, False) - kept(config, 2, False)
    clips = random_clips(S, 2).numel()  # in memory, though autograd does not keep them
    assert 2 * clip_activations(config, False) == pytest.approx(found + clips, rel=0.03)
    all_trained, few = (training_memory(c, 0) for c in (config.replace(frozen_layers=0), config))
    assert few.weights == all_trained.weights
    assert few.gradients / all_trained.gradients == pytest.approx(1 / S.depth, abs=0.05)


def test_a_classifier_needs_four_times_its_weights_and_float_clips_if_augmented():
    config = FinetuneConfig(model=S)
    count = sum(p.numel() for p in VisionTransformer(S, 400).parameters())
    needed = training_memory(config, 0)
    assert needed.total == pytest.approx(16 * count, rel=0.01), "all but the last layer"
    more = clip_activations(config.replace(mixup=0.8), False) - clip_activations(config, False)
    assert more == 3 * random_clips(S, 1).numel()
    less = clip_activations(config.replace(activation_checkpointing=True), False)
    assert less < 0.3 * clip_activations(config, False)


def test_checkpointing_and_bf16_save_memory_as_expected():
    plain = PretrainConfig(model=S, mask=V2, device="cuda")
    assert clip_activations(plain, True) < 0.65 * clip_activations(plain, False)
    assert clip_activations(plain.replace(device="cpu"), True) > clip_activations(plain, True), (
        "no fused kernel there"
    )
    less = plain.replace(activation_checkpointing=True)
    assert clip_activations(less, False) < 0.4 * clip_activations(plain, False)
    assert kept(less, 2, False) < 0.3 * kept(plain, 2, False), "only the inputs of blocks"


def test_weights_gradients_and_moments_are_shared_under_fsdp():
    config = PretrainConfig(model=ModelConfig.videomae("B"), mask=V1.replace(mask_ratio=0.9))
    count = sum(p.numel() for p in MaskedAutoencoder(config.model).parameters())
    one, eight = training_memory(config, 8), training_memory(config, 8, sharded=8)
    assert one.weights == one.gradients == one.optimizer // 2 == 4 * count
    assert one.weights // eight.weights == 8
    assert one.activations == eight.activations
