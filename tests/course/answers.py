"""A lesson's checks judged by answers that a learner might write: tables of them, and what must be said.

A table maps the name of each exercise to its answers; a wrong one comes with words of the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from vmae.course.checks import Exercise, verdict

Answer = Callable[..., Any]


def right_answers(table: Mapping[str, Sequence[Answer]]) -> pytest.MarkDecorator:
    """One case per answer, for a test of (name, answer)."""
    cases = [(name, answer) for name, answers in table.items() for answer in answers]
    return pytest.mark.parametrize(("name", "answer"), cases)


def wrong_answers(table: Mapping[str, Sequence[tuple[Answer, str]]]) -> pytest.MarkDecorator:
    """One case per answer, for a test of (name, answer, words)."""
    cases = [(name, *case) for name, answers in table.items() for case in answers]
    return pytest.mark.parametrize(("name", "answer", "words"), cases)


def assert_rejected(exercise: Exercise, answer: Answer, words: str) -> None:
    """The check finds the answer wrong, and its message matches the pattern `words`."""
    found = verdict(exercise, answer)
    assert found is not None and re.search(words, found), found
