"""The image processor of a Hugging Face folder: its statistics, its size, its kind of labels."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_clips, randomize
from published_layouts import build, same
from safetensors.torch import load_file
from test_hugging_face import mae_table, vitmae_config
from test_parity_videomae import align_epsilons, hf_config

from vmae.config import IMAGENET_MEAN, IMAGENET_STD, MaskConfig, ModelConfig
from vmae.data import read_frames, write_video
from vmae.inference import Inference
from vmae.masking import make_mask
from vmae.predict import predict, read_views
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, load, load_encoder, save

transformers = pytest.importorskip("transformers")
pytest.importorskip("PIL")
transformers.logging.set_verbosity_error()

#: Of a processor, fields that change what the model reads.
STATISTICS = [
    {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    {"image_mean": [0.1, 0.5, 0.7], "image_std": [0.4, 0.3, 0.2]},
    {"do_normalize": False},
    {"rescale_factor": 1 / 127.5},
    {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 70.0]},
    {"do_rescale": False, "do_normalize": False},
]


def with_processor(model, folder: Path, **fields):
    """Save a model of transformers with a processor for 32 pixels; returns the processor."""
    kind = transformers.VideoMAEImageProcessor
    if model.config.model_type != "videomae":
        kind = transformers.ViTImageProcessor
    processor = kind(**({"size": {"shortest_edge": 32}, "crop_size": 32} | fields))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return processor


def pixels(processor, clips: torch.Tensor) -> torch.Tensor:
    """What a processor makes of uint8 clips (B, C, T, H, W)."""
    frames = [[frame.permute(1, 2, 0).numpy() for frame in c.transpose(0, 1)] for c in clips]
    if hasattr(processor, "do_center_crop") and "VideoMAE" in type(processor).__name__:
        return torch.cat([torch.as_tensor(np.array(processor(f)["pixel_values"])) for f in frames])
    return torch.as_tensor(np.array(processor([f[0] for f in frames])["pixel_values"]))


@pytest.mark.parametrize("fields", STATISTICS, ids=str)
def test_other_statistics_are_folded_into_the_patch_embedding(tmp_path, tiny, fields):
    clips = random_clips(tiny, 2)
    config = hf_config(tiny, use_mean_pooling=True, num_labels=5)
    theirs = align_epsilons(randomize(transformers.VideoMAEForVideoClassification(config))).eval()
    processor = with_processor(theirs, tmp_path / "hf", **fields)
    expected = theirs(pixels(processor, clips).float()).logits
    ours = load(tmp_path / "hf")
    scale = expected.abs().max().item()
    torch.testing.assert_close(ours(clips), expected, rtol=0, atol=3e-5 * max(scale, 1))
    again = load(save(ours, tmp_path / "again", "hf"))  # ImageNet's: nothing left to fold
    same(again.state_dict(), ours.state_dict())
    with pytest.warns(UserWarning, match="dropped classifier"):
        encoder = load_encoder(tmp_path / "hf")
    assert torch.equal(encoder(clips), ours.forward_features(clips))


def test_statistics_that_are_not_stated_are_those_of_transformers(tmp_path, tiny):
    config = hf_config(tiny, use_mean_pooling=True, num_labels=5)
    with_processor(randomize(transformers.VideoMAEForVideoClassification(config)), tmp_path / "hf")
    expected = load(tmp_path / "hf").state_dict()
    (tmp_path / "hf" / "preprocessor_config.json").write_text('{"size": 32, "crop_size": 32}')
    same(load(tmp_path / "hf").state_dict(), expected)


def test_an_image_classifier_with_other_statistics(tmp_path, image):
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=192, num_labels=5, layer_norm_eps=1e-6, attn_implementation="eager",
    )  # fmt: skip
    theirs = randomize(transformers.ViTForImageClassification(config)).eval()
    with torch.no_grad():
        theirs.vit.embeddings.position_embeddings.copy_(mae_table(48, 4))
    fields = {"size": {"height": 32, "width": 32}, "crop_size": None}
    processor = with_processor(theirs, tmp_path / "hf", **fields)
    clips = random_clips(image, 2)
    ours = load(tmp_path / "hf", num_heads=4)
    expected = theirs(pixels(processor, clips)).logits
    torch.testing.assert_close(ours(clips), expected, rtol=0, atol=5e-6)
    assert ours.inference == Inference(squeeze=True)


def test_pretrained_models_whose_targets_depend_on_the_statistics(tmp_path, tiny, image):
    """Standardised targets do not; plain ones, and MAE's, which mix the channels, do."""
    clips = random_clips(tiny, 2)
    mask = make_mask(MaskConfig(mask_ratio=0.75), tiny.grid, 2, torch.Generator().manual_seed(1))
    hidden = mask.hidden(tiny.grid.num_tokens)
    config = hf_config(tiny, use_mean_pooling=False)
    theirs = align_epsilons(randomize(transformers.VideoMAEForPreTraining(config))).eval()
    processor = with_processor(theirs, tmp_path / "v")
    expected = theirs(pixels(processor, clips), bool_masked_pos=hidden)
    ours = load(tmp_path / "v")
    torch.testing.assert_close(ours(clips, mask), expected.logits, rtol=0, atol=5e-6)
    torch.testing.assert_close(ours.loss(clips, mask), expected.loss, rtol=0, atol=1e-4)

    config.norm_pix_loss = False
    plain = transformers.VideoMAEForPreTraining(config)
    mae = randomize(transformers.ViTMAEForPreTraining(vitmae_config(image)))
    with torch.no_grad():
        mae.vit.embeddings.position_embeddings.copy_(mae_table(48, 4))
        mae.decoder.decoder_pos_embed.copy_(mae_table(24, 4))
    square = {"size": {"height": 32, "width": 32}, "crop_size": None}
    for model, name, fields in ((plain, "p", {}), (mae, "m", square)):
        with_processor(model, tmp_path / name, **fields)
        with pytest.raises(CheckpointError, match=r"mean \[0.5, 0.5, 0.5\].*targets.*load_encoder"):
            load(tmp_path / name)
        with pytest.warns(UserWarning, match="dropped"):
            load_encoder(tmp_path / name)
        imagenet = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
        with_processor(model, tmp_path / name, **fields, **imagenet)
        load(tmp_path / name)


@pytest.mark.parametrize("kind", ["classifier", "encoder", "mae-classifier", "pretrain"])
def test_our_own_export_comes_back_as_it_was(tmp_path, kind, tiny, image):
    model = build(kind, tiny, image)
    folder = save(model, tmp_path / "hf", "hf")
    before = load_file(folder / "model.safetensors")
    back = load(folder)
    same(back.state_dict(), model.state_dict())
    if "classifier" in kind:
        assert back.inference == model.inference == Inference()
    save(back, tmp_path / "again", "hf")
    same(load_file(tmp_path / "again" / "model.safetensors"), before)


@pytest.mark.parametrize(
    "size,crop,inference",
    [
        ({"shortest_edge": 40}, {"height": 32, "width": 32}, Inference(short_side=40)),
        ({"height": 32, "width": 32}, None, Inference(squeeze=True)),
        ({"height": 44, "width": 44}, 32, Inference(short_side=44, squeeze=True)),
    ],
    ids=str,
)
def test_frames_are_resized_as_the_processor_does(tmp_path, tiny, size, crop, inference):
    config = hf_config(tiny, use_mean_pooling=True, num_labels=5)
    theirs = transformers.VideoMAEForVideoClassification(config)
    fields = {"crop_size": crop} if crop else {"do_center_crop": False}
    processor = with_processor(theirs, tmp_path / "hf", size=size, **fields)
    ours = load(tmp_path / "hf")
    assert ours.inference == inference
    ramps = np.add.outer(np.arange(48), 2 * np.arange(70)) + np.arange(8)[:, None, None]
    write_video(tmp_path / "v.mp4", np.repeat(ramps[..., None], 3, 3).astype(np.uint8))
    frames = list(read_frames(tmp_path / "v.mp4"))
    expected = processor(frames, do_normalize=False, do_rescale=False)["pixel_values"]
    found = read_views(tmp_path / "v.mp4", ours.config, ours.inference)
    off = (found[0].transpose(0, 1).float() - torch.as_tensor(np.array(expected[0]))).abs().max()
    assert off <= 1
    assert len(predict(ours, tmp_path / "v.mp4")) == 5
    smaller = load(tmp_path / "hf", img_size=16)  # in proportion
    if inference.short_side:
        assert smaller.inference.short_side == inference.short_side // 2
    for to in ("vmae", "hf"):
        assert load(save(ours, tmp_path / to, to)).inference == inference


def test_what_a_processor_does_that_nothing_here_can(tmp_path, tiny):
    theirs = transformers.VideoMAEForVideoClassification(
        hf_config(tiny, use_mean_pooling=True, num_labels=5)
    )
    path = tmp_path / "hf" / "preprocessor_config.json"
    with_processor(theirs, tmp_path / "hf")
    fields = json.loads(path.read_text())
    for change, words in (
        ({"size": {"height": 32, "width": 48}}, "size is .*32.*48.*only square"),
        ({"size": {"shortest_edge": 20}}, "size is 20, less than the crop of 32"),
        ({"image_mean": [0.5]}, r"image_mean is \[0.5\].*3 channels"),
        ({"image_std": [0.5, 0.5, 0]}, r"image_std is .*0\]; .*positive"),
        ({"do_resize": False}, "do_resize is false"),
    ):
        path.write_text(json.dumps(fields | change))
        with pytest.raises(CheckpointError, match=words):
            load(tmp_path / "hf")


@pytest.mark.parametrize(
    "resample,name", [(3, "3 .bicubic."), (0, "0 .nearest."), (9, "9 .unknown.")]
)
def test_another_filter_is_reported(tmp_path, tiny, resample, name):
    theirs = transformers.VideoMAEForVideoClassification(
        hf_config(tiny, use_mean_pooling=True, num_labels=5)
    )
    with_processor(theirs, tmp_path / "hf")
    path = tmp_path / "hf" / "preprocessor_config.json"
    fields = json.loads(path.read_text())
    assert fields["resample"] == 2  # what transformers and we do if it is not stated
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "hf")
        path.write_text(json.dumps(fields | {"resample": None}))
        load(tmp_path / "hf")
    path.write_text(json.dumps(fields | {"resample": resample}))
    with pytest.warns(UserWarning, match=f"resample is {name}, but frames are resized bilinearly"):
        load(tmp_path / "hf")


def test_classifiers_of_several_labels(tmp_path, tiny):
    config = hf_config(tiny, use_mean_pooling=True, num_labels=5)
    config.problem_type = "multi_label_classification"
    theirs = transformers.VideoMAEForVideoClassification(config)
    with_processor(theirs, tmp_path / "hf")
    ours = load(tmp_path / "hf")
    assert ours.inference.multi_label
    save(load(save(ours, tmp_path / "vmae")), tmp_path / "back", "hf")
    assert load(tmp_path / "back").inference.multi_label
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["problem_type"] == "multi_label_classification"
    config.problem_type = "regression"
    config.save_pretrained(tmp_path / "hf")
    with pytest.raises(CheckpointError, match="problem_type is 'regression'.*load_encoder"):
        load(tmp_path / "hf")


def test_transformers_reads_how_a_classifier_was_tested(tmp_path):
    model = VisionTransformer(ModelConfig.videomae("tiny"), 3)
    model.inference = Inference("tsn", 2, clips=2, short_side=20)
    folder = save(model, tmp_path / "hf", "hf")
    processor = transformers.VideoMAEImageProcessor.from_pretrained(folder)
    assert dict(processor.size) == {"shortest_edge": 20}
    assert load(folder).inference == model.inference
    processor.save_pretrained(folder)  # keeps the field that is ours
    assert load(folder).inference == model.inference
