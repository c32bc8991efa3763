"""fp16: matrix products in half precision, with a loss scaler that a checkpoint restores.

Accelerate keeps fp16 to GPUs. Here a CPU gets its autocast and a scaler of the same class, so everything
but the kernels is what a GPU runs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import curve, pretraining, run
from torch.utils._python_dispatch import TorchDispatchMode

from vmae.base_config import ConfigError
from vmae.cost import training_memory
from vmae.data import DataConfig
from vmae.train import PretrainConfig, accelerator_for, devices
from vmae.train import run as engine

OLD_CARD = "NVIDIA T4"


@pytest.fixture
def config(motion_mini, tmp_path_factory) -> PretrainConfig:
    stores = tmp_path_factory.mktemp("stores")
    return pretraining(DataConfig(path=str(motion_mini), cache_dir=str(stores), num_workers=1))


@pytest.fixture
def old_card(monkeypatch):
    """A machine whose GPU only emulates bf16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: OLD_CARD)


@pytest.fixture
def scaled(monkeypatch):
    """Runs in fp16 on the CPU; `scaled(scale)` is the loss scale that they start with."""
    scales = {"first": 2.0**10}

    def fp16_accelerator(precision, device, accumulate, *_):
        accelerator = accelerator_for("fp32", "cpu", accumulate)
        accelerator.state._mixed_precision = "fp16"
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scales["first"])
        return accelerator

    monkeypatch.setattr(engine, "accelerator_for", fp16_accelerator)
    yield lambda scale: scales.update(first=scale)
    accelerator_for("fp32", "cpu")  # what Accelerate keeps for the process is as before


@pytest.fixture
def overflow(monkeypatch):
    """Makes the gradients of some steps infinite, after unscaling what is left of them."""
    steps: set[int] = set()
    backward = engine.Run.backward

    def burst(self, loss):
        backward(self, loss)
        if self.step in steps:
            next(iter(self.model.parameters())).grad.view(-1)[0] = float("inf")

    monkeypatch.setattr(engine.Run, "backward", burst)
    return steps.update


def state(folder: Path, step: int) -> dict:
    return torch.load(folder / f"checkpoints/step-{step:08d}/state.pt", weights_only=True)


def weights(result) -> list[torch.Tensor]:
    return [x.clone() for x in result.model.state_dict().values()]


# ---- which precision ------------------------------------------------------------------------------


def test_a_gpu_that_only_emulates_bf16_trains_in_fp16(old_card, monkeypatch):
    assert devices.auto_precision(gpu=True) == "fp16"
    assert devices.auto_precision(gpu=False) == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert devices.auto_precision(gpu=True) == "bf16"


def test_bf16_is_never_emulated(old_card):
    with pytest.raises(
        ConfigError, match=f'"bf16", which {OLD_CARD} can only.*"fp16", or to "auto"'
    ):
        accelerator_for("bf16")
    assert accelerator_for("bf16", "cpu").mixed_precision == "bf16"  # a CPU computes in it


def test_fp16_needs_a_gpu():
    with pytest.raises(ConfigError, match='"fp16", which needs a GPU: set precision to "auto"'):
        accelerator_for("fp16", "cpu")


def test_fp16_takes_the_memory_of_bf16(config):
    half = [
        training_memory(config.replace(precision=p, device="cuda"), 8) for p in ("bf16", "fp16")
    ]
    assert half[0] == half[1]


# ---- a step ---------------------------------------------------------------------------------------


def test_fp16_is_near_fp32_and_unscales_before_it_clips(config, scaled, monkeypatch):
    config = config.replace(optim=config.optim.replace(clip_grad=0.01))
    low = run(config)
    scaled(2.0**4)
    other = run(config)
    assert curve(low) == pytest.approx(curve(other), rel=1e-3)  # the scale changes nothing
    assert all(p.dtype == torch.float32 for p in low.model.parameters())
    monkeypatch.setattr(engine, "accelerator_for", accelerator_for)
    full = run(config.replace(precision="fp32"))
    assert curve(low) == pytest.approx(curve(full), rel=0.01)
    assert curve(low) != curve(full)


def test_micro_batches_are_scaled_alike(config, scaled):
    whole, parts = run(config), run(config.replace(grad_accum_steps=4))
    assert curve(parts) == pytest.approx(curve(whole), rel=2e-3)


def test_an_overflow_halves_the_scale_skips_the_step_and_training_proceeds(
    config, tmp_path, scaled, overflow
):
    overflow({3})
    result = run(config.replace(save_every=1, keep_checkpoints=6), tmp_path / "run")
    scales = [state(tmp_path / "run", step)["scaler"]["scale"] for step in range(1, 7)]
    assert scales == [2.0**10] * 2 + [2.0**9] * 4
    assert [record.skipped for record in result.records] == [0, 0, 1, 1, 1, 1]
    rows = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["skipped"] == 1
    # The step changes no weight and no moment; the schedule is that of the steps all the same.
    assert int(state(tmp_path / "run", 6)["optimizer"]["state"][0]["step"]) == 5
    before, after = (state(tmp_path / "run", step)["optimizer"]["state"] for step in (2, 3))
    assert all(torch.equal(before[k]["exp_avg"], after[k]["exp_avg"]) for k in before)
    assert [r.lr for r in result.records] == [r.lr for r in run(config).records]
    assert all(torch.isfinite(p).all() for p in result.model.parameters())


def test_without_fp16_skipped_steps_are_counted_too(config, overflow):
    overflow({2, 5})
    result = run(config.replace(precision="fp32"))
    assert [record.skipped for record in result.records] == [0, 1, 1, 1, 2, 2]


def test_a_scale_that_is_too_large_is_found_without_an_error(config, scaled):
    scaled(2.0**30)
    long = config.replace(optim=config.optim.replace(steps=24))
    result = run(long)
    assert 0 < result.records[-1].skipped < 24
    assert result.records[-1].loss < result.records[0].loss


def test_gradients_that_overflow_at_every_scale_end_the_run(config, tmp_path, scaled, overflow):
    scaled(4.0)
    overflow(range(3, 100))
    with pytest.raises(FloatingPointError) as error:
        run(config, tmp_path / "run")
    words = str(error.value)
    assert "gradients overflow in fp16 at step 5, although the loss scale is down to 0.5" in words
    assert "(3 steps were skipped): lower the learning rate" in words
    assert "set precision to fp32 in a new folder; the checkpoint of step 4 is kept" in words


def test_nobody_waits_for_the_device_between_backward_and_step(config, scaled, monkeypatch):
    waits = []

    class Watcher(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            if name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal"):
                waits.append(name)
            return function(*args, **(kwargs or {}))

    clip = engine.Run.clip_or_skip

    def watched(self, model, optimizer):
        with Watcher():
            clip(self, model, optimizer)
            optimizer.step()
        optimizer.step = lambda: None

    monkeypatch.setattr(engine.Run, "clip_or_skip", watched)
    run(config.replace(optim=config.optim.replace(steps=1)))
    assert not waits


# ---- resuming -------------------------------------------------------------------------------------


def test_a_resumed_run_is_exact_with_its_scale(config, tmp_path, scaled, overflow):
    overflow({1, 3, 5})
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/step-00000006")
    scaled(2.0**3)  # a fresh scaler would start from this
    again = run(config, tmp_path / "cut", resume=True)
    assert curve(again) == curve(whole)
    assert [r.skipped for r in again.records] == [r.skipped for r in whole.records]
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(whole), strict=True))
    ends = [state(tmp_path / name, 6) for name in ("whole", "cut")]
    assert ends[0]["scaler"] == ends[1]["scaler"]
    assert ends[0]["scaler"]["scale"] == 2.0**7
