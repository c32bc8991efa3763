"""Augmentation of a batch of clips, on the device that holds it."""

from vmae.data.augment.batched import (
    draw_crops,
    mix,
    multi_scale_crop,
    random_erase,
    random_flip,
    random_resized_crop,
    take_crops,
    view_of,
)
from vmae.data.augment.randaugment import rand_augment

__all__ = [
    "draw_crops",
    "mix",
    "multi_scale_crop",
    "rand_augment",
    "random_erase",
    "random_flip",
    "random_resized_crop",
    "take_crops",
    "view_of",
]
