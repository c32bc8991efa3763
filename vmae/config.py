"""Configurations: what a model, a mask and a training run are. Frozen dataclasses, to and from YAML."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_type_hints

import yaml

from vmae.grid import TokenGrid

#: Channel statistics of ImageNet, which VideoMAE and MAE use to normalise pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


#: Recipes that ship with the package.
RECIPES = Path(__file__).parent / "recipes"


class ConfigError(ValueError):
    """A configuration that cannot work; the message names the field, its value and the way out."""


def _plain(value: Any) -> Any:
    """Dataclasses and tuples as the dicts and lists that YAML knows."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value`, as YAML gave it, as an instance of the field's type `hint`."""
    if isinstance(hint, UnionType):  # "int | None": the only unions used here
        if value is None:
            return None
        hint = next(arm for arm in get_args(hint) if arm is not type(None))
    if dataclasses.is_dataclass(hint):
        return hint.from_dict(value, where + ".")  # type: ignore[union-attr]
    if getattr(hint, "__origin__", None) is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if hint is float and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            pass
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        raise ConfigError(f"{where} is {value!r}; it must be of type {hint.__name__}")
    return value


class Config:
    """What all configurations share: reading, writing and changing."""

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        """Build from nested plain dicts; unknown fields are an error that lists the known ones."""
        if isinstance(values, cls):
            return values
        if not isinstance(values, dict):
            raise ConfigError(f"{where or cls.__name__} must be a mapping, not {values!r}")
        hints = get_type_hints(cls)
        known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(
                f"{cls.__name__} has no field {', '.join(where + name for name in unknown)}; "
                f"it has {', '.join(known)}"
            )
        return cls(**{k: _typed(hints[k], v, where + k) for k, v in values.items()})

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file; errors name the file."""
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: there is no such configuration file") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not YAML: {error}") from None
        try:
            return cls.from_dict(values or {})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts and lists."""
        return _plain(self)

    def to_yaml(self, path: str | Path) -> None:
        """Write every field, also those at their default."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False)
        Path(path).write_text(text, encoding="utf-8")

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


# Encoder width, depth, heads, MLP ratio; decoder width, heads (VideoMAE V2's scripts and code).
_SIZES: dict[str, tuple[int, int, int, float, int, int]] = {
    "tiny": (64, 4, 4, 4.0, 48, 3),
    "S": (384, 12, 6, 4.0, 192, 3),
    "B": (768, 12, 12, 4.0, 384, 6),
    "L": (1024, 24, 16, 4.0, 512, 8),
    "H": (1280, 32, 16, 4.0, 512, 8),
    "g": (1408, 40, 16, 48 / 11, 512, 8),
}


@dataclass(frozen=True)
class ModelConfig(Config):
    """One model: the clip it reads, its encoder, its decoder.

    `family` fixes what the two families do differently. "videomae": no class token, 1-D sin-cos
    positions, no key bias, targets standardised per channel. "mae": class token, 2-D positions,
    key bias, targets standardised over all values of a patch.

    `attention` of the encoder: "joint" over all tokens, as published; or "divided", over time and
    then over space, as in TimeSformer. `positions_of`: (frames, size) of the clips that weights
    were trained on, to interpolate their position table to this clip; None: a table of its own.
    """

    family: str = "videomae"
    frames: int = 16
    size: int = 224
    channels: int = 3
    tubelet: tuple[int, int, int] = (2, 16, 16)
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    decoder_width: int = 384
    decoder_depth: int = 4
    decoder_heads: int = 6
    normalize_targets: bool = True
    attention: str = "joint"
    positions_of: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.family not in ("videomae", "mae"):
            raise ConfigError(f'family is {self.family!r}; it must be "videomae" or "mae"')
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            w, h = getattr(self, width), getattr(self, heads)
            if h < 1 or w % h or w % 2:
                raise ConfigError(f"{width}={w} must be even and divisible by {heads}={h}")
        if self.family == "mae" and (self.width % 4 or self.decoder_width % 4):
            raise ConfigError("2-D positions need widths divisible by 4")
        if self.attention not in ("joint", "divided"):
            raise ConfigError(f'attention is {self.attention!r}; it must be "joint" or "divided"')
        if self.attention == "divided" and self.family != "videomae":
            raise ConfigError('attention "divided" needs tokens in time: family "videomae"')
        if self.positions_of is not None:
            frames, size = self.positions_of
            _ = TokenGrid((frames, size, size), self.tubelet, self.channels)
        _ = self.grid  # raises where the clip does not divide into tubelets

    @property
    def grid(self) -> TokenGrid:
        """Where the tokens lie."""
        return TokenGrid((self.frames, self.size, self.size), self.tubelet, self.channels)

    @classmethod
    def videomae(cls, name: str = "B", /, version: int = 1, **changes: Any) -> ModelConfig:
        """A published VideoMAE by name (tiny, S, B, L, H, g); V1 has deeper decoders for L and H."""
        values = _sized(name)
        if version == 1 and name in ("L", "H"):
            values["decoder_depth"] = 12
            if name == "H":
                values["decoder_width"] = 640
        if name == "g":
            values["tubelet"] = (2, 14, 14)
        if name == "tiny":  # the setting that two CPU cores train in minutes
            values |= {"frames": 8, "size": 16, "tubelet": (2, 4, 4), "decoder_depth": 2}
        return cls(**(values | changes))

    @classmethod
    def mae(cls, name: str = "L", /, **changes: Any) -> ModelConfig:
        """A published image MAE by name (B, L, H): one frame, a decoder of 8 blocks of 512."""
        values = _sized(name) | {"family": "mae", "frames": 1}
        values |= {"tubelet": (1, 14, 14) if name == "H" else (1, 16, 16)}
        if name != "tiny":
            values |= {"decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16}
        return cls(**(values | changes))


def _sized(size: str) -> dict[str, Any]:
    if size not in _SIZES:
        raise ConfigError(f"there is no model size {size!r}; there are {', '.join(_SIZES)}")
    names = ("width", "depth", "heads", "mlp_ratio", "decoder_width", "decoder_heads")
    return dict(zip(names, _SIZES[size], strict=True))


@dataclass(frozen=True)
class MaskConfig(Config):
    """What the encoder does not see, and what the decoder is asked for.

    encoder        "random", "tube" or "frame"
    ratio          share of the tokens hidden from the encoder
    tube_length    frames that a tube covers; None: the whole clip, as published
    decoder        "all" (MAE, V1), "running-cell" (V2), "random", "frame" (V2's ablations),
                   "drop-visible" (the popular account of dual masking)
    decoder_ratio  share of the positions that the decoder is not asked for; for "drop-visible"
                   the share of visible tokens dropped
    """

    encoder: str = "tube"
    ratio: float = 0.9
    tube_length: int | None = None
    decoder: str = "all"
    decoder_ratio: float = 0.0

    def __post_init__(self) -> None:
        encoders = ("random", "tube", "frame")
        decoders = ("all", "running-cell", "random", "frame", "drop-visible")
        if self.encoder not in encoders:
            raise ConfigError(f"mask encoder is {self.encoder!r}; there are {', '.join(encoders)}")
        if self.decoder not in decoders:
            raise ConfigError(f"mask decoder is {self.decoder!r}; there are {', '.join(decoders)}")
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask ratio is {self.ratio}; it must lie between 0 and 1")
        if not 0 <= self.decoder_ratio < 1:
            raise ConfigError(f"decoder_ratio is {self.decoder_ratio}; it must be in [0, 1)")
        if self.tube_length is not None and self.encoder != "tube":
            raise ConfigError(f"tube_length is set, but the encoder mask is {self.encoder!r}")


@dataclass(frozen=True)
class DataConfig(Config):
    """Which clips: a set's folder, and how frames are taken from a video.

    path       a set as `vmae render` writes it, or a folder with one sub-folder a class
    split      of a public set with several: 1, 2 or 3 of UCF101 and HMDB51; None: the first
    root       prefix of the paths in its lists, where the videos lie elsewhere
    stores     where decoded frames are kept
    sampling   "dense", "kinetics" or "tsn": see vmae.data.sampling
    stride     frames of the video from one frame of the clip to the next
    short      what to do with a video shorter than a clip: "skip" it, or "repeat" its last frame
    store      decode every video once into a memory-mapped file, then read that
    on_device  keep the decoded training frames in the device's memory when they fit
    workers    processes that decode
    max_bad    share of unreadable videos at which the run stops
    """

    path: str = "data/motion-small"
    split: int | None = None
    root: str | None = None
    stores: str = "data/stores"
    sampling: str = "dense"
    stride: int = 1
    short: str = "skip"
    store: bool = True
    on_device: bool = False
    workers: int = 2
    max_bad: float = 0.05

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ConfigError(f"stride is {self.stride}; it must be 1 or more")
        if self.sampling not in ("dense", "kinetics", "tsn"):
            raise ConfigError(f"sampling is {self.sampling!r}; there are dense, kinetics, tsn")
        if self.short not in ("skip", "repeat"):
            raise ConfigError(f'short is {self.short!r}; it must be "skip" or "repeat"')
        if self.on_device and not self.store:
            raise ConfigError("on_device keeps the frames of a store: it needs store true")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"max_bad is {self.max_bad}; it is a share between 0 and 1")


@dataclass(frozen=True)
class OptimConfig(Config):
    """AdamW with warm-up and cosine decay. `lr` is absolute, for the batch size given here.

    A run lasts `epochs` passes over its videos where that is given, else `steps` batches.
    """

    steps: int = 1000
    epochs: float | None = None
    batch_size: int = 256
    lr: float = 2e-3
    min_lr: float = 0.0
    warmup: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_grad: float | None = 1.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.epochs is not None and self.epochs <= 0:
            raise ConfigError(f"epochs is {self.epochs}; it must be above 0, or None to use steps")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"warmup is {self.warmup}; it is a share of the steps, in [0, 1]")

    def resolved(self, videos: int) -> OptimConfig:
        """The same with `epochs` turned into steps over so many videos."""
        if self.epochs is None:
            return self
        return self.replace(
            steps=max(1, round(self.epochs * videos / self.batch_size)), epochs=None
        )


@dataclass(frozen=True)
class PretrainConfig(Config):
    """A pre-training run.

    repeat         views of each clip that is read: one decode, several masks and crops
    crop           multi-scale crops, as published; off where the place in the frame matters
    device         "auto" (a GPU where there is one), "cuda" (a GPU or an error) or "cpu"
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
        for name in ("accumulate", "save_every", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.on_nonfinite not in ("stop", "skip"):
            raise ConfigError(f'on_nonfinite is {self.on_nonfinite!r}; use "stop" or "skip"')
        tubes = self.mask.encoder == "tube" and self.mask.tube_length is None
        if self.model.attention == "divided" and not tubes:
            raise ConfigError(
                'attention "divided" needs visible tokens that form a grid: mask.encoder "tube" '
                "without tube_length"
            )


#: What a classifier is shown of a clip.
VIEWS = ("video", "single-frame", "shuffled")


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

    The augmentations are off by default; rand_ops and erase need RGB clips.
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
    device: str = "auto"  # as in PretrainConfig
    precision: str = "auto"
    seed: int = 0
    log_every: int = 20

    def __post_init__(self) -> None:
        _check_run(self)
        if self.view not in VIEWS:
            raise ConfigError(f"view is {self.view!r}; there are {', '.join(VIEWS)}")
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise ConfigError(f"labels_per_class is {self.labels_per_class}; give 1 or more")
        self._check_augmentation()

    def _check_augmentation(self) -> None:
        if self.crop_area is not None:
            if not self.crop:
                raise ConfigError("crop_area is set, but crop is false: set crop to true")
            if len(self.crop_area) != 2 or not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
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
    if config.repeat < 1:
        raise ConfigError(f"repeat is {config.repeat}; it must be 1 or more")
    if config.precision not in ("auto", "fp32", "bf16"):
        raise ConfigError(f'precision is {config.precision!r}; use "auto", "fp32" or "bf16"')
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f'device is {config.device!r}; use "auto", "cpu" or "cuda"')


@dataclass(frozen=True)
class Recipe(Config):
    """A whole experiment: how to pre-train, then how to fine-tune the same model."""

    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        if self.pretrain.model != self.finetune.model:
            raise ConfigError("pretrain.model and finetune.model differ; a recipe is of one model")

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Recipe:
        """Also reads the config.yaml of one run: its model and data stand for the other part too."""
        parts: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
        if isinstance(values, dict) and values and not values.keys() & parts.keys():
            for part, kind in parts.items():
                if values.keys() <= {f.name for f in dataclasses.fields(kind)}:  # type: ignore[arg-type]
                    shared = {k: values[k] for k in ("model", "data") if k in values}
                    return super().from_dict(dict.fromkeys(parts, shared) | {part: values})
        return super().from_dict(values, where)

    @classmethod
    def load(cls, name: str | Path) -> Recipe:
        """A recipe that ships, by name (`cpu`, `gpu`), or a YAML file, by path."""
        shipped = RECIPES / f"{name}.yaml"
        path = Path(name)
        if not shipped.exists() and path.suffix not in (".yaml", ".yml"):
            names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
            raise ConfigError(
                f"there is no recipe {str(name)!r}: there are {names}, or give a YAML file"
            )
        return cls.from_yaml(shipped if shipped.exists() else path)

    def changed(self, both: dict[str, Any] | None = None, **parts: dict[str, Any]) -> Recipe:
        """A copy with fields changed, by dotted name: in `both` parts, in `pretrain`, in `finetune`.

        None leaves a field as it is.
        """
        values = self.to_dict()
        for part in ("pretrain", "finetune"):
            for name, value in {**(both or {}), **parts.get(part, {})}.items():
                if value is not None:
                    *path, last = name.split(".")
                    place = values[part]
                    for step in path:
                        place = place[step]
                    place[last] = value
        return Recipe.from_dict(values)
