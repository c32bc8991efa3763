"""The key to the colour code."""

from __future__ import annotations

from vmae.course.diagrams.drawing import Canvas, Diagram
from vmae.figures.colours import DECODER, NEUTRAL, PREDICTED, ROLES


def key() -> Diagram:
    """What each colour, letter, hatch and line stands for, in every figure of the course."""
    draw = Canvas()
    roles = [(role, role.name) for role in ROLES]
    boxes = [(PREDICTED, "head"), (NEUTRAL, "all other steps"), (DECODER, "dropped")]
    for i, (role, name) in enumerate(roles + boxes):
        x, y = 24 + 212 * (i % 4), 16 + 40 * (i // 4)
        if i < len(roles) and (role.letter or role.hatched):
            draw.token(x, y, role, 24)
        else:
            draw.box(x - 4, y, 32, 24, [], role, dashed=name == "dropped")
        draw.text(x + 38, y + 17, name, 13, "start")
    draw.dots(24 + 212 * 3 + 12, 102)
    draw.text(24 + 212 * 3 + 38, 113, "more, not drawn", 13, "start")
    names = [name for _, name in roles + boxes]
    return draw.finish(136, "The colour code: " + ", ".join(names) + "; dots: more, not drawn.")
