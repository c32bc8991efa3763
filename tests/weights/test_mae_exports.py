"""What MAE's files leave open, normalised targets, and exports of interpolated positions."""

from __future__ import annotations

import argparse
import json
import warnings

import pytest
import torch
from conftest import random_clips
from published_layouts import IMAGE, VIDEO, official_mae, official_pretrain, pth
from test_parity_videomae import normalized

from vmae.cli.main import main
from vmae.mae import MaskedAutoencoder
from vmae.weights import convert, load, save

HEADS = {"num_heads": 4, "decoder_num_heads": 2}


def test_mae_without_arguments_has_plain_targets(tmp_path, image, capsys):
    path = pth(tmp_path / "m.pth", {"model": official_mae()})
    words = r"guessed normalize_targets=False \(the default of MAE's code.*pass the correct"
    with pytest.warns(UserWarning, match=words):
        assert load(path, **HEADS).config.normalize_targets is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (True, False):
            assert load(path, **HEADS, normalize_targets=value).config.normalize_targets is value
        encoder = pth(tmp_path / "e.pth", {"model": official_mae(decoder=False)})
        load(encoder, num_heads=4)  # without a decoder it does not matter
        video = pth(tmp_path / "v.pth", {"model": official_pretrain()})
        assert load(video, **VIDEO).config.normalize_targets is True  # as published
        plain = load(video, **VIDEO, normalize_targets=False)
        for value in (True, False):
            arguments = argparse.Namespace(norm_pix_loss=value)
            path = pth(tmp_path / "a.pth", {"model": official_mae(), "args": arguments})
            model = load(path, **HEADS)
            assert model.config == image.replace(normalize_targets=value)
            for to, place in (("vmae", "own"), ("hf", "hf"), ("official", "o.pth")):
                save(model, tmp_path / f"{value}-{place}", to)
                heads = HEADS if to == "official" else {}
                assert load(tmp_path / f"{value}-{place}", **heads).config == model.config
            written = torch.load(tmp_path / f"{value}-o.pth", weights_only=True)
            assert written["args"] == {"norm_pix_loss": value}
        written = torch.load(save(plain, tmp_path / "p.pth", "official"), weights_only=True)
        assert written["args"] == {"normlize_target": False}
        assert load(tmp_path / "p.pth", **VIDEO).config.normalize_targets is False

        path = pth(tmp_path / "m.pth", {"model": official_mae()})
        run = ["convert", str(path), str(tmp_path / "cli"), "--to", "hf", "--num-heads", "4",
               "--decoder-num-heads", "2"]  # fmt: skip
        for flag, value in (("--normalize-targets", True), ("--no-normalize-targets", False)):
            assert main([*run, flag]) == 0
            config = json.loads((tmp_path / "cli" / "config.json").read_text())
            assert config["norm_pix_loss"] is value
            assert load(tmp_path / "cli").config.normalize_targets is value
        convert(path, tmp_path / "c", "vmae", **HEADS, normalize_targets=True)
        assert load(tmp_path / "c").config.normalize_targets is True


def test_interpolated_positions_are_exported_or_the_export_is_refused(tmp_path, tiny, image):
    video = pth(tmp_path / "v.pth", {"model": official_pretrain()})
    arguments = argparse.Namespace(num_frames=8, input_size=32)
    pth(video, {"model": official_pretrain(), "args": arguments})
    larger = load(video, **HEADS, img_size=64, interpolate=True)
    assert larger.config.pos_embed_from == (8, 32)
    for to, place in (("official", "o.pth"), ("hf", "hf")):
        words = r'interpolated from 8 frames of 32 pixels.*neither .* stores.*without interpolate.*"vmae"'
        with pytest.raises(ValueError, match=words):
            save(larger, tmp_path / place, to)
        assert not (tmp_path / place).exists()
        save(load(video, **HEADS, img_size=64), tmp_path / place, to)

    clips = random_clips(image.replace(img_size=64), 2)
    for decoder in (True, False):
        path = pth(tmp_path / "m.pth", {"model": official_mae(decoder)})
        hints = {**HEADS, "normalize_targets": True} if decoder else {"num_heads": 4}
        model = load(path, **hints, img_size=64, interpolate=True)
        encoder = model.encoder if decoder else model
        for to, place in (("official", "m.pth"), ("hf", "m"), ("vmae", "own")):
            save(model, tmp_path / f"{decoder}-{place}", to)
            back = load(tmp_path / f"{decoder}-{place}", **(hints if to == "official" else {}))
            assert back.config == model.config
            features = (back.encoder if decoder else back).forward_features(clips)
            assert torch.equal(features, encoder.forward_features(clips))
        written = torch.load(tmp_path / f"{decoder}-m.pth", weights_only=True)["model"]
        assert torch.equal(written["pos_embed"][:, 1:], encoder.pos_embed)
        if decoder:
            assert torch.equal(written["decoder_pos_embed"][0, 1:], model.decoder_pos_embed)
    assert isinstance(load(tmp_path / "True-own"), MaskedAutoencoder)
    for nonsense in (("a", "b"), (1,), (True, 32), 3):  # someone else's argument of that name
        arguments = {"pos_embed_from": nonsense}
        path = pth(tmp_path / "n.pth", {"model": official_mae(), "args": arguments})
        assert load(path, **IMAGE).config == image


def test_transformers_reads_interpolated_positions_of_mae(tmp_path, image):
    transformers = pytest.importorskip("transformers")
    path = pth(tmp_path / "m.pth", {"model": official_mae(decoder=False)})
    model = load(path, num_heads=4, img_size=64, interpolate=True)
    save(model, tmp_path / "hf", "hf")
    theirs = transformers.ViTMAEModel.from_pretrained(
        tmp_path / "hf", attn_implementation="eager"
    ).eval()
    clips = random_clips(model.config, 2)
    noise = torch.arange(64.0).expand(2, -1)
    expected = theirs(normalized(clips)[:, 0], noise=noise).last_hidden_state
    torch.testing.assert_close(model(clips), expected, rtol=0, atol=1e-4)
