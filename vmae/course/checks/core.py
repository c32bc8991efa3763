"""How a check works: run, draw, compare, name the likely mistake, and never block anyone.

An exercise has a reference, inputs, and the mistakes that people make, each as a function that makes
it. A wrong result is compared with what each mistake gives: the one that fits is named.
"""

from __future__ import annotations

import copy
import importlib
import os
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vmae.course.progress import note_solved

#: JupyterLab breaks longer lines of output within words.
_WRAP = textwrap.TextWrapper(
    88, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
)


class CheckError(AssertionError):
    """With VMAE_STRICT=1: an exercise that is not solved."""


@dataclass(frozen=True)
class Exercise:
    """One exercise and how it is checked.

    name       "NN.function"
    reference  the right function; a learner who has not solved the exercise goes on with it
    cases      arguments of each call, from a seeded generator; never zeros, ones or one shape alone
    mistakes   by what is said of it: a function that makes it
    judge      for functions that draw at random: what is wrong with one, or None. `cases` is then
               not used
    draw       shows the learner's result for the first case, whether it is right or not
    tolerance  relative and absolute, of floating-point results
    """

    name: str
    reference: Callable[..., Any]
    cases: Callable[[torch.Generator], Sequence[tuple[Any, ...]]] = lambda _: ()
    mistakes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    judge: Callable[[Callable[..., Any]], str | None] | None = None
    draw: Callable[..., None] | None = None
    tolerance: float = 1e-4


def notebooks() -> list[str]:
    """Numbers of the notebooks that have exercises: "02", ..."""
    return sorted(path.stem.split("_")[1] for path in Path(__file__).parent.glob("notebook_*.py"))


def exercises(notebook: str) -> dict[str, Exercise]:
    """The exercises of notebook "NN", by name."""
    module = importlib.import_module(f"vmae.course.checks.notebook_{notebook}")
    return {exercise.name: exercise for exercise in module.EXERCISES}


def check(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a learner's function; returns it if it passes, else the package's, and says so.

    With VMAE_STRICT=1 anything but a pass raises CheckError. Raises KeyError for an unknown name.
    """
    exercise = exercises(name.split(".")[0])[name]
    try:
        wrong = verdict(exercise, function)
    except NotImplementedError:
        return _go_on(exercise, "not attempted yet")
    if wrong is not None:
        return _go_on(exercise, f"not right yet: {wrong}")
    print(f"✓ {name}: passed")
    if not _strict():
        note_solved(name)
    return function


def verdict(exercise: Exercise, function: Callable[..., Any]) -> str | None:
    """What is wrong with a function and why that may be; None where it is right.

    Raises NotImplementedError where there is nothing to check.
    """
    if exercise.judge is not None:
        said, error = _called(exercise.judge, function)
        return said or error
    for number, case in enumerate(exercise.cases(torch.Generator().manual_seed(0))):
        given = copy.deepcopy(case)
        result, error = _called(function, *given)
        if error is not None:
            return error
        if number == 0 and exercise.draw is not None:
            with suppress(Exception):  # a wrong result may be impossible to draw
                exercise.draw(result, *case)
        expected = exercise.reference(*copy.deepcopy(case))
        problem = difference(result, expected, exercise.tolerance)
        if problem is not None:
            return _likely(exercise, case, result) or problem
        if difference(given, case, 0.0) is not None:
            return "it changes its arguments: work on a copy, since the caller still needs them"
    return None


def _likely(exercise: Exercise, case: tuple[Any, ...], result: Any) -> str | None:
    """The mistake that gives the same result."""
    for message, mistaken in exercise.mistakes.items():
        with suppress(Exception):  # a mistake may be impossible with these arguments
            if difference(result, mistaken(*copy.deepcopy(case)), exercise.tolerance) is None:
                return message
    return None


def _called(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """The result of a call, or what it raised and where."""
    try:
        return function(*arguments), None
    except NotImplementedError:
        raise
    except Exception as error:  # whatever a learner's code may raise
        frames = traceback.extract_tb(error.__traceback__)[1:]
        own = [f for f in frames if "site-packages" not in f.filename] or frames
        where = f", at `{own[-1].line}`" if own and own[-1].line else ""
        return None, f"it raises {type(error).__name__}: {error}{where}"


def difference(result: Any, expected: Any, tolerance: float) -> str | None:
    """How a result differs from what is expected, in words; None where it does not."""
    if result is None and expected is not None:
        return "it returns None: is the `return` missing?"
    if isinstance(expected, torch.Tensor | np.ndarray):
        return _array_difference(result, expected, tolerance)
    if is_dataclass(expected) and type(result) is type(expected):
        pairs = [
            (f.name, getattr(result, f.name), getattr(expected, f.name)) for f in fields(expected)
        ]
        return _first_difference(pairs, tolerance)
    if isinstance(expected, tuple | list):
        if not isinstance(result, tuple | list) or len(result) != len(expected):
            count = f"{len(result)}" if isinstance(result, tuple | list) else "one"
            return f"it returns {count} value(s); {len(expected)} are expected"
        named = [
            (f"value {i + 1}", *pair) for i, pair in enumerate(zip(result, expected, strict=True))
        ]
        return _first_difference(named, tolerance)
    if isinstance(expected, float) and isinstance(result, int | float | torch.Tensor):
        close = abs(float(result) - expected) <= tolerance * max(1.0, abs(expected))
        return None if close else f"it returns {float(result):.6g}; {expected:.6g} is expected"
    same = bool(result == expected)
    return None if same else f"it returns {result!r}; {expected!r} is expected"


def _first_difference(pairs: Sequence[tuple[str, Any, Any]], tolerance: float) -> str | None:
    for name, result, expected in pairs:
        problem = difference(result, expected, tolerance)
        if problem is not None:
            return f"{name}: {problem}"
    return None


def _array_difference(
    result: Any, expected: torch.Tensor | np.ndarray, tolerance: float
) -> str | None:
    kind = type(expected)
    if not isinstance(result, kind):
        return f"it returns {type(result).__name__}; {kind.__name__} is expected"
    if tuple(result.shape) != tuple(expected.shape):
        return f"its shape is {tuple(result.shape)}; {tuple(expected.shape)} is expected"
    ours, right = torch.as_tensor(result).detach(), torch.as_tensor(expected).detach()
    if ours.is_floating_point() != right.is_floating_point() or (ours.dtype == torch.bool) != (
        right.dtype == torch.bool
    ):
        return f"its type is {result.dtype}; {expected.dtype} is expected"
    if ours.is_floating_point() and not ours.isfinite().all() and right.isfinite().all():
        return (
            "it holds values that are not finite: a division by zero, or a root of less than zero?"
        )
    apart = (ours.double() - right.double()).abs()
    allowed = tolerance * right.double().abs().clamp(min=1.0)
    if (apart <= allowed).all():
        return None
    place = np.unravel_index(int((apart - allowed).argmax()), tuple(apart.shape))
    share = 100 * (apart > allowed).double().mean().item()
    return (
        f"the shape is right, and {share:.0f} % of the values are not: at {tuple(map(int, place))} it has "
        f"{ours[place].item():.4g}, and {right[place].item():.4g} is expected"
    )


def _go_on(exercise: Exercise, text: str) -> Callable[..., Any]:
    if _strict():
        raise CheckError(f"{exercise.name}: {text}")
    mark = "·" if text.startswith("not attempted") else "✗"
    for line in f"{mark} {exercise.name}: {text}".splitlines():
        print(_WRAP.fill(line))
    print(f"  The notebook goes on with the package's `{exercise.reference.__name__}`.")
    return exercise.reference


def _strict() -> bool:
    return os.environ.get("VMAE_STRICT", "") not in ("", "0")
