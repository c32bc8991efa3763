"""A run's folder: one run at a time, always of one configuration, with a record of its environment."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
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

from vmae import ROOT, __version__, at_root
from vmae.base_config import Config, ConfigError
from vmae.support.files import DiskError, atomic_path, require_writable, write_text
from vmae.train.checkpoint import newest_step
from vmae.train.config import RunConfig
from vmae.train.devices import auto_precision, device_name
from vmae.train.starting import weights_kind
from vmae.vit import VisionTransformer
from vmae.weights.errors import CheckpointError

#: Fields of a run's configuration that may differ when it is resumed.
FREE_FIELDS = (
    "save_every", "log_every", "keep_checkpoints", "device", "grad_accum_steps",
    "activation_checkpointing", "compile", "on_nonfinite", "log_with", "log_mfu", "test_clips",
    "test_crops", "start_from", "state_key", "data.num_workers", "data.max_unreadable",
    "data.cache_dir", "data.cache", "data.cache_on_device",
)  # fmt: skip
#: A job that SLURM requeues keeps its number, possibly on another machine.
JOB = "SLURM_JOB_ID"


def free_folder(folder: Path, config: Config) -> Path:
    """`folder`, or if it contains a run of another configuration, the next of folder-2, folder-3, ..."""
    names = (f"{folder.name}-{number}" if number > 1 else folder.name for number in count(1))
    for name in names:
        with suppress(CheckpointError):
            refuse_other(folder.with_name(name), config)
            break
    return folder.with_name(name)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a second run out of `folder` for the duration of the block.

    Takes over the lock of a process that is gone, or of this same SLURM job before it was requeued.
    Raises CheckpointError if another run holds it, DiskError if nothing can be written there.
    """
    path = folder / "lock.json"
    mine = {
        "pid": os.getpid(), "started": psutil.Process().create_time(),
        "host": socket.gethostname(), "job": os.environ.get(JOB),
    }  # fmt: skip
    require_writable(folder, folder=True)
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
            if not holder:  # it may be in the middle of being written
                time.sleep(0.2)
                holder = _read(path)
            if _alive(holder):
                raise CheckpointError(
                    f"{folder} is in use by process {holder['pid']} on {holder['host']}: wait for "
                    "it to finish, stop it, or choose another folder. If the process no longer "
                    f"exists, delete {path}"
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
        return {}  # killed while writing the lock, or removed just now


def _alive(holder: dict[str, Any]) -> bool:
    """Whether the holder of a lock may still be running; on another machine we have to assume so."""
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
    """Add to environment.json what the run uses from `step` on: commit, versions, device."""
    path = folder / "environment.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    start = {"step": step, **environment(device), "processes": processes}
    write_text(path, json.dumps([*starts, start], indent=1) + "\n")


def environment(device: torch.device) -> dict[str, Any]:
    """What produced a result: time, commit (and files changed since), versions, device."""
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
    """The output of a git command in the checkout; None without git or without a checkout."""
    if Path(__file__).resolve().parents[2] != ROOT:  # the working folder may be another repository
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def sweep(folder: Path) -> None:
    """Remove files that killed processes left half-written in a run's folder."""
    for place in (folder, folder / "checkpoints"):
        for part in place.glob(".*.part"):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def differences(found: dict[str, Any], asked: dict[str, Any], where: str = "") -> list[str]:
    """The differences between two configurations, as dicts: one line per field."""
    lines = []
    for key in sorted(found.keys() | asked.keys()):
        a, b = found.get(key), asked.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{where}{key}.")
        elif a != b:
            lines.append(f"{where}{key}: {a!r} in the folder, but {b!r} was requested")
    return lines


def holds_run(folder: Path) -> bool:
    """Whether `folder` contains a run; one that failed before its first checkpoint does not count."""
    weights = (folder / "model.safetensors").exists() or newest_step(folder / "checkpoints")
    started = (folder / "environment.json").exists()
    return (folder / "config.yaml").exists() and bool(weights or not started)


def check_folder(folder: Path, config: RunConfig, resume: bool) -> None:
    """Check that `folder` can be the run of `config`: a new one or, with `resume`, the same one again.

    Fields in FREE_FIELDS may change on resuming. Raises CheckpointError if the folder contains a run
    and `resume` is off, or a run of another configuration (listing the differences), or one that
    this version would continue with other numbers; also if it is the folder of the videos. Raises
    DiskError if nothing can be written there.
    """
    require_writable(folder, folder=True)
    if folder.resolve() == at_root(config.data.path).resolve():
        raise CheckpointError(
            f"{folder} is the folder of the videos (data.path): choose another folder for the run"
        )
    if not holds_run(folder):
        return
    if not resume:
        raise CheckpointError(
            f"{folder} already contains a run: add --resume to continue it (in Python, resume=True), or "
            "choose another folder"
        )
    refuse_other(folder, config, FREE_FIELDS)
    _refuse_other_numbers(folder, config)


def claim_run(
    folder: Path, config: RunConfig, step: int, device: torch.device, processes: int
) -> None:
    """Make `folder` the run of `config`, and note what it uses from `step` on."""
    with atomic_path(folder / "config.yaml") as temporary:
        config.to_yaml(temporary)
    write_environment(folder, step, device, processes)


def _refuse_other_numbers(folder: Path, config: RunConfig) -> None:
    """Raise CheckpointError for a run of version 0.1 that this one would continue differently."""
    path = folder / "environment.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    changed = {
        "optim.epochs (an epoch now is a whole number of batches)": config.optim.epochs is not None,
        "model.family 'mae' (its tokens now have weight decay)": config.model.family == "mae",
        "data.short 'repeat' (other frames are repeated now)": config.data.short == "repeat",
        "precision 'auto' (it is fp16 on this GPU now)": config.precision == "auto"
        and auto_precision(config.device != "cpu" and torch.cuda.is_available()) == "fp16",
    }
    reasons = [reason for reason, applies in changed.items() if applies]
    if reasons and starts and starts[-1]["vmae"].startswith("0.1."):
        raise CheckpointError(
            f"{folder} contains a run of vmae {starts[-1]['vmae']}, which this version would "
            f"continue with other numbers, because of {' and '.join(reasons)}: finish the run with "
            "that version, or start a new one in another folder"
        )


def refuse_other(folder: Path, config: Config, free: tuple[str, ...] = ()) -> None:
    """Raise CheckpointError if `folder` contains a run of another configuration or kind."""
    if not holds_run(folder):
        return
    try:
        found = type(config).from_yaml(folder / "config.yaml").to_dict()
    except ConfigError as error:
        raise CheckpointError(
            f"{folder} already contains a run whose configuration is not a {type(config).__name__}: "
            f"{error}\nChoose another folder"
        ) from None
    lines = [d for d in differences(found, config.to_dict()) if d.split(":")[0] not in free]
    if lines:
        listed = "\n  ".join(lines)
        raise CheckpointError(
            f"{folder} already contains a run with different settings:\n  {listed}\nChoose "
            "another folder or restore the original settings"
        )


def claim_start(folder: Path, source: VisionTransformer | None) -> None:
    """Record what a fine-tuning run in `folder` starts from: a hash of the weights of `source`, and what
    they were trained for; None: from scratch.

    Raises CheckpointError if the run started from something else.
    """
    start, kind = "scratch", ""
    if source is not None:
        digest = hashlib.sha256()
        for name, tensor in sorted(source.state_dict().items()):
            values = tensor.detach().cpu().flatten().view(torch.uint8)  # of any dtype
            digest.update(name.encode() + values.numpy().tobytes())
        start = f"an encoder with sha256 {digest.hexdigest()[:16]}"
        kind = f" ({weights_kind(source)})"
    noted = folder / "start.txt"
    # A run of an earlier version has noted the hash alone.
    before = noted.read_text().strip().split(" (")[0] if noted.exists() else start
    if before != start and holds_run(folder):
        raise CheckpointError(
            f"{folder} already contains a run that started from {before}, not from {start}: pass "
            "that original encoder, or choose another folder"
        )
    write_text(noted, f"{start}{kind}\n")


def start_kind(folder: Path) -> str:
    """What the weights that the run in `folder` started from were trained for; empty if it is not known."""
    noted = folder / "start.txt"
    return noted.read_text().strip().partition(" (")[2].removesuffix(")") if noted.exists() else ""
