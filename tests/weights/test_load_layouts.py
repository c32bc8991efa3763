"""Loading published files: official VideoMAE and MAE, mmaction2."""

from __future__ import annotations

import argparse
from collections import OrderedDict

import pytest
import torch
from published_layouts import (
    CLIP,
    IMAGE,
    VIDEO,
    mae_table,
    mmaction2,
    official_finetuned,
    official_mae,
    official_pretrain,
    pth,
    same,
)
from safetensors.torch import save_file

import vmae
from vmae.mae import MaskedAutoencoder
from vmae.weights import CheckpointError, load, save


def test_an_official_pretraining_file(tmp_path, tiny):
    state = official_pretrain()
    arguments = argparse.Namespace(model="pretrain_videomae", num_frames=8, input_size=32)
    path = pth(
        tmp_path / "v1.pth", {"model": state, "optimizer": {}, "epoch": 3, "args": arguments}
    )
    model = vmae.load(
        path, num_heads=4, decoder_num_heads=2
    )  # frames and size come from its arguments
    assert isinstance(model, MaskedAutoencoder) and not model.training
    assert model.config == tiny
    same(model.state_dict(), state)


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "encoder.", "_orig_mod.", "module._orig_mod.", "model.",
               "encoder._orig_mod.", "backbone.module."],
)  # fmt: skip
def test_wrappers_and_prefixes(tmp_path, prefix, wrapper):
    state = official_finetuned()
    named = OrderedDict((prefix + name, tensor) for name, tensor in state.items())
    path = pth(tmp_path / "m.pt", {wrapper: named} if wrapper else named)
    model = load(path, **CLIP)
    assert model.num_classes == 5
    same(model.state_dict(), state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_a_pretraining_file(tmp_path, prefix):
    state = official_pretrain()
    path = pth(tmp_path / "m.pth", {"model": {prefix + name: t for name, t in state.items()}})
    same(load(path, **VIDEO).state_dict(), state)
    inside = {
        name.replace("encoder.blocks", "encoder._orig_mod.blocks"): t for name, t in state.items()
    }
    same(load(pth(tmp_path / "i.pth", inside), **VIDEO).state_dict(), state)


def test_the_format_is_detected_from_the_content(tmp_path):
    state = official_pretrain()
    save_file(state, tmp_path / "weights.bin")
    same(load(tmp_path / "weights.bin", **VIDEO).state_dict(), state)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    same(load(tmp_path / "old.pth", **VIDEO).state_dict(), state)
    half = pth(tmp_path / "half.pth", {"module": {n: t.half() for n, t in state.items()}})
    model = load(half, **VIDEO)  # DeepSpeed's
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}


def test_mmaction2(tmp_path, tiny):
    path = pth(tmp_path / "mm.pth", {"state_dict": mmaction2()})
    with pytest.warns(UserWarning, match="skipping entries that are not tensors: meta"):
        nested = load(pth(tmp_path / "meta.pth", mmaction2() | {"meta": "x"}), **CLIP)
    model = load(path, **CLIP)
    same(model.state_dict(), official_finetuned())
    same(nested.state_dict(), official_finetuned())
    with pytest.raises(
        CheckpointError, match=r"pos_embed has shape \(1, 64, 48\).*num_frames= and img_size="
    ):
        load(path, num_frames=16, img_size=32, num_heads=4)


@pytest.mark.parametrize("decoder", [True, False])
def test_official_mae(tmp_path, image, decoder):
    state = official_mae(decoder)
    model = load(
        pth(tmp_path / "mae.pth", {"model": state}), **(IMAGE if decoder else {"num_heads": 4})
    )
    assert model.config.grid == image.grid  # the size comes from the stored positions
    ours = model.state_dict()
    kernel = ours["encoder.patch_embed.proj.weight" if decoder else "patch_embed.proj.weight"]
    assert torch.equal(kernel, state["patch_embed.proj.weight"][:, :, None])
    if decoder:
        assert torch.equal(ours["decoder.head.weight"], state["decoder_pred.weight"])
        assert torch.equal(ours["encoder_to_decoder.bias"], state["decoder_embed.bias"])
        assert torch.equal(ours["encoder.blocks.1.attn.qkv.bias"], state["blocks.1.attn.qkv.bias"])
    back = save(model, tmp_path / "back.pth", "official")
    written = torch.load(back, weights_only=True)["model"]
    for name in ("pos_embed", "decoder_pos_embed"):
        if name in state:
            torch.testing.assert_close(written.pop(name), state.pop(name), rtol=0, atol=1e-6)
    same(written, state)


def test_stored_positions_of_the_decoder_must_be_ours(tmp_path):
    state = official_mae()
    state["decoder_pos_embed"][0, 3, 5] += 0.01
    with pytest.raises(
        CheckpointError,
        match=r"decoder_pos_embed differs from the fixed sin-cos table by.*0\.01.*load_encoder",
    ):
        load(pth(tmp_path / "a.pth", state), **IMAGE)
    state |= {"pos_embed": mae_table(48, 4).half(), "decoder_pos_embed": mae_table(24, 4)}
    load(pth(tmp_path / "b.pth", state), **IMAGE)
    state["decoder_pos_embed"].zero_()
    with pytest.raises(
        CheckpointError, match="decoder_pos_embed is all zeros: transformers leaves"
    ):
        load(pth(tmp_path / "c.pth", state), **IMAGE)


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_clips_of_several_segments_count_all_their_frames(tmp_path, segments):
    """The fine-tuning scripts build the model with all_frames = num_frames · num_segments."""
    arguments = argparse.Namespace(num_frames=8 // segments, num_segments=segments, input_size=32)
    path = pth(tmp_path / "m.pth", {"module": official_finetuned(), "args": arguments})
    assert load(path, num_heads=4).config.num_frames == 8
    arguments = {"num_frames": 8, "num_segments": None, "input_size": 32}
    path = pth(tmp_path / "d.pth", {"module": official_finetuned(), "args": arguments})
    assert load(path, num_heads=4).config.num_frames == 8
