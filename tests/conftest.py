"""Shared by the tests: their order, small models with revealing weights, small sets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# The models here are tiny: threads would only wait for each other, and for the other worker's. Set
# before PyTorch is imported, and in the environment: kernels and processes of tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt
import pytest
import torch
from nursery import Nursery
from torch import nn

from vmae import ROOT
from vmae.config import ModelConfig
from vmae.course.making import render_set
from vmae.data import SIZES

# ---- how the tests run ---------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: the quick ones then fill what is left of the time of both workers."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


#: What was in the checkout before the tests, and what they left there.
BEFORE, LEFT = pytest.StashKey[set[Path]](), pytest.StashKey[set[Path]]()


def in_the_checkout() -> set[Path]:
    """Files and folders where the course writes; not the caches of pytest, mypy and ruff."""
    places = ("*", "data/*", "data/stores/*", "notebooks/*", "runs/*", "solutions/*")
    found = {path for place in places for path in ROOT.glob(place)}
    return {path for path in found if not path.name.endswith(("_cache", "__pycache__"))}


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[BEFORE] = in_the_checkout()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail, even if every test passed, when the tests left something new in the checkout."""
    left = in_the_checkout() - session.config.stash[BEFORE]
    session.config.stash[LEFT] = left
    if left and not hasattr(session.config, "workerinput"):  # one process says so, for all
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if left := config.stash.get(LEFT, set()):
        terminalreporter.section("new in the checkout: write to tmp_path instead", red=True)
        for path in sorted(left):
            terminalreporter.write_line(str(path.relative_to(ROOT)))


# ---- what the tests use --------------------------------------------------------------------------

torch.set_num_threads(1)  # the models here are too small to gain from threads


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter, including biases and norms, a random value that is neither 0 nor 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.3 if parameter.ndim < 2 else 0.7 / parameter.flatten(1).shape[1] ** 0.5
            one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(one + scale * noise)
    return model


def random_clips(config: ModelConfig, batch: int, seed: int = 0) -> torch.Tensor:
    """uint8 clips (B, C, T, H, W) of noise."""
    shape = (batch, config.channels, *config.grid.clip)
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture
def tiny() -> ModelConfig:
    """A VideoMAE with all parts, small enough for tests: a grid of 4x4x4 tokens."""
    return ModelConfig(
        num_frames=8, img_size=32, tubelet=(2, 8, 8), embed_dim=48, depth=3, num_heads=4,
        decoder_embed_dim=24, decoder_depth=2, decoder_num_heads=2,
    )  # fmt: skip


@pytest.fixture
def image() -> ModelConfig:
    """An MAE for images of 4x4 tokens."""
    return ModelConfig(
        family="mae", num_frames=1, img_size=32, tubelet=(1, 8, 8), embed_dim=48, depth=2, num_heads=4,
        decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def motion_mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The motion set in its smallest size."""
    return render_set(tmp_path_factory.mktemp("sets") / "motion", SIZES["mini"], workers=1)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Where the tests of a module start their processes."""
    with Nursery() as opened:
        yield opened


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collects the alt texts of figures instead of showing them."""
    texts: list[str] = []
    monkeypatch.setattr(
        "vmae.figures.figure.display", lambda data, **_: texts.append(data["text/plain"])
    )
    yield texts
    plt.close("all")


# ---- notebooks under test ------------------------------------------------------------------------


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
