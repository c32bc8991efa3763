"""A fine-tuned encoder keeps `fc_norm`: in files, in its pooled features, as a start of fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import random_clips, randomize
from published_layouts import CLIP, norm, official_blocks, official_finetuned, pth, rand, same
from safetensors.torch import save_file
from test_parity_videomae import normalized

from vmae.positions import sincos_1d
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, load, load_encoder, save


def test_an_encoder_from_a_classifier_keeps_fc_norm(tmp_path, tiny):
    clips = random_clips(tiny, 2)
    classifier = randomize(VisionTransformer(tiny, 5)).eval()
    save(classifier, tmp_path / "c.pth", "official")
    with pytest.warns(UserWarning, match="dropped head.weight, head.bias$"):
        encoder = load_encoder(tmp_path / "c.pth", **CLIP)
    assert torch.equal(encoder(clips), classifier.forward_features(clips))
    expected = classifier.fc_norm(classifier.forward_features(clips).mean(1))
    assert torch.equal(encoder.pooled(clips), expected)
    assert torch.equal(classifier.pooled(clips), expected)
    for to, place in (("vmae", "e"), ("official", "e.pth")):
        save(encoder, tmp_path / place, to)
        again = load(tmp_path / place, **CLIP)
        same(again.state_dict(), encoder.state_dict())
        assert torch.equal(again.pooled(clips), expected)
    with pytest.warns(UserWarning, match="dropped fc_norm.*VideoMAEModel of transformers has none"):
        save(encoder, tmp_path / "hf", "hf")
    with pytest.warns(UserWarning, match="has no final norm"):
        assert torch.equal(load(tmp_path / "hf")(clips), encoder(clips))


def test_a_classifier_starts_with_the_fc_norm_of_another(tiny):
    source, encoder = randomize(VisionTransformer(tiny, 5)), randomize(VisionTransformer(tiny))
    tuned = VisionTransformer(tiny, 3)
    fresh = {name: p.clone() for name, p in tuned.state_dict().items()}
    tuned.load_encoder(encoder)  # pre-trained: its norm is not fc_norm
    assert torch.equal(tuned.fc_norm.bias, fresh["fc_norm.bias"])
    tuned.load_encoder(source)
    for name in ("fc_norm.weight", "fc_norm.bias", "blocks.2.mlp.fc2.bias"):
        assert torch.equal(tuned.state_dict()[name], source.state_dict()[name])
    assert torch.equal(tuned.head.weight, fresh["head.weight"])


def videomae_v2(folder: Path, width: int, depth: int, hidden: int, **config) -> dict:
    """A folder as OpenGVLab/VideoMAEv2-* on the hub: a nested configuration, `model.`, no head."""
    tubelet, patch = config["tubelet_size"], config["patch_size"]
    state = {
        "patch_embed.proj.weight": rand("w", width, 3, tubelet, patch, patch),
        "patch_embed.proj.bias": rand("b", width),
        **official_blocks("", width, depth, hidden),
        **norm("fc_norm", width),
    }
    folder.mkdir()
    save_file({f"model.{n}": t for n, t in state.items()}, folder / "model.safetensors")
    nested = {
        "in_chans": 3, "num_classes": 0, "embed_dim": width, "depth": depth, "mlp_ratio": hidden / width,
        "qkv_bias": True, "init_values": 0.0, "use_learnable_pos_emb": False, "use_mean_pooling": True,
        "with_cp": False, "cos_attn": False, **config,
    }  # fmt: skip
    values = {"model_type": "VideoMAEv2", "architectures": ["VideoMAEv2"], "model_config": nested}
    (folder / "config.json").write_text(json.dumps(values))
    return state


def transcribed(state: dict, clips: torch.Tensor, heads: int) -> torch.Tensor:
    """`forward_features` of modeling_finetune.py of VideoMAE V2, written as plainly as possible."""
    kernel = state["patch_embed.proj.weight"]
    pixels = normalized(clips).transpose(1, 2)
    x = F.conv3d(pixels, kernel, state["patch_embed.proj.bias"], kernel.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    x = x + sincos_1d(x.shape[1], x.shape[2])
    width = x.shape[2]
    ln = lambda x, name: F.layer_norm(  # noqa: E731
        x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6
    )
    depth = sum(name.endswith("qkv.weight") for name in state)
    for i in range(depth):
        block = {n.removeprefix(f"blocks.{i}."): t for n, t in state.items()}
        bias = (block["attn.q_bias"], torch.zeros(width), block["attn.v_bias"])
        qkv = F.linear(ln(x, f"blocks.{i}.norm1"), block["attn.qkv.weight"], torch.cat(bias))
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (q * (width // heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(mixed, block["attn.proj.weight"], block["attn.proj.bias"])
        hidden = F.linear(
            ln(x, f"blocks.{i}.norm2"), block["mlp.fc1.weight"], block["mlp.fc1.bias"]
        )
        x = x + F.linear(F.gelu(hidden), block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    return ln(x.mean(1), "fc_norm")


@pytest.mark.parametrize(
    "width,heads,hidden,num_frames,tubelet,patch",
    [(48, 3, 192, 8, 2, 8), (88, 4, 384, 6, 3, 14)],
)  # the second: giant's patch of 14 and MLP of 48 / 11
def test_video_mae_v2_folders_of_the_hub(
    tmp_path, recwarn, width, heads, hidden, num_frames, tubelet, patch
):
    state = videomae_v2(
        tmp_path / "hub", width, 3, hidden,
        img_size=4 * patch, patch_size=patch, num_heads=heads, num_frames=num_frames, tubelet_size=tubelet,
    )  # fmt: skip
    model = load(tmp_path / "hub")
    config = model.config
    assert (config.num_frames, config.img_size, config.num_heads) == (num_frames, 4 * patch, heads)
    assert (config.tubelet, int(width * config.mlp_ratio)) == ((tubelet, patch, patch), hidden)
    clips = random_clips(config, 2)
    expected = transcribed(state, clips, heads)
    torch.testing.assert_close(model.pooled(clips), expected, rtol=0, atol=3e-6)
    assert not [str(w.message) for w in recwarn if "vmae" in str(w.filename)]


def test_video_mae_v2_folders_that_are_something_else(tmp_path):
    size = {"img_size": 32, "patch_size": 8, "num_heads": 4, "num_frames": 8, "tubelet_size": 2}
    for change, words in (
        ({"cos_attn": True}, "cos_attn is True"),
        ({"use_mean_pooling": False}, "use_mean_pooling is False"),
    ):
        folder = tmp_path / words.split()[0]
        videomae_v2(folder, 48, 1, 192, **size, **change)
        with pytest.raises(CheckpointError, match=words):
            load(folder)


def test_the_source_of_fine_tuning_keeps_its_head_if_asked(tmp_path, tiny):
    path = pth(tmp_path / "c.pth", official_finetuned())
    source = load_encoder(path, keep_head=True, **CLIP)
    same(source.state_dict(), official_finetuned())
    save(VisionTransformer(tiny, 3), tmp_path / "named", classes="abc")
    assert load_encoder(tmp_path / "named", keep_head=True).class_names == ("a", "b", "c")
    first_token = {n: t for n, t in official_finetuned().items() if "fc_norm" not in n}
    with pytest.warns(UserWarning, match="dropped head.weight"):  # its head reads a corner patch
        encoder = load_encoder(pth(tmp_path / "f.pth", first_token), keep_head=True, **CLIP)
    assert encoder.num_classes is None
