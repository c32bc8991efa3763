"""A run's folder: one run at a time in it, and a record of what it ran on."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import accelerate
import psutil
import torch

from vmae import ROOT, __version__
from vmae.config import Config
from vmae.data.encode import DiskError, write_text
from vmae.train.checkpoint import CheckpointError, refuse_other
from vmae.train.runtime import device_name

#: A job that SLURM puts back into the queue keeps its number, perhaps on another machine.
JOB = "SLURM_JOB_ID"


def free_folder(folder: Path, config: Config) -> Path:
    """`folder`; where a run of another configuration has it, the next of folder-2, folder-3, ..."""
    names = (f"{folder.name}-{number}" if number > 1 else folder.name for number in count(1))
    for name in names:
        with suppress(CheckpointError):
            refuse_other(folder.with_name(name), config)
            break
    return folder.with_name(name)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a second run out of `folder` as long as this one goes on.

    The lock of a process that is gone, or of this very SLURM job before it was put back into the
    queue, is taken over. Raises CheckpointError where another run holds it.
    """
    path = folder / "lock.json"
    mine = {
        "pid": os.getpid(), "started": psutil.Process().create_time(),
        "host": socket.gethostname(), "job": os.environ.get(JOB),
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            holder = _read(path)
            if not holder:  # perhaps it is being written just now
                time.sleep(0.2)
                holder = _read(path)
            if _alive(holder):
                raise CheckpointError(
                    f"{folder} is in use by process {holder['pid']} on {holder['host']}: wait for it, "
                    f"stop it, or give another folder. If it is surely gone, delete {path}"
                ) from None
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
    with os.fdopen(descriptor, "w") as file:
        json.dump(mine, file)
    try:
        yield
    finally:
        with suppress(OSError):
            if _read(path) == mine:
                path.unlink()


def _unwritable(path: Path, error: OSError) -> DiskError:
    return DiskError(f"cannot write {path} ({error}): choose another folder")


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # killed while it wrote the lock, or just gone


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the holder of a lock may still run; on another machine it may, for all we know."""
    if not holder or (holder["job"] and holder["job"] == os.environ.get(JOB)):
        return False
    if holder["host"] != socket.gethostname():
        return True
    try:
        process = psutil.Process(holder["pid"])
        same = abs(process.create_time() - holder["started"]) < 1
        return same and holder["pid"] != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def write_environment(folder: Path, step: int, device: torch.device, processes: int) -> None:
    """Add to environment.json what the run goes on with from `step`: commit, versions, device."""
    path = folder / "environment.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    start = {"step": step, **environment(device), "processes": processes}
    write_text(path, json.dumps([*starts, start], indent=1) + "\n")


def environment(device: torch.device) -> dict[str, Any]:
    """What a result was made with: time, commit (and files changed since), versions, device."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "vmae": __version__,
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len((_git("status", "--porcelain", "--", "vmae") or "").splitlines()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "device": device_name(device),
    }


def _git(*arguments: str) -> str | None:
    """What git says of the checkout; None without git or a checkout."""
    if Path(__file__).resolve().parents[2] != ROOT:  # the working folder may be another repository
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
