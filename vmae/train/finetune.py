"""Fine-tuning: a classifier from a pre-trained encoder, or from scratch, on few or all labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from vmae.data.augment.batched import (
    mix,
    multi_scale_crop,
    random_erase,
    random_flip,
    random_resized_crop,
    view_of,
)
from vmae.data.augment.randaugment import rand_augment
from vmae.data.reading.loader import Batch, Source, Subset, few_labels, open_set, open_source
from vmae.data.reading.sampling import Sampling
from vmae.data.sets.load import require_labels
from vmae.support.progress import Progress, Record, Silent
from vmae.train.batches import Batches, seeded, step_seed
from vmae.train.classifier import save_classifier
from vmae.train.config import FinetuneConfig
from vmae.train.devices import accelerator_for
from vmae.train.evaluate import Evaluation, evaluate
from vmae.train.loop import Loop, opened
from vmae.train.run_folder import claim_start
from vmae.vit import VisionTransformer


@dataclass
class Sources:
    """A labelled set opened for reading: its classes, clips to train on, clips to test on."""

    classes: tuple[str, ...]
    train: Source
    test: Source


def open_sources(config: FinetuneConfig, **progress: Any) -> Sources:
    """Both splits of `config.data.path`, decoded once where the configuration says so."""
    accelerator = accelerator_for(config.precision, config.device)
    data, size, frames = config.data, config.model.img_size, config.model.num_frames
    with accelerator.main_process_first():  # one process decodes, the others find the store
        videos = require_labels(open_set(data))
        train = open_source(data, videos.train, size, frames, accelerator.device, **progress)
        test = open_source(data, videos.test, size, frames, **progress)
    return Sources(videos.classes, train, test)


@dataclass
class FinetuneResult:
    """The classifier, on the CPU; its test; its log; what it cost; the run's folder."""

    model: VisionTransformer
    test: Evaluation
    records: list[Record]
    cost: dict[str, Any]
    folder: Path | None


def augment(
    clips: torch.Tensor, config: FinetuneConfig, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Change clips (B, C, T, H, W), each by draws of its own, in the published order.

    RandAugment, crop, flip, erasing: those that the configuration asks for. What mixes clips with
    each other, and so changes labels too, comes after this. Returns uint8 clips as they are where
    nothing is asked for, else float in [0, 1] (with erasing, noise beyond).
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

    encoder   pre-trained encoder to start from; None: from scratch
    folder    where config.yaml, environment.json, metrics.jsonl, checkpoints and the classifier
              (as save_classifier writes it) go; None: nowhere. All processes must see it
    resume    go on with the run in `folder`, from its newest checkpoint; start it if there is none

    A resumed run gives the numbers of one that was never interrupted. Many processes share every
    batch and the test; what augmentation, mixing and dropped layers draw depends on the process
    too. Signals and errors are those of `pretrain`.
    """
    run = Path(folder) if folder is not None else None
    with opened(config, run) as accelerator:
        tuning = _Finetuning(
            config, sources, encoder, run, resume, progress or Silent(), accelerator
        )
        tuning.train()
        return tuning.result()


class _Finetuning(Loop[FinetuneConfig, tuple[torch.Tensor, torch.Tensor]]):
    """Clips (B, C, T, H, W) and labels, (B,) or mixed (B, classes); the cross-entropy."""

    title = "fine-tune"

    def __init__(
        self,
        config: FinetuneConfig,
        sources: Sources,
        encoder: VisionTransformer | None,
        folder: Path | None,
        resume: bool,
        progress: Progress,
        accelerator: Accelerator,
    ) -> None:
        self.sources, self.encoder = sources, encoder
        train, per_class = sources.train, config.labels_per_class
        if per_class is not None:
            chosen = few_labels(train.videos, per_class, sources.classes, config.seed)
            train = Subset(train, chosen)
        rank, world = accelerator.process_index, accelerator.num_processes
        steps = Batches(config, train, accelerator.device, rank, world)
        depth = config.model.depth
        super().__init__(config, steps, folder, resume, progress, accelerator, depth)
        if folder and self.main:
            claim_start(folder, encoder.state_dict() if encoder is not None else None)

    def build(self) -> VisionTransformer:
        model = self.plain()
        if self.encoder is not None:
            model.load_encoder(self.encoder)
        return model

    def plain(self) -> VisionTransformer:
        """A new classifier for the set."""
        config, classes = self.config, self.sources.classes
        model = VisionTransformer(config.model, len(classes), config.drop_path, config.head_drop)
        model.class_names = tuple(classes)
        return model

    def parts(self, step: int, batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
        config, number = self.config, step * self.world + self.rank
        # Layers draw from the global generator. Negative: not what the augmentation draws.
        torch.manual_seed(step_seed(config.seed, -number))
        generator = seeded(config.seed, number, self.device)
        clips, labels = (x.to(self.device, non_blocking=True) for x in (batch.clips, batch.labels))
        if config.repeated_aug > 1:
            clips, labels = (
                x.repeat_interleave(config.repeated_aug, dim=0) for x in (clips, labels)
            )
        clips = view_of(augment(clips, config, generator), config.view, generator)
        if config.mixup or config.cutmix:
            soft = F.one_hot(labels, len(self.sources.classes)).float()
            clips, labels = mix(
                clips, soft, config.mixup, config.cutmix, generator, config.mix_each
            )
        each = len(clips) // config.grad_accum_steps
        return list(zip(clips.split(each), labels.split(each), strict=True))

    def inputs(self, part: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor]:
        return (part[0],)

    def loss(self, part: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        smoothing = self.config.label_smoothing
        return F.cross_entropy(self.predict(part), part[1], label_smoothing=smoothing)

    def clip_losses(self, part: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(self.predict(part), part[1], reduction="none")

    def tensors(self, part: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"clips": part[0], "labels": part[1]}

    def result(self) -> FinetuneResult:
        """The classifier as a plain one, tested, and saved where the run has a folder."""
        config, model = self.config, self.plain()
        paid = self.trained(model)
        if self.folder and self.main:
            save_classifier(model, self.sources.classes, config, self.folder)
        tested = evaluate(
            model,
            self.sources.test,
            Sampling.of(config.data, config.model.num_frames),
            clips=config.test_clips,
            crops=config.test_crops,
            view=config.view,
            device=self.device,
            max_unreadable=config.data.max_unreadable,
            accelerator=self.accelerator,
        )
        return FinetuneResult(model.cpu(), tested, self.log.records, paid, self.folder)
