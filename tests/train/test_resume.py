"""Runs that are killed at any moment go on to the same numbers, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from nursery import wait_for
from safetensors.torch import load_file
from small_runs import MASK

from vmae.config import ModelConfig
from vmae.data import DataConfig, open_set, open_source
from vmae.train import FinetuneConfig, OptimConfig, PretrainConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="forks, and kills by signals"),
]

KILLS = {"pretrain": 20, "finetune": 6}


@pytest.fixture(scope="module")
def config(motion_mini, tmp_path_factory) -> PretrainConfig:
    model = ModelConfig.videomae(
        "tiny", depth=1, embed_dim=16, num_heads=2, decoder_embed_dim=12, decoder_num_heads=2, decoder_depth=1,
        normalize_targets=False,
    )  # fmt: skip
    stores = tmp_path_factory.mktemp("stores")
    data = DataConfig(path=str(motion_mini), cache_dir=str(stores), num_workers=1)
    open_source(data, open_set(data).train, model.img_size, model.num_frames)  # made once, here
    optim = OptimConfig(steps=250, batch_size=4, lr=1e-3)
    return PretrainConfig(
        model=model, mask=MASK, data=data, optim=optim, save_every=3, log_every=10
    )


def losses(run: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def same_end(one: Path, other: Path) -> None:
    """Every loss, every weight and every moment of the optimizer are equal."""
    assert losses(one) == losses(other)
    last = sorted((one / "checkpoints").iterdir())[-1].name
    for name in ("model.safetensors", f"checkpoints/{last}/model.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), key
    a, b = (
        torch.load(run / f"checkpoints/{last}/state.pt", weights_only=True)["optimizer"]["state"]
        for run in (one, other)
    )
    for number in a:
        for key in a[number]:
            assert torch.equal(a[number][key], b[number][key]), (number, key)


def moment(chance: random.Random, checkpoints: Path) -> None:
    """Wait until a few checkpoints more are there, then some milliseconds: anywhere, in a step or a write."""

    def newest() -> str:
        return max((path.name for path in checkpoints.glob("step-*")), default="")

    for _ in range(chance.randrange(4)):
        before, end = newest(), time.monotonic() + 60
        while newest() == before and time.monotonic() < end:
            time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.05))


@pytest.fixture(scope="module")
def tuning(config) -> FinetuneConfig:
    """With everything on that draws: layers, augmentation, mixing."""
    open_source(
        config.data, open_set(config.data).test, config.model.img_size, config.model.num_frames
    )
    optim = OptimConfig(steps=120, batch_size=4, lr=1e-3, betas=(0.9, 0.999))
    return FinetuneConfig(
        model=config.model, data=config.data, optim=optim, drop_path=0.3, head_drop=0.3, repeated_aug=2, crop=True,
        random_erase_prob=0.25, mixup=0.8, cutmix=1.0, view="shuffled", save_every=3, log_every=10,
    )  # fmt: skip


@pytest.mark.parametrize("command", KILLS)
def test_kills_at_random_moments_change_no_bit(nursery, config, tuning, tmp_path, command):
    chance = random.Random(int(os.environ.get("VMAE_KILL_SEED", "0")))
    {"pretrain": config, "finetune": tuning}[command].to_yaml(tmp_path / "config.yaml")
    again = (command, str(tmp_path / "config.yaml"), "--resume", "--out")
    log, cut = tmp_path / "log", tmp_path / "cut"
    whole = nursery.start(log, *again, str(tmp_path / "whole"))
    for _ in range(KILLS[command]):
        process = nursery.start(log, *again, str(cut))
        moment(chance, cut / "checkpoints")
        os.kill(process, signal.SIGKILL)
        assert nursery.wait(process) == -signal.SIGKILL, log.read_text()
    last = nursery.start(log, *again, str(cut))
    assert nursery.wait(last) == nursery.wait(whole) == 0, log.read_text()
    same_end(tmp_path / "whole", cut)
    assert not list(cut.rglob("*.part")), "nothing half-written is left"
    starts = json.loads((cut / "environment.json").read_text())
    wanted = 5 if command == "pretrain" else 3
    assert len({start["step"] for start in starts}) >= wanted, "kills fell on different steps"


@pytest.mark.parametrize(
    "kind,number,status",
    [
        ("pretrain", signal.SIGTERM, 75),
        ("pretrain", signal.SIGINT, 130),
        ("finetune", signal.SIGTERM, 75),
    ],
)
def test_a_signal_saves_and_the_status_says_so(
    nursery, config, tuning, tmp_path, kind, number, status
):
    run = {"pretrain": config, "finetune": tuning}[kind].replace(save_every=10**6)
    run.to_yaml(tmp_path / "config.yaml")
    command = (
        kind,
        str(tmp_path / "config.yaml"),
        "--resume",
        "--out",
        str(tmp_path / "run"),
    )
    process = nursery.start(tmp_path / "log", *command)
    wait_for((tmp_path / "run/metrics.jsonl").exists)
    os.kill(process, number)
    assert nursery.wait(process) == status
    assert "to continue, run the same command with --resume" in (tmp_path / "log").read_text()
    (saved,) = (tmp_path / "run/checkpoints").iterdir()
    assert int(saved.name[5:]) < run.optim.steps
    assert not (tmp_path / "run/lock.json").exists()
    again = nursery.start(tmp_path / "log", *command)
    whole = nursery.start(tmp_path / "log", *command[:-1], str(tmp_path / "whole"))
    assert nursery.wait(again) == nursery.wait(whole) == 0
    same_end(tmp_path / "whole", tmp_path / "run")
