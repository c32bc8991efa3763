"""Weights in and out: every published layout of VideoMAE and MAE, told apart by its names.

    model = load("videomae_vitb_k400.pth")        # official, mmaction2, Hugging Face, our runs
    encoder = load_encoder("checkpoint.pth")
    save(model, "export", to="hf")                # "vmae", "official", "hf"

What the files do not hold: LayerNorm's epsilon is 1e-6 here, as in the official code. Hugging Face
configures 1e-12 and hard-wires 1e-5 in `fc_norm` and `decoder.norm`: the same weights give logits
that differ by about 4e-6 there, and are equal where those epsilons are set to 1e-6. Weights of half
precision become float32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from vmae.config import ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.support.files import atomic_path, write_text
from vmae.vit import VisionTransformer
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.files import FILES, open_weights, read_json
from vmae.weights.layouts import config_of, hf_config, hf_processor
from vmae.weights.models import (
    check_pooling,
    drop_keys,
    encoder_of,
    load_into,
    named_parameters,
    reduce_to_encoder,
    skip_init,
)
from vmae.weights.names import to_hf, to_official

LAYOUTS = ("vmae", "official", "hf")


def load(
    path: str | Path,
    *,
    num_frames: int | None = None,
    img_size: int | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    num_classes: int | None = None,
    drop_head: bool = False,
    interpolate: bool = False,
) -> MaskedAutoencoder | VisionTransformer:
    """The model in a file or folder, in eval mode.

    A MaskedAutoencoder where there is a decoder, a classifier where there is a head, else an
    encoder. Sizes come from the shapes. What shapes do not tell comes, in this order, from these
    keywords, from config.yaml or config.json beside the weights, from the training arguments in
    an official file, and from the published models: 16 frames of 224 pixels (MAE: 1 frame), and
    the heads of the published widths. A classifier gets its `class_names`, where the folder has
    them.

    classes     ask for a classifier of so many classes
    drop_head   give up the head: the encoder is returned, or with `classes` a classifier whose
                head is new
    interpolate where frames or size differ from those the weights were trained with, interpolate
                their position table; otherwise it is built anew, as the official code does

    An encoder without a final norm (a fine-tuned classifier has none) gets the identity there.
    Raises CheckpointError for a file that cannot be read, is refused or does not fit, with all
    names that are missing, extra or of another shape. Warns about what it leaves out or guesses.
    """
    file = open_weights(path)
    if interpolate:
        trained = config_of(file, num_heads=num_heads, decoder_num_heads=decoder_num_heads)
        config = _resized(trained, num_frames or trained.num_frames, img_size or trained.img_size)
    else:
        config = config_of(
            file,
            num_frames=num_frames,
            img_size=img_size,
            num_heads=num_heads,
            decoder_num_heads=decoder_num_heads,
        )
    head = file.state.get("head.weight")
    if num_classes is not None and head is None:
        raise CheckpointError(
            f"{file.path} has no head, and a classifier of {num_classes} classes is asked for: load it "
            "without classes=, or put a new classifier on it with VisionTransformer(encoder.config, "
            "classes).load_encoder(encoder)"
        )
    if "decoder.blocks.0.mlp.fc1.weight" in file.state:
        with skip_init():
            autoencoder = MaskedAutoencoder(config)
        return load_into(autoencoder, file)
    if head is None or (drop_head and num_classes is None):
        reduce_to_encoder(file)
        return encoder_of(file, config)
    check_pooling(file, config)
    if num_classes not in (None, len(head)) and not drop_head:
        raise CheckpointError(
            f"{file.path} has a head of {len(head)} classes, not of {num_classes}: drop_head=True "
            "replaces it by a new one"
        )
    if drop_head:
        model = VisionTransformer(config, num_classes)
        drop_keys(file, ("head.",), f"the new head for {num_classes} classes is untrained")
        file.state |= {f"head.{name}": p for name, p in model.head.state_dict().items()}
        return load_into(model, file)
    with skip_init():
        model = VisionTransformer(config, len(head))
    load_into(model, file)
    names = class_names(path)
    if names is not None and len(names) != len(head):
        warn(f"{path} names {len(names)} classes and has a head of {len(head)}: names are left out")
    elif names is not None:
        model.class_names = names
    return model


def load_encoder(
    path: str | Path,
    *,
    num_frames: int | None = None,
    img_size: int | None = None,
    num_heads: int | None = None,
) -> VisionTransformer:
    """The encoder in a file or folder of any kind, in eval mode; decoder and head are left out.

    A fine-tuned VideoMAE has no final norm: its `fc_norm` normalises the mean of the tokens and
    is no substitute. The encoder then has the identity there, so that its features are those that
    the classifier averages; `VisionTransformer.load_encoder` takes it as it takes any other.
    Keywords and errors are those of `load`; warns about what it leaves out.
    """
    file = open_weights(path)
    reduce_to_encoder(file)
    return encoder_of(
        file, config_of(file, num_frames=num_frames, img_size=img_size, num_heads=num_heads)
    )


def class_names(path: str | Path) -> tuple[str, ...] | None:
    """The names of a classifier's classes, where its folder has them."""
    path = Path(path)
    if not path.is_dir() and path.name not in FILES:  # it may lie in a folder of downloads
        return None
    folder = path if path.is_dir() else path.parent
    listed = folder / "classes.txt"
    if listed.exists():
        return tuple(listed.read_text(encoding="utf-8").splitlines())
    names = read_json(folder / "config.json").get("id2label") or {}
    ordered = tuple(names[key] for key in sorted(names, key=int))
    return ordered if ordered != _numbered(len(ordered)) else None


# --------------------------------------------------------------------------------------- building


def _resized(trained: ModelConfig, frames: int, size: int) -> ModelConfig:
    """The same model for other clips, its positions interpolated from those it was trained with."""
    before = (trained.num_frames, trained.img_size)
    if before == (frames, size):
        return trained
    return trained.replace(
        num_frames=frames, img_size=size, pos_embed_from=trained.pos_embed_from or before
    )


# ---------------------------------------------------------------------------------------- writing


def save(
    model: MaskedAutoencoder | VisionTransformer,
    path: str | Path,
    to: str = "vmae",
    classes: Sequence[str] | None = None,
) -> Path:
    """Write a model, and the names of its classes, in one of three layouts; returns `path`.

    classes     names, where they are not the model's own `class_names`

    vmae        a folder: model.safetensors, config.yaml, classes.txt where names are given
    official    a .pth file {"model": state dict} with the names that VideoMAE's and MAE's own
                loaders take; it does not hold frames, size, heads or class names
    hf          a folder that transformers opens with from_pretrained: VideoMAEForPreTraining,
                VideoMAEForVideoClassification, VideoMAEModel, ViTMAEForPreTraining, ViTMAEModel,
                or, for a MAE classifier, ViTForImageClassification

    Raises ValueError for what a layout cannot express, CheckpointError for a folder with other
    files in it. Existing exports are replaced. The weights come last: a folder that is not
    complete has none.
    """
    path = Path(path)
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    head = None
    if isinstance(model, VisionTransformer):
        head, classes = model.num_classes, classes or model.class_names
    if classes is not None and len(classes) != (head or 0):
        raise ValueError(f"{len(classes)} class names are given for a model of {head or 0} classes")
    state = {name: tensor.detach().cpu() for name, tensor in named_parameters(model).items()}
    config = model.config
    if to == "official":
        if path.suffix not in (".pth", ".pt"):
            raise ValueError(f"{path}: the official layout is one file; give a name ending in .pth")
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            torch.save({"model": to_official(state, config)}, stream)
        return path
    if to not in LAYOUTS:
        raise ValueError(f"there is no layout {to!r}; there are {', '.join(LAYOUTS)}")
    texts: dict[str, str] = {}
    if to == "vmae":
        texts["config.yaml"] = yaml.safe_dump(config.to_dict(), sort_keys=False)
        if classes is not None:
            texts["classes.txt"] = "\n".join(classes) + "\n"
        if isinstance(model, VisionTransformer):
            state = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
    else:
        names = tuple(classes or _numbered(head or 0))
        texts["config.json"] = json.dumps(hf_config(state, config, names), indent=2) + "\n"
        texts["preprocessor_config.json"] = json.dumps(hf_processor(config), indent=2) + "\n"
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
    """Remove an earlier export, weights first; refuse a folder that is anything else."""
    own = ["model.safetensors", "config.yaml", "classes.txt"]
    if to == "hf":
        own = ["model.safetensors", "config.json", "preprocessor_config.json"]
    others = sorted({p.name for p in folder.iterdir()} - set(own)) if folder.exists() else []
    config = folder / "config.yaml"
    if not others and config.exists() and "\nmodel:" in "\n" + config.read_text(encoding="utf-8"):
        others = ["config.yaml of a training run"]
    if others:
        raise CheckpointError(
            f"{folder} holds other files than a {to} export ({', '.join(others[:5])}): give a new folder"
        )
    for name in own:
        (folder / name).unlink(missing_ok=True)


def _numbered(count: int) -> tuple[str, ...]:
    """transformers' names for classes without one."""
    return tuple(f"LABEL_{i}" for i in range(count))


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
) -> Path:
    """Read a file or folder of any layout and write it in another, class names included.

    Keywords and errors are those of `load` and `save`; encoder_only leaves decoder and head out.
    """
    if Path(source).resolve() == Path(target).resolve():
        raise ValueError(f"{source} would be written over itself: give another target")
    model: MaskedAutoencoder | VisionTransformer
    if encoder_only:
        model = load_encoder(source, num_frames=num_frames, img_size=img_size, num_heads=num_heads)
    else:
        model = load(
            source,
            num_frames=num_frames,
            img_size=img_size,
            num_heads=num_heads,
            decoder_num_heads=decoder_num_heads,
            drop_head=drop_head,
        )
    return save(model, target, to)
