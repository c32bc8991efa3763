"""The parts of an experiment: clips without leakage, statistics, copiers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vmae.course.experiments import sets
from vmae.course.experiments.arms import Arm
from vmae.course.experiments.copier import copying_errors
from vmae.course.experiments.table import RATES
from vmae.course.experiments.verdicts import Difference, paired


@pytest.mark.parametrize("name", ["digits", "textures", "textures-16"])
def test_rendered_clips_are_the_same_every_time_and_balanced(name):
    first, again = (sets.make_set.__wrapped__(name, 40, 24, 16) for _ in range(2))
    assert [len(x.videos) for x in (first.unlabelled, first.train, first.test)] == [40, 24, 16]
    for part in ("unlabelled", "train", "test"):
        a, b = getattr(first, part), getattr(again, part)
        assert a.pixels.dtype == np.uint8 and np.array_equal(a.pixels, b.pixels)
        assert all(np.array_equal(a.labels[q], b.labels[q]) for q in a.labels)
    assert np.bincount(first.test.labels["how"]).tolist() == [2] * 8
    assert first.num_frames == (16 if name.endswith("16") else 8)
    clip = first.test.read(3, lambda count: np.arange(count))
    assert clip.shape == (first.num_frames, 16, 16, 1)


def test_no_digit_is_in_training_and_in_test():
    clips = sets.make_set.__wrapped__("digits", 400, 400, 200)
    numbered = load_digits()

    def pixels(image: np.ndarray) -> bytes:
        return np.sort(image, axis=None)[-64:].tobytes()  # the same wherever it lies on the torus

    images = [(image * (255 / 16)).astype(np.uint8) for image in numbered.images]
    known = [pixels(x) for x in images]
    for part, pool in ((clips.train, known[:1437]), (clips.test, known[1437:])):
        assert {pixels(clip[0]) for clip in part.pixels} <= set(pool)
    by_image = dict(zip(known, numbered.target, strict=True))
    found = [by_image[pixels(clip[0])] for clip in clips.test.pixels]
    assert np.mean(found == clips.test.labels["what"]) > 0.95  # few images share their pixels


def test_directions_are_those_of_the_labels():
    """The offset that best maps each frame to the next points in the direction of the label."""
    clips = sets.make_set.__wrapped__("digits", 160, 160, 8).train
    for label in range(8):
        totals = np.zeros(2)
        for clip in clips.pixels[clips.labels["how"] == label]:
            for a, b in zip(clip[:-1].astype(int), clip[1:].astype(int), strict=True):
                moves = [(r, c) for r in range(-2, 3) for c in range(-2, 3)]
                totals += min(moves, key=lambda m: np.abs(np.roll(a, m, (0, 1)) - b).sum())
        angle = np.arctan2(*totals) * 8 / (2 * np.pi)
        assert abs((angle - label + 4) % 8 - 4) < 0.3


def test_clips_of_a_shot_for_training_and_for_testing_are_apart(monkeypatch):
    shots = [(0, 100), (100, 130), (130, 190)]
    frames = np.arange(190)[:, None, None] * np.ones((16, 16), int)
    monkeypatch.setattr(sets, "_film_frames", lambda: (frames, shots))
    monkeypatch.setattr(sets, "_standardised", lambda clip: clip)
    for name in ("film", "film-16"):
        clips = sets.make_set.__wrapped__(name, 10_000, 10_000, 10_000)
        assert clips.num_frames == int(name.partition("-")[2] or 8)
        for label, (first, end) in enumerate([shots[0], shots[2]]):
            parts = (clips.train, clips.validation, clips.test)
            early, *halves = (x.pixels[x.labels["what"] == label] for x in parts)
            late = np.concatenate(halves)  # of which the shortest shots have a single clip
            assert first == early.min() and late.max() >= end - 2
            assert late.min() - early.max() > sets.GAP
        unlabelled = set(np.unique(clips.unlabelled.pixels))
        assert not unlabelled & set(np.unique(clips.test.pixels))
        assert set(np.unique(clips.train.pixels)) <= unlabelled
        fewer = sets.make_set.__wrapped__(name, 10_000, 10_000, 8)
        assert np.bincount(fewer.validation.labels["what"]).tolist() == [4, 1]
        assert np.bincount(fewer.test.labels["what"]).tolist() == [4]


def test_film_clips_are_standardised():
    clips = sets.make_set("film").test
    assert 60 <= clips.labels["what"].max() + 1 <= 70
    pixels = clips.pixels.reshape(len(clips.pixels), -1)
    assert abs(pixels.mean() - 128) < 2 and 45 < np.median(pixels.std(axis=1)) < 51


def test_the_interval_is_students_of_the_differences_within_seeds():
    found = paired([80.0, 85.0, 84.0], [70.0, 72.0, 77.0])
    differences = np.array([10.0, 13.0, 7.0])
    half = (
        4.302653 * differences.std(ddof=1) / np.sqrt(3)
    )  # t of 2 degrees of freedom, from a table
    assert found.mean == pytest.approx(10) and found.half == pytest.approx(half)
    assert found.count == 3 and found.word == "holds"
    assert str(found) == "+10.0 points, 95 % interval +2.5 to +17.5, 3 seeds"
    five = paired([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)
    assert five.half == pytest.approx(2.776445 * np.sqrt(2.5) / np.sqrt(5))
    # The spread between seeds does not count, only that of their differences.
    assert paired([50.0, 90.0], [49.0, 88.9]).word == "holds"


@pytest.mark.parametrize(
    ("mean", "half", "word"),
    [
        (2.0, 1.9, "holds"), (2.0, 2.0, "inconclusive"), (-2.0, 2.0, "inconclusive"),
        (-2.0, 1.9, "reversed"), (0.0, 0.0, "inconclusive"), (30.0, None, "inconclusive"),
    ],
)  # fmt: skip
def test_the_words_come_from_the_interval(mean, half, word):
    assert Difference(mean, half, 1 if half is None else 3).word == word


def test_one_seed_has_no_interval():
    assert str(paired([3.0], [1.0])) == "+2.0 points, one seed"


def test_pairs_that_are_no_seeds_are_named():
    draws = paired([80.0, 82.0, 84.0], [70.0, 71.0, 75.0], unit="draw")
    assert str(draws).endswith("+7.5 to +12.5, 3 draws")
    assert str(paired([3.0], [1.0], unit="draw")) == "+2.0 points, one draw"


def errors_of(pixels: np.ndarray, variant: str) -> dict[str, float]:
    config = Arm("digits", variant, 1, 0, RATES[0]).config
    return copying_errors(pixels, config, wraps=True)


def test_copiers_solve_what_they_should():
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (8, 1, 16, 16)).repeat(8, axis=1).astype(np.uint8)
    assert errors_of(still, "frame")["copy"] == 0
    under_tubes = errors_of(still, "base")
    assert under_tubes["copy"] == under_tubes["blend"] > 0.01  # hidden places are never visible
    moved = np.stack([np.roll(still[:, 0], (t, -t), axis=(1, 2)) for t in range(8)], axis=1)
    errors = errors_of(moved, "frame")
    assert errors["moving"] == 0 and errors["copy"] > 0.1
    assert errors_of(moved, "base")["moving"] < 0.5 * errors_of(moved, "base")["copy"]
    assert 0 < errors["mean"] < 0.2
