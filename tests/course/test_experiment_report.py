"""The page about all experiments: what it states, and that the committed one is up to date."""

from __future__ import annotations

import json
import re

import pytest
from made_up import made_up

from vmae.cli.main import main
from vmae.course.experiments import report, results
from vmae.course.experiments.measure import found
from vmae.course.experiments.table import EXPERIMENTS, RATES


def test_the_committed_page_is_the_one_that_the_results_give():
    have = found(list(EXPERIMENTS))
    drawings = report.pictures(have)
    page = (results.FOLDER / "README.md").read_text(encoding="utf-8")
    assert page == report.text(have, drawings), "run `vmae experiments --report`, and commit"
    assert {path.name for path in results.FOLDER.glob("*.svg")} == set(drawings)
    for name, drawing in drawings.items():
        (title,) = re.findall("<title>(.*)</title>", (results.FOLDER / name).read_text())
        assert title == re.findall("<title>(.*)</title>", drawing.svg)[0], f"{name} is out of date"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the page from results by set; returns its text, and the names of its pictures."""

    def write(*parts: dict[str, dict]) -> tuple[str, set[str]]:
        monkeypatch.setattr(results, "FOLDER", tmp_path)
        for part in parts:
            for name, entries in part.items():
                (tmp_path / f"{name}.json").write_text(json.dumps(entries))
        assert main(["experiments", "--report"]) == 0
        page = (tmp_path / "README.md").read_text()
        return page, {path.name for path in tmp_path.glob("*.svg")}

    return write


def test_nothing_measured_is_said(written):
    page, drawings = written()
    assert page.count("\nNot measured yet.\n") == len(EXPERIMENTS) and not drawings
    assert 'vmae experiments "decoder mask" --measure' in page


def test_findings_use_the_words_and_numbers_of_the_verdicts(written):
    how = {0: 50.0, 1: 90.0, 2: 95.0, 3: 70.0}
    masks = made_up(
        "masks",
        {"digits": ("how", "what")},
        lambda q, arm, seed, n: (how[arm] if q == "how" else 60.0 + arm * (seed - 1)) + 3 * (n - 1),
        seeds=[0, 1],
    )
    page, drawings = written(masks)
    assert "Holds: frame above tube on digits (how +45.0 ± 0.0, 2 of 5 seeds); inconclu" in page
    assert "inconclusive: tube above frame on digits (what +1.0 ± 12.7, 2 of 5 seeds); not" in page
    assert "not measured yet: frame above tube on textures (how), tube above frame on film" in page
    assert (
        "Random weights alone reach 40.0 to 40.0 %; twice the steps gain 2 points or more" in page
    )
    assert "in 6 of 6 cases." in page
    row = f"| digits | how | frame | 95.0 | 95.0, 95.0 | 40.0 | {RATES[1]:g} | 6,000 | +3.0, still rising |"
    assert row in page
    assert "Arms not measured yet: digits 12 of 32, textures 32 of 32" in page
    assert drawings == {"masks-digits.svg", "masks-digits-claims.svg"}
    assert all(f"]({name})" in page for name in drawings)

    page, drawings = written({"digits": {}})  # pictures without results do not stay
    assert not drawings and "svg" not in page


def test_one_seed_is_said_to_be_one(written):
    found = made_up("ratio", {"textures": ("how",)}, lambda q, arm, seed, n: 60.0 - arm, seeds=[0])
    page, _ = written(found)
    assert "Inconclusive: 75 % above 50 % on textures (how +1.0, one seed), 90 % above" in page


def test_reversed_claims_are_said_to_be_reversed(written):
    ratio = made_up("ratio", {"textures": ("how",)}, lambda q, arm, seed, n: 50.0 + 5 * arm)
    page, drawings = written(ratio)
    assert "reversed: 75 % above 50 % on textures (how -5.0 ± 0.0)" in page
    assert "in 0 of 3 cases" in page and "on its plateau" in page
    assert "ratio-textures.svg" in drawings
