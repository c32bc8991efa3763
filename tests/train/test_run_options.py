"""The engine's options change no number, it watches a run, and says what is wrong with its input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import random_clips, randomize
from small_runs import (
    MASK,
    MODEL,
    WRONG_OPTIONS,
    assert_names_the_fifth_clip,
    curve,
    full_disk,
    pretraining,
    run,
)

from vmae import cost
from vmae.base_config import ConfigError
from vmae.cli.main import main
from vmae.config import MaskConfig, ModelConfig
from vmae.cost import rates, training_memory
from vmae.data import DataConfig
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import make_mask
from vmae.support.files import DiskError
from vmae.train import (
    PretrainConfig,
    Recipe,
    Record,
    Silent,
    accelerator_for,
    checkpoint,
    checkpointed,
    compile_blocks,
    interrupts,
    monitoring,
    run_folder,
)
from vmae.train.batches import seeded
from vmae.train.run_folder import lock
from vmae.weights import CheckpointError


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def config(motion_mini, stores) -> PretrainConfig:
    return pretraining(DataConfig(path=str(motion_mini), cache_dir=str(stores), num_workers=1))


# ---- options that change no number ---------------------------------------------------------------


def gradients(model, clips, mask) -> list[torch.Tensor]:
    model.zero_grad()
    model.loss(clips, mask).backward()
    return [p.grad.clone() for p in model.parameters()]


def test_activation_checkpointing_gives_the_same_gradients_and_leaves_the_model_as_it_was(config):
    model = randomize(MaskedAutoencoder(MODEL))
    clips, mask = random_clips(MODEL, 3), make_mask(MASK, MODEL.grid, 3)
    names, plain = list(model.state_dict()), gradients(model, clips, mask)
    with checkpointed(model):
        again = gradients(model, clips, mask)
        assert list(model.state_dict()) == names
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert "forward" not in vars(model.encoder.blocks[0])
    assert curve(run(config.replace(activation_checkpointing=True))) == curve(run(config))


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(config):
    whole, parts = run(config), run(config.replace(grad_accum_steps=4, repeated_aug=1))
    assert curve(parts) == pytest.approx(curve(whole), abs=1e-6)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], tensor, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match=r"batch_size 8 must be divisible by 1 processes times"):
        run(config.replace(grad_accum_steps=3))


def test_bf16_works_on_a_cpu_and_is_near_fp32(config):
    low, full = run(config.replace(precision="bf16")), run(config.replace(precision="fp32"))
    assert curve(low) == pytest.approx(curve(full), rel=0.02)
    assert curve(low) != curve(full)
    assert all(p.dtype == torch.float32 for p in low.model.parameters())


def test_compiling_changes_no_name_and_without_a_compiler_the_run_continues(config, monkeypatch):
    plain = run(config)
    names = list(plain.model.state_dict())
    compiled = randomize(MaskedAutoencoder(MODEL))
    clips, mask = random_clips(MODEL, 2), make_mask(MASK, MODEL.grid, 2)
    wanted = gradients(compiled, clips, mask)
    # This backend traces as any does, and needs no compiler.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", _with(compile_, backend="aot_eager"))
    with warnings.catch_warnings(record=True) as said:
        compile_blocks(compiled, clips, mask)
    assert not [w for w in said if "torch.compile fails" in str(w.message)]
    assert compiled.encoder.blocks[0]._compiled_call_impl is not None
    assert list(compiled.state_dict()) == names
    for found, right in zip(gradients(compiled, clips, mask), wanted, strict=True):
        torch.testing.assert_close(found, right)

    monkeypatch.setattr(torch, "compile", _with(compile_, backend=_broken))
    with pytest.warns(
        UserWarning, match="torch.compile failed .*no compiler.* will continue without compilation"
    ):
        result = run(config.replace(compile=True))
    assert curve(result) == curve(plain)


def _with(function, **fixed):
    return lambda *arguments, **options: function(*arguments, **(options | fixed))


def _broken(*_):
    raise RuntimeError("no compiler")


def test_masks_depend_on_the_seed_also_on_a_cpu():
    draws = {
        tuple(torch.rand(3, generator=seeded(seed, step, torch.device("cpu"))).tolist())
        for seed in range(4)
        for step in range(4)
    }
    assert len(draws) == 16


# ---- a run's folder ------------------------------------------------------------------------------


def test_a_run_says_what_made_it_and_its_config_makes_it_again(config, tmp_path):
    first = run(config, tmp_path / "run")
    (start,) = json.loads((tmp_path / "run/environment.json").read_text())
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert start["commit"] == (commit.stdout.strip() or None)
    assert (start["step"], start["processes"]) == (0, 1)
    assert start["torch"] == torch.__version__
    config_file = str(tmp_path / "run/config.yaml")
    assert Recipe.load(config_file).pretrain == config
    assert main(["pretrain", config_file, "--out", str(tmp_path / "again")]) == 0
    rows = [json.loads(x) for x in (tmp_path / "again/metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == curve(first)
    assert all(row["memory_gb"] > 0 for row in rows)
    a, b = (tmp_path / name / "model.safetensors" for name in ("run", "again"))
    assert a.read_bytes() == b.read_bytes()


def test_the_best_checkpoint_is_kept_beside_the_newest(config, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    for step, loss in enumerate([3.0, 1.0, 2.0, 2.0, float("nan")], 1):
        checkpoint.save_state(folder, checkpoint.Checkpoint(step, {}, [], loss), {}, keep=2)
    assert sorted(p.name[-1] for p in folder.iterdir()) == ["2", "4", "5"]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {"checkpoint": "checkpoints/step-00000002", "loss": 1.0}


def test_two_runs_in_one_folder_are_refused_and_the_lock_of_a_dead_one_is_not(config, tmp_path):
    code = f"from vmae.train.run_folder import lock; from pathlib import Path; import time\n" \
           f"with lock(Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(60)"  # fmt: skip
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(CheckpointError, match=f"in use by process {other.pid} on"):
        run(config, tmp_path)
    other.kill()
    other.wait()
    other.stdout.close()
    assert (tmp_path / "lock.json").exists()
    assert len(run(config, tmp_path).records) == 6
    assert not (tmp_path / "lock.json").exists()


def test_the_lock_of_another_machine_holds_unless_it_is_the_same_job(tmp_path, monkeypatch):
    holder = {"pid": 1, "started": 0.0, "host": "elsewhere", "job": "77"}
    (tmp_path / "lock.json").write_text(json.dumps(holder))
    with pytest.raises(CheckpointError, match="process 1 on elsewhere"), lock(tmp_path):
        pass
    monkeypatch.setenv(run_folder.JOB, "77")  # SLURM has put the job back into the queue
    with lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


def test_resuming_where_there_is_no_run_starts_it(config, tmp_path):
    assert curve(run(config, tmp_path / "new", resume=True)) == curve(run(config))


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(config, tmp_path):
    with full_disk(), pytest.raises(DiskError, match="no space left on the disk .* kept"):
        run(config, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000002"]
    assert curve(run(config, tmp_path / "run", resume=True)) == curve(run(config))


def test_a_folder_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DiskError, match="cannot write .*file.*choose another folder"):
            run(config, folder)


# ---- watching ------------------------------------------------------------------------------------


def test_a_signal_in_another_thread_than_the_main_one_is_not_asked_for(config):
    done = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: done.append(run(config)))
    thread.start()
    thread.join()
    assert len(done[0].records) == 6
    assert signal.getsignal(signal.SIGTERM) is before


def test_mfu_is_flops_over_the_rate_of_the_device(config, monkeypatch):
    monkeypatch.setattr(rates, "matmul_rate", lambda device, dtype: 1e9)
    result = run(config.replace(log_mfu=True, repeated_aug=2))
    multiply_adds = cost.pretraining_multiply_adds(MODEL, MASK)["total"]
    for record in result.records:
        achieved = record.clips_per_second * 2 * 6 * multiply_adds
        assert record.mfu == pytest.approx(achieved / 1e9)
    assert all(record.mfu is None for record in run(config).records)


def test_the_matmul_rate_is_a_rate():
    assert 1e8 < cost.matmul_rate(torch.device("cpu"), torch.float32) < 1e15


def test_a_loss_that_stays_at_one_is_explained_once(config):
    normalized = config.replace(model=MODEL.replace(normalize_targets=True))
    shown = monitoring.Watched(Silent(), normalized, None, accelerator_for("fp32", "cpu"))
    shown.start("pre-train", 0, 100)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step, loss in ((10, 1.0), (30, 0.9), (40, 0.99), (50, 1.0)):
            shown.update(step, Record(step, loss, 1e-3, 1.0, 1.0))
    assert len(said) == 1
    assert "0.990 after 40 of 100 steps" in str(said[0].message)
    assert "predicting the mean of every patch gives 1.0" in str(said[0].message)


# ---- a NaN loss ----------------------------------------------------------------------------------


@pytest.fixture
def poisoned(monkeypatch):
    """The fifth clip of step 3 has NaN targets."""
    pretraining, calls = import_module("vmae.train.pretrain"), []
    micro_batches = pretraining.micro_batches

    def spy(config, run, step, batch):
        calls.append(step)
        return micro_batches(config, run, step, batch)

    def bad(clips, mask, config):
        found = pixel_targets(clips, mask, config)
        if calls[-1] == 3:
            found[4] = float("nan")
        return found

    monkeypatch.setattr(pretraining, "micro_batches", spy)
    monkeypatch.setattr(pretraining, "pixel_targets", bad)


def test_a_nan_loss_names_step_and_clip_and_keeps_the_batch(config, tmp_path, poisoned):
    config = config.replace(log_every=6, save_every=4)
    with pytest.raises(FloatingPointError) as error:
        run(config, tmp_path / "run")
    assert "nan at step 3: lower the learning rate" in str(error.value)
    (kept,) = (tmp_path / "run").glob("nonfinite-step-00000003-0.safetensors")
    assert_names_the_fifth_clip(str(error.value), kept)
    assert not list((tmp_path / "run/checkpoints").glob("step-*")), "none after the bad step"


def test_a_step_with_a_nan_loss_can_be_skipped(config, tmp_path, poisoned):
    config = config.replace(on_nonfinite="skip", log_every=6)
    with pytest.warns(UserWarning, match="the loss at step 3 is nan: skipping this step"):
        result = run(config, tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    assert curve(result)[0] == curve(result)[0]
    state = tmp_path / "run/checkpoints/step-00000006/state.pt"
    moments = torch.load(state, weights_only=True)["optimizer"]["state"][0]
    assert int(moments["step"]) == 5


# ---- the table of memory -------------------------------------------------------------------------


def test_the_memory_in_the_readme_is_what_is_computed():
    """Every figure of the table, to the digits that it states."""
    text = (Path(checkpoint.__file__).parent / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| model |") :].split("\n\n")[0]
    rows = [
        [c.strip() for c in x.strip("|").split("|")] for x in table.splitlines() if x[:2] == "| "
    ]
    assert [row[0] for row in rows] == ["model", "S", "B", "L", "H", "g"]
    for size, *stated in rows[1:]:
        model = ModelConfig.videomae(size, 2 if size == "g" else 1)
        dual = ("running-cell", 0.5) if size == "g" else ("all", 0.0)
        scheme = MaskConfig("tube", 0.9, None, *dual)
        config = PretrainConfig(model=model, mask=scheme, precision="bf16", device="cuda")
        whole, shared = training_memory(config, 0), training_memory(config, 0, 8)
        clips = [
            training_memory(c, 1).activations - training_memory(c, 0).activations
            for c in (config, config.replace(activation_checkpointing=True))
        ]
        states = [m.weights + m.gradients + m.optimizer for m in (whole, shared)]
        computed = [whole.weights / 4e6, *(x / 1e9 for x in (*states, *clips))]
        for cell, right in zip(stated, computed, strict=True):
            number = cell.split()[0].replace(",", "")
            digits = len(number.partition(".")[2])
            assert f"{right:.{digits}f}" == number, (size, cell, right)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(config):
    with pytest.raises(ConfigError, match='finds no GPU.*set device to "cpu".*recipe `cpu`'):
        run(config.replace(device="cuda"))
    assert accelerator_for("auto", "auto").device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_nothing_was_tried_on_is_not_taken(monkeypatch):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    for name in ("is_available", "is_built"):
        monkeypatch.setattr(f"torch.backends.mps.{name}", lambda: True)
    assert accelerator_for("auto").device.type == "cpu"


def test_a_batch_larger_than_the_set_is_told(config):
    large = config.replace(optim=config.optim.replace(batch_size=50, steps=1))
    with pytest.warns(
        UserWarning, match="batch_size 50 is larger than the number of training videos, 48,"
    ):
        run(large)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_too_little_memory_names_the_fields_that_help(config, monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(MaskedAutoencoder, "forward", fails)
    with pytest.raises(interrupts.OutOfMemory) as found:
        run(config.replace(precision="fp32"))
    for words in ("out of memory", "A step of 8 clips", "grad_accum_steps: 2", "activation_checkpointing: true",
                  "precision: bf16", "optim.batch_size: 4"):  # fmt: skip
        assert words in str(found.value)


@pytest.mark.parametrize(
    "changes,words",
    [
        *WRONG_OPTIONS,
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0"),
    ],
)
def test_wrong_options_name_value_and_limit(config, changes, words):
    with pytest.raises(ConfigError, match=words):
        config.replace(**changes)


def test_a_signal_that_arrives_while_processes_agree_is_heard_at_the_next_meeting():
    arrivals = [signal.SIGTERM]

    def gather(heard: torch.Tensor) -> torch.Tensor:
        if arrivals:
            os.kill(os.getpid(), arrivals.pop())
        return torch.cat([heard, torch.zeros_like(heard)])  # the other process has heard nothing

    two = SimpleNamespace(num_processes=2, device="cpu", gather=gather)
    stop = interrupts.StopRequest(two)
    with stop.watched():
        assert [int(stop.agreed()) for _ in range(2)] == [0, signal.SIGTERM]
