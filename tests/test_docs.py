"""Every public name has a docstring, and the examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest
from test_imports import MODULES

IMPORTABLE = [name for name in MODULES if not name.endswith("__main__")]


def own(holder, module: str):
    """The public classes and functions that `holder` defines."""
    for name, value in vars(holder).items():
        value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if name in getattr(holder, "__dataclass_fields__", ()):  # a field's default
            continue
        if name.startswith("_") or getattr(value, "__module__", None) != module:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value


def undocumented(module: str) -> list[str]:
    code = importlib.import_module(module)
    missing = [] if code.__doc__ else [module]
    for name, value in own(code, module):
        missing += [] if value.__doc__ else [name]
        for inner, method in own(value, module) if inspect.isclass(value) else ():
            # An overriding method may rely on the docstring of its base.
            inherited = any(
                getattr(getattr(base, inner, None), "__doc__", "") for base in value.__mro__[1:]
            )
            missing += [] if method.__doc__ or inherited else [f"{name}.{inner}"]
    return missing


@pytest.mark.parametrize("module", IMPORTABLE)
def test_every_public_name_is_documented(module):
    assert not undocumented(module)


def test_examples_in_docstrings_are_right():
    tried = 0
    for module in IMPORTABLE:
        result = doctest.testmod(importlib.import_module(module))
        assert not result.failed, module
        tried += result.attempted
    assert tried >= 10
