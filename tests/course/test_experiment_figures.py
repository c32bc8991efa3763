"""Pictures of experiments: the numbers they show, and what they do with results that are missing."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import pytest
from made_up import made_up

from vmae.course.experiments import figures, panels
from vmae.course.experiments.table import EXPERIMENTS

HOW = {"tube": 50.0, "random": 93.0, "frame": 99.0, "tube of 4 frames": 70.0}


@pytest.fixture(scope="module")
def masks():
    """Three seeds of "masks" on the sets with two questions and with one."""
    how = list(HOW.values())

    def value(question: str, arm: int, seed: int, longer: int) -> float:
        return (how[arm] if question == "how" else 60.0 - 5 * arm) + 0.1 * seed + (longer - 1)

    return made_up("masks", {"digits": ("how", "what"), "film": ("what",)}, value)


@pytest.fixture
def axes(monkeypatch):
    """The axes of what is drawn, kept before the figure is closed."""
    kept = []
    monkeypatch.setattr(panels.plt, "close", lambda figure: kept.extend(figure.axes))
    yield kept
    monkeypatch.undo()
    plt.close("all")


def test_the_plane_has_a_point_per_mask_and_seed_and_the_floor(masks, axes):
    diagram = figures.what_and_how("masks", "digits", masks)
    dots = {line.get_label(): line.get_xydata() for line in axes[0].lines[:4]}
    assert {name: xy[:, 0].tolist() for name, xy in dots.items()} == {
        name: pytest.approx([value, value + 0.1, value + 0.2]) for name, value in HOW.items()
    }
    assert dots["frame"][:, 1].tolist() == pytest.approx([50.0, 50.1, 50.2])
    assert [line.get_xdata()[0] for line in axes[0].lines[4:5]] == [40.0]
    widths = [bar.get_width() for bar in axes[1].patches]
    assert sum(widths) == pytest.approx(4 * 0.057)  # mean; copying 0.017, the motion 0.020
    assert sorted({round(width, 3) for width in widths}) == [0.017, 0.02]
    assert "how: tube 50.0, 50.1, 50.2; random 93.0" in diagram.alt
    assert "frame mean 0.0570, blend 0.0600, copy 0.0400, moving 0.0200" in diagram.alt
    assert diagram.svg.startswith("<?xml") and "<title>What does a mask teach?" in diagram.svg


def test_a_set_with_one_question_has_a_strip(masks, axes):
    diagram = figures.what_and_how("masks", "film", masks)
    assert axes[0].get_ylabel() == "what: probe, %"
    assert axes[0].lines[0].get_ydata() == pytest.approx([60.0, 60.1, 60.2])
    assert "what: tube 60.0, 60.1, 60.2" in diagram.alt and "how" not in diagram.alt


def test_claims_are_drawn_with_their_intervals_and_words(masks, axes):
    diagram = figures.claims("masks", "digits", masks)
    texts = [text.get_text() for text in axes[-1].texts]
    assert texts == ["holds", "holds"]
    assert axes[-1].lines[0].get_xdata() == pytest.approx([49.0])
    assert "holds: frame above tube on digits, how: +49.0 points, 95 % interval" in diagram.alt


def test_losses_of_both_lengths_are_drawn(masks, axes):
    diagram = figures.losses("masks", "digits", masks)
    assert len(axes[0].lines) == 4 + 3
    assert "tube of 4 frames 1.300 at step 50 to 0.350" in diagram.alt
    assert "frame (twice the steps)" in diagram.alt


def test_cost_is_that_of_the_configuration(axes):
    found = made_up("decoder mask", {"textures": ("how",)}, lambda q, arm, s, n: 90.0 - arm)
    diagram = figures.accuracy_and_cost("decoder mask", "textures", "how", found)
    assert axes[1].lines[1].get_xdata().tolist() == [4.0] * 3
    none, half = (
        float(x) for x in re.findall(r"(?:none|running cell) \S+ % for (\S+) G", diagram.alt)
    )
    assert axes[0].lines[0].get_xdata()[0] == pytest.approx(none, abs=0.01)
    assert 0.4 * none < half < none


@pytest.mark.parametrize("name", [n for n, x in EXPERIMENTS.items() if not x.labels])
def test_what_is_missing_is_said(name):
    experiment = EXPERIMENTS[name]
    set = experiment.sets[0]
    empty = {s: {} for s in experiment.sets}
    drawings = [
        figures.what_and_how(name, set, empty), figures.claims(name, set, empty),
        figures.losses(name, set, empty), figures.accuracy_and_cost(name, set, "how", empty),
    ]  # fmt: skip
    assert all("not measured yet" in drawing.alt.lower() for drawing in drawings)

    last = list(experiment.arms.values())[-1]
    asked = sorted({claim.question for claim in experiment.claims if claim.set == set})
    partial = made_up(name, {set: asked}, lambda q, arm, seed, n: 50.0 + arm, seeds=[0])
    partial[set] = {k: v for k, v in partial[set].items() if not k.startswith(f"{last}, ")}
    alt = figures.claims(name, set, partial).alt
    assert f"{list(experiment.arms)[-1]} not measured yet" in alt
    named = list(experiment.arms)[-1]
    left = [claim for claim in experiment.claims if named not in (claim.better, claim.worse)]
    assert ("points, one seed" in alt) == bool(left)


def test_a_picture_is_the_same_text_every_time(masks):
    first, again = (figures.claims("masks", "film", masks) for _ in range(2))
    assert first.svg == again.svg
