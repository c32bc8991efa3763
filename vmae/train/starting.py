"""What fine-tuning starts from: an encoder's weights and, from a classifier, rows of its head."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from vmae import at_root
from vmae.base_config import ConfigError
from vmae.config import ModelConfig
from vmae.support.near import not_found
from vmae.support.recipes import RECIPES
from vmae.train.config import FinetuneConfig
from vmae.train.recipe import Recipe
from vmae.train.schedule import freeze
from vmae.vit import VisionTransformer
from vmae.weights.errors import CheckpointError
from vmae.weights.hub import local_path, pinned
from vmae.weights.loading import load_encoder

#: Fields of a model's configuration that its weights fix.
_SIZE = ("family", "embed_dim", "depth", "num_heads", "mlp_ratio", "tubelet")
_PASS = "pass the folder or file of one as encoder (`vmae finetune --encoder`)"


def load_start(config: FinetuneConfig) -> tuple[FinetuneConfig, VisionTransformer | None]:
    """The weights in `config.start_from`, and the configuration with their size if it is to take it.

    The id of a model on the hub gets its commit, which the run's config.yaml then records. Raises
    ConfigError for weights that the run cannot start from, CheckpointError for unusable files.
    """
    model, source = config.model, None
    if config.start_from is not None:
        path = at_root(config.start_from)
        if not path.exists():
            path = local_path(config.start_from)
            if not path.exists():
                raise CheckpointError(
                    f"{not_found(config.start_from, 'file or folder of weights')}. A model on the "
                    "Hugging Face hub is OWNER/NAME"
                )
            config = config.replace(start_from=pinned(config.start_from, path))
        source = load_encoder(
            path,
            num_frames=model.num_frames,
            img_size=model.img_size,
            keep_head=True,
            state_key=config.state_key,
        )
    if config.size_from_weights:
        if source is None:
            raise ConfigError(
                "size_from_weights is true, but there are no weights to start from: pass --encoder "
                "FILE, such as a published ViT-S or ViT-B (README.md, Your own videos), or train from "
                "scratch with --set size_from_weights=false --set frozen_layers=0"
            )
        size = {name: getattr(source.config, name) for name in _SIZE}
        config = config.replace(model=model.replace(**size))
    check_source(source, config)
    return config, source


def check_source(source: VisionTransformer | None, config: FinetuneConfig) -> None:
    """Raise ConfigError for weights of another size, or if they must be a classifier's and are not."""
    if source is not None:
        _check_size(source.config, config.model)
    head = source is not None and source.num_classes is not None
    tuned = source is not None and is_tuned(source)
    what = "from scratch" if source is None else "from an encoder without a head"
    if config.needs_classifier and not tuned:
        raise ConfigError(
            f"needs_classifier is true, but this run starts {what}: its settings are for "
            f"fine-tuning a classifier further. {_PASS.capitalize()}, or set needs_classifier to false"
        )
    if config.frozen_layers and source is None:
        raise ConfigError(
            f"frozen_layers is {config.frozen_layers}, but this run starts from scratch, so these "
            "layers would never learn anything: pass weights (`vmae finetune --encoder`), or set "
            "frozen_layers to 0"
        )
    if config.state_key is not None and source is None:
        raise ConfigError(
            f"state_key is {config.state_key!r}, an entry of the weights to start from, but this run "
            "starts from scratch: pass weights (`vmae finetune --encoder`), or leave state_key out"
        )
    if config.head_rows is not None and not head:
        raise ConfigError(
            f"head_rows is {config.head_rows!r}, but this run starts {what}: rows can only come "
            f"from a classifier. {_PASS.capitalize()}, or set head_rows to null"
        )


def is_tuned(source: VisionTransformer) -> bool:
    """Whether weights were fine-tuned: they have a head, or the `fc_norm` before it."""
    return source.num_classes is not None or not isinstance(source.fc_norm, nn.Identity)


def weights_kind(source: VisionTransformer) -> str:
    """What weights were trained for, in words."""
    if source.num_classes is not None:
        return f"a classifier of {source.num_classes:,} classes"
    return "a classifier without its head" if is_tuned(source) else "pre-trained only"


def _check_size(given: ModelConfig, wanted: ModelConfig) -> None:
    """Raise ConfigError naming the recipes of the weights' size, unless it is that of the model."""
    differs = [name for name in _SIZE if getattr(given, name) != getattr(wanted, name)]
    if not differs:
        return
    fields = ", ".join(
        f"{name} {getattr(given, name)}, not {getattr(wanted, name)}" for name in differs
    )
    models = {path.stem: Recipe.load(path.stem).finetune.model for path in RECIPES.glob("*.yaml")}
    fits = [n for n, m in models.items() if all(getattr(m, x) == getattr(given, x) for x in _SIZE)]
    use = f"use a recipe of that size ({', '.join(sorted(fits))})" if fits else "change the model"
    raise ConfigError(
        f"these weights are {given.size} ({fields}), but the run's model is {wanted.size}: {use}, or "
        f"start from a {wanted.size}"
    )


@torch.no_grad()
def start_from(
    classifier: VisionTransformer,
    source: VisionTransformer | None,
    classes: Sequence[str],
    config: FinetuneConfig,
) -> None:
    """Copy a source's weights into a new classifier of `classes`, and rows of its head if configured.

    Source: `run_class_finetuning.py` of VideoMAE V2, which picks the rows of its Kinetics-710 head
    for Kinetics-400 and 600. Raises ConfigError if the rows or the source are not what is needed.
    """
    check_source(source, config)
    if source is None:
        return
    classifier.load_encoder(source)
    freeze(classifier, config.frozen_layers)
    if config.head_rows is None:
        return
    if config.head_rows == "names":
        rows = _rows_by_name(source, classes)
    else:
        rows = dict(enumerate(_read_rows(config.head_rows, len(source.head.weight), len(classes))))
    for own, given in zip(classifier.head.parameters(), source.head.parameters(), strict=True):
        own[list(rows)] = given[list(rows.values())].to(own)


def _rows_by_name(source: VisionTransformer, classes: Sequence[str]) -> dict[int, int]:
    """The row of the source's head for each new class that has its name; warns about the others."""
    if source.class_names is None:
        raise ConfigError(
            "head_rows is 'names', but the source has no class names: put them into a classes.txt "
            "beside its weights, one per line, or set head_rows to a JSON file of row numbers"
        )
    known = {name: row for row, name in enumerate(source.class_names)}
    rows = {i: known[name] for i, name in enumerate(classes) if name in known}
    listed = ", ".join([name for name in classes if name not in known][:5])
    if not rows:
        raise ConfigError(
            f"head_rows is 'names', but none of the {len(classes)} classes ({listed}, ...) is a "
            f"class of the source ({', '.join(source.class_names[:5])}, ...): use a JSON file of "
            "row numbers, or null"
        )
    if fresh := len(classes) - len(rows):
        more = ", ..." if fresh > 5 else ""
        warnings.warn(
            f"the head of the source has no class named {listed}{more}: {fresh} of the "
            f"{len(classes)} classes start with fresh rows",
            stacklevel=3,
        )
    return rows


def _read_rows(name: str, available: int, wanted: int) -> list[int]:
    """The rows in a JSON file, one for each new class."""
    path = at_root(name)
    where = f"head_rows: {path}"
    shape = "must be a JSON list with a row of the source's head for each class, in their order"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{where} does not exist; it {shape}. That of Kinetics-400 is "
            "misc/label_710to400.json in OpenGVLab/VideoMAEv2"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{where} {shape}: {error}") from None
    if not isinstance(rows, list):
        raise ConfigError(f"{where} {shape}; it contains a {type(rows).__name__}")
    if len(rows) != wanted:
        raise ConfigError(
            f"{where} lists {len(rows)} rows, but the set has {wanted} classes: it {shape}"
        )
    for row in rows:
        if type(row) is not int or not 0 <= row < available:
            raise ConfigError(
                f"{where}: row {row} is not one of the source's {available} rows, "
                f"0 to {available - 1}: use the file for this source, or set head_rows to 'names'"
            )
    return rows
