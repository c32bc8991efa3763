"""Checkpoint files, opened without running anything that is in them.

A `.pth` file is a pickle, and a pickle may call any function when it is read. torch.load with
`weights_only` calls none but PyTorch's own; here it may also make an argparse.Namespace, where the
official files keep their arguments. Whatever asks for more is refused.
"""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from vmae.config import ModelConfig
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.names import TABLES, State, from_any

#: Weights in a folder, in the order in which they are looked for.
FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass
class WeightFile:
    """A checkpoint under our names.

    names       the file's own name of each tensor
    tables      stored positions, which are not loaded
    config      of our own config.yaml beside the weights
    hf          config.json beside the weights
    arguments   of the training script, in official files
    """

    path: Path
    state: State
    names: dict[str, str]
    tables: State
    config: ModelConfig | None = None
    hf: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


def open_weights(path: str | Path) -> WeightFile:
    """Read a weights file, or a folder's, and the config.yaml or config.json beside it."""
    path = Path(path)
    weights = path
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).exists()]
        if not found:
            raise CheckpointError(
                f"{path} has neither {' nor '.join(FILES)}: give the file. (A run that has not "
                "ended keeps its weights in checkpoints/step-N; sharded files must be merged first)"
            )
        weights = found[0]
    tensors, arguments = read_tensors(weights)
    try:
        state, names = from_any(tensors)
    except ValueError as error:
        raise CheckpointError(f"{weights}: {error}") from None
    tables = {name: state.pop(name) for name in TABLES if name in state}
    file = WeightFile(weights, state, names, tables, arguments=arguments)
    if weights.name in FILES:  # any other name may lie in a folder of downloads
        file.hf = read_json(weights.parent / "config.json")
        file.config = _own_config(weights.parent)
    return file


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty where there is no such file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    return values if isinstance(values, dict) else {}


def _own_config(folder: Path) -> ModelConfig | None:
    """The model of the config.yaml of a run, a classifier or an export, if there is one."""
    places = [folder]
    if folder.parent.name == "checkpoints":  # run/checkpoints/step-N
        places.append(folder.parent.parent)
    for place in places:
        if (place / "config.yaml").exists():
            try:
                values = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
                model = values.get("model", values)
                return ModelConfig.from_dict(model)
            except (yaml.YAMLError, AttributeError, ValueError) as error:
                raise CheckpointError(f"{place / 'config.yaml'}: {error}") from None
    return None


def read_tensors(path: str | Path) -> tuple[State, dict[str, Any]]:
    """The tensors of a .safetensors or PyTorch file by name, and its training arguments.

    The format is told by the content. Wrappers (`model`, `module`, `state_dict`) are opened. A
    pickle is read without running code: besides tensors it may hold argparse.Namespace, where
    the official files keep their arguments. Raises CheckpointError.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            start = stream.read(16)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    if start[8:9] == b"{":  # the length of the header, then its JSON
        try:
            return load_file(path), {}
        except SafetensorError as error:
            raise CheckpointError(f"{path} is a damaged safetensors file ({error})") from None
    if not start.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle
        what = "it is empty" if not start else f"it begins with {start!r}"
        if start.startswith(b"version https://"):
            what = "it is a git-lfs pointer: run git lfs pull"
        elif start.lstrip().startswith(b"<"):
            what = "it is a web page: fetch the file itself"
        raise CheckpointError(f"{path} is neither a safetensors nor a PyTorch file; {what}")
    return _unwrap(_unpickle(path), path)


def _unpickle(path: Path) -> Any:
    with safe_globals([Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file makes the reader raise whatever it likes
            text = str(error) or type(error).__name__
        try:
            found = sorted(get_unsafe_globals_in_checkpoint(path))
        except Exception:  # no zip archive (PyTorch before 1.6): only the first one is known
            found = re.findall(r"GLOBAL ([\w.]+)", text)[:1]
    if not found:
        reason = text.split("WeightsUnpickler error: ")[-1].strip().split("\n")[0][:200]
        raise CheckpointError(
            f"{path} is damaged or truncated, or no PyTorch file ({reason}): fetch it again"
        )
    raise CheckpointError(
        f"{path} is a pickle that names {', '.join(found)}: reading it would run code that came with "
        "the file, so it is refused. Convert it on a machine you trust: torch.load(path, "
        "weights_only=False), then safetensors.torch.save_file of its state dict"
    )


def _unwrap(content: Any, path: Path) -> tuple[State, dict[str, Any]]:
    arguments: dict[str, Any] = {}
    for _ in range(4):
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds a {type(content).__name__}, no state dict")
        if isinstance(content.get("args"), Namespace):
            arguments = dict(vars(content["args"]))
        wrapped = (content.get(key) for key in ("model", "module", "state_dict"))
        inner = next((value for value in wrapped if isinstance(value, dict)), None)
        if inner is None:
            break
        content = inner
    tensors = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
    others = sorted(str(k) for k in content if str(k) not in tensors)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; its keys are {', '.join(others[:20])}")
    if others:
        warn(f"{path}: what is not a tensor is left out: {', '.join(others)}")
    return tensors, arguments
