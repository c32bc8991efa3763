"""Checkpoints that must be refused: damaged files, weights that do not fit."""

from __future__ import annotations

import argparse
import os
import struct
from pathlib import Path

import pytest
import torch
from conftest import randomize
from published_layouts import VIDEO, official_pretrain, pth, rand, same
from safetensors.torch import save_file

from vmae.mae import MaskedAutoencoder
from vmae.train import PretrainConfig
from vmae.weights import CheckpointError, load, save_weights


class Evil:
    """Unpickled, this would run a command."""

    def __init__(self, marker: Path) -> None:
        self.command = f"echo owned > {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_does_not_run(tmp_path, zipped):
    marker = tmp_path / "owned"
    path = tmp_path / "evil.pth"
    content = {"model": official_pretrain(), "args": Evil(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    same(load(path, **VIDEO).state_dict(), official_pretrain())
    torch.save({"model": Evil(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"'model' is a (posix|nt)\.system object"):
        load(path, **VIDEO)
    assert not marker.exists()


def test_argparse_namespaces_are_the_only_objects_that_are_read(tmp_path, tiny):
    arguments = argparse.Namespace(num_frames=8, input_size=32, when=argparse.ArgumentParser)
    path = pth(tmp_path / "a.pth", {"model": official_pretrain(), "args": arguments})
    assert load(path, num_heads=4, decoder_num_heads=2).config == tiny


def test_damaged_and_foreign_files(tmp_path):
    whole = pth(tmp_path / "whole.pth", official_pretrain()).read_bytes()
    save_file(official_pretrain(), tmp_path / "whole.safetensors")
    tensors = (tmp_path / "whole.safetensors").read_bytes()
    torch.save(official_pretrain(), tmp_path / "old", _use_new_zipfile_serialization=False)
    for content, words in (
        (
            whole[: len(whole) // 2],
            "is corrupt, truncated or not a PyTorch file.*download it again",
        ),
        (
            (tmp_path / "old").read_bytes()[:5000],
            "is corrupt, truncated or not a PyTorch file.*download it again",
        ),
        (tensors[: len(tensors) // 2], "is a corrupt safetensors file .*download it again"),
        (struct.pack("<Q", 9) + b"{nothing}", "is a corrupt safetensors file"),
        (b"", "neither a safetensors nor a PyTorch file; the file is empty"),
        (b"<!DOCTYPE html><title>Drive", "the file is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n0000000000", "the file starts with b'.x89PNG"),
    ):
        path = tmp_path / "bad.pth"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=words) as error:
            load(path, **VIDEO)
        assert str(path) in str(error.value) and "weights_only" not in str(error.value)
    for content, words in (
        ([1, 2], "contains a list, not a state dict"),
        ({"epoch": 3}, "contains no tensors; its keys are epoch"),
        (
            {"fc.weight": rand("x", 3, 3)},
            "not a recognised VideoMAE or MAE checkpoint.*first parameters are named fc.weight",
        ),
        (
            {"a.module.b": rand("x", 1), "a.b": rand("x", 1)},
            "a.module.b and a.b both map to a.b: save each model in a separate file",
        ),
    ):
        with pytest.raises(CheckpointError, match=words):
            load(pth(tmp_path / "bad.pth", content))
    with pytest.raises(CheckpointError, match="the file does not exist"):
        load(tmp_path / "none.pth")
    with pytest.raises(
        CheckpointError,
        match=r"contains neither model.safetensors nor pytorch_model.bin, whole or sharded",
    ):
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
        CheckpointError,
        match=r"height 36 is not divisible .*Pass the settings .*num_frames=, img_size=",
    ):
        load(pth(tmp_path / "b.pth", official_pretrain()), **(VIDEO | {"img_size": 36}))
    with pytest.raises(
        CheckpointError, match=r"embed_dim=48 must be even and divisible by num_heads=5"
    ):
        load(tmp_path / "b.pth", **(VIDEO | {"num_heads": 5}))
    with pytest.warns(
        UserWarning,
        match=r"guessed num_heads=1 \(width 48, 64 per head\) and decoder_num_heads=1",
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
