"""Which of a file's entries are the weights: wrappers, averages, shards, detectors."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from published_layouts import (
    CLIP,
    VIDEO,
    mmaction2,
    norm,
    official_finetuned,
    official_pretrain,
    pth,
    rand,
    same,
)
from safetensors.torch import save_file

from vmae.cli.main import main
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, convert, load, load_encoder


def doubled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: 2 * tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrapper", ["model_state_dict", "model_state", "net", "network", "model_ema", "ema_state_dict"]
)
@pytest.mark.parametrize(
    "prefix", ["", "net.", "network.", "_forward_module.", "_forward_module.model.", "ema.module.",
               "_fsdp_wrapped_module.", "model.backbone."],
)  # fmt: skip
def test_wrappers_and_prefixes_of_trainers(tmp_path, wrapper, prefix):
    named = {prefix + name: tensor for name, tensor in official_finetuned().items()}
    content = {"epoch": 3, wrapper: named, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}
    model = load(pth(tmp_path / "m.pth", content), **CLIP)
    same(model.state_dict(), official_finetuned())


@pytest.mark.parametrize(
    "average", ["model_ema", "ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict"]
)
@pytest.mark.parametrize("raw", ["model", "module", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("first", [True, False])
def test_raw_weights_are_taken_rather_than_their_average(tmp_path, raw, average, first):
    """Official evaluation loads the raw ones."""
    state = official_finetuned()
    content = {average: doubled(state), raw: state} if first else {
        raw: state, average: doubled(state)
    }  # fmt: skip
    path = pth(tmp_path / "m.pth", content)
    words = f"m.pth contains several sets of weights; took '{raw}': pass state_key='{average}' for"
    with pytest.warns(UserWarning, match=words):
        same(load(path, **CLIP).state_dict(), state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(load(path, state_key=average, **CLIP).state_dict(), doubled(state))
        same(load(path, state_key=raw, **CLIP).state_dict(), state)


def test_averages_told_apart_by_prefixes(tmp_path):
    """Lightning keeps both in one state dict; torch.optim.swa_utils counts beside its average."""
    state = official_finetuned()
    both = {f"model.{n}": t for n, t in state.items()}
    both |= {f"model_ema.module.{n}": 2 * t for n, t in state.items()}
    for path in (
        pth(tmp_path / "m.pth", {"state_dict": both}),
        save_file(both, tmp_path / "m.safetensors") or tmp_path / "m.safetensors",
    ):
        with pytest.warns(UserWarning, match=r"without the prefix model_ema\.: pass state_key='mo"):
            same(load(path, **CLIP).state_dict(), state)
        same(load(path, state_key="model_ema", **CLIP).state_dict(), doubled(state))
        with pytest.raises(CheckpointError, match="no entry 'x'; its keys are"):
            load(path, state_key="x", **CLIP)
    average = {f"module.{n}": t for n, t in state.items()} | {"n_averaged": torch.tensor(3)}
    with pytest.warns(UserWarning, match="skipping counters: n_averaged"):
        same(load(pth(tmp_path / "a.pth", average), **CLIP).state_dict(), state)


@pytest.mark.filterwarnings("ignore:.*skipping entries that are not tensors. model")
def test_state_key(tmp_path, capsys):
    state = official_finetuned()
    path = pth(
        tmp_path / "m.pth",
        {"model": state, "model_ema": doubled(state), "epoch": 3, "optimizer": {}},
    )
    with pytest.raises(
        CheckpointError, match="no entry 'ema'; its keys are epoch, model, model_ema, optimizer"
    ):
        load(path, state_key="ema", **CLIP)
    with pytest.raises(CheckpointError, match="its entry 'epoch' is an int, not a state dict"):
        load(path, state_key="epoch", **CLIP)
    with pytest.warns(UserWarning, match="dropped head.weight, head.bias"):
        encoder = load_encoder(path, state_key="model_ema", **CLIP)
    assert torch.equal(encoder.patch_embed.proj.bias, 2 * state["patch_embed.proj.bias"])
    convert(path, tmp_path / "ema", "vmae", state_key="model_ema", **CLIP)
    same(load(tmp_path / "ema").state_dict(), doubled(state))
    hints = ["--num-frames", "8", "--img-size", "32", "--num-heads", "4"]
    run = ["convert", str(path), str(tmp_path / "cli"), "--to", "vmae", *hints]
    assert main([*run, "--state-key", "model_ema"]) == 0
    same(load(tmp_path / "cli").state_dict(), doubled(state))
    nested = pth(tmp_path / "n.pth", {"run": {"epoch": 3, "weights": state}})
    with pytest.raises(CheckpointError, match="its keys are run: pass state_key='run' if"):
        load(nested, **CLIP)
    with pytest.raises(CheckpointError, match=r"epoch, weights: pass state_key='run.weights' if"):
        load(nested, state_key="run", **CLIP)
    deep: dict[str, object] = {"model": 3}
    for _ in range(10):
        deep = {"model": deep | {"x": torch.ones(1)}}
    with pytest.raises(CheckpointError, match="not a recognised VideoMAE or MAE checkpoint"):
        load(pth(tmp_path / "d.pth", deep))
    unwrapped = pth(tmp_path / "w.pth", {"args": "x", "run": {"weights": state}})
    same(load(unwrapped, state_key="run.weights", **CLIP).state_dict(), state)


def sharded(folder: Path, state: dict[str, torch.Tensor], kind: str) -> Path:
    """A folder as save_pretrained writes it with a small max_shard_size; returns the index."""
    folder.mkdir()
    names, suffix = sorted(state), "safetensors" if kind == "model.safetensors" else "bin"
    shards = [f"{kind.split('.')[0]}-{i:05}-of-00002.{suffix}" for i in (1, 2)]
    parts = dict(zip(shards, (names[::2], names[1::2]), strict=True))
    for shard, part in parts.items():
        content = {name: state[name].clone() for name in part}
        if suffix == "bin":
            pth(folder / shard, content)
        else:
            save_file(content, folder / shard)
    weight_map = {name: shard for shard, part in parts.items() for name in part}
    index = folder / f"{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_sharded_folders(tmp_path, kind):
    state = official_pretrain()
    index = sharded(tmp_path / "s", state, kind)
    same(load(tmp_path / "s", **VIDEO).state_dict(), state)
    same(load(index, **VIDEO).state_dict(), state)

    content = json.loads(index.read_text())
    shards = sorted(set(content["weight_map"].values()))
    wrong = dict(content["weight_map"]) | {"encoder.blocks.7.x": shards[0]}
    for weight_map, words in (
        (wrong, rf"{shards[0]} lacks encoder.blocks.7.x, which .*index.json lists.*download"),
        ({"a": "../x.bin"}, r"names the shard '../x.bin'.*must be in the folder of the index"),
        ({"a": "/etc/passwd"}, r"names the shard '/etc/passwd'"),
        ({"a": "sub/x.bin"}, r"names the shard 'sub/x.bin'"),
        ({"a": "..\\x.bin"}, r"names the shard '..\\\\x.bin'"),
        ({"a": 3}, r"names the shard 3"),
        ({}, "has no weight_map"),
        ([1], "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(CheckpointError, match=words):
            load(tmp_path / "s", **VIDEO)
    with pytest.raises(CheckpointError, match="other.safetensors.index.json: the file does not"):
        load(tmp_path / "s" / "other.safetensors.index.json")
    index.write_text(json.dumps(content))
    (tmp_path / "s" / shards[1]).unlink()
    with pytest.raises(
        CheckpointError, match=f"{re.escape(shards[1])}, listed in .*index.json, does not exist"
    ):
        load(tmp_path / "s", **VIDEO)


def test_a_sharded_folder_of_transformers(tmp_path, tiny):
    """With its config.json: sizes, heads and class names are those of the folder."""
    transformers = pytest.importorskip("transformers")
    from conftest import randomize

    from vmae.weights import save

    model = randomize(VisionTransformer(tiny, 5))
    save(model, tmp_path / "one", "hf", classes="abcde")
    kind = transformers.VideoMAEForVideoClassification
    theirs = kind.from_pretrained(tmp_path / "one")
    theirs.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    assert (tmp_path / "many" / "model.safetensors.index.json").exists()
    back = load(tmp_path / "many")
    assert back.config == tiny and back.class_names == tuple("abcde")
    same(back.state_dict(), model.state_dict())


def test_detectors_give_their_backbone(tmp_path):
    """mmaction2's AVA files: a backbone with a final norm, and heads over regions."""
    state = {n: t for n, t in mmaction2().items() if not n.startswith(("cls_head", "backbone.fc"))}
    state |= norm("backbone.norm", 48)
    state["roi_head.bbox_head.fc_cls.weight"] = rand("roi", 81, 48)
    state["roi_head.bbox_head.fc_cls.bias"] = rand("roi", 81)
    path = pth(tmp_path / "ava.pth", {"state_dict": state, "meta": {}})
    for read in (load, load_encoder):
        with pytest.warns(
            UserWarning,
            match=r"ava.pth is a detector; took its backbone and dropped roi_head.bbox_head\.\*$",
        ):
            encoder = read(path, **CLIP)
        assert encoder.num_classes is None
        assert torch.equal(encoder.norm.weight, state["backbone.norm.weight"])


def test_a_warning_points_at_the_callers_line(tmp_path):
    path = tmp_path / "m.pth"
    torch.save({"model": {"a": torch.ones(2)}, "model_ema": {"a": torch.ones(2)}}, path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(CheckpointError):
            load(path)
    assert [warning.filename for warning in caught] == [__file__]
