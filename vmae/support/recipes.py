"""The recipes that ship, by name; found without PyTorch, so that a mistyped name costs no time."""

from __future__ import annotations

from pathlib import Path

from vmae.base_config import ConfigError, did_you_mean
from vmae.support.near import near

#: Recipes that ship with the package.
RECIPES = Path(__file__).parents[1] / "train" / "recipes"


def recipe_file(name: str | Path) -> Path:
    """The file of a recipe that ships, by name, or a YAML file, by path.

    Raises ConfigError with near names if there is none.
    """
    shipped = RECIPES / f"{name}.yaml"
    if shipped.exists():
        return shipped
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        names = sorted(p.stem for p in RECIPES.glob("*.yaml"))
        raise ConfigError(
            f"unknown recipe {str(name)!r}{did_you_mean(str(name), names)}: choose from these, or "
            f"pass a YAML file:\n  {', '.join(names)}"
        )
    if not path.exists():
        raise ConfigError(f"{path}: this configuration file does not exist{near(path, False)}")
    return path
