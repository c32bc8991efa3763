"""What a model and a mask are: frozen dataclasses, to and from YAML."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_type_hints

import yaml

from vmae.grid import TokenGrid


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
        items = [hint for hint in get_args(hint) if hint is not Ellipsis]
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


#: Channel statistics of ImageNet, which VideoMAE and MAE use to normalise pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

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
                   "drop-visible" (the popular account of dual masking), "every" (MAE's ablation:
                   a loss on all tokens, also on those that the encoder sees)
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
        decoders = ("all", "running-cell", "random", "frame", "drop-visible", "every")
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
