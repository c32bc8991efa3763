"""Measure what is missing: runs that may be killed at any time, in several processes at once.

A process takes an arm by locking it; the system releases the lock when the process ends, however it
ends. The arm then resumes from its last checkpoint, to the same numbers.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from vmae.config import ModelConfig
from vmae.course.experiments import results
from vmae.course.experiments.arms import Arm, wanted
from vmae.course.experiments.copier import copying_errors
from vmae.course.experiments.labels import TunedArm
from vmae.course.experiments.sets import make_set
from vmae.course.experiments.speed import seconds_per_step
from vmae.course.experiments.table import EXPERIMENTS, RATES, SEARCH_SEED, STEPS, TIMED
from vmae.course.experiments.tuning import tuned
from vmae.data.reading.sampling import Sampling
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.support.progress import Silent
from vmae.train.evaluate import linear_probe, pooled_features
from vmae.train.pretrain import pretrain
from vmae.train.run_folder import environment
from vmae.vit import VisionTransformer

#: Rounds in which the speeds of an experiment are measured.
ROUNDS = 100
#: Seconds between two looks at arms that other processes are running.
WAIT = 20.0


def found(names: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """All results on the sets of these experiments."""
    return {
        set_name: results.load(set_name) for name in names for set_name in EXPERIMENTS[name].sets
    }


def missing(names: Sequence[str], seeds: Sequence[int] | None) -> list[Arm | TunedArm]:
    """The arms without a result, the most important first."""
    have = found(names)
    return [arm for arm in wanted(names, seeds, have) if arm.key not in have[arm.set]]


def measure(names: Sequence[str], seeds: Sequence[int] | None, work: Path) -> None:
    """Run every missing arm; each result is written as soon as it is known.

    work   for checkpoints and locks. Processes with the same folder share the arms among them
    """
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    for name in names:
        if EXPERIMENTS[name].copiers:
            measure_copiers(name, work)
        measure_speeds(name, work)
    while todo := missing(names, seeds):
        for arm in todo:
            if not arm.ready:  # a search on which it depends is running elsewhere
                continue
            with claimed(arm, work) as mine:
                if mine and arm.key not in results.load(arm.set):
                    run(arm, work)
                    break
        else:
            time.sleep(WAIT)


@contextmanager
def claimed(arm: Arm | TunedArm, work: Path) -> Iterator[bool]:
    """Whether this process, and no other, may run the arm during the block."""
    lock = FileLock(work / f"{arm.set}, {arm.key}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    with lock:
        yield True


def run(arm: Arm | TunedArm, work: Path) -> None:
    """Pre-train, freeze, probe, or fine-tune; write the result; keep weights of pre-training alone."""
    folder = work / f"{arm.set}, {arm.key}"
    print(f"{arm.set}: {arm.key} ...", flush=True)
    if isinstance(arm, TunedArm):
        entry, done_with = tuned(arm, folder), folder
    else:
        entry, done_with = measured(arm, folder), folder / "checkpoints"
    results.add(arm.set, arm.key, entry, work)
    shutil.rmtree(done_with, ignore_errors=True)
    scores = ", ".join(
        f"{question} {score:.1f} (floor {entry['floor'][question]:.1f})"
        for question, score in entry.get("tuned", entry["probe"]).items()
    )
    print(f"{arm.set}: {arm.key}: {scores}, {entry['minutes']:.1f} min", flush=True)


def measured(arm: Arm, folder: Path | None = None) -> dict[str, Any]:
    """The entry of an arm: accuracies in percent by question, their floor, the loss, the cost.

    floor   the same encoder with its random initial weights
    curve   [step, loss] about twenty times, means over the steps since the last
    """
    config, clips = arm.config, make_set(arm.set)
    done = pretrain(
        config, folder, resume=True, progress=Silent(), source=clips.unlabelled, build=arm.build
    )
    begun = time.perf_counter()
    judge = "validation" if arm.seed == SEARCH_SEED else "test"
    probe = probed(done.model.encoder, arm.set, judge)
    floor = floor_of(arm.set, config.model, config.seed, judge)
    records = done.records
    chosen = records[:: max(1, len(records) // 20)]
    return {
        "variant": arm.variant, "steps": arm.steps, "lr": arm.lr, "seed": arm.seed,
        "probe": probe,
        "floor": floor,
        "loss": round(records[-1].loss, 5),
        "curve": [[record.step, round(record.loss, 4)] for record in chosen],
        "minutes": round(done.cost["minutes"] + (time.perf_counter() - begun) / 60, 2),
        "tokens": token_counts(arm),
        "made": environment(torch.device("cpu")),
    }  # fmt: skip


def token_counts(arm: Arm) -> list[int]:
    """[N, V, Q] of an arm, on which its cost depends."""
    config = arm.config
    mask = make_mask(config.mask, config.model.grid, 1)
    return [config.model.grid.num_tokens, mask.visible.shape[1], mask.queries.shape[1]]


def probed(encoder: VisionTransformer, set_name: str, judge: str) -> dict[str, float]:
    """Accuracy of a linear probe by question, on the clips `judge`: "validation" or "test"."""
    clips = make_set(set_name)
    judged, sampling = getattr(clips, judge), Sampling(encoder.config.num_frames)
    train, test = (pooled_features(encoder, x, sampling)[0] for x in (clips.train, judged))
    return {
        q: round(linear_probe((train, clips.train.labels[q]), (test, judged.labels[q])), 2)
        for q in clips.questions
    }


@lru_cache(maxsize=64)
def floor_of(set_name: str, model: ModelConfig, seed: int, judge: str) -> dict[str, float]:
    """The probe of the encoder that a run with this seed starts from."""
    torch.manual_seed(seed)
    return probed(MaskedAutoencoder(model).encoder.eval(), set_name, judge)


def measure_copiers(name: str, work: Path) -> None:
    """What copying gives away under the masks of an experiment: seconds per mask, no training."""
    experiment = EXPERIMENTS[name]
    for set_name in experiment.sets:
        for variant in experiment.arms.values():
            key = f"copier, {variant}"
            if key not in results.load(set_name):
                config = Arm(set_name, variant, 1, SEARCH_SEED, 1e-3).config
                clips = make_set(set_name).test
                entry = copying_errors(clips.pixels, config, wraps=set_name.startswith("digits"))
                stamp = {"variant": variant, "made": environment(torch.device("cpu"))}
                results.add(set_name, key, {"errors": entry} | stamp, work)


def measure_speeds(name: str, work: Path) -> None:
    """For variants that train for as long as the base: their seconds per step, and how many fit in."""
    variants = [v for v in EXPERIMENTS[name].arms.values() if v in TIMED]
    for set_name in EXPERIMENTS[name].sets:
        with FileLock(work / f"{set_name}, speeds.lock"):
            if all(f"speed, {v}" in results.load(set_name) for v in variants):
                continue
            compared = [
                Arm(set_name, v, STEPS[set_name], SEARCH_SEED, RATES[0])
                for v in ("base", *variants)
            ]
            base, *others = seconds_per_step(compared, ROUNDS)
            for variant, seconds in zip(variants, others, strict=True):
                entry = {
                    "variant": variant,
                    "seconds_per_step": round(seconds, 5),
                    "seconds_per_step_of_base": round(base, 5),
                    "budget_seconds": round(STEPS[set_name] * base),
                    "steps": max(1, round(STEPS[set_name] * base / seconds)),
                    "made": environment(torch.device("cpu")),
                }
                results.add(set_name, f"speed, {variant}", entry, work)
