"""Measure a fine-tuning of the experiment on labels, beside linear probes on the same labels."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from vmae.course.experiments.arms import recipe_arm
from vmae.course.experiments.labels import TunedArm, question
from vmae.course.experiments.sets import make_set
from vmae.course.experiments.table import SEARCH_SEED
from vmae.data.reading.sampling import Sampling
from vmae.data.sets.subsets import few_labels
from vmae.mae import MaskedAutoencoder
from vmae.support.progress import Silent
from vmae.train.evaluate import linear_probe, pooled_features
from vmae.train.finetune import Sources, finetune
from vmae.train.pretrain import pretrain
from vmae.train.run_folder import environment
from vmae.vit import VisionTransformer
from vmae.weights.tensors import load_weights


def tuned(arm: TunedArm, folder: Path | None = None) -> dict[str, Any]:
    """The entry of a fine-tuning: accuracies in percent by question, and the cost.

    tuned   of the classifier
    probe   of a linear probe on the encoder that the fine-tuning starts from, with the same labels
    floor   the same for an encoder with random initial weights
    """
    clips, config = make_set(arm.set), arm.config
    judged = clips.validation if arm.seed == SEARCH_SEED else clips.test
    classes = tuple(map(str, range(int(clips.train.labels["all labels"].max()) + 1)))
    encoder = None if arm.start == "from scratch" else pretrained(arm.set, arm.seed, folder)
    sources = Sources(classes, clips.train, judged)
    done = finetune(config, sources, encoder, Silent(), folder, resume=True)
    begun, rows = time.perf_counter(), list(range(len(clips.train.pixels)))
    if arm.labels is not None:
        rows = few_labels(clips.train.videos, arm.labels, classes, arm.seed)
    work = folder and folder.parent
    floor = _probe(arm.set, arm.seed, False, work, tuple(rows))
    probe = floor if encoder is None else _probe(arm.set, arm.seed, True, work, tuple(rows))
    asked = question(arm.labels)
    return {
        "start": arm.start, "labels": arm.labels, "steps": arm.steps, "lr": arm.lr, "seed": arm.seed,
        "tuned": {asked: round(done.test.accuracy, 2)},
        "probe": {asked: probe},
        "floor": {asked: floor},
        "loss": round(done.records[-1].loss, 5),
        "minutes": round(done.cost["minutes"] + (time.perf_counter() - begun) / 60, 2),
        "made": environment(torch.device("cpu")),
    }  # fmt: skip


def pretrained(set_name: str, seed: int, folder: Path | None) -> VisionTransformer:
    """The encoder of a seed's pre-training; trained again if its weights are not beside `folder`."""
    arm = recipe_arm(set_name, seed)
    source = make_set(set_name).unlabelled
    if folder is None:
        return pretrain(arm.config, progress=Silent(), source=source).model.encoder
    run = folder.parent / f"{set_name}, {arm.key}"
    with FileLock(f"{run}.lock"):  # the one that a process takes to run the arm
        if not (run / "model.safetensors").exists():
            pretrain(arm.config, run, resume=True, progress=Silent(), source=source)
    model = MaskedAutoencoder(arm.config.model)
    load_weights(model, run / "model.safetensors")
    return model.encoder.eval()


@lru_cache(maxsize=256)
def _probe(
    set_name: str, seed: int, trained: bool, work: Path | None, rows: tuple[int, ...]
) -> float:
    clips = make_set(set_name)
    judged = clips.validation if seed == SEARCH_SEED else clips.test
    features = _features(set_name, seed, trained, work)
    train, test = clips.train.labels["all labels"], judged.labels["all labels"]
    chosen = np.array(rows)
    return round(linear_probe((features[0][chosen], train[chosen]), (features[1], test)), 2)


@lru_cache(maxsize=4)
def _features(
    set_name: str, seed: int, trained: bool, work: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the training clips, and of those that are judged."""
    config = recipe_arm(set_name, seed).config
    if trained:
        encoder = pretrained(set_name, seed, work and work / "probe")
    else:
        torch.manual_seed(seed)
        encoder = MaskedAutoencoder(config.model).encoder.eval()
    clips = make_set(set_name)
    judged = clips.validation if seed == SEARCH_SEED else clips.test
    sampling = Sampling.of(config.data, config.model.num_frames)
    train, test = (pooled_features(encoder, x, sampling)[0] for x in (clips.train, judged))
    return train, test
