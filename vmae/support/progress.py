"""The state of a run, and those who show it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol

from tqdm import tqdm


@dataclass
class Record:
    """The state of a run at a step: what is logged, shown and kept.

    memory_gb     the most memory that the process has held so far; on a GPU, of the GPU
    mfu           achieved FLOP/s over the measured matmul rate of the device, where that is known
    """

    step: int
    loss: float
    lr: float
    clips_per_second: float
    seconds: float
    memory_gb: float = 0.0
    mfu: float | None = None


class Progress(Protocol):
    """Something that shows a run: a bar on a terminal, a live curve in a notebook."""

    def start(self, title: str, step: int, steps: int) -> None:
        """Before the first step after `step`, of `steps` in all."""
        ...

    def update(self, step: int, record: Record | None) -> None:
        """After every step; `record` every `log_every` steps."""
        ...

    def close(self) -> None:
        """At the end, also after an error."""
        ...


class Bar(Progress):
    """A progress bar on the terminal."""

    def start(self, title: str, step: int, steps: int) -> None:
        self._bar = tqdm(total=steps, initial=step, desc=title, unit="step", file=sys.stderr)

    def update(self, step: int, record: Record | None) -> None:
        self._bar.update(step - self._bar.n)
        if record:
            shown = {"loss": f"{record.loss:.4f}", "clips/s": f"{record.clips_per_second:.0f}"}
            if record.mfu is not None:
                shown["of peak"] = f"{record.mfu:.0%}"
            self._bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        self._bar.close()


class Silent(Progress):
    """Shows nothing: for tests, and for all processes but the first."""

    def start(self, title: str, step: int, steps: int) -> None: ...

    def update(self, step: int, record: Record | None) -> None: ...

    def close(self) -> None: ...
