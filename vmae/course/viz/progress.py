"""Progress of running work in a notebook: a bar, a live loss curve."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from IPython.display import HTML, display

from vmae.figures.charts import curve_figure
from vmae.figures.figure import bundle
from vmae.support.progress import ProgressFile, Record
from vmae.support.text import rate


def _bar(done: int, total: int, name: str, text: str) -> HTML:
    """A progress bar, which screen readers call by its name, and a text beside it."""
    return HTML(
        f'<progress value="{done}" max="{total}" style="width:16em" aria-label="{escape(name)}">'
        f"</progress> {escape(text)}"
    )


def track(iterable: Iterable[Any], total: int, desc: str = "") -> Iterator[Any]:
    """Iterate with a progress bar in a notebook, and in VMAE_PROGRESS; called like tqdm."""

    def text(done: int) -> HTML:
        left = f", {(time.monotonic() - start) / done * (total - done):.0f} s left" if done else ""
        end = f", {time.monotonic() - start:.0f} s" if done == total else left
        return _bar(done, total, desc, f"{desc}: {done:,} of {total:,}{end}")

    start = shown = time.monotonic()
    bar = display(text(0), display_id=True)  # None in a plain script
    file = ProgressFile(desc, 0, total)
    for done, item in enumerate(iterable, 1):
        yield item
        file.update(done)
        if bar is not None and (time.monotonic() - shown > 0.5 or done == total):
            shown = time.monotonic()
            bar.update(text(done))


class LiveCurve:
    """A run's progress in a notebook: a bar with the time left, and a growing loss curve."""

    def __init__(self, alt: str = "Training loss over steps.") -> None:
        self.alt = alt

    def start(self, title: str, step: int, steps: int) -> None:
        """Show an empty bar; the curve follows with the first record."""
        self._title, self._steps, self._first = title, steps, step
        self._records: list[Record] = []
        self._bar = display(self._shown_bar(step, None), display_id=True)
        self._figure: Any = None
        self._drawn_at = 0.0

    def _shown_bar(self, step: int, record: Record | None) -> HTML:
        text = f"{self._title}: step {step} of {self._steps}"
        if record:
            done = max(1, step - self._first)
            left = record.seconds / max(step, done) * (self._steps - step)
            text += (
                f" · loss {record.loss:.4f} · {rate(record.clips_per_second)} clips/s · "
                f"{record.seconds:.0f} s elapsed, {left:.0f} s left"
            )
        return _bar(step, self._steps, self._title, text)

    def update(self, step: int, record: Record | None) -> None:
        """Advance the bar with every record; redraw the curve every five seconds and at the end."""
        if record is None or self._bar is None:  # None in a plain script
            return
        self._records.append(record)
        self._bar.update(self._shown_bar(step, record))
        if record.seconds - self._drawn_at < 5 and step != self._steps:
            return
        self._drawn_at = record.seconds
        data, metadata = bundle(curve_figure({self._title: self._records}, "loss"), self.alt)
        if self._figure is None:
            self._figure = display(data, metadata=metadata, raw=True, display_id=True)
        else:
            self._figure.update(data, metadata=metadata, raw=True)

    def close(self) -> None:
        """Keep the final state on screen."""
