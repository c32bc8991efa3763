"""Notebooks under test run in a checkout of their own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from vmae import ROOT


@pytest.fixture(scope="session")
def around(tmp_path_factory) -> Path:
    """A checkout of its own for the notebooks of this process, for the sets and runs they make.

    Two notebooks that render the same set at the same time would compete for its lock, and a
    learner's own sets and runs must not be touched. The package is copied, because it looks for data
    beside itself; committed data is linked, and rendered data is not.
    """
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "vmae", folder / "vmae", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("notebooks", "data"):
        (folder / name).mkdir()
    for path in (ROOT / "data").iterdir():
        if not any(map(path.match, ("motion*", "film*", "stores"))):
            (folder / "data" / path.name).symlink_to(path)
    return folder


@pytest.fixture
def kernels(around, monkeypatch) -> Path:
    """Kernels that start from now on use that checkout; returns the folder they start in."""
    path = [str(around), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("IPYTHONDIR", str(around / ".ipython"))  # one history, locked by each kernel
    return around / "notebooks"
