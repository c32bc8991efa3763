"""`vmae evaluate --data` tests all of the set that it is given."""

from __future__ import annotations

import io
import json
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from vmae.cli import results
from vmae.cli.main import main
from vmae.cli.printing import as_json, rounded
from vmae.config import ModelConfig
from vmae.data import DataConfig, load_set
from vmae.data.reading import testing
from vmae.data.sets.motion_specs import CLASSES
from vmae.train import FinetuneConfig, save_classifier
from vmae.train.evaluate import interval
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


def test_the_report_has_an_interval_and_few_decimals(classifier, capsys):
    """4 of 24 videos are 16.67 %."""
    found = evaluated(capsys, classifier)
    right, (low, high) = found["right"], interval(found["right"], 24)
    assert found["top1"] == round(100 * right / 24, 2) and found["top5"] == round(found["top5"], 2)
    assert found["top1_interval"] == [round(low, 2), round(high, 2)]
    assert "top5" in found, "there are eight classes"


def test_names_are_printed_as_they_are_and_five_classes_have_no_top_5(
    motion_mini, tmp_path, capsys
):
    model, folder = ModelConfig.videomae("tiny", depth=1), tmp_path / "跳舞"
    for name, video in zip("跳走", load_set(motion_mini).train, strict=False):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.mp4").symlink_to(video.path)
    config = FinetuneConfig(model=model, data=DataConfig(cache=False))
    save_classifier(VisionTransformer(model, 5), tuple("跳走坐站躺"), config, tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(folder)]) == 0
    text = capsys.readouterr().out
    assert f'"set": "{folder}"' in text and '"跳": ' in text
    assert "top5" not in json.loads(text)


@pytest.mark.parametrize("encoding,letters", [("utf-8", "跳"), ("cp1252", "\\u8df3")])
def test_what_the_console_lacks_is_escaped_as_json_has_it(monkeypatch, encoding, letters):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert as_json({"class": "跳"}) == f'{{\n "class": "{letters}"\n}}'
    assert rounded({"a": [1 / 3, (2, None)], "b": True}) == {"a": [0.33, [2, None]], "b": True}


@pytest.mark.parametrize("split,videos", [("train", 10), ("test", 2), ("all", 12)])
def test_split_chooses(classifier, two_classes, capsys, split, videos):
    found = evaluated(capsys, classifier, "--data", str(two_classes), "--split", split)
    assert found["videos"] == videos


def test_progress_is_shown_if_it_takes_long(classifier, two_classes, capsys, monkeypatch):
    command = ["evaluate", classifier, "--data", str(two_classes)]
    assert main(command) == 0
    assert "evaluate:" not in capsys.readouterr().err
    monkeypatch.setattr(results, "PATIENCE", 0)
    monkeypatch.setattr(results, "BATCH", 5)
    assert main(command) == 0
    assert "3/3" in capsys.readouterr().err


def test_shuffled_frames_have_the_order_of_the_runs_own_test(classifier, monkeypatch):
    """An order is drawn batch by batch, so the batches must be those of fine-tuning."""
    module = import_module("vmae.train.evaluate")
    sizes, real = [], module.ordered_batches

    def batches(source, sampling, batch, *rest):
        sizes.append(batch)
        return real(source, sampling, batch, *rest)

    monkeypatch.setattr(module, "ordered_batches", batches)
    assert main(["evaluate", classifier]) == 0
    path = Path(classifier, "config.yaml")
    path.write_text(path.read_text().replace("view: video", "view: shuffled"))
    assert main(["evaluate", classifier]) == 0
    of_a_run = signature(module.evaluate).parameters["batch_size"].default
    assert sizes == [results.BATCH, of_a_run] and of_a_run > results.BATCH


@pytest.mark.parametrize(
    ("option", "value"), [("--num-workers", "-1"), ("--clips", "0"), ("--crops", "0")]
)
def test_numbers_that_are_too_small_are_refused(classifier, capsys, option, value):
    with pytest.raises(SystemExit):
        main(["evaluate", classifier, option, value])
    assert f"{value} is too small" in capsys.readouterr().err


def test_a_list_is_one_test_set(classifier, motion_mini, tmp_path, capsys):
    found = evaluated(capsys, classifier, "--data", str(motion_mini / "test.csv"))
    assert found["set"] == str(motion_mini / "test.csv") and found["videos"] == 24
    whole = evaluated(capsys, classifier, "--data", str(motion_mini), "--split", "test")
    assert {**found, "set": 0, "split": 0} == {**whole, "set": 0, "split": 0}
    # Alone: labels are numbers, or names, of the model's classes.
    videos = load_set(motion_mini).test[:6]
    for number, label in enumerate((lambda v: v.label, lambda v: CLASSES[v.label])):
        alone = tmp_path / str(number) / "mine.csv"
        alone.parent.mkdir()
        alone.write_text("".join(f"{video.path} {label(video)}\n" for video in videos))
        assert evaluated(capsys, classifier, "--data", str(alone))["videos"] == 6
    for data, words in (
        (["--split", "train"], "mine.csv has no train videos: choose from test or all"),
        (["--knn"], "--knn also need training videos: pass a folder with train.csv and test.csv"),
    ):
        assert main(["evaluate", classifier, "--data", str(alone), *data]) == 1
        assert words in capsys.readouterr().err
    for label, words in (
        ("9", "label 9 is not between 0 and 7"),
        ("fly", "unknown class 'fly'"),
        ("-1", "the label -1 (unlabelled) is allowed only in a pre-training list"),
        ("", "expected `path label`"),
    ):
        alone.write_text(f"{videos[0].path} {label}\n")
        assert main(["evaluate", classifier, "--data", str(alone)]) == 1
        assert words in capsys.readouterr().err
    (alone.parent / "classes.txt").write_text("else\nother\n")
    alone.write_text(f"{videos[0].path} 1\n")
    assert main(["evaluate", classifier, "--data", str(alone)]) == 1
    assert "has the classes 'other', but the model was trained on" in capsys.readouterr().err


def test_without_another_set_it_is_the_test_split(classifier, capsys):
    assert evaluated(capsys, classifier)["videos"] == 24
    assert evaluated(capsys, classifier, "--split", "train")["videos"] == 48
    assert evaluated(capsys, classifier, "--knn")["videos"] == 24


def test_files_are_read_by_the_workers_of_the_run_or_by_as_many_as_wanted(
    classifier, capsys, monkeypatch
):
    path = Path(classifier, "config.yaml")
    path.write_text(path.read_text().replace("cache: true", "cache: false"))
    counts, real = [], testing.run_parallel

    def parallel(work, jobs, workers, *options):
        counts.append(workers)
        return real(work, jobs, 0, *options)

    monkeypatch.setattr(testing, "run_parallel", parallel)
    monkeypatch.setattr(testing, "FEW", 1)
    found = evaluated(capsys, classifier, "--probe")
    assert evaluated(capsys, classifier, "--probe", "--num-workers", "3") == found
    assert counts == [1, 1, 1, 3, 3, 3]  # the test, and both splits for the probe


def test_what_cannot_be_tested(classifier, two_classes, capsys):
    assert main(["evaluate", "MCG-NJU/videomae-base"]) == 1
    assert (
        "MCG-NJU/videomae-base has no config.yaml: pass the folder of a run"
        in capsys.readouterr().err
    )
    data = ["evaluate", classifier, "--data", str(two_classes)]
    assert main([*data, "--split", "val"]) == 1
    assert "has no val videos: choose from train, test or all" in capsys.readouterr().err
    assert main([*data, "--probe", "--split", "all"]) == 1
    assert "a probe is trained on train" in capsys.readouterr().err
    video = next(two_classes.rglob("*.mp4"))
    assert main(["evaluate", classifier, "--data", str(video)]) == 1
    assert f"{video} is one video: pass its folder, or a list file" in capsys.readouterr().err
    flat = two_classes.with_name("flat")
    flat.mkdir()
    for video in two_classes.glob("*/*.mp4"):
        (flat / video.name).symlink_to(video.resolve())
    assert main(["evaluate", classifier, "--data", str(flat)]) == 1
    error = capsys.readouterr().err
    assert "flat: 12 of 12 videos have no label, so there is nothing to compare" in error
    assert "`vmae predict` gives the classes of videos without labels" in error
    assert "fine-tun" not in error
    (two_classes / CLASSES[2]).rename(two_classes / "other")
    assert main(data) == 1
    assert "has the classes 'other', but the model was trained on" in capsys.readouterr().err
