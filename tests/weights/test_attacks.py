"""Files that would run code if they were unpickled: nothing runs, whatever else happens."""

from __future__ import annotations

import argparse
import contextlib
import io
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hand_pickled import Built, Global, Pickler, write
from published_layouts import VIDEO, official_pretrain, pth, same

import vmae.weights.inert as reader
from vmae.weights import CheckpointError, load


class Exec:
    """Unpickled, this would run Python code."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self):
        return exec, (self.text,)


def attacks(marker: Path) -> dict[str, Built]:
    """Each would create the file `marker` if Python's own unpickler read it."""
    python = f"open({str(marker)!r}, 'w').close()"
    script = marker.with_suffix(".py")
    script.write_text(python)
    shell = subprocess.list2cmdline([sys.executable, str(script)])  # for any system's shell
    nested = pickle.dumps(Exec(python))
    marker.with_suffix(".pkl").write_bytes(nested)
    importing = Built(Global("builtins", "__import__"), ("os",))
    system = Built(Global("builtins", "getattr"), (importing, "system"))
    partial = Built(Global("functools", "partial"), (Global("builtins", "exec"), python))
    mapped = Built(Global("builtins", "map"), (Global("builtins", "exec"), [python]))
    attribute = Built(Global("operator", "attrgetter"), ("system",))
    return {
        "eval": Built(Global("builtins", "eval"), (python,)),
        "exec": Built(Global("builtins", "exec"), (python,)),
        "eval of Python 2": Built(Global("__builtin__", "eval"), (python,)),
        "open": Built(Global("builtins", "open"), (str(marker), "w")),
        "getattr of import": Built(system, (shell,)),
        "attrgetter": Built(Built(attribute, (importing,)), (shell,)),
        "partial": Built(partial),
        "map": Built(Global("builtins", "list"), (mapped,)),
        "os.system": Built(Global("os", "system"), (shell,)),
        "posix.system": Built(Global("posix", "system"), (shell,)),
        "Popen": Built(Global("subprocess", "check_call"), (shell, -1, None, None, None, None, None,
                                                            True, True)),
        "runpy": Built(Global("runpy", "run_path"), (str(script),)),
        "timeit": Built(Global("timeit", "timeit"), ("pass", python, Global("time", "time"), 1)),
        "torch.save": Built(Global("torch", "save"), (1, str(marker))),
        "pickle.loads": Built(Global("pickle", "loads"), (nested,)),
        "pandas": Built(Global("pandas", "read_pickle"), (str(marker.with_suffix(".pkl")),)),
        # These need a network, a browser or a file of another kind to succeed.
        "Popen by __new__": Built(Global("subprocess", "Popen"), (["touch", str(marker)],), new=True),
        "webbrowser": Built(Global("webbrowser", "open"), (f"file://{marker}",)),
        "torch.load": Built(Global("torch", "load"), (str(marker.with_suffix(".pkl")),)),
        "torch.hub": Built(Global("torch.hub", "load"), (str(marker.parent), "x")),
        "torch.jit": Built(Global("torch.jit", "load"), (str(marker.with_suffix(".pkl")),)),
        "_load_from_bytes": Built(Global("torch.storage", "_load_from_bytes"), (nested,)),
        "numpy.load": Built(Global("numpy", "load"), (str(marker.with_suffix(".pkl")), None, True)),
        "a dotted name": Built(Global("torch", "os.system"), (shell,)),
        "nt.system": Built(Global("nt", "system"), (shell,)),
        "Storage in the name": Built(Global("os", "Storage.system"), (shell,)),
    }  # fmt: skip


@pytest.fixture
def marker(tmp_path) -> Iterator[Path]:
    """A file that attacks try to create; at the end of the test it must not exist."""
    path = tmp_path / "owned"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("name", ["eval", "exec", "getattr of import", "partial", "map", "runpy",
                                  "os.system", "pickle.loads", "Popen", "timeit", "torch.save"])  # fmt: skip
def test_the_attacks_are_real(tmp_path, name):
    data = io.BytesIO()
    Pickler(data, 2).dump(attacks(tmp_path / "owned")[name])
    pickle.loads(data.getvalue())
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_attacks_beside_the_weights_do_nothing(tmp_path, marker, zipped):
    """In the optimizer, the arguments, a container, as a key, as the state of an allowed type."""
    for name, attack in attacks(marker).items():
        ordered = OrderedDict(a=1)
        content = {
            "optimizer": {"state": {0: {"exp_avg": attack}}, "param_groups": [{"lr": attack}]},
            "args": argparse.Namespace(num_frames=8, input_size=32, evil=attack),
            "ordered": Built(Global("collections", "OrderedDict"), state={"x": attack}),
            "default": Built(Global("collections", "defaultdict"), (attack,), pairs=[("a", attack)]),
            "keys": {attack: 1},
            "list": [ordered, (attack,)],
            "model": official_pretrain(),
        }  # fmt: skip
        path = write(tmp_path / "a.pth", content, zipped)
        before = set(sys.modules)
        model = load(path, num_heads=4, decoder_num_heads=2)
        assert set(sys.modules) == before, name
        same(model.state_dict(), official_pretrain())


def sealed(marker: Path) -> dict[str, object]:
    """Attacks on the types that may be built: their state, hooks, attributes, constructors."""
    attack = attacks(marker)["exec"]
    hooks = OrderedDict([(0, attack)])
    tensor = Global("torch._utils", "_rebuild_tensor_v2")
    typed = Global("torch._tensor", "_rebuild_from_type_v2")
    values = {}
    for name, built in (
        ("class state", Built(Global("collections", "OrderedDict"), new=True, state={"a": attack})),
        ("slots", Built(Global("argparse", "Namespace"), new=True,
                        state=(None, {"__class__": attack, "__setstate__": attack}))),
        ("keywords", Built(Global("argparse", "Namespace"), state={"__dict__": attack})),
        ("an attack as type", Built(typed, (attack, attack, (1,), {"a": attack}))),
        ("an attack as function", Built(typed, (Global("builtins", "exec"), None, ("1",), {}))),
        ("hooks", Built(Global("torch._utils", "_rebuild_parameter"), (torch.ones(1), True, hooks))),
        ("parameter state", Built(Global("torch._utils", "_rebuild_parameter_with_state"),
                                  (torch.ones(1), True, hooks, {"grad_fn": attack}))),
        ("storage", Built(tensor, (attack, 0, (1,), (1,), True, hooks))),
        ("size", Built(tensor, (1, attack, attack, attack, True, attack))),
        ("a tensor of nothing", Built(tensor)),
        ("arguments", Built(Global("argparse", "Namespace"), (attack,))),
        ("dict", Built(Global("collections", "OrderedDict"), (attack, attack))),
    ):  # fmt: skip
        values[name] = built
    return values


@pytest.mark.filterwarnings("ignore:.*skipping entries that are not tensors. mask_token")
@pytest.mark.parametrize("zipped", [True, False])
def test_attacks_on_what_may_be_built(tmp_path, marker, zipped):
    """Either the real tensors load, or CheckpointError is raised."""
    for name, attack in sealed(marker).items():
        for content in (
            {"model": official_pretrain(), "extra": attack},
            {"extra": attack, "model": official_pretrain()},
            {"model": official_pretrain() | {"mask_token": attack}},
            attack,
        ):
            path = write(tmp_path / "a.pth", content, zipped)
            try:
                model = load(path, **VIDEO)
            except CheckpointError as error:
                assert str(path) in str(error), name
            else:
                same(model.state_dict(), official_pretrain())


def test_a_file_cannot_change_what_later_files_are_read_with(tmp_path, marker):
    """BUILD on a class or function would set its attributes, for everything read afterwards."""
    names = ("collections.OrderedDict", "collections.defaultdict", "argparse.Namespace",
             "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
             "torch._tensor._rebuild_from_type_v2", "torch.FloatStorage", "builtins.exec",
             "torch.storage.UntypedStorage", "torch.float32")  # fmt: skip
    plain = pth(tmp_path / "plain.pth", official_pretrain())
    poison = {"__defaults__": (1,), "__new__": 1, "__init__": 2, "__call__": 3, "__setstate__": 4}
    before = {
        name: dict(vars(kind)) for name, kind in vars(reader).items() if isinstance(kind, type)
    }
    for name in names:
        module, _, last = name.rpartition(".")
        for state in (poison, (None, poison)):
            named = Global(module, last)
            path = tmp_path / "a.pth"
            # BUILD on the global itself: the name is pushed, then its "state"
            content = {"model": official_pretrain(), "x": _BuildOn(named, state)}
            write(path, content)
            with contextlib.suppress(CheckpointError):
                load(path, **VIDEO)
            same(load(plain, **VIDEO).state_dict(), official_pretrain())
    after = {
        name: dict(vars(kind)) for name, kind in vars(reader).items() if isinstance(kind, type)
    }
    assert after == before
    assert isinstance(argparse.Namespace(a=1), argparse.Namespace)
    assert not hasattr(torch.UntypedStorage, "__defaults__")


class _BuildOn(Built):
    """BUILD applied to a global."""

    def __init__(self, named: Global, state: object) -> None:
        super().__init__(named, state=state)


def _save_build_on(pickler: Pickler, built: _BuildOn) -> None:
    pickler.save(built.call)
    pickler.save(built.state)
    pickler.write(pickle.BUILD)


Pickler.dispatch[_BuildOn] = _save_build_on


def test_other_pickles_and_archives(tmp_path, marker):
    """Plain pickles, tar archives and broken streams are refused."""
    attack = io.BytesIO()
    Pickler(attack, 2).dump(attacks(marker)["exec"])
    for data in (
        attack.getvalue(),
        pickle.dumps(Exec("1"), protocol=4),
        pickle.dumps({"model": [1, 2]}),
        b"\x80\x02.",
        b"\x80\x02}\x80",
        b"\x80\x02cos\nsystem\n",
    ):
        path = tmp_path / "a.pth"
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="a.pth"):
            load(path)
