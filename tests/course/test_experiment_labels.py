"""The experiment on labels and steps: which arms it asks for, one of them measured, its picture."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest

from vmae.course.experiments import label_figures, labels, measure, report, results, sets, tuning
from vmae.course.experiments.arms import Arm, recipe_arm, wanted
from vmae.course.experiments.label_figures import labels_and_steps
from vmae.course.experiments.labels import JUDGED, LADDER, RATES, TunedArm, plateau, question, rate
from vmae.course.experiments.table import EXPERIMENTS, SEARCH_SEED
from vmae.course.experiments.verdicts import accuracies, gains
from vmae.data.sets.motion_specs import spec_named
from vmae.train.finetune import open_sources
from vmae.train.recipe import Recipe

NAME = "labels"
SETS = EXPERIMENTS[NAME].sets


def accuracy(arm: TunedArm) -> float:
    """Made up: from scratch the climb takes longer, pre-trained it is over at 600 steps."""
    assert arm.steps and arm.lr
    most = {None: 95.0}.get(arm.labels, 50.0 + (arm.labels or 0) / 5)
    if arm.start == "pre-trained":
        return most + 5 + 0.1 * arm.seed - (arm.steps < JUDGED) - 1000 * abs(arm.lr - 1e-3)
    if arm.labels == 100:
        climbing = 10.0 + 4 * LADDER.index(arm.steps)  # never on its plateau
        return climbing - 1000 * abs(arm.lr - 1e-3)
    return most - 3000 / arm.steps - 1000 * abs(arm.lr - 2e-3)


def fill(found: dict[str, dict], seeds: list[int] | None = None) -> int:
    """Add a made-up entry for every arm that is ready; returns their number."""
    ready = [a for a in wanted([NAME], seeds, found) if a.ready and a.key not in found[a.set]]
    for arm in ready:
        entry = {"steps": arm.steps, "lr": arm.lr, "seed": arm.seed, "minutes": 1.0}
        if isinstance(arm, TunedArm):
            asked = question(arm.labels)
            entry |= {
                "tuned": {asked: accuracy(arm)},
                "loss": 0.5,
                "probe": {asked: 60.0},
                "floor": {asked: 40.0},
            }
        else:
            entry |= {"variant": "recipe", "probe": {"all labels": 70.0}, "tokens": [64, 16, 32]}
            entry |= {"floor": {"all labels": 40.0}}
        found[arm.set][arm.key] = entry
    return len(ready)


@pytest.fixture(scope="module")
def found():
    """Results of the whole experiment."""
    have: dict[str, dict] = {name: {} for name in SETS}
    while fill(have):
        pass
    assert all(arm.key in have[arm.set] for arm in wanted([NAME], None, have))
    return have


def test_pre_training_and_searches_come_first():
    have: dict[str, dict] = {name: {} for name in SETS}
    first = [a for a in wanted([NAME], None, have) if a.ready]
    assert all(isinstance(a, Arm) or a.start == "from scratch" for a in first)
    assert {(a.set, a.seed) for a in first if isinstance(a, Arm)} == {
        (name, seed) for name in SETS for seed in (SEARCH_SEED, 0, 1, 2)
    }
    tuned = [a for a in first if isinstance(a, TunedArm)]
    assert len(tuned) == 2 * 2 * len(RATES)
    assert {(a.steps, a.seed) for a in tuned} == {(JUDGED, SEARCH_SEED)}


def test_rates_and_steps_are_chosen_on_the_search_alone(found):
    assert rate("images", "from scratch", 20, found) == 2e-3
    assert rate("images", "pre-trained", None, found) == 1e-3
    assert plateau("videos", "pre-trained", 5, found) == JUDGED
    assert plateau("videos", "from scratch", 50, found) == 1200  # 1200 -> 2400 gains 1.25 points
    assert plateau("videos", "from scratch", 100, found) == LADDER[-1]
    assert gains(NAME, "videos", "100 labels", found)["from scratch"] == 4.0
    assert gains(NAME, "videos", "50 labels", found)["from scratch"] == 1.25
    keys = [key for key in found["videos"] if "from scratch, 50 labels" in key]
    assert len(keys) == 4 + 2 * 3  # the climb to 2,400 steps, and two lengths of three seeds
    other = {
        name: {k: v for k, v in rows.items() if v["seed"] == SEARCH_SEED}
        for name, rows in found.items()
    }
    assert plateau("videos", "from scratch", 50, other) == 1200


def test_a_run_that_has_not_begun_to_learn_is_not_on_its_plateau():
    have: dict[str, dict] = {name: {} for name in SETS}
    while fill(have, [0]):
        for key, row in have["videos"].items():
            if key.startswith("from scratch, all labels") and row["steps"] <= 1200:
                row["loss"], row["tuned"] = 0.8 * math.log(8), {"all labels": 13.0}
    # 300, 600 and 1,200 steps are as flat as a plateau; 2,400 to 4,800 gains 0.6 points.
    assert plateau("videos", "from scratch", None, have) == 2400
    assert plateau("images", "from scratch", None, have) == 1200


def test_both_starts_are_compared_on_the_same_labels_at_their_plateaus(found):
    values = accuracies(NAME, "videos", "50 labels", found)
    assert values["pre-trained"] == {seed: pytest.approx(65.0 + 0.1 * seed) for seed in range(3)}
    assert values["from scratch"] == dict.fromkeys(range(3), 56.5)  # the rate of 100
    assert accuracies(NAME, "videos", "50 labels", found, 1, "floor")["from scratch"][0] == 40.0


def test_the_picture_has_both_halves_and_says_what_is_missing(found):
    alt = labels_and_steps(NAME, "videos", found).alt
    assert "pre-trained, 50 labels 65.0, 65.1, 65.2 (linear probe 60.0)" in alt
    assert "from scratch, 100 labels 300: 10.0, 600: 14.0" in alt and "(still rising)" in alt
    assert "pre-trained, 10 labels 300: 66.0" in alt and "(plateau from 600 steps)" in alt
    assert "holds: pre-trained above from scratch on videos, 5 labels" in alt
    partial_results = {
        n: {k: v for k, v in r.items() if "20 labels" not in k} for n, r in found.items()
    }
    alt = labels_and_steps(NAME, "videos", partial_results).alt
    assert "pre-trained, 20 labels not measured yet" in alt
    assert "not measured yet" in labels_and_steps(NAME, "images", {"images": {}}).alt


def test_an_empty_panel_leaves_the_other_its_numbers_and_an_empty_set_has_one_line(
    found, monkeypatch
):
    kept = []
    monkeypatch.setattr(label_figures, "drawn", lambda figure, alt: kept.append(figure) or alt)
    searched = {
        name: {k: v for k, v in rows.items() if v["seed"] == SEARCH_SEED}
        for name, rows in found.items()
    }
    labels_and_steps(NAME, "videos", searched)
    labels_and_steps(NAME, "images", {"images": {}})
    left, right = kept[0].axes
    assert not left.lines and right.lines
    assert left.get_ylabel() == "videos: accuracy, %" and len(left.get_yticks()) > 2
    assert left.get_title() and right.get_title()
    assert kept[1].axes == [] and [t.get_text() for t in kept[1].texts] == [
        "images: not measured yet"
    ]
    for figure in kept:
        plt.close(figure)


def test_the_page_says_where_the_gain_ends(found):
    said = " ".join(report.finding(NAME, found))
    assert "On images, pre-trained is ahead up to all labels." in said
    (row,) = (x for x in report._table(NAME, found) if x.startswith("| videos | 50 labels | from"))
    assert row.split(" | ")[3:] == [
        "56.5", "56.5, 56.5, 56.5", "40.0", "0.001", "1,200", "+1.2, on its plateau |"
    ]  # fmt: skip


def test_videos_follow_the_recipe():
    plan = Recipe.load("cpu")
    config = TunedArm("videos", "from scratch", 5, 300, 3, 5e-4).config
    assert (config.optim.steps, config.optim.lr, config.labels_per_class) == (300, 5e-4, 5)
    changed = {"optim": plan.finetune.optim, "labels_per_class": plan.finetune.labels_per_class}
    assert config.replace(**changed, seed=0, device="auto", precision="auto") == plan.finetune
    arm = recipe_arm("videos", 0)
    assert arm.config.replace(device="auto", precision="auto") == plan.pretrain
    assert arm.config.model == config.model and arm.config.data == config.data


def test_images_share_no_digit_between_training_and_test():
    images = sets.make_set.__wrapped__("images", unlabelled=400, test=80)
    assert images.train.pixels.shape == (100, 1, 16, 16, 3)
    assert [len(x.pixels) for x in (images.validation, images.test)] == [40, 40]
    assert not np.array_equal(images.validation.pixels, images.test.pixels)
    assert images.test.videos[3].label == images.test.labels["all labels"][3]
    assert images.test.read(0, lambda count: np.arange(count)).shape == (1, 16, 16, 3)


def test_videos_are_those_of_the_recipe_as_decoded(tmp_path, monkeypatch):
    plan = Recipe.load("cpu").changed(
        {"data.path": str(tmp_path / "motion-mini"), "data.cache_dir": str(tmp_path / "stores")}
    )
    monkeypatch.setattr(Recipe, "load", lambda name: plan)
    monkeypatch.setattr(sets, "ROOT", tmp_path)
    clips = sets.make_set.__wrapped__("videos")
    spec = spec_named("motion-mini")
    assert spec and clips.train.pixels.shape == (spec.train, spec.frames, 16, 16, 3)
    halves = (clips.validation, clips.test)
    assert [len(half.pixels) for half in halves] == [spec.test // 2] * 2
    assert set(clips.test.labels["all labels"]) <= set(range(8))
    usual = open_sources(plan.finetune.replace(labels_per_class=None))
    assert np.array_equal(clips.test.pixels[0], usual.test.read(spec.test // 2, np.arange))
    assert clips.test.videos[0].label == usual.test.videos[spec.test // 2].label


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A short pre-training and few images; results and work in `tmp_path`."""
    few = partial(sets.make_set, unlabelled=800, test=80)
    for module in (measure, tuning):
        monkeypatch.setattr(module, "make_set", few)
    short = labels.pretraining("images")
    short = short.replace(optim=short.optim.replace(steps=6, batch_size=8))
    monkeypatch.setattr(labels, "pretraining", lambda set: short)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    caches = (tuning._probe, tuning._features, measure.floor_of)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def without_times(entry: dict) -> dict:
    return {key: value for key, value in entry.items() if key not in ("minutes", "made")}


def test_arms_run_in_the_queue_and_again_from_nothing(small):
    work, arm = small / "work", TunedArm("images", "pre-trained", 5, 4, 0, 1e-3)
    work.mkdir()
    before = recipe_arm("images", 0)
    for queued in (before, arm, dataclasses.replace(arm, start="from scratch")):
        measure.run(queued, work)
    entries = results.load("images")
    assert set(entries[before.key]["probe"]) == {"all labels"}
    entry, scratch = entries[arm.key], entries[dataclasses.replace(arm, start="from scratch").key]
    assert entry["floor"] == scratch["floor"] == scratch["probe"] != entry["probe"]
    assert (work / f"images, {before.key}" / "model.safetensors").exists()
    assert not (work / f"images, {arm.key}").exists()  # its classifier is not needed again

    for cache in (tuning._probe, tuning._features):
        cache.cache_clear()
    again = tuning.tuned(arm, small / "elsewhere" / "arm")  # pre-trains first
    assert without_times(again) == without_times(entry)


def test_the_search_is_judged_on_validation(small, monkeypatch):
    seen = []
    kept = tuning.finetune
    monkeypatch.setattr(
        tuning,
        "finetune",
        lambda c, s, *rest, **more: seen.append(s.test) or kept(c, s, *rest, **more),
    )
    for seed in (SEARCH_SEED, 0):
        tuning.tuned(TunedArm("images", "from scratch", 5, 1, seed, 1e-3))
    clips = tuning.make_set("images")
    assert seen[0] is clips.validation and seen[1] is clips.test
