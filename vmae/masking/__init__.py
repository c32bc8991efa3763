"""Masks: the tokens the encoder sees, the positions the decoder is queried at, and the targets.

Every scheme draws a whole batch on the device, with the same counts for every clip, so that a
training step has static shapes and never waits for the device.
"""

from __future__ import annotations

import torch

from vmae.config import MaskConfig
from vmae.grid import TokenGrid
from vmae.masking.decoder_masks import (
    all_hidden,
    drop_visible,
    dual,
    dual_random,
    every_token,
    frame_maps,
    independent,
    maps_on,
    running_cell_maps,
)
from vmae.masking.encoder_masks import draw_visible, register_mask, tube_visible
from vmae.masking.mask import Mask, MaskError


def make_mask(
    config: MaskConfig,
    grid: TokenGrid,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Mask:
    """Draw masks for a batch of clips.

    Raises MaskError if the ratio leaves nothing visible or nothing to predict, or if the decoder
    mask does not fit the grid or the encoder mask.

    >>> grid = TokenGrid((16, 224, 224), (2, 16, 16))
    >>> mask = make_mask(MaskConfig("tube", 0.9, None, "running-cell", 0.5), grid, 1)
    >>> mask.visible.shape[1], mask.queries.shape[1], mask.targets.shape[1]
    (160, 784, 704)
    """
    # encoder mask
    if config.mask_type == "tube":
        visible = tube_visible(
            grid, config.mask_ratio, config.tube_length, batch, generator, device
        )
    else:
        visible = draw_visible(config.mask_type, grid, config.mask_ratio, batch, generator, device)
    # decoder mask
    if config.decoder_mask_type == "every":
        return every_token(visible, grid)
    if config.decoder_mask_type == "all" or config.decoder_mask_ratio == 0:
        return all_hidden(visible, grid)
    if config.decoder_mask_type == "drop-visible":
        return drop_visible(visible, grid, config.decoder_mask_ratio, generator)
    if config.decoder_mask_type == "independent":
        return independent(visible, grid, config.decoder_mask_ratio, generator)
    if config.decoder_mask_type == "random":
        return dual_random(visible, grid, config.decoder_mask_ratio, generator)
    if config.mask_type != "tube" or config.tube_length is not None:
        raise MaskError(
            f"decoder mask {config.decoder_mask_type!r} requires tubes that span the whole clip: "
            "with other masks, the number of targets would differ between clips. Set mask_type "
            "to 'tube' without tube_length, or decoder_mask_type to 'all' or 'random'"
        )
    maps = maps_on(config.decoder_mask_type, grid, config.decoder_mask_ratio, visible.device)
    return dual(visible, grid, maps, generator)
