"""Weights in every layout there is, in and out; files that must be refused are.

The layouts are written here by hand from the published code, or by transformers itself, so that a
name that `vmae.weights.names` gets wrong in both directions is still found.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import struct
import zlib
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import random_clips, randomize
from safetensors.torch import load_file, save_file
from test_parity_videomae import align_epsilons, hf_config, normalized

import vmae
from vmae.cli.main import main
from vmae.config import MaskConfig, ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.masking import all_hidden, make_mask
from vmae.train import FinetuneConfig, PretrainConfig, save_classifier
from vmae.vit import VisionTransformer
from vmae.weights import (
    CheckpointError,
    class_names,
    convert,
    load,
    load_encoder,
    save,
    save_weights,
)
from vmae.weights.layouts import infer_config

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

#: What official files do not tell of the models here.
CLIP = {"num_frames": 8, "img_size": 32, "num_heads": 4}
VIDEO = {**CLIP, "decoder_num_heads": 2}
IMAGE = {"num_heads": 4, "decoder_num_heads": 2}


@pytest.fixture
def image() -> ModelConfig:
    """A small MAE."""
    return ModelConfig(
        family="mae", num_frames=1, img_size=32, tubelet=(1, 8, 8), embed_dim=48, depth=2, num_heads=4,
        decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=2,
    )  # fmt: skip


def rand(name: str, *shape: int) -> torch.Tensor:
    """Noise that differs from name to name, so that no two parameters can change places."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator) * 0.2


def linear(name: str, out: int, into: int, bias: bool = True) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": rand(f"{name}.weight", out, into)} | (
        {f"{name}.bias": rand(f"{name}.bias", out)} if bias else {}
    )


def norm(name: str, width: int) -> dict[str, torch.Tensor]:
    return {
        f"{name}.weight": 1 + rand(f"{name}.weight", width),
        f"{name}.bias": rand(f"{name}.bias", width),
    }


def official_blocks(at: str, width: int, depth: int, hidden: int) -> dict[str, torch.Tensor]:
    """VideoMAE's blocks."""
    state = {}
    for i in range(depth):
        block = f"{at}blocks.{i}"
        state |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        state |= {
            f"{block}.attn.q_bias": rand(f"{block}.q", width),
            f"{block}.attn.v_bias": rand(f"{block}.v", width),
        }
        state |= linear(f"{block}.attn.qkv", 3 * width, width, bias=False)
        state |= linear(f"{block}.attn.proj", width, width)
        state |= linear(f"{block}.mlp.fc1", hidden, width)
        state |= linear(f"{block}.mlp.fc2", width, hidden)
    return state


def patches(name: str, *kernel: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": rand(name, 48, 3, *kernel), f"{name}.bias": rand("bias", 48)}


def official_pretrain() -> dict[str, torch.Tensor]:
    """What VideoMAE/modeling_pretrain.py calls its parameters; no positions."""
    return {
        "mask_token": rand("x", 1, 1, 24),
        **patches("encoder.patch_embed.proj", 2, 8, 8),
        **official_blocks("encoder.", 48, 3, 192),
        **norm("encoder.norm", 48),
        **linear("encoder_to_decoder", 24, 48, bias=False),
        **official_blocks("decoder.", 24, 2, 96),
        **norm("decoder.norm", 24),
        **linear("decoder.head", 2 * 8 * 8 * 3, 24),
    }


def official_finetuned(classes: int = 5) -> dict[str, torch.Tensor]:
    """What VideoMAE/modeling_finetune.py calls its parameters: no norm, no positions."""
    return {
        **patches("patch_embed.proj", 2, 8, 8),
        **official_blocks("", 48, 3, 192),
        **norm("fc_norm", 48),
        **linear("head", classes, 48),
    }


def mae_table(width: int, side: int) -> torch.Tensor:
    """MAE's table, value by value: zeros for the class token, then [sin x, cos x, sin y, cos y]."""
    quarter = width // 4
    rows = [[0.0] * width]
    for y in range(side):
        for x in range(side):
            waves = [[at / 10000 ** (k / quarter) for k in range(quarter)] for at in (x, y)]
            rows.append([f(v) for wave in waves for f in (math.sin, math.cos) for v in wave])
    return torch.tensor(rows)[None]


def official_mae(decoder: bool = True) -> dict[str, torch.Tensor]:
    """What mae/models_mae.py calls its parameters, with the frozen position tables."""
    state = {
        "cls_token": rand("x", 1, 1, 48),
        "pos_embed": mae_table(48, 4),
        **patches("patch_embed.proj", 8, 8),
        **norm("norm", 48),
    }
    parts = [("blocks", 48, 2)]
    if decoder:
        state |= {"mask_token": rand("x", 1, 1, 24), "decoder_pos_embed": mae_table(24, 4)}
        state |= linear("decoder_embed", 24, 48) | norm("decoder_norm", 24)
        state |= linear("decoder_pred", 8 * 8 * 3, 24)
        parts.append(("decoder_blocks", 24, 1))
    for at, width, depth in parts:
        for i in range(depth):
            state |= norm(f"{at}.{i}.norm1", width) | norm(f"{at}.{i}.norm2", width)
            state |= linear(f"{at}.{i}.attn.qkv", 3 * width, width)
            state |= linear(f"{at}.{i}.attn.proj", width, width)
            state |= linear(f"{at}.{i}.mlp.fc1", 4 * width, width)
            state |= linear(f"{at}.{i}.mlp.fc2", width, 4 * width)
    return state


def mmaction2(classes: int = 5) -> dict[str, torch.Tensor]:
    """The fine-tuned VideoMAE under mmaction2's names, with its table of positions as a buffer."""
    state = {}
    for name, tensor in official_finetuned(classes).items():
        name = name.replace("patch_embed.proj", "patch_embed.projection")
        name = name.replace("mlp.fc1", "mlp.layers.0.0").replace("mlp.fc2", "mlp.layers.1")
        name = name.replace("head.", "cls_head.fc_cls.")
        state[name if name.startswith("cls_head") else f"backbone.{name}"] = tensor
    table = [
        [(math.cos if j % 2 else math.sin)(n / 10000 ** (j // 2 * 2 / 48)) for j in range(48)]
        for n in range(64)
    ]
    return state | {"backbone.pos_embed": torch.tensor(table)[None]}


def pth(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Two state dicts are equal, bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# ------------------------------------------------------------------------------------------ reading


def test_an_official_pretraining_file(tmp_path, tiny):
    state = official_pretrain()
    arguments = argparse.Namespace(model="pretrain_videomae", num_frames=8, input_size=32)
    path = pth(
        tmp_path / "v1.pth", {"model": state, "optimizer": {}, "epoch": 3, "args": arguments}
    )
    model = vmae.load(
        path, num_heads=4, decoder_num_heads=2
    )  # frames and size stand in its arguments
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


def test_the_format_is_told_by_the_content(tmp_path):
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
    with pytest.warns(UserWarning, match="left out: meta"):
        nested = load(pth(tmp_path / "meta.pth", mmaction2() | {"meta": "x"}), **CLIP)
    model = load(path, **CLIP)
    same(model.state_dict(), official_finetuned())
    same(nested.state_dict(), official_finetuned())
    with pytest.raises(
        CheckpointError, match=r"pos_embed is of shape \(1, 64, 48\).*frames= and size="
    ):
        load(path, num_frames=16, img_size=32, num_heads=4)


@pytest.mark.parametrize("decoder", [True, False])
def test_official_mae(tmp_path, image, decoder):
    state = official_mae(decoder)
    model = load(
        pth(tmp_path / "mae.pth", {"model": state}), **(IMAGE if decoder else {"num_heads": 4})
    )
    assert model.config.grid == image.grid  # the size is that of the stored positions
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


def test_stored_positions_must_be_ours(tmp_path):
    state = official_mae()
    state["pos_embed"][0, 3, 5] += 0.01
    with pytest.raises(
        CheckpointError, match=r"pos_embed differs from the fixed sin-cos table by.*0\.01"
    ):
        load(pth(tmp_path / "a.pth", state), **IMAGE)
    state["pos_embed"] = mae_table(48, 4).half()
    load(pth(tmp_path / "b.pth", state), **IMAGE)
    state["decoder_pos_embed"].zero_()
    with pytest.raises(CheckpointError, match="decoder_pos_embed is all zero: transformers leaves"):
        load(pth(tmp_path / "c.pth", state), **IMAGE)


def raw_names(model: torch.nn.Module, folder: Path) -> None:
    """A Hugging Face folder with the names that version 5 has inside; save_pretrained writes those of 4."""
    folder.mkdir()
    save_file(
        {name: t.clone() for name, t in model.state_dict().items()}, folder / "model.safetensors"
    )
    model.config.save_pretrained(folder)


def write_hf(model: torch.nn.Module, folder: Path, version: str) -> Path:
    if version == "5":
        raw_names(model, folder)
    else:
        model.save_pretrained(folder)
        if version == "bin":
            torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("version", ["4", "5", "bin"])
def test_hugging_face_videomae(tmp_path, tiny, version):
    clips = random_clips(tiny, 2)
    mask = make_mask(MaskConfig(mask_ratio=0.75), tiny.grid, 2, torch.Generator().manual_seed(1))
    hidden = mask.hidden(tiny.grid.num_tokens)
    config = hf_config(tiny, use_mean_pooling=False)
    theirs = align_epsilons(randomize(transformers.VideoMAEForPreTraining(config)))
    ours = load(write_hf(theirs, tmp_path / "pretrain", version))
    assert isinstance(ours, MaskedAutoencoder) and ours.config == tiny
    expected = theirs(normalized(clips), bool_masked_pos=hidden)
    torch.testing.assert_close(ours(clips, mask), expected.logits, rtol=0, atol=2e-6)
    torch.testing.assert_close(ours.loss(clips, mask), expected.loss, rtol=0, atol=2e-6)

    theirs = align_epsilons(randomize(transformers.VideoMAEModel(config))).eval()
    ours = load(write_hf(theirs, tmp_path / "encoder", version))
    assert ours.num_classes is None and ours.config == tiny
    expected = theirs(normalized(clips)).last_hidden_state
    torch.testing.assert_close(ours(clips), expected, rtol=0, atol=3e-6)

    config = hf_config(tiny, use_mean_pooling=True, num_labels=5)
    theirs = align_epsilons(randomize(transformers.VideoMAEForVideoClassification(config))).eval()
    ours = load(write_hf(theirs, tmp_path / "classifier", version), num_classes=5)
    torch.testing.assert_close(ours(clips), theirs(normalized(clips)).logits, rtol=0, atol=2e-6)


def vitmae_config(config: ModelConfig, **extra):
    return transformers.ViTMAEConfig(
        image_size=config.img_size, patch_size=config.tubelet[1], hidden_size=config.embed_dim,
        num_hidden_layers=config.depth, num_attention_heads=config.num_heads,
        intermediate_size=4 * config.embed_dim, decoder_hidden_size=config.decoder_embed_dim,
        decoder_num_hidden_layers=config.decoder_depth, norm_pix_loss=True, layer_norm_eps=1e-6,
        decoder_num_attention_heads=config.decoder_num_heads, decoder_intermediate_size=4 * config.decoder_embed_dim,
        attn_implementation="eager", **extra,
    )  # fmt: skip


def vitmae_outputs(theirs, clips: torch.Tensor):
    """Predictions (B, M, P) at the hidden tokens, and the mask that the noise drew."""
    noise = torch.rand(len(clips), 16, generator=torch.Generator().manual_seed(3))
    out = theirs(normalized(clips)[:, 0], noise=noise)
    visible = noise.argsort(1)[:, :4].sort(1).values
    return out.logits[out.mask.bool()].unflatten(0, (len(clips), -1)), out.loss, visible


@pytest.mark.parametrize("version", ["4", "5", "bin"])
def test_hugging_face_mae(tmp_path, image, version):
    clips = random_clips(image, 2)
    theirs = transformers.ViTMAEForPreTraining(vitmae_config(image))
    with pytest.raises(
        CheckpointError, match="is all zero: transformers leaves ViTMAE's positions so"
    ):
        load(write_hf(theirs, tmp_path / "scratch", version))
    randomize(theirs)
    with torch.no_grad():
        theirs.vit.embeddings.position_embeddings.copy_(mae_table(48, 4))
        theirs.decoder.decoder_pos_embed.copy_(mae_table(24, 4))
    ours = load(write_hf(theirs, tmp_path / "pretrain", version))
    assert isinstance(ours, MaskedAutoencoder) and ours.config == image
    logits, loss, visible = vitmae_outputs(theirs, clips)
    mask = all_hidden(visible, image.grid)
    torch.testing.assert_close(ours(clips, mask), logits, rtol=0, atol=3e-6)
    torch.testing.assert_close(ours.loss(clips, mask), loss, rtol=0, atol=3e-6)

    theirs = randomize(transformers.ViTMAEModel(vitmae_config(image, mask_ratio=0.0))).eval()
    with torch.no_grad():
        theirs.embeddings.position_embeddings.copy_(mae_table(48, 4))
    ours = load(write_hf(theirs, tmp_path / "encoder", version))
    noise = torch.arange(16.0).expand(2, -1)
    expected = theirs(normalized(clips)[:, 0], noise=noise).last_hidden_state
    torch.testing.assert_close(ours(clips), expected, rtol=0, atol=3e-6)


# ------------------------------------------------------------------------------------- own folders


def test_own_folders(tmp_path, tiny):
    model = randomize(MaskedAutoencoder(tiny))
    run = tmp_path / "run"
    save_weights(model, run / "model.safetensors")
    PretrainConfig(model=tiny).to_yaml(run / "config.yaml")
    step = run / "checkpoints" / "step-00000010"
    save_weights(model, step / "model.safetensors")
    for place in (run, run / "model.safetensors", step):
        loaded = load(place)
        assert loaded.config == tiny
        same(loaded.state_dict(), model.state_dict())
    classifier = randomize(VisionTransformer(tiny, 3))
    save_classifier(classifier, ("a", "b", "c"), FinetuneConfig(model=tiny), tmp_path / "fine")
    loaded = load(tmp_path / "fine", num_classes=3)
    assert loaded.class_names == ("a", "b", "c")
    same(loaded.state_dict(), classifier.state_dict())
    with pytest.raises(
        CheckpointError, match="holds other files than a vmae export.*config.yaml of a tr"
    ):
        save(classifier, tmp_path / "fine")
    with pytest.raises(CheckpointError, match="holds other files than a hf export.*checkpoints"):
        save(classifier, run, "hf")
    (tmp_path / "fine" / "classes.txt").write_text("a\n")
    with pytest.warns(UserWarning, match="names 1 classes and has a head of 3"):
        assert load(tmp_path / "fine").class_names is None


@pytest.mark.parametrize(
    "build", [MaskedAutoencoder, VisionTransformer, lambda c: VisionTransformer(c, 3)]
)
def test_a_load_draws_no_numbers(tmp_path, tiny, build):
    model = randomize(build(tiny))
    save(model, tmp_path / "export")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    same(load(tmp_path / "export").state_dict(), model.state_dict())
    assert torch.equal(torch.get_rng_state(), before)


def test_other_clips_get_positions_anew_or_interpolated(tmp_path, tiny):
    """VideoMAE's and MAE's weights at twice the size: the same weights, another table."""
    from vmae.positions import interpolate_pos_embed, sincos_1d

    path = pth(tmp_path / "v1.pth", {"model": official_pretrain()})
    larger = {**VIDEO, "img_size": 64}
    grid, other = tiny.grid, tiny.replace(img_size=64).grid
    anew = load(path, **larger)
    assert torch.equal(anew.encoder.pos_embed[0], sincos_1d(other.num_tokens, 48))
    save(load(path, **VIDEO), tmp_path / "own")  # knows its frames and size
    taken = load(tmp_path / "own", img_size=64, interpolate=True)
    assert torch.equal(
        taken.encoder.pos_embed[0],
        interpolate_pos_embed(sincos_1d(grid.num_tokens, 48), grid, other),
    )
    assert torch.equal(
        taken.decoder_pos_embed, interpolate_pos_embed(sincos_1d(grid.num_tokens, 24), grid, other)
    )
    same(dict(taken.named_parameters()), dict(anew.named_parameters()))
    assert load(tmp_path / "own", interpolate=True).config.pos_embed_from is None
    save(taken, tmp_path / "taken")
    assert torch.equal(load(tmp_path / "taken").encoder.pos_embed, taken.encoder.pos_embed)

    mae = pth(tmp_path / "mae.pth", {"model": official_mae()})
    with pytest.raises(CheckpointError, match="interpolate=True"):
        load(mae, **IMAGE, img_size=64)
    image = load(mae, **IMAGE, img_size=64, interpolate=True)
    assert image.config.pos_embed_from == (1, 32)
    assert image.encoder.pos_embed.shape == (1, 64, 48)


def test_encoders(tmp_path, tiny):
    """A pre-trained encoder ends in its norm; a fine-tuned one has none, and gives what is averaged."""
    clips = random_clips(tiny, 2)
    autoencoder = randomize(MaskedAutoencoder(tiny)).eval()
    save(autoencoder, tmp_path / "a")
    with pytest.warns(UserWarning, match="left out .*decoder.norm.bias"):
        encoder = load_encoder(tmp_path / "a")
    assert torch.equal(encoder(clips), autoencoder.encoder(clips))

    classifier = randomize(VisionTransformer(tiny, 5)).eval()
    save(classifier, tmp_path / "c", classes="abcde")
    for read in (load_encoder, lambda path: load(path, drop_head=True)):
        with pytest.warns(UserWarning, match="left out fc_norm.bias.*; it has no final norm"):
            encoder = read(tmp_path / "c")
        assert torch.equal(encoder(clips), classifier.forward_features(clips))
    again = VisionTransformer(tiny, 5)
    again.load_encoder(encoder)
    assert torch.equal(again.forward_features(clips), classifier.forward_features(clips))
    for to, place in (("vmae", "e"), ("hf", "h"), ("official", "o.pth")):
        save(encoder, tmp_path / place, to)
        with pytest.warns(UserWarning, match="has no final norm"):
            same(load(tmp_path / place, **CLIP).state_dict(), encoder.state_dict())
    theirs = transformers.VideoMAEModel.from_pretrained(tmp_path / "h").eval()
    expected = theirs(normalized(clips)).last_hidden_state
    torch.testing.assert_close(encoder(clips), expected, rtol=0, atol=3e-6)
    # The distilled VideoMAE V2 on the hub: fc_norm, and no head.
    headless = {
        f"model.{n}": t for n, t in official_finetuned().items() if not n.startswith("head.")
    }
    save_file(headless, tmp_path / "v2.safetensors")
    with pytest.warns(UserWarning, match="left out model.fc_norm.bias, model.fc_norm.weight"):
        assert load(tmp_path / "v2.safetensors", **CLIP).num_classes is None


@pytest.mark.parametrize(
    "config",
    [ModelConfig.videomae(size, version) for size in "SBLHg" for version in (1, 2)]
    + [ModelConfig.mae(size) for size in "BLH"],
)
def test_published_sizes_are_inferred_from_shapes(config):
    """Every field, among them giant's MLP of 6144 and, in its decoder, 2234."""
    shallow = config.replace(depth=1, decoder_depth=1)
    with torch.device("meta"):
        state = MaskedAutoencoder(shallow).state_dict()
    found, guessed = infer_config(state, {"img_size": 224})
    assert (found, guessed) == (shallow, [])


def test_giant_mlp():
    assert infer_config_hidden(1408, 6144, 512, 2234) == 48 / 11
    for hidden in (100, 191, 193):  # any hidden size comes out as it went in
        ratio = infer_config_hidden(48, hidden, 24, hidden // 2)
        assert (int(48 * ratio), int(24 * ratio)) == (hidden, hidden // 2)
    with pytest.raises(ValueError, match="no MLP ratio gives the hidden sizes"):
        infer_config_hidden(48, 192, 24, 200)


def infer_config_hidden(width: int, hidden: int, decoder_width: int, decoder_hidden: int) -> float:
    shapes = {
        "encoder.patch_embed.proj.weight": (width, 3, 2, 16, 16),
        "encoder.blocks.0.mlp.fc1.weight": (hidden, width),
        "decoder.blocks.0.mlp.fc1.weight": (decoder_hidden, decoder_width),
    }
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return infer_config(state, {"num_heads": 1, "decoder_num_heads": 1})[0].mlp_ratio


# ------------------------------------------------------------------------------------------ writing


def build(kind: str, tiny: ModelConfig, image: ModelConfig):
    config = image if kind.startswith("mae") else tiny
    if "pretrain" in kind:
        return randomize(MaskedAutoencoder(config)).eval()
    return randomize(VisionTransformer(config, 5 if "classifier" in kind else None)).eval()


KINDS = ["pretrain", "classifier", "encoder", "mae-pretrain", "mae-encoder", "mae-classifier"]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trips_are_exact(tmp_path, kind, tiny, image):
    model = build(kind, tiny, image)
    told = {"num_frames": model.config.num_frames, "img_size": 32, "num_heads": 4}
    hints = told | ({"decoder_num_heads": 2} if "pretrain" in kind else {})

    save(model, tmp_path / "a.pth", "official")
    same(load(tmp_path / "a.pth", **hints).state_dict(), model.state_dict())

    for to in ("hf", "vmae"):
        save(model, tmp_path / to, to)
        back = load(tmp_path / to)  # the folder tells everything
        assert back.config == model.config
        same(back.state_dict(), model.state_dict())
        save(model, tmp_path / to, to)  # an export may be written again

    convert(tmp_path / "a.pth", tmp_path / "b", "hf", **hints)
    convert(tmp_path / "b", tmp_path / "b.pth", "official")
    first, last = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pth", "b.pth"))
    assert set(first) == {"model"}
    same(first["model"], last["model"])


def test_official_names_are_those_of_the_official_code(tmp_path, tiny):
    for state in (official_pretrain(), official_finetuned()):
        path = pth(tmp_path / "in.pth", {"model": state})
        hints = VIDEO if "mask_token" in state else CLIP
        out = convert(path, tmp_path / "out.pth", "official", **hints)
        same(torch.load(out, weights_only=True)["model"], state)


HF_CLASSES = {
    "pretrain": "VideoMAEForPreTraining",
    "classifier": "VideoMAEForVideoClassification",
    "encoder": "VideoMAEModel",
    "mae-pretrain": "ViTMAEForPreTraining",
    "mae-encoder": "ViTMAEModel",
    "mae-classifier": "ViTForImageClassification",
}


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_an_export(tmp_path, kind, tiny, image):
    model = build(kind, tiny, image)
    classes = ["walk", "run", "爬", "swim", "fly"] if "classifier" in kind else None
    folder = save(model, tmp_path / "hf", "hf", classes)
    theirs, info = getattr(transformers, HF_CLASSES[kind]).from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    assert json.loads((folder / "config.json").read_text())["architectures"] == [HF_CLASSES[kind]]
    if classes:
        assert [theirs.config.id2label[i] for i in range(5)] == classes == list(class_names(folder))

    clips = random_clips(model.config, 2)
    pixels = normalized(clips) if kind[:3] != "mae" else normalized(clips)[:, 0]
    for tolerance in (
        1e-4,
        2e-6,
    ):  # as it comes; then with the epsilons that are hard-wired set to 1e-6
        theirs.eval()
        if kind == "pretrain":
            mask = make_mask(
                MaskConfig(mask_ratio=0.75), tiny.grid, 2, torch.Generator().manual_seed(1)
            )
            ours = model(clips, mask)
            expected = theirs(pixels, bool_masked_pos=mask.hidden(tiny.grid.num_tokens)).logits
        elif kind == "mae-pretrain":
            expected, _, visible = vitmae_outputs(theirs, clips)
            ours = model(clips, all_hidden(visible, image.grid))
        elif "classifier" in kind:
            ours, expected = model(clips), theirs(pixels).logits
        else:
            noise = {"noise": torch.arange(16.0).expand(2, -1)} if kind == "mae-encoder" else {}
            ours, expected = model(clips), theirs(pixels, **noise).last_hidden_state
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=tolerance)
        align_epsilons(theirs)


def test_transformers_processor_normalises_as_imagenet(tmp_path, tiny):
    pytest.importorskip("PIL")
    folder = save(randomize(VisionTransformer(tiny, 5)), tmp_path / "hf", "hf")
    processor = transformers.VideoMAEImageProcessor.from_pretrained(folder)
    clips = random_clips(tiny, 1)
    frames = [frame.permute(1, 2, 0).numpy() for frame in clips[0].transpose(0, 1)]
    pixels = torch.as_tensor(processor(frames, return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(pixels, normalized(clips), rtol=0, atol=1e-5)


def test_convert_from_the_command_line(tmp_path, capsys, tiny):
    model = randomize(VisionTransformer(tiny, 3)).eval()
    save(model, tmp_path / "ours", classes=["a", "b", "c"])
    run = ["convert", str(tmp_path / "ours")]
    assert main([*run, str(tmp_path / "hf"), "--to", "hf"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "hf")
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "again"), "--to", "vmae"]) == 0
    assert (tmp_path / "again" / "classes.txt").read_text() == "a\nb\nc\n"
    assert load(tmp_path / "again").class_names == ("a", "b", "c")
    same(load(tmp_path / "again").state_dict(), model.state_dict())
    assert main([*run, str(tmp_path / "o.pth"), "--to", "official"]) == 0
    told = ["--num-frames", "8", "--img-size", "32", "--num-heads", "4"]
    assert (
        main(["convert", str(tmp_path / "o.pth"), str(tmp_path / "o"), "--to", "vmae", *told]) == 0
    )
    same(load(tmp_path / "o").state_dict(), model.state_dict())
    for flag in ("--drop-head", "--encoder-only"):
        with pytest.warns(UserWarning, match="left out fc_norm"):
            assert main([*run, str(tmp_path / flag), "--to", "hf", flag]) == 0
    capsys.readouterr()
    for arguments, words in (
        ([str(tmp_path / "x"), "--to", "official"], "give a name ending in .pth"),
        ([str(tmp_path / "ours"), "--to", "vmae"], "would be written over itself"),
        (
            [str(tmp_path / "hf"), "--to", "vmae"],
            "holds other files than a vmae export (config.json",
        ),
    ):
        assert main([*run, *arguments]) == 1
        assert words in capsys.readouterr().err


def test_what_a_layout_cannot_express(tmp_path, tiny, image):
    model = VisionTransformer(tiny, 3)
    with pytest.raises(ValueError, match="2 class names are given for a model of 3 classes"):
        save(model, tmp_path / "a", classes=["a", "b"])
    compiled = save(SimpleNamespace(_orig_mod=randomize(model)), tmp_path / "compiled")
    same(load(compiled).state_dict(), model.state_dict())
    shutil.rmtree(compiled)
    with pytest.raises(ValueError, match="there is no layout 'onnx'; there are vmae, official, hf"):
        save(model, tmp_path / "a", "onnx")
    with pytest.raises(ValueError, match="square patches"):
        save(VisionTransformer(tiny.replace(tubelet=(2, 8, 4))), tmp_path / "a", "hf")
    film = VisionTransformer(image.replace(num_frames=2))
    for to, place in (("hf", "a"), ("official", "a.pth")):
        with pytest.raises(ValueError, match='frames is 2 .*or save with to="vmae"'):
            save(film, tmp_path / place, to)
        with pytest.raises(ValueError, match="attention is 'divided'"):
            save(VisionTransformer(tiny.replace(attention="divided")), tmp_path / place, to)
    assert list(tmp_path.iterdir()) == []
    divided = randomize(VisionTransformer(tiny.replace(attention="divided"), 3))
    same(load(save(divided, tmp_path / "d")).state_dict(), divided.state_dict())


# ---------------------------------------------------------------------------------------- bad input


class Evil:
    """Unpickled, this would run a command."""

    def __init__(self, marker: Path) -> None:
        self.command = f"echo owned > {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, zipped):
    marker = tmp_path / "owned"
    path = tmp_path / "evil.pth"
    content = {"model": official_pretrain(), "args": Evil(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"evil.pth is a pickle that names (posix|nt)\.system: .*refused"
    ) as e:
        load(path, **VIDEO)
    assert "save_file" in str(e.value) and "machine you trust" in str(e.value)
    assert not marker.exists()


def test_only_the_namespace_of_arguments_is_let_through(tmp_path):
    arguments = argparse.Namespace(num_frames=8, input_size=32, when=argparse.ArgumentParser)
    path = pth(tmp_path / "a.pth", {"model": official_pretrain(), "args": arguments})
    with pytest.raises(CheckpointError, match=r"names argparse\.ArgumentParser: .*refused"):
        load(path)
    with pytest.raises(Exception, match="argparse.Namespace"):  # and nowhere but in this reader
        torch.load(pth(tmp_path / "b.pth", argparse.Namespace()), weights_only=True)


def test_damaged_and_foreign_files(tmp_path):
    whole = pth(tmp_path / "whole.pth", official_pretrain()).read_bytes()
    save_file(official_pretrain(), tmp_path / "whole.safetensors")
    tensors = (tmp_path / "whole.safetensors").read_bytes()
    torch.save(official_pretrain(), tmp_path / "old", _use_new_zipfile_serialization=False)
    for content, words in (
        (whole[: len(whole) // 2], "is damaged or truncated, or no PyTorch file"),
        ((tmp_path / "old").read_bytes()[:5000], "is damaged or truncated, or no PyTorch file"),
        (tensors[: len(tensors) // 2], "is a damaged safetensors file"),
        (struct.pack("<Q", 9) + b"{nothing}", "is a damaged safetensors file"),
        (b"", "neither a safetensors nor a PyTorch file; it is empty"),
        (b"<!DOCTYPE html><title>Drive", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n0000000000", "it begins with b'.x89PNG"),
    ):
        path = tmp_path / "bad.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=words) as error:
            load(path, **VIDEO)
        assert str(path) in str(error.value) and "weights_only" not in str(error.value)
    for content, words in (
        ([1, 2], "holds a list, no state dict"),
        ({"epoch": 3}, "holds no tensors; its keys are epoch"),
        (
            {"fc.weight": rand("x", 3, 3)},
            "no VideoMAE or MAE known here.*names begin with fc.weight",
        ),
        (
            {"a.module.b": rand("x", 1), "a.b": rand("x", 1)},
            "a.module.b and a.b are both a.b: two models",
        ),
    ):
        with pytest.raises(CheckpointError, match=words):
            load(pth(tmp_path / "bad.pth", content))
    with pytest.raises(CheckpointError, match="there is no such file"):
        load(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match=r"neither model.safetensors nor pytorch_model.bin"):
        load(tmp_path)


def test_what_does_not_fit_is_listed_in_full(tmp_path, tiny):
    state = official_pretrain()
    del state["decoder.norm.bias"], state["encoder.blocks.1.attn.q_bias"]
    state["encoder.blocks.0.gamma_1"] = rand("x", 48)
    state["encoder.norm.weight"] = rand("x", 47)
    with pytest.raises(CheckpointError, match="does not fit the model") as error:
        load(
            pth(tmp_path / "a.pth", {"model": {f"module.{n}": t for n, t in state.items()}}),
            **VIDEO,
        )
    for line in (
        "missing: decoder.norm.bias",
        "missing: encoder.blocks.1.attn.q_bias",
        "not in this model: module.encoder.blocks.0.gamma_1",
        "module.encoder.norm.weight: (47,) in the file, (48,) in the model",
    ):
        assert f"  {line}\n" in str(error.value) + "\n"
    with pytest.raises(
        CheckpointError, match=r"height 36 is not divisible .*give num_frames=, img_size="
    ):
        load(pth(tmp_path / "b.pth", official_pretrain()), **(VIDEO | {"img_size": 36}))
    with pytest.raises(
        CheckpointError, match=r"embed_dim=48 must be even and divisible by num_heads=5"
    ):
        load(tmp_path / "b.pth", **(VIDEO | {"num_heads": 5}))
    with pytest.warns(
        UserWarning,
        match=r"does not tell num_heads=1 \(width 48 in heads of 64\) and decoder_num_heads=1",
    ):
        load(tmp_path / "b.pth", num_frames=8, img_size=32)
    run = tmp_path / "run"
    save_weights(randomize(MaskedAutoencoder(tiny)), run / "model.safetensors")
    PretrainConfig(model=tiny.replace(depth=2)).to_yaml(run / "config.yaml")
    with pytest.raises(
        CheckpointError, match=r"not in this model: encoder.blocks.2.attn.proj.bias"
    ):
        load(run)
    (run / "config.yaml").write_text("model: {widht: 3}")
    with pytest.raises(CheckpointError, match="config.yaml: ModelConfig has no field widht"):
        load(run)


def test_heads_and_their_classes(tmp_path):
    path = pth(tmp_path / "c.pth", official_finetuned(5))
    with pytest.raises(CheckpointError, match="head of 5 classes, not of 7: drop_head=True"):
        load(path, num_classes=7, **CLIP)
    with pytest.warns(
        UserWarning, match="left out head.weight, head.bias; the new head for 7 .*untrained"
    ):
        model = load(path, num_classes=7, drop_head=True, **CLIP)
    assert model.head.out_features == 7
    with pytest.warns(UserWarning, match="the new head for 5 classes is untrained"):
        load(path, num_classes=5, drop_head=True, **CLIP)
    assert torch.equal(model.fc_norm.bias, official_finetuned()["fc_norm.bias"])
    with pytest.raises(
        CheckpointError, match="has no head, and a classifier of 5 classes is asked for"
    ):
        load(pth(tmp_path / "p.pth", official_pretrain()), num_classes=5, **VIDEO)


def test_traps_of_hugging_face(tmp_path, tiny):
    """Classifiers by the first token, pre-training without a norm, VideoMAE-small's heads."""
    config = hf_config(tiny, use_mean_pooling=False, num_labels=5)
    theirs = align_epsilons(randomize(transformers.VideoMAEForVideoClassification(config))).eval()
    theirs.save_pretrained(tmp_path / "first")
    with pytest.raises(CheckpointError, match="classifies by its first token.*drop_head=True"):
        load(tmp_path / "first")
    with pytest.warns(UserWarning, match="left out classifier.bias, classifier.weight$"):
        encoder = load(tmp_path / "first", drop_head=True)
    clips = random_clips(tiny, 2)
    expected = theirs.videomae(normalized(clips)).last_hidden_state
    torch.testing.assert_close(encoder(clips), expected, rtol=0, atol=3e-6)

    transformers.VideoMAEForPreTraining(hf_config(tiny, use_mean_pooling=True)).save_pretrained(
        tmp_path / "normless"
    )
    with pytest.raises(
        CheckpointError, match=r"missing: encoder.norm.bias(?s:.*)use_mean_pooling is True"
    ):
        load(tmp_path / "normless")
    with pytest.warns(UserWarning, match="it has no final norm"):
        load_encoder(tmp_path / "normless")

    small = tiny.replace(embed_dim=384, num_heads=16, depth=1, mlp_ratio=1)
    save(VisionTransformer(small, 5), tmp_path / "small", "hf")
    with pytest.warns(UserWarning, match="16 heads at width 384, where the published model has 6"):
        assert load(tmp_path / "small").config.num_heads == 16
    assert load(tmp_path / "small", num_heads=6).config.num_heads == 6
    for change, words in (
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'; the models here have gelu"),
        ({"image_size": [32, 64]}, r"image_size is \[32, 64\]; the clips here are square"),
    ):
        path = tmp_path / "small" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(CheckpointError, match=words):
            load(tmp_path / "small", num_heads=6)
        path.write_text(path.read_text().replace("gelu_new", "gelu"))
    path.write_text("{")
    with pytest.raises(CheckpointError, match="config.json: not JSON"):
        load(tmp_path / "small")


def test_mae_classifiers_that_average_are_refused(tmp_path):
    state = official_mae(decoder=False) | norm("fc_norm", 48) | linear("head", 5, 48)
    del state["norm.weight"], state["norm.bias"]
    path = pth(tmp_path / "m.pth", {"model": state})
    with pytest.raises(
        CheckpointError, match="averages tokens .--global_pool.*reads the class token"
    ):
        load(path, num_heads=4)
