"""The papers' claims: every variant is a separate run; results are saved and read by claim."""

from __future__ import annotations

import json

import pytest

from vmae.cli.main import main
from vmae.course import experiments as claims
from vmae.data.making import motion


@pytest.fixture
def results(tmp_path, monkeypatch):
    path = tmp_path / "claims" / "results.json"
    monkeypatch.setattr(claims, "RESULTS", path)
    return path


def test_every_setting_is_a_variant_and_every_variant_a_separate_run(tmp_path):
    used = {variant for settings in claims.CLAIMS.values() for variant in settings.values()}
    assert used == set(claims.VARIANTS)
    recipes = {
        (str(claims.recipe_of(name, tmp_path, 10).pretrain), change.get("videos"))
        for name, change in claims.VARIANTS.items()
    }
    assert len(recipes) == len(claims.VARIANTS)


def test_values_are_read_by_claim_and_empty_if_nothing_is_measured(results, capsys):
    assert claims.values("targets", "probe") == {"pixels": [], "normalised": []}
    results.parent.mkdir()
    rows = {
        "base, seed 1": {"probe": 2.0, "10 labels": 4.0},
        "base, seed 0": {"probe": 1.0, "10 labels": 3.0},
    }
    results.write_text(json.dumps(rows))
    assert claims.values("targets", "probe") == {"pixels": [1.0, 2.0], "normalised": []}
    assert claims.values("loss", "10 labels")["hidden tokens"] == [3.0, 4.0]
    assert main(["claims", "targets"]) == 0
    printed = capsys.readouterr().out
    assert "1.5 (1.0, 2.0)" in printed and "not measured yet" in printed


def test_a_claim_holds_if_the_lead_exceeds_the_spread():
    assert set(claims.PREFERRED.items()) <= {(c, s) for c, x in claims.CLAIMS.items() for s in x}
    found = {"tube": [80.0, 82.0], "random": [70.0, 71.0]}
    outcome = claims.verdict(found, "tube")
    assert outcome.startswith("holds: +10.5 vs. random, ahead in 2 of 2 seeds, spread 2.0")
    assert claims.verdict(found, "random").startswith(
        "does not hold: -10.5 vs. tube, ahead in 0 of 2 seeds"
    )
    close = {"tube": [80.0, 82.0], "random": [80.0, 81.0]}
    assert claims.verdict(close, "tube").startswith("inconclusive: +0.5")
    assert claims.verdict({"tube": [80.0], "random": [70.0]}, "tube").startswith("inconclusive")
    assert claims.verdict({"tube": [], "random": [70.0]}, "tube") == "not measured yet"


def test_an_unknown_claim_is_reported_with_the_known_ones(results, capsys):
    assert main(["claims", "targets", "colour"]) == 1
    message = capsys.readouterr().err
    assert (
        "'colour'" in message
        and "'decoder mask'" in message
        and "'targets'" not in message.split(": choose")[0]
    )


def test_measuring_runs_what_is_missing_once(results, tmp_path, motion_mini, monkeypatch):
    """Real runs of two steps, on the mini set instead of the small one."""
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    monkeypatch.setattr(motion, "render_set", lambda *_: motion_mini)
    small = {
        "data.cache_dir": str(tmp_path / "stores"), "data.num_workers": 0, "optim.batch_size": 8,
        "log_every": 1,
    }  # fmt: skip
    recipe_of = claims.recipe_of
    monkeypatch.setattr(
        claims,
        "recipe_of",
        lambda *given: recipe_of(*given).changed(
            both=small, finetune={"labels_per_class": 2, "optim.steps": 2}
        ),
    )
    claims.measure(["targets"], [0], steps=2)
    found = json.loads(results.read_text())
    assert set(found) == {"base, seed 0", "normalised, seed 0"}
    assert found["base, seed 0"]["loss"] != found["normalised, seed 0"]["loss"]
    assert all(0 <= row["probe"] <= 100 and row["steps"] == 2 for row in found.values())

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(claims, "_measured", refuse)
    claims.measure(["targets"], [0], steps=2)
    with pytest.raises(AssertionError, match="measured again"):
        claims.measure(["loss"], [0], steps=2)
