"""Exchange with transformers: models load both ways and give the same outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import random_clips, randomize
from published_layouts import KINDS, build, mae_table
from safetensors.torch import load_file, save_file
from test_parity_videomae import align_epsilons, hf_config, normalized

from vmae.config import MaskConfig, ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.masking import all_hidden, make_mask
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, class_names, load, load_encoder, save

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def raw_names(model: torch.nn.Module, folder: Path) -> None:
    """Write a Hugging Face folder with version 5's internal names; save_pretrained writes those of 4."""
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


@pytest.mark.parametrize("version", ["4", "5", "bin"])
def test_hugging_face_mae(tmp_path, image, version):
    clips = random_clips(image, 2)
    theirs = transformers.ViTMAEForPreTraining(vitmae_config(image))
    with pytest.raises(
        CheckpointError, match="is all zeros: transformers leaves ViTMAE's positions at zero"
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
    for tolerance in (1e-4, 2e-6):  # unchanged, then with the hard-coded epsilons set to 1e-6
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


def test_traps_of_hugging_face(tmp_path, tiny):
    """First-token classifiers, pre-training without a norm, and the heads of VideoMAE-small."""
    config = hf_config(tiny, use_mean_pooling=False, num_labels=5)
    theirs = align_epsilons(randomize(transformers.VideoMAEForVideoClassification(config))).eval()
    theirs.save_pretrained(tmp_path / "first")
    with pytest.raises(CheckpointError, match="classifies from its first token.*drop_head=True"):
        load(tmp_path / "first")
    with pytest.warns(UserWarning, match="dropped classifier.bias, classifier.weight$"):
        encoder = load(tmp_path / "first", drop_head=True)
    clips = random_clips(tiny, 2)
    expected = theirs.videomae(normalized(clips)).last_hidden_state
    torch.testing.assert_close(encoder(clips), expected, rtol=0, atol=3e-6)

    transformers.VideoMAEForPreTraining(hf_config(tiny, use_mean_pooling=True)).save_pretrained(
        tmp_path / "normless"
    )
    with pytest.raises(
        CheckpointError,
        match=r"missing: encoder.norm.bias(?s:.*)use_mean_pooling is True(?s:.*)load_encoder",
    ):
        load(tmp_path / "normless")
    with pytest.warns(UserWarning, match="the file has no final norm"):
        load_encoder(tmp_path / "normless")

    small = tiny.replace(embed_dim=384, num_heads=16, depth=1, mlp_ratio=1)
    save(VisionTransformer(small, 5), tmp_path / "small", "hf")
    with pytest.warns(
        UserWarning, match="16 heads at width 384, but the published model has 6 .*num_heads=6"
    ):
        assert load(tmp_path / "small").config.num_heads == 16
    assert load(tmp_path / "small", num_heads=6).config.num_heads == 6
    for change, words in (
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', but only 'gelu' is supported"),
        ({"image_size": [32, 64]}, r"image_size is \[32, 64\]; only square frames are supported"),
    ):
        path = tmp_path / "small" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(CheckpointError, match=words):
            load(tmp_path / "small", num_heads=6)
        path.write_text(path.read_text().replace("gelu_new", "gelu"))
    path.write_text("{")
    with pytest.raises(CheckpointError, match="config.json: the file is not valid JSON"):
        load(tmp_path / "small")
