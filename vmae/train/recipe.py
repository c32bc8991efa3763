"""A whole experiment, by name or from a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmae.base_config import Config, ConfigError, current_names
from vmae.support.recipes import recipe_file
from vmae.train.config import FinetuneConfig, PretrainConfig, RunConfig


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
        return cls.from_yaml(recipe_file(name))

    @property
    def stages(self) -> tuple[str, ...]:
        """The parts, "pretrain" and "finetune", that it has settings for beside the model and the data."""
        kinds: dict[str, type[RunConfig]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
        parts = {name: getattr(self, name) for name in kinds}
        own = [n for n, p in parts.items() if p != kinds[n](model=p.model, data=p.data)]
        return tuple(own or kinds)

    def changed(self, both: dict[str, Any] | None = None, **parts: dict[str, Any]) -> Recipe:
        """A copy with fields changed, by dotted name: in `both` parts, in `pretrain`, in `finetune`.

        A value of None leaves the field unchanged.
        """
        values = self.to_dict()
        for part in ("pretrain", "finetune"):
            for name, value in {**(both or {}), **parts.get(part, {})}.items():
                if value is not None:
                    _put(values[part], name, value)
        return Recipe.from_dict(values)

    def with_fields(self, part: str, fields: Mapping[str, Any]) -> Recipe:
        """A copy with fields of "pretrain", "finetune" or "both" set, by dotted name; None is a value too.

        Those of the model and the data are set in both parts: a recipe describes one model. Of "both",
        a field that only one part has is set there. Of one part, the other loses the settings of its
        own if they do not fit the new model, as it is not going to be run.
        """
        values = self.to_dict()
        for name, value in fields.items():
            head = name.split(".")[0]
            parts = (
                ("pretrain", "finetune") if head in ("model", "data") or part == "both" else (part,)
            )
            for one in [p for p in parts if head in values[p]] or parts:
                _put(values[one], name, value)
        # Errors in what is changed name a field as it was given, without the part that it is in.
        if part in ("pretrain", "both"):
            PretrainConfig.from_dict(values["pretrain"])
        if part in ("finetune", "both"):
            FinetuneConfig.from_dict(values["finetune"])
        try:
            return Recipe.from_dict(values)
        except ValueError:  # of the configuration or its mask
            if part == "both":
                raise
            shared = {name: values[part][name] for name in ("model", "data")}
            return Recipe.from_dict(dict.fromkeys(values, shared) | {part: values[part]})


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a field by its dotted name. A number of steps replaces one of epochs."""
    *path, last = name.split(".")
    for step in path:
        values = values.setdefault(step, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{name}: {step} is a single value, so it has no field {last!r}")
    values[last] = value
    if name == "optim.steps":
        values["epochs"] = None
