"""Seconds per training step, and with them the steps that arms may take in the same time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch

from vmae.course.experiments.arms import Arm
from vmae.masking import make_mask
from vmae.train.schedule import adamw


def seconds_per_step(arms: Sequence[Arm], rounds: int) -> list[float]:
    """Medians over rounds in which every arm takes one step, without the reading of clips.

    What else the machine is doing slows all arms alike.
    """
    runs = []
    for arm in arms:
        config, model = arm.config, arm.build(arm.config.model)
        size = (config.optim.batch_size, config.model.channels, *config.model.grid.clip)
        runs.append(
            (config, model, adamw(model, config.optim), torch.zeros(size, dtype=torch.uint8))
        )
    taken: list[list[float]] = [[] for _ in arms]
    for _ in range(rounds):
        for times, (config, model, optimizer, clips) in zip(taken, runs, strict=True):
            begun = time.perf_counter()
            optimizer.zero_grad()
            model.loss(clips, make_mask(config.mask, config.model.grid, len(clips))).backward()
            optimizer.step()
            times.append(time.perf_counter() - begun)
    return [median(times) for times in taken]
