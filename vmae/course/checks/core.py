"""How a check works: run, draw, compare, name the likely mistake, and never block the learner.

An exercise has a reference solution, inputs and a list of common mistakes, each implemented as a
function. A wrong result is compared with the output of each mistake; the one that matches is named.
"""

from __future__ import annotations

import copy
import importlib
import os
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from vmae.course.progress import note_solved

#: Frames of the package itself, in a traceback.
_PACKAGE = f"{Path(__file__).resolve().parents[2]}{os.sep}"

#: Those of the checks, which call the learner's code and use what it returns.
_CHECKS = f"{Path(__file__).resolve().parent}{os.sep}"

#: JupyterLab breaks longer output lines mid-word.
_WRAP = textwrap.TextWrapper(
    88, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
)


class CheckError(AssertionError):
    """An unsolved exercise, if VMAE_STRICT=1."""


@dataclass(frozen=True)
class Exercise:
    """One exercise and how it is checked.

    name       "NN.function"
    reference  the correct function or class; learners who have not solved the exercise continue with it
    cases      the arguments of each call, from a seeded generator; never all zeros, all ones or a
               single shape, and no two axes of one size
    mistakes   {message: a function that makes the mistake}
    judge      for functions that sample at random: returns what is wrong with one, or None; `cases`
               is then unused
    draw       shows the learner's result for the first case, right or wrong
    tolerance  for floating-point results, relative and absolute
    inspect    what is wrong with an answer before it is called, or None
    run        how an answer is called with the arguments of a case, if not directly: a training loop
               needs a model, a class must be constructed
    """

    name: str
    reference: Callable[..., Any]
    cases: Callable[[torch.Generator], Sequence[tuple[Any, ...]]] = lambda _: ()
    mistakes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    judge: Callable[[Callable[..., Any]], str | None] | None = None
    draw: Callable[..., None] | None = None
    tolerance: float = 1e-4
    inspect: Callable[[Any], str | None] | None = None
    run: Callable[..., Any] = lambda answer, *case: answer(*case)


def notebooks() -> list[str]:
    """Numbers of the notebooks with exercises: "02", ..."""
    return sorted(path.stem.split("_")[1] for path in Path(__file__).parent.glob("notebook_*.py"))


def exercises(notebook: str) -> dict[str, Exercise]:
    """The exercises of notebook "NN", by name."""
    module = importlib.import_module(f"vmae.course.checks.notebook_{notebook}")
    return {exercise.name: exercise for exercise in module.EXERCISES}


def check(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a learner's function and print the outcome; returns it if it passes, else the package's.

    With VMAE_STRICT=1, raises CheckError unless the function passes. Raises KeyError if there is no
    exercise of this name.
    """
    exercise = exercises(name.split(".")[0])[name]
    try:
        wrong = verdict(exercise, function)
    except NotImplementedError:
        return _continue_with_reference(exercise, "not attempted yet")
    if wrong is not None:
        return _continue_with_reference(exercise, f"not right yet: {wrong}")
    print(f"✓ {name}: passed")
    if not _strict():
        note_solved(name)
    return function


def verdict(exercise: Exercise, function: Callable[..., Any]) -> str | None:
    """What is wrong with a function, and the likely cause; None if it is right.

    Raises NotImplementedError if the function is still unwritten.
    """
    for look in (exercise.inspect, exercise.judge):
        if look is not None:
            problem, error = _called(look, function)
            if problem or error or look is exercise.judge:
                return problem or error
    for number, case in enumerate(exercise.cases(torch.Generator().manual_seed(0))):
        given = copy.deepcopy(case)
        result, error = _called(exercise.run, function, *given)
        if error is not None:
            return error
        if number == 0 and exercise.draw is not None:
            with suppress(Exception):  # a wrong result cannot always be drawn
                exercise.draw(result, *case)
        expected = exercise.run(exercise.reference, *copy.deepcopy(case))
        problem = difference(result, expected, exercise.tolerance)
        if problem is not None:
            return _likely(exercise, case, result) or problem
        if difference(given, case, 0.0) is not None:
            return "it modifies its arguments in place: work on a copy, since the caller still needs them"
    return None


def _likely(exercise: Exercise, case: tuple[Any, ...], result: Any) -> str | None:
    """The message of the mistake that gives the same result."""
    for message, mistaken in exercise.mistakes.items():
        with suppress(Exception):  # not every mistake runs on every case
            expected = exercise.run(mistaken, *copy.deepcopy(case))
            if difference(result, expected, exercise.tolerance) is None:
                return message
    return None


def _called(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """The result of a call, or the exception it raised and the learner's line."""
    try:
        return function(*arguments), None
    except Exception as error:  # a learner's code may raise anything
        if isinstance(error, NotImplementedError) and not error.args:
            raise  # a stub; PyTorch's own, on a dtype that it does not support, has a text
        return None, f"it raises {type(error).__name__}: {error}{_where(error)}"


def _where(error: Exception) -> str:
    """The learner's line that led to an exception; what it called in the package, if that raised it.

    A line of the package is never quoted: it is not the learner's, and not where the mistake is.
    """
    walked = list(traceback.walk_tb(error.__traceback__))[1:]
    lines = traceback.extract_tb(error.__traceback__)[1:]
    frames = [frame for frame, _ in walked]
    names = [line.filename for line in lines]
    written = [i for i, name in enumerate(names) if "site-packages" not in name]
    theirs = [i for i in written if not names[i].startswith(_PACKAGE)]
    # of the cell that is checked, not of earlier ones that it calls: those have passed
    own = next((i for i in reversed(theirs) if names[i] == names[theirs[0]]), -1)
    called = [i for i in written if i > own and not names[i].startswith(_CHECKS)]
    if own >= 0:
        quoted = f", at `{lines[own].line}`" if lines[own].line else ""
        inside = called and names[called[-1]].startswith(_PACKAGE)
        return quoted + (f"; it calls {_call(frames[called[0]])}" if inside else "")
    if called:
        return f", in {_call(frames[called[-1]])}, which gets what your code returned or stored"
    return ""


def _call(frame: FrameType) -> str:
    """A function of the package, and its arguments: tensors by their shapes."""
    code = frame.f_code
    names = [n for n in code.co_varnames[: code.co_argcount] if n in frame.f_locals]
    known = [f"{n} {_brief(frame.f_locals[n])}" for n in names if n != "self" and n[0] != "."]
    return f"`{code.co_qualname}`" + (f" (where {', '.join(known)})" if known else "")


def _brief(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, torch.Tensor | np.ndarray):
        shape = f"has shape {tuple(value.shape)}"
        whole = isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.numel()
        return f"{shape} and values {value.min()} to {value.max()}" if whole else shape
    plain = value is None or isinstance(value, bool | int | float | str | tuple)
    text = repr(value) if plain else ""
    return f"is {text}" if 0 < len(text) <= 30 else f"is of type {type(value).__name__}"


def difference(result: Any, expected: Any, tolerance: float) -> str | None:
    """A sentence on how a result differs from the expected one; None if it does not."""
    if result is None and expected is not None:
        return "the result is None: is the `return` missing?"
    if isinstance(expected, torch.Tensor | np.ndarray):
        return _array_difference(result, expected, tolerance)
    if is_dataclass(expected):
        if type(result) is not type(expected):
            kinds = type(result).__name__, type(expected).__name__
            return f"the result is of type {kinds[0]}; expected {kinds[1]}"
        pairs = [
            (f.name, getattr(result, f.name), getattr(expected, f.name)) for f in fields(expected)
        ]
        return _first_difference(pairs, tolerance)
    if isinstance(expected, tuple | list):
        if isinstance(result, set | dict | str | Iterator):
            kinds = type(result).__name__, type(expected).__name__
            return f"the result is of type {kinds[0]}; expected {kinds[1]}"
        if not isinstance(result, tuple | list) or len(result) != len(expected):
            count = len(result) if isinstance(result, tuple | list) else 1
            return f"got {_values(count)}; expected {_values(len(expected))}"
        named = [
            (f"value {i + 1}", *pair) for i, pair in enumerate(zip(result, expected, strict=True))
        ]
        return _first_difference(named, tolerance)
    if isinstance(expected, dict) and isinstance(result, dict):
        missing = [
            f"{key}: there is none"
            for key, value in expected.items()
            if value is not None and result.get(key) is None
        ]
        extra = [f"{key}: there must be none" for key in result if key not in expected]
        pairs = [(key, result.get(key), value) for key, value in expected.items()]
        return next(iter(missing + extra), None) or _first_difference(pairs, tolerance)
    if isinstance(expected, float) and isinstance(result, int | float | torch.Tensor):
        close = abs(float(result) - expected) <= tolerance * max(1.0, abs(expected))
        return None if close else f"got {float(result):.6g}; expected {expected:.6g}"
    same = bool(result == expected)
    return None if same else f"got {result!r}; expected {expected!r}"


def _values(count: int) -> str:
    return f"{count} value" if count == 1 else f"{count} values"


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
        return f"the result is of type {type(result).__name__}; expected {kind.__name__}"
    if tuple(result.shape) != tuple(expected.shape):
        return f"the shape is {tuple(result.shape)}; expected {tuple(expected.shape)}"
    actual, right = torch.as_tensor(result).detach(), torch.as_tensor(expected).detach()
    if actual.dtype != right.dtype:
        return f"the dtype is {result.dtype}; expected {expected.dtype}"
    if actual.is_floating_point() and not actual.isfinite().all() and right.isfinite().all():
        return (
            "the result contains NaN or infinite values: look for a division by zero or the square "
            "root of a negative number"
        )
    apart = (actual.double() - right.double()).abs()
    allowed = tolerance * right.double().abs().clamp(min=1.0)
    if (apart <= allowed).all():
        return None
    if not actual.ndim:
        return _unequal(actual.item(), right.item())
    place = np.unravel_index(int((apart - allowed).argmax()), tuple(apart.shape))
    index = tuple(map(int, place))
    share = 100 * (apart > allowed).double().mean().item()
    return (
        f"the shape is correct, but {share:.0f} % of the values are wrong: at index {index}, "
        f"{_unequal(actual[place].item(), right[place].item())}"
    )


def _unequal(result: float, expected: float) -> str:
    """Both numbers, with as many digits as show that they differ."""
    digits = next((n for n in range(4, 9) if f"{result:.{n}g}" != f"{expected:.{n}g}"), 9)
    return f"got {result:.{digits}g}; expected {expected:.{digits}g}"


def _continue_with_reference(exercise: Exercise, text: str) -> Callable[..., Any]:
    if _strict():
        raise CheckError(f"{exercise.name}: {text}")
    mark = "·" if text.startswith("not attempted") else "✗"
    for line in f"{mark} {exercise.name}: {text}".splitlines():
        print(_WRAP.fill(line))
    print(f"  The notebook continues with the package's `{exercise.reference.__name__}`.")
    return exercise.reference


def _strict() -> bool:
    return os.environ.get("VMAE_STRICT", "") not in ("", "0")
