"""Fine-tuning: a classifier from a pre-trained encoder or from scratch, on few labels or all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import broadcast_object_list
from torch import nn

from vmae.data.augment.batched import (
    mix,
    multi_scale_crop,
    random_erase,
    random_flip,
    random_resized_crop,
    view_of,
)
from vmae.data.augment.randaugment import rand_augment
from vmae.data.reading.checking import CHECKED, unreadable
from vmae.data.reading.loader import Batch, Source, Subset, open_set, open_source
from vmae.data.reading.sampling import Sampling
from vmae.data.sets.load import require_labels
from vmae.data.sets.subsets import few_labels
from vmae.inference import Inference
from vmae.support.progress import Progress, Record, Silent
from vmae.train.batches import Batches, seeded, step_seed
from vmae.train.classifier import save_classifier, save_test
from vmae.train.config import FinetuneConfig
from vmae.train.devices import accelerator_for
from vmae.train.evaluate import Evaluation, evaluate
from vmae.train.run import Run, open_run
from vmae.train.run_folder import holds_run
from vmae.train.schedule import adamw, learning_rate, set_lr
from vmae.train.splits import Splits, choose, keep, kept
from vmae.train.starting import start_from
from vmae.train.validation import Validation
from vmae.vit import VisionTransformer


@dataclass
class Sources:
    """A labelled set, opened for reading: its classes, clips to train on and clips to test on.

    val     clips to validate on, if the configuration wants any
    split   how they were chosen
    splits  the lists of videos, which a run keeps in its folder; None: it keeps none
    """

    classes: tuple[str, ...]
    train: Source
    test: Source
    val: Source | None = None
    split: str = "none"
    splits: Splits | None = None


def open_sources(
    config: FinetuneConfig, folder: str | Path | None = None, **progress: Any
) -> Sources:
    """The splits of `config.data.path`, decoded once if the configuration says so.

    folder   of a run to resume: its videos stay in the splits that it began with

    Without a store, the test clips of every video are read once, in sets of up to CHECKED videos:
    unreadable ones are left out now, rather than found in the test; with a store, those that it could
    not decode. Raises SetError if there are more of them than `config.data.max_unreadable`.
    """
    config.require_rgb()
    accelerator = accelerator_for(config.precision, config.device)
    data, size, frames = config.data, config.model.img_size, config.model.num_frames
    with accelerator.main_process_first():
        videos = open_set(data)
        resumes = folder is not None and holds_run(Path(folder))
        splits = kept(folder, videos) if folder is not None and resumes else None
        splits = splits or choose(config, require_labels(videos))
        _enough(splits, config)  # raises before anything is decoded
    # A run older than splits.csv keeps every video that it began with.
    if not data.cache and not resumes and len(splits.rows) <= CHECKED:
        found: list[Any] = [None]
        if accelerator.is_main_process:
            every = list(dict.fromkeys(row.video for row in splits.rows))
            sampling = Sampling.of(data, frames)
            found = [unreadable(every, sampling, config.test_clips, data.num_workers, **progress)]
        splits = splits.without(broadcast_object_list(found)[0], data.max_unreadable)
        _enough(splits, config)
    left_out = {os.path.abspath(row.video.path): row.unreadable for row in splits.left_out}
    with accelerator.main_process_first():  # one process decodes, the others find the cache
        train, val, test = (
            open_source(data, part, size, frames, accelerator.device, left_out, **progress)
            if part
            else None
            for part in (splits.listed(name) for name in ("train", "val", "test"))
        )
    if data.cache and not resumes:  # a resumed run keeps its lists as they are
        splits = splits.marked(left_out)
    assert train is not None and test is not None  # `require_labels` has seen to it
    return Sources(splits.classes, train, test, val, splits.how, splits)


def _enough(splits: Splits, config: FinetuneConfig) -> None:
    """Raise SetError if a class has fewer training videos than `labels_per_class`."""
    if config.labels_per_class is not None:
        few_labels(splits.split("train"), config.labels_per_class, splits.classes, config.seed)


@dataclass
class FinetuneResult:
    """The classifier, on the CPU; its test results; its log; what it cost; the run's folder.

    validation   step, accuracy and loss after each epoch, if the run had validation videos: the
                 classifier is that of the best
    """

    model: VisionTransformer
    test: Evaluation
    records: list[Record]
    cost: dict[str, Any]
    folder: Path | None
    validation: list[dict[str, float]]


def augment(
    clips: torch.Tensor, config: FinetuneConfig, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Augment clips (B, C, T, H, W), each independently.

    RandAugment, crop, flip, random erasing, as configured: in the published order, but on squares of
    the model's size (recipes/README.md, "Where training differs"). Mixing clips, which changes the labels
    too, comes later. Returns uint8 clips unchanged if nothing is configured, else floats in [0, 1]
    (erased pixels are Gaussian noise and may lie outside).
    """
    if config.randaug_num_ops:
        clips = rand_augment(clips, config.randaug_num_ops, config.randaug_magnitude, generator)
    if config.crop_area is not None:
        clips = random_resized_crop(clips, config.crop_area, generator)
    elif config.crop:
        clips = multi_scale_crop(clips, generator)
    if config.flip:
        clips = random_flip(clips, generator)
    if config.random_erase_prob:
        clips = random_erase(clips, config.random_erase_prob, generator)
    return clips


def finetune(
    config: FinetuneConfig,
    sources: Sources,
    encoder: VisionTransformer | None = None,
    progress: Progress | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
) -> FinetuneResult:
    """Train a classifier on (a few labels of) `sources.train`, test it on `sources.test`.

    With `sources.val`, the weights of the epoch that does best on it are kept, and tested.

    encoder   pre-trained encoder to start from, or a classifier, whose `fc_norm` is kept and whose
              head gives rows if the configuration says so; None: from scratch
    folder    for config.yaml, environment.json, metrics.jsonl, checkpoints and the classifier (as
              save_classifier writes it); None: nothing is written. All processes must see it
    resume    continue the run in `folder` from its newest checkpoint; start it if there is none

    A resumed run gives the numbers of an uninterrupted one. Several processes share every batch and
    the test; what augmentation, mixing and dropped layers draw depends on the process too. Signals
    and errors are those of `pretrain`.
    """
    with open_run(config, folder, resume, progress or Silent()) as run:
        train, num_classes = labelled_clips(config, sources), len(sources.classes)
        batches = Batches(config, train, run.device, run.rank, run.world_size)

        torch.manual_seed(config.seed)
        classifier = VisionTransformer(
            config.model, num_classes, config.drop_path, config.head_drop
        )
        start_from(classifier, encoder, sources.classes, config)
        optimizer = adamw(classifier, batches.optim, config.model.depth)
        model, optimizer = run.prepare(classifier, optimizer, batches)
        run.starts_from(encoder)
        if sources.splits and run.folder and run.main:
            keep(run.folder, sources.splits, resumed=run.start > 0)
        model.train()
        validation = None
        if (val := sources.val) is not None:
            to_test = untrained(config, sources.classes)
            validation = Validation(run, to_test, lambda model: test(model, val, config, run))
        if config.compile:
            run.compile(micro_batches(config, run, num_classes, 1, batches.black())[0][0])

        inspect = partial(inspected, config, run, model, num_classes)
        for step, batch in run.steps("fine-tune", inspect):
            lr = learning_rate(step - 1, batches.optim)
            set_lr(optimizer, lr)
            optimizer.zero_grad()
            losses = []
            for clips, labels in micro_batches(config, run, num_classes, step, batch):
                with run.accumulate(model):
                    with run.autocast():
                        logits = model(clips).float()  # (B, classes)
                    loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
                    run.backward(loss)
                losses.append(loss.detach())
            run.clip_or_skip(model, optimizer)
            optimizer.step()
            if validation:
                validation.after(step)
            run.end_step(step, losses, lr)

        trained = validation.model if validation else untrained(config, sources.classes)
        cost = run.finish(trained)
        cost["unreadable_videos"] += len(sources.splits.left_out) if sources.splits else 0
        if validation:
            trained.load_state_dict(validation.best)
        if run.folder and run.main:
            save_classifier(trained, sources.classes, config, run.folder)
        tested = test(trained, sources.test, config, run)
        if run.folder and run.main:
            save_test(tested, sources.test, run.folder)
        rows = validation.rows if validation else []
        return FinetuneResult(trained.cpu(), tested, run.log.records, cost, run.folder, rows)


def untrained(config: FinetuneConfig, classes: tuple[str, ...]) -> VisionTransformer:
    """A classifier with its class names and its way of reading videos; the weights are to be loaded."""
    model = VisionTransformer(config.model, len(classes), config.drop_path, config.head_drop)
    model.class_names = tuple(classes)
    model.inference = Inference.of_run(config.to_dict())
    return model


def labelled_clips(config: FinetuneConfig, sources: Sources) -> Source:
    """The training clips: all, or `labels_per_class` videos of each class, drawn by the seed."""
    train, per_class = sources.train, config.labels_per_class
    if per_class is None:
        return train
    return Subset(train, few_labels(train.videos, per_class, sources.classes, config.seed))


def micro_batches(
    config: FinetuneConfig, run: Run, num_classes: int, step: int, batch: Batch
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented clips (B, C, T, H, W) and labels, (B,) or mixed (B, classes), in equal parts.

    What augmentation, mixing and dropped layers draw depends on the process too.
    """
    number = step * run.world_size + run.rank
    # Layers draw from the global generator. Negative: not what the augmentation draws.
    torch.manual_seed(step_seed(config.seed, -number))
    generator = seeded(config.seed, number, run.device)
    clips, labels = (x.to(run.device, non_blocking=True) for x in (batch.clips, batch.labels))
    if config.repeated_aug > 1:
        clips, labels = (x.repeat_interleave(config.repeated_aug, dim=0) for x in (clips, labels))
    clips = view_of(augment(clips, config, generator), config.view, generator)
    if config.mixup or config.cutmix:
        soft = F.one_hot(labels, num_classes).float()
        clips, labels = mix(clips, soft, config.mixup, config.cutmix, generator, config.mix_each)
    size = len(clips) // config.grad_accum_steps
    return list(zip(clips.split(size), labels.split(size), strict=True))


def inspected(
    config: FinetuneConfig, run: Run, model: nn.Module, num_classes: int, step: int, batch: Batch
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of each clip of a step, (B,), and the clips and labels that it was computed from."""
    losses, parts = [], micro_batches(config, run, num_classes, step, batch)
    for clips, labels in parts:
        with run.autocast():
            logits = model(clips).float()
        losses.append(F.cross_entropy(logits, labels, reduction="none"))
    clips, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return torch.cat(losses), {"clips": clips, "labels": labels}


def test(model: VisionTransformer, source: Source, config: FinetuneConfig, run: Run) -> Evaluation:
    """Evaluate on `source` as the configuration says, shared among the processes."""
    return evaluate(
        model,
        source,
        Sampling.of(config.data, config.model.num_frames),
        clips=config.test_clips,
        crops=config.test_crops,
        view=config.view,
        device=run.device,
        max_unreadable=config.data.max_unreadable,
        accelerator=run.accelerator,
        num_workers=config.data.num_workers,
    )
