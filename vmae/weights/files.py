"""Read checkpoint files without running any code they contain.

A `.pth` file is a pickle, and unpickling can call any function. Here it builds tensors and plain
containers only; every other object in the file is skipped (`vmae.weights.inert`).
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint

from vmae.config import ModelConfig
from vmae.inference import Inference
from vmae.support.near import near
from vmae.weights import inert
from vmae.weights.entries import find_weights
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.names import TABLES, State, from_any

#: File names of weights in a folder, in order of preference. An index lists the shards beside it.
FILES = (
    "model.safetensors", "model.safetensors.index.json",
    "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
#: What a detector of mmaction2 has beside its backbone.
_DETECTOR = ("roi_head.", "rpn_head.", "neck.")


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


def open_weights(path: str | Path, state_key: str | None = None) -> WeightFile:
    """Read a weights file, or that of a folder, and the config.yaml or config.json beside it.

    `state_key` is that of `load`. Raises CheckpointError.
    """
    path = Path(path)
    weights = path
    if path.is_dir():
        candidates = [path / name for name in FILES if (path / name).exists()]
        if not candidates:
            steps = sorted((path / "checkpoints").glob("step-*"))
            instead = (
                f"the newest checkpoint of this run, {steps[-1]}" if steps else "the weights file"
            )
            raise CheckpointError(
                f"{path} contains neither {FILES[0]} nor {FILES[2]}, whole or sharded: pass {instead}"
            )
        weights = candidates[0]
    read = _read_shards if weights.name.endswith(".index.json") else read_tensors
    tensors, arguments = read(weights, state_key)
    _keep_backbone(tensors, weights)
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


def _read_shards(index: Path, state_key: str | None) -> tuple[State, dict[str, Any]]:
    """Read the tensors of all files listed in an index of transformers."""
    if not index.exists():
        raise CheckpointError(f"{index}: the file does not exist")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map: download it again")
    for shard in weight_map.values():
        # Only plain names: a path could lead anywhere, and no library writes one.
        if not isinstance(shard, str) or {"/", "\\", ":"} & set(shard):
            raise CheckpointError(
                f"{index} names the shard {shard!r}, but shards must be in the folder of the "
                "index: download it again"
            )
    tensors: State = {}
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        path = index.parent / shard
        if not path.is_file():
            raise CheckpointError(
                f"{path}, listed in {index.name}, does not exist: download all {len(shards)} shards"
            )
        part = read_tensors(path)[0]
        lacking = [name for name, at in weight_map.items() if at == shard and name not in part]
        if lacking:
            raise CheckpointError(
                f"{path} lacks {', '.join(lacking[:5])}, which {index.name} lists there: download "
                "both again"
            )
        tensors |= part
    return find_weights(tensors, index, state_key)


def _keep_backbone(tensors: State, path: Path) -> None:
    """Drop what a detector has beside its backbone, with a warning."""
    dropped = [name for name in tensors if name.startswith(_DETECTOR)]
    if not dropped or not any(name.startswith("backbone.") for name in tensors):
        return
    for name in dropped:
        del tensors[name]
    parts = dict.fromkeys(".".join(name.split(".")[:2]) + ".*" for name in dropped)
    warn(f"{path} is a detector; took its backbone and dropped {', '.join(parts)}")


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


def read_tensors(path: str | Path, state_key: str | None = None) -> tuple[State, dict[str, Any]]:
    """Read the tensors of a .safetensors or PyTorch file by name, and its training arguments.

    The format is detected from the content, not the file name. Unpickling runs no code.
    `state_key` is that of `load`. Raises CheckpointError.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            start = stream.read(16)
    except FileNotFoundError:
        hub = "" if path.suffix else ". (A model on the Hugging Face hub is OWNER/NAME)"
        raise CheckpointError(f"{path}: the file does not exist{near(path)}{hub}") from None
    if start[8:9] == b"{":  # safetensors: the length of the header, then its JSON
        try:
            return find_weights(load_file(path), path, state_key)
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} is a corrupt safetensors file ({error}): download it again"
            ) from None
    if not start.startswith((b"PK", b"\x80")):  # neither a zip archive nor a pickle
        what = "the file is empty" if not start else f"the file starts with {start!r}"
        if path.suffix in (".json", ".yaml", ".yml", ".txt") and start:
            what = f"it is a text file beside them: {_weights_beside(path)}"
        if start.startswith(b"version https://"):
            what = "the file is a Git LFS pointer: run git lfs pull"
        elif start.lstrip().startswith(b"<"):
            what = "the file is a web page: download the weights file itself"
        raise CheckpointError(f"{path} is neither a safetensors nor a PyTorch file; {what}")
    return find_weights(_unpickle(path), path, state_key)


def _weights_beside(path: Path) -> str:
    """What to pass instead of a file that is not weights."""
    found = sorted(p.name for p in path.parent.iterdir() if p.suffix in _SUFFIXES)
    if any(name in FILES for name in found):
        return f"pass the folder, {path.parent}"
    return f"pass {' or '.join(found[:3]) or 'a .safetensors, .bin or .pth file'}"


def _unpickle(path: Path) -> Any:
    """What a PyTorch file contains, with `inert.Inert` for all objects but tensors and containers."""
    _check_archive(path)
    try:
        return torch.load(path, "cpu", inert, weights_only=False)
    except Exception as error:  # on a damaged file the reader may raise anything
        text = str(error) or type(error).__name__
    if os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") in ("1", "y", "yes", "true"):
        raise CheckpointError(
            f"{path}: TORCH_FORCE_WEIGHTS_ONLY_LOAD is set, so PyTorch permits no reader but its "
            "own: unset it (vmae's reader runs no code either), or convert the file to safetensors"
        )
    raise CheckpointError(
        f"{path} is corrupt, truncated or not a PyTorch file ({text.strip().splitlines()[0][:200]}): "
        "download it again"
    )


def _check_archive(path: Path) -> None:
    """Refuse TorchScript and tar archives, for which torch.load has readers of their own."""
    try:
        get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # of this reader's errors only one matters here
        script = "torchscript" in str(error)
    else:
        return
    if script or tarfile.is_tarfile(path):
        kind = "a TorchScript archive" if script else "a tar archive of PyTorch before 0.1.10"
        raise CheckpointError(
            f"{path} is {kind}: save the state_dict() of the model with torch.save"
        )
