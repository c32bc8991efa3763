"""What a check says, and that it never blocks: tried on a small exercise of its own."""

from __future__ import annotations

import pytest
import torch

from vmae.course import checks
from vmae.course.checks import CheckError, Exercise, check, core
from vmae.course.checks.core import difference
from vmae.course.progress import solved


def centre(x: torch.Tensor) -> torch.Tensor:
    """Rows with their mean taken off."""
    return x - x.mean(dim=1, keepdim=True)


CENTRE = Exercise(
    "99.centre",
    centre,
    lambda g: [(torch.randn(3, 4, generator=g),), (torch.randn(2, 7, generator=g),)],
    {
        "the mean runs over the whole batch: take it row by row, dim=1": lambda x: x - x.mean(),
        "that is the mean itself, not the rest": lambda x: x.mean(dim=1, keepdim=True).expand_as(x),
    },
)


@pytest.fixture(autouse=True)
def exercise(monkeypatch, tmp_path):
    monkeypatch.setattr(core, "exercises", lambda notebook: {"99.centre": CENTRE})
    monkeypatch.setattr("vmae.course.progress.PROGRESS", tmp_path / "progress.json")
    monkeypatch.delenv("VMAE_STRICT", raising=False)


def unsolved(x):
    raise NotImplementedError


def in_place(x):
    x -= x.mean(dim=1, keepdim=True)
    return x


def by_loop(x):
    return torch.stack([row - sum(row) / len(row) for row in x])


def test_right_answers_in_any_style_pass_and_are_kept(capsys):
    assert check("99.centre", by_loop) is by_loop
    assert capsys.readouterr().out == "✓ 99.centre: passed\n"
    assert solved() == {"99.centre"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x - x.mean(), "row by row, dim=1"),
        (lambda x: x.mean(dim=1, keepdim=True).repeat(1, x.shape[1]), "the mean itself"),
        (lambda x: None, "is the `return` missing"),
        (lambda x: x.sum(dim=1), r"its shape is \(3,\); \(3, 4\) is expected"),
        (lambda x: centre(x).long(), "its type is torch.int64"),
        (lambda x: centre(x) / 0, "not finite"),
        (lambda x: centre(x) * 1.5, r"the shape is right, and \d+ % of the values are not"),
        (lambda x: centre(x).tolist(), "it returns list; Tensor is expected"),
        (lambda x: x @ x, "it raises RuntimeError.*at `"),
        (in_place, "it changes its arguments"),
        (lambda x: centre(x).view(3, 4), "it raises RuntimeError"),  # one shape alone
    ],
)
def test_wrong_answers_are_named_and_replaced(wrong, message, capsys):
    assert check("99.centre", wrong) is centre
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("✗ 99.centre: not right yet: ")
    assert "goes on with the package's `centre`" in said
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(said)
    assert not solved()


def test_an_exercise_left_out_does_not_block(capsys):
    assert check("99.centre", unsolved) is centre
    assert "· 99.centre: not attempted yet" in capsys.readouterr().out


def test_strict_lets_nothing_but_a_pass_through(monkeypatch):
    monkeypatch.setenv("VMAE_STRICT", "1")
    for wrong in (unsolved, lambda x: x):
        with pytest.raises(CheckError, match="99.centre"):
            check("99.centre", wrong)
    assert check("99.centre", centre) is centre
    assert not solved(), "the course's own runs are no progress of the learner"


def test_an_unknown_exercise_is_an_error():
    with pytest.raises(KeyError):
        check("99.center", centre)


def test_the_learners_result_is_drawn_first_also_a_wrong_one():
    drawn = []
    exercise = Exercise("99.x", centre, CENTRE.cases, draw=lambda result, x: drawn.append(result))
    assert core.verdict(exercise, lambda x: x) is not None
    assert len(drawn) == 1 and drawn[0].shape == (3, 4)


def test_functions_that_draw_at_random_are_judged_by_properties():
    def judge(shuffle):
        return None if sorted(shuffle(5)) == list(range(5)) else "it is no permutation"

    exercise = Exercise("99.shuffle", lambda n: torch.randperm(n).tolist(), judge=judge)
    assert core.verdict(exercise, exercise.reference) is None
    assert core.verdict(exercise, lambda n: [0] * n) == "it is no permutation"
    assert "raises TypeError" in core.verdict(exercise, lambda: [])


def test_differences_in_words():
    assert difference((1, 2), (1, 2), 0) is None
    assert difference([1, 2], (1, 2), 0) is None
    assert difference((1,), (1, 2), 0) == "it returns 1 value(s); 2 are expected"
    assert difference((1, 3), (1, 2), 0) == "value 2: it returns 3; 2 is expected"
    assert difference(torch.tensor(2.0), 2.0, 1e-4) is None
    assert "6.5 is expected" in difference(6, 6.5, 1e-4)


def test_every_notebook_with_checks_has_exercises():
    for notebook in checks.notebooks():
        module = __import__(f"vmae.course.checks.notebook_{notebook}", fromlist=["EXERCISES"])
        assert module.EXERCISES
