"""Which exercises a learner has solved in this checkout."""

from __future__ import annotations

import json
from contextlib import suppress

from vmae import ROOT
from vmae.support.files import write_text

#: The file that records solved exercises; ignored by git.
PROGRESS = ROOT / ".progress.json"


def solved() -> set[str]:
    """Names of the exercises solved in this checkout."""
    with suppress(OSError, ValueError):
        return set(json.loads(PROGRESS.read_text()))
    return set()


def note_solved(name: str) -> None:
    """Record that exercise `name` is solved."""
    with suppress(OSError, RuntimeError):  # a read-only checkout is no reason to stop
        write_text(PROGRESS, json.dumps(sorted(solved() | {name}), indent=1) + "\n")
