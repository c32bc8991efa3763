"""Configurations: what a model, a mask and a training run are. Frozen dataclasses, to and from YAML."""

from vmae.config.base import Config, ConfigError
from vmae.config.model import IMAGENET_MEAN, IMAGENET_STD, MaskConfig, ModelConfig
from vmae.config.recipe import RECIPES, Recipe
from vmae.config.run import VIEWS, DataConfig, FinetuneConfig, OptimConfig, PretrainConfig

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "RECIPES",
    "VIEWS",
    "Config",
    "ConfigError",
    "DataConfig",
    "FinetuneConfig",
    "MaskConfig",
    "ModelConfig",
    "OptimConfig",
    "PretrainConfig",
    "Recipe",
]
