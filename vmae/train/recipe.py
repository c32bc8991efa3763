"""A whole experiment, by name or from a file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmae.base_config import Config, ConfigError, current_names
from vmae.train.config import FinetuneConfig, PretrainConfig

#: Recipes that ship with the package.
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe(Config):
    """A whole experiment: how to pre-train, then how to fine-tune the same model."""

    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        if self.pretrain.model != self.finetune.model:
            raise ConfigError(
                "pretrain.model and finetune.model differ: make them equal, because a recipe "
                "describes a single model"
            )

    @classmethod
    def from_dict(cls, values: Any, where: str = "") -> Recipe:
        """Also accepts the config.yaml of one run: its model and data then hold for both parts."""
        parts: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
        if isinstance(values, dict) and values and not values.keys() & parts.keys():
            for part, kind in parts.items():
                fields = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
                if current_names(kind, values).keys() <= fields:
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
                f"unknown recipe {str(name)!r}: choose from {names}, or pass a YAML file"
            )
        return cls.from_yaml(shipped if shipped.exists() else path)

    def changed(self, both: dict[str, Any] | None = None, **parts: dict[str, Any]) -> Recipe:
        """A copy with fields changed, by dotted name: in `both` parts, in `pretrain`, in `finetune`.

        A value of None leaves the field unchanged.
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
