"""The state of a run, and the displays that show it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol

from tqdm import tqdm


@dataclass
class Record:
    """The state of a run at one step, as it is logged, displayed and saved.

    memory_gb     peak memory of the process so far; on a GPU, peak GPU memory
    mfu           achieved FLOP/s over the measured matmul rate of the device, if it is known
    """

    step: int
    loss: float
    lr: float
    clips_per_second: float
    seconds: float
    memory_gb: float = 0.0
    mfu: float | None = None


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
            shown = {"loss": f"{record.loss:.4f}", "clips/s": f"{record.clips_per_second:.0f}"}
            if record.mfu is not None:
                shown["of peak"] = f"{record.mfu:.0%}"
            self._bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        self._bar.close()


class Silent(Progress):
    """Shows nothing: for tests, and for every process except the first."""

    def start(self, title: str, step: int, steps: int) -> None: ...

    def update(self, step: int, record: Record | None) -> None: ...

    def close(self) -> None: ...
