"""MAE on an image, in the manner of the MAE paper's figure 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vmae.config import MaskConfig, ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.viz.colours import (
    CLASS_TOKEN,
    DECODER,
    ENCODER,
    HIDDEN,
    MASK_TOKEN,
    PREDICTED,
    TARGET,
    VISIBLE,
)
from vmae.viz.diagrams.drawing import GRID, Canvas, Diagram, picture_data, read_photo, shape


def mae(
    config: ModelConfig,
    mask: MaskConfig | None = None,
    photo: str | Path = "data/photos/cat.jpg",
    model: MaskedAutoencoder | None = None,
    seed: int = 0,
) -> Diagram:
    """An image through MAE: hidden patches, the visible ones encoded, mask tokens, the target.

    mask   random 75 % by default; drawn for this grid from `seed`
    model  an MAE of this configuration; its reconstruction is then drawn in place of the target
    """
    mask = mask or MaskConfig("random", 0.75)
    grid, (_, h, w) = config.grid, config.grid.shape
    drawn = make_mask(mask, grid, 1, torch.Generator().manual_seed(seed))
    visible, v = drawn.visible[0].tolist(), drawn.visible.shape[1]
    q, m, p = drawn.queries.shape[1], drawn.targets.shape[1], config.grid.token_dim
    cls = config.family == "mae"
    image = read_photo(photo, config.img_size)
    hidden = drawn.hidden(grid.num_tokens)[0].view(-1, h, w)[0].tolist()
    draw, side, top = Canvas(), 156.0, 66.0
    middle, low = top + side / 2, 266
    draw.image(16, top, side, side, picture_data(image))
    cells = [[HIDDEN if x else GRID for x in row] for row in hidden]
    draw.cells(16, top, cells, (side / w, 0), (0, side / h))
    draw.text(94, 28, "image, masked", 13, bold=True)
    draw.lines(94, low, [f"{grid.num_tokens} patches of {p}", f"{q} hidden, {v} visible"])
    draw.arrow((178, middle), (202, middle))

    # a few of the visible patches, cut from the photo; those at the centre show the animal
    def from_centre(token: int) -> int:
        row, column = divmod(token % (h * w), w)
        return (2 * row - h) ** 2 + (2 * column - w) ** 2

    size = config.tubelet[1]
    for i, token in enumerate(sorted(sorted(visible, key=from_centre)[:6])):
        row, column = divmod(token % (h * w), w)
        corner = (column * size, row * size, (column + 1) * size, (row + 1) * size)
        at = (210.0, middle - 81 + 27 * i, 24.0, 24.0)
        draw.image(*at, picture_data(image.crop(corner).resize((48, 48))))
        draw.rect(*at, "none", VISIBLE.colour, 2)
    draw.text(222, 28, "visible", 13, bold=True)
    draw.text(222, low, shape(v, p))
    draw.arrow((242, middle), (266, middle))
    lines = ["encoder", f"{config.depth} blocks", f"of {config.embed_dim}"]
    draw.box(270, top, 92, side, lines, ENCODER)
    draw.lines(316, low, ["sees no", "mask tokens"])
    draw.arrow((362, middle), (386, middle))
    latents = [CLASS_TOKEN] * cls + [VISIBLE] * 4
    draw.tokens(392, middle - 10.5 * len(latents), latents)
    draw.text(401, middle - 10.5 * len(latents) - 10, "latents", 13, bold=True)
    draw.text(401, low, shape(v + cls, config.embed_dim))
    draw.arrow((416, middle), (478, middle))
    draw.text(447, middle - 10, "linear")
    mixed = [VISIBLE, MASK_TOKEN, MASK_TOKEN] * 3
    mixed = [CLASS_TOKEN] * cls + mixed
    draw.tokens(486, middle - 10.5 * len(mixed), mixed, 17)
    draw.text(495, 28, f"+ {q} mask tokens", 13, bold=True)
    draw.text(495, low, shape(v + q + cls, config.decoder_embed_dim))
    draw.arrow((510, middle), (534, middle))
    lines = ["decoder", f"{config.decoder_depth} blocks", f"of {config.decoder_embed_dim}"]
    draw.box(538, middle - 46, 84, 92, lines, DECODER)
    draw.arrow((622, middle), (684, middle))
    draw.text(652, middle - 10, "linear")
    draw.lines(636, low, ["pixels", shape(m, p)])

    result = image
    if model is not None:
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None, :, None]
        with torch.no_grad():
            pasted = model.eval().reconstruct(pixels, drawn).pasted[0, :, 0].permute(1, 2, 0)
        result = Image.fromarray((255 * pasted).round().byte().numpy())
    name, role = ("target", TARGET) if model is None else ("reconstruction", PREDICTED)
    draw.image(688, top, side, side, picture_data(result))
    draw.rect(688, top, side, side, "none", role.colour, 2.5)
    draw.text(766, 28, name, 13, bold=True)
    draw.lines(766, low, [f"loss on the {m}", "hidden patches only"])
    alt = (
        f"MAE: a photo cut into {grid.num_tokens} patches, {q} of them hidden. The {v} visible ones go "
        f"through an encoder of {config.depth} blocks of {config.embed_dim}; {q} mask tokens join the "
        f"latents; a decoder of {config.decoder_depth} blocks of {config.decoder_embed_dim} predicts "
        f"{m} patches of {p} pixel values, and only these are compared with the {name}."
    )
    return draw.finish(298, alt)
