"""The folder of a trained classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmae.inference import Inference
from vmae.support.files import atomic_path, write_text
from vmae.train.config import FinetuneConfig
from vmae.train.run_folder import refuse_other
from vmae.vit import VisionTransformer
from vmae.weights.tensors import load_weights, save_weights


def save_classifier(
    model: VisionTransformer, classes: Sequence[str], config: FinetuneConfig, folder: str | Path
) -> None:
    """Write a classifier's folder: model.safetensors, classes.txt, config.yaml.

    Raises CheckpointError if the folder contains a run of another configuration.
    """
    folder = Path(folder)
    refuse_other(folder, config)
    save_weights(model, folder / "model.safetensors")
    write_text(folder / "classes.txt", "\n".join(classes) + "\n")
    with atomic_path(folder / "config.yaml") as temporary:
        config.to_yaml(temporary)


def load_classifier(
    folder: str | Path,
) -> tuple[VisionTransformer, tuple[str, ...], FinetuneConfig]:
    """Load what `save_classifier` wrote: the model, its class names, its configuration."""
    folder = Path(folder)
    config = FinetuneConfig.from_yaml(folder / "config.yaml")
    classes = tuple((folder / "classes.txt").read_text(encoding="utf-8").splitlines())
    model = VisionTransformer(config.model, len(classes))
    load_weights(model, folder / "model.safetensors")
    model.class_names, model.inference = classes, Inference.of_run(config.to_dict())
    return model.eval(), classes, config
