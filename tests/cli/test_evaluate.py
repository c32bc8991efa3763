"""`vmae evaluate --data` tests all of the set that it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import DataConfig, load_set
from vmae.data.sets.motion_specs import CLASSES
from vmae.train import FinetuneConfig, save_classifier
from vmae.vit import VisionTransformer


@pytest.fixture
def classifier(motion_mini, tmp_path) -> str:
    model = ModelConfig.videomae("tiny", depth=1)
    data = DataConfig(path=str(motion_mini), cache_dir=str(tmp_path / "stores"), num_workers=1)
    config = FinetuneConfig(model=model, data=data)
    save_classifier(VisionTransformer(model, 8), CLASSES, config, tmp_path / "classifier")
    return str(tmp_path / "classifier")


@pytest.fixture
def two_classes(motion_mini, tmp_path) -> Path:
    """Links to the training videos of two classes, six each, in class folders."""
    for number, video in enumerate(load_set(motion_mini).train):
        if CLASSES[video.label] in CLASSES[2:4]:
            folder = tmp_path / "two" / CLASSES[video.label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.mp4").symlink_to(video.path)
    return tmp_path / "two"


def evaluated(capsys, *arguments: str) -> dict:
    assert main(["evaluate", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_whole_set_is_tested_also_if_it_lacks_classes(classifier, two_classes, capsys):
    found = evaluated(capsys, classifier, "--data", str(two_classes))
    assert (found["videos"], found["split"], found["set"]) == (12, "all", str(two_classes))
    tested = [name for name, accuracy in found["per_class"].items() if accuracy is not None]
    assert tested == list(CLASSES[2:4])


@pytest.mark.parametrize("split,videos", [("train", 10), ("test", 2), ("all", 12)])
def test_split_chooses(classifier, two_classes, capsys, split, videos):
    found = evaluated(capsys, classifier, "--data", str(two_classes), "--split", split)
    assert found["videos"] == videos


def test_without_another_set_it_is_the_test_split(classifier, capsys):
    assert evaluated(capsys, classifier)["videos"] == 24
    assert evaluated(capsys, classifier, "--split", "train")["videos"] == 48
    assert evaluated(capsys, classifier, "--knn")["videos"] == 24


def test_what_cannot_be_tested(classifier, two_classes, capsys):
    data = ["evaluate", classifier, "--data", str(two_classes)]
    assert main([*data, "--split", "val"]) == 1
    assert "has no val videos: choose from train, test or all" in capsys.readouterr().err
    assert main([*data, "--probe", "--split", "all"]) == 1
    assert "a probe is trained on train" in capsys.readouterr().err
    (two_classes / CLASSES[2]).rename(two_classes / "other")
    assert main(data) == 1
    assert "has the classes 'other', but the model was trained on" in capsys.readouterr().err
