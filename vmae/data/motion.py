"""The rendered, labelled set: real mp4 files whose label is in the motion and in no single frame.

Level "digits": two coloured handwritten digits lie on a tile that wraps around (a torus); the whole
tile drifts in one of eight directions. The starting phase is uniform, so every single frame looks
the same for every class, and only the order of the frames tells the direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vmae.data.build import begin_set, finish_set, run_parallel
from vmae.data.encode import require_space, write_video

CLASSES = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
#: What one rendered video takes on disk, in bytes a frame of 64x64, measured; used for a check only.
BYTES_PER_FRAME = 500


@dataclass(frozen=True)
class MotionSpec:
    """What is rendered. `train` and `test` are numbers of videos, `size` is in pixels.

    `speed` is in tile widths a frame. Digits of the test videos are never used in training.
    """

    level: str = "digits"
    train: int = 16_000
    test: int = 2_000
    frames: int = 8
    size: int = 64
    speed: float = 1.5 / 16
    fps: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.level != "digits":
            raise ValueError(f"there is no motion level {self.level!r}; there is digits")
        if self.size < 64 or self.size % 2:
            raise ValueError(f"size is {self.size}; render even sizes of 64 pixels or more")
        if self.frames < 2 or min(self.train, self.test) < len(CLASSES):
            raise ValueError(f"a set needs 2 frames and {len(CLASSES)} videos a split at least")


#: Named sizes: for tests (seconds), for two CPU cores (a minute), for a GPU.
SIZES = {
    "mini": MotionSpec(train=48, test=24, frames=16),
    "small": MotionSpec(),
    "full": MotionSpec(train=20_000, test=2_000, frames=32, size=112),
}


@lru_cache(maxsize=1)
def _digits() -> np.ndarray:
    """(1797, 8, 8) handwritten digits in [0, 1], from scikit-learn."""
    from sklearn.datasets import load_digits

    return load_digits().images.astype(np.float32) / 16


def _upscale(image: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear enlargement of (H, W) by a whole factor."""
    places = (np.arange(len(image) * factor) + 0.5) / factor - 0.5
    low = np.clip(np.floor(places).astype(int), 0, len(image) - 1)
    high = np.clip(low + 1, 0, len(image) - 1)
    share = np.clip(places - low, 0, 1).astype(image.dtype)
    rows = image[low] * (1 - share[:, None]) + image[high] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, high] * share


def render(spec: MotionSpec, split: str, index: int) -> tuple[np.ndarray, int]:
    """Video `index` of a split as (T, H, W, 3) uint8, and its label; a function of spec and index.

    Labels run through the classes, so every prefix of a split is balanced.
    """
    rng = np.random.default_rng((spec.seed, ("train", "test").index(split), index))
    label = index % len(CLASSES)
    digits = _digits()
    seen = len(digits) * 4 // 5
    pool = range(seen) if split == "train" else range(seen, len(digits))
    tile = np.zeros((spec.size, spec.size, 3), np.float32)
    side = spec.size // 16 * 8
    for _ in range(2):
        glyph = _upscale(digits[rng.choice(pool)], side // 8)
        colour = rng.uniform(0.3, 1.0, 3).astype(np.float32)
        colour[rng.integers(3)] = 1.0
        picture = np.zeros_like(tile)
        picture[:side, :side] = glyph[..., None] * colour
        row, column = rng.integers(spec.size, size=2)
        tile = np.maximum(tile, np.roll(picture, (row, column), axis=(0, 1)))
    tile = (tile * 255).round().astype(np.uint8)
    angle = 2 * np.pi * label / len(CLASSES)
    step = spec.speed * spec.size * np.array([np.sin(angle), np.cos(angle)])
    offsets = np.rint(np.arange(spec.frames)[:, None] * step + rng.uniform(0, spec.size, 2)).astype(
        int
    )
    return np.stack([np.roll(tile, tuple(offset), axis=(0, 1)) for offset in offsets]), label


def render_set(
    folder: str | Path,
    spec: MotionSpec,
    workers: int = 2,
    progress: Callable[..., Any] = tqdm,
) -> Path:
    """Render a whole set into `folder`: videos/, train.csv, test.csv, classes.txt, set.json.

    A call that was interrupted goes on where it stopped; a complete set is left as it is.
    Raises FileExistsError where the folder holds another set, DiskError where it does not fit.
    """
    folder = Path(folder)
    if not begin_set(folder, asdict(spec)):
        return folder
    jobs = [(s, i) for s, n in (("train", spec.train), ("test", spec.test)) for i in range(n)]
    todo = [job for job in jobs if not (folder / _name(*job)).exists()]
    require_space(folder, int(len(todo) * spec.frames * BYTES_PER_FRAME * (spec.size / 64) ** 2))
    work = partial(_render_file, folder, spec)
    for _ in progress(
        run_parallel(work, todo, workers), total=len(todo), desc=f"render {folder.name}"
    ):
        pass
    lists = {
        s: [(_name(s, i), i % len(CLASSES)) for i in range(getattr(spec, s))]
        for s in ("train", "test")
    }
    finish_set(folder, asdict(spec), CLASSES, lists)
    return folder


def _name(split: str, index: int) -> str:
    return f"videos/{split}/{index:06d}.mp4"


def _render_file(folder: Path, spec: MotionSpec, job: tuple[str, int]) -> None:
    frames, _ = render(spec, *job)
    write_video(folder / _name(*job), frames, spec.fps)


def with_sizes(spec: MotionSpec, **changes: int | None) -> MotionSpec:
    """The spec with those changes that are not None."""
    return replace(spec, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]
