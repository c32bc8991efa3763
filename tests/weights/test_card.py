"""The model card of an export: metadata that the hub accepts, true statements, code that runs."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from conftest import random_clips
from huggingface_hub import ModelCard, ModelCardData
from published_layouts import KINDS, build, same
from safetensors.torch import save_file

from vmae.data import DataConfig
from vmae.train import FinetuneConfig, PretrainConfig, save_classifier
from vmae.weights import convert, load, save

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

CLASSES = ["walk", "run", "jump", "swim", "fly"]


def card(folder) -> tuple[dict, str]:
    """The metadata and the text of an export's card, read as the hub's library reads it."""
    read = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    again = ModelCardData(**read.data.to_dict())  # raises ValueError for what is invalid
    assert again.to_dict() == read.data.to_dict()
    return read.data.to_dict(), read.text


def code(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def run(tmp_path, tiny):
    """The folder of a fine-tuned classifier that got 3 of 4 test videos right."""
    config = FinetuneConfig(
        model=tiny, data=DataConfig(path=str(tmp_path / "secret" / "my-videos")), test_clips=2,
        start_from="MCG-NJU/videomae-tiny@0123456", labels_per_class=10,
    )  # fmt: skip
    save_classifier(build("classifier", tiny, tiny), CLASSES, config, tmp_path / "run")
    labels = torch.tensor([0, 1, 2, 3])
    logits = torch.eye(5)[[0, 1, 2, 4]]
    save_file({"logits": logits, "labels": labels}, tmp_path / "run" / "test.safetensors")
    return tmp_path / "run"


def test_the_card_of_a_run(run, tmp_path):
    data, text = card(convert(run, tmp_path / "mine", "hf"))
    assert data["base_model"] == "MCG-NJU/videomae-tiny" and data["license"] == "cc-by-nc-4.0"
    assert (data["pipeline_tag"], data["library_name"]) == ("video-classification", "transformers")
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"] == {"name": "my-videos", "type": "my-videos", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "value": 0.75}]
    assert "Classifier of 5 classes: ViT-48, for clips of 8 frames of 32x32 pixels." in text
    start = "from MCG-NJU/videomae-tiny@0123456"
    assert f"Fine-tuned on the videos of my-videos, with 10 labels per class, {start}." in text
    assert "accuracy on the 4 test videos of my-videos, 2 x 1 views (clips x crops): 75.0 %" in text
    assert "CC-BY-NC-4.0, as the page of MCG-NJU/videomae-tiny on the hub states" in text
    assert (
        "no commercial use" in text and "those who made the videos may set further limits" in text
    )
    assert "secret" not in text and str(tmp_path) not in text


def test_without_the_head_the_results_do_not_apply(run, tmp_path):
    with pytest.warns(UserWarning):
        data, text = card(convert(run, tmp_path / "mine", "hf", drop_head=True))
    assert "model-index" not in data and "metrics" not in data and "75" not in text
    assert "Encoder: ViT-48" in text and "Fine-tuned on the videos of my-videos" in text


def test_a_start_that_has_no_commit_is_no_base_model(run, tmp_path):
    """A local path looks like an id where it no longer exists."""
    config = FinetuneConfig.from_yaml(run / "config.yaml")
    config.replace(start_from="runs/mine").to_yaml(run / "config.yaml")
    data, text = card(convert(run, tmp_path / "a", "hf"))
    assert "base_model" not in data and "from mine." in text and data["license"] == "unknown"
    assert "the run began with other weights, whose licence this program does not know" in text
    config.replace(start_from=None).to_yaml(run / "config.yaml")
    assert "from scratch." in card(convert(run, tmp_path / "b", "hf"))[1]
    (run / "start.txt").write_text("an encoder with sha256 0123\n")
    assert "from an encoder with sha256 0123." in card(convert(run, tmp_path / "c", "hf"))[1]


def test_the_card_of_a_pre_training_run(tmp_path, tiny):
    (tmp_path / "run").mkdir()
    config = PretrainConfig(model=tiny, data=DataConfig(path="data/film"))
    config.to_yaml(tmp_path / "run" / "config.yaml")
    model = build("pretrain", tiny, tiny)
    data, text = card(save(model, tmp_path / "hf", "hf", source=tmp_path / "run"))
    assert "Masked autoencoder: ViT-48" in text and "pipeline_tag" not in data
    assert "Pre-trained on the videos of film, from scratch." in text
    assert "the weights were trained from scratch, so it is yours to choose. Choose one" in text
    assert data["license"] == "unknown" and "Those of the videos may limit" in text


@pytest.mark.parametrize(
    ("base", "licence", "stated"),
    [
        ("OpenGVLab/VideoMAEv2-Base", "cc-by-nc-4.0", "CC-BY-NC-4.0, as the page of OpenGVLab/Vid"),
        ("MCG-NJU/videomae-base@v1", "cc-by-nc-4.0", "CC-BY-NC-4.0, as the page of MCG-NJU/videom"),
        (
            "someone/videomae-base",
            "unknown",
            "depends on that of someone/videomae-base, which this",
        ),
        ("downloads/vitb.pth", "unknown", "where the weights come from is not known"),
    ],
)
def test_the_licence_is_that_of_a_known_base_or_stays_open(tmp_path, tiny, base, licence, stated):
    model = build("classifier", tiny, tiny)
    data, text = card(save(model, tmp_path / "mine", "hf", source=base))
    assert data["license"] == licence and stated in text
    assert data.get("base_model") == (None if "downloads" in base else base.split("@")[0])
    assert ("Choose one before you publish this folder" in text) == (licence == "unknown")


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_on_the_card_runs(tmp_path, monkeypatch, kind, tiny, image):
    model = build(kind, tiny, image)
    classes = CLASSES if "classifier" in kind else None
    data, text = card(save(model, tmp_path / "mine", "hf", classes))
    assert text.count("Not known to the program") == 2 and "base_model" not in data
    theirs, ours = code(text)
    clips = random_clips(model.config, 1)
    frames = clips[0].permute(1, 2, 3, 0).numpy()
    monkeypatch.chdir(tmp_path)
    names = {"frames": frames, "image": np.ascontiguousarray(frames[0])}
    exec(theirs, names)
    assert type(names["model"]).__name__ == theirs.split("import ")[1].split(",")[0]
    if classes:
        found, expected = names["probabilities"], model(clips).softmax(-1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    exec(ours, names)
    same(names["model"].state_dict(), model.state_dict())


def test_what_someone_wrote_on_a_card_stays(tmp_path, tiny):
    model = build("classifier", tiny, tiny)
    folder = save(model, tmp_path / "mine", "hf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(model, folder, "hf")  # nobody wrote anything
    path = folder / "README.md"
    path.write_text(path.read_text().replace("license: unknown", "license: mit"))
    with pytest.warns(
        UserWarning, match="README.md is not the card of these weights, and stays as it is"
    ):
        save(model, folder, "hf", CLASSES)
    assert "license: mit" in path.read_text() and load(folder).class_names == tuple(CLASSES)
    path.unlink()
    save(model, folder, "hf")
    assert card(folder)[0]["license"] == "unknown"


@pytest.mark.parametrize(
    "text", ["", "data: {train: a}", "data: [", "data: {path: other}\noptim: {}"]
)
def test_a_strangers_config_beside_a_download_is_not_that_of_its_run(tmp_path, tiny, text):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    model = build("classifier", tiny, tiny)
    save(model, downloads / "x.pth", "official")
    (downloads / "config.yaml").write_text(text)
    folder = save(model, tmp_path / "mine", "hf", source=downloads / "x.pth")
    assert (folder / "README.md").read_text().count("Not known to the program") == 2


def test_the_card_of_a_checkpoint_is_that_of_its_run(run, tmp_path, tiny):
    step = run / "checkpoints" / "step-00000001"
    step.mkdir(parents=True, exist_ok=True)
    folder = save(build("classifier", tiny, tiny), tmp_path / "mine", "hf", source=step)
    assert "Fine-tuned on the videos of" in (folder / "README.md").read_text()
