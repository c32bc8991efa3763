"""Runs of a few steps, shared by the tests in this folder: how to start, stop and compare them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors import safe_open

from vmae.config import MaskConfig, ModelConfig
from vmae.data import DataConfig
from vmae.train import OptimConfig, PretrainConfig, Progress, Silent, pretrain
from vmae.weights import tensors

MODEL = ModelConfig.videomae(
    "tiny", depth=2, embed_dim=32, decoder_embed_dim=24, decoder_depth=1, normalize_targets=False
)
MASK = MaskConfig("tube", 0.75, None, "running-cell", 0.5)

#: Of any run, changes that its configuration refuses, and words of the message.
WRONG_OPTIONS = [
    ({"device": "tpu"}, "device is 'tpu'"),
    ({"on_nonfinite": "hope"}, "on_nonfinite is 'hope'"),
    ({"grad_accum_steps": 0}, "grad_accum_steps is 0"),
]


def pretraining(data: DataConfig) -> PretrainConfig:
    """Six steps; every loss is logged, and every second step has a checkpoint."""
    optim = OptimConfig(steps=6, batch_size=8, lr=1e-3)
    return PretrainConfig(model=MODEL, mask=MASK, data=data, optim=optim, save_every=2, log_every=1)


def run(
    config: PretrainConfig, folder: Path | None = None, progress: Progress | None = None, **options
):
    """Pre-training without a progress display, unless one is given."""
    return pretrain(config, folder, progress=progress or Silent(), **options)


def curve(result) -> list[float]:
    """The logged losses of a run."""
    return [record.loss for record in result.records]


class StopAt(Silent):
    """A progress display at which somebody presses Ctrl-C."""

    def __init__(self, step: int) -> None:
        self.at = step

    def update(self, step, record):
        if step == self.at:
            raise KeyboardInterrupt


@contextmanager
def full_disk() -> Iterator[None]:
    """Tensors are saved once more; after that, no space is left."""
    write, calls = tensors.save_file, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        write(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "save_file", full)
        yield


def assert_names_the_fifth_clip(error: str, kept: Path) -> None:
    """Of the batch of 8 clips that was kept, the error names the video of the fifth, and no other."""
    with safe_open(kept, "pt") as file:
        videos = file.metadata()["videos"].splitlines()
        assert file.get_tensor("clips").shape == (8, 3, 8, 16, 16)
    assert videos[4] in error, error
    assert not any(video in error for video in videos if video != videos[4]), error
