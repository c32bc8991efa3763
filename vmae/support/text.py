"""Text of messages: long lists cut short, and tables in columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def few(names: Sequence[str]) -> str:
    """Names in one line: the first six, and how many more there are."""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(map(repr, names[:6])) + more


def rate(number: float) -> str:
    """A rate such as clips per second: whole, but below 10 with two significant digits."""
    return f"{number:.2g}" if number < 9.95 else f"{number:,.0f}"


def first_lines(lines: Sequence[str], most: int, rest: str = "") -> list[str]:
    """The first `most` lines, indented, and how many more there are; `rest` says where to find those."""
    more = [f"and {len(lines) - most} more{rest}"] if len(lines) > most else []
    return [f"  {line}" for line in (*lines[:most], *more)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines, with columns as wide as their longest cell on a terminal."""
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell + " " * (width - columns(cell)) for cell, width in zip(row, widths, strict=True)
        )
        for row in rows
    )
    return [line.rstrip() for line in lines]


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: Chinese characters two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
