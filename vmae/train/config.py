"""What a training run is, beside its model and its mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch

from vmae.base_config import Config, ConfigError, current_names
from vmae.config import MaskConfig, ModelConfig
from vmae.data.config import DataConfig
from vmae.masking import make_mask


@dataclass(frozen=True)
class OptimConfig(Config):
    """AdamW with linear warm-up and cosine decay."""

    steps: int = 1000
    """Batches of the run, where `epochs` is None."""
    epochs: float | None = None
    """Passes over the training videos."""
    batch_size: int = 256
    """Videos per step, of all processes together; `repeated_aug` makes several clips of each."""
    lr: float = 2e-3
    min_lr: float = 0.0
    """The learning rate at the end."""
    base_batch_size: int | None = None
    """The batch size that `lr` and `min_lr` are stated for, 256 as published: they are multiplied by
    batch_size / base_batch_size. None: they are used as they are."""
    warmup_ratio: float = 0.05
    """Share of the steps in which the learning rate rises."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_grad: float | None = 1.0
    """The largest norm of all gradients; None: no limit."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each layer of a classifier to the one below."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("steps batch_size base_batch_size", 1)
        self.require("lr min_lr weight_decay clip_grad", 0)
        self.require("warmup_ratio betas layer_decay", 0, 1)
        if self.epochs is not None and not self.epochs > 0:
            raise ConfigError(
                f"epochs is {self.epochs}; it must be greater than 0, or None to use steps instead"
            )

    def resolved(self, videos: int) -> OptimConfig:
        """The same in absolute numbers: steps over so many videos, learning rates for this batch."""
        steps, scale = self.steps, 1.0
        if self.epochs is not None:
            # An epoch is a whole number of batches, as published (drop_last), if it has one.
            per_epoch = videos // self.batch_size or videos / self.batch_size
            steps = max(1, round(self.epochs * per_epoch))
        if self.base_batch_size is not None:
            scale = self.batch_size / self.base_batch_size
        return self.replace(
            steps=steps,
            epochs=None,
            lr=scale * self.lr,
            min_lr=scale * self.min_lr,
            base_batch_size=None,
        )

    def in_words(self, videos: int) -> str:
        """What a run over so many videos does, such as "12 steps of 8 videos: 3 epochs"."""
        steps, batch = self.resolved(videos).steps, self.batch_size
        text = f"{steps:,} step{'s' * (steps != 1)} of {batch} videos: "
        read, whole = steps * batch / videos, videos // batch
        if self.epochs is None or not whole or not videos % batch:
            return f"{text}{read:.3g} epochs"
        return (
            f"{text}{self.epochs:g} epochs of {whole:,} step{'s' * (whole != 1)}, the whole batches in "
            f"{videos:,} videos; each video is read {read:.3g} times on average"
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """What pre-training and fine-tuning have in common."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    repeated_aug: int = 1
    """Clips of each video that is read: one decode, several masks and crops."""
    crop: bool = False
    """Random crops, multi-scale as published; off where the position in the frame matters."""
    flip: bool = False
    """Mirror half of the clips; off where labels tell left from right, as in the motion set and in
    Something-Something."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run. "cuda": an NVIDIA or AMD GPU. "auto": such a GPU where there is one, else the CPU."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of matrix products. "auto": bf16 on a GPU that computes in it, fp16 with a loss scaler on an older
    one, fp32 on a CPU. "bf16" works on a CPU too; it is never emulated on a GPU."""
    grad_accum_steps: int = 1
    """Micro-batches that a process computes its batch in: less memory, the same gradient."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, the same gradient."""
    compile: bool = False
    """Use torch.compile; where that fails, warn and run without it."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do at a NaN or infinite loss: stop the run, or skip the step."""
    seed: int = 0
    save_every: int = 500
    """Steps from one checkpoint to the next."""
    log_every: int = 20
    """Steps from one record of the log to the next."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept, beside the best."""
    log_with: Literal[None, "tensorboard", "wandb", "trackio"] = None
    """A tracker that gets the log too: TensorBoard, Weights & Biases or trackio."""
    log_mfu: bool | None = None
    """Log model FLOPs utilisation: achieved FLOP/s over the device's matmul rate, measured at the
    start. None: on a GPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("repeated_aug grad_accum_steps save_every log_every keep_checkpoints", 1)

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        """Also accepts `tensorboard: true` or `false`, from before there were other trackers."""
        if isinstance(values, Mapping):
            values = current_names(cls, values)
            if isinstance(values.get("log_with"), bool):
                values["log_with"] = "tensorboard" if values["log_with"] else None
        return super().from_dict(values, where)

    def require_rgb(self) -> None:
        """Raise ConfigError if the model cannot read `data`; a source of one's own may have other clips."""
        if self.model.channels != 3:
            raise ConfigError(
                f"model.channels is {self.model.channels}; it must be 3, because videos are read in RGB"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """A pre-training run."""

    mask: MaskConfig = field(default_factory=MaskConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        tubes = self.mask.mask_type == "tube" and self.mask.tube_length is None
        if self.model.attention == "divided" and not tubes:
            raise ConfigError(
                'attention "divided" needs visible tokens that form a grid: set mask.mask_type '
                'to "tube", without tube_length'
            )
        # Raises MaskError if the grid does not allow the mask.
        _ = make_mask(self.mask, self.model.grid, 1, torch.Generator())


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """A fine-tuning run: labelled clips, a classifier, optionally pre-trained weights.

    Augmentation is off by default; randaug_num_ops and random_erase_prob need RGB clips.
    """

    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            steps=300, batch_size=32, lr=1e-3, betas=(0.9, 0.999), layer_decay=0.75
        )
    )
    start_from: str | None = None
    """Weights to start from: a file in any layout that `vmae convert` reads, the folder of a run,
    pre-trained or fine-tuned, or a model of the Hugging Face hub, OWNER/NAME or OWNER/NAME@REVISION
    (`vmae finetune --encoder`). None: from scratch."""
    state_key: str | None = None
    """The entry of that file to take, such as "model_ema"; None: the raw weights."""
    size_from_weights: bool = False
    """Take the encoder's size (width, depth, heads, tubelet) from `start_from`; clips stay as they are."""
    frozen_layers: int = 0
    """Blocks from the bottom that keep the weights of `start_from`, with the patch embedding. All of
    them: a linear probe with augmentation."""
    needs_classifier: bool = False
    """Start only from a fine-tuned model, whose `fc_norm` is kept, as in VideoMAE V2's progressive
    training."""
    head_rows: str | None = None
    """Rows of the head of the classifier that the run starts from, to start its own with. "names":
    those of the classes of the same name; else the path of a JSON list, with the number of a row for
    each class (VideoMAE V2's misc/label_710to400.json). None: a fresh head."""
    labels_per_class: int | None = None
    """Train on so many videos of each class; None: on all."""
    val_share: float | None = None
    """Share of the training videos held out for validation, unless the set has such a split: the
    weights of the best epoch are kept and tested. None: no validation, and the last weights, as published."""
    view: Literal["video", "single-frame", "shuffled"] = "video"
    """What the classifier sees, in training and in the test: "video"; or a baseline that is denied
    the motion, the middle frame repeated or the frames in random order."""
    label_smoothing: float = 0.1
    drop_path: float = 0.0
    """Probability that a sample skips the last block; less for earlier blocks, in a line."""
    head_drop: float = 0.0
    """Dropout before the head."""
    crop_area: tuple[float, float] | None = None
    """Least and largest share of the frame of a random resized crop ((0.08, 1.0) as published);
    None: multi-scale crops."""
    randaug_num_ops: int = 0
    """RandAugment: operations per clip (4 as published); 0: none."""
    randaug_magnitude: float = 7.0
    """Their mean level, 0 to 10 (7 as published)."""
    random_erase_prob: float = 0.0
    """Probability that a rectangle of a clip is replaced by noise (0.25 as published)."""
    mixup: float = 0.0
    """Alpha of mixup (0.8 as published); 0: none."""
    cutmix: float = 0.0
    """Alpha of CutMix (1.0 as published); 0: none."""
    mix_each: bool = False
    """Draw the mixing for each clip; else, as published, once per batch."""
    test_clips: int = 1
    """Clips along a video in the test, whose probabilities are averaged (5 as published on
    Kinetics)."""
    test_crops: int = 1
    """Squares along the long side of each (3 as published)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("test_clips test_crops", 1)
        self.require("label_smoothing drop_path head_drop", 0, 1)
        self.require("frozen_layers", 0, self.model.depth)
        self.require("val_share", 0.01, 0.5)
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise ConfigError(
                f"labels_per_class is {self.labels_per_class}; it must be at least 1, or None to use "
                "all"
            )
        self._check_augmentation()

    @property
    def labels_in_words(self) -> str:
        """How many labels there are, for tables and figures: "10 labels per class", or "all labels"."""
        few = self.labels_per_class
        return "all labels" if few is None else f"{few} label{'s' * (few != 1)} per class"

    def _check_augmentation(self) -> None:
        if self.crop_area is not None:
            if not self.crop:
                raise ConfigError(
                    "crop_area is set, but crop is false: set crop to true, or remove crop_area"
                )
            if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
                raise ConfigError(
                    f"crop_area is {self.crop_area}; it must give the minimum and maximum "
                    "fraction of the frame to crop, each greater than 0 and at most 1, e.g. [0.08, 1.0]"
                )
        for name in ("randaug_num_ops", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; it must be at least 0, where 0 disables it"
                )
        self.require("randaug_magnitude", 0, 10)
        self.require("random_erase_prob", 0, 1)
        if self.randaug_num_ops or self.random_erase_prob:
            self.require_rgb()
