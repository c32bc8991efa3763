"""MAE fine-tuned as published: averaged tokens and learned positions."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from conftest import random_clips, randomize
from published_layouts import (
    CLIP,
    IMAGE,
    linear,
    mae_table,
    norm,
    official_finetuned,
    official_mae,
    pth,
    rand,
    same,
)
from test_parity_videomae import normalized

from vmae.config import ConfigError, ModelConfig
from vmae.positions import interpolate_pos_embed
from vmae.train.config import OptimConfig
from vmae.train.schedule import parameter_groups
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, load, load_encoder, save

HEADS = {"num_heads": 4, "decoder_num_heads": 2}


def official_vit(classes: int = 5, global_pool: bool = True) -> dict[str, torch.Tensor]:
    """Parameters as named in mae/models_vit.py after main_finetune.py: the positions are trained."""
    state = official_mae(decoder=False) | linear("head", classes, 48)
    state["pos_embed"] = state["pos_embed"] + rand("pos_embed", 1, 17, 48)
    if global_pool:
        del state["norm.weight"], state["norm.bias"]
        state |= norm("fc_norm", 48)
    return state


def models_vit(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The logits of models_vit.py, step by step, for normalised images (B, 3, H, W)."""

    def layer_norm(x: torch.Tensor, at: str) -> torch.Tensor:
        return F.layer_norm(x, (48,), state[f"{at}.weight"], state[f"{at}.bias"], 1e-6)

    def dense(x: torch.Tensor, at: str) -> torch.Tensor:
        return F.linear(x, state[f"{at}.weight"], state[f"{at}.bias"])

    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=8)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat((state["cls_token"].expand(len(x), -1, -1), x), dim=1) + state["pos_embed"]
    for i in range(2):
        at = f"blocks.{i}"
        qkv = dense(layer_norm(x, f"{at}.norm1"), f"{at}.attn.qkv")
        q, k, v = qkv.reshape(len(x), -1, 3, 4, 12).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * 12**-0.5).softmax(-1)
        x = x + dense((weights @ v).transpose(1, 2).flatten(2), f"{at}.attn.proj")
        hidden = F.gelu(dense(layer_norm(x, f"{at}.norm2"), f"{at}.mlp.fc1"))
        x = x + dense(hidden, f"{at}.mlp.fc2")
    if "fc_norm.weight" in state:
        pooled = layer_norm(x[:, 1:].mean(1), "fc_norm")
    else:
        pooled = layer_norm(x, "norm")[:, 0]
    return dense(pooled, "head")


@pytest.mark.parametrize("global_pool", [True, False])
def test_a_fine_tuned_mae_as_published(tmp_path, image, global_pool):
    state = official_vit(global_pool=global_pool)
    path = pth(tmp_path / "m.pth", {"model": state, "epoch": 49})
    model = load(path, num_heads=4)
    assert (model.config.global_pool, model.config.learned_pos_embed) == (global_pool, True)
    clips = random_clips(image, 2)
    expected = models_vit(state, normalized(clips)[:, 0])
    torch.testing.assert_close(model(clips), expected, rtol=0, atol=2e-6)

    save(model, tmp_path / "ours", classes="abcde")
    assert torch.equal(load(tmp_path / "ours")(clips), model(clips))
    assert load(tmp_path / "ours").config == model.config
    back = torch.load(save(model, tmp_path / "back.pth", "official"), weights_only=True)["model"]
    assert back.keys() == state.keys()
    torch.testing.assert_close(
        models_vit(back, normalized(clips)[:, 0]), expected, rtol=0, atol=2e-6
    )
    again = load(tmp_path / "back.pth", num_heads=4)
    assert again.config == model.config and torch.equal(again(clips), model(clips))

    with pytest.warns(UserWarning, match="dropped .*head"):
        encoder = load_encoder(path, num_heads=4)
    assert encoder.config.global_pool == global_pool
    features = model.forward_features(clips)
    assert torch.equal(encoder(clips), features)
    again = VisionTransformer(encoder.config, 5)
    again.load_encoder(encoder)
    assert torch.equal(again.forward_features(clips), features)
    with pytest.warns(UserWarning, match="the new head for 7 classes is untrained"):
        assert load(path, num_classes=7, drop_head=True, num_heads=4).config == model.config


def test_transformers_reads_learned_positions_with_a_class_token_only(tmp_path, image):
    transformers = pytest.importorskip("transformers")
    state = official_vit(global_pool=False)
    model = load(pth(tmp_path / "m.pth", state), num_heads=4)
    save(model, tmp_path / "hf", "hf")
    kind = transformers.ViTForImageClassification
    theirs = kind.from_pretrained(tmp_path / "hf", attn_implementation="eager").eval()
    clips = random_clips(image, 2)
    expected = models_vit(state, normalized(clips)[:, 0])
    ours = theirs(normalized(clips)[:, 0]).logits
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")
    back = load(tmp_path / "theirs")
    assert back.config == model.config
    torch.testing.assert_close(back(clips), model(clips), rtol=0, atol=1e-6)

    averaging = load(pth(tmp_path / "a.pth", official_vit()), num_heads=4)
    words = 'averages tokens, and .* ViT predicts from the class token.*to="vmae" or to="official"'
    with pytest.raises(ValueError, match=words):
        save(averaging, tmp_path / "no", "hf")
    with pytest.warns(UserWarning, match="dropped head.weight, head.bias"):
        encoder = load_encoder(tmp_path / "a.pth", num_heads=4)
    assert torch.equal(encoder.pooled(clips), averaging.pooled(clips)), "what the head read"
    with pytest.raises(ValueError, match='no final norm.*to="vmae" or to="official"'):
        save(encoder, tmp_path / "no", "hf")
    assert not (tmp_path / "no").exists()


def test_learned_positions(tmp_path, image, tiny):
    """Fixed within tolerance stays fixed; other sizes are interpolated; VideoMAE's are read, too."""
    state = official_vit()
    state["pos_embed"] = mae_table(48, 4)
    assert not load(pth(tmp_path / "f.pth", state), num_heads=4).config.learned_pos_embed
    state["pos_embed"] = mae_table(48, 4).half()
    assert not load(pth(tmp_path / "h.pth", state), num_heads=4).config.learned_pos_embed
    state["pos_embed"][0, 3, 3] = float("nan")
    with pytest.raises(CheckpointError, match="pos_embed contains NaN"):
        load(pth(tmp_path / "n.pth", state), num_heads=4)

    path = pth(tmp_path / "m.pth", official_vit())
    with pytest.raises(CheckpointError, match="pos_embed has shape .*interpolate=True"):
        load(path, num_heads=4, img_size=64)
    save(load(path, num_heads=4), tmp_path / "small")
    with pytest.raises(CheckpointError, match="pos_embed has shape .*interpolate=True"):
        load(tmp_path / "small", img_size=64)
    small, large = load(path, num_heads=4), load(path, num_heads=4, img_size=64, interpolate=True)
    table = interpolate_pos_embed(small.pos_embed[0], small.grid, large.grid)
    assert torch.equal(large.pos_embed[0], table) and torch.equal(large.cls_token, small.cls_token)
    with pytest.warns(UserWarning, match="dropped"):
        encoder = load_encoder(path, num_heads=4, img_size=64, interpolate=True)
    assert torch.equal(encoder.pos_embed, large.pos_embed)
    for to, place in (("vmae", "large"), ("official", "large.pth")):
        save(large, tmp_path / place, to)
        assert torch.equal(load(tmp_path / place, num_heads=4).pos_embed, large.pos_embed)

    video = official_finetuned() | {"pos_embed": rand("pos_embed", 1, 64, 48)}
    model = load(pth(tmp_path / "v.pth", video), **CLIP)  # use_learnable_pos_emb=True
    assert model.config.learned_pos_embed
    assert torch.equal(model.pos_embed, video["pos_embed"])
    save(model, tmp_path / "own")
    same(load(tmp_path / "own").state_dict(), model.state_dict())
    for to, place in (("official", "o.pth"), ("hf", "hf")):
        with pytest.raises(ValueError, match='positions are learned.*to="vmae"'):
            save(model, tmp_path / place, to)


def test_learned_positions_are_parameters(image):
    """They start at the fixed table, get gradients, and are carried into fine-tuning or refused."""
    learned = image.replace(learned_pos_embed=True, global_pool=True)
    encoder = randomize(VisionTransformer(image)).eval()
    model = VisionTransformer(learned, 5)
    model.load_encoder(encoder)
    assert torch.equal(model.pos_embed, encoder.pos_embed)
    assert "pos_embed" in dict(model.named_parameters())
    groups = parameter_groups(model, OptimConfig(weight_decay=0.1, layer_decay=0.5), depth=2)
    (group,) = (g for g in groups if any(p is model.pos_embed for p in g["params"]))
    assert (group["weight_decay"], group["lr_scale"]) == (0, 0.5**3)  # as the patch embedding
    clips = random_clips(image, 2)
    model.head.weight.data.fill_(0.1)
    model(clips).square().sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="positions are learned.*learned_pos_embed to true"):
        VisionTransformer(image, 5).load_encoder(randomize(VisionTransformer(learned)))
    with pytest.raises(ConfigError, match='global_pool requires family "mae"'):
        ModelConfig(global_pool=True)
    old = {name: value for name, value in image.to_dict().items()
           if name not in ("global_pool", "learned_pos_embed")}  # fmt: skip
    assert ModelConfig.from_dict(old) == image


def test_learned_positions_of_an_autoencoder(tmp_path, image):
    """The published pre-training has fixed ones, so another table is worth a warning."""
    state = official_mae()
    state["pos_embed"] = state["pos_embed"] + rand("pos_embed", 1, 17, 48)
    path = pth(tmp_path / "m.pth", state)
    with pytest.warns(UserWarning, match="pos_embed differs from the fixed sin-cos table by up to"):
        model = load(path, **IMAGE)
    table = model.encoder.pos_embed
    assert torch.allclose(table, state["pos_embed"][:, 1:])
    for to, place in (("vmae", "own"), ("hf", "hf"), ("official", "o.pth")):
        save(model, tmp_path / place, to)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            back = load(tmp_path / place, **(HEADS if to == "official" else {}))
        assert torch.equal(back.encoder.pos_embed, table)
        assert back.config.learned_pos_embed


@pytest.mark.filterwarnings("ignore:.*skipping counters. head.0.num_batches_tracked")
def test_a_linear_probe_as_published(tmp_path, image):
    """main_linprobe.py: a batch norm without parameters before the head, folded into it here."""
    state = official_mae(decoder=False) | linear("head.1", 5, 48)
    state |= {"head.0.running_mean": rand("mean", 48), "head.0.running_var": rand("var", 48).exp()}
    state["head.0.num_batches_tracked"] = torch.tensor(3)
    model = load(pth(tmp_path / "m.pth", {"model": state}), num_heads=4)
    clips = random_clips(image, 2)
    unit = linear("head", 5, 48) | {"head.weight": torch.eye(48), "head.bias": torch.zeros(48)}
    features = models_vit(official_mae(decoder=False) | unit, normalized(clips)[:, 0])
    probed = F.batch_norm(
        features, state["head.0.running_mean"], state["head.0.running_var"], eps=1e-6
    )
    expected = F.linear(probed, state["head.1.weight"], state["head.1.bias"])
    torch.testing.assert_close(model(clips), expected, rtol=0, atol=5e-6)
