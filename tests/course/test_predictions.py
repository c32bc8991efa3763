"""Predict, then run: what is printed beside a measurement, and that no guess blocks."""

from __future__ import annotations

import pytest

from vmae.course.predictions import predict


@pytest.mark.parametrize(
    ("guess", "printed"),
    [
        (2.2, "the loss: measured 2.303; you predicted 2.2: close"),
        (1, "the loss: measured 2.303; you predicted 1: off by 57 %"),
        (None, "the loss: measured 2.303; you made no prediction"),
        ("high", "the loss: measured 2.303; you made no prediction"),
        (True, "the loss: measured 2.303; you made no prediction"),
    ],
)
def test_a_number_is_set_beside_the_measurement(guess, printed, capsys):
    predict("the loss", guess).compare(2.3026)
    assert capsys.readouterr().out.splitlines()[-1] == printed


@pytest.mark.parametrize(
    ("guess", "printed"),
    [
        ("tube", "the winner: measured tube; as you predicted"),
        ("frame", "the winner: measured tube; you said frame"),
        ("rube", "the winner: measured tube; you made no prediction"),
    ],
)
def test_a_choice_is_set_beside_the_measurement(guess, printed, capsys):
    predict("the winner", guess, ("tube", "frame")).compare("tube")
    assert capsys.readouterr().out.splitlines()[-1] == printed


def test_a_guess_that_is_no_answer_is_named(capsys):
    predict("the winner", "rube", ("tube", "frame"))
    assert "'rube' is not an option: choose one of 'tube', 'frame'" in capsys.readouterr().out
    predict("the loss", "high")
    assert "'high' is not a number" in capsys.readouterr().out
    predict("the loss", None)
    assert "No prediction yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("unit", "verdict"),
    [("%", "off by 16.4 points"), ("points", "off by 16.4 points"), ("", "off by 23 %")],
)
def test_percentages_are_apart_by_points(unit, verdict, capsys):
    predict("the accuracy", 55).compare(71.4, unit=unit)
    assert capsys.readouterr().out.rstrip().endswith(verdict)


def test_units_follow_the_numbers(capsys):
    predict("the memory", 400).compare(410.2, unit="MB")
    assert "measured 410.2 MB; you predicted 400 MB: close" in capsys.readouterr().out
