"""What is written and drawn in a diagram, read back out of its SVG; and what is wrong with its layout."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations, pairwise
from xml.etree import ElementTree

from gallery import DIAGRAMS

from vmae.course.diagrams import Diagram
from vmae.course.diagrams.drawing import WIDTH
from vmae.figures.figure import text_width
from vmae.train import Recipe
from vmae.train.config import RunConfig

SVG = "{http://www.w3.org/2000/svg}"
#: x0, y0, x1, y1
Box = tuple[float, float, float, float]
made = cache(lambda name: DIAGRAMS[name]())


def elements(diagram: Diagram, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(diagram.svg).iter(SVG + tag))


def texts(diagram: Diagram) -> list[str]:
    return [e.text or "" for e in elements(diagram, "text")]


def numbers(diagram: Diagram) -> set[str]:
    return set(re.findall(r"\d[\d,.]*\d|\d", " ".join(texts(diagram))))


def number(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name])


def text_box(e: ElementTree.Element) -> Box:
    """Where a text lies, in the widest font that a browser may choose."""
    x, y, size = (number(e, name) for name in ("x", "y", "font-size"))
    width = text_width(e.text or "", size, "font-weight" in e.attrib)
    left = x - width * {"start": 0, "middle": 0.5, "end": 1}[e.attrib["text-anchor"]]
    return left, y - 0.74 * size, left + width, y + 0.2 * size


def rect_box(e: ElementTree.Element) -> Box:
    x, y, w, h = (number(e, name) for name in ("x", "y", "width", "height"))
    return x, y, x + w, y + h


def cell_boxes(diagram: Diagram) -> list[Box]:
    """The upright cells: tokens, frames, bars."""
    found = []
    for path in elements(diagram, "path"):
        for x, y, w, h in re.findall(
            r"M([-\d.]+) ([-\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+z", path.attrib["d"]
        ):
            found.append((float(x), float(y), float(x) + float(w), float(y) + float(h)))
    return found


def line_boxes(diagram: Diagram) -> list[Box]:
    """The segments of lines and arrows that are level or upright."""
    found = []
    for path in elements(diagram, "path"):
        if path.attrib["fill"] == "none" and re.fullmatch(r"[ML\d. -]+", path.attrib["d"]):
            points = [tuple(map(float, p.split())) for p in re.split("[ML]", path.attrib["d"])[1:]]
            for (x0, y0), (x1, y1) in pairwise(points):
                if x0 == x1 or y0 == y1:
                    found.append((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
    return found


def overlap(a: Box, b: Box, slack: float = 0.5) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def problems(diagram: Diagram) -> list[str]:
    """Texts that leave the picture or a box, or that touch a line or another text."""
    root = ElementTree.fromstring(diagram.svg)
    sheet = (0.0, 0.0, float(WIDTH), number(root, "height"))
    written = [(e.text or "", text_box(e)) for e in elements(diagram, "text")]
    areas = [rect_box(e) for e in elements(diagram, "rect")] + cell_boxes(diagram)
    found = [f"{text!r} leaves the picture" for text, box in written if not inside(box, sheet)]
    for text, box in written:
        for area in areas:
            if overlap(box, area) and not inside(box, area):
                found.append(f"{text!r} crosses the edge of {area}")
        found += [f"{text!r} touches a line" for line in line_boxes(diagram) if overlap(
            box, (line[0] - 1, line[1] - 1, line[2] + 1, line[3] + 1))]  # fmt: skip
    found += [f"{a!r} over {b!r}" for (a, x), (b, y) in combinations(written, 2) if overlap(x, y)]
    return found


def stages(name: str) -> tuple[RunConfig, RunConfig]:
    recipe = Recipe.load(name)
    return recipe.pretrain, recipe.finetune
