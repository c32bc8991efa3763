"""Seconds per training step, and with them the steps that arms may take in the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import nn

from vmae.course.experiments.arms import Arm
from vmae.course.experiments.labels import TunedArm
from vmae.masking import make_mask
from vmae.train.config import RunConfig
from vmae.train.schedule import adamw
from vmae.vit import VisionTransformer


def seconds_per_step(arms: Sequence[Arm | TunedArm], rounds: int) -> list[float]:
    """Medians over rounds in which every arm takes one step, without the reading of clips (2 %).

    What else the machine is doing slows all arms alike.
    """
    steps = [_step(arm) for arm in arms]
    taken: list[list[float]] = [[] for _ in arms]
    for _ in range(rounds):
        for times, step in zip(taken, steps, strict=True):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
    return [median(times) for times in taken]


def _step(arm: Arm | TunedArm) -> Callable[[], None]:
    model, loss = _tuning(arm) if isinstance(arm, TunedArm) else _pretraining(arm)
    optimizer = adamw(model, arm.config.optim)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def _pretraining(arm: Arm) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    config, model, clips = arm.config, arm.build(arm.config.model), _clips(arm.config)
    return model, lambda: model.loss(clips, make_mask(config.mask, model.grid, len(clips)))


def _tuning(arm: TunedArm) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    model, clips = VisionTransformer(arm.config.model, 10), _clips(arm.config)
    return model, lambda: model(clips).square().mean()


def _clips(config: RunConfig) -> torch.Tensor:
    size = (config.optim.batch_size, config.model.channels, *config.model.grid.clip)
    return torch.zeros(size, dtype=torch.uint8)
