"""Every exercise of every lesson: its reference passes, each known mistake is told by its own name."""

from __future__ import annotations

import pytest

from vmae.course.checks import Exercise, exercises, notebooks, verdict

ALL = [exercise for notebook in notebooks() for exercise in exercises(notebook).values()]
MISTAKES = [(exercise, message) for exercise in ALL for message in exercise.mistakes]

pytestmark = pytest.mark.usefixtures("drawn")


@pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.name)
def test_the_reference_passes_and_is_drawn_once(exercise: Exercise, drawn: list[str]):
    assert verdict(exercise, exercise.reference) is None
    assert len(drawn) == 1 and len(drawn[0]) > 20


@pytest.mark.parametrize(
    ("exercise", "message"), MISTAKES, ids=lambda x: x.name if isinstance(x, Exercise) else x[:30]
)
def test_each_mistake_is_told_by_its_own_name(exercise: Exercise, message: str):
    """So no two mistakes of an exercise give the same result."""
    assert verdict(exercise, exercise.mistakes[message]) == message


@pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.name)
def test_an_exercise_left_out_is_not_judged(exercise: Exercise):
    def unsolved(*_):
        raise NotImplementedError

    with pytest.raises(NotImplementedError):
        verdict(exercise, unsolved)
