"""Is this computer ready for the course? One row per check, and a fix for every problem.

    python -m vmae check-env

Imports happen inside the checks, so that a broken package gives a row and not a traceback.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vmae import ROOT

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

PYTHON = (3, 11)
CLIP = ROOT / "data" / "big_buck_bunny_shot.mp4"
#: Free bytes required: the last notebook's data, cache and run take 0.2 GB with the recipe `cpu`.
NEEDED = 1_000_000_000

INSTALL = "python -m pip install -r requirements.txt -e .   (in the folder of the checkout)"


@dataclass(frozen=True)
class Row:
    """The result of a check: "OK", "FAIL" (the course does not run) or "--" (it runs; for information)."""

    status: Literal["OK", "FAIL", "--"]
    what: str
    found: str
    fix: str = ""


def check_env() -> list[Row]:
    """Check Python, the packages, decord, the GPU, the disk and the kernel; never raises.

    If Python is too old, that is the only row.
    """
    python = python_row()
    if python.status == "FAIL":
        return [python]
    return [python, *package_rows(), clip_row(), gpu_row(), disk_row(), kernel_row()]


def report(rows: Sequence[Row]) -> str:
    """The rows as text, one per line, each with its fix, if any, on the next line."""
    lines = []
    for row in rows:
        lines.append(f"{f'[{row.status}]':7}{row.what:12} {row.found}")
        if row.fix:
            lines.append(f"{'':20}→ {row.fix}")
    return "\n".join(lines)


def python_row(found: tuple[int, ...] = sys.version_info[:3]) -> Row:
    """Is Python new enough?"""
    name = ".".join(map(str, found))
    if found >= PYTHON:
        return Row("OK", "Python", f"{name}, {platform.system()} {platform.machine()}")
    least = ".".join(map(str, PYTHON))
    return Row(
        "FAIL", "Python", f"{name}; {least} or newer is required",
        f"install Python {least} or newer and create a new environment with it",
    )  # fmt: skip


def package_rows(
    requirements: Path = ROOT / "requirements.txt", project: Path = ROOT / "pyproject.toml"
) -> list[Row]:
    """Compare the installed versions with the tested pins: a summary row, and one per difference.

    A version within the ranges of pyproject.toml is not a failure, nor is a missing package that
    pyproject.toml does not list.
    """
    try:
        import tomllib

        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        listed = requirements.read_text().splitlines()
        pins = [Requirement(line) for line in listed if line.strip() and line[0] != "#"]
        needs = map(Requirement, tomllib.loads(project.read_text())["project"]["dependencies"])
        ranges = {canonicalize_name(need.name): need.specifier for need in needs}
    except ImportError as error:
        return [Row("FAIL", "packages", f"{error.name} is not installed", INSTALL)]
    except OSError as error:
        lost = Path(error.filename).name
        return [
            Row("FAIL", "packages", f"{lost} not found: vmae is not running from a checkout",
                "clone the repository, then run this command in it: " + INSTALL)
        ]  # fmt: skip
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    judged = [_package_row(pin, ranges.get(canonicalize_name(pin.name))) for pin in here]
    rows = [row for row in judged if row is not None]
    as_tested = len(here) - len(rows)
    return [Row("OK", "packages", f"{as_tested} of {len(here)} have the tested version"), *rows]


def _package_row(pin: Requirement, needed: SpecifierSet | None) -> Row | None:
    """The row of a package that differs from its pin; `needed` is its range, None for a dev tool."""
    tested, found = str(pin.specifier).removeprefix("=="), _version(pin.name)
    fix = f"python -m pip install {pin.name}=={tested}"
    if found is None and needed is None:
        return Row("--", pin.name, "not installed; the course runs without it", fix)
    if found is None:
        return Row("FAIL", pin.name, f"not installed; tested with {tested}", fix)
    if pin.specifier.contains(found, prereleases=True):
        return None
    if needed is None or needed.contains(found, prereleases=True):
        return Row("--", pin.name, f"{found}; tested with {tested}", fix)
    return Row("FAIL", pin.name, f"{found}; {needed} is required, tested with {tested}", fix)


def clip_row(path: Path = CLIP) -> Row:
    """Can decord read a clip from the repository?"""
    try:
        from vmae.data.reading.reader import read_frames

        frames = read_frames(path)
    except Exception as error:  # a broken library may raise anything
        if isinstance(error, ImportError):
            return Row("FAIL", "decord", f"cannot be imported: {error}", INSTALL)
        return Row(
            "FAIL", "decord", str(error),
            f"restore the file: git checkout -- data/{path.name}",
        )  # fmt: skip
    count, height, width, _ = frames.shape
    return Row("OK", "decord", f"reads data/{path.name}: {count} frames of {width}x{height}")


def gpu_row() -> Row:
    """Does PyTorch see a GPU? The course runs without one."""
    try:
        import torch
    except Exception as error:
        return Row("FAIL", "PyTorch", f"cannot be imported: {error}", INSTALL)
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        count = torch.cuda.device_count()
        name = torch.cuda.get_device_name(0)
        return Row("OK", "GPU", f"{count} x {name}, {memory:.0f} GB; PyTorch {torch.__version__}")
    if torch.backends.mps.is_available():
        return Row("--", "GPU", "an Apple GPU is present but not used: all lessons run on the CPU")
    if shutil.which("nvidia-smi"):
        return Row(
            "--", "GPU", f"an NVIDIA driver is installed, but PyTorch {torch.__version__} sees no GPU",
            "install the PyTorch build for your driver: pytorch.org, Get Started",
        )  # fmt: skip
    return Row("--", "GPU", "none found, but none is needed: all lessons run on the CPU")


def disk_row(folder: Path = ROOT, needed: int = NEEDED) -> Row:
    """Is there enough free space for the datasets that the lessons render?"""
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return Row("OK", "disk", f"{free / 1e9:,.0f} GB free")
    return Row(
        "FAIL", "disk", f"{free / 1e9:.2f} GB free; the lessons need {needed / 1e9:.0f} GB",
        "free up some space: you can delete data/motion*, data/film* and data/stores; they are rebuilt",
    )  # fmt: skip


def kernel_row() -> Row:
    """Is JupyterLab installed, and is its kernel `python3` this Python?"""
    register = "python -m ipykernel install --sys-prefix   (with the environment's Python)"
    try:
        import ipykernel
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError as error:
        return Row("FAIL", "kernel", f"{error.name} is not installed", INSTALL)
    try:
        program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Row("FAIL", "kernel", "Jupyter has no kernel named `python3`", register)
    folder = os.path.dirname(program)  # not resolved: symbolic links distinguish environments
    if folder and os.path.abspath(folder) != os.path.abspath(os.path.dirname(sys.executable)):
        return Row("FAIL", "kernel", f"`python3` starts a different Python: {program}", register)
    name = f"`python3` is this Python, ipykernel {ipykernel.__version__}"
    lab = _version("jupyterlab")
    if lab is None:
        return Row("--", "kernel", name + "; JupyterLab is not installed", INSTALL)
    return Row("OK", "kernel", f"{name}; JupyterLab {lab}")


def _version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
