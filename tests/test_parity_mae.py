"""Parity of MAE with Hugging Face's ViTMAE, given the same noise: predictions, loss and gradients.

transformers 5.23 leaves the frozen position tables of a new ViTMAE at zero, so the published tables
are copied into it first.
"""

from __future__ import annotations

import pytest
import torch
from conftest import random_clips, randomize
from test_parity_videomae import align_epsilons, normalized

from vmae.config import ModelConfig
from vmae.grid import gather_tokens
from vmae.mae import MaskedAutoencoder
from vmae.masking import all_hidden

transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(
    family="mae", num_frames=1, img_size=32, tubelet=(1, 8, 8), embed_dim=48, depth=3, num_heads=4,
    decoder_embed_dim=24, decoder_depth=2, decoder_num_heads=2,
)  # fmt: skip
NAMES = (
    ("encoder.cls_token", "vit.embeddings.cls_token"),
    ("mask_token", "decoder.mask_token"),
    ("encoder.patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
    ("encoder.norm.", "vit.layernorm."),
    ("encoder_to_decoder.", "decoder.decoder_embed."),
    ("decoder.norm.", "decoder.decoder_norm."),
    ("decoder.head.", "decoder.decoder_pred."),
    ("encoder.blocks.", "vit.layers."),
    ("decoder.blocks.", "decoder.decoder_layers."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.o_proj."),
)


def pairs(ours):
    """(our name, rows, Hugging Face's name); fused qkv parameters are split."""
    for name, parameter in ours.named_parameters():
        theirs = name
        for a, b in NAMES:
            theirs = theirs.replace(a, b)
        if ".attn.qkv." in name:
            width = len(parameter) // 3
            for i, part in enumerate("qkv"):
                yield (
                    name,
                    slice(i * width, (i + 1) * width),
                    theirs.replace("attn.qkv", f"attention.{part}_proj"),
                )
        else:
            yield name, slice(None), theirs


@pytest.mark.parametrize("normalize_targets", [True, False])
def test_mae_equals_hugging_face(normalize_targets):
    config = CONFIG.replace(normalize_targets=normalize_targets)
    ours = randomize(MaskedAutoencoder(config))
    theirs = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            image_size=32, patch_size=8, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
            intermediate_size=192, decoder_hidden_size=24, decoder_num_hidden_layers=2,
            decoder_num_attention_heads=2, decoder_intermediate_size=96, mask_ratio=0.75,
            norm_pix_loss=normalize_targets, attn_implementation="eager",
        )
    )  # fmt: skip
    align_epsilons(theirs)
    target = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, rows, other in pairs(ours):
            parameter = target.pop(other)
            parameter.copy_(ours.get_parameter(name)[rows].reshape(parameter.shape))
        assert sorted(target) == ["decoder.decoder_pos_embed", "vit.embeddings.position_embeddings"]
        for table, own in zip(
            sorted(target), (ours.decoder_pos_embed, ours.encoder.pos_embed[0]), strict=True
        ):
            target[table].copy_(torch.nn.functional.pad(own, (0, 0, 1, 0))[None])

    clips = random_clips(config, 3)
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    mask = all_hidden(noise.argsort(1)[:, :4].sort(1).values, config.grid)
    expected = theirs(normalized(clips)[:, 0], noise=noise)
    assert torch.equal(expected.mask.bool(), mask.hidden(16))
    predicted, loss = ours(clips, mask), ours.loss(clips, mask)
    torch.testing.assert_close(
        predicted, gather_tokens(expected.logits, mask.target_tokens), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(loss, expected.loss, rtol=1e-6, atol=1e-6)

    loss.backward()
    expected.loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, rows, other in pairs(ours):
        grad = ours.get_parameter(name).grad[rows].reshape(gradients[other].shape)
        torch.testing.assert_close(
            grad, gradients[other], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
