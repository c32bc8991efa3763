"""What a fine-tuning run is going to do, in words, before it starts: videos, steps, memory, minutes."""

from __future__ import annotations

import textwrap
from collections import Counter
from functools import partial

from accelerate import Accelerator

from vmae.cost import training_memory
from vmae.data.reading.checking import CHECKED
from vmae.data.reading.loader import Source
from vmae.data.reading.sources import VideoFiles, unwrap_subset
from vmae.support.text import few
from vmae.train.config import FinetuneConfig
from vmae.train.devices import device_name, precision_of
from vmae.train.finetune import Sources, labelled_clips
from vmae.train.plan import Clips, planned, this_device
from vmae.train.splits import relative

#: A class with so many times the videos of another is worth a remark.
IMBALANCED = 3


def overview(config: FinetuneConfig, sources: Sources, accelerator: Accelerator) -> str:
    """A few lines: the model, the videos and their classes, steps, memory of a step, minutes."""
    train, model = labelled_clips(config, sources), config.model
    optim = config.optim.resolved(len(train.videos))
    fitting = config.replace(precision=precision_of(accelerator))
    clips = optim.batch_size * config.repeated_aug
    each = clips // (accelerator.num_processes * config.grad_accum_steps)
    memory = training_memory(fitting, max(1, each)).total / 1e9
    start = f"from {config.start_from}" if config.start_from else "from scratch"
    if config.frozen_layers:
        start += f", {config.frozen_layers} of {model.depth} blocks frozen"
    data = config.data
    span = f"{data.clip_seconds:g} s" if data.clip_seconds else f"stride {data.stride}"
    val = len(sources.val.videos) if sources.val else 0
    epochs = optim.steps * optim.batch_size / len(train.videos)
    lines = [
        f"model      {model.size} {start}",
        f"clips      {model.num_frames} frames ({span}) of {model.img_size} pixels",
        f"videos     {len(train.videos):,} to train on, {val:,} to validate on, "
        f"{len(sources.test.videos):,} to test on",
        *_unreadable(sources),
        *([f"validation {sources.split}"] if val else []),
        *(f"classes    {line}" for line in balance(train, sources.classes)),
        f"training   {optim.steps:,} steps of {optim.batch_size} videos: {epochs:.3g} epochs; "
        f"learning rate up to {optim.lr:.2g}",
        f"memory     about {memory:.2g} GB for a step",
        f"time       {_time(config, train, sources, accelerator)} "
        f"{device_name(accelerator.device)}, if the videos are read quickly enough",
    ]
    fold = partial(textwrap.fill, width=100, subsequent_indent=11 * " ")
    return "\n".join(map(fold, lines))


def _unreadable(sources: Sources) -> list[str]:
    """The videos left out because they cannot be read; or that nobody has tried."""
    splits = sources.splits
    if splits is None or not isinstance(unwrap_subset(sources.train)[0], VideoFiles):
        return []  # a store has said which it could not decode
    if rows := splits.left_out:
        names = few([relative(row.video.path, splits.folder) for row in rows])
        total = len({row.video for row in splits.rows})
        return [f"unreadable {len(rows)} of {total} videos, left out: {names}"]
    if len(splits.rows) > CHECKED:
        return [f"unreadable not checked, as there are over {CHECKED:,} videos: `vmae scan` does"]
    return ["unreadable none"] if splits.checked else []


def balance(train: Source, classes: tuple[str, ...]) -> list[str]:
    """The classes, and how many training videos they have; if far from equally many, what to do about it."""
    counts = Counter(video.label for video in train.videos)
    named = sorted((counts[label], name) for label, name in enumerate(classes))
    (least, rare), (most, common) = named[0], named[-1]
    each = f"{least}" if least == most else f"{least} to {most}"
    lines = [f"{len(classes)} ({few(classes)}), with {each} training videos each"]
    if most >= IMBALANCED * max(1, least):
        lines.append(
            f"{common!r} has {most} and {rare!r} {least}: accuracy will favour the large classes, so "
            "look at each class in the report. More videos of the small ones help most; "
            f"labels_per_class={max(1, least)} trains on equally many of each"
        )
    return lines


def _time(config: FinetuneConfig, train: Source, sources: Sources, accelerator: Accelerator) -> str:
    """The time of training, of validation after every epoch, and of the test."""
    device = this_device(accelerator.device)
    if device is None:
        return "not known on"
    stage = planned(config, device, Clips(len(train.videos), 0, None, None))
    optim = config.optim.resolved(len(train.videos))
    epochs = max(1, optim.steps * optim.batch_size // len(train.videos))
    val = len(sources.val.videos) if sources.val else 0
    views = config.test_clips * config.test_crops * (len(sources.test.videos) + epochs * val)
    # Of a step's three passes, two go backward, and only through the blocks that are trained.
    passes = stage.clips * (1 + 2 * (1 - config.frozen_layers / config.model.depth)) + views
    minutes = stage.seconds / stage.clips * passes / 3 / accelerator.num_processes / 60
    return (
        f"about {max(1, minutes):.0f} min on" if minutes < 120 else f"about {minutes / 60:.0f} h on"
    )
