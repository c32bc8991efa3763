"""What a run will take, before it starts: `vmae plan`.

The time of a step is that of its matrix products plus that of moving what the backward pass needs; on
a GPU at least that of launching them, on a CPU that too. Clips that are decoded as they are read must
come as fast; the processes that decode take a while to start. The constants are in
`vmae.cost.hardware`; tests/bench/plan.py compares plans with runs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch

from vmae import at_root
from vmae.base_config import ConfigError
from vmae.cost.flops import classifier_multiply_adds, pretraining_multiply_adds
from vmae.cost.hardware import CARDS, Hardware, this_cpu
from vmae.cost.memory import training_memory
from vmae.data.reading.loader import ClipDataset, open_set
from vmae.data.reading.reader import VideoError, frame_pieces, resize_frames
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.sources import VideoFiles
from vmae.data.reading.testing import FEW
from vmae.data.sets.motion_specs import spec_named
from vmae.data.sets.subsets import hold_out
from vmae.data.sets.videos import SetError, VideoSet
from vmae.masking import make_mask
from vmae.train.config import FinetuneConfig, OptimConfig, PretrainConfig, RunConfig
from vmae.train.devices import device_name

#: Videos of a set that are opened to find out how long they are and how long decoding takes.
SAMPLE = 6
#: Bytes moved per parameter by AdamW: weight, gradient and moments are read, three of them written, and
#: the gradient was written and cleared before.
OPTIMIZER = 36
#: Bytes of a process on a CPU that trains a model of next to no size: mostly libraries.
PROCESS = 700_000_000
#: Seconds until worker processes have started: each imports PyTorch, which took 4.5 s of a core here.
START = 4.5


@dataclass(frozen=True)
class Clips:
    """A set: training videos and classes, and, measured here on a few videos, what reading takes.

    decoding   seconds of one core per clip; None where no video is there to be measured
    stored     bytes of all frames of both splits at the model's size; None likewise, or without a store
    val, test  videos of these splits, which fine-tuning reads too; 0 where it is not known
    """

    videos: int
    classes: int
    decoding: float | None
    stored: int | None
    val: int = 0
    test: int = 0


@dataclass(frozen=True)
class StagePlan:
    """One run: what it computes and what it takes.

    clips          of the whole run, every repetition counted
    multiply_adds  of a clip's forward pass
    seconds        of the whole run
    testing        seconds of these that validation and the test take
    starting       seconds of these in which worker processes start, for training and for each test
    memory         bytes on the device of a process at the peak
    parts          seconds per step by what takes them: "matrix products", "memory bandwidth",
                   "launches", "decoding"
    cores          that decode as fast as the device trains; None where nothing is known, 0 with a store
    """

    steps: int
    clips: int
    tokens: str
    multiply_adds: int
    seconds: float
    memory: int
    parts: dict[str, float]
    cores: int | None
    testing: float = 0.0
    starting: float = 0.0

    @property
    def limit(self) -> str:
        """What takes most of a step."""
        return max(self.parts, key=lambda name: self.parts[name])


def hardware(name: str) -> Hardware:
    """The device of that name. Raises ConfigError for an unknown one."""
    if name == "cpu":
        return this_cpu()
    if name not in CARDS:
        raise ConfigError(f"unknown device {name!r}: choose from cpu, {', '.join(CARDS)}")
    return CARDS[name]


def this_device(device: torch.device | None = None) -> Hardware | None:
    """A device of this machine, by default the one that a run would use; None for a GPU without a
    data sheet here."""
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        return this_cpu()
    name = device_name(device).upper()
    return next((card for key, card in CARDS.items() if key.upper() in name), None)


def clips_of(config: RunConfig, videos: int | None = None) -> Clips:
    """The set of a run; `videos` is the number of training videos of one that is not here.

    Raises SetError if it is neither there nor one that `vmae render` makes, and `videos` is None.
    """
    model = config.model
    if videos is not None:
        return _of_size(config, videos)
    try:
        return measured(config, open_set(config.data))
    except SetError as error:
        spec = spec_named(at_root(config.data.path).name)
        if spec is None:
            raise SetError(f"{error}. To plan without it, give its size: --videos NUMBER") from None
        stored = (spec.train + spec.test) * spec.frames * 3 * model.img_size**2
        return _of_size(config, spec.train, len(spec.classes), stored, spec.test)


def _of_size(
    config: RunConfig, train: int, classes: int = 0, stored: int | None = None, test: int = 0
) -> Clips:
    """A set that is not here; a part of its training videos may be for validation."""
    if not isinstance(config, FinetuneConfig):
        return Clips(train, classes, None, stored)
    val = round((config.val_share or 0) * train)
    return Clips(train - val, classes, None, stored, val, test)


def measured(config: RunConfig, videos: VideoSet) -> Clips:
    """The sizes of a set's splits in a run, and from a few of its videos what reading it takes."""
    model, train, val, tested = config.model, videos.train, 0, 0
    if isinstance(config, FinetuneConfig):
        train, held, _ = hold_out(videos, config.val_share, config.seed)
        val, tested = len(held), len(videos.test)
    found = Clips(len(train), len(videos.classes), None, None, val, tested)
    few = train[:: max(1, len(train) // SAMPLE)][:SAMPLE]
    sizes, seconds = [], []
    reader = ClipDataset(
        VideoFiles(few, model.img_size), Sampling.of(config.data, model.num_frames), config.seed
    )
    for index, video in enumerate(few):
        try:
            if config.data.cache:  # it takes every frame
                pieces = (resize_frames(piece, model.img_size) for piece in frame_pieces(video))
                sizes.append(sum(piece.nbytes for piece in pieces))
            start = time.perf_counter()
            reader.read(0, index)
            seconds.append(time.perf_counter() - start)
        except VideoError:
            continue  # the run itself says which ones it cannot read
    if not seconds:
        return found
    total = len(train) + val + len(videos.test)
    stored = round(sum(sizes) / len(sizes) * total) if sizes else None
    return replace(found, decoding=sorted(seconds)[len(seconds) // 2], stored=stored)


def planned(config: RunConfig, device: Hardware, clips: Clips, processes: int = 1) -> StagePlan:
    """The plan of one run on one device, or on several like it, with a process for each.

    Raises ConfigError for a precision that the device does not have.
    """
    precision = precision_on(config, device)
    videos, pretraining = clips.videos, isinstance(config, PretrainConfig)
    if isinstance(config, FinetuneConfig) and config.labels_per_class and clips.classes:
        videos = min(videos, config.labels_per_class * clips.classes)
    optim = config.optim.resolved(videos)
    count = optim.batch_size * config.repeated_aug // processes  # clips of a step in a process
    counted = config.replace(precision=precision, device="cuda" if device.overlaps else "cpu")
    memory = training_memory(counted, max(1, count // config.grad_accum_steps))
    tokens, forward = _work(config)
    once = 2 * forward / (device.efficiency * device.matmul[precision])  # a clip's forward pass
    # Backward takes two forward passes' worth of products, and goes through trained blocks only.
    backward, depth = 3 if config.activation_checkpointing else 2, config.model.depth
    frozen = config.frozen_layers if isinstance(config, FinetuneConfig) else 0
    again = 1 + backward * (1 - frozen / depth)
    products = again * once * count
    kept = memory.activations * config.grad_accum_steps
    moved = device.passes * kept + OPTIMIZER * memory.gradients / 4
    blocks = (depth + pretraining * config.model.decoder_depth) * again / (1 + backward)
    parts = {
        "matrix products": products,
        "memory bandwidth": moved / device.bandwidth,
        "launches": (device.host[0] + device.host[1] * blocks) * config.grad_accum_steps,
    }
    work = parts["matrix products"] + parts["memory bandwidth"]
    step = max(work, parts["launches"]) if device.overlaps else work + parts["launches"]
    needed: int | None = 0
    if not config.data.cache:
        needed = None
        if clips.decoding is not None:
            decoding = clips.decoding * optim.batch_size / processes
            needed = math.ceil(decoding / step)
            parts["decoding"] = decoding / max(1, config.data.num_workers)
            step = max(step, parts["decoding"])
    total = round(device.held * memory.total) + (0 if device.overlaps else PROCESS)
    if config.data.cache_on_device:
        total += clips.stored or 0
    testing, starting = _testing(config, optim, replace(clips, videos=videos), once, processes)
    if config.data.num_workers and not config.data.cache:
        starting += START
    run, seconds = optim.steps * count * processes, optim.steps * step + testing + starting
    return StagePlan(
        optim.steps, run, tokens, forward, seconds, total, parts, needed, testing, starting
    )


def _testing(
    config: RunConfig, optim: OptimConfig, clips: Clips, once: float, processes: int
) -> tuple[float, float]:
    """Seconds of the test and of validation after each epoch, and of starting workers for them.

    once   seconds of a view's forward pass
    """
    if not isinstance(config, FinetuneConfig):
        return 0.0, 0.0
    decoding = 0.0 if config.data.cache else clips.decoding or 0.0
    workers = config.data.num_workers

    def seconds(videos: int) -> tuple[float, float]:
        read = config.test_clips * videos / processes  # clips; each is cropped several times
        forward = config.test_crops * read * once
        if config.data.cache or workers < 2 or read < FEW:
            return forward + read * decoding, 0.0
        return max(forward, read * decoding / workers), START

    epochs = math.ceil(optim.steps / max(1, clips.videos // optim.batch_size))
    test, validation = seconds(clips.test), seconds(clips.val)
    testing, starting = (t + epochs * v for t, v in zip(test, validation, strict=True))
    return testing, starting


def precision_on(config: RunConfig, device: Hardware) -> str:
    """The precision of a run on a device, "auto" resolved as the run itself does."""
    native = "fp32"
    if device.overlaps:
        native = "bf16" if "bf16" in device.matmul else "fp16"
    if config.precision == "auto":
        return native
    if config.precision not in device.matmul:
        raise ConfigError(
            f"{device.name} does not compute in {config.precision}: set precision to "
            f'"{native}", or to "auto", which chooses it'
        )
    return config.precision


def _work(config: RunConfig) -> tuple[str, int]:
    """The tokens of a clip, in words, and the multiply-adds of its forward pass."""
    grid = config.model.grid
    if isinstance(config, PretrainConfig):
        mask = make_mask(config.mask, grid, 1, torch.Generator())
        visible, queries, targets = (x.shape[1] for x in (mask.visible, mask.queries, mask.targets))
        forward = pretraining_multiply_adds(config.model, config.mask)["total"]
        named = (
            f"{grid.num_tokens:,}: {visible:,} visible, {queries:,} queries, {targets:,} targets"
        )
        return named, forward
    return f"{grid.num_tokens:,}", classifier_multiply_adds(config.model)
