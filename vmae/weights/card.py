"""The model card of a Hugging Face folder: data, results, licence, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from vmae import __version__
from vmae.config import ModelConfig
from vmae.weights.files import FILES
from vmae.weights.hub import hub_id

_CARD = """---
{metadata}
---

# {name}

{what}. Saved by vmae {version}.

## Training

{training}

## Results

{results}

## Licence

{licence}

## Use

With transformers (`name` is this folder, or OWNER/NAME on the hub):

```python
from transformers import {kind}, {processor}

name = "{name}"
processor = {processor}.from_pretrained(name)
model = {kind}.from_pretrained(name){use}
```

With vmae:

```python
import vmae

model = vmae.load("{name}")
```
"""
_CLASSIFY = """
inputs = processor({what}, return_tensors="pt")  # uint8, (H, W, 3)
probabilities = model(**inputs).logits.softmax(-1)"""
_PARTS = ("Encoder", "Masked autoencoder")
_UNKNOWN = "Not known to the program that wrote this card."
#: Licences of published weights, by the beginning of their ids: as their pages on the hub state them (2025).
#: The repositories of the code have others: VideoMAE V2's is MIT.
LICENCES = {"MCG-NJU/videomae-": "cc-by-nc-4.0", "OpenGVLab/VideoMAEv2-": "cc-by-nc-4.0"}
_INHERITED = (
    "{licence}, as the page of {base} on the hub states for the weights that these come from: give credit "
    "to its authors, say what you changed, and make no commercial use of it. Check that page before you "
    "publish this folder; those who made the videos may set further limits."
)
_OPEN = (
    "Not stated: {why}. Choose one before you publish this folder, and set `license` at the top. Those of "
    "the videos{others} may limit the choice."
)


def model_card(
    name: str, config: ModelConfig, hf: Mapping[str, Any], source: str | Path | None
) -> str:
    """The text of README.md, with the metadata that the hub reads at its top.

    hf       the content of config.json
    source   where the weights come from: of a run's folder, the card has the data and the results; the
             id of a model on the hub becomes the base model

    Of paths only the last part is written, as a card is meant for others.
    """
    from huggingface_hub import EvalResult, ModelCardData  # takes a moment, as in hub.py

    (kind,), video = hf["architectures"], config.family != "mae"
    task = f"{'video' if video else 'image'}-classification" if "id2label" in hf else None
    run, values = _run_of(source)
    start = values.get("start_from") or ""  # that of a model on the hub has its commit
    base = hub_id(start if "@" in start else None if run else source)
    training, results, evaluated = f"From {base[0]}." if base else _UNKNOWN, _UNKNOWN, None
    if run:
        data = Path(values["data"]["path"]).name
        training = _training(run, values, data)
        if task and (run / "test.safetensors").exists():
            count, top1 = _test(run)
            views = f"{values['test_clips']} x {values['test_crops']} views (clips x crops)"
            results = (
                f"Top-1 accuracy on the {count} test videos of {data}, {views}: {100 * top1:.1f} %."
            )
            value = round(top1, 4)
            evaluated = [EvalResult(task, data, data, "accuracy", value, dataset_split="test")]
    licence, explained = _licence(
        base[0] if base else None, run, _start(run, values) if run else ""
    )
    metadata = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag=task,
        tags=["vmae", hf["model_type"]],
        base_model=base[0] if base else None,
        metrics=["accuracy"] if evaluated else None,
        model_name=name if evaluated else None,
        eval_results=evaluated,
    )
    part = f"Classifier of {len(hf['id2label'])} classes" if task else _PARTS["PreTraining" in kind]
    clips = f"clips of {config.num_frames} frames" if video else "images"
    return _CARD.format(
        metadata=metadata.to_yaml(),
        name=name,
        what=f"{part}: {config.size}, for {clips} of {config.img_size}x{config.img_size} pixels",
        version=__version__,
        training=training,
        results=results,
        licence=explained,
        kind=kind,
        processor=f"{'VideoMAE' if video else 'ViT'}ImageProcessor",
        use=_CLASSIFY.format(what="list(frames)" if video else "image") if task else "",
    )


def _licence(base: str | None, run: Path | None, start: str) -> tuple[str, str]:
    """The identifier that the hub knows, and the sentences on the card: inherited, or why none is stated."""
    for family, licence in LICENCES.items():
        if base and base.startswith(family):
            return licence, _INHERITED.format(licence=licence.upper(), base=base)
    others = f" and of {base}" if base else ""
    if base:
        why = f"it depends on that of {base}, which this program does not know"
    elif not run:
        why = "where the weights come from is not known to the program that wrote this card"
    elif start == "scratch":
        why = "the weights were trained from scratch, so it is yours to choose"
    else:
        why = "the run began with other weights, whose licence this program does not know"
        others = " and of the weights that it began with"
    return "unknown", _OPEN.format(why=why, others=others)


def _run_of(source: str | Path | None) -> tuple[Path | None, dict[str, Any]]:
    """The folder and the configuration of the run that wrote the weights, if one did."""
    folder = Path(source or "")
    if folder.is_file():
        if folder.name not in FILES:  # one of other names may be in a folder of downloads
            return None, {}
        folder = folder.parent
    if folder.parent.name == "checkpoints":  # run/checkpoints/step-N
        folder = folder.parents[1]
    path = folder / "config.yaml"
    if source is None or not path.exists():
        return None, {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        return None, {}
    return (
        (folder, values)
        if isinstance(values, dict) and {"data", "optim"} <= values.keys()
        else (None, {})
    )


def _start(run: Path, values: Mapping[str, Any]) -> str:
    """What a run began with: the id of a model on the hub, the name of a file, or "scratch"."""
    start, noted = values.get("start_from"), run / "start.txt"
    if start:
        return start if "@" in start else Path(start).name
    # fine-tuning in a notebook may have an encoder without a name
    return noted.read_text(encoding="utf-8").strip() if noted.exists() else "scratch"


def _training(run: Path, values: Mapping[str, Any], data: str) -> str:
    """What a run trained on, and what it began with."""
    few, start = values.get("labels_per_class"), _start(run, values)
    labels = f", with {few} labels per class" if few else ""
    tuned = "Fine-tuned" if "test_clips" in values else "Pre-trained"
    return f"{tuned} on the videos of {data}{labels}, from {start}."


def _test(run: Path) -> tuple[int, float]:
    """The number of videos that a classifier was tested on, and the share that it got right."""
    found = load_file(run / "test.safetensors")
    right = found["logits"].argmax(1) == found["labels"]
    return len(right), right.double().mean().item()
