"""A film as a labelled set: shots are detected and cut into clips; the label is the arrow of time or speed.

Cuts are detected as abrupt changes of the picture. Credits and near-static clips are dropped. Each
clip is written forward or backward, or at normal or double speed. Training and test clips come from
different shots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from vmae import ROOT
from vmae.data.reading.reader import open_video
from vmae.data.reading.workers import rendering_workers, run_parallel
from vmae.data.writing.encode import write_video
from vmae.data.writing.folder import begin_set, finish_set
from vmae.support.files import only_writer

#: The film that ships with the course.
FILM = ROOT / "data" / "big_buck_bunny_192x108.mp4"
#: The kinds of label, and the classes of each.
LABELS = {"arrow": ("forward", "backward"), "speed": ("normal", "double")}


@dataclass(frozen=True)
class FilmSpec:
    """How a film is cut.

    frames    frames per clip
    overlap   frames shared by neighbouring clips of a shot
    cut       mean change between frames, in grey levels of 255, above which a new shot may begin
    static    a clip whose mean change between frames is lower counts as near-static
    credits   share of the film dropped at its end
    test      one shot in this many is used for testing
    label     "arrow": a clip is played forward or backward. "speed": at normal or double speed;
              both are taken from stretches of 2·frames, each of which gives one clip of one class
    """

    frames: int = 16
    overlap: int = 0
    cut: float = 15.0
    static: float = 0.5
    credits: float = 0.2
    test: int = 5
    most_clips: int = 0
    seed: int = 0
    label: str = "arrow"

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"label is {self.label!r}; it must be one of {', '.join(LABELS)}")
        if self.overlap >= self.stretch:
            raise ValueError(
                f"overlap is {self.overlap} frames; it must be less than {self.stretch}"
            )

    @property
    def stretch(self) -> int:
        """Number of film frames from which a clip of either class is taken."""
        return 2 * self.frames if self.label == "speed" else self.frames

    def described(self) -> dict[str, Any]:
        """The contents of set.json. "arrow" is omitted, as in sets made before "speed" existed."""
        values = asdict(self)
        return (
            values if self.label != "arrow" else {k: v for k, v in values.items() if k != "label"}
        )

    def chosen(self, start: int, label: int) -> np.ndarray:
        """Indices (frames,) of the film frames that form a clip, in playing order."""
        if self.label == "speed":
            # A normal clip is the middle of the stretch, so neither class is earlier in its shot.
            first, step = (start, 2) if label else (start + self.frames // 2, 1)
            return first + step * np.arange(self.frames)
        return start + np.arange(self.frames)[:: -1 if label else 1]

    def name(self, split: str, start: int, label: int) -> str:
        """A clip's path in the set."""
        return f"videos/{split}/{start:06d}_{LABELS[self.label][label]}.mp4"


def shot_bounds(film: str | Path, cut: float) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The shots of a film as (first, end) frame indices, and the change from frame to frame.

    The change is the mean absolute difference in luma, 0 to 255, over every eighth pixel. Raises
    FileNotFoundError, with the way out, if there is no film: an installed package has none.
    """
    if not Path(film).exists():
        raise FileNotFoundError(
            f"{film}: there is no such file. The film and the photos are in the course's repository, not in "
            "the installed package: run this in a checkout (`vmae render motion` needs neither)"
        )
    changes: list[float] = []
    before: np.ndarray | None = None
    with av.open(str(film)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yuv = frame.to_ndarray()  # the luma plane comes first
            luma = yuv[: frame.height : 8, ::8].astype(np.int16)
            changes.append(0.0 if before is None else float(np.abs(luma - before).mean()))
            before = luma
    change = np.array(changes)
    # Fast motion changes many frames in a row; a cut stands out from the frames on both sides.
    around = np.maximum(np.roll(change, 1), np.roll(change, -1))
    starts = [0, *np.flatnonzero((change > cut) & (change > 2 * around)).tolist(), len(change)]
    return [(a, b) for a, b in pairwise(starts) if b > a], change


def choose_clips(spec: FilmSpec, film: Path) -> list[tuple[str, int, int]]:
    """(split, first frame, label) of every clip. Splits are by shot; labels alternate."""
    shots, change = shot_bounds(film, spec.cut)
    end = int(len(change) * (1 - spec.credits))
    clips: list[tuple[str, int, int]] = []
    counts = {"train": 0, "test": 0}
    for number, (first, last) in enumerate(shots):
        split = "test" if number % spec.test == spec.test - 1 else "train"
        last_start = min(last, end) - spec.stretch
        for start in range(first, last_start + 1, spec.stretch - spec.overlap):
            if change[start + 1 : start + spec.stretch].mean() >= spec.static:
                # "arrow" has always alternated over both splits together; its set must not change.
                turn = len(clips) if spec.label == "arrow" else counts[split]
                clips.append((split, start, turn % 2))
                counts[split] += 1
    if spec.most_clips:
        clips = clips[: spec.most_clips]
    return clips


def render_film(
    folder: str | Path,
    film: str | Path,
    spec: FilmSpec,
    workers: int | None = None,
    progress: Callable[..., Any] = tqdm,
) -> Path:
    """Cut `film` into a set in `folder`. Like `render_set`, it resumes after an interruption.

    Raises FileExistsError if the folder holds another set, DiskError if the set does not fit,
    BusyError if another process is writing to the folder.
    """
    folder, film = Path(folder), Path(film)
    if not begin_set(folder, spec.described()):
        return folder
    with only_writer(folder):
        clips = choose_clips(spec, film)
        todo = [clip for clip in clips if not (folder / spec.name(*clip)).exists()]
        groups = [todo[i : i + 16] for i in range(0, len(todo), 16)]  # each opens the film once
        work = partial(_write_clips, folder, film, spec)
        done = run_parallel(work, groups, rendering_workers(workers), chunk=1)
        for _ in progress(done, total=len(groups), desc=f"cut {film.name}"):
            pass
        lists: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
        for clip in clips:
            lists[clip[0]].append((spec.name(*clip), clip[2]))
        finish_set(folder, spec.described(), LABELS[spec.label], lists)
    return folder


def _write_clips(
    folder: Path, film: Path, spec: FilmSpec, clips: list[tuple[str, int, int]]
) -> None:
    """Write neighbouring clips while the film is open."""
    reader = open_video(film)
    for split, start, label in clips:
        numbers = spec.chosen(start, label)
        pixels = reader.frames(np.sort(numbers))  # in ascending order, which avoids seeking
        played = pixels[np.argsort(np.argsort(numbers))]
        write_video(folder / spec.name(split, start, label), played, fps=24)
