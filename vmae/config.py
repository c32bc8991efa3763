"""Configurations of models and masks: frozen dataclasses, read from and written to YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

import yaml

from vmae.grid import TokenGrid


class ConfigError(ValueError):
    """An invalid configuration; the message names the field, its value and a fix."""


#: Field names of the first edition, and today's. Its files still load.
FIRST_EDITION: dict[str, dict[str, str]] = {
    "ModelConfig": {
        "frames": "num_frames", "size": "img_size", "width": "embed_dim", "heads": "num_heads",
        "decoder_width": "decoder_embed_dim", "decoder_heads": "decoder_num_heads",
        "positions_of": "pos_embed_from",
    },
    "MaskConfig": {
        "encoder": "mask_type", "ratio": "mask_ratio", "decoder": "decoder_mask_type",
        "decoder_ratio": "decoder_mask_ratio",
    },
    "DataConfig": {
        "workers": "num_workers", "store": "cache", "stores": "cache_dir",
        "on_device": "cache_on_device", "max_bad": "max_unreadable",
    },
    "OptimConfig": {"lr_batch": "base_batch_size", "warmup": "warmup_ratio"},
    "RunConfig": {
        "repeat": "repeated_aug", "accumulate": "grad_accum_steps", "keep": "keep_checkpoints",
        "checkpointing": "activation_checkpointing", "utilisation": "log_mfu",
        "rand_ops": "randaug_num_ops", "rand_magnitude": "randaug_magnitude",
        "erase": "random_erase_prob",
    },
    "Record": {"utilisation": "mfu"},
}  # fmt: skip


def current_names(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the first edition's field names replaced by today's.

    If a field is given under both names, both stay, so that the caller can report the old one.
    """
    new = {k: v for base in kind.__mro__ for k, v in FIRST_EDITION.get(base.__name__, {}).items()}
    return {
        name if new.get(name, name) in values else new.get(name, name): value
        for name, value in values.items()
    }


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
    if get_origin(hint) is Literal:
        return value  # `Config.__post_init__` checks it
    if dataclasses.is_dataclass(hint):
        return hint.from_dict(value, where + ".")  # type: ignore[union-attr]
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        items = get_args(hint)
        if len(items) != len(value):
            raise ConfigError(f"{where} is {list(value)!r}; it must have {len(items)} values")
        return tuple(_typed(i, v, where) for i, v in zip(items, value, strict=True))
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
    """The base of all configurations: reading, writing and changing them."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value, choices = getattr(self, name), get_args(hint)
            if get_origin(hint) is Literal and value not in choices:
                raise ConfigError(
                    f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}"
                )

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        """Build from nested plain dicts; unknown fields are an error that lists the known ones.

        Also accepts the field names of the first edition.
        """
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{where.rstrip('.') or cls.__name__} must map field names to values; it is {values!r}"
            )
        values = current_names(cls, values)
        hints = get_type_hints(cls)
        known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(
                f"{cls.__name__} has no field {', '.join(where + name for name in unknown)}; "
                f"the valid fields are {', '.join(known)}"
            )
        return cls(**{k: _typed(hints[k], v, where + k) for k, v in values.items()})

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file; errors name the file."""
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: this configuration file does not exist") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: the file is not valid YAML: {error}") from None
        try:
            return cls.from_dict(values or {})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts and lists."""
        return _plain(self)

    def to_yaml(self, path: str | Path) -> None:
        """Write all fields, including those with default values."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False)
        Path(path).write_text(text, encoding="utf-8")

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


#: Channel statistics of ImageNet, which VideoMAE and MAE use to normalise pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# embed_dim, depth, num_heads, mlp_ratio, decoder_embed_dim, decoder_num_heads (V2's scripts and code)
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
    """One model: the clip it reads, its encoder, its decoder."""

    family: Literal["videomae", "mae"] = "videomae"
    """What the two families do differently. "videomae": no class token, 1-D sin-cos positions, no
    key bias, targets standardised per channel. "mae": class token, 2-D positions, key bias, targets
    standardised over all values of a patch."""
    num_frames: int = 16
    """T, frames in a clip."""
    img_size: int = 224
    """H = W, the side of a frame in pixels."""
    channels: int = 3
    """C."""
    tubelet: tuple[int, int, int] = (2, 16, 16)
    """(p_t, p_h, p_w): frames, rows and columns of one token."""
    embed_dim: int = 768
    """D, the encoder's width."""
    depth: int = 12
    """Blocks of the encoder."""
    num_heads: int = 12
    mlp_ratio: float = 4.0
    """Hidden width of an MLP over the width of its block, in encoder and decoder."""
    decoder_embed_dim: int = 384
    """E, the decoder's width."""
    decoder_depth: int = 4
    decoder_num_heads: int = 6
    normalize_targets: bool = True
    """Whether each patch of the targets is standardised (MAE's norm_pix_loss)."""
    attention: Literal["joint", "divided"] = "joint"
    """In the encoder: over all tokens, as published; or over time, then over space, as in
    TimeSformer."""
    pos_embed_from: tuple[int, int] | None = None
    """(num_frames, img_size) that the weights were trained with, to interpolate their position
    table to this clip; None: a table computed for this clip."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for prefix in ("", "decoder_"):
            width, heads = (getattr(self, prefix + name) for name in ("embed_dim", "num_heads"))
            if heads < 1 or width % heads or width % 2:
                raise ConfigError(
                    f"{prefix}embed_dim={width} must be even and divisible by "
                    f"{prefix}num_heads={heads}"
                )
        if self.family == "mae" and (self.embed_dim % 4 or self.decoder_embed_dim % 4):
            raise ConfigError(
                f"embed_dim={self.embed_dim} and decoder_embed_dim={self.decoder_embed_dim} must both "
                "be divisible by 4, as 2-D position embeddings require"
            )
        if self.attention == "divided" and self.family != "videomae":
            raise ConfigError(
                'attention "divided" requires family "videomae": change either of them'
            )
        if self.pos_embed_from is not None:
            num_frames, img_size = self.pos_embed_from
            _ = TokenGrid((num_frames, img_size, img_size), self.tubelet, self.channels)
        _ = self.grid  # raises if the clip does not divide into tubelets

    @property
    def grid(self) -> TokenGrid:
        """The token grid of the model's clips."""
        clip = (self.num_frames, self.img_size, self.img_size)
        return TokenGrid(clip, self.tubelet, self.channels)

    @classmethod
    def videomae(cls, name: str = "B", /, version: int = 1, **changes: Any) -> ModelConfig:
        """A published VideoMAE by name (tiny, S, B, L, H, g); V1 has deeper decoders for L and H."""
        values = _sized(name)
        if version == 1 and name in ("L", "H"):
            values["decoder_depth"] = 12
            if name == "H":
                values["decoder_embed_dim"] = 640
        if name == "g":
            values["tubelet"] = (2, 14, 14)
        if name == "tiny":  # trains in minutes on two CPU cores
            values |= {"num_frames": 8, "img_size": 16, "tubelet": (2, 4, 4), "decoder_depth": 2}
        return cls(**(values | changes))

    @classmethod
    def mae(cls, name: str = "L", /, **changes: Any) -> ModelConfig:
        """A published image MAE by name (B, L, H): one frame, a decoder of 8 blocks of 512."""
        values = _sized(name) | {"family": "mae", "num_frames": 1}
        values |= {"tubelet": (1, 14, 14) if name == "H" else (1, 16, 16)}
        if name != "tiny":
            values |= {"decoder_embed_dim": 512, "decoder_depth": 8, "decoder_num_heads": 16}
        return cls(**(values | changes))


def _sized(name: str) -> dict[str, Any]:
    if name not in _SIZES:
        raise ConfigError(f"unknown model size {name!r}: use one of {', '.join(_SIZES)}")
    fields = (
        "embed_dim", "depth", "num_heads", "mlp_ratio", "decoder_embed_dim", "decoder_num_heads"
    )  # fmt: skip
    return dict(zip(fields, _SIZES[name], strict=True))


@dataclass(frozen=True)
class MaskConfig(Config):
    """The tokens hidden from the encoder, and the positions at which the decoder is queried."""

    mask_type: Literal["tube", "random", "frame"] = "tube"
    mask_ratio: float = 0.9
    """Fraction of the tokens hidden from the encoder."""
    tube_length: int | None = None
    """Frames that a tube covers; None: the whole clip, as published."""
    decoder_mask_type: Literal[
        "all", "running-cell", "random", "frame", "drop-visible", "every"
    ] = "all"
    """Where the decoder is queried. "all": every hidden token (MAE, V1). "running-cell": V2.
    "random", "frame": V2's ablations. "drop-visible": a common misconception of dual masking.
    "every": MAE's ablation, a loss on all tokens, including those that the encoder sees."""
    decoder_mask_ratio: float = 0.0
    """Fraction of the positions at which the decoder is not queried; for "drop-visible", the fraction
    of visible tokens that are dropped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; use a value between 0 and 1")
        if not 0 <= self.decoder_mask_ratio < 1:
            raise ConfigError(
                f"decoder_mask_ratio is {self.decoder_mask_ratio}; it must be at least 0 and less than 1"
            )
        if self.tube_length is not None and self.mask_type != "tube":
            raise ConfigError(
                f"tube_length is {self.tube_length}, but mask_type is {self.mask_type!r}: set "
                "mask_type to 'tube', or tube_length to None"
            )
