"""Read checkpoint files without running any code they contain.

A `.pth` file is a pickle, and unpickling can call any function. torch.load with `weights_only` allows
only PyTorch's own; here argparse.Namespace is allowed too, since official files store their
arguments in one. Anything else is refused.
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
from vmae.inference import Inference
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.names import TABLES, State, from_any

#: File names of weights in a folder, in order of preference.
FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass
class WeightFile:
    """A checkpoint with its tensors under our names.

    names       the name of each tensor in the file
    tables      stored position tables, which are checked but not loaded
    config      the model in our own config.yaml beside the weights
    inference   how a classifier is applied, from that file of a run, or from inference.yaml
    hf          the content of config.json beside the weights
    processor   that of preprocessor_config.json
    arguments   those of the training script, from official files
    """

    path: Path
    state: State
    names: dict[str, str]
    tables: State
    config: ModelConfig | None = None
    inference: Inference = field(default_factory=Inference)
    hf: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


def open_weights(path: str | Path) -> WeightFile:
    """Read a weights file, or that of a folder, and the config.yaml or config.json beside it.

    Raises CheckpointError.
    """
    path = Path(path)
    weights = path
    if path.is_dir():
        candidates = [path / name for name in FILES if (path / name).exists()]
        if not candidates:
            raise CheckpointError(
                f"{path} contains neither {' nor '.join(FILES)}: pass the path of the weights "
                "file. (An unfinished run keeps its weights in checkpoints/step-N; sharded files "
                "must be merged first)"
            )
        weights = candidates[0]
    tensors, arguments = read_tensors(weights)
    try:
        state, names = from_any(tensors)
    except ValueError as error:
        raise CheckpointError(f"{weights}: {error}") from None
    tables = {name: state.pop(name) for name in TABLES if name in state}
    file = WeightFile(weights, state, names, tables, arguments=arguments)
    if weights.name in FILES:  # files of other names may be in a folder of downloads
        file.hf = read_json(weights.parent / "config.json")
        file.processor = read_json(weights.parent / "preprocessor_config.json")
        file.config, file.inference = _own_config(weights.parent)
    return file


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path}: the file is not valid JSON: {error}") from None
    return values if isinstance(values, dict) else {}


def _own_config(folder: Path) -> tuple[ModelConfig | None, Inference]:
    """The model in the config.yaml of a run, a classifier or an export, if any; how it is applied."""
    folders = [folder]
    if folder.parent.name == "checkpoints":  # run/checkpoints/step-N
        folders.append(folder.parent.parent)
    for path in (folder / "config.yaml" for folder in folders):
        if path.exists():
            try:
                values = yaml.safe_load(path.read_text(encoding="utf-8"))
                model = ModelConfig.from_dict(values.get("model", values))
                if "data" in values:
                    return model, Inference.of_run(values)
                kept = path.with_name("inference.yaml")
                return model, Inference.from_yaml(kept) if kept.exists() else Inference()
            except (yaml.YAMLError, AttributeError, ValueError) as error:
                raise CheckpointError(f"{path}: {error}") from None
    return None, Inference()


def read_tensors(path: str | Path) -> tuple[State, dict[str, Any]]:
    """Read the tensors of a .safetensors or PyTorch file by name, and its training arguments.

    The format is detected from the content, not the file name. Wrappers (`model`, `module`,
    `state_dict`) are unwrapped. Unpickling runs no code. Raises CheckpointError.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            start = stream.read(16)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: the file does not exist") from None
    if start[8:9] == b"{":  # safetensors: the length of the header, then its JSON
        try:
            return load_file(path), {}
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} is a corrupt safetensors file ({error}): download it again"
            ) from None
    if not start.startswith((b"PK", b"\x80")):  # neither a zip archive nor a pickle
        what = "the file is empty" if not start else f"the file starts with {start!r}"
        if start.startswith(b"version https://"):
            what = "the file is a Git LFS pointer: run git lfs pull"
        elif start.lstrip().startswith(b"<"):
            what = "the file is a web page: download the weights file itself"
        raise CheckpointError(f"{path} is neither a safetensors nor a PyTorch file; {what}")
    return _unwrap(_unpickle(path), path)


def _unpickle(path: Path) -> Any:
    with safe_globals([Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # on a damaged file the reader may raise anything
            text = str(error) or type(error).__name__
        try:
            unsafe = sorted(get_unsafe_globals_in_checkpoint(path))
        except Exception:  # not a zip archive (PyTorch before 1.6): the error names only the first
            unsafe = re.findall(r"GLOBAL ([\w.]+)", text)[:1]
    if not unsafe:
        reason = text.split("WeightsUnpickler error: ")[-1].strip().split("\n")[0][:200]
        raise CheckpointError(
            f"{path} is corrupt, truncated or not a PyTorch file ({reason}): download it again"
        )
    raise CheckpointError(
        f"{path} is a pickle that refers to {', '.join(unsafe)}: loading this file could run "
        "arbitrary code, so the file was not loaded. If you trust its source, convert it first: "
        "torch.load(path, weights_only=False), then safetensors.torch.save_file on its state dict"
    )


def _unwrap(content: Any, path: Path) -> tuple[State, dict[str, Any]]:
    arguments: dict[str, Any] = {}
    for _ in range(4):
        if not isinstance(content, dict):
            raise CheckpointError(
                f"{path} contains a {type(content).__name__}, not a state dict: save "
                "model.state_dict() instead"
            )
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
        raise CheckpointError(f"{path} contains no tensors; its keys are {', '.join(others[:20])}")
    if others:
        warn(f"{path}: skipping entries that are not tensors: {', '.join(others)}")
    return tensors, arguments
