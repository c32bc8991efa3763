"""Every exercise of every lesson: its reference passes, each known mistake gets its own message."""

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
def test_each_mistake_gets_its_own_message(exercise: Exercise, message: str):
    """So no two mistakes of one exercise give the same result."""
    assert verdict(exercise, exercise.mistakes[message]) == message


@pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.name)
def test_a_skipped_exercise_is_not_judged(exercise: Exercise):
    def unsolved(*_, **__):
        raise NotImplementedError

    with pytest.raises(NotImplementedError):
        verdict(exercise, unsolved)
