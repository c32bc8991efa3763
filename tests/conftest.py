"""Shared by the tests: small models with revealing weights, and small sets rendered on the fly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from vmae.config import ModelConfig
from vmae.data import SIZES, render_set

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


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collects the alt texts of figures instead of showing them."""
    texts: list[str] = []
    monkeypatch.setattr("vmae.viz.core.display", lambda data, **_: texts.append(data["text/plain"]))
    yield texts
    plt.close("all")
