"""Search a learning rate: some rates first, then beyond them for as long as the best is at an edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: How many rates beyond the first ones a search tries at most.
BEYOND = 2

#: What a rate scored; None: not measured yet.
Score = Callable[[float], float | None]


def best(rates: Sequence[float], score: Score) -> float | None:
    """The rate with the highest score; None if one is not measured yet. Of equals, the lowest."""
    scores = {lr: found for lr in rates if (found := score(lr)) is not None}
    return max(scores, key=lambda lr: (scores[lr], -lr)) if len(scores) == len(rates) else None


def tried(first: Sequence[float], score: Score) -> tuple[float, ...]:
    """The rates of a search, in ascending order, as far as its scores are known.

    A best rate at an edge may have a better one beyond it, so the search goes on there: twice the
    highest, or half the lowest, `BEYOND` times at most. Without this rule, a setting that needs
    another rate than the others would be compared at a rate that does not suit it.
    """
    rates = sorted(first)
    for _ in range(BEYOND):
        found = best(rates, score)
        if found == rates[-1]:
            rates.append(2 * rates[-1])
        elif found == rates[0]:
            rates.insert(0, rates[0] / 2)
        else:
            break
    return tuple(rates)
