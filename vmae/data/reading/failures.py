"""Videos that cannot be read: counted, reported once, and too many of them stop a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmae.data.sets.videos import SetError


@dataclass
class Failures:
    """The videos of a run that cannot be read, each counted and reported once.

    total    videos of the split       max_unreadable   share of them at which the run stops
    reasons  of each path that failed
    """

    total: int
    max_unreadable: float
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, failed: Sequence[tuple[str, str]]) -> None:
        """Count [(path, reason)], and warn of the new ones; SetError where they are too many."""
        new = {path: reason for path, reason in failed if path not in self.reasons}
        if not new:
            return
        self.reasons |= new
        count, shown = len(self.reasons), list(new.values())
        text = "\n  ".join([f"{count} of {self.total} videos cannot be read:", *shown[:20]])
        text += f"\n  and {len(shown) - 20} more" if len(shown) > 20 else ""
        if count > self.max_unreadable * self.total:
            raise SetError(
                f"{text}\nThat is more than max_unreadable = {self.max_unreadable:.0%}: fix or remove "
                "them, or raise max_unreadable; `vmae scan` lists them all"
            )
        warnings.warn(f"{text}\nThe run goes on without them.", stacklevel=2)
