"""The folder of a trained classifier, and the results of its test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from vmae.base_config import ConfigError
from vmae.data.reading.sources import Source
from vmae.data.sets.videos import Video
from vmae.inference import Inference
from vmae.support.files import atomic_path, printable, write_text
from vmae.support.near import near
from vmae.support.text import few
from vmae.train.checkpoint import newest_step
from vmae.train.config import FinetuneConfig, PretrainConfig
from vmae.train.evaluate import Evaluation
from vmae.train.run_folder import refuse_other
from vmae.train.splits import training_videos
from vmae.train.validation import best_row, read_validation
from vmae.vit import VisionTransformer
from vmae.weights.errors import CheckpointError
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
    """Load what `save_classifier` wrote: the model, its class names, its configuration.

    Raises CheckpointError for any other folder.
    """
    folder = Path(folder)
    config = run_config(folder)
    if not (folder / "model.safetensors").exists():
        raise CheckpointError(
            f"{folder} is a run without model.safetensors, which it writes after its first epoch, or "
            "at its end: to finish it, give its command again with --resume"
        )
    classes = tuple((folder / "classes.txt").read_text(encoding="utf-8").splitlines())
    model = VisionTransformer(config.model, len(classes))
    load_weights(model, folder / "model.safetensors")
    model.class_names, model.inference = classes, Inference.of_run(config.to_dict())
    return model.eval(), classes, config


def run_config(folder: Path) -> FinetuneConfig:
    """The configuration of the fine-tuning run in a folder.

    Raises CheckpointError for anything else, with what it is; ConfigError for a config.yaml that is
    not of a run.
    """
    path = folder / "config.yaml"
    if not path.exists():
        raise CheckpointError(
            f"{folder} has no config.yaml{near(folder, False)}: pass the folder of a run of "
            f"`vmae finetune` (its --out), which says how to test{_instead(folder)}. `vmae predict` "
            "takes any weights"
        )
    with suppress(ConfigError):
        return FinetuneConfig.from_yaml(path)
    with suppress(ConfigError):
        PretrainConfig.from_yaml(path)
        raise CheckpointError(
            f"{folder} is a run of `vmae pretrain`, which has no classes: pass that of a classifier. "
            f"`vmae finetune RECIPE --encoder {folder} --out FOLDER` makes one"
        )
    return FinetuneConfig.from_yaml(path)


def _instead(path: Path) -> str:
    """What is at a path that is no run's folder, as the end of a message; nothing if nothing is."""
    for place in path.parents[:2]:  # of a file of a run, or of one of its checkpoints
        if (place / "config.yaml").exists():
            return f". This is part of the run {place}"
    if not path.is_dir():
        return ". This is a file" if path.exists() else ""
    if runs := sorted(printable(found.parent.name) for found in path.glob("*/config.yaml")):
        return f". In it are the runs {few(runs)}"
    names = sorted(printable(found.name) for found in path.iterdir())
    return f". In it are {few(names)}" if names else ". This one is empty"


def unfinished(path: str | Path) -> str:
    """What to know about the weights at a path if they are of a fine-tuning run that has not ended.

    path   of a run's folder, or of one of its checkpoints; anything else gives an empty text
    """
    path = Path(path)
    run = path.parents[1] if path.parent.name == "checkpoints" else path
    if not (run / "environment.json").exists() or not (run / "splits.csv").exists():
        return ""
    if (run / "test.safetensors").exists():  # written last; by then its set may have become smaller
        return ""
    config = FinetuneConfig.from_yaml(run / "config.yaml")
    total = config.optim.resolved(training_videos(run, config.labels_per_class)).steps
    rows = read_validation(run / "validation.jsonl")
    done = max(newest_step(run / "checkpoints"), *(int(row["step"]) for row in rows), 0)
    if done >= total:
        return ""
    which = f"of its checkpoint {path.name}"
    if path == run and rows:
        which = f"of step {best_row(rows)['step']}, the best so far on its validation videos"
    return (
        f"{run} is not finished (step {done} of {total}): these are the weights {which}. To finish "
        "the run, give its command again with --resume"
    )


def save_test(test: Evaluation, source: Source, folder: str | Path) -> None:
    """Write what a classifier said of each test video to test.safetensors in its folder."""
    videos = [source.videos[index] for index in test.videos]
    listed = [(printable(v.path), v.label, v.first, v.count) for v in videos]
    tensors = {"logits": test.logits.contiguous(), "labels": test.labels.contiguous()}
    with atomic_path(Path(folder) / "test.safetensors") as temporary:
        save_file(tensors, temporary, {"videos": json.dumps(listed)})


def load_test(folder: str | Path) -> tuple[Evaluation, list[Video]]:
    """What `save_test` wrote: logits and labels, and the videos that they belong to.

    Raises CheckpointError if the folder has none, or is not that of a run.
    """
    run_config(Path(folder))
    path = Path(folder) / "test.safetensors"
    if not path.exists():
        raise CheckpointError(
            f"{folder} has no test results: give the command of this run again with --resume, which "
            "tests the classifier and writes them"
        )
    with safe_open(path, "pt") as file:
        listed = json.loads(file.metadata()["videos"])
        logits, labels = file.get_tensor("logits"), file.get_tensor("labels")
    videos = [Video(Path(name), *rest) for name, *rest in listed]
    return Evaluation(logits, labels, range(len(videos))), videos
