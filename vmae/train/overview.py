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
from vmae.train.evaluate import FEW_TESTS
from vmae.train.finetune import Sources, labelled_clips
from vmae.train.plan import Clips, measured, planned, this_device
from vmae.train.splits import relative
from vmae.train.starting import is_tuned, weights_kind
from vmae.vit import VisionTransformer

#: Fewer training videos than these need the weights of a classifier (the recipe own.yaml).
FEW_VIDEOS = 200
#: Splits, in words.
SPLITS = {"train": "training", "val": "validation", "test": "test"}
#: A class with so many times the videos of another is worth a remark.
IMBALANCED = 3


def overview(
    config: FinetuneConfig,
    sources: Sources,
    accelerator: Accelerator,
    encoder: VisionTransformer | None = None,
) -> str:
    """A few lines: the model, the videos and their classes, steps, memory, minutes.

    encoder   what the run starts from, as `load_start` returns it
    """
    train, model = labelled_clips(config, sources), config.model
    optim = config.optim.resolved(len(train.videos))
    start = _start(config, encoder, len(train.videos))
    classes, *remarks = balance(train, sources.test, sources.classes)
    data = config.data
    span = f"{data.clip_seconds:g} s" if data.clip_seconds else f"stride {data.stride}"
    val = len(sources.val.videos) if sources.val else 0
    lines = [
        f"model      {model.size} {start}",
        f"clips      {model.num_frames} frames ({span}) of {model.img_size} pixels",
        f"videos     {len(train.videos):,} to train on, {val:,} to validate on, "
        f"{len(sources.test.videos):,} to test on",
        *_unreadable(sources),
        *([f"validation {sources.split}"] if val else []),
        f"classes    {classes}",
        *(f"{'':11}{remark}" for remark in remarks),
        f"training   {config.optim.in_words(len(train.videos))}; learning rate up to {optim.lr:.2g}",
        *_expected(config, sources, accelerator),
    ]
    fold = partial(
        textwrap.fill, width=100, subsequent_indent=11 * " ", break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip
    return "\n".join(map(fold, lines))


def _unreadable(sources: Sources) -> list[str]:
    """The videos left out because they cannot be read; or that nobody has tried."""
    splits = sources.splits
    if splits is None:
        return []
    if rows := splits.left_out:
        names = few([relative(row.video.path, splits.folder) for row in rows])
        total = len({row.video for row in splits.rows})
        lost = Counter(row.split for row in rows)  # the splits are made before any video is read
        where = ", ".join(f"{lost[n]} of the {SPLITS[n]} videos" for n in SPLITS if lost[n])
        return [f"unreadable {len(rows)} of {total} videos, left out: {names} ({where})"]
    from_files = isinstance(unwrap_subset(sources.train)[0], VideoFiles)
    if from_files and len(splits.rows) > CHECKED:
        return [f"unreadable not checked, as there are over {CHECKED:,} videos: `vmae scan` does"]
    return ["unreadable none"] if splits.checked else []


def _start(config: FinetuneConfig, encoder: VisionTransformer | None, videos: int) -> str:
    """The weights to start from, what they were trained for, and how many blocks keep them."""
    if encoder is None:
        return "from scratch"
    start = f"from {config.start_from}, {weights_kind(encoder)}"
    if not is_tuned(encoder) and videos < FEW_VIDEOS:
        start += ": with so few videos, the weights of a classifier are a better start"
    if config.frozen_layers:
        start += f"; {config.frozen_layers} of {config.model.depth} blocks frozen"
    return start


def balance(train: Source, test: Source, classes: tuple[str, ...]) -> list[str]:
    """The classes and how many videos they have; what to do about few tests, or far from equal numbers."""
    counts, tested = (Counter(video.label for video in part.videos) for part in (train, test))
    named = sorted((counts[label], name) for label, name in enumerate(classes))
    (least, rare), (most, common) = named[0], named[-1]
    few_tested = [name for label, name in enumerate(classes) if tested[label] < FEW_TESTS]
    lines = [
        f"{len(classes)} ({few(classes)}), with {_range(least, most)} training and "
        f"{_range(*(f(tested[label] for label in range(len(classes))) for f in (min, max)))} "
        "test videos each"
    ]
    if few_tested:
        one = len(few_tested) == 1
        lines.append(
            f"{len(few_tested)} class{' has' if one else 'es have'} fewer than {FEW_TESTS} test videos "
            f"({few(few_tested)}), so {'its accuracy' if one else 'their accuracies'} will say "
            "next to nothing: add videos, or put more into a test folder of your own"
        )
    if most >= IMBALANCED * max(1, least):
        lines.append(
            f"{common!r} has {most} and {rare!r} {least}: accuracy will favour the large classes, so "
            "look at each class in the report. More videos of the small ones help most; "
            f"labels_per_class={max(1, least)} trains on equally many of each"
        )
    return lines


def _range(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _expected(config: FinetuneConfig, sources: Sources, accelerator: Accelerator) -> list[str]:
    """The memory and the time of the run, as `vmae plan` computes them."""
    device, name = this_device(accelerator.device), device_name(accelerator.device)
    processes = accelerator.num_processes
    if device is None:
        fitting = config.replace(precision=precision_of(accelerator))
        each = (
            config.optim.batch_size * config.repeated_aug // (processes * config.grad_accum_steps)
        )
        memory = training_memory(fitting, max(1, each)).total / 1e9
        return [f"memory     about {memory:.1f} GB for a step", f"time       not known on {name}"]
    val = len(sources.val.videos) if sources.val else 0
    clips = Clips(
        len(sources.train.videos), len(sources.classes), None, None, val, len(sources.test.videos)
    )
    if sources.splits:
        clips = measured(config, sources.splits.as_set())
    stage = planned(config, device, clips, processes)
    minutes = max(1, stage.seconds / 60)
    time = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    quick = "" if stage.cores is not None else ", if the videos are read quickly enough"
    idle = "" if device.overlaps else "; longer if other programs compute meanwhile"
    return [
        f"memory     about {stage.memory / 1e9:.1f} GB",
        f"time       about {time} on {name}, training and tests together{quick}{idle}",
    ]
