"""Fine-tuning: a classifier from a pre-trained encoder, or from scratch, on few or all labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from vmae.config import FinetuneConfig
from vmae.data.annotations import VideoSet, require_labels
from vmae.data.augment import (
    mix,
    multi_scale_crop,
    random_erase,
    random_flip,
    random_resized_crop,
    view_of,
)
from vmae.data.build import named_worker_deaths
from vmae.data.loader import (
    ClipDataset,
    Failures,
    Source,
    StepBatches,
    Subset,
    few_labels,
    open_set,
    open_source,
    train_loader,
)
from vmae.data.randaugment import rand_augment
from vmae.data.sampling import Sampling
from vmae.train.evaluate import Evaluation, evaluate
from vmae.train.runtime import (
    Log,
    Progress,
    Record,
    Silent,
    accelerator_for,
    check_finite,
    cost,
    seeded,
    take_step,
)
from vmae.train.schedule import adamw, learning_rate
from vmae.vit import VisionTransformer


@dataclass
class Sources:
    """A labelled set opened for reading: its classes, clips to train on, clips to test on."""

    classes: tuple[str, ...]
    train: Source
    test: Source


def open_sources(config: FinetuneConfig, **progress: Any) -> Sources:
    """Both splits of `config.data.path`, decoded once where the configuration says so."""
    videos: VideoSet = require_labels(open_set(config.data))
    model, device = config.model, accelerator_for(config.precision, config.device).device
    train = open_source(config.data, videos.train, model.size, model.frames, device, **progress)
    test = open_source(config.data, videos.test, model.size, model.frames, **progress)
    return Sources(videos.classes, train, test)


@dataclass
class FinetuneResult:
    """The classifier, on the CPU; its test; its log; what it cost."""

    model: VisionTransformer
    test: Evaluation
    records: list[Record]
    cost: dict[str, Any]


def augment(
    clips: torch.Tensor, config: FinetuneConfig, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Change clips (B, C, T, H, W), each by draws of its own, in the published order.

    RandAugment, crop, flip, erasing: those that the configuration asks for. What mixes clips with
    each other, and so changes labels too, comes after this. Returns uint8 clips as they are where
    nothing is asked for, else float in [0, 1] (with erasing, noise beyond).
    """
    if config.rand_ops:
        clips = rand_augment(clips, config.rand_ops, config.rand_magnitude, generator)
    if config.crop_area is not None:
        clips = random_resized_crop(clips, config.crop_area, generator)
    elif config.crop:
        clips = multi_scale_crop(clips, generator)
    if config.flip:
        clips = random_flip(clips, generator)
    if config.erase:
        clips = random_erase(clips, config.erase, generator)
    return clips


@named_worker_deaths()
def finetune(
    config: FinetuneConfig,
    sources: Sources,
    encoder: VisionTransformer | None = None,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Train a classifier on (a few labels of) `sources.train`, test it on `sources.test`.

    encoder   pre-trained encoder to start from; None: from scratch
    """
    accelerator = accelerator_for(config.precision, config.device)
    device = accelerator.device
    rank, world = accelerator.process_index, accelerator.num_processes
    train = sources.train
    if config.labels_per_class is not None:
        train = Subset(
            train, few_labels(train.videos, config.labels_per_class, sources.classes, config.seed)
        )
    optim = config.optim.resolved(len(train.videos))

    torch.manual_seed(config.seed)
    classifier = VisionTransformer(
        config.model, len(sources.classes), config.drop_path, config.head_drop
    )
    classifier.class_names = tuple(sources.classes)
    if encoder is not None:
        classifier.load_encoder(encoder)
    optimizer: torch.optim.Optimizer = adamw(classifier, optim, config.model.depth)
    model: torch.nn.Module
    model, optimizer = accelerator.prepare(classifier, optimizer)

    sampling = Sampling.of(config.data, config.model.frames)
    dataset = ClipDataset(train, sampling, config.seed)
    keys = StepBatches(len(dataset), optim.batch_size, optim.steps, config.seed, 0, rank, world)
    loader = train_loader(dataset, keys, config.data.workers, pin=device.type == "cuda")
    log = Log(config.log_every, optim.batch_size, optim.steps)
    log.resume(0)
    shown: Progress = progress if progress and accelerator.is_main_process else Silent()
    shown.start("fine-tune", 0, optim.steps)
    model.train()
    failures = Failures(len(dataset), config.data.max_bad)
    for step, batch in enumerate(loader, 1):
        failures.add(batch.failed)
        clips, labels = (x.to(device, non_blocking=True) for x in (batch.clips, batch.labels))
        generator = seeded(config.seed, step * world + rank, device)
        if config.repeat > 1:
            clips, labels = (x.repeat_interleave(config.repeat, dim=0) for x in (clips, labels))
        clips = view_of(augment(clips, config, generator), config.view, generator)
        if config.mixup or config.cutmix:
            soft = F.one_hot(labels, len(sources.classes)).float()
            clips, labels = mix(
                clips, soft, config.mixup, config.cutmix, generator, config.mix_each
            )
        rate = learning_rate(step - 1, optim)
        loss = F.cross_entropy(model(clips), labels, label_smoothing=config.label_smoothing)
        take_step(accelerator, model, optimizer, loss, rate, optim.clip_grad)
        record = log.add(step, loss.detach(), rate)
        check_finite(record)
        shown.update(step, record)
    shown.close()
    paid = cost(log.records, device) | {"unreadable_videos": len(failures.reasons)}
    tested = evaluate(
        classifier, sources.test, sampling, view=config.view, device=device,
        max_bad=config.data.max_bad,
    )  # fmt: skip
    return FinetuneResult(classifier.cpu(), tested, log.records, paid)
