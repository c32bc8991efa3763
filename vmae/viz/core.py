"""Figures and players for notebooks: readable on light and dark pages, each with alt text."""

from __future__ import annotations

import base64
import io
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from einops import rearrange
from IPython.display import HTML, display
from matplotlib import ticker
from matplotlib.figure import Figure

from vmae.data.encode import write_video
from vmae.train.runtime import Record

#: Colours that colour-blind readers tell apart (Okabe and Ito), in the order of use.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
#: Ink that has enough contrast on white and on a dark theme's background alike.
INK = "#7a7a7a"

_STYLE: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
    "font.size": 10,
    "figure.dpi": 110,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the course's style: transparent, grey ink, the palette."""
    with plt.rc_context(_STYLE):
        yield


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _bundle(figure: Figure, alt: str) -> tuple[dict[str, str], dict[str, Any]]:
    """A figure as a Jupyter message: the picture, and its alt text as text and as metadata."""
    data = {"image/png": base64.b64encode(_png(figure)).decode(), "text/plain": alt}
    return data, {"image/png": {"alt": alt}}


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook with alt text, and close it."""
    data, metadata = _bundle(figure, alt)
    display(data, metadata=metadata, raw=True)


def to_frames(clip: torch.Tensor | np.ndarray) -> np.ndarray:
    """A clip (C, T, H, W), uint8 or float in [0, 1], as frames (T, H, W, 3) uint8."""
    clip = torch.as_tensor(clip)
    if clip.dtype != torch.uint8:
        clip = (clip.clamp(0, 1) * 255).round().to(torch.uint8)
    frames = rearrange(clip, "c t h w -> t h w c")
    return frames.expand(*frames.shape[:3], 3).cpu().numpy()


def film_strips(
    clips: Mapping[str, torch.Tensor] | Sequence[tuple[str, torch.Tensor]],
    alt: str,
    frames: int = 8,
    grid: int | None = None,
) -> None:
    """Show clips (C, T, H, W) as rows of frames, one labelled row a clip.

    At most `frames` frames, evenly spaced; `grid` draws patch borders every so many pixels.
    """
    items = list(clips.items() if isinstance(clips, Mapping) else clips)
    pictures = [to_frames(clip) for _, clip in items]
    steps = np.unique(
        np.linspace(0, len(pictures[0]) - 1, min(frames, len(pictures[0]))).round().astype(int)
    )
    size = min(1.15, 9.5 / len(steps))
    with style():
        figure, axes = plt.subplots(
            len(items),
            len(steps),
            figsize=(size * len(steps), size * 1.04 * len(items)),
            squeeze=False,
        )
        for row, (name, _) in enumerate(items):
            for column, step in enumerate(steps):
                axis = axes[row, column]
                axis.imshow(pictures[row][step], interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(False)
                for spine in axis.spines.values():
                    spine.set_visible(False)
                if grid:
                    height, width = pictures[row].shape[1:3]
                    for place in range(grid, max(height, width), grid):
                        axis.axhline(place - 0.5, color=INK, lw=0.4, alpha=0.6)
                        axis.axvline(place - 0.5, color=INK, lw=0.4, alpha=0.6)
                if row == 0:
                    axis.set_title(f"t={step}", fontsize=8)
            axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        figure.subplots_adjust(wspace=0.06, hspace=0.06)
    show(figure, alt)


def player(clips: Mapping[str, torch.Tensor], alt: str, fps: int = 8, height: int = 160) -> None:
    """Play clips (C, T, H, W) side by side, in step, in a loop, with controls.

    The video is H.264 inside the notebook, so it needs no file and no network.
    """
    gap = 4
    rows = []
    for clip in clips.values():
        frames = to_frames(clip)
        factor = max(1, round(height / frames.shape[1]))
        rows.append(frames.repeat(factor, axis=1).repeat(factor, axis=2))
    tall = max(frames.shape[1] for frames in rows)
    padded = [
        np.pad(frames, ((0, 0), (0, tall - frames.shape[1]), (0, gap), (0, 0)), constant_values=128)
        for frames in rows
    ]
    picture = np.concatenate(padded, axis=2)[:, :, :-gap]
    picture = np.pad(
        picture, ((0, 0), (0, tall % 2), (0, picture.shape[2] % 2), (0, 0)), mode="edge"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "player.mp4"
        write_video(path, np.concatenate([picture] * max(1, 16 // len(picture))), fps=fps)
        data = base64.b64encode(path.read_bytes()).decode()
    names = "".join(
        f'<span style="flex:{frames.shape[2]};text-align:center">{escape(name)}</span>'
        for name, frames in zip(clips, rows, strict=True)
    )
    display(
        HTML(
            f'<div style="width:{picture.shape[2]}px;max-width:100%">'
            f'<div style="display:flex;font-size:90%">{names}</div>'
            f'<video controls autoplay loop muted playsinline width="100%" aria-label="{escape(alt)}" '
            f'title="{escape(alt)}" src="data:video/mp4;base64,{data}"></video></div>'
        )
    )


def curves(records: Mapping[str, Sequence[Record]], alt: str, ylabel: str = "loss") -> None:
    """Loss over steps, one line a run."""
    show(_curve_figure(records, ylabel), alt)


def _curve_figure(records: Mapping[str, Sequence[Record]], ylabel: str) -> Figure:
    with style():
        figure, axis = plt.subplots(figsize=(7, 2.6))
        for name, run in records.items():
            mark = "o" if len(run) < 3 else None  # a line of one point would not be seen
            axis.plot([r.step for r in run], [r.loss for r in run], label=name, lw=1.5, marker=mark)
        axis.set_xlabel("step")
        axis.set_ylabel(ylabel)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%.3g"))
        axis.yaxis.set_minor_locator(ticker.NullLocator())
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        if len(records) > 1:
            axis.legend()
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], alt: str) -> None:
    """A confusion matrix (true by row, predicted by column), in percent of the row."""
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.2 + 0.48 * len(classes)
    with style():
        figure, axis = plt.subplots(figsize=(side + 1, side))
        axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.5:
                ink = "white" if value > 55 else "#333333"
                axis.text(
                    column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink
                )
        axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axis.set_yticks(range(len(classes)), classes)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        axis.grid(False)
    show(figure, alt)


def bars(values: Mapping[str, Sequence[float]], alt: str, chance: float | None = None) -> None:
    """Accuracy of each row in percent: the mean as a bar, every run as a dot; chance as a line."""
    with style():
        figure, axis = plt.subplots(figsize=(7, 0.7 + 0.42 * len(values)))
        for row, runs in enumerate(values.values()):
            axis.barh(row, np.mean(runs), color=PALETTE[0], alpha=0.75, height=0.62)
            axis.plot(runs, [row] * len(runs), "o", color=PALETTE[1], ms=4, mec=INK, mew=0.5)
            axis.text(
                float(np.max(runs)) + 1.5,
                row,
                f"{np.mean(runs):.1f}",
                va="center",
                fontsize=9,
            )
        if chance is not None:
            axis.axvline(chance, color=INK, ls="--", lw=1)
            axis.text(chance, -0.6, "chance", fontsize=8, ha="center", va="bottom")
        axis.set_yticks(range(len(values)), list(values))
        axis.invert_yaxis()
        axis.set_xlim(0, 112)
        axis.set_xticks(range(0, 101, 20))
        axis.set_xlabel("test accuracy, %")
        axis.grid(axis="y", visible=False)
    show(figure, alt)


def table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> None:
    """Show rows of one shape as a table; also as text, for readers without HTML."""
    heads = list(rows[0])
    cells = [[_cell(row[head]) for head in heads] for row in rows]
    widths = [max(len(head), *(len(row[i]) for row in cells)) for i, head in enumerate(heads)]
    lines = [[head.ljust(w) for head, w in zip(heads, widths, strict=True)]]
    lines += [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in cells]
    text = "\n".join("  ".join(line).rstrip() for line in lines)
    html = "".join(f'<th scope="col" style="text-align:left">{escape(head)}</th>' for head in heads)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row)
        + "</tr>"
        for row in cells
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    display(
        {
            "text/html": f"<table>{title}<thead><tr>{html}</tr></thead><tbody>{body}</tbody></table>",
            "text/plain": text,
        },
        raw=True,
    )


def _cell(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def track(iterable: Iterable[Any], total: int, desc: str = "") -> Iterator[Any]:
    """Iterate with a progress bar in a notebook; called as tqdm is."""

    def text(done: int) -> HTML:
        left = f", {(time.monotonic() - start) / done * (total - done):.0f} s to go" if done else ""
        end = f", {time.monotonic() - start:.0f} s" if done == total else left
        return HTML(
            f'<progress value="{done}" max="{total}" style="width:16em" aria-label="{escape(desc)}">'
            f"</progress> {escape(desc)}: {done:,} of {total:,}{end}"
        )

    start = shown = time.monotonic()
    bar = display(text(0), display_id=True)
    for done, item in enumerate(iterable, 1):
        yield item
        if time.monotonic() - shown > 0.5 or done == total:
            shown = time.monotonic()
            bar.update(text(done))


class LiveCurve:
    """A run's progress in a notebook: a bar with the time left, and the loss curve as it grows."""

    def __init__(self, alt: str = "Training loss over steps.", ylabel: str = "loss") -> None:
        self.alt, self.ylabel = alt, ylabel

    def start(self, title: str, step: int, steps: int) -> None:
        """Put up an empty bar and curve."""
        self._title, self._steps, self._first = title, steps, step
        self._records: list[Record] = []
        self._bar = display(HTML(self._text(step, None)), display_id=True)
        self._figure: Any = None
        self._shown = 0.0

    def _text(self, step: int, record: Record | None) -> str:
        text = f"{self._title}: step {step} of {self._steps}"
        if record:
            done = max(1, step - self._first)
            left = record.seconds / max(step, done) * (self._steps - step)
            text += (
                f" · loss {record.loss:.4f} · {record.clips_per_second:,.0f} clips/s · "
                f"{record.seconds:.0f} s gone, {left:.0f} s to go"
            )
        return (
            f'<progress value="{step}" max="{self._steps}" style="width:16em" '
            f'aria-label="{escape(self._title)}"></progress> {escape(text)}'
        )

    def update(self, step: int, record: Record | None) -> None:
        """Move the bar at every record; redraw the curve every five seconds and at the end."""
        if record is None:
            return
        self._records.append(record)
        self._bar.update(HTML(self._text(step, record)))
        if record.seconds - self._shown < 5 and step != self._steps:
            return
        self._shown = record.seconds
        data, metadata = _bundle(_curve_figure({self._title: self._records}, self.ylabel), self.alt)
        if self._figure is None:
            self._figure = display(data, metadata=metadata, raw=True, display_id=True)
        else:
            self._figure.update(data, metadata=metadata, raw=True)

    def close(self) -> None:
        """Leave the last state as it is."""
