"""Where the benchmarks of the models write: data/bench/DEVICE.json, an entry a measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vmae import ROOT
from vmae.support.files import write_text
from vmae.train import environment

FOLDER = ROOT / "data" / "bench"


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def found(kind: str) -> dict[str, Any]:
    """All entries of a kind of device, "cpu" or "cuda"; none where nothing was measured."""
    path = _path(kind)
    return json.loads(path.read_text()) if path.exists() else {}


def keep(key: str, entry: dict[str, Any]) -> None:
    """Print an entry, and write it with a stamp; one of the same key is replaced."""
    kind = device().type
    entry = entry | {"made": environment(device())}
    write_text(_path(kind), json.dumps(found(kind) | {key: entry}, indent=1) + "\n")
    print(key, json.dumps({k: v for k, v in entry.items() if k != "made"}), flush=True)


def _path(kind: str) -> Path:
    return FOLDER / f"{kind}.json"
