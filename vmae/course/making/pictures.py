"""Source pictures for moving scenes: the photos in the repository, and frames of the film.

Training and testing never share a picture: photos are split by name, film frames by shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from vmae import ROOT
from vmae.course.making.film import FILM, FilmSpec, shot_bounds
from vmae.data.reading.reader import open_video

PHOTOS = ROOT / "data" / "photos"
#: Photos used in test scenes only.
TEST_PHOTOS = ("camera", "flower", "gravel")
#: Positions of the chosen frames in a shot, as fractions of its length.
_PLACES = (0.2, 0.5, 0.8)
#: Minimum standard deviation of a crop, in grey levels of 255, and how many draws to allow for it.
_CONTRAST, _DRAWS = 30, 8


@lru_cache(maxsize=2)
def pictures(split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Photos, each (H, W, 3) uint8, and film frames, (N, H, W, 3) uint8, of "train" or "test".

    Shots are split as in the film set, so neither set trains on the other's test shots.
    The first call takes about four seconds, because the whole film is read to find its cuts.
    """
    test = split == "test"
    chosen = [p for p in sorted(PHOTOS.glob("*.jpg")) if (p.stem in TEST_PHOTOS) == test]
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in chosen]
    frames = [
        int(first + place * (last - first))
        for number, (first, last) in enumerate(_shots())
        if (number % FilmSpec.test == FilmSpec.test - 1) == test
        for place in _PLACES
    ]
    return photos, open_video(FILM).frames(frames)


@lru_cache(maxsize=1)
def _shots() -> list[tuple[int, int]]:
    """The film's shots before the credits, as (first, end)."""
    shots, change = shot_bounds(FILM, FilmSpec.cut)
    return [(first, end) for first, end in shots if end <= len(change) * (1 - FilmSpec.credits)]


def random_crop(rng: np.random.Generator, split: str, size: int) -> np.ndarray:
    """A square crop of a random picture, possibly mirrored: (size, size, 3) uint8.

    Half of the crops come from photos, half from the film. A crop's side is 0.4 to 1 times the
    picture's short side. Crops with little contrast, such as plain sky, are drawn again.
    """
    return crop_of(rng, pictures(split), size)


def crop_of(
    rng: np.random.Generator,
    pools: tuple[Sequence[np.ndarray], Sequence[np.ndarray] | np.ndarray],
    size: int,
) -> np.ndarray:
    """The same, from two pools of pictures (H, W, 3) uint8 of your own, each for half of the crops."""
    pool = pools[0 if rng.random() < 0.5 else 1]
    for _ in range(_DRAWS):
        picture = Image.fromarray(pool[int(rng.integers(len(pool)))])
        side = int(rng.uniform(0.4, 1.0) * min(picture.size))
        left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
        crop = picture.crop((left, top, left + side, top + side))
        pixels = np.array(crop.resize((size, size), Image.Resampling.BILINEAR))
        if pixels.std(axis=(0, 1)).mean() >= _CONTRAST:
            break
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
