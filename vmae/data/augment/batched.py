"""Augmentation of a batch of clips on its device, drawn independently for each clip."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from vmae.config import IMAGENET_MEAN, IMAGENET_STD
from vmae.vit import to_unit

#: Relative sides of VideoMAE's multi-scale crop; height and width differ by at most one step.
CROP_SCALES = (1.0, 0.875, 0.75, 0.66)
_PAIRS = tuple(
    (a, b) for i, a in enumerate(CROP_SCALES) for j, b in enumerate(CROP_SCALES) if abs(i - j) < 2
)
# The 13 positions of a crop, as fractions of the free space: corners, edges, centre, quarter points.
_PLACES = tuple((y / 4, x / 4) for y in range(5) for x in range(5) if (y + x) % 2 == 0)
#: Rectangles that random erasing draws: fractions of the frame, and their largest aspect ratio.
ERASED_AREA, ERASED_ASPECT = (0.02, 1 / 3), 1 / 0.3
#: Rectangles drawn per clip; the first that fits is used.
TRIES = 10


def multi_scale_crop(clips: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """VideoMAE's pre-training augmentation: crop at one of 10 sizes and 13 positions, resize back.

    clips (B, C, T, H, W), uint8 or float in [0, 1]; returns float in [0, 1], the same shape. All
    frames of a clip get the same crop. Source: `GroupMultiScaleCrop`.
    """
    return take_crops(clips, draw_crops(len(clips), generator, clips.device))


def draw_crops(
    count: int, generator: torch.Generator | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sides and centres of `count` multi-scale crops, (count, 2) each, row before column.

    Sides are fractions of the frame's; centres are in coordinates from -1 to 1.
    """
    sides = _table(_PAIRS, device)[_draw(len(_PAIRS), count, generator, device)]
    places = _table(_PLACES, device)[_draw(len(_PLACES), count, generator, device)]
    return sides, (2 * places - 1) * (1 - sides)


def take_crops(clips: torch.Tensor, crops: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Crops from `draw_crops`, resized back to the shape of `clips`: float in [0, 1]."""
    return _resampled(clips, *crops)


def random_resized_crop(
    clips: torch.Tensor,
    area: tuple[float, float] = (0.08, 1.0),
    generator: torch.Generator | None = None,
    aspect: float = 4 / 3,
) -> torch.Tensor:
    """VideoMAE's fine-tuning crop: a rectangle of random size and position, resized to the frame.

    clips   (B, C, T, H, W), uint8 or float in [0, 1]; returns float in [0, 1], the same shape
    area    smallest and largest fraction of the frame to keep
    aspect  largest aspect ratio, in either direction

    All frames of a clip get the same crop. If none of ten rectangles fits into the frame, the whole
    frame is kept.
    """
    height, width = clips.shape[-2:]
    boxes, fits = _rectangles(clips, area, aspect, (height, width), generator)
    whole = _table((0, 0, height, width), clips.device)
    top, left, tall, wide = torch.where(fits[:, None], boxes, whole).unbind(1)
    sides = torch.stack((tall / height, wide / width), 1)
    corners = torch.stack((top / height, left / width), 1)
    return _resampled(clips, sides, 2 * corners + sides - 1)


def random_flip(clips: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Mirror each clip (B, C, T, H, W) left to right with probability 1/2.

    Not for sets whose labels depend on left and right, such as the motion set and Something-Something.
    """
    return take_flips(clips, draw_flips(len(clips), generator, clips.device))


def draw_flips(count: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
    """Which of `count` clips to mirror, (count,) bool: each with probability 1/2."""
    return torch.rand(count, generator=generator, device=device) < 0.5


def take_flips(clips: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Clips (B, C, T, H, W), mirrored left to right where `flips` (B,) says so."""
    return torch.where(flips.view(-1, 1, 1, 1, 1), clips.flip(-1), clips)


def random_erase(
    clips: torch.Tensor,
    probability: float = 0.25,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Replace one rectangle of a clip by noise, at the same position in all frames, with a probability.

    clips (B, 3, T, H, W), uint8 or float in [0, 1]; returns float. The noise is independent
    for every pixel of every frame. It is standard normal after the model's normalisation, so its
    values here may be outside [0, 1]. Source: `RandomErasing`, mode "pixel", cube.
    """
    height, width = clips.shape[-2:]
    device = clips.device
    # The rectangle must be smaller than the frame in both directions.
    most = height - 1, width - 1
    boxes, fits = _rectangles(clips, ERASED_AREA, ERASED_ASPECT, most, generator)
    chosen = torch.rand(len(clips), generator=generator, device=device) < probability
    inside = _inside(boxes, height, width) & (fits & chosen).view(-1, 1, 1, 1, 1)
    noise = torch.randn(clips.shape, generator=generator, device=device)
    mean, std = (_table(x, device).view(-1, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.where(inside, mean + std * noise, to_unit(clips))


def mix(
    clips: torch.Tensor,
    targets: torch.Tensor,
    mixup: float = 0.8,
    cutmix: float = 1.0,
    generator: torch.Generator | None = None,
    each: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix every clip and its target with a partner's: clip i with clip B - 1 - i.

    clips    (B, C, T, H, W), uint8 or float in [0, 1]
    targets  (B, classes): probabilities, float
    mixup    alpha of the Beta distribution from which a clip's own weight is drawn; 0 disables mixup
    cutmix   the same for cutmix, which pastes a rectangle from the partner; 0 disables cutmix. If
             both are enabled, a fair coin decides
    each     draw weight, coin and rectangle for each clip; otherwise once per batch, as published

    Returns the mixed clips, float, and their targets. In cutmix the weight of a clip's own target is
    exactly its remaining area, even if the frame's edge cuts off the rectangle.
    """
    if not mixup and not cutmix:
        raise ValueError(
            "mixup and cutmix are both 0, so there is nothing to mix: set at least one of them "
            "to a value above 0"
        )
    count = len(clips) if each else 1
    height, width = clips.shape[-2:]
    device = clips.device
    chance = torch.rand(3, count, generator=generator, device=device)
    odds = 0.5 if mixup and cutmix else float(mixup == 0)
    cut = chance[0] < odds
    alpha = torch.where(cut, cutmix or 1.0, mixup or 1.0)
    # torch.distributions.Beta takes no generator, so sample Beta from two gammas.
    first, second = torch._standard_gamma(alpha.expand(2, -1), generator=generator)
    share = first / (first + second)

    size = _table((height, width), device)
    sides = ((1 - share).sqrt()[:, None] * size).floor()
    centres = (chance[1:].T * size).floor()
    half = (sides / 2).floor()
    begin, end = ((centres + x).clamp(min=0).minimum(size) for x in (-half, half))
    pasted = _inside(torch.cat((begin, end - begin), 1), height, width)
    left = 1 - (end - begin).prod(1) / (height * width)
    weight = torch.where(cut.view(-1, 1, 1, 1, 1), 1.0 - pasted.float(), share.view(-1, 1, 1, 1, 1))
    share = torch.where(cut, left, share)[:, None]
    pixels = to_unit(clips)
    return (
        torch.lerp(pixels.flip(0), pixels, weight),
        torch.lerp(targets.flip(0), targets, share),
    )


def view_of(
    clips: torch.Tensor, view: str, generator: torch.Generator | None = None
) -> torch.Tensor:
    """What a classifier sees: "video", "single-frame" (the middle one, repeated) or "shuffled".

    The last two keep pixels of the clip but none of its motion.
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


@lru_cache
def _table(values: tuple, device: torch.device) -> torch.Tensor:
    """Constants as a float tensor, copied to the device once and not at every step."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def _resampled(clips: torch.Tensor, sides: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Crop each clip and resize the crop to the frame: float in [0, 1].

    sides    (B, 2) fractions of height and width
    centres  (B, 2) from -1 to 1, row before column
    """
    theta = torch.zeros(len(clips), 2, 3, device=clips.device)
    theta[:, 0, 0], theta[:, 1, 1] = sides[:, 1], sides[:, 0]
    theta[:, 0, 2], theta[:, 1, 2] = centres[:, 1], centres[:, 0]
    pictures = to_unit(clips).flatten(1, 2)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    cropped = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return cropped.view_as(clips)


def _rectangles(
    clips: torch.Tensor,
    area: tuple[float, float],
    aspect: float,
    most: tuple[int, int],
    generator: torch.Generator | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random rectangles in whole pixels, (B, 4): top, left, height, width; and whether one fits (B,).

    area    smallest and largest fraction of the frame
    aspect  largest aspect ratio in either direction; its logarithm is uniform
    most    largest height and width that fit
    """
    batch, (height, width) = len(clips), clips.shape[-2:]
    chance = torch.rand(4, batch, TRIES, generator=generator, device=clips.device)
    pixels = (area[0] + (area[1] - area[0]) * chance[0]) * (height * width)
    ratio = torch.exp((2 * chance[1] - 1) * math.log(aspect))
    tall, wide = (pixels * ratio).sqrt().round(), (pixels / ratio).sqrt().round()
    top = (chance[2] * (height - tall + 1)).floor().minimum(height - tall)
    left = (chance[3] * (width - wide + 1)).floor().minimum(width - wide)
    fits = (tall >= 1) & (wide >= 1) & (tall <= most[0]) & (wide <= most[1])
    first = fits.int().argmax(dim=1)[:, None, None].expand(-1, 1, 4)
    boxes = torch.stack((top, left, tall, wide), dim=-1).gather(1, first)[:, 0]
    return boxes, fits.any(dim=1)


def _inside(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Mask (B, 1, 1, H, W) of the pixels inside boxes (B, 4): top, left, height, width."""
    top, left, tall, wide = boxes[:, :, None].unbind(1)
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    across = (columns >= left) & (columns < left + wide)
    down = (rows >= top) & (rows < top + tall)
    return (down[:, :, None] & across[:, None, :])[:, None, None]
