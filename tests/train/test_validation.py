"""Validation: what is held out, which weights are kept and tested, also when a run is interrupted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from small_runs import MODEL, StopAt, curve

from vmae.base_config import ConfigError
from vmae.data import DataConfig, Video, VideoSet
from vmae.data.reading import testing
from vmae.data.sets.subsets import hold_out
from vmae.train import FinetuneConfig, OptimConfig, Sources, finetune, load_classifier, open_sources
from vmae.train.validation import best_row


def videos_of(names: list[str]) -> VideoSet:
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    train = tuple(Video(Path(name), classes.index(name.split("/")[0])) for name in names)
    return VideoSet(Path("."), classes, train, train[:1])


# ---- what is held out ----------------------------------------------------------------------------


def test_recordings_are_held_out_whole():
    names = [
        f"{c}/v_{c}_g{g:02}_c{k:02}.avi" for c in "ab" for g in range(1, 11) for k in range(1, 5)
    ]
    train, val, how = hold_out(videos_of(names), 0.2)
    assert how == "whole recordings, by the names of their clips"
    groups = [{video.path.name[:7] for video in part} for part in (train, val)]
    assert not groups[0] & groups[1]
    assert Counter(video.label for video in val) == {0: 8, 1: 8}
    assert sorted(map(str, (v.path for v in train + val))) == sorted(names)
    assert hold_out(videos_of(names), 0.2, seed=1)[1] != val


def test_folders_inside_those_of_the_classes_are_held_out_whole():
    names = [f"{c}/person{p}/{word}.mp4" for c in "ab" for p in range(6) for word in ("one", "two")]
    train, val, how = hold_out(videos_of(names), 0.2)
    assert how == "whole folders inside those of the classes"
    assert {v.path.parent for v in train}.isdisjoint(v.path.parent for v in val)
    assert Counter(video.label for video in val) == {0: 2, 1: 2}


def test_a_recording_of_two_classes_is_on_one_side_only():
    names = [f"{c}/match{m}_{k:03}.mp4" for c in "ab" for m in range(1, 8) for k in range(3)]
    train, val, _ = hold_out(videos_of(names), 0.25)
    matches = [{v.path.name.split("_")[0] for v in part} for part in (train, val)]
    assert val and not matches[0] & matches[1]


def test_otherwise_each_class_gives_some_of_its_videos_and_the_reader_is_told():
    names = [
        f"a/{word}.mp4" for word in ("run", "jump", "sit", "walk", "swim", "fly", "hop", "nap")
    ]
    names += ["b/one.mp4", "b/two.mp4", "c/only.mp4"]
    train, val, how = hold_out(videos_of(names), 0.25)
    assert how.startswith("single videos of each class, as neither names nor folders show")
    assert Counter(v.label for v in val) == {0: 2, 1: 1}, "the only video of a class is trained on"
    assert len(train) == 8


def test_a_split_of_the_set_itself_is_taken_as_it_is():
    videos = videos_of(["a/1.mp4", "b/2.mp4"])
    given = VideoSet(videos.folder, videos.classes, videos.train, videos.test, val=videos.train[1:])
    assert hold_out(given, 0.2) == (given.train, given.val, "the set's own split")
    assert hold_out(given, None) == (given.train, (), "none")
    with pytest.raises(ConfigError, match="val_share is 0.9; it must be between"):
        FinetuneConfig(val_share=0.9)


# ---- what is kept --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(motion_mini, tmp_path_factory) -> FinetuneConfig:
    data = DataConfig(path=str(motion_mini), cache_dir=str(tmp_path_factory.mktemp("stores")))
    optim = OptimConfig(steps=20, batch_size=8, lr=1e-2)
    return FinetuneConfig(
        model=MODEL, data=data, optim=optim, save_every=3, log_every=2, val_share=0.3, drop_path=0.3
    )


@pytest.fixture(scope="module")
def sources(config) -> Sources:
    return open_sources(config)


@pytest.fixture(scope="module")
def whole(config, sources, tmp_path_factory):
    return finetune(config, sources, folder=tmp_path_factory.mktemp("runs") / "whole")


def test_the_best_epoch_is_kept_and_tested(config, sources, whole):
    assert [row["step"] for row in whole.validation] == [*range(4, 20, 4), 20], (
        "4 batches per epoch"
    )
    best = best_row(whole.validation)
    assert whole.validation[0] != best, "or it shows nothing"
    stopped = config.replace(val_share=None, optim=config.optim)
    kept = load_classifier(whole.folder)[0].state_dict()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, kept[name]), name
    plain = finetune(stopped, Sources(sources.classes, sources.train, sources.test))
    assert curve(plain) == curve(whole), "validation changes nothing in training"
    last = torch.equal(plain.test.logits, whole.test.logits)
    assert last == (best["step"] == 20)
    assert not (whole.folder / "best.json").exists(), "nothing follows the training loss"
    memory = finetune(config, sources)
    assert torch.equal(memory.test.logits, whole.test.logits)


def test_of_equally_good_epochs_the_one_with_the_lowest_loss_counts_then_the_first():
    rows = [
        {"step": step, "accuracy": accuracy, "loss": loss}
        for step, accuracy, loss in ((4, 50, 1.0), (8, 60, 1.2), (12, 60, 1.1), (16, 60, 1.1))
    ]
    assert best_row(rows)["step"] == 12


@pytest.mark.parametrize("step", [3, 4, 7, 13, 20])
def test_an_interrupted_run_keeps_the_same_weights(config, sources, whole, tmp_path, step):
    with pytest.raises(KeyboardInterrupt):
        finetune(config, sources, progress=StopAt(step), folder=tmp_path / "cut")
    resumed = finetune(config, sources, folder=tmp_path / "cut", resume=True)
    assert resumed.validation == whole.validation
    assert curve(resumed) == curve(whole)
    assert torch.equal(resumed.test.logits, whole.test.logits)
    rows = (tmp_path / "cut" / "validation.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == whole.validation


def test_a_run_that_died_after_its_last_checkpoint_too(config, sources, whole, tmp_path):
    """It has validated further than its checkpoint, and perhaps kept later weights."""

    class Dies(StopAt):
        def update(self, step, record):
            if step == self.at:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        finetune(config, sources, progress=Dies(17), folder=tmp_path / "cut")
    resumed = finetune(config, sources, folder=tmp_path / "cut", resume=True)
    assert resumed.validation == whole.validation
    assert torch.equal(resumed.test.logits, whole.test.logits)


def test_workers_read_what_is_validated_and_tested(config, monkeypatch):
    data = config.data.replace(cache=False, num_workers=2)
    files = config.replace(data=data, optim=config.optim.replace(steps=4))
    sources, counts, real = open_sources(files), [], testing.run_parallel

    def parallel(work, jobs, workers, *options):
        counts.append(workers)
        return real(work, jobs, 0, *options)

    monkeypatch.setattr(testing, "run_parallel", parallel)
    monkeypatch.setattr(testing, "FEW", 1)
    finetune(files, sources)
    assert counts == [2, 2]
