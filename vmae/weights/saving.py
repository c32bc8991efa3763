"""Save and convert weights in every published layout of VideoMAE and MAE.

save(model, "export", to="hf")                # "vmae", "official", "hf"
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from vmae.mae import MaskedAutoencoder
from vmae.support.files import atomic_path, write_text
from vmae.vit import VisionTransformer
from vmae.weights.card import model_card
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.layouts import hf_config, official_arguments
from vmae.weights.loading import load, load_encoder, numbered
from vmae.weights.models import named_parameters
from vmae.weights.names import to_hf, to_official
from vmae.weights.processor import hf_processor

LAYOUTS = ("vmae", "official", "hf")


def save(
    model: MaskedAutoencoder | VisionTransformer,
    path: str | Path,
    to: str = "vmae",
    classes: Sequence[str] | None = None,
    source: str | Path | None = None,
) -> Path:
    """Save a model and its class names in one of three layouts; returns `path`.

    classes     class names, by default the model's own `class_names`
    source      for the card of "hf": the folder of the run that trained the model, or the id of the
                model on the hub that this is a copy of

    vmae        a folder: model.safetensors, config.yaml; of a classifier also inference.yaml, and
                classes.txt if there are names
    official    a .pth file {"model": state dict} for VideoMAE's and MAE's own loaders; with a
                decoder, also {"args": how targets are normalised}. It does not store frames, size,
                heads, class names or how the classifier is applied
    hf          a folder for from_pretrained of transformers: VideoMAEForPreTraining,
                VideoMAEForVideoClassification, VideoMAEModel, ViTMAEForPreTraining, ViTMAEModel
                or, for an MAE classifier, ViTForImageClassification; with a model card, README.md

    Raises ValueError if the layout cannot express the model, CheckpointError if the folder contains
    other files. An existing export is replaced, but a README.md that differs stays, with a warning.
    Weights are written last: an incomplete folder has none.
    """
    path = Path(path)
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    head = inference = None
    if isinstance(model, VisionTransformer):
        head, classes = model.num_classes, classes or model.class_names
        inference = model.inference if head is not None else None
    if classes is not None and len(classes) != (head or 0):
        raise ValueError(
            f"received {len(classes)} class names, but the model has {head or 0} classes: "
            "pass one name per class"
        )
    state = {name: tensor.detach().cpu() for name, tensor in named_parameters(model).items()}
    config = model.config
    if to == "official":
        if path.suffix not in (".pth", ".pt"):
            raise ValueError(
                f"{path}: the official layout is a single file; pass a file name ending in .pth"
            )
        content: dict[str, Any] = {"model": to_official(state, config)}
        if arguments := official_arguments(state, config):
            content["args"] = arguments
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            torch.save(content, stream)
        return path
    if to not in LAYOUTS:
        raise ValueError(f"unknown layout {to!r}: use one of {', '.join(LAYOUTS)}")
    texts: dict[str, str] = {}
    if to == "vmae":
        texts["config.yaml"] = yaml.safe_dump(config.to_dict(), sort_keys=False)
        if classes is not None:
            texts["classes.txt"] = "\n".join(classes) + "\n"
        if inference is not None:
            texts["inference.yaml"] = yaml.safe_dump(inference.to_dict(), sort_keys=False)
        if isinstance(model, VisionTransformer):
            state = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
    else:
        averaged = head is None and "fc_norm.weight" in state
        if averaged:
            state = {n: tensor for n, tensor in state.items() if not n.startswith("fc_norm.")}
        names = tuple(classes or numbered(head or 0))
        values = hf_config(state, config, names)
        if averaged:
            warn(
                f"{path}: dropped fc_norm; VideoMAEModel of transformers has none. Its tokens are "
                'the same, but no longer their mean as normalised here: to="vmae" and "official" '
                "keep it"
            )
        if inference and inference.multi_label:
            values["problem_type"] = "multi_label_classification"
        texts["config.json"] = json.dumps(values, indent=2) + "\n"
        processor = hf_processor(config, inference)
        texts["preprocessor_config.json"] = json.dumps(processor, indent=2) + "\n"
        card = model_card(path.resolve().name, config, values, source)
        if (path / "README.md").exists() and (path / "README.md").read_text("utf-8") != card:
            warn(
                f"{path / 'README.md'} is not the card of these weights, and stays as it is; to have "
                "theirs, delete it first"
            )
        else:
            texts["README.md"] = card
        state = to_hf(state, config)
    _clear(path, to)
    for name, text in texts.items():
        write_text(path / name, text)
    with atomic_path(path / "model.safetensors") as temporary:
        save_file(
            {name: tensor.clone().contiguous() for name, tensor in state.items()},
            temporary,
            {"format": "pt"},
        )
    return path


def _clear(folder: Path, to: str) -> None:
    """Remove an earlier export, weights first; refuse a folder that contains anything else."""
    own = ["model.safetensors", "config.yaml", "classes.txt", "inference.yaml"]
    if to == "hf":
        own = ["model.safetensors", "config.json", "preprocessor_config.json", "README.md"]
    others = sorted({p.name for p in folder.iterdir()} - set(own)) if folder.exists() else []
    config = folder / "config.yaml"
    if not others and config.exists() and "\nmodel:" in "\n" + config.read_text(encoding="utf-8"):
        others = ["config.yaml of a training run"]
    if others:
        raise CheckpointError(
            f"{folder} contains files that are not part of a {to} export ({', '.join(others[:5])}): "
            "choose an empty folder"
        )
    for name in own:
        if name != "README.md":  # someone may have written into it
            (folder / name).unlink(missing_ok=True)


def convert(
    source: str | Path,
    target: str | Path,
    to: str,
    *,
    drop_head: bool = False,
    encoder_only: bool = False,
    num_frames: int | None = None,
    img_size: int | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    normalize_targets: bool | None = None,
    state_key: str | None = None,
) -> Path:
    """Convert weights of any layout to another, including class names; returns `target`.

    `source`, keywords and errors are those of `load` and `save`; `encoder_only` drops the decoder and head.
    """
    if Path(source).resolve() == Path(target).resolve():
        raise ValueError(
            f"{source} would be overwritten by its own conversion: choose another target path"
        )
    model: MaskedAutoencoder | VisionTransformer
    if encoder_only:
        model = load_encoder(
            source,
            num_frames=num_frames,
            img_size=img_size,
            num_heads=num_heads,
            state_key=state_key,
        )
    else:
        model = load(
            source,
            num_frames=num_frames,
            img_size=img_size,
            num_heads=num_heads,
            decoder_num_heads=decoder_num_heads,
            drop_head=drop_head,
            normalize_targets=normalize_targets,
            state_key=state_key,
        )
    return save(model, target, to, source=source)
