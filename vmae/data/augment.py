"""Changes to a batch of clips, on the device that holds it, different for every clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vmae.vit import to_unit

#: Relative sides of VideoMAE's multi-scale crop; height and width are at most one step apart.
CROP_SCALES = (1.0, 0.875, 0.75, 0.66)
_PAIRS = [
    (a, b) for i, a in enumerate(CROP_SCALES) for j, b in enumerate(CROP_SCALES) if abs(i - j) < 2
]
# The 13 places of a crop, as shares of the free room: corners, edges, centre and quarter points.
_PLACES = [(y / 4, x / 4) for y in range(5) for x in range(5) if (y + x) % 2 == 0]


def multi_scale_crop(clips: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """VideoMAE's only augmentation in pre-training: crop at one of 10 sizes and 13 places, resize back.

    clips (B, C, T, H, W), uint8 or float in [0, 1]; returns float in [0, 1], the same shape. All
    frames of a clip are cropped alike. Source: `GroupMultiScaleCrop`.
    """
    batch, channels, frames, height, width = clips.shape
    device = clips.device
    sides = torch.tensor(_PAIRS, device=device)[_draw(len(_PAIRS), batch, generator, device)]
    places = torch.tensor(_PLACES, device=device)[_draw(len(_PLACES), batch, generator, device)]
    centres = (2 * places - 1) * (1 - sides)  # in [-1, 1], row before column
    theta = torch.zeros(batch, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = sides[:, 1], sides[:, 0]
    theta[:, 0, 2], theta[:, 1, 2] = centres[:, 1], centres[:, 0]
    pictures = to_unit(clips).reshape(batch, channels * frames, height, width)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    cropped = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return cropped.view_as(clips)


def view_of(
    clips: torch.Tensor, view: str, generator: torch.Generator | None = None
) -> torch.Tensor:
    """What a classifier is shown: "video", "single-frame" (the middle one, repeated), "shuffled".

    The last two hold the pixels of the clip and none of its motion.
    """
    batch, _, frames = clips.shape[:3]
    if view == "single-frame":
        middle = clips[:, :, frames // 2 : frames // 2 + 1]
        return middle.expand_as(clips)
    if view == "shuffled":
        order = torch.rand(batch, frames, generator=generator, device=clips.device).argsort(1)
        return clips.transpose(1, 2)[
            torch.arange(batch, device=clips.device)[:, None], order
        ].transpose(1, 2)
    return clips


def _draw(
    count: int, batch: int, generator: torch.Generator | None, device: torch.device
) -> torch.Tensor:
    return torch.randint(count, (batch,), generator=generator, device=device)
