"""A film as a set: cut into shots and clips by code; the label is the direction of time.

Cuts are found where the picture changes at once. Credits and near-static clips are left out. Each
clip is written forward or backward; training and test clips come from different shots.
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
from vmae.data.build import begin_set, finish_set, run_parallel
from vmae.data.clips import open_video
from vmae.data.encode import write_video

#: The film that ships with the course.
FILM = ROOT / "data" / "big_buck_bunny_192x108.mp4"
CLASSES = ("forward", "backward")


@dataclass(frozen=True)
class FilmSpec:
    """How a film is cut.

    frames    of a clip            overlap   of neighbouring clips of a shot, in frames
    cut       mean change of a frame, in grey levels of 255, that may begin a new shot
    static    mean change between frames below which a clip counts as near-static
    credits   share of the film, at its end, that is left out
    test      every so many shots, one is for testing
    """

    frames: int = 16
    overlap: int = 0
    cut: float = 15.0
    static: float = 0.5
    credits: float = 0.2
    test: int = 5
    most_clips: int = 0
    seed: int = 0


def shot_bounds(film: str | Path, cut: float) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Shots of a film as (first, end) frame numbers, and each frame's change from the one before.

    The change is the mean absolute difference of every eighth pixel's luma, 0 to 255.
    """
    changes: list[float] = []
    before: np.ndarray | None = None
    with av.open(str(film)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            luma = frame.to_ndarray()[: frame.height : 8, ::8].astype(
                np.int16
            )  # yuv: luma comes first
            changes.append(0.0 if before is None else float(np.abs(luma - before).mean()))
            before = luma
    change = np.array(changes)
    # Fast motion changes many frames in a row; a cut stands out from the frames on both its sides.
    around = np.maximum(np.roll(change, 1), np.roll(change, -1))
    starts = [0, *np.flatnonzero((change > cut) & (change > 2 * around)).tolist(), len(change)]
    return [(a, b) for a, b in pairwise(starts) if b > a], change


def choose_clips(spec: FilmSpec, film: Path) -> list[tuple[str, int, int]]:
    """(split, first frame, label) of every clip; split by shot, labels alternate."""
    shots, change = shot_bounds(film, spec.cut)
    end = int(len(change) * (1 - spec.credits))
    clips: list[tuple[str, int, int]] = []
    for number, (first, last) in enumerate(shots):
        split = "test" if number % spec.test == spec.test - 1 else "train"
        for start in range(first, min(last, end) - spec.frames + 1, spec.frames - spec.overlap):
            if change[start + 1 : start + spec.frames].mean() >= spec.static:
                clips.append((split, start, len(clips) % 2))
    if spec.most_clips:
        clips = clips[: spec.most_clips]
    return clips


def render_film(
    folder: str | Path,
    film: str | Path,
    spec: FilmSpec,
    workers: int = 2,
    progress: Callable[..., Any] = tqdm,
) -> Path:
    """Cut `film` into a set below `folder`, as `render_set` does for motions: resumable, complete or not."""
    folder, film = Path(folder), Path(film)
    if not begin_set(folder, asdict(spec)):
        return folder
    clips = choose_clips(spec, film)
    todo = [clip for clip in clips if not (folder / _name(*clip)).exists()]
    groups = [todo[i : i + 16] for i in range(0, len(todo), 16)]  # one opening of the film for each
    done = run_parallel(partial(_write_clips, folder, film, spec.frames), groups, workers, chunk=1)
    for _ in progress(done, total=len(groups), desc=f"cut {film.name}"):
        pass
    lists: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for clip in clips:
        lists[clip[0]].append((_name(*clip), clip[2]))
    finish_set(folder, asdict(spec), CLASSES, lists)
    return folder


def _name(split: str, start: int, label: int) -> str:
    return f"videos/{split}/{start:06d}_{CLASSES[label]}.mp4"


def _write_clips(folder: Path, film: Path, frames: int, clips: list[tuple[str, int, int]]) -> None:
    """Write neighbouring clips from one opened film."""
    reader = open_video(film)
    for split, start, label in clips:
        pixels = reader.get_batch(np.arange(start, start + frames)).asnumpy()
        write_video(folder / _name(split, start, label), pixels[::-1] if label else pixels, fps=24)
