"""Videos that cannot be read are found before training; a run keeps its own lists of videos."""

from __future__ import annotations

import csv
import json
import re
import shutil
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from small_runs import MODEL, StopAt

from vmae.cli.main import main
from vmae.data import DataConfig, SetError, load_set, write_video
from vmae.data.reading.loader import Subset
from vmae.train import FinetuneConfig, OptimConfig, Silent, finetune, open_sources
from vmae.train.classifier import unfinished
from vmae.train.finetune import labelled_clips
from vmae.weights import CheckpointError


@pytest.fixture(scope="module")
def readable(tmp_path_factory) -> Path:
    """Twelve videos of each of two classes."""
    folder = tmp_path_factory.mktemp("sets") / "clips"
    rng = np.random.default_rng(0)
    for name, light in (("bright", 170), ("dark", 60)):
        (folder / name).mkdir(parents=True)
        for letter in "abcdefghijkl":
            frames = light + rng.integers(-20, 20, (12, 32, 32, 3))
            write_video(folder / name / f"{letter}.mp4", frames.astype(np.uint8), fps=10)
    return folder


@pytest.fixture
def clips(readable, tmp_path) -> Path:
    return Path(shutil.copytree(readable, tmp_path / "clips"))


@pytest.fixture
def config(clips, tmp_path) -> FinetuneConfig:
    data = DataConfig(path=str(clips), cache=False, num_workers=0, short="repeat")
    optim = OptimConfig(steps=4, batch_size=4, lr=1e-3)
    config = FinetuneConfig(
        model=MODEL, data=data, optim=optim, log_every=1, save_every=2, val_share=0.2
    )
    config.to_yaml(tmp_path / "config.yaml")
    return config


def command(tmp_path: Path, *more: str) -> list[str]:
    return ["finetune", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run"), *more]


def rows_of(run: Path) -> list[dict[str, str]]:
    with open(run / "splits.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def splits(config: FinetuneConfig, folder: Path | None = None) -> dict[str, set[str]]:
    chosen = open_sources(config, folder).splits
    assert chosen is not None
    where = Path(config.data.path)
    return {
        name: {v.path.relative_to(where).as_posix() for v in chosen.split(name)}
        for name in ("train", "val", "test")
    }


# ---- unreadable videos ---------------------------------------------------------------------------


def test_one_broken_video_is_left_out_before_training(config, clips, tmp_path, capsys):
    """One of five test videos: 20 % of them, but a single video of a small set."""
    before = splits(config)
    broken = sorted(before["test"])[0]
    damage(clips / broken)
    (clips / "dark" / "camera.MTS").touch()
    with pytest.warns(UserWarning, match=f"1 of 24 videos could not be read.*\n.*{broken}"):
        after = splits(config)
    assert after == {name: names - {broken} for name, names in before.items()}
    with pytest.warns(UserWarning, match="1 of 24 videos could not be read"):
        assert main(command(tmp_path)) == 0
    out, err = capsys.readouterr()
    err = " ".join(err.split())
    assert f"unreadable 1 of 24 videos, left out: {broken!r} (1 of the test videos)" in err
    assert "2 ('bright', 'dark'), with 8 training and 1 to 2 test videos each" in err
    assert "2 classes have fewer than 10 test videos ('bright', 'dark')" in err
    assert (
        "their accuracies will say next to nothing: add videos, or put more into a test folder"
        in err
    )
    assert err.index("unreadable 1 of 24") < err.index("fine-tune:"), "before the first step"
    assert json.loads(out)["unreadable_videos"] == 1
    (row,) = [row for row in rows_of(tmp_path / "run") if row["unreadable"]]
    assert (row["split"], row["path"]) == ("test", broken)
    assert "not a video file, or truncated before its index" in row["unreadable"]
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "left out, unreadable" in page and broken in page
    assert re.search("passed over, not read</td><td[^>]*>1: &#x27;dark/camera.MTS&#x27;</td>", page)


def test_more_than_one_stop_before_training_with_a_way_out(config, clips, tmp_path, capsys):
    for name in ("bright/a.mp4", "dark/e.mp4"):
        damage(clips / name)
    assert main(command(tmp_path)) == 1
    error = capsys.readouterr().err
    for words in (
        "2 of 24 videos could not be read", "bright/a.mp4", "dark/e.mp4",
        "exceeds max_unreadable = 5% (here at most 1)", "remove these videos", "vmae normalize",
        "--set data.max_unreadable=0.09", "vmae scan",
    ):  # fmt: skip
        assert words in error, words
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.warns(UserWarning, match="2 of 24"):
        assert main(command(tmp_path, "--set", "data.max_unreadable=0.09")) == 0


def test_a_limit_of_0_allows_none(config, clips):
    damage(clips / "bright" / "a.mp4")
    strict = config.replace(data=config.data.replace(max_unreadable=0.0))
    with pytest.raises(SetError, match=r"max_unreadable = 0% \(here at most 0\)"):
        open_sources(strict)


def test_a_store_too_goes_without_one_broken_video(config, clips, tmp_path, capsys):
    """The run lists it with its reason, as without a store, and a resumed run finds the same store."""
    damage(clips / "bright" / "e.mp4")
    stores = tmp_path / "stores"
    data = config.data.replace(cache=True, cache_dir=str(stores))
    config.replace(data=data).to_yaml(tmp_path / "config.yaml")
    with pytest.warns(UserWarning, match="1 of 4 videos could not be read"):
        sources = open_sources(config.replace(data=data))
    assert len(sources.test.videos) == 3
    built = sorted(stores.iterdir())
    with pytest.warns(UserWarning, match="1 of 4 videos could not be read"):
        assert main(command(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert "unreadable 1 of 24 videos, left out: 'bright/e.mp4' (1 of the test videos)" in err
    assert json.loads(out)["unreadable_videos"] == 1
    (row,) = [row for row in rows_of(tmp_path / "run") if row["unreadable"]]
    assert (row["split"], row["path"]) == ("test", "bright/e.mp4")
    assert "not a video file, or truncated before its index" in row["unreadable"]
    shutil.copy(clips / "bright" / "a.mp4", clips / "bright" / "e.mp4")  # repaired, too late
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="1 of 4 videos have changed")
        again = open_sources(config.replace(data=data), tmp_path / "run")
    assert [v.path.name for v in again.test.videos] == [v.path.name for v in sources.test.videos]
    assert sorted(stores.iterdir()) == built
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "left out, unreadable" in page and "bright/e.mp4" in page


def test_a_split_of_which_nothing_can_be_read_is_an_error(config, clips):
    for video in load_set(clips).test:
        damage(video.path)
    lenient = config.replace(data=config.data.replace(max_unreadable=0.5))
    with (
        pytest.warns(UserWarning, match="4 of 24"),
        pytest.raises(SetError, match="all 4 test videos are unreadable"),
    ):
        open_sources(lenient)


def test_large_sets_are_not_checked_and_the_plan_says_so(config, monkeypatch):
    from vmae.train import accelerator_for
    from vmae.train.overview import overview

    text = overview(config, open_sources(config), accelerator_for("fp32"))
    assert "unreadable none" in text
    assert "2 ('bright', 'dark'), with 8 training and 2 test videos each" in text
    for module in ("finetune", "overview"):
        monkeypatch.setattr(import_module(f"vmae.train.{module}"), "CHECKED", 23)
    text = overview(config, open_sources(config), accelerator_for("fp32"))
    assert "unreadable not checked, as there are over 23 videos" in text


# ---- the run's own lists -------------------------------------------------------------------------


def test_a_resumed_run_keeps_its_splits(config, clips, tmp_path, capsys):
    """Every fifth video is for testing: without the run's lists, the others would move up."""
    before = splits(config)
    run = tmp_path / "run"
    finetune(config, open_sources(config), None, Silent(), run)
    assert {(row["split"], row["path"]) for row in rows_of(run)} == {
        (name, path) for name, paths in before.items() for path in paths
    }
    (clips / "bright" / "a.mp4").unlink()
    shutil.copy(clips / "dark" / "a.mp4", clips / "dark" / "new.mp4")
    assert splits(config)["test"] != before["test"], "a new run would split the set otherwise"
    with pytest.warns(UserWarning) as caught:
        after = splits(config, run)
    text = "\n".join(str(warning.message) for warning in caught)
    assert "left out, as they are no longer in the set: 'bright/a.mp4'" in text
    assert "not used, as they are new in the set" in text and "'dark/new.mp4'" in text
    assert after == {name: names - {"bright/a.mp4"} for name, names in before.items()}
    with pytest.warns(UserWarning, match="no longer in the set"):
        assert main(command(tmp_path, "--resume")) == 0
    capsys.readouterr()
    for split in ("val", "test"):
        with pytest.warns(UserWarning, match="no longer in the set"):
            assert main(["evaluate", str(run), "--split", split]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["videos"] == len(after[split])


def test_resuming_with_another_split_is_refused(config, clips, tmp_path):
    finetune(config, open_sources(config), None, Silent(), tmp_path / "run")
    (clips / "bright" / "a.mp4").unlink()
    with pytest.raises(CheckpointError, match="other splits of them .*pass its folder to open_so"):
        finetune(config, open_sources(config), None, Silent(), tmp_path / "run", resume=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = open_sources(config, tmp_path / "run")
    lenient = config.replace(data=config.data.replace(max_unreadable=0.5))  # as a message advises
    finetune(lenient, sources, None, Silent(), tmp_path / "run", resume=True)


def test_a_new_class_does_not_renumber_those_of_a_run(config, clips, tmp_path):
    finetune(config, open_sources(config), None, Silent(), tmp_path / "run")
    shutil.copytree(clips / "dark", clips / "a new one")
    with pytest.warns(UserWarning, match=r"not used, .* and 6 more$"):
        sources = open_sources(config, tmp_path / "run")
    assert sources.classes == ("bright", "dark")
    assert {(v.path.parent.name, v.label) for v in sources.train.videos} == {
        ("bright", 0), ("dark", 1),
    }  # fmt: skip


# ---- a run that has not ended --------------------------------------------------------------------


def test_an_unfinished_run_predicts_names_and_says_so(config, clips, tmp_path, capsys):
    run, video = tmp_path / "run", str(clips / "dark" / "a.mp4")
    config = config.replace(optim=config.optim.replace(steps=8), save_every=100)
    with pytest.raises(KeyboardInterrupt):
        finetune(config, open_sources(config), None, StopAt(6), run)
    capsys.readouterr()
    assert main(["predict", str(run), video]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"a\.mp4: (bright|dark) \d", out)
    assert f"vmae: {run} is not finished (step 6 of 8): these are the weights of step 4" in err
    assert (
        "the best so far on its validation videos. To finish the run" in err and "--resume" in err
    )
    assert main(["evaluate", str(run)]) == 0
    assert "is not finished (step 6 of 8)" in capsys.readouterr().err
    assert main(["report", str(run)]) == 1
    assert "--resume" in capsys.readouterr().err
    kept = run / "checkpoints" / "step-00000006"
    assert main(["predict", str(kept), video]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"a\.mp4: (bright|dark) \d", out)
    assert "these are the weights of its checkpoint step-00000006" in err
    (run / "model.safetensors").unlink()  # as before the first validation, or without any
    assert main(["predict", str(run), video]) == 1
    assert f"pass the newest checkpoint of this run, {kept}" in capsys.readouterr().err


def test_a_finished_run_says_nothing_of_it(config, clips, tmp_path, capsys):
    config = config.replace(optim=config.optim.replace(epochs=1.0), labels_per_class=2)
    finetune(config, open_sources(config), None, Silent(), tmp_path / "run")
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), str(clips / "dark" / "a.mp4")]) == 0
    assert "not finished" not in capsys.readouterr().err


def test_an_evaluation_on_videos_of_the_training_says_so(config, clips, tmp_path, capsys):
    """Also if links lead to them. Of two labels per class, the other training videos are new to it."""
    config = config.replace(optim=config.optim.replace(steps=1), labels_per_class=2)
    run = tmp_path / "run"
    sources = open_sources(config)
    finetune(config, sources, None, Silent(), run)
    validated = len(sources.val.videos)
    used = {video.path.relative_to(clips) for video in sources.val.videos}
    used |= {video.path.relative_to(clips) for video in labelled_clips(config, sources).videos}
    linked = tmp_path / "linked"
    for video in clips.glob("*/*.mp4"):
        if video.relative_to(clips) in used or video.parent.name == "dark":
            (linked / video.parent.name).mkdir(parents=True, exist_ok=True)
            (linked / video.relative_to(clips)).symlink_to(video)
    dark = sum(name.parts[0] == "dark" for name in used)
    for more, count in (
        ((), None),
        (("--split", "test"), None),
        (("--split", "val"), f"{validated} of these {validated}"),
        (("--split", "all"), f"{4 + validated} of these 24"),
        (("--data", str(clips)), f"{4 + validated} of these 24"),
        (("--data", str(linked)), f"{4 + validated} of these {4 + validated - dark + 12}"),
    ):
        capsys.readouterr()
        assert main(["evaluate", str(run), *more]) == 0
        err = capsys.readouterr().err
        if count is None:
            assert "no test" not in err
        else:
            words = (
                "videos were used for training or validation of this run: the accuracy is no test"
            )
            assert f"vmae: {count} {words} of it. Pass other videos" in err


def test_a_run_that_ended_on_fewer_videos_is_finished(config, tmp_path):
    """Epochs are of the videos that are left, fewer than splits.csv lists."""
    config = config.replace(optim=config.optim.replace(epochs=4.0), val_share=None)
    sources = open_sources(config)
    fewer = Subset(sources.train, list(range(4, len(sources.train.videos))))
    finetune(config, replace(sources, train=fewer), None, Silent(), tmp_path / "run")
    assert unfinished(tmp_path / "run") == ""


def test_a_tracker_that_is_missing_is_named_before_anything_is_read(
    config, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("vmae.train.monitoring.get_available_trackers", list)
    monkeypatch.setattr(
        import_module("vmae.train.finetune"), "unreadable", None
    )  # whoever calls it fails otherwise
    assert main(command(tmp_path, "--set", "log_with=wandb")) == 1
    assert 'log_with is "wandb", but the package wandb is not installed' in capsys.readouterr().err
