"""What a training run is, beside its model and its mask."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmae.config import Config, ConfigError, MaskConfig, ModelConfig
from vmae.data.augment.batched import VIEWS
from vmae.data.config import DataConfig


@dataclass(frozen=True)
class OptimConfig(Config):
    """AdamW with warm-up and cosine decay.

    A run lasts `epochs` passes over its videos where that is given, else `steps` batches.

    batch_size  videos a step, of all processes together; `repeat` makes several clips of each
    lr_batch    the batch that `lr` and `min_lr` are stated for, 256 as published: they are then
                multiplied by batch_size / lr_batch. None: they hold as they are
    warmup      share of the steps in which the rate rises
    """

    steps: int = 1000
    epochs: float | None = None
    batch_size: int = 256
    lr: float = 2e-3
    min_lr: float = 0.0
    lr_batch: int | None = None
    warmup: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_grad: float | None = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "lr_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more")
        if self.epochs is not None and self.epochs <= 0:
            raise ConfigError(f"epochs is {self.epochs}; it must be above 0, or None to use steps")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"warmup is {self.warmup}; it is a share of the steps, in [0, 1]")

    def resolved(self, videos: int) -> OptimConfig:
        """The same in absolute numbers: steps over so many videos, rates for this batch."""
        steps, scale = self.steps, 1.0
        if self.epochs is not None:
            steps = max(1, round(self.epochs * videos / self.batch_size))
        if self.lr_batch is not None:
            scale = self.batch_size / self.lr_batch
        return self.replace(
            steps=steps, epochs=None, lr=scale * self.lr, min_lr=scale * self.min_lr, lr_batch=None
        )


@dataclass(frozen=True)
class PretrainConfig(Config):
    """A pre-training run.

    repeat         views of each clip that is read: one decode, several masks and crops
    crop           multi-scale crops, as published; off where the place in the frame matters
    device         "auto" (an NVIDIA or AMD GPU where there is one, else the CPU), "cuda" (such a
                   GPU or an error) or "cpu"
    precision      "auto": bf16 on a GPU that has it, else fp32; "bf16" works on a CPU too
    accumulate     parts that a process computes its batch in: less memory, the same gradient
    checkpointing  compute activations again in the backward pass: less memory, the same gradient
    compile        torch.compile; without it, and with a warning, where that fails
    on_nonfinite   at a loss that is no number: "stop" the run, or "skip" the step
    keep           newest checkpoints that are kept, beside the best
    tensorboard    write the log for TensorBoard too
    utilisation    log achieved FLOP/s over the matmul rate of the device, measured at the start;
                   None: on a GPU
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    repeat: int = 1
    crop: bool = False
    device: str = "auto"
    precision: str = "auto"
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False
    on_nonfinite: str = "stop"
    seed: int = 0
    save_every: int = 500
    log_every: int = 20
    keep: int = 2
    tensorboard: bool = False
    utilisation: bool | None = None

    def __post_init__(self) -> None:
        _check_run(self)
        tubes = self.mask.encoder == "tube" and self.mask.tube_length is None
        if self.model.attention == "divided" and not tubes:
            raise ConfigError(
                'attention "divided" needs visible tokens that form a grid: mask.encoder "tube" '
                "without tube_length"
            )


@dataclass(frozen=True)
class FinetuneConfig(Config):
    """A fine-tuning run: labelled clips, a classifier, optionally pre-trained weights.

    labels_per_class   train on so many videos of each class; None: on all
    view               "video"; or a baseline that is denied the motion, in training and in test:
                       "single-frame" (the middle frame, repeated) or "shuffled" (frames in random
                       order)
    crop               random crops: multi-scale; or random resized crops where `crop_area` gives
                       the least and the largest share of the frame ((0.08, 1.0) as published)
    flip               mirror half of the clips; off where labels tell left from right, as in the
                       motion set and in Something-Something
    rand_ops           RandAugment: operations drawn for a clip (4 as published); 0: none
    rand_magnitude     their mean level, 0 to 10 (7 as published)
    erase              probability that a clip loses a rectangle to noise (0.25 as published)
    mixup, cutmix      alpha of the mixing of clips and labels (0.8 and 1.0 as published); 0: none
    mix_each           draw what is mixed for each clip; else, as published, once for a batch
    test_clips         clips over a video in the test, their probabilities averaged; and squares
    test_crops         along the long side (5 and 3 as published on Kinetics)

    The augmentations are off by default; rand_ops and erase need RGB clips. Fields that are not
    named here mean what they mean in PretrainConfig.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            steps=300, batch_size=32, lr=1e-3, betas=(0.9, 0.999), layer_decay=0.75
        )
    )
    labels_per_class: int | None = None
    view: str = "video"
    label_smoothing: float = 0.1
    drop_path: float = 0.0
    head_drop: float = 0.0
    repeat: int = 1  # views of each clip that is read
    crop: bool = False
    crop_area: tuple[float, float] | None = None
    flip: bool = False
    rand_ops: int = 0
    rand_magnitude: float = 7.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_each: bool = False
    test_clips: int = 1
    test_crops: int = 1
    device: str = "auto"
    precision: str = "auto"
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False
    on_nonfinite: str = "stop"
    seed: int = 0
    save_every: int = 500
    log_every: int = 20
    keep: int = 2
    tensorboard: bool = False
    utilisation: bool | None = None

    def __post_init__(self) -> None:
        _check_run(self)
        for name in ("test_clips", "test_crops"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.view not in VIEWS:
            raise ConfigError(f"view is {self.view!r}; there are {', '.join(VIEWS)}")
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise ConfigError(f"labels_per_class is {self.labels_per_class}; give 1 or more")
        self._check_augmentation()

    def _check_augmentation(self) -> None:
        if self.crop_area is not None:
            if not self.crop:
                raise ConfigError("crop_area is set, but crop is false: set crop to true")
            if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
                raise ConfigError(
                    f"crop_area is {self.crop_area}; give the least and the largest share of the "
                    "frame, above 0 and up to 1, such as [0.08, 1.0]"
                )
        if self.rand_ops < 0:
            raise ConfigError(f"rand_ops is {self.rand_ops}; give 0 (none) or more")
        if not 0 <= self.rand_magnitude <= 10:
            raise ConfigError(f"rand_magnitude is {self.rand_magnitude}; it must be in [0, 10]")
        if not 0 <= self.erase <= 1:
            raise ConfigError(f"erase is {self.erase}; it is a probability, in [0, 1]")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give 0 (none) or more")
        if (self.rand_ops or self.erase) and self.model.channels != 3:
            raise ConfigError(
                f"rand_ops and erase need 3 channels, the model has {self.model.channels}: "
                "set both to 0"
            )


def _check_run(config: PretrainConfig | FinetuneConfig) -> None:
    for name in ("repeat", "accumulate", "save_every", "log_every", "keep"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}; it must be 1 or more")
    if config.on_nonfinite not in ("stop", "skip"):
        raise ConfigError(f'on_nonfinite is {config.on_nonfinite!r}; use "stop" or "skip"')
    if config.precision not in ("auto", "fp32", "bf16"):
        raise ConfigError(f'precision is {config.precision!r}; use "auto", "fp32" or "bf16"')
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f'device is {config.device!r}; use "auto", "cpu" or "cuda"')
