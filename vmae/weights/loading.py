"""Load weights in every published layout of VideoMAE and MAE.

A file's layout is recognised by its parameter names.

    model = load("videomae_vitb_k400.pth")        # official, mmaction2, Hugging Face, our runs
    model = load("MCG-NJU/videomae-base")         # from the Hugging Face hub
    encoder = load_encoder("checkpoint.pth")

No file stores LayerNorm's epsilon. Here it is 1e-6, as in the official code. Hugging Face configures
1e-12 and hard-codes 1e-5 in `fc_norm` and `decoder.norm`, so the same weights give logits there that
differ by about 4e-6; with those epsilons set to 1e-6 they are equal. Half-precision weights are
converted to float32. If a Hugging Face folder normalises pixels otherwise than with ImageNet's
statistics, the difference is folded into the patch embedding.
"""

from __future__ import annotations

from pathlib import Path

from vmae.config import ModelConfig
from vmae.init import skip_init
from vmae.mae import MaskedAutoencoder
from vmae.vit import VisionTransformer
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.files import FILES, WeightFile, open_weights, read_json
from vmae.weights.hub import local_path
from vmae.weights.layouts import config_of
from vmae.weights.models import (
    check_pooling,
    drop_keys,
    encoder_of,
    has_head,
    load_into,
    reduce_to_encoder,
)
from vmae.weights.processor import inference_of
from vmae.weights.tables import interpolate_learned


def load(
    path: str | Path,
    *,
    num_frames: int | None = None,
    img_size: int | None = None,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    num_classes: int | None = None,
    normalize_targets: bool | None = None,
    drop_head: bool = False,
    interpolate: bool = False,
    state_key: str | None = None,
) -> MaskedAutoencoder | VisionTransformer:
    """Load the model from a file, a folder or the Hugging Face hub, in eval mode.

    path    a path; or "owner/name", also "owner/name@revision", which is downloaded and cached by
            huggingface_hub unless it exists here

    Returns a MaskedAutoencoder if the file has a decoder, a classifier if it has a head, otherwise
    an encoder. Sizes are inferred from shapes. What shapes do not determine comes, in this order,
    from these keywords, from config.yaml or config.json beside the weights, from the training
    arguments in an official file, and from the published models: 16 frames (MAE: 1 frame) of 224
    pixels, and the number of heads published for that width. A classifier gets its `class_names` and
    its `inference`, how `predict` applies it to a video, if the folder has them.

    num_classes         require a classifier with this many classes
    normalize_targets   whether the model predicts normalised pixels (MAE's norm_pix_loss); if the
                        file does not say, the default of its code: yes for VideoMAE, no for MAE
    drop_head           discard the head: return the encoder or, with `num_classes`, a classifier
                        with a new head
    interpolate         if the clip size differs from that of training, interpolate the position
                        table; by default it is computed for the new size, as in the official code.
                        A learned table can only be interpolated
    state_key           the entry of the file to load, such as "model_ema": by default the raw
                        weights, as in official evaluation, rather than an average of them

    An encoder without a final norm, such as that of a fine-tuned classifier, gets an identity
    instead. Objects in the file other than tensors and containers are skipped, and no code of the
    file runs. Raises CheckpointError if the file cannot be read or does not fit, listing all names
    that are missing, unexpected or of another shape. Warns about what it skips or guesses.
    """
    path = local_path(path)
    file = open_weights(path, state_key)
    config = _config(
        file,
        interpolate,
        num_frames,
        img_size,
        num_heads=num_heads,
        decoder_num_heads=decoder_num_heads,
        normalize_targets=normalize_targets,
    )
    head = file.state.get("head.weight")
    if num_classes is not None and head is None:
        raise CheckpointError(
            f"{file.path} has no classification head, so it is not a classifier for {num_classes} classes: "
            "load the file without num_classes=, or build a new classifier on its encoder with "
            "VisionTransformer(encoder.config, num_classes).load_encoder(encoder)"
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
            f"{file.path} has a head for {len(head)} classes, not {num_classes}: pass "
            "drop_head=True to replace the head with a new one"
        )
    if drop_head:
        model = VisionTransformer(config, num_classes)
        drop_keys(file, ("head.",), f"the new head for {num_classes} classes is untrained")
        file.state |= {f"head.{name}": p for name, p in model.head.state_dict().items()}
        return load_into(model, file)
    return _classifier(path, file, config)


def load_encoder(
    path: str | Path,
    *,
    num_frames: int | None = None,
    img_size: int | None = None,
    num_heads: int | None = None,
    keep_head: bool = False,
    interpolate: bool = False,
    state_key: str | None = None,
) -> VisionTransformer:
    """Load the encoder from weights of any kind, in eval mode, without decoder and head.

    keep_head   for `finetune` to start from: if the file is a classifier, return it with its head;
                otherwise, say nothing about a decoder or a final norm, which it never uses

    A fine-tuned VideoMAE has no final norm: its `fc_norm` normalises the mean of the tokens and is
    not a substitute. The encoder then ends with an identity, so that its features are those the
    classifier averages, and `pooled` applies `fc_norm` to their mean;
    `VisionTransformer.load_encoder` accepts it like any other encoder.
    `path`, keywords and errors are those of `load`; warns about what it skips.
    """
    path = local_path(path)
    file = open_weights(path, state_key)
    kept = keep_head and has_head(file)
    if not kept:
        reduce_to_encoder(file, tuning=keep_head)
    config = _config(file, interpolate, num_frames, img_size, num_heads=num_heads)
    return _classifier(path, file, config) if kept else encoder_of(file, config)


def _classifier(path: Path, file: WeightFile, config: ModelConfig) -> VisionTransformer:
    """The classifier with the file's weights and, from its folder, class names."""
    count = len(file.state["head.weight"])
    with skip_init():
        model = VisionTransformer(config, count)
    load_into(model, file)
    model.inference = inference_of(file, config)
    names = class_names(path)
    if names is not None and len(names) != count:
        warn(
            f"{path} lists {len(names)} class name{'s' * (len(names) != 1)}, but the "
            f"head has {count} outputs: the names will be ignored"
        )
    elif names is not None:
        model.class_names = names
    return model


def class_names(path: str | Path) -> tuple[str, ...] | None:
    """The class names of a classifier, or None if its folder has none."""
    path = local_path(path)
    if not path.is_dir() and path.name not in FILES:  # perhaps in a folder of downloads
        return None
    folder = path if path.is_dir() else path.parent
    if folder.parent.name == "checkpoints":  # run/checkpoints/step-N
        folder = folder.parent.parent
    text_file = folder / "classes.txt"
    if text_file.exists():
        return tuple(text_file.read_text(encoding="utf-8").splitlines())
    names = read_json(folder / "config.json").get("id2label") or {}
    ordered = tuple(names[key] for key in sorted(names, key=int))
    return ordered if ordered != numbered(len(ordered)) else None


def _config(
    file: WeightFile,
    interpolate: bool,
    num_frames: int | None,
    img_size: int | None,
    **others: int | None,
) -> ModelConfig:
    """The configuration for a clip size, by default the file's own; interpolates learned positions."""
    if not interpolate:
        return config_of(file, num_frames=num_frames, img_size=img_size, **others)
    trained = config_of(file, **others)
    size = (num_frames or trained.num_frames, img_size or trained.img_size)
    if size == (trained.num_frames, trained.img_size):
        return trained
    first = trained.pos_embed_from or (trained.num_frames, trained.img_size)
    config = trained.replace(num_frames=size[0], img_size=size[1], pos_embed_from=first)
    interpolate_learned(file, trained, config)
    return config


def numbered(count: int) -> tuple[str, ...]:
    """The names that transformers gives to unnamed classes."""
    return tuple(f"LABEL_{i}" for i in range(count))
