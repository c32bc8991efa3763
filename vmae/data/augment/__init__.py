"""Augmentation of batches of clips, on their device."""

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
