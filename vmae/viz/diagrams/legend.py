"""The key to the colour code."""

from __future__ import annotations

from vmae.viz.colours import ROLES
from vmae.viz.diagrams.drawing import Canvas, Diagram


def key() -> Diagram:
    """What each colour, letter and hatch stands for, in every figure of the course."""
    draw = Canvas()
    for i, role in enumerate(ROLES):
        x, y = 24 + 212 * (i % 4), 16 + 40 * (i // 4)
        if role.letter or role.hatched:
            draw.token(x, y, role, 24)
        else:
            draw.box(x - 4, y, 32, 24, [], role)
        draw.text(x + 38, y + 17, role.name, 13, "start")
    return draw.finish(96, "The colour code: " + ", ".join(r.name for r in ROLES) + ".")
