"""Videos that are folders of images, as Something-Something V2 is often kept."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from vmae.data.sets.formats import IMAGE_SUFFIXES


def frame_paths(folder: Path, first: int = 1, count: int | None = None) -> list[Path]:
    """The images that are the video, in order.

    By name, where numbers count as such: img_2 comes before img_10. With `count`, those numbered
    first, first + 1, ... at the end of their names, as V2's lists mean it (REFERENCE.md 5).
    Raises ValueError where there are none, or a numbered one is missing.
    """
    if not folder.is_dir():
        raise ValueError("there is no such folder")
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
    ]
    if not images:
        raise ValueError(f"the folder has no images ({', '.join(IMAGE_SUFFIXES)})")
    if count is None:
        return sorted(images, key=_natural)
    numbered = {int(m[0]): path for path in images if (m := re.search(r"\d+$", path.stem))}
    wanted = range(first, first + count)
    missing = [number for number in wanted if number not in numbered]
    if missing:
        raise ValueError(
            f"image {missing[0]} is missing: the list says {count} images from number {first} on, and "
            f"{len(missing)} of them are not in the folder, which has {len(images)} (img_00001.jpg, ...)"
        )
    return [numbered[number] for number in wanted]


def _natural(path: Path) -> list[tuple[int, str]]:
    """The name in parts, each number as a number."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read_images(paths: list[Path]) -> np.ndarray:
    """Images of one size as frames (T, H, W, 3) uint8.

    Raises ValueError that names the image which cannot be read or has another size than the first.
    """
    frames: list[np.ndarray] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                frames.append(np.asarray(image.convert("RGB")))
        # Pillow says SyntaxError of some damaged PNGs, and refuses huge ones with an error of its own.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "the file is cut short" if "truncated" in str(error) else "no readable image"
            raise ValueError(f"{path.name} cannot be read ({reason})") from None
        if frames[-1].shape != frames[0].shape:
            (height, width), (h, w) = frames[0].shape[:2], frames[-1].shape[:2]
            raise ValueError(
                f"{path.name} is {w}x{h} pixels, {paths[0].name} {width}x{height}: a video has one size"
            )
    return np.stack(frames)
