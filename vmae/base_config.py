"""The base of all configurations: frozen dataclasses, read from and written to YAML."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

import yaml


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
        "erase": "random_erase_prob", "tensorboard": "log_with",
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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the `known` names, as the question of a message; empty if none is near."""
    known = list(known)
    inner = [other for other in known if other.endswith("." + name)]
    near = inner or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _dotted(kind: type) -> list[str]:
    """The names of all fields, those of nested configurations after a dot."""
    hints = get_type_hints(kind)
    names = list(hints)
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            names += [f"{name}.{inner}" for inner in _dotted(hint)]  # type: ignore[arg-type]
    return names


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
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if not isinstance(value, list | tuple) or len(items) != len(value):
            raise ConfigError(f"{where} is {value!r}; it must be a list of {len(items)} values")
        return tuple(_typed(i, v, where) for i, v in zip(items, value, strict=True))
    if hint is float and isinstance(value, str | int) and not isinstance(value, bool):
        with suppress(ValueError):
            value = float(value)  # YAML reads 1e-3 as text
    if isinstance(value, float) and math.isinf(value):
        raise ConfigError(f"{where} is {value}; it must be finite")
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        one = "a single value " * isinstance(value, list | dict)
        raise ConfigError(f"{where} is {value!r}; it must be {one}of type {hint.__name__}")
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

    def require(self, names: str, low: float, high: float = math.inf) -> None:
        """Raise ConfigError unless these fields, named in one string, are None or within the limits."""
        for name in names.split():
            value = getattr(self, name)
            parts = value if isinstance(value, tuple) else (value,)
            if not all(part is None or low <= part <= high for part in parts):
                limits = f"at least {low}" if high == math.inf else f"between {low} and {high}"
                raise ConfigError(f"{name} is {value}; it must be {limits}")

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Self:
        """Build from nested plain dicts; unknown fields are an error that names the nearest known one.

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
        unknown = sorted(map(str, set(values) - set(known)))
        if unknown:
            named = (f"{where}{name}{did_you_mean(name, _dotted(cls))}" for name in unknown)
            raise ConfigError(
                f"{cls.__name__} has no field {', '.join(named)}; "
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
