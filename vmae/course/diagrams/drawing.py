"""Drawing in SVG: boxes, arrows, tokens, grids of cells and slabs of cubes; and the `Diagram` they make.

A diagram reaches the page as `<img src="data:image/svg+xml;base64,...">`, in text/html output. JupyterLab
shows no image/svg+xml output of notebooks that it does not trust, and drops its alt text; GitHub puts
such output into the page, where its sanitiser removes styles. An image keeps alt text and runs no
scripts, yet plays SVG's own animation. All coordinates are absolute, and all styles are attributes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from operator import itemgetter
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from vmae import at_root
from vmae.figures.colours import NEUTRAL, Role, mix
from vmae.figures.figure import INK, text_width

#: Text on coloured areas, and the area of headings: it stands out on white and on dark pages.
DARK, HEADING = "#1a1a1a", "#565656"
#: Width of every diagram in pixels, and size of its smallest text: over 11 where a notebook shows 800.
WIDTH, SMALL = 860, 12
_FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

#: Cells of which only the white outline is drawn, over a picture.
GRID = Role("grid", "none")

Point = tuple[float, float]


@dataclass(frozen=True)
class Diagram:
    """A drawing and its description. Jupyter shows it; `save` writes an SVG file."""

    svg: str
    alt: str

    def html(self) -> str:
        """The diagram as an image element that needs no other file."""
        data = base64.b64encode(self.svg.encode()).decode()
        return (
            f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(self.alt)}" '
            f'width="{WIDTH}" style="max-width:100%">'
        )

    def save(self, path: str | Path) -> None:
        """Write the SVG file."""
        Path(path).write_text(self.svg, encoding="utf-8")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": self.alt}


def read_photo(path: str | Path, size: int) -> Image.Image:
    """The central square of a photo, `size` pixels wide and high; a relative path is one of the checkout."""
    with Image.open(at_root(path)) as image:
        return ImageOps.fit(image.convert("RGB"), (size, size))


def picture_data(image: Image.Image) -> str:
    """A picture as a data URI, in JPEG: small enough to embed."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class Canvas:
    """Collects SVG elements; `finish` makes a diagram of them."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def finish(self, height: float, alt: str) -> Diagram:
        """The diagram, `height` pixels high."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_n(height)}" '
            f'width="{WIDTH}" height="{_n(height)}" role="img" font-family="{_FONT}">'
            f"<title>{escape(alt)}</title>"
        )
        return Diagram("\n".join([head, *self.parts, "</svg>\n"]), alt)

    def text(
        self, x: float, y: float, text: str, size: float = 12, anchor: str = "middle",
        bold: bool = False, fill: str = INK,
    ) -> None:  # fmt: skip
        """A line of text whose baseline is at y."""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}" '
            f'fill="{fill}"{weight}>{escape(text)}</text>'
        )

    def lines(self, x: float, y: float, lines: Sequence[str], **options: Any) -> None:
        """Lines of text under each other, the first with its baseline at y."""
        for i, line in enumerate(lines):
            self.text(x, y + i * (options.get("size", 12) + 4), line, **options)

    def heading(
        self, x: float, y: float, text: str, size: float = 13, anchor: str = "middle"
    ) -> float:
        """A heading in a filled tag, its baseline at y; returns the right edge of the tag."""
        w = text_width(text, size, True) + 12
        left = x - w * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        self.rect(left, y - size - 1, w, size + 7, HEADING, "none", radius=4)
        self.text(left + w / 2, y, text, size, bold=True, fill="#ffffff")
        return left + w

    def dots(self, x: float, y: float, step: Point = (0, 6)) -> None:
        """Three dots from (x, y) on: more of the same, not drawn."""
        for i in range(3):
            self.circle(x + i * step[0], y + i * step[1], 1.7, INK, "none")

    def circle(
        self, x: float, y: float, r: float, fill: str, stroke: str = DARK, width: float = 1,
        dashed: bool = False, moving: str = "",
    ) -> None:  # fmt: skip
        """A circle; `moving` is SVG's animation of it."""
        line = "" if stroke == "none" else f' stroke="{stroke}" stroke-width="{_n(width)}"'
        dash = ' stroke-dasharray="2 2"' if dashed else ""
        self.parts.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}" fill="{fill}"{line}{dash}>'
            f"{moving}</circle>"
        )

    def rect(
        self, x: float, y: float, w: float, h: float, fill: str = "none", stroke: str = INK,
        width: float = 1, dashed: bool = False, radius: float = 0,
    ) -> None:  # fmt: skip
        """A rectangle, by its upper left corner."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        round_ = f' rx="{_n(radius)}"' if radius else ""
        self.parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{_n(width)}"{round_}{dash}/>'
        )

    def box(
        self, x: float, y: float, w: float, h: float, lines: Sequence[str], role: Role = NEUTRAL,
        dashed: bool = False,
    ) -> None:  # fmt: skip
        """A rounded box with centred lines, the first in bold; text shrinks to fit, to SMALL at least."""
        fill = "none" if dashed else role.tint
        self.rect(x, y, w, h, fill, role.colour, 1.5, dashed, 6)
        sizes = []
        for i, line in enumerate(lines):
            size = 13.0 if i == 0 else 12.0
            if text_width(line, size, i == 0) > w - 8:
                size = SMALL
            sizes.append(size)
        top = y + (h - sum(sizes) - 5 * (len(lines) - 1)) / 2
        for i, (line, size) in enumerate(zip(lines, sizes, strict=True)):
            baseline = top + sum(sizes[: i + 1]) + 5 * i - 0.15 * size
            self.text(x + w / 2, baseline, line, size, bold=i == 0, fill=INK if dashed else DARK)

    def path(self, d: str, fill: str = "none", stroke: str = INK, width: float = 1) -> None:
        """SVG path data `d`, filled, outlined, or both."""
        line = "" if stroke == "none" else f' stroke="{stroke}" stroke-width="{_n(width)}"'
        self.parts.append(f'<path d="{d}" fill="{fill}"{line}/>')

    def line(
        self, *points: Point, stroke: str = INK, width: float = 1.3, head: bool = False
    ) -> None:
        """A line through the points; with `head`, an arrow."""
        d = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self.path(d, stroke=stroke, width=width)
        if head:
            (x0, y0), (x1, y1) = points[-2:]
            length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
            u, v = 7 * (x1 - x0) / length, 7 * (y1 - y0) / length
            wings = [(x1 - u - v / 2, y1 - v + u / 2), (x1 - u + v / 2, y1 - v - u / 2)]
            tip = "L".join(f"{_n(x)} {_n(y)}" for x, y in [(x1, y1), *wings])
            self.path(f"M{tip}Z", fill=stroke, stroke="none")

    def arrow(self, *points: Point) -> None:
        """An arrow through the points."""
        self.line(*points, head=True)

    def token(self, x: float, y: float, role: Role, side: float = 18, letter: str = "") -> None:
        """One token: a square in its role's colour, with its letter or hatched."""
        self.cells(x, y, [[role]], (side, 0), (0, side))
        if mark := letter or role.letter:
            size = max(SMALL, 0.65 * side)
            self.text(x + side / 2, y + side / 2 + 0.35 * size, mark, size, bold=True, fill=DARK)

    def tokens(self, x: float, y: float, roles: Sequence[Role], side: float = 18) -> None:
        """Tokens in a column."""
        for i, role in enumerate(roles):
            self.token(x, y + i * (side + 3), role, side)

    def image(self, x: float, y: float, w: float, h: float, data: str) -> None:
        """A picture, from `picture_data`."""
        self.parts.append(
            f'<image x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}" href="{data}"/>'
        )

    def cells(
        self, x: float, y: float, roles: Sequence[Sequence[Role | None]], right: Point, down: Point,
        shade: float = 1,
    ) -> None:  # fmt: skip
        """A grid of cells in the plane of the vectors `right` and `down`; None leaves a cell out.

        One path per role, however many cells. `shade` below 1 darkens a face that is turned away.
        """
        starts: dict[Role, str] = {GRID: ""}  # first, so that other outlines lie over it
        for i, row in enumerate(roles):
            for j, role in enumerate(row):
                if role is not None:
                    px, py = x + j * right[0] + i * down[0], y + j * right[1] + i * down[1]
                    starts[role] = starts.get(role, "") + f"M{_n(px)} {_n(py)}@"
        a, b, c, d = (_n(part) for part in (*right, *down))
        back, up = _n(-right[0]), _n(-right[1])
        around = f"h{a}v{d}h{back}z" if b == c == "0" else f"l{a} {b}l{c} {d}l{back} {up}z"
        for role, path in filter(itemgetter(1), starts.items()):
            fill = "none" if role is GRID else darker(role.colour, shade)
            edge = "#ffffff" if role is GRID else mix(DARK, 0.75)
            self.path(path.replace("@", around), fill, edge, 0.6)
            if role.hatched and shade == 1:
                hatch = f"m{c} {d}l{_n(right[0] - down[0])} {_n(right[1] - down[1])}"
                self.path(path.replace("@", hatch), stroke=mix(DARK, 0.5), width=0.7)

    def slab(
        self, x: float, y: float, roles: Sequence[Sequence[Role | None]], side: float, thick: Point,
        front: bool = True,
    ) -> None:  # fmt: skip
        """One time step as a slab of cubes, seen from the left, with its top and its nearer end."""
        right, down = (0.62 * side, 0.3 * side), (0.0, side)
        columns = len(roles[0])
        self.cells(x, y, [roles[0]], right, thick, 0.9)
        end = (x + columns * right[0], y + columns * right[1])
        self.cells(*end, [[row[-1]] for row in roles], thick, down, 0.8)
        if front:
            self.cells(x, y, roles, right, down)


def darker(colour: str, shade: float) -> str:
    """`colour` times `shade`."""
    return "#" + "".join(f"{round(shade * int(colour[i : i + 2], 16)):02x}" for i in (1, 3, 5))


def shape(*sizes: object) -> str:
    """A shape as text: (1568, 768)."""
    return f"({', '.join(map(str, sizes))})"
