"""What all configurations share: frozen dataclasses, to and from YAML."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_type_hints

import yaml


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
