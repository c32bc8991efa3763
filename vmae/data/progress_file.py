"""Progress told to another program: lines of JSON in the file that VMAE_PROGRESS names."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path


class ProgressFile:
    """One stage of the work in that file, which `make run` follows; without VMAE_PROGRESS, nothing.

    stage          what is done, such as "pre-train"
    step, steps    how many steps are done at the start, and of how many
    folder         where the stage keeps what it needs to resume; None: it would start again
    """

    def __init__(self, stage: str, step: int, steps: int, folder: Path | None = None) -> None:
        self.stage, self.steps = stage, steps
        self._write(step, start=True, folder=folder and str(folder))

    def update(
        self, step: int, loss: float | None = None, clips_per_second: float | None = None
    ) -> None:
        """Write a line: at a loss, at the end, and else once a second."""
        if loss is not None:
            self._write(step, loss=loss, clips_per_second=clips_per_second)
        elif step == self.steps or time.monotonic() - self._written > 1:
            self._write(step)

    def _write(self, step: int, **more: object) -> None:
        self._written = time.monotonic()
        if path := os.environ.get("VMAE_PROGRESS"):
            line = json.dumps({"stage": self.stage, "step": step, "steps": self.steps, **more})
            with (
                suppress(OSError),
                open(path, "a", encoding="utf-8") as file,
            ):  # no run ends of this
                file.write(line + "\n")
