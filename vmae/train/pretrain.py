"""Pre-training: one loop for MAE, VideoMAE V1 and V2, on one device or in many processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from vmae.config import ModelConfig
from vmae.data.augment.batched import draw_crops, draw_flips, take_crops, take_flips
from vmae.data.reading.loader import Batch, Source, open_set, open_source
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import Mask, make_mask
from vmae.support.progress import Bar, Progress, Record
from vmae.train.batches import Batches, seeded
from vmae.train.config import PretrainConfig
from vmae.train.run import Run, open_run
from vmae.train.schedule import adamw, learning_rate, set_lr
from vmae.weights.tensors import save_weights


@dataclass
class PretrainResult:
    """The trained model, on the CPU; its log; what it cost; the run's folder."""

    model: MaskedAutoencoder
    records: list[Record]
    cost: dict[str, Any]
    folder: Path | None


def pretrain(
    config: PretrainConfig,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    source: Source | None = None,
    build: Callable[[ModelConfig], MaskedAutoencoder] = MaskedAutoencoder,
) -> PretrainResult:
    """Pre-train a masked autoencoder.

    folder    for config.yaml, environment.json, metrics.jsonl, checkpoints and the final weights;
              None: nothing is written. All processes must see it
    resume    continue the run in `folder` from its newest checkpoint; start it if there is none
    source    clips to train on; by default the training videos of `config.data.path`
    build     makes the model of `config.model`: a subclass of MaskedAutoencoder, for one of your own

    Step k uses clips, masks and a learning rate that depend on the seed and k alone, so a resumed
    run gives the numbers of an uninterrupted one, and many processes give those of one. Ctrl-C and
    SIGTERM save a checkpoint first; SIGTERM then raises Stopped. Raises LostPeer if another process
    is gone, OutOfMemory with the fields that need less, FloatingPointError at a NaN or infinite
    loss (unless such steps are skipped).
    """
    with open_run(config, folder, resume, progress or Bar()) as run:
        if source is None:
            with run.main_process_first():
                source = open_training_videos(config, run.device)
        batches = Batches(config, source, run.device, run.rank, run.world_size)
        make_mask(config.mask, config.model.grid, 1)  # raises if the grid does not allow it

        torch.manual_seed(config.seed)
        autoencoder = build(config.model)
        optimizer = adamw(autoencoder, batches.optim)
        model, optimizer = run.prepare(autoencoder, optimizer, batches)
        model.train()
        if config.compile:
            run.compile(*micro_batches(config, run, 1, batches.black())[0])

        inspect = partial(inspected, config, run, model)
        for step, batch in run.steps("pre-train", inspect):
            lr = learning_rate(step - 1, batches.optim)
            set_lr(optimizer, lr)
            optimizer.zero_grad()
            losses = []
            for clips, mask in micro_batches(config, run, step, batch):
                with run.accumulate(model):
                    with run.autocast():
                        predictions = model(clips, mask).float()  # (B, M, P)
                    loss = F.mse_loss(predictions, pixel_targets(clips, mask, config.model))
                    run.backward(loss)
                losses.append(loss.detach())
            run.clip_or_skip(model, optimizer)
            optimizer.step()
            run.end_step(step, losses, lr)

        trained = build(config.model)
        cost = run.finish(trained)
        if run.folder and run.main:
            save_weights(trained, run.folder / "model.safetensors")
        return PretrainResult(trained.eval(), run.log.records, cost, run.folder)


def open_training_videos(config: PretrainConfig, device: torch.device) -> Source:
    """The training videos of the set, decoded once if the configuration says so."""
    videos, model = open_set(config.data).train, config.model
    return open_source(config.data, videos, model.img_size, model.num_frames, device)


def micro_batches(
    config: PretrainConfig, run: Run, step: int, batch: Batch
) -> list[tuple[torch.Tensor, Mask]]:
    """The clips of a step on this process, augmented, with masks, in `grad_accum_steps` parts.

    Every process draws the crops, flips and masks of the whole batch and takes its share, so they depend on
    a clip's position in the batch alone.
    """
    clips = batch.clips.to(run.device, non_blocking=True)
    if config.repeated_aug > 1:
        clips = clips.repeat_interleave(config.repeated_aug, dim=0)
    count, generator = len(clips), seeded(config.seed, step, run.device)
    total, own = run.world_size * count, slice(run.rank * count, (run.rank + 1) * count)
    if config.crop:
        sides, centres = draw_crops(total, generator, run.device)
        clips = take_crops(clips, (sides[own], centres[own]))
    if config.flip:
        clips = take_flips(clips, draw_flips(total, generator, run.device)[own])
    whole = make_mask(config.mask, config.model.grid, total, generator, run.device)
    size = count // config.grad_accum_steps
    indices = (whole.visible, whole.queries, whole.targets)
    masks = (Mask(*part) for part in zip(*(x[own].split(size) for x in indices), strict=True))
    return list(zip(clips.split(size), masks, strict=True))


def inspected(
    config: PretrainConfig, run: Run, model: torch.nn.Module, step: int, batch: Batch
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of each clip of a step, (B,), and the clips and masks that it was computed from."""
    losses, parts = [], micro_batches(config, run, step, batch)
    for clips, mask in parts:
        with run.autocast():
            predictions = model(clips, mask).float()
        errors = (predictions - pixel_targets(clips, mask, config.model)).square()
        losses.append(errors.flatten(1).mean(1))
    tensors = {"clips": torch.cat([clips for clips, _ in parts])}
    for name in ("visible", "queries", "targets"):
        tensors[name] = torch.cat([getattr(mask, name) for _, mask in parts])
    return torch.cat(losses), tensors
