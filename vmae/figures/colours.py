"""The one colour code of figures, diagrams, players and tables: what each colour stands for.

Hues are those of Okabe and Ito, which colour-blind readers can tell apart; greys are for what is
hidden. Areas are outlined and carry dark text, so that they suit white and dark pages. Colour is never
the only sign: each kind of token has a letter, hidden tokens are hatched, and parts are labelled.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """What a colour stands for: its name, the colour, and the letter that tokens carry."""

    name: str
    colour: str
    letter: str = ""
    hatched: bool = False

    @property
    def tint(self) -> str:
        """The colour on a large area, behind text."""
        return mix(self.colour, 0.2)


VISIBLE = Role("visible", "#56B4E9", "v")
HIDDEN = Role("hidden", "#BDBDBD", hatched=True)
MASK_TOKEN = Role("mask token", "#D9D9D9", "m")
TARGET = Role("target", "#E69F00", "t")
PREDICTED = Role("predicted", "#009E73", "p")
CLASS_TOKEN = Role("class token", "#CC79A7", "c")
ENCODER = Role("encoder", "#0072B2")
DECODER = Role("decoder", "#D55E00")
#: Everything else that holds text: inputs, norms, losses.
NEUTRAL = Role("other", "#7a7a7a")

ROLES = (VISIBLE, HIDDEN, MASK_TOKEN, TARGET, PREDICTED, CLASS_TOKEN, ENCODER, DECODER)


def mix(colour: str, share: float) -> str:
    """`colour` with white: a share of 1 is the colour, 0 is white."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - part)):02x}" for part in parts)
