"""Two processes are one run: the same losses, checkpoints for any number, a clear end without a peer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nursery import wait_for
from safetensors.torch import load_file
from small_runs import MODEL, pretraining

from vmae.data import DataConfig, open_set, open_source
from vmae.train import FinetuneConfig, PretrainConfig, load_classifier, save_classifier
from vmae.train.interrupts import STOPPED_STATUS
from vmae.train.validation import best_row, read_validation
from vmae.vit import VisionTransformer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills by signals"),
]

#: One process and two add the same numbers up in another order; measured: at most 3e-8.
LOSS = 1e-6

DDP: dict[str, str] = {}
FSDP = {"ACCELERATE_USE_FSDP": "true"}


@pytest.fixture(scope="module")
def config(motion_mini, tmp_path_factory) -> PretrainConfig:
    stores = tmp_path_factory.mktemp("stores")
    data = DataConfig(path=str(motion_mini), cache_dir=str(stores), num_workers=1)
    open_source(data, open_set(data).train, MODEL.img_size, MODEL.num_frames)
    short = pretraining(data)
    return short.replace(
        optim=short.optim.replace(steps=12),
        repeated_aug=2,
        crop=True,
        flip=True,
        grad_accum_steps=2,
        save_every=6,
        log_every=4,
        keep_checkpoints=5,
    )


@pytest.fixture(scope="module")
def alone(nursery, config, tmp_path_factory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    config.to_yaml(folder / "config.yaml")
    log = folder / "log"
    arguments = ("pretrain", str(folder / "config.yaml"), "--out", str(folder / "run"))
    assert nursery.wait(nursery.start(log, *arguments)) == 0, log.read_text()
    return folder / "run"


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def close(run: Path, alone: Path) -> None:
    """The losses and the weights of `run` are those of one process, up to the order of sums."""
    assert losses(run) == pytest.approx(losses(alone), abs=LOSS)
    found, wanted = (load_file(path / "model.safetensors") for path in (run, alone))
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [DDP, FSDP], ids=["DDP", "FSDP2"])
def test_two_processes_give_the_losses_of_one_and_each_resumes_from_the_other(
    nursery, config, alone, tmp_path, kind
):
    config.to_yaml(tmp_path / "config.yaml")
    command = (
        "pretrain",
        str(tmp_path / "config.yaml"),
        "--resume",
        "--out",
        str(tmp_path / "two"),
    )
    log = tmp_path / "log"
    for process in nursery.start_group(log, 2, *command, **kind):
        assert nursery.wait(process) == 0, log.with_suffix(".0").read_text()
    close(tmp_path / "two", alone)
    assert len(losses(tmp_path / "two")) == 3, "one process writes"

    def half_way(run: Path) -> None:
        for path in (run / "checkpoints").iterdir():
            if path.name != "step-00000006":
                path.rename(run / f"gone-{path.name}")

    # From two to one...
    half_way(tmp_path / "two")
    assert nursery.wait(nursery.start(log, *command)) == 0, log.read_text()
    close(tmp_path / "two", alone)
    # ...and back to two.
    (tmp_path / "two/checkpoints/step-00000012").rename(tmp_path / "gone")
    for process in nursery.start_group(log, 2, *command, **kind):
        assert nursery.wait(process) == 0, log.with_suffix(".0").read_text()
    close(tmp_path / "two", alone)
    starts = json.loads((tmp_path / "two/environment.json").read_text())
    assert [(s["step"], s["processes"]) for s in starts] == [(0, 2), (6, 1), (6, 2)]


def test_a_lost_peer_ends_the_run_with_a_clear_error_and_a_whole_checkpoint(
    nursery, config, alone, tmp_path
):
    long = config.replace(optim=config.optim.replace(steps=100_000), save_every=2)
    long.to_yaml(tmp_path / "config.yaml")
    run, log = tmp_path / "run", tmp_path / "log"
    command = ("pretrain", str(tmp_path / "config.yaml"), "--resume", "--out", str(run))
    left, lost = nursery.start_group(log, 2, *command)
    wait_for((run / "best.json").exists)
    os.kill(lost, signal.SIGKILL)
    assert nursery.wait(lost) == -signal.SIGKILL
    assert nursery.wait(left, seconds=30) == 1
    said = log.with_suffix(".0").read_text()
    assert "vmae: another of the 2 processes died" in said
    assert "Saved checkpoint: step " in said
    # One process goes on, until it is asked to stop.
    at = sorted((run / "checkpoints").glob("step-*"))[-1]
    again = nursery.start(log, *command)
    wait_for(lambda: [p for p in (run / "checkpoints").glob("step-*") if p.name > at.name])
    os.kill(again, signal.SIGTERM)
    assert nursery.wait(again) == STOPPED_STATUS
    assert json.loads((run / "environment.json").read_text())[-1]["step"] == int(at.name[5:])


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(nursery, config, tmp_path):
    long = config.replace(optim=config.optim.replace(steps=100_000), save_every=10**6, log_every=3)
    long.to_yaml(tmp_path / "config.yaml")
    run, log = tmp_path / "run", tmp_path / "log"
    processes = nursery.start_group(
        log, 2, "pretrain", str(tmp_path / "config.yaml"), "--out", str(run)
    )
    wait_for((run / "metrics.jsonl").exists)
    os.kill(processes[1], signal.SIGTERM)  # not the one that writes
    assert [nursery.wait(process) for process in processes] == [STOPPED_STATUS] * 2
    (saved,) = (run / "checkpoints").iterdir()
    assert int(saved.name[5:]) % 3 == 0, "they agree where they wait for each other anyway"


def report(log: Path) -> dict:
    """What a process printed as JSON; its log may hold warnings and a progress bar too."""
    text = log.read_text()
    return json.JSONDecoder().raw_decode(text, ("\n" + text).index("\n{"))[0]


@pytest.mark.parametrize("kind", [DDP, FSDP], ids=["DDP", "FSDP2"])
def test_two_processes_fine_tune_and_test_as_one(nursery, config, tmp_path, kind):
    optim = config.optim.replace(lr=3e-3)
    data = config.data.replace(cache_dir=str(tmp_path / "stores"))  # which one of them makes
    tuning = FinetuneConfig(
        model=config.model, data=data, optim=optim, grad_accum_steps=2, log_every=4, test_clips=25
    )
    # With 25 clips per video the test has three batches: two for one process, and a shorter one.
    tuning.to_yaml(tmp_path / "config.yaml")
    command = ("finetune", str(tmp_path / "config.yaml"), "--out")
    two, one, log = tmp_path / "two", tmp_path / "one", tmp_path / "log"
    for process in nursery.start_group(log, 2, *command, str(two), **kind):
        assert nursery.wait(process) == 0, log.with_suffix(".0").read_text()
    assert nursery.wait(nursery.start(log, *command, str(one))) == 0, log.read_text()
    close(two, one)
    assert len(losses(two)) == 3, "one process writes"
    assert report(log.with_suffix(".0"))["accuracy"] == report(log)["accuracy"]
    assert '"accuracy"' not in log.with_suffix(".1").read_text(), "one process prints"

    test, again = tmp_path / "test", tmp_path / "test.json"
    for process in nursery.start_group(test, 2, "evaluate", str(one)):
        assert nursery.wait(process) == 0, test.with_suffix(".0").read_text()
    assert nursery.wait(nursery.start(test, "evaluate", str(one), "--json", str(again))) == 0
    alone = json.loads(again.read_text())
    assert sum(map(sum, alone.pop("confusion"))) == alone["videos"] == 24, "each video once"
    assert report(test.with_suffix(".0")) == alone

    odd = tuning.replace(optim=optim.replace(batch_size=9), grad_accum_steps=1)
    odd.to_yaml(tmp_path / "config.yaml")
    bad = tmp_path / "bad"
    for process in nursery.start_group(bad, 2, *command, str(tmp_path / "odd"), **kind):
        assert nursery.wait(process) == 1
    assert "batch_size 9 must be divisible by 2 processes" in bad.with_suffix(".0").read_text()


@pytest.mark.parametrize("kind", [DDP, FSDP], ids=["DDP", "FSDP2"])
def test_two_processes_validate_as_one(nursery, config, tmp_path, kind):
    data = config.data.replace(cache_dir=str(tmp_path / "stores"))
    tuning = FinetuneConfig(
        model=config.model, data=data, optim=config.optim, log_every=4, val_share=0.3
    )
    tuning.to_yaml(tmp_path / "config.yaml")
    command, log = ("finetune", str(tmp_path / "config.yaml"), "--out"), tmp_path / "log"
    for process in nursery.start_group(log, 2, *command, str(tmp_path / "two"), **kind):
        assert nursery.wait(process) == 0, log.with_suffix(".0").read_text()
    assert nursery.wait(nursery.start(log, *command, str(tmp_path / "one"))) == 0, log.read_text()
    two, one = (read_validation(tmp_path / name / "validation.jsonl") for name in ("two", "one"))
    assert [row["step"] for row in two] == [row["step"] for row in one] == [4, 8, 12]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=1e-4)
    kept = load_classifier(tmp_path / "two")[0].state_dict()
    assert kept.keys() == load_classifier(tmp_path / "one")[0].state_dict().keys()
    assert report(log.with_suffix(".0"))["best_step"] == best_row(two)["step"]


def test_two_processes_leave_out_the_same_videos(nursery, config, tmp_path):
    """One of them reads the test clips of all videos, and tells the other what it found."""
    clips = Path(shutil.copytree(config.data.path, tmp_path / "clips"))
    sorted(clips.rglob("*.mp4"))[0].write_bytes(b"no video")
    data = config.data.replace(path=str(clips), cache=False, num_workers=0)
    tuning = FinetuneConfig(model=config.model, data=data, optim=config.optim, log_every=4)
    tuning.to_yaml(tmp_path / "config.yaml")
    command, log = ("finetune", str(tmp_path / "config.yaml"), "--out"), tmp_path / "log"
    for process in nursery.start_group(log, 2, *command, str(tmp_path / "run"), **DDP):
        assert nursery.wait(process) == 0, log.with_suffix(".0").read_text()
    assert report(log.with_suffix(".0"))["unreadable_videos"] == 1
    for rank in "01":
        assert "1 of 72 videos could not be read" in log.with_suffix(f".{rank}").read_text()


def test_two_processes_with_two_workers_each_test_as_one_without(nursery, config, tmp_path):
    data = config.data.replace(cache=False, num_workers=2)
    tuning = FinetuneConfig(
        model=config.model, data=data, test_clips=25
    )  # 12 videos each, 300 clips
    torch.manual_seed(0)
    model = VisionTransformer(config.model, 8, init_scale=1.0)
    save_classifier(model, open_set(data).classes, tuning, tmp_path / "model")
    log, command = tmp_path / "log", ("evaluate", str(tmp_path / "model"))
    for process in nursery.start_group(log, 2, *command):  # and four workers
        assert nursery.wait(process, seconds=300) == 0, log.with_suffix(".0").read_text()
    assert nursery.wait(nursery.start(log, *command, "--num-workers", "0")) == 0, log.read_text()
    assert report(log.with_suffix(".0")) == report(log)
    assert report(log)["videos"] == 24


def test_the_launcher_of_the_docs_starts_two_processes(config, alone, tmp_path):
    config.to_yaml(tmp_path / "config.yaml")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
              "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
              "--main_process_port", "0"]  # fmt: skip
    command = [
        "-m",
        "vmae",
        "pretrain",
        str(tmp_path / "config.yaml"),
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(launch + command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/environment.json").read_text())[0]["processes"] == 2
    said = done.stdout[done.stdout.index("{") :]  # some versions of gloo greet on stdout
    last = losses(tmp_path / "run")[-1]
    assert last == pytest.approx(losses(alone)[-1], abs=LOSS)
    assert json.loads(said)["loss"] == pytest.approx(last, abs=5.1e-5)  # rounded
