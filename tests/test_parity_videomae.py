"""Parity of V1 with Hugging Face's VideoMAE: outputs, loss and gradients, same random weights.

Hugging Face runs in eager mode with LayerNorm epsilons of 1e-6, as in the official code (its own
defaults are 1e-12 and 1e-5).
"""

from __future__ import annotations

import pytest
import torch
from conftest import random_clips, randomize
from torch import nn

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, MaskConfig, ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.vit import VisionTransformer

transformers = pytest.importorskip("transformers")


def hf_name(name: str) -> str:
    """The Hugging Face 5.x name of one of our parameters, except qkv."""
    for ours, theirs in (
        ("encoder.patch_embed.proj", "videomae.embeddings.patch_embeddings.projection"),
        ("decoder.blocks.", "decoder.decoder_layers."),
        ("encoder.blocks.", "videomae.encoder.layer."),
        ("encoder.norm.", "videomae.layernorm."),
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
        (".attn.proj.", ".attention.output.dense."),
        (".attn.q_bias", ".attention.attention.query.bias"),
        (".attn.v_bias", ".attention.attention.value.bias"),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ):
        name = name.replace(ours, theirs)
    if name.startswith("head."):
        name = name.replace("head.", "classifier.")
    return name


def pairs(ours: nn.Module, prefix: str = ""):
    """(our name, slice of ours, Hugging Face's name); fused qkv weights are split."""
    for name, parameter in ours.named_parameters():
        if name.endswith("attn.qkv.weight"):
            width = parameter.shape[1]
            for i, part in enumerate(("query", "key", "value")):
                theirs = hf_name(prefix + name).replace("attn.qkv", f"attention.attention.{part}")
                yield name, slice(i * width, (i + 1) * width), theirs
        else:
            yield name, slice(None), hf_name(prefix + name)


def copy_to_hf(ours: nn.Module, theirs: nn.Module, prefix: str = "") -> None:
    """Copy our weights into a Hugging Face model, filling every parameter of it."""
    target = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, rows, other in pairs(ours, prefix):
            target.pop(other).copy_(ours.get_parameter(name)[rows])
    assert not target, f"not filled: {sorted(target)}"


def align_epsilons(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    return model


def hf_config(config: ModelConfig, **extra):
    return transformers.VideoMAEConfig(
        image_size=config.img_size, patch_size=config.tubelet[1], tubelet_size=config.tubelet[0],
        num_frames=config.num_frames, hidden_size=config.embed_dim, num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads, intermediate_size=int(config.embed_dim * config.mlp_ratio),
        decoder_hidden_size=config.decoder_embed_dim, decoder_num_hidden_layers=config.decoder_depth,
        decoder_num_attention_heads=config.decoder_num_heads,
        decoder_intermediate_size=int(config.decoder_embed_dim * config.mlp_ratio),
        norm_pix_loss=config.normalize_targets, attn_implementation="eager", **extra,
    )  # fmt: skip


def normalized(clips: torch.Tensor) -> torch.Tensor:
    """ImageNet-normalised floats (B, T, C, H, W), the input of Hugging Face's models."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((clips.float() / 255 - mean) / std).transpose(1, 2)


@pytest.mark.parametrize("normalize_targets", [True, False])
@pytest.mark.parametrize("tubelet", [(2, 8, 8), (1, 16, 16)])
def test_pretraining_equals_hugging_face(tiny, tubelet, normalize_targets):
    config = tiny.replace(tubelet=tubelet, normalize_targets=normalize_targets)
    ours = randomize(MaskedAutoencoder(config))
    theirs = transformers.VideoMAEForPreTraining(hf_config(config, use_mean_pooling=False))
    copy_to_hf(ours, align_epsilons(theirs))
    clips = random_clips(config, 3)
    ratio = 0.75 if tubelet[0] == 2 else 0.5
    mask = make_mask(MaskConfig(mask_ratio=ratio), config.grid, 3, torch.Generator().manual_seed(1))

    expected = theirs(normalized(clips), bool_masked_pos=mask.hidden(config.grid.num_tokens))
    predicted, loss = ours(clips, mask), ours.loss(clips, mask)
    torch.testing.assert_close(predicted, expected.logits, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-6, atol=1e-6)

    loss.backward()
    expected.loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, rows, other in pairs(ours):
        grad = ours.get_parameter(name).grad
        assert grad is not None, name
        torch.testing.assert_close(
            grad[rows], gradients[other], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_classifier_equals_hugging_face(tiny):
    ours = randomize(VisionTransformer(tiny, num_classes=5)).eval()
    config = hf_config(tiny, use_mean_pooling=True, num_labels=5)
    theirs = align_epsilons(transformers.VideoMAEForVideoClassification(config)).eval()
    target = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, rows, other in pairs(ours, "encoder."):
            other = other.replace("encoder.fc_norm", "fc_norm").replace(
                "encoder.head", "classifier"
            )
            target.pop(other).copy_(ours.get_parameter(name)[rows])
    assert not target
    clips = random_clips(tiny, 3)
    torch.testing.assert_close(ours(clips), theirs(normalized(clips)).logits, rtol=1e-6, atol=1e-6)
