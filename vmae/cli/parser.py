"""The parser of `vmae`: of words that are too many it says what was probably meant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any


class Parser(argparse.ArgumentParser):
    """A parser, also of each command, which shows its own usage for words that are too many."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; but unknown words are an error here, not later in the parser above."""
        found, extra = super().parse_known_args(args, namespace)
        if extra:
            words = sys.argv[1:] if args is None else list(args)
            self.error(f"unrecognized arguments: {' '.join(extra)}{_hint(words, extra)}")
        return found, extra


def _hint(words: Sequence[str], extra: Sequence[str]) -> str:
    """What the user probably meant by words that the shell took apart; empty if an option is unknown."""
    if extra[0].startswith("-"):
        return ""
    at = len(words) - 1 - list(reversed(words)).index(extra[0])
    one = [*words[max(0, at - 1) : at], *takewhile(extra.__contains__, words[at:])]
    if one[0].endswith("=") or extra[0].startswith("="):
        return f" (no spaces around =: {''.join(one)})"
    ends = range(len(words) + 1)
    runs = (" ".join(words[i:j]) for j in ends for i in range(j - 1))
    path = next((run for run in runs if Path(run).exists()), " ".join(one))
    return f' (a path with spaces needs quotes: "{path}")'


def at_least(least: int) -> Callable[[str], int]:
    """A type of arguments: whole numbers from `least` on."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is too small: it must be at least {least}")
        return value

    number.__name__ = "int"  # the word in the message of argparse about other text
    return number
