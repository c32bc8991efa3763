"""The state of a run, the displays that show it, and a file through which another program follows it."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from vmae.support.text import rate


@dataclass
class Record:
    """The state of a run at one step, as it is logged, displayed and saved.

    memory_gb     peak memory of the process so far; on a GPU, peak GPU memory
    mfu           achieved FLOP/s over the measured matmul rate of the device, if it is known
    skipped       steps so far that changed nothing, because a gradient was NaN or infinite
    """

    step: int
    loss: float
    lr: float
    clips_per_second: float
    seconds: float
    memory_gb: float = 0.0
    mfu: float | None = None
    skipped: int = 0


class Progress(Protocol):
    """A display of a run: a bar in a terminal, a live curve in a notebook."""

    def start(self, title: str, step: int, steps: int) -> None:
        """Called once, before step `step + 1` of `steps`."""
        ...

    def update(self, step: int, record: Record | None) -> None:
        """Called after every step; `record` is given every `log_every` steps."""
        ...

    def close(self) -> None:
        """Called at the end, and after an error."""
        ...


class Bar(Progress):
    """A progress bar in the terminal."""

    def start(self, title: str, step: int, steps: int) -> None:
        self._bar = tqdm(total=steps, initial=step, desc=title, unit="step", file=sys.stderr)

    def update(self, step: int, record: Record | None) -> None:
        self._bar.update(step - self._bar.n)
        if record:
            shown = {"loss": f"{record.loss:.4f}", "clips/s": rate(record.clips_per_second)}
            if record.mfu is not None:
                shown["of peak"] = f"{record.mfu:.0%}"
            if record.skipped:
                shown["skipped"] = str(record.skipped)
            self._bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        self._bar.close()


class Silent(Progress):
    """Shows nothing: for tests, and for every process except the first."""

    def start(self, title: str, step: int, steps: int) -> None: ...

    def update(self, step: int, record: Record | None) -> None: ...

    def close(self) -> None: ...


class ProgressFile:
    """One stage of the work as lines of JSON in the file that VMAE_PROGRESS names; without it, none.

    `make run` follows them: every training run and `viz.track` write here.

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
        """Write a line: at a loss, at the end, and otherwise once a second."""
        if loss is not None:
            self._write(step, loss=loss, clips_per_second=clips_per_second)
        elif step == self.steps or time.monotonic() - self._written > 1:
            self._write(step)

    def _write(self, step: int, **more: object) -> None:
        self._written = time.monotonic()
        if path := os.environ.get("VMAE_PROGRESS"):
            line = json.dumps({"stage": self.stage, "step": step, "steps": self.steps, **more})
            # A run is worth more than the display of it.
            with suppress(OSError), open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
