"""Experiments: each arm runs once, survives being killed, and is listed with verdicts."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import small_experiment
import torch
from nursery import wait_for
from small_experiment import NAME, STEPS

from vmae import ROOT
from vmae.cli.main import main
from vmae.course.experiments import measure, results, table
from vmae.course.experiments.arms import Arm, search, wanted
from vmae.course.experiments.search import best, tried
from vmae.course.experiments.table import EXPERIMENTS, SEARCH_SEED
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The small experiment, with results and work in `tmp_path`; the table is restored afterwards."""
    kept = [(x, copy.copy(x)) for x in (table.EXPERIMENTS, table.STEPS, table.BASE)]
    monkeypatch.setattr(table, "RATES", table.RATES)
    monkeypatch.setattr(measure, "make_set", measure.make_set)
    monkeypatch.setattr(measure, "WAIT", measure.WAIT)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    measure.floor_of.cache_clear()
    small_experiment.shrink()
    yield tmp_path
    for changed, before in kept:
        changed.clear()
        changed.update(before)
    measure.floor_of.cache_clear()


def started(tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, small_experiment.__file__, tmp_path / "results", tmp_path / "work"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def without_times(entry: dict) -> dict:
    return {key: value for key, value in entry.items() if key not in ("minutes", "made")}


@pytest.mark.parametrize("name", [n for n, x in EXPERIMENTS.items() if not x.labels])
def test_every_experiment_can_be_run(name):
    experiment = EXPERIMENTS[name]
    assert set(experiment.extremes) <= set(experiment.arms)
    for claim in experiment.claims:
        assert {claim.better, claim.worse} <= set(experiment.arms)
        assert claim.set in experiment.sets
    configs = set()
    speeds = {s: {f"speed, {v}": {"steps": 9} for v in table.TIMED} for s in experiment.sets}
    variants = [(s, v) for s in experiment.sets for v in experiment.arms.values()]
    for arm in (a for s, v in variants for a in search(s, v, speeds)):
        make_mask(arm.config.mask, arm.config.model.grid, 1)  # the grid has room for it
        configs.add((str(arm.config), arm.build))
    assert len(configs) == len(experiment.sets) * len(experiment.arms) * len(table.RATES)


def test_searches_come_first_and_decide_the_rates(small):
    arms = wanted([NAME], None, {})
    assert len(arms) == len(set(arms)) == 2 * 2 + 3 + 2 + 3
    assert [arm.seed for arm in arms[:4]] == [SEARCH_SEED] * 4
    assert all(arm.lr is None for arm in arms[4:])
    probes = {
        ("base", 1e-3): 50.0,
        ("base", 2e-3): 60.0,
        ("base", 4e-3): 55.0,
        ("frame", 5e-4): 60.0,
        ("frame", 1e-3): 70.0,
        ("frame", 2e-3): 70.0,
    }
    rows = {
        Arm("digits", v, STEPS, SEARCH_SEED, lr).key: {"probe": {"how": p, "what": 10.0}}
        for (v, lr), p in probes.items()
    }
    arms = wanted([NAME], None, {"digits": rows})[6:]
    assert [(a.variant, a.lr, a.seed, a.steps) for a in arms] == [
        ("base", 2e-3, 0, STEPS), ("random", 2e-3, 0, STEPS), ("frame", 1e-3, 0, STEPS),
        ("base", 2e-3, 0, 2 * STEPS), ("frame", 1e-3, 0, 2 * STEPS),
        ("base", 2e-3, 1, STEPS), ("random", 2e-3, 1, STEPS), ("frame", 1e-3, 1, STEPS),
    ]  # fmt: skip
    del rows[next(iter(rows))]
    assert {a.seed for a in wanted([NAME], [3], {})} == {SEARCH_SEED, 3}  # beyond the table's
    base, _, frame = wanted([NAME], [0], {"digits": rows})[5:8]
    assert base.lr is None and frame.lr == 1e-3


@pytest.mark.parametrize(
    ("scores", "rates", "chosen"),
    [
        ({1.0: 5.0, 2.0: 4.0}, (0.5, 1.0, 2.0), None),  # 0.5 is to be measured
        ({0.5: 4.0, 1.0: 5.0, 2.0: 5.0}, (0.5, 1.0, 2.0), 1.0),
        ({0.25: 6.0, 0.5: 6.0, 1.0: 5.0, 2.0: 4.0}, (0.25, 0.5, 1.0, 2.0), 0.25),  # no further
        ({1.0: 5.0, 2.0: 6.0}, (1.0, 2.0, 4.0), None),  # 4 is to be measured
        ({1.0: 5.0, 2.0: 6.0, 4.0: 5.5}, (1.0, 2.0, 4.0), 2.0),
        ({1.0: 5.0, 2.0: 6.0, 4.0: 7.0}, (1.0, 2.0, 4.0, 8.0), None),
        ({1.0: 5.0, 2.0: 6.0, 4.0: 7.0, 8.0: 8.0}, (1.0, 2.0, 4.0, 8.0), 8.0),  # no further
        ({2.0: 6.0}, (1.0, 2.0), None),
        ({}, (1.0, 2.0), None),
    ],
)
def test_a_search_goes_beyond_a_best_rate_at_its_edge(scores, rates, chosen):
    assert tried((1.0, 2.0), scores.get) == rates
    assert best(rates, scores.get) == chosen


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
def test_processes_share_the_arms_and_one_that_is_killed_resumes(small):
    """Two processes, one of which is killed at a checkpoint and replaced, and one from nothing."""
    killed = started(small)
    wait_for(lambda: list((small / "work").glob("*/checkpoints/step-00000004")))
    killed.kill()
    unfinished = killed.communicate()[0].splitlines()[-1]
    assert unfinished.endswith("...")
    processes = [started(small), started(small)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    lines = Counter(x for x in "\n".join(outputs).splitlines() if x.endswith("..."))
    assert unfinished in lines and set(lines.values()) == {1}

    entries = results.load("digits")
    arms = wanted([NAME], None, {"digits": entries})
    assert {arm.key for arm in arms} | {f"copier, {v}" for v in ("base", "random", "frame")} == set(
        entries
    )
    assert not measure.missing([NAME], None)
    assert not list((small / "work").glob("*/checkpoints"))
    resumed = next(arm for arm in arms if unfinished == f"digits: {arm.key} ...")
    for arm in (resumed, arms[-1]):
        again = measure.measured(arm)
        assert without_times(json.loads(json.dumps(again))) == without_times(entries[arm.key])


def test_the_floor_is_the_encoder_that_the_run_starts_from(small):
    arm = Arm("digits", "base", 1, 5, 1e-12)
    entry = measure.measured(arm)
    assert entry["floor"] == entry["probe"]
    assert entry["tokens"] == [64, 16, 48] and set(entry["floor"]) == {"how", "what"}
    assert measure.measured(Arm("digits", "base", 1, 6, 1e-12))["floor"] != entry["floor"]


def test_the_command_lists_results_verdicts_and_what_is_missing(small, capsys):
    assert main(["experiments", NAME]) == 0
    printed = capsys.readouterr().out
    assert "not measured yet: frame above tube on digits, how" in printed
    assert "0 of 12 arms are measured; the other 12 take about" in printed

    work = small / "work"
    for lr, how in ((1e-3, 50.0), (2e-3, 50.0), (5e-4, 45.0)):
        for arm in wanted([NAME], None, measure.found([NAME])):
            if arm.seed == SEARCH_SEED and arm.lr == lr:
                entry = {"variant": arm.variant, "probe": {"how": how, "what": 9.0}}
                results.add("digits", arm.key, entry, work)
    for arm in wanted([NAME], None, measure.found([NAME])):
        if arm.seed != SEARCH_SEED:
            how = {"base": 60.0, "random": 70.0, "frame": 80.0 + 0.1 * arm.seed}[arm.variant]
            how += 1.5 * (arm.steps > STEPS) * (2 if arm.variant == "base" else 1)
            entry = {
                "probe": {"how": how, "what": 30.0 + how * arm.seed}, "seed": arm.seed, "tokens": [64, 16, 48],
                "floor": {"how": 40.0, "what": 20.0}, "minutes": 3.0, "steps": arm.steps,
                "variant": arm.variant,
            }  # fmt: skip
            results.add("digits", arm.key, entry, work)
    assert main(["experiments", NAME]) == 0
    printed = capsys.readouterr().out
    assert "60.0 (60.0, 60.0), floor 40.0, +3.0 with twice the steps: still rising" in printed
    assert "80.0 (80.0, 80.1), floor 40.0, +1.5 with twice the steps: on its plateau" in printed
    assert "holds: frame above tube on digits, how: +20.0 points, 95 % interval" in printed
    assert "inconclusive: tube above frame on digits, what" in printed
    assert "are measured" not in printed
    assert printed.count("digits, how: tube ") == 1


def test_an_unknown_experiment_is_reported_with_the_known_ones(capsys):
    assert main(["experiments", "masks", "colour"]) == 1
    message = capsys.readouterr().err
    assert "'colour'" in message and "'decoder mask'" in message
    assert "'masks'" not in message.split(": choose from")[0]


def test_a_symmetric_model_reads_mask_tokens_from_the_same_initial_encoder():
    arm = Arm("textures", "symmetric", 1, 0, 1e-3)
    config = arm.config
    base = Arm("textures", "base", 1, 0, 1e-3).config
    torch.manual_seed(3)
    model = arm.build(config.model)
    torch.manual_seed(3)
    usual = MaskedAutoencoder(base.model)
    for name, weights in usual.encoder.state_dict().items():
        assert torch.equal(weights, model.encoder.state_dict()[name])
    clips = torch.randint(0, 256, (2, *(1, 8, 16, 16)), dtype=torch.uint8)
    mask = make_mask(config.mask, config.model.grid, 2, torch.Generator().manual_seed(0))
    lengths = []
    model.encoder.blocks[0].register_forward_hook(lambda *x: lengths.append(x[1][0].shape[1]))
    model.loss(clips, mask).backward()
    assert lengths == [64]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    # The order of the queries is that of the predictions.
    swap = torch.arange(mask.queries.shape[1]).flip(0)
    swapped = dataclasses.replace(mask, queries=mask.queries[:, swap])
    assert torch.allclose(model(clips, mask)[:, swap], model(clips, swapped), atol=1e-5)


def test_steps_of_equal_time_come_from_measured_speeds(small, monkeypatch):
    table.EXPERIMENTS["timed"] = dataclasses.replace(EXPERIMENTS["cost"], sets=("digits",))
    monkeypatch.setattr(measure, "ROUNDS", 1)
    seconds = iter([[0.05, 0.1, 0.15, 0.2]])
    monkeypatch.setattr(measure, "seconds_per_step", lambda arms, rounds: next(seconds))
    work = small / "work"
    work.mkdir()
    timed = [a for a in wanted(["timed"], None, {}) if a.variant in table.TIMED]
    assert timed and not any(arm.ready for arm in timed)
    for _ in range(2):  # the second time, nothing is left to measure
        measure.measure_speeds("timed", work)
    rows = results.load("digits")
    assert {key: row["steps"] for key, row in rows.items()} == {
        "speed, large decoder": 6, "speed, encoder sees all": 4, "speed, symmetric": 3
    }  # fmt: skip
    assert rows["speed, symmetric"]["budget_seconds"] == round(STEPS * 0.05)
    timed = [a for a in wanted(["timed"], [0], {"digits": rows}) if a.variant in table.TIMED]
    assert [a.steps for a in timed if a.seed != SEARCH_SEED] == [6, 4, 3]  # and none of twice
    entry = measure.measured(timed[0])
    assert entry["steps"] == timed[0].steps and set(entry["probe"]) == {"how", "what"}
