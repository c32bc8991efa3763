"""Saving in each layout: round trips are exact."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import randomize
from published_layouts import (
    CLIP,
    KINDS,
    VIDEO,
    build,
    official_finetuned,
    official_pretrain,
    pth,
    same,
)

from vmae.cli.main import main
from vmae.vit import VisionTransformer
from vmae.weights import convert, load, save


@pytest.mark.parametrize("kind", KINDS)
def test_round_trips_are_exact(tmp_path, kind, tiny, image):
    model = build(kind, tiny, image)
    hints = {"num_frames": model.config.num_frames, "img_size": 32, "num_heads": 4}
    hints |= {"decoder_num_heads": 2} if "pretrain" in kind else {}

    save(model, tmp_path / "a.pth", "official")
    same(load(tmp_path / "a.pth", **hints).state_dict(), model.state_dict())

    for to in ("hf", "vmae"):
        save(model, tmp_path / to, to)
        back = load(tmp_path / to)  # the folder stores everything
        assert back.config == model.config
        same(back.state_dict(), model.state_dict())
        save(model, tmp_path / to, to)  # an export may be overwritten

    convert(tmp_path / "a.pth", tmp_path / "b", "hf", **hints)
    convert(tmp_path / "b", tmp_path / "b.pth", "official")
    first, last = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pth", "b.pth"))
    assert set(first) == ({"model", "args"} if "pretrain" in kind else {"model"})
    same(first["model"], last["model"])


def test_official_names_are_those_of_the_official_code(tmp_path, tiny):
    for state in (official_pretrain(), official_finetuned()):
        path = pth(tmp_path / "in.pth", {"model": state})
        hints = VIDEO if "mask_token" in state else CLIP
        out = convert(path, tmp_path / "out.pth", "official", **hints)
        same(torch.load(out, weights_only=True)["model"], state)


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
    hints = ["--num-frames", "8", "--img-size", "32", "--num-heads", "4"]
    assert (
        main(["convert", str(tmp_path / "o.pth"), str(tmp_path / "o"), "--to", "vmae", *hints]) == 0
    )
    same(load(tmp_path / "o").state_dict(), model.state_dict())
    for flag in ("--drop-head", "--encoder-only"):
        with pytest.warns(UserWarning, match="dropped fc_norm"):
            assert main([*run, str(tmp_path / flag), "--to", "hf", flag]) == 0
    capsys.readouterr()
    for arguments, words in (
        ([str(tmp_path / "x"), "--to", "official"], "pass a file name ending in .pth"),
        ([str(tmp_path / "ours"), "--to", "vmae"], "would be overwritten by its own conversion"),
        (
            [str(tmp_path / "hf"), "--to", "vmae"],
            "files that are not part of a vmae export (README.md, config.json",
        ),
    ):
        assert main([*run, *arguments]) == 1
        assert words in capsys.readouterr().err


def test_what_a_layout_cannot_express(tmp_path, tiny, image):
    model = VisionTransformer(tiny, 3)
    with pytest.raises(ValueError, match="received 2 class names, but the model has 3 classes"):
        save(model, tmp_path / "a", classes=["a", "b"])
    compiled = save(SimpleNamespace(_orig_mod=randomize(model)), tmp_path / "compiled")
    same(load(compiled).state_dict(), model.state_dict())
    shutil.rmtree(compiled)
    with pytest.raises(ValueError, match="unknown layout 'onnx': use one of vmae, official, hf"):
        save(model, tmp_path / "a", "onnx")
    with pytest.raises(ValueError, match="square patches"):
        save(VisionTransformer(tiny.replace(tubelet=(2, 8, 4))), tmp_path / "a", "hf")
    film = VisionTransformer(image.replace(num_frames=2))
    for to, place in (("hf", "a"), ("official", "a.pth")):
        with pytest.raises(ValueError, match='num_frames is 2 .*or save with to="vmae"'):
            save(film, tmp_path / place, to)
        with pytest.raises(ValueError, match="attention is 'divided'"):
            save(VisionTransformer(tiny.replace(attention="divided")), tmp_path / place, to)
    assert list(tmp_path.iterdir()) == []
    divided = randomize(VisionTransformer(tiny.replace(attention="divided"), 3))
    same(load(save(divided, tmp_path / "d")).state_dict(), divided.state_dict())
