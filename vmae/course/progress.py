"""Which exercises a learner has solved in this checkout."""

from __future__ import annotations

import json
from contextlib import suppress

from vmae import ROOT
from vmae.support.files import write_text

#: Where solved exercises are noted; git ignores it.
PROGRESS = ROOT / ".progress.json"


def solved() -> set[str]:
    """Names of the exercises that were solved in this checkout."""
    with suppress(OSError, ValueError):
        return set(json.loads(PROGRESS.read_text()))
    return set()


def note_solved(name: str) -> None:
    with suppress(OSError, RuntimeError):  # a checkout that cannot be written is no reason to stop
        write_text(PROGRESS, json.dumps(sorted(solved() | {name}), indent=1) + "\n")
