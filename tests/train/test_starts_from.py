"""What fine-tuning starts from: a classifier's norm and the rows of its head."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import random_clips, randomize

from vmae.base_config import ConfigError
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import DataConfig
from vmae.train import FinetuneConfig, OptimConfig, Recipe, finetune, load_classifier, open_sources
from vmae.train.starting import start_from
from vmae.vit import VisionTransformer
from vmae.weights import load_encoder, save

MODEL = ModelConfig.videomae("tiny", depth=1, embed_dim=32)
CLASSES = ("jump", "run", "sit")


@pytest.fixture
def source() -> VisionTransformer:
    model = randomize(VisionTransformer(MODEL, 5)).eval()
    model.class_names = ("swim", "sit", "fly", "jump", "walk")
    return model


def started(source: VisionTransformer | None, **fields) -> VisionTransformer:
    torch.manual_seed(0)
    classifier = VisionTransformer(MODEL, 3)
    start_from(classifier, source, CLASSES, FinetuneConfig(model=MODEL, **fields))
    return classifier.eval()


def equal_rows(ours, theirs, clips: torch.Tensor, own: list[int], given: list[int]) -> None:
    """Rows and what they multiply are identical; a product of fewer rows may round differently."""
    assert torch.equal(ours.head.weight[own], theirs.head.weight[given])
    assert torch.equal(ours.head.bias[own], theirs.head.bias[given])
    assert torch.equal(ours.pooled(clips), theirs.pooled(clips))
    logits = ours(clips)[:, own], theirs(clips)[:, given]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-6)


def test_rows_of_a_file_give_the_logits_of_the_source(source, tmp_path):
    (tmp_path / "rows.json").write_text("[3, 0, 1]")
    clips = random_clips(MODEL, 2)
    carried = started(source, head_rows=str(tmp_path / "rows.json"))
    equal_rows(carried, source, clips, [0, 1, 2], [3, 0, 1])
    fresh = started(source)
    assert torch.equal(fresh.fc_norm.bias, source.fc_norm.bias)
    assert fresh.head.bias.abs().max() == 0


def test_rows_by_name_and_fresh_ones_for_other_classes(source):
    with pytest.warns(UserWarning, match=r"head of the source has no class named run: 1 of the 3"):
        carried = started(source, head_rows="names")
    clips = random_clips(MODEL, 2)
    equal_rows(carried, source, clips, [0, 2], [3, 1])
    assert torch.equal(carried.head.weight[1], started(source).head.weight[1])
    assert carried.head.bias[1] == 0


@pytest.mark.parametrize(
    "text,words",
    [
        ("[3, 0, 5]", r"rows.json: row 5 is not one of the source's 5 rows, 0 to 4"),
        ("[3, 0, -1]", "row -1 is not one of"),
        ("[3, 0, true]", "row True is not one of"),
        ("[3, 0]", "lists 2 rows, but the set has 3 classes"),
        ('{"a": 1}', "must be a JSON list with a row of the source's head for each class"),
        ("[", "must be a JSON list"),
        (None, "rows.json does not exist"),
    ],
)
def test_a_wrong_file_of_rows(source, tmp_path, text, words):
    if text is not None:
        (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ConfigError, match=words):
        started(source, head_rows=str(tmp_path / "rows.json"))


def test_what_a_source_must_have(source, tmp_path):
    pretrained = VisionTransformer(MODEL)
    for wrong in (None, pretrained):
        with pytest.raises(ConfigError, match="starts_from is 'classifier'.*--encoder"):
            started(wrong, starts_from="classifier")
        with pytest.raises(ConfigError, match="head_rows is 'names', but .*--encoder"):
            started(wrong, head_rows="names")
    save(source, tmp_path / "c")
    with pytest.warns(UserWarning, match="dropped head"):
        headless = load_encoder(tmp_path / "c")
    started(headless, starts_from="classifier")  # it has the norm
    with pytest.raises(ConfigError, match="head_rows is 'names', but"):
        started(headless, head_rows="names")
    source.class_names = None
    with pytest.raises(ConfigError, match="the source has no class names: .*classes.txt"):
        started(source, head_rows="names")
    source.class_names = ("a", "b", "c", "d", "e")
    with pytest.raises(
        ConfigError, match="none of the 3 classes .*jump.* is a class of the source"
    ):
        started(source, head_rows="names")


def test_fine_tuning_from_a_run_by_names(motion_mini, tmp_path, capsys):
    """With a learning rate of 0 the classifier that comes out is the one that went in."""
    data = DataConfig(path=str(motion_mini), cache_dir=str(tmp_path / "stores"), num_workers=1)
    optim = OptimConfig(steps=2, batch_size=8, lr=0.0)
    config = FinetuneConfig(model=MODEL, data=data, optim=optim, log_every=1)
    sources = open_sources(config)
    first = finetune(config, sources, folder=tmp_path / "first")
    config.replace(head_rows="names", starts_from="classifier").to_yaml(tmp_path / "again.yaml")
    command = ["finetune", str(tmp_path / "again.yaml"), "--out", str(tmp_path / "again")]
    assert main([*command, "--encoder", str(tmp_path / "first")]) == 0
    again, classes, _ = load_classifier(tmp_path / "again")
    assert classes == sources.classes
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, first.model.state_dict()[name]), name
    capsys.readouterr()
    assert main([*command[:2], "--out", str(tmp_path / "scratch")]) == 1
    assert "starts_from is 'classifier'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["k400", "ucf101", "hmdb51"])
def test_recipes_after_k710_say_what_they_need(name):
    config = Recipe.load(f"v2-hybrid-g-{name}").finetune
    assert config.starts_from == "classifier"
    assert (config.head_rows is not None) == (name == "k400")


def test_the_published_step_from_710_to_400_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.load("v2-hybrid-g-k400").finetune.replace(model=MODEL)
    rows = torch.randperm(710)[:400].tolist()
    source, classifier = VisionTransformer(MODEL, 710), VisionTransformer(MODEL, 400)
    randomize(source)
    names = [str(i) for i in range(400)]
    with pytest.raises(ConfigError, match="does not exist.*misc/label_710to400.json"):
        start_from(classifier, source, names, recipe)
    (tmp_path / recipe.head_rows).parent.mkdir(exist_ok=True)
    (tmp_path / recipe.head_rows).write_text(json.dumps(rows))
    start_from(classifier, source, names, recipe)
    assert torch.equal(classifier.head.weight, source.head.weight[rows])
