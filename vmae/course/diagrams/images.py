"""MAE on an image, in the manner of the MAE paper's figure 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vmae.config import MaskConfig, ModelConfig
from vmae.course.diagrams.drawing import GRID, Canvas, Diagram, picture_data, read_photo, shape
from vmae.figures.colours import (
    CLASS_TOKEN,
    DECODER,
    ENCODER,
    HIDDEN,
    MASK_TOKEN,
    PREDICTED,
    TARGET,
    VISIBLE,
    Role,
)
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask

#: What covers each patch of a photo, by row and column.
Cells = Sequence[Sequence[Role | None]]


def mae(
    config: ModelConfig,
    mask: MaskConfig | None = None,
    photo: str | Path = "data/photos/cat.jpg",
    model: MaskedAutoencoder | None = None,
    seed: int = 0,
) -> Diagram:
    """An image through MAE: above, from pixels to the decoder's input; below, from there to the loss.

    mask   random 75 % by default; drawn for this grid from `seed`
    model  an MAE of this configuration; its reconstruction is then drawn too
    """
    mask = mask or MaskConfig("random", 0.75)
    drawn = make_mask(mask, config.grid, 1, torch.Generator().manual_seed(seed))
    image = read_photo(photo, config.img_size)
    counts = tuple(x.shape[1] for x in (drawn.visible, drawn.queries, drawn.targets))
    draw = Canvas()
    _to_decoder(draw, config, drawn, image)
    pasted = None
    if model is not None:
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None, :, None]
        with torch.no_grad():
            made = model.eval().reconstruct(pixels, drawn).pasted[0, :, 0].permute(1, 2, 0)
        pasted = Image.fromarray((255 * made).round().byte().numpy())
    _to_loss(draw, config, drawn, image, pasted)
    n, p, (v, q, m), cls = config.grid.num_tokens, config.grid.token_dim, counts, _has_class(config)
    alt = (
        f"MAE: a photo cut into {n} patches, {q} of them hidden. The {v} visible ones, "
        + ("a class token " if cls else "")
        + f"and their positions go through an encoder of {_blocks(config.depth)} of {config.embed_dim}. "
        f"One learned vector, the mask token, joins the latents {q} times; with positions again, a "
        f"decoder of {_blocks(config.decoder_depth)} of {config.decoder_embed_dim} reads all {v + q + cls}. "
        f"Its outputs at {m} mask tokens become {m} patches of {p} pixel values. The loss is their mean "
        "squared error; visible patches have none."
    )
    return draw.finish(480, alt)


def _has_class(config: ModelConfig) -> bool:
    return config.family == "mae"


def _mixed(config: ModelConfig) -> list[Role]:
    """The first tokens of the decoder's input."""
    return [CLASS_TOKEN] * _has_class(config) + [VISIBLE, MASK_TOKEN, MASK_TOKEN] * 2


def _blocks(count: int) -> str:
    return f"{count} block" + "s" * (count != 1)


def _column(
    draw: Canvas,
    x: float,
    middle: float,
    roles: Sequence[Role],
    below: list[str],
    more: bool = True,
) -> None:
    """Tokens and dots for the others, if there are more, with lines of text below."""
    top = middle - (21 * len(roles) + 16) / 2
    draw.tokens(x, top, roles)
    if more:
        draw.dots(x + 9, top + 21 * len(roles) + 3)
    draw.lines(x + 9, middle + 94, below)


def _photo(
    draw: Canvas, x: float, middle: float, side: float, image: Image.Image, cells: Cells
) -> None:
    """A photo with cells over some of its patches, and an outline."""
    top = middle - side / 2
    draw.image(x, top, side, side, picture_data(image))
    draw.cells(x, top, cells, (side / len(cells[0]), 0), (0, side / len(cells)))
    draw.rect(x, top, side, side)


def _hidden(config: ModelConfig, drawn: Mask) -> list[list[bool]]:
    grid = config.grid
    return drawn.hidden(grid.num_tokens)[0].view(grid.shape)[0].tolist()


def _to_decoder(draw: Canvas, config: ModelConfig, drawn: Mask, image: Image.Image) -> None:
    """From the photo to the decoder's input."""
    n, p, cls, (_, h, w) = (
        config.grid.num_tokens,
        config.grid.token_dim,
        _has_class(config),
        config.grid.shape,
    )
    v, q, d, e = (
        drawn.visible.shape[1],
        drawn.queries.shape[1],
        config.embed_dim,
        config.decoder_embed_dim,
    )
    middle = 118.0
    cells = [[HIDDEN if x else GRID for x in row] for row in _hidden(config, drawn)]
    draw.heading(91, 24, "image, masked")
    _photo(draw, 16, middle, 150, image, cells)
    draw.lines(91, middle + 94, [f"{n} patches", f"{q} hidden, {v} visible"])
    draw.arrow((170, middle), (196, middle))

    # a few of the visible patches, cut from the photo; those at the centre show the animal
    def from_centre(token: int) -> int:
        row, column = divmod(token % (h * w), w)
        return (2 * row - h) ** 2 + (2 * column - w) ** 2

    size = config.tubelet[1]
    for i, token in enumerate(sorted(sorted(drawn.visible[0].tolist(), key=from_centre)[:5])):
        row, column = divmod(token % (h * w), w)
        corner = (column * size, row * size, (column + 1) * size, (row + 1) * size)
        at = (200.0, middle - 75 + 27 * i, 24.0, 24.0)
        draw.image(*at, picture_data(image.crop(corner).resize((48, 48))))
        draw.rect(*at, "none", VISIBLE.colour, 2)
    if v > 5:
        draw.dots(212, middle + 63)
    draw.heading(212, 24, "visible")
    draw.lines(212, middle + 94, [shape(v, p), "pixels"])
    draw.arrow((230, middle), (334, middle))
    draw.text(282, middle - 10, f"linear {p} → {d}")
    draw.text(282, middle + 20, "+ positions")
    read = [CLASS_TOKEN] * cls + [VISIBLE] * min(v, 5)
    _column(draw, 340, middle, read,
            [shape(v + cls, d), f"{v} + class token" if cls else "tokens"], v > 5)  # fmt: skip
    draw.heading(349, 24, "encoder input")
    draw.arrow((364, middle), (398, middle))
    draw.box(402, middle - 75, 104, 150, ["encoder", _blocks(config.depth), f"of {d}"], ENCODER)
    draw.text(454, middle + 94, "no mask tokens")
    draw.arrow((506, middle), (540, middle))
    _column(draw, 546, middle, read, [shape(v + cls, d)], v > 5)
    draw.heading(555, 24, "latents")
    draw.arrow((570, middle), (676, middle))
    draw.text(622, middle - 10, f"linear {d} → {e}")
    draw.text(622, middle + 20, "+ positions")
    _column(draw, 682, middle, _mixed(config), [shape(v + q + cls, e)])
    draw.heading(691, 24, "decoder input")
    draw.arrow((766, middle), (706, middle))
    draw.text(790, middle - 24, "mask token", 13, bold=True)
    draw.token(776, middle - 14, MASK_TOKEN, 28)
    draw.lines(788, middle + 34, ["one learned", "vector, copied", f"{q} times,", "+ positions"])
    draw.arrow((691, middle + 104), (691, 248), (70, 248), (70, 310))


def _to_loss(
    draw: Canvas, config: ModelConfig, drawn: Mask, image: Image.Image, pasted: Image.Image | None
) -> None:
    """From the decoder to the loss, and the target."""
    p, cls, e = config.grid.token_dim, _has_class(config), config.decoder_embed_dim
    v, q, m = (x.shape[1] for x in (drawn.visible, drawn.queries, drawn.targets))
    middle = 358.0
    draw.box(
        16, middle - 48, 108, 96, ["decoder", _blocks(config.decoder_depth), f"of {e}"], DECODER
    )
    draw.arrow((124, middle), (152, middle))
    _column(draw, 158, middle, _mixed(config), [shape(v + q + cls, e)])
    draw.arrow((182, middle), (290, middle))
    draw.lines(235, middle - 26, ["mask tokens only", f"linear {e} → {p}"])
    draw.text(235, middle + 20, f"{v + q + cls - m} dropped")
    _column(draw, 296, middle, [PREDICTED] * 6, [shape(m, p)])
    draw.heading(305, 268, "predictions")
    side, left, right = 150.0, 370.0, 694.0
    if pasted is not None:
        side, left, right = 118.0, 490.0, 726.0
        _photo(draw, 346, middle, side, pasted, [[None]])
        draw.rect(346, middle - side / 2, side, side, "none", PREDICTED.colour, 2.5)
        draw.text(405, middle + side / 2 + 20, "reconstruction", bold=True)
        draw.arrow((466, middle), (left, middle))
    draw.arrow((320, middle), (left if pasted is None else 346, middle))
    draw.box(left, middle - 38, 142, 76, ["loss", "mean squared error", f"of {m} × {p} values"])
    draw.text(left + 71, middle + 58, f"{v} visible patches: none")
    t = left + 142 + (right - left - 142) * (0.3 if pasted is None else 0.5)
    _column(draw, t - 9, middle, [TARGET] * 6, [shape(m, p)])
    draw.arrow((t - 14, middle), (left + 142, middle))
    cells = [[GRID if x else VISIBLE for x in row] for row in _hidden(config, drawn)]
    _photo(draw, right, middle, side, image, cells)
    draw.rect(right, middle - side / 2, side, side, "none", TARGET.colour, 2.5)
    draw.heading(right + side / 2, 268, "target")
    draw.arrow((right - 4, middle), (t + 14, middle))
    draw.lines(
        right + side / 2,
        middle + 94,
        [f"the {m} hidden patches", "each normalised"][: 1 + config.normalize_targets],
    )
