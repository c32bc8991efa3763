"""The rendered motion set: mp4 files whose label is in the motion and not in any single frame.

There are three levels, in order of difficulty:

digits     two coloured handwritten digits on a tile that wraps around (a torus); the whole tile
           drifts in one of eight directions
textures   the same eight directions, but a photo or a frame of the film drifts
scenes     18 motions of camera and object, in reversed pairs: cut-outs in front of photos and film
           frames, with a drifting distractor, flickering light, sensor noise and coarser compression

The initial phase is uniform, so single frames have the same distribution in both classes of a pair;
only the order of the frames distinguishes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vmae.course.making.scenes import scene, texture
from vmae.data.reading.workers import rendering_workers, run_parallel
from vmae.data.sets.motion_specs import MotionSpec
from vmae.data.writing.encode import write_video
from vmae.data.writing.folder import begin_set, finish_set
from vmae.support.files import only_writer, require_space

#: Bytes on disk of a 64x64 frame, at the least favourable size; used only to check free space.
BYTES_PER_FRAME = {"digits": 500, "textures": 500, "scenes": 2500}


@lru_cache(maxsize=1)
def _digits() -> np.ndarray:
    """(1797, 8, 8) handwritten digits in [0, 1], from scikit-learn."""
    from sklearn.datasets import load_digits

    return load_digits().images.astype(np.float32) / 16


def _upscale(image: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge (H, W) by an integer factor, bilinearly."""
    places = (np.arange(len(image) * factor) + 0.5) / factor - 0.5
    low = np.clip(np.floor(places).astype(int), 0, len(image) - 1)
    high = np.clip(low + 1, 0, len(image) - 1)
    share = np.clip(places - low, 0, 1).astype(image.dtype)
    rows = image[low] * (1 - share[:, None]) + image[high] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, high] * share


def render(spec: MotionSpec, split: str, index: int) -> tuple[np.ndarray, int]:
    """Video `index` of a split, (T, H, W, 3) uint8, and its label, determined by the arguments.

    Labels cycle through the classes, so every prefix of a split is balanced.
    """
    rng = np.random.default_rng((spec.seed, ("train", "test").index(split), index))
    label = index % len(spec.classes)
    if spec.level == "scenes":
        return scene(rng, split, label, spec.frames, spec.size), label
    angle = 2 * np.pi * label / len(spec.classes)
    velocity = spec.speed * np.array([np.cos(angle), np.sin(angle)])  # x, y in frame widths
    if spec.level == "textures":
        return texture(rng, split, 2 * velocity, spec.frames, spec.size), label
    return _drifting_digits(rng, split, velocity, spec.frames, spec.size), label


def _drifting_digits(
    rng: np.random.Generator, split: str, velocity: np.ndarray, frames: int, size: int
) -> np.ndarray:
    """Two digits on a drifting tile: (T, H, W, 3) uint8."""
    digits = _digits()
    seen = len(digits) * 4 // 5
    pool = range(seen) if split == "train" else range(seen, len(digits))
    tile = np.zeros((size, size, 3), np.float32)
    side = size // 16 * 8
    for _ in range(2):
        glyph = _upscale(digits[rng.choice(pool)], side // 8)
        colour = rng.uniform(0.3, 1.0, 3).astype(np.float32)
        colour[rng.integers(3)] = 1.0
        picture = np.zeros_like(tile)
        picture[:side, :side] = glyph[..., None] * colour
        row, column = rng.integers(size, size=2)
        tile = np.maximum(tile, np.roll(picture, (row, column), axis=(0, 1)))
    tile = (tile * 255).round().astype(np.uint8)
    step = size * velocity[::-1]
    offsets = np.rint(np.arange(frames)[:, None] * step + rng.uniform(0, size, 2)).astype(int)
    return np.stack([np.roll(tile, tuple(offset), axis=(0, 1)) for offset in offsets])


def render_set(
    folder: str | Path,
    spec: MotionSpec,
    workers: int | None = None,
    progress: Callable[..., Any] = tqdm,
) -> Path:
    """Render a whole set into `folder`: videos/, train.csv, test.csv, classes.txt, set.json.

    workers   at most as many processes; None: as many as cores and memory allow

    An interrupted call resumes where it stopped; a complete set is left unchanged.
    Raises FileExistsError if the folder holds another set, DiskError if the set does not fit,
    BusyError if another process is writing to the folder.
    """
    folder = Path(folder)
    if not begin_set(folder, asdict(spec)):
        return folder
    jobs = [(s, i) for s, n in (("train", spec.train), ("test", spec.test)) for i in range(n)]
    todo = [job for job in jobs if not (folder / _name(*job)).exists()]
    frame_bytes = BYTES_PER_FRAME[spec.level] * (spec.size / 64) ** 2
    require_space(folder, int(len(todo) * spec.frames * frame_bytes))
    work = partial(_render_file, folder, spec)
    with only_writer(folder):
        done = run_parallel(work, todo, rendering_workers(workers))
        for _ in progress(done, total=len(todo), desc=f"render {folder.name}"):
            pass
        lists = {
            s: [(_name(s, i), i % len(spec.classes)) for i in range(getattr(spec, s))]
            for s in ("train", "test")
        }
        finish_set(folder, asdict(spec), spec.classes, lists)
    return folder


def _name(split: str, index: int) -> str:
    return f"videos/{split}/{index:06d}.mp4"


def _render_file(folder: Path, spec: MotionSpec, job: tuple[str, int]) -> None:
    frames, _ = render(spec, *job)
    # "scenes" vary the compression too, from the other levels' quality down to visible blocks.
    crf = 20 + job[1] * 7 % 13 if spec.level == "scenes" else 20
    write_video(folder / _name(*job), frames, spec.fps, crf)
