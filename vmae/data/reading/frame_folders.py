"""Videos stored as folders of images, as Something-Something V2 often is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from vmae.data.sets.formats import IMAGE_SUFFIXES


def frame_paths(folder: Path, first: int = 1, count: int | None = None) -> list[Path]:
    """The images of a video, in order.

    Sorted by name in natural order: img_2 comes before img_10. With `count`, the images whose
    names end in first, first + 1, ..., as in V2's lists (REFERENCE.md 5).
    Raises ValueError if there are no images or a numbered one is missing.
    """
    if not folder.is_dir():
        raise ValueError("the folder does not exist")
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
    ]
    if not images:
        raise ValueError(f"the folder contains no supported images ({', '.join(IMAGE_SUFFIXES)})")
    if count is None:
        return sorted(images, key=_natural)
    numbered = {int(m[0]): path for path in images if (m := re.search(r"\d+$", path.stem))}
    numbers = range(first, first + count)
    missing = [number for number in numbers if number not in numbered]
    if missing:
        raise ValueError(
            f"image {missing[0]} is missing: the list expects {count} images starting at number "
            f"{first}, but {len(missing)} of them are missing from the folder, which "
            f"contains {len(images)} images (img_00001.jpg, ...)"
        )
    return [numbered[number] for number in numbers]


def _natural(path: Path) -> list[tuple[int, str]]:
    """A sort key: the name split into text and numbers."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read_images(paths: list[Path]) -> np.ndarray:
    """Read images of equal size as frames (T, H, W, 3) uint8.

    Raises ValueError, naming the image, if one is unreadable or differs in size from the first.
    """
    frames: list[np.ndarray] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                frames.append(np.asarray(image.convert("RGB")))
        # Pillow raises SyntaxError for some damaged PNGs, and a special error for huge images.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = (
                "the file is truncated" if "truncated" in str(error) else "not a readable image"
            )
            raise ValueError(f"{path.name} could not be read ({reason})") from None
        if frames[-1].shape != frames[0].shape:
            (height, width), (h, w) = frames[0].shape[:2], frames[-1].shape[:2]
            raise ValueError(
                f"{path.name} is {w}x{h} pixels, but {paths[0].name} is {width}x{height}: "
                "all images in a video must have the same size"
            )
    return np.stack(frames)
