"""What a check prints, and that it never blocks: tested on a small exercise."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vmae.course import checks
from vmae.course.checks import CheckError, Exercise, check, core
from vmae.course.checks.core import difference
from vmae.course.progress import solved
from vmae.grid import gather_tokens
from vmae.masking import Mask


def centre(x: torch.Tensor) -> torch.Tensor:
    """Rows with their mean subtracted."""
    return x - x.mean(dim=1, keepdim=True)


CENTRE = Exercise(
    "99.centre",
    centre,
    lambda g: [(torch.randn(3, 4, generator=g),), (torch.randn(2, 7, generator=g),)],
    {
        "the mean is taken over the whole batch: take it row by row, dim=1": lambda x: x - x.mean(),
        "the result is the mean itself: subtract it from x": lambda x: x.mean(
            dim=1, keepdim=True
        ).expand_as(x),
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


earlier_cell: dict = {}
exec(compile("def square(x):\n    return x @ x\n", "an earlier cell", "exec"), earlier_cell)


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
        (lambda x: x.sum(dim=1), r"the shape is \(3,\); expected \(3, 4\)"),
        (lambda x: centre(x).long(), "the dtype is torch.int64"),
        (lambda x: centre(x) / 0, "NaN or infinite"),
        (lambda x: centre(x) * 1.5, r"the shape is correct, but \d+ % of the values are wrong"),
        (lambda x: centre(x).tolist(), "of type list; expected Tensor"),
        (lambda x: x @ x, "it raises RuntimeError.*at `"),
        (lambda x: earlier_cell["square"](x), "it raises RuntimeError.*at `.*earlier_cell"),
        (lambda x: x.long().softmax(1), "it raises NotImplementedError.*for 'Long'"),  # no stub
        (in_place, "it modifies its arguments"),
        (lambda x: centre(x).view(3, 4), "it raises RuntimeError"),  # fits one shape only
    ],
)
def test_wrong_answers_are_named_and_replaced(wrong, message, capsys):
    assert check("99.centre", wrong) is centre
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("✗ 99.centre: not right yet: ")
    assert "continues with the package's `centre`" in printed
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(printed)
    assert not solved()


def picked(x):
    rows = torch.tensor([[9], [9], [9]])
    return gather_tokens(x[..., None], rows)


def masked(x):
    return Mask(torch.tensor([[9]]), torch.tensor([[0]]), torch.tensor([[0]]))


def test_an_error_inside_the_package_is_led_back_to_the_learners_line():
    """The line that raises is the package's; the mistake is in what the learner passed to it."""
    said = core.verdict(CENTRE, picked)
    assert said.startswith("it raises IndexError: ")
    assert "at `return gather_tokens(x[..., None], rows)`; it calls `gather_tokens`" in said
    assert "tokens has shape (3, 4, 1), index has shape (3, 1) and values 9 to 9)" in said
    assert "index_select" not in said, "a line of the package is quoted as the learner's"


def test_an_error_from_what_a_learner_returned_quotes_no_line_of_theirs_or_ours():
    namespace = {"gather_tokens": gather_tokens}
    source = "def run(answer, x):\n    return gather_tokens(x[:1, :, None], answer(x).visible)\n"
    exec(compile(source, f"{core._CHECKS}notebook_99.py", "exec"), namespace)
    said = core.verdict(dataclasses.replace(CENTRE, run=namespace["run"]), masked)
    assert said.startswith("it raises IndexError: ") and " at `" not in said
    assert "in `gather_tokens` (where tokens has shape (1, 4, 1), index has shape (1, 1)" in said
    assert said.endswith("which gets what your code returned or stored")


def test_a_wrong_signature_is_no_line_at_all():
    said = core.verdict(CENTRE, lambda: None)
    assert "takes 0 positional arguments but 1 was given" in said and "at `" not in said


def test_a_skipped_exercise_does_not_block(capsys):
    assert check("99.centre", unsolved) is centre
    assert "· 99.centre: not attempted yet" in capsys.readouterr().out


def test_strict_mode_accepts_nothing_but_a_pass(monkeypatch):
    monkeypatch.setenv("VMAE_STRICT", "1")
    for wrong in (unsolved, lambda x: x):
        with pytest.raises(CheckError, match="99.centre"):
            check("99.centre", wrong)
    assert check("99.centre", centre) is centre
    assert not solved(), "the course's own runs do not count as the learner's progress"


def test_an_unknown_exercise_is_an_error():
    with pytest.raises(KeyError):
        check("99.center", centre)


def test_the_learners_result_is_drawn_first_even_if_wrong():
    drawn = []
    exercise = Exercise("99.x", centre, CENTRE.cases, draw=lambda result, x: drawn.append(result))
    assert core.verdict(exercise, lambda x: x) is not None
    assert len(drawn) == 1 and drawn[0].shape == (3, 4)


def test_functions_that_sample_at_random_are_judged_by_properties():
    def judge(shuffle):
        return None if sorted(shuffle(5)) == list(range(5)) else "it is not a permutation"

    exercise = Exercise("99.shuffle", lambda n: torch.randperm(n).tolist(), judge=judge)
    assert core.verdict(exercise, exercise.reference) is None
    assert core.verdict(exercise, lambda n: [0] * n) == "it is not a permutation"
    assert "raises TypeError" in core.verdict(exercise, lambda: [])


def test_differences_are_put_into_sentences():
    assert difference((1, 2), (1, 2), 0) is None
    assert difference([1, 2], (1, 2), 0) is None
    assert difference((1,), (1, 2), 0) == "got 1 value; expected 2 values"
    assert difference((1, 3), (1, 2), 0) == "value 2: got 3; expected 2"
    assert difference({1, 2}, [1, 2], 0) == "the result is of type set; expected list"
    assert difference(torch.tensor(2.0), 2.0, 1e-4) is None
    scalar = difference(torch.tensor(2.5), torch.tensor(2.0), 1e-4)
    assert scalar == "got 2.5; expected 2"
    scalar = difference(torch.tensor(1.16432), torch.tensor(1.16402), 1e-4)
    assert scalar == "got 1.1643; expected 1.164"
    assert "expected 6.5" in difference(6, 6.5, 1e-4)


def test_every_notebook_with_checks_has_exercises():
    for notebook in checks.notebooks():
        module = __import__(f"vmae.course.checks.notebook_{notebook}", fromlist=["EXERCISES"])
        assert module.EXERCISES
