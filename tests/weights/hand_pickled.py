"""Pickles that name any class or function, installed or not, written opcode by opcode."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch


@dataclass(eq=False)
class Global:
    """A name as a pickle stores it: nothing of this name has to exist here."""

    module: str
    name: str


@dataclass(eq=False)
class Built:
    """What calling a global with `args` gives (with `new`, its __new__), then items, pairs, state."""

    call: Any
    args: tuple[Any, ...] = ()
    state: Any = None
    items: Sequence[Any] = ()
    pairs: Sequence[tuple[Any, Any]] = ()
    new: bool = False


class Pickler(pickle._Pickler):
    """Python's pickler in Python, which also writes Globals and Builts."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_named(self, named: Global) -> None:
        self.write(pickle.GLOBAL + f"{named.module}\n{named.name}\n".encode())
        self.memoize(named)

    def save_built(self, built: Built) -> None:
        self.save(built.call)
        self.save(built.args)
        self.write(pickle.NEWOBJ if built.new else pickle.REDUCE)
        self.memoize(built)
        for values, opcode in (
            (built.items, pickle.APPENDS),
            ([value for pair in built.pairs for value in pair], pickle.SETITEMS),
        ):
            if values:
                self.write(pickle.MARK)
                for value in values:
                    self.save(value)
                self.write(opcode)
        if built.state is not None:
            self.save(built.state)
            self.write(pickle.BUILD)

    dispatch[Global] = save_named
    dispatch[Built] = save_built


def write(path: Path, content: Any, zipped: bool = True, protocol: int = 2) -> Path:
    """torch.save, for content with Globals and Builts in it."""
    module = SimpleNamespace(Pickler=Pickler, dump=pickle.dump, __name__="hand_pickled")
    torch.save(content, path, module, protocol, zipped)
    return path


def scalar(value: bytes, core: str = "numpy._core") -> Built:
    """A numpy float64, as numpy 2 ("numpy._core") or 1 ("numpy.core") pickles it."""
    dtype = Built(
        Global("numpy", "dtype"),
        ("f8", False, True),
        state=(3, "<", None, None, None, -1, -1, 0),
    )
    raw = Built(Global("_codecs", "encode"), (value.decode("latin1"), "latin1"))
    return Built(Global(f"{core}.multiarray", "scalar"), (dtype, raw))


def array(core: str = "numpy._core") -> Built:
    """A numpy array."""
    start = (Global("numpy", "ndarray"), (0,), Built(Global("_codecs", "encode"), ("b", "latin1")))
    return Built(
        Global(f"{core}.multiarray", "_reconstruct"),
        start,
        state=(1, (3,), Global("numpy", "dtype"), False, b"123"),
    )


def posix_path(module: str, *parts: str) -> Built:
    """A PosixPath, as submitit leaves it in MAE's arguments; Python 3.13 renamed its module."""
    return Built(Global(module, "PosixPath"), parts)
