"""The first edition's claims, read from its file as lesson 08 shows them."""

from __future__ import annotations

import json

import pytest

from vmae import ROOT
from vmae.course.experiments import CLAIMS, PREFERRED, first_edition, values, verdict


@pytest.fixture
def results(tmp_path, monkeypatch):
    path = tmp_path / "first_edition.json"
    monkeypatch.setattr(first_edition, "RESULTS", path)
    return path


def test_values_are_read_by_claim_and_empty_if_nothing_is_measured(results):
    assert values("targets", "probe") == {"pixels": [], "normalised": []}
    rows = {
        "base, seed 1": {"probe": 2.0, "10 labels": 4.0},
        "base, seed 0": {"probe": 1.0, "10 labels": 3.0},
    }
    results.write_text(json.dumps(rows))
    assert values("targets", "probe") == {"pixels": [1.0, 2.0], "normalised": []}
    assert values("loss", "10 labels")["hidden tokens"] == [3.0, 4.0]


def test_every_claim_is_measured_and_every_entry_names_its_commit():
    rows = json.loads((ROOT / "data" / "experiments" / "first_edition.json").read_text())
    assert all(len(row["made"]["commit"]) == 40 for row in rows.values())
    for claim in CLAIMS:
        assert all(len(found) >= 3 for found in values(claim, "probe").values()), claim


def test_a_claim_holds_if_the_lead_exceeds_the_spread():
    assert set(PREFERRED.items()) <= {(c, s) for c, x in CLAIMS.items() for s in x}
    found = {"tube": [80.0, 82.0], "random": [70.0, 71.0]}
    outcome = verdict(found, "tube")
    assert outcome.startswith("holds: +10.5 vs. random, ahead in 2 of 2 seeds, spread 2.0")
    assert verdict(found, "random").startswith(
        "does not hold: -10.5 vs. tube, ahead in 0 of 2 seeds"
    )
    close = {"tube": [80.0, 82.0], "random": [80.0, 81.0]}
    assert verdict(close, "tube").startswith("inconclusive: +0.5")
    assert verdict({"tube": [80.0], "random": [70.0]}, "tube").startswith("inconclusive")
    assert verdict({"tube": [], "random": [70.0]}, "tube") == "not measured yet"
