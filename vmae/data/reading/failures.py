"""Unreadable videos: each is counted and reported once, and too many of them stop a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmae.data.sets.videos import SetError
from vmae.support.text import first_lines


@dataclass
class Failures:
    """The unreadable videos of a run, each counted and reported once.

    total            number of videos in the split, or in the set
    max_unreadable   the run stops if a larger share of them is unreadable. One video never stops it,
                     so that small sets can be used too, unless the share is 0
    reasons          why each failed path could not be read
    """

    total: int
    max_unreadable: float
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, failed: Sequence[tuple[str, str]]) -> None:
        """Count failures [(path, reason)] and warn about new ones; SetError if there are too many."""
        new = {path: reason for path, reason in failed if path not in self.reasons}
        if not new:
            return
        self.reasons |= new
        count = len(self.reasons)
        text = f"{count} of {self.total} videos could not be read:"
        text = "\n".join([text, *first_lines(list(new.values()), 20)])
        # Rounded, as 0.29 * 100 is a little less than 29; one video may always be left out, unless none may.
        share = math.floor(round(self.max_unreadable * self.total, 6))
        limit = max(share, math.ceil(self.max_unreadable))
        if count > limit:
            enough = math.ceil(100 * count / self.total) / 100
            leave = f"to leave them out, raise the limit: --set data.max_unreadable={enough:g}"
            raise SetError(
                f"{text}\nThis exceeds max_unreadable = {self.max_unreadable:.0%} (here at most "
                f"{limit}): remove these videos, replace them, or run `vmae normalize`, "
                f"which repairs some{f'; {leave}' * (enough < 1)}. `vmae scan` lists every "
                "unreadable video"
            )
        warnings.warn(f"{text}\nThe run will continue without these videos.", stacklevel=2)
