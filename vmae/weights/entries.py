"""Find a model's weights among everything that a trainer stores beside them."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from vmae.weights.errors import CheckpointError, warn
from vmae.weights.inert import is_inert
from vmae.weights.names import State

#: Entries under which trainers store the weights, in order of preference.
RAW = ("model", "module", "state_dict", "model_state_dict", "model_state", "net", "network")
# model_ema, ema, state_dict_ema, ...: their average over training, beside the weights themselves
_EMA = re.compile(r"(^|_)ema(_|$)", re.IGNORECASE)


def find_weights(
    content: Any, path: Path, state_key: str | None = None
) -> tuple[State, dict[str, Any]]:
    """The state dict in what a file contains, by default the raw weights, and training arguments.

    state_key   the entry to take instead, or the prefix of names in a flat state dict; "a.b" is
                the entry b of the entry a

    Warns if there were several to choose from. Raises CheckpointError.
    """
    arguments: dict[str, Any] = {}
    top, content, path_to = content, _dict(content, path), list[str]()
    while len(path_to) < 8:
        given = content.get("args")
        arguments |= vars(given) if isinstance(given, Namespace) else {}
        arguments |= given if isinstance(given, dict) else {}
        key, rest = _step(content, state_key)
        if key is None:
            key, rest = _entry(content, path, state_key), state_key
        if key is None:
            break
        content, state_key = _dict(content[key], path, key), rest
        path_to.append(key)
    tensors, others = _tensors(content)
    tensors = _one_model(tensors, path, state_key, top)
    if not tensors:
        inside = [str(key) for key, value in content.items() if _holds_tensors(value)]
        where = ".".join([*path_to, *inside[:1]])
        hint = f": pass state_key={where!r} if these are the weights" if inside else ""
        raise CheckpointError(
            f"{path} contains no tensors; its keys are {', '.join(_described(content))}{hint}"
        )
    counters = [name for name in others if isinstance(content.get(name), torch.Tensor)]
    for kind, names in (
        ("entries that are not tensors", [name for name in others if name not in counters]),
        ("counters", counters),
    ):
        if names:
            warn(f"{path}: skipping {kind}: {', '.join(names)}")
    return tensors, arguments


def _dict(value: Any, path: Path, key: str | None = None) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    where = f"{path}: its entry {key!r} is" if key else f"{path} contains"
    raise CheckpointError(
        f"{where} {_kind(value)}, not a state dict: save model.state_dict() instead"
    )


def _step(content: dict[Any, Any], state_key: str | None) -> tuple[str | None, str | None]:
    """The key to follow for `state_key`, which may be a path such as "run.model", and the rest."""
    if state_key is None or state_key in content:
        return state_key, None
    key, _, rest = state_key.partition(".")
    return (key, rest) if rest and key in content else (None, state_key)


def _entry(content: dict[Any, Any], path: Path, state_key: str | None) -> str | None:
    """The key of the entry that holds the weights; None if the tensors are in `content` itself."""
    keys = [key for key in RAW if key in content]
    keys += [key for key in content if isinstance(key, str) and _EMA.search(key)]
    found = [key for key in keys if _holds_tensors(content[key])]
    objects = [key for key in keys if key in RAW and is_inert(content[key])]
    if objects and not any(key in RAW for key in found):
        others = f", or pass state_key={found[0]!r} to load that entry" if found else ""
        raise CheckpointError(
            f"{path}: its entry {objects[0]!r} is {_kind(content[objects[0]])}, not a state dict: "
            f"save model.state_dict() instead{others}"
        )
    if len(found) > 1 and state_key is None:
        others = " or ".join(f"state_key={key!r}" for key in found[1:])
        warn(
            f"{path} contains several sets of weights; took {found[0]!r}: pass {others} for another"
        )
    if not found and not _holds_tensors(content):  # for a message about what is there instead
        found = [key for key in keys if isinstance(content[key], dict)]
    return found[0] if found else None


def _one_model(tensors: State, path: Path, state_key: str | None, top: Any) -> State:
    """The parameters of one model where names tell several apart: "model.x" and "model_ema.x"."""
    if state_key is not None:
        start = f"{state_key}."
        chosen = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
        if not chosen:
            keys = list(top) if isinstance(top, dict) else []
            if len(keys) == len(tensors):
                keys = list(dict.fromkeys(name.partition(".")[0] for name in tensors))
            raise CheckpointError(
                f"{path} has no entry {state_key!r}; its keys are "
                f"{', '.join(_described({key: top.get(key) for key in keys}))}"
            )
        return chosen
    groups = dict.fromkeys(name.partition(".")[0] for name in tensors if "." in name)
    averages = [group for group in groups if _EMA.search(group)]
    starts = tuple(f"{group}." for group in averages)
    raw = {name: tensor for name, tensor in tensors.items() if not name.startswith(starts)}
    if not averages:
        return tensors
    if not raw:
        return {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    others = " or ".join(f"state_key={group!r}" for group in averages)
    warn(
        f"{path} contains several sets of weights; took those without the prefix "
        f"{' or '.join(starts)}: pass {others} for another"
    )
    return raw


def _tensors(content: dict[Any, Any]) -> tuple[State, list[str]]:
    """The parameters by name, and the names of all else. A tensor without axes is a counter."""
    tensors = {
        str(key): value
        for key, value in content.items()
        if isinstance(value, torch.Tensor) and value.ndim
    }
    return tensors, sorted(str(key) for key in content if str(key) not in tensors)


def _holds_tensors(value: Any, depth: int = 3) -> bool:
    return isinstance(value, dict) and any(
        isinstance(item, torch.Tensor) or (depth > 0 and _holds_tensors(item, depth - 1))
        for item in value.values()
    )


def _described(content: dict[Any, Any]) -> list[str]:
    """The first keys, with what was found there where it is an object."""
    return [
        f"{key} ({value.name})" if is_inert(value) else str(key)
        for key, value in sorted(content.items(), key=lambda item: str(item[0]))[:20]
    ]


def _kind(value: Any) -> str:
    kind = f"{value.name} object" if is_inert(value) else type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
