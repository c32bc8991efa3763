"""Search a learning rate: some rates first, then higher ones for as long as the highest is the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: How often the highest rate is doubled at most.
DOUBLINGS = 2

#: What a rate scored; None: not measured yet.
Score = Callable[[float], float | None]


def best(rates: Sequence[float], score: Score) -> float | None:
    """The rate with the highest score; None if one is not measured yet. Of equals, the lowest."""
    scores = {lr: found for lr in rates if (found := score(lr)) is not None}
    return max(scores, key=lambda lr: (scores[lr], -lr)) if len(scores) == len(rates) else None


def tried(first: Sequence[float], score: Score) -> tuple[float, ...]:
    """The rates of a search, as far as its scores are known.

    A best rate at the upper edge may have a better one beyond it, so the search goes beyond: the
    highest rate is doubled for as long as it is the best, `DOUBLINGS` times at most. Without this
    rule, a setting that needs a high rate would be compared at a rate that is too low.
    """
    rates = list(first)
    while len(rates) < len(first) + DOUBLINGS and best(rates, score) == rates[-1]:
        rates.append(2 * rates[-1])
    return tuple(rates)
