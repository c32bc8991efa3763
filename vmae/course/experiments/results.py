"""What has been measured: one JSON file per set, one entry per arm, each stamped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from vmae import ROOT
from vmae.support.files import write_text

FOLDER = ROOT / "data" / "experiments"


def load(set_name: str) -> dict[str, dict[str, Any]]:
    """The entries of a set by key; none if nothing has been measured."""
    path = FOLDER / f"{set_name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def add(set_name: str, key: str, entry: dict[str, Any], locks: Path) -> None:
    """Write an entry. Processes that share the folder `locks` do not lose each other's entries."""
    with FileLock(locks / f"{set_name}.lock"):
        entries = dict(sorted((load(set_name) | {key: entry}).items()))
        write_text(FOLDER / f"{set_name}.json", json.dumps(entries, indent=1) + "\n")
