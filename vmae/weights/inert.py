"""An unpickler that builds tensors and plain containers, and neither imports nor calls anything else.

Training files pickle more than weights: NumPy scalars in the optimizer, paths in the arguments,
message hubs. Nothing of that is needed. Every name in a pickle other than the few listed in
`_KNOWN` becomes `Inert`, which accepts whatever is done to it and does nothing.

This is the restricted unpickler of Python's manual ("Restricting Globals"): a pickle can only call
what `find_class` returns. torch.load with `weights_only=True` works the same way, but it refuses
unknown names, names allowed there are allowed in all threads, and it cannot fill a subclass of dict
or list. torch.load takes this module as its `pickle_module`.
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from typing import Any

import torch


class _Sealed:
    """A class that a pickle may call, but whose attributes it cannot set.

    A pickle can "restore the state" of anything it holds, including of a class or a function, and so
    change it for every later file, unless it has this method.
    """

    @staticmethod
    def __setstate__(*_: Any) -> None: ...


class _Named(type):
    name: str

    def __setitem__(cls, *_: Any) -> None: ...

    def __repr__(cls) -> str:
        return cls.name


class Inert(_Sealed, metaclass=_Named):
    """Stands for a global of a pickle, for what calling that gives, and for what calling that gives.

    name   the global, with its module
    """

    name = "object"
    # torch.load asks these of untyped storages, and of modules in files of PyTorch before 1.6
    dtype, dump_patches = torch.uint8, False

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return cls

    @staticmethod
    def append(*_: Any) -> None:
        """Take the items of a list, deque or set, and keep none."""

    extend = add = append


class _Dict(_Sealed, dict[Any, Any]):
    """For OrderedDict, defaultdict and Counter: the items, without a factory or attributes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*(given for given in arguments if isinstance(given, dict | list)))


class _Arguments(Namespace):
    """For argparse.Namespace, in which official files store their training arguments."""

    def __setstate__(self, state: Any = None) -> None:
        # Restoring the state of the class, not of an instance, passes the state as `self`.
        if isinstance(self, _Arguments) and isinstance(state, dict):
            vars(self).update(state)


class _Tensor(_Sealed):
    """For torch._utils._rebuild_tensor and _v2; gradients, hooks and metadata are dropped."""

    def __new__(cls, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        return torch._utils._rebuild_tensor(storage, offset, size, stride)


class _Parameter(_Sealed):
    """For torch._utils._rebuild_parameter and _with_state: the tensor alone."""

    def __new__(cls, tensor: Any, *_: Any) -> Any:
        return tensor


class _Typed(_Sealed):
    """For torch._tensor._rebuild_from_type_v2: a tensor with attributes or of a subclass."""

    def __new__(cls, rebuild: Any, _: Any, arguments: Any, *__: Any) -> Any:
        return rebuild(*arguments)  # a pickle could make this call itself


_KNOWN: dict[str, Any] = {
    "argparse.Namespace": _Arguments,
    "collections.Counter": _Dict,
    "collections.OrderedDict": _Dict,
    "collections.defaultdict": _Dict,
    "torch._tensor._rebuild_from_type_v2": _Typed,
    "torch._utils._rebuild_parameter": _Parameter,
    "torch._utils._rebuild_parameter_with_state": _Parameter,
    "torch._utils._rebuild_tensor": _Tensor,
    "torch._utils._rebuild_tensor_v2": _Tensor,
}


def is_inert(value: Any) -> bool:
    """Whether a value read from a file stands for an object that was not built."""
    return isinstance(value, _Named)


class Unpickler(pickle.Unpickler):
    """Reads a pickle; the storages of tensors are torch.load's part."""

    def find_class(self, module: str, name: str, /) -> Any:
        """What a name in the file stands for; nothing is imported."""
        full = f"{module}.{name}"
        return _KNOWN.get(full) or _Named("Inert", (Inert,), {"name": full})


def load(file: Any, **options: Any) -> Any:
    """Like pickle.load, restricted as above."""
    return Unpickler(file, **options).load()
