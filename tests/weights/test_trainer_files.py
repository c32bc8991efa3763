"""What trainers store beside the weights is skipped: it is neither imported nor run."""

from __future__ import annotations

import argparse
import datetime
import enum
import functools
import random
import struct
import sys
from collections import Counter, OrderedDict, defaultdict, deque

import pytest
import torch
from hand_pickled import Built, Global, array, posix_path, scalar, write
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

from vmae.weights import CheckpointError, load

ZIPPED = pytest.mark.parametrize("zipped", [True, False])


class Level(enum.Enum):
    LOW = 1


class Attributes(dict):
    """Like AttributeDict of Lightning and ConfigDict of mmengine."""


class Outer:
    class Inner:
        """Pickled through getattr(Outer, "Inner")."""


@ZIPPED
@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
@pytest.mark.parametrize("paths", ["pathlib", "pathlib._local"])
def test_an_official_training_file(tmp_path, tiny, zipped, core, paths):
    """Both engines store np.float64 learning rates, submitit a path among the arguments."""
    group = {"lr": scalar(struct.pack("<d", 1e-3), core), "weight_decay": 0.05, "params": [0, 1]}
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.ones(3)}
    arguments = argparse.Namespace(
        num_frames=8, input_size=32, output_dir=posix_path(paths, "/", "checkpoint", "me")
    )
    path = write(
        tmp_path / "v1.pth",
        {
            "model": official_pretrain(),
            "optimizer": {"state": {0: moments}, "param_groups": [group]},
            "epoch": 3,
            "scaler": {"scale": 65536.0},
            "args": arguments,
        },
        zipped,
    )
    model = load(path, num_heads=4, decoder_num_heads=2)
    assert model.config == tiny  # the plain arguments are still read
    same(model.state_dict(), official_pretrain())


@ZIPPED
def test_an_mmengine_file(tmp_path, zipped):
    """A message hub of history buffers, a config object, and state dicts with metadata."""
    buffer = Built(
        Global("mmengine.logging.history_buffer", "HistoryBuffer"),
        state={"_log_history": array(), "_count_history": array("numpy.core"), "max_length": 10},
        new=True,
    )
    hub = {"log_scalars": OrderedDict(loss=buffer), "runtime_info": OrderedDict(epoch=3)}
    config = Built(
        Global("mmengine.config.config", "ConfigDict"),
        pairs=[("type", "Recognizer3D"), ("lr", 0.1)],
        state={"filename": None},
        new=True,
    )
    weights = OrderedDict(official_pretrain())
    weights._metadata = OrderedDict({"": {"version": 1}})
    content = {"meta": {"cfg": config, "epoch": 3}, "state_dict": weights, "message_hub": hub}
    same(
        load(write(tmp_path / "m.pth", content, zipped), **VIDEO).state_dict(), official_pretrain()
    )


def test_what_else_trainers_write(tmp_path):
    """Containers with items, partials, enums, dates, omegaconf's trees, nested classes, bytes."""
    node = Built(
        Global("omegaconf.nodes", "AnyNode"),
        state={
            "_metadata": Built(
                Global("omegaconf.base", "Metadata"),
                state={
                    "ref_type": Global("typing", "Any"),
                    "object_type": Global("builtins", "dict"),
                    "resolver_cache": defaultdict(dict, {"a": 1}),
                },
                new=True,
            )
        },
        new=True,
    )
    extras = {
        "defaultdict": defaultdict(list, {"loss": [1.0]}),
        "counter": Counter("abc"),
        "deque": deque([1, 2], maxlen=20),
        "set": {1, 2},
        "frozenset": frozenset("ab"),
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "complex": 1 + 2j,
        "range": range(3),
        "slice": slice(1, 2),
        "attributes": Attributes(lr=1e-3),
        "partial": functools.partial(max, 3),
        "enum": Level.LOW,
        "date": datetime.datetime.now(datetime.UTC),
        "generator": random.getstate(),
        "nested": Outer.Inner(),
        "class": Outer.Inner,
        "omegaconf": node,
        "dtype": torch.bfloat16,
        "size": torch.Size([1, 2]),
        "device": torch.device("cuda:3"),
        "module": torch.nn.Linear(2, 2),
        "sparse": torch.eye(2).to_sparse(),
        "uint16": torch.zeros(2, dtype=torch.uint16),
        "large": 2**5000,
    }
    for protocol in (2, 3, 4, 5):
        path = tmp_path / f"{protocol}.pth"
        write(path, {"model": official_pretrain(), "extras": extras}, protocol=protocol)
        same(load(path, **VIDEO).state_dict(), official_pretrain())
    path = pth(tmp_path / "k.pth", official_finetuned() | {Level.LOW: 1, "note": Level.LOW})
    with pytest.warns(UserWarning, match=r"not tensors: note, test_trainer_files\.Level"):
        load(path, **CLIP)


@pytest.mark.filterwarnings("ignore:source code of class")
def test_whole_modules_beside_the_weights_in_old_files(tmp_path):
    """Files of PyTorch before 1.6 store the source of modules, to compare it on loading."""
    content = {"extra": torch.nn.Linear(2, 2), "model": official_pretrain()}
    torch.save(content, tmp_path / "o.pth", _use_new_zipfile_serialization=False)
    same(load(tmp_path / "o.pth", **VIDEO).state_dict(), official_pretrain())


def test_parameters_and_containers_of_weights(tmp_path):
    """Parameters with hooks and attributes of their own are read as the tensors they hold."""
    weights = defaultdict(list)
    for name, tensor in official_pretrain().items():
        weights[name] = torch.nn.Parameter(tensor)
        weights[name].ds_id = 3  # DeepSpeed's
    path = pth(tmp_path / "p.pth", {"model": weights})
    same(load(path, **VIDEO).state_dict(), official_pretrain())


@ZIPPED
def test_nothing_is_imported(tmp_path, monkeypatch, zipped):
    ran = tmp_path / "ran"
    (tmp_path / "canary_module.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    extra = [
        Built(Global("canary_module", "thing"), (1,)),
        Global("canary_module", "thing"),
        Built(Global("xml.dom.pulldom", "PullDOM"), new=True),
        Global("torch", "onnx"),  # imported when looked up
    ]
    path = write(tmp_path / "c.pth", {"model": official_pretrain(), "extra": extra}, zipped)
    load(path, **VIDEO)
    before = set(sys.modules)
    for name in ("canary_module", "xml.dom.pulldom"):
        assert name not in before
    load(path, **VIDEO)
    assert set(sys.modules) == before and not ran.exists()


def test_objects_where_the_weights_should_be(tmp_path):
    model = Built(Global("modeling_pretrain", "PretrainVisionTransformer"), state={}, new=True)
    what = r"modeling_pretrain\.PretrainVisionTransformer object"
    for zipped in (True, False):
        path = write(tmp_path / "a.pth", {"model": model, "epoch": 3}, zipped)
        with pytest.raises(
            CheckpointError, match=rf"'model' is a {what}, not a state dict: save model.state_dict"
        ):
            load(path)
        with pytest.raises(CheckpointError, match=rf"contains a {what}, not a state dict"):
            load(write(tmp_path / "b.pth", model, zipped))
    weights = {"encoder.norm.weight": array(), "lr": scalar(b"12345678")}
    with pytest.raises(
        CheckpointError, match=r"contains no tensors.*encoder.norm.weight \(numpy.*_reconstruct\)"
    ):
        load(write(tmp_path / "c.pth", {"model": weights}))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_torchscript_is_not_loaded(tmp_path, monkeypatch):
    path = tmp_path / "script.pth"
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    monkeypatch.setattr(torch.jit, "load", None)
    with pytest.raises(CheckpointError, match="is a TorchScript archive.*state_dict"):
        load(path)


def test_a_policy_against_other_readers_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    path = pth(tmp_path / "a.pth", official_mae())
    with pytest.raises(CheckpointError, match="TORCH_FORCE_WEIGHTS_ONLY_LOAD is set.*unset it"):
        load(path, **IMAGE)
