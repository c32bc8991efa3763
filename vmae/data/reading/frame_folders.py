"""Videos stored as folders of images, as Something-Something V2 often is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vmae.data.reading.player import VideoError
from vmae.data.sets.formats import IMAGE_SUFFIXES


def frame_paths(folder: Path, first: int = 1, count: int | None = None) -> list[Path]:
    """The images of a video, in order.

    Sorted by name in natural order: img_2 comes before img_10. With `count`, the images whose
    names end in first, first + 1, ..., as in V2's lists (REFERENCE.md 5).
    Raises VideoError if there are no images or a numbered one is missing.
    """
    if not folder.is_dir():
        raise VideoError(f"{folder}: the folder does not exist")
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
    ]
    if not images:
        raise VideoError(
            f"{folder}: the folder contains no supported images ({', '.join(IMAGE_SUFFIXES)})"
        )
    if count is None:
        return sorted(images, key=_natural)
    numbered = {int(m[0]): path for path in images if (m := re.search(r"\d+$", path.stem))}
    numbers = range(first, first + count)
    missing = [number for number in numbers if number not in numbered]
    if missing:
        raise VideoError(
            f"{folder}: image {missing[0]} is missing: the list expects {count} images starting at number "
            f"{first}, but {len(missing)} of them are missing from the folder, which "
            f"contains {len(images)} images (img_00001.jpg, ...)"
        )
    return [numbered[number] for number in numbers]


def _natural(path: Path) -> list[tuple[int, str]]:
    """A sort key: the name split into text and numbers."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


class ImageFolder:
    """The images of `frame_paths`, read as a video's frames.

    Raises VideoError, naming the image, if one is unreadable, has more than 8 bits per channel, or
    differs in size from the first one read.
    """

    def __init__(self, folder: Path, first: int = 1, count: int | None = None) -> None:
        self._paths = frame_paths(folder, first, count)
        self._first: tuple[str, int, int] | None = None  # name, height and width

    def __len__(self) -> int:
        return len(self._paths)

    def frames(self, index: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images at these indices, (T, H, W, 3) uint8."""
        return np.stack([self._read(self._paths[i]) for i in index])

    def _read(self, path: Path) -> np.ndarray:
        where = f"{path.parent}: {path.name}"
        try:
            with Image.open(path) as image:
                mode, frame = image.mode, np.asarray(image.convert("RGB"))
        # Pillow raises SyntaxError for some damaged PNGs, and a special error for huge images.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = (
                "the file is truncated" if "truncated" in str(error) else "not a readable image"
            )
            raise VideoError(f"{where} could not be read ({reason})") from None
        if mode.startswith(("I", "F")):  # Pillow would cut off everything above 255
            raise VideoError(f"{where} has more than 8 bits per channel: convert it to 8 bits")
        self._first = self._first or (path.name, *frame.shape[:2])
        name, height, width = self._first
        if frame.shape[:2] != (height, width):
            h, w = frame.shape[:2]
            raise VideoError(
                f"{where} is {w}x{h} pixels, but {name} is {width}x{height}: "
                "all images in a video must have the same size"
            )
        return frame
