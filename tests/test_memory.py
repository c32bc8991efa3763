"""The expected memory of a training step, held against what PyTorch keeps for the way back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import random_clips

from vmae.config import FinetuneConfig, MaskConfig, ModelConfig, PretrainConfig
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.memory import clip_activations, training_memory
from vmae.train.speed import checkpointed
from vmae.vit import VisionTransformer

S = ModelConfig.videomae("S", frames=8, size=96)
V1, V2 = MaskConfig(), MaskConfig("tube", 0.75, None, "running-cell", 0.5)


def kept(config: PretrainConfig | FinetuneConfig, clips: int, bf16: bool) -> int:
    """Bytes of all that autograd saves in a forward pass, each storage once, parameters left out."""
    pre = isinstance(config, PretrainConfig)
    model = MaskedAutoencoder(config.model) if pre else VisionTransformer(config.model, 8)
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    batch = random_clips(config.model, clips)
    seen: dict[int, torch.UntypedStorage] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage
        return tensor.detach()  # itself, an output, would hold its graph, which holds it: for ever

    with (
        checkpointed(model, config.checkpointing),
        torch.autograd.graph.saved_tensors_hooks(save, lambda x: x),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        if isinstance(config, PretrainConfig):
            mask = make_mask(config.mask, config.model.grid, clips)
            F.mse_loss(model(batch, mask).float(), model.targets(batch, mask))
        else:
            F.cross_entropy(model(batch).float(), torch.zeros(clips, dtype=torch.int64))
    return sum(storage.nbytes() for storage in seen.values())


@pytest.mark.parametrize("model", [ModelConfig.videomae("tiny"), S], ids=["tiny", "S"])
@pytest.mark.parametrize("mask", [V1, V2], ids=["V1", "V2"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_activations_are_those_that_autograd_keeps(model, mask, bf16):
    config = PretrainConfig(model, mask.replace(ratio=0.75), device="cpu")
    found = kept(config, 4, bf16) - kept(config, 2, bf16)  # without what all clips share
    assert 2 * clip_activations(config, bf16) == pytest.approx(found, rel=0.03)


@pytest.mark.parametrize(
    "model", [ModelConfig.videomae("tiny"), S, ModelConfig.mae("S", size=96)],
    ids=["tiny", "S", "image"],
)  # fmt: skip
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_activations_of_a_classifier_are_those_that_autograd_keeps(model, bf16):
    config = FinetuneConfig(model, device="cpu")
    found = kept(config, 4, bf16) - kept(config, 2, bf16)
    assert 2 * clip_activations(config, bf16) == pytest.approx(found, rel=0.03)


def test_a_classifier_needs_weights_four_times_and_float_clips_where_they_are_changed():
    config = FinetuneConfig(S)
    count = sum(p.numel() for p in VisionTransformer(S, 400).parameters())
    needed = training_memory(config, 0)
    assert needed.total == pytest.approx(16 * count, rel=0.01), "but for the last layer"
    more = clip_activations(config.replace(mixup=0.8), False) - clip_activations(config, False)
    assert more == 3 * random_clips(S, 1).numel()
    less = clip_activations(config.replace(checkpointing=True), False)
    assert less < 0.3 * clip_activations(config, False)


def test_checkpointing_and_bf16_take_less_as_expected():
    plain = PretrainConfig(S, V2, device="cuda")
    assert clip_activations(plain, True) < 0.65 * clip_activations(plain, False)
    assert clip_activations(plain.replace(device="cpu"), True) > clip_activations(plain, True), (
        "no fused kernel there"
    )
    less = plain.replace(checkpointing=True)
    assert clip_activations(less, False) < 0.4 * clip_activations(plain, False)
    assert kept(less, 2, False) < 0.3 * kept(plain, 2, False), "inputs of blocks only"


def test_weights_gradients_and_moments_are_shared_under_fsdp():
    config = PretrainConfig(ModelConfig.videomae("B"), V1.replace(ratio=0.9))
    count = sum(p.numel() for p in MaskedAutoencoder(config.model).parameters())
    one, eight = training_memory(config, 8), training_memory(config, 8, sharded=8)
    assert one.weights == one.gradients == one.optimizer // 2 == 4 * count
    assert one.weights // eight.weights == 8
    assert one.activations == eight.activations
