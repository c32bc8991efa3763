"""Compares what two executions of a lesson show.

Whole numbers must be equal, others agree within a tolerance. Pictures and the frames of videos are
compared block by block; a mean over a whole picture would hide a dot that moved. What the clock
decides is left out: numbers with a unit of time or speed (`6.8 s`, `44 clips/s`), the memory of the
process (`0.5 GB of memory`), free disk space, progress bars, and all that a cell tagged `timing` shows.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import unescape
from io import BytesIO
from itertools import zip_longest

import av
import numpy as np
from nbformat import NotebookNode
from PIL import Image

TOLERANCE = 1e-3  # relative, for numbers with a decimal point or an exponent
NOISE = 1e-6  # absolute: what is left of a zero in float32, as in "largest difference 7e-08"
BLOCK = 8  # pixels: the side of the blocks in which pictures are compared
SHADE = 4  # of 255: the largest difference of two blocks; a curve redrawn on another CPU gave 3

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
UNIT = (
    r"(?:[mµ]?s|seconds?|minutes?|hours?|[\w-]*/s|(?:[\w-]+ )?(?:a|per) second"
    r"|[kMGT]B (?:of memory|free))"
)
TIMED = re.compile(rf"{NUMBER.pattern} ?{UNIT}(?!\w)")
BAR = re.compile(r"\d+%\|")  # of tqdm, which prints it to stderr


@dataclass
class Comparison:
    """What differs between two executions of a lesson, and how far the rest is apart."""

    cells: int = 0
    number: float = 0.0  #: the largest relative difference of two numbers
    shade: float = 0.0  #: the largest difference of two pictures, of 255
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.cells} cells compared, largest difference {self.number:.1e} in numbers, "
            f"{self.shade:.0f} of 255 in pictures"
        )


def compare(old: Sequence[NotebookNode], new: Sequence[NotebookNode]) -> Comparison:
    """Compare what executed code cells show, by their order."""
    result = Comparison()
    if len(old) != len(new):
        result.differences.append(f"{len(new)} code cells instead of {len(old)}: none compared")
        return result
    for before, after in zip(old, new, strict=True):
        result.cells += 1
        was, now = list(parts(before)), list(parts(after))
        kinds = [", ".join(kind for kind, _ in shown) or "nothing" for shown in (was, now)]
        found = []
        if kinds[0] != kinds[1]:
            found = [f"shows other kinds of output\n    - {kinds[0]}\n    + {kinds[1]}"]
        elif "timing" not in after.metadata.get("tags", []):
            for (kind, a), (_, b) in zip(was, now, strict=True):
                differ = differ_in_pixels if kind in ("picture", "video") else differ_in_text
                found += [f"{kind}: {text}" for text in differ(a, b, result)]
        result.differences += [f"cell [{after.execution_count}], {text}" for text in found]
    return result


def parts(cell: NotebookNode) -> Iterator[tuple[str, str]]:
    """What a cell shows, as (kind, content): what it printed, then texts, pictures and videos."""
    for stream in ("stdout", "stderr"):  # comes in pieces, which the clock cuts
        printed = "".join(output.text for output in cell.outputs if output.get("name") == stream)
        if lines_of(printed):
            yield stream, printed
    for output in cell.outputs:
        data = output.get("data", {})
        page = data.get("text/html", "")
        if "<progress" in page:
            continue
        if page:
            described = re.findall(r'(?:alt|aria-label)="([^"]*)"', page)
            rows = re.sub(r"</(?:caption|tr|div)>", "\n", page)
            yield "text", unescape("\n".join([*described, re.sub(r"<[^>]*>", " ", rows)]))
        elif "text/plain" in data or "text/markdown" in data:
            yield "text", data.get("text/markdown", data.get("text/plain"))
        for video in re.findall(r'src="data:video/[^"]*base64,([^"]*)"', page):
            yield "video", video
        if "image/png" in data:
            yield "picture", data["image/png"]


def lines_of(text: str) -> list[str]:
    """The lines of a text without progress bars and what the clock decides; spaces count as one."""
    lines = (" ".join(line.split()) for line in re.split(r"[\r\n]", text) if not BAR.search(line))
    return [TIMED.sub("(timed)", line) for line in lines if line]


def differ_in_text(old: str, new: str, result: Comparison) -> Iterator[str]:
    """The first line whose words differ, or whose numbers are further apart than the tolerance."""
    for was, now in zip_longest(lines_of(old), lines_of(new), fillvalue=""):
        apart, close = math.inf, False
        if NUMBER.sub("#", was) == NUMBER.sub("#", now):
            pairs = list(zip(NUMBER.findall(was), NUMBER.findall(now), strict=True))
            apart = max((difference(*pair) for pair in pairs), default=0.0)
            close = apart <= TOLERANCE and all(a == b for a, b in pairs if whole(a) and whole(b))
            result.number = max(result.number, apart)
        if not close:
            by = f" by {apart:.1e}" if math.isfinite(apart) else ""
            yield f"the first line that differs{by}\n    - {was}\n    + {now}"
            return


def whole(number: str) -> bool:
    """Whether a printed number counts something: it has neither a decimal point nor an exponent."""
    return number.lstrip("+-").replace(",", "").isdigit()


def difference(a: str, b: str) -> float:
    """The relative difference of two printed numbers; none where both are float32's zero."""
    x, y = (float(text.replace(",", "")) for text in (a, b))
    return abs(x - y) / max(abs(x), abs(y)) if abs(x - y) > NOISE else 0.0


def differ_in_pixels(old: str, new: str, result: Comparison) -> Iterator[str]:
    """By how much the blocks of two pictures, or of the frames of two videos, differ."""
    if old == new:
        return
    was, now = frames(old), frames(new)
    sizes = [
        ", ".join(f"{w}x{h}" for w, h in (image.size for image in shown)) for shown in (was, now)
    ]
    if sizes[0] != sizes[1]:
        yield f"other sizes\n    - {sizes[0]}\n    + {sizes[1]}"
        return
    shade = max(float(np.abs(blocks(a) - blocks(b)).max()) for a, b in zip(was, now, strict=True))
    result.shade = max(result.shade, shade)
    if shade > SHADE:
        yield f"a block of {BLOCK}x{BLOCK} pixels differs by {shade:.0f} of 255"


def frames(data: str) -> list[Image.Image]:
    """The picture of a PNG file, or all of an mp4 file; both in base64."""
    raw = b64decode(data)
    if raw.startswith(b"\x89PNG"):
        return [Image.open(BytesIO(raw))]
    with av.open(BytesIO(raw)) as video:
        return [frame.to_image() for frame in video.decode(video=0)]


def blocks(image: Image.Image) -> np.ndarray:
    """The mean colour of each block (H, W, 4), where nothing is drawn 0."""
    return np.asarray(image.convert("RGBA").convert("RGBa").reduce(BLOCK), dtype=np.int16)
