"""The photos that ship, and frames of the film: what moving scenes are painted with.

Training and testing never share one: photos are divided by name, frames of the film by shot.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from vmae import ROOT
from vmae.data.making.film import FILM, FilmSpec, shot_bounds
from vmae.data.reading.reader import open_video

PHOTOS = ROOT / "data" / "photos"
#: Photos that only test scenes use.
TEST_PHOTOS = ("camera", "flower", "gravel")
#: Places in a shot, as shares of its length, whose frames are taken.
_PLACES = (0.2, 0.5, 0.8)
#: Standard deviation, in grey levels of 255, that a crop should have, and how often one is drawn for it.
_CONTRAST, _DRAWS = 30, 8


@lru_cache(maxsize=2)
def pictures(split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Photos, each (H, W, 3) uint8, and frames of the film, (N, H, W, 3) uint8, of "train" or "test".

    The film's shots are divided as in the film set, so neither set shows the other's test shots.
    Takes about four seconds the first time: the whole film is read to find its cuts.
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
    return photos, open_video(FILM).get_batch(frames).asnumpy()


@lru_cache(maxsize=1)
def _shots() -> list[tuple[int, int]]:
    """(first, end) of the film's shots before the credits."""
    shots, change = shot_bounds(FILM, FilmSpec.cut)
    return [(first, end) for first, end in shots if end <= len(change) * (1 - FilmSpec.credits)]


def random_crop(rng: np.random.Generator, split: str, size: int) -> np.ndarray:
    """A square crop of a random picture, mirrored or not, as (size, size, 3) uint8.

    Half of the crops come from photos, half from the film. A crop takes 0.4 to 1 of the picture's
    short side. One that shows next to nothing, a piece of plain sky, is drawn again.
    """
    pool = pictures(split)[0 if rng.random() < 0.5 else 1]
    for _ in range(_DRAWS):
        picture = Image.fromarray(pool[rng.integers(len(pool))])
        side = int(rng.uniform(0.4, 1.0) * min(picture.size))
        left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
        crop = picture.crop((left, top, left + side, top + side))
        pixels = np.array(crop.resize((size, size), Image.Resampling.BILINEAR))
        if pixels.std(axis=(0, 1)).mean() >= _CONTRAST:
            break
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
