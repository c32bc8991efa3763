"""Options of `load`: runs and exports, other clip sizes, encoders, heads, inferred sizes."""

from __future__ import annotations

import pytest
import torch
from conftest import random_clips, randomize
from published_layouts import (
    CLIP,
    IMAGE,
    VIDEO,
    official_finetuned,
    official_mae,
    official_pretrain,
    pth,
    same,
)
from safetensors.torch import save_file
from test_parity_videomae import normalized

from vmae.config import ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.train import FinetuneConfig, PretrainConfig, save_classifier
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, load, load_encoder, save, save_weights
from vmae.weights.layouts import infer_config

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


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
        CheckpointError, match="files that are not part of a vmae export.*config.yaml of a tr"
    ):
        save(classifier, tmp_path / "fine")
    with pytest.raises(
        CheckpointError, match="files that are not part of a hf export.*checkpoints.*empty folder"
    ):
        save(classifier, run, "hf")
    (tmp_path / "fine" / "classes.txt").write_text("a\n")
    with pytest.warns(
        UserWarning,
        match="lists 1 class name, but the head has 3 outputs: the names will be ignored",
    ):
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


def test_other_clip_sizes_get_recomputed_or_interpolated_positions(tmp_path, tiny):
    """VideoMAE and MAE at twice the size: the same weights, another position table."""
    from vmae.positions import interpolate_pos_embed, sincos_1d

    path = pth(tmp_path / "v1.pth", {"model": official_pretrain()})
    larger = {**VIDEO, "img_size": 64}
    grid, other = tiny.grid, tiny.replace(img_size=64).grid
    recomputed = load(path, **larger)
    assert torch.equal(recomputed.encoder.pos_embed[0], sincos_1d(other.num_tokens, 48))
    save(load(path, **VIDEO), tmp_path / "own")  # stores its frames and size
    interpolated = load(tmp_path / "own", img_size=64, interpolate=True)
    assert torch.equal(
        interpolated.encoder.pos_embed[0],
        interpolate_pos_embed(sincos_1d(grid.num_tokens, 48), grid, other),
    )
    assert torch.equal(
        interpolated.decoder_pos_embed,
        interpolate_pos_embed(sincos_1d(grid.num_tokens, 24), grid, other),
    )
    same(dict(interpolated.named_parameters()), dict(recomputed.named_parameters()))
    assert load(tmp_path / "own", interpolate=True).config.pos_embed_from is None
    save(interpolated, tmp_path / "interpolated")
    assert torch.equal(
        load(tmp_path / "interpolated").encoder.pos_embed, interpolated.encoder.pos_embed
    )

    mae = pth(tmp_path / "mae.pth", {"model": official_mae()})
    with pytest.raises(CheckpointError, match="interpolate=True"):
        load(mae, **IMAGE, img_size=64)
    image = load(mae, **IMAGE, img_size=64, interpolate=True)
    assert image.config.pos_embed_from == (1, 32)
    assert image.encoder.pos_embed.shape == (1, 64, 48)


def test_encoders(tmp_path, tiny):
    """A pre-trained encoder ends in its norm; a fine-tuned one outputs the tokens to be averaged."""
    clips = random_clips(tiny, 2)
    autoencoder = randomize(MaskedAutoencoder(tiny)).eval()
    save(autoencoder, tmp_path / "a")
    with pytest.warns(UserWarning, match="dropped .*decoder.norm.bias"):
        encoder = load_encoder(tmp_path / "a")
    assert torch.equal(encoder(clips), autoencoder.encoder(clips))

    classifier = randomize(VisionTransformer(tiny, 5)).eval()
    save(classifier, tmp_path / "c", classes="abcde")
    for read in (load_encoder, lambda path: load(path, drop_head=True)):
        with pytest.warns(UserWarning, match="dropped head.bias, head.weight$"):
            encoder = read(tmp_path / "c")
        assert torch.equal(encoder(clips), classifier.forward_features(clips))
    again = VisionTransformer(tiny, 5)
    again.load_encoder(encoder)
    assert torch.equal(again.forward_features(clips), classifier.forward_features(clips))
    assert torch.equal(again.fc_norm.bias, classifier.fc_norm.bias)
    with pytest.warns(UserWarning, match="dropped fc_norm"):
        save(encoder, tmp_path / "h", "hf")
    encoder.fc_norm = torch.nn.Identity()
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
    hub = load(tmp_path / "v2.safetensors", **CLIP)
    assert hub.num_classes is None
    assert torch.equal(hub.fc_norm.bias, headless["model.fc_norm.bias"])


def test_heads_and_their_classes(tmp_path):
    path = pth(tmp_path / "c.pth", official_finetuned(5))
    with pytest.raises(CheckpointError, match="head for 5 classes, not 7: pass drop_head=True"):
        load(path, num_classes=7, **CLIP)
    with pytest.warns(
        UserWarning, match="dropped head.weight, head.bias; the new head for 7 .*untrained"
    ):
        model = load(path, num_classes=7, drop_head=True, **CLIP)
    assert model.head.out_features == 7
    with pytest.warns(UserWarning, match="the new head for 5 classes is untrained"):
        load(path, num_classes=5, drop_head=True, **CLIP)
    assert torch.equal(model.fc_norm.bias, official_finetuned()["fc_norm.bias"])
    with pytest.raises(
        CheckpointError,
        match="has no classification head, so it is not a classifier for 5 classes: load the file without num_classes=",
    ):
        load(pth(tmp_path / "p.pth", official_pretrain()), num_classes=5, **VIDEO)


@pytest.mark.parametrize(
    "config",
    [ModelConfig.videomae(size, version) for size in "SBLHg" for version in (1, 2)]
    + [ModelConfig.mae(size) for size in "BLH"],
)
def test_published_sizes_are_inferred_from_shapes(config):
    """Every field, including giant's MLP of 6144 and, in its decoder, 2234."""
    shallow = config.replace(depth=1, decoder_depth=1)
    with torch.device("meta"):
        state = MaskedAutoencoder(shallow).state_dict()
    hints = {"img_size": 224, "normalize_targets": True}
    assert infer_config(state, hints) == (shallow, [])


def test_giant_mlp():
    assert infer_config_hidden(1408, 6144, 512, 2234) == 48 / 11
    for hidden in (100, 191, 193):  # any hidden size is reproduced exactly
        ratio = infer_config_hidden(48, hidden, 24, hidden // 2)
        assert (int(48 * ratio), int(24 * ratio)) == (hidden, hidden // 2)
    with pytest.raises(ValueError, match="no single MLP ratio gives these hidden sizes"):
        infer_config_hidden(48, 192, 24, 200)


def infer_config_hidden(width: int, hidden: int, decoder_width: int, decoder_hidden: int) -> float:
    shapes = {
        "encoder.patch_embed.proj.weight": (width, 3, 2, 16, 16),
        "encoder.blocks.0.mlp.fc1.weight": (hidden, width),
        "decoder.blocks.0.mlp.fc1.weight": (decoder_hidden, decoder_width),
    }
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return infer_config(state, {"num_heads": 1, "decoder_num_heads": 1})[0].mlp_ratio
