"""RandAugment on a batch of clips: each clip draws its own operations, applied to all its frames."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F

from vmae.vit import to_unit

REMAPS = ("autocontrast", "equalize", "invert", "posterize", "solarize", "solarize-add")
MOVES = ("rotate", "shear-x", "shear-y", "translate-x", "translate-y")
ENHANCEMENTS = ("color", "contrast", "brightness", "sharpness")
#: The operations of timm's policy with increasing strength; a larger index means no operation.
OPS = REMAPS + MOVES + ENHANCEMENTS
#: The largest level, and its effect: degrees, fractions of a side, change of an enhancement factor.
MAX_LEVEL = 10.0
ROTATE, SHEAR, TRANSLATE, ENHANCE = 30.0, 0.3, 0.45, 0.9
#: Standard deviation of the level, and the probability that a drawn operation is applied.
NOISE, PROBABILITY = 0.5, 0.5
#: Fill colour of the areas that a moved picture leaves uncovered.
FILL = 128.0
# Pillow's weights of red, green and blue in grey, out of 65,536.
_GREY = (19595.0, 38470.0, 7471.0)


def rand_augment(
    clips: torch.Tensor,
    ops: int = 4,
    magnitude: float = 7.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Change colours and geometry of clips (B, 3, T, H, W), uint8 or in [0, 1]; returns [0, 1].

    ops        number of operations drawn per clip, with replacement
    magnitude  mean level of an operation, 0 to 10

    The defaults are `rand-m7-n4-mstd0.5-inc1`, the policy of VideoMAE's fine-tuning. No operation
    mirrors a clip. A clip moves as a whole, so left stays left, but a rotation, of at most 30
    degrees, rotates directions of motion too. Resampling is bicubic, with PyTorch's kernel
    (a = -0.75); Pillow's has a = -0.5.
    """
    batch, device = len(clips), clips.device
    pixels = (255 * to_unit(clips)).round()
    for _ in range(ops):
        op = torch.randint(len(OPS), (batch,), generator=generator, device=device)
        level = torch.randn(batch, generator=generator, device=device) * NOISE + magnitude
        chance = torch.rand(2, batch, generator=generator, device=device)
        op = torch.where(chance[0] < PROBABILITY, op, len(OPS))
        sign = torch.where(chance[1] < 0.5, -1, 1)
        pixels = apply_ops(pixels, op, sign * level.clamp(0, MAX_LEVEL))
    return pixels / 255


def apply_ops(
    pixels: torch.Tensor,
    op: torch.Tensor,
    level: torch.Tensor,
    mode: str = "bicubic",
    select: bool | None = None,
) -> torch.Tensor:
    """Apply one operation per clip.

    pixels  (B, 3, T, H, W): integers from 0 to 255, as float; returned in the same form
    op      (B,): indices into OPS
    level   (B,): from -10 to 10; the sign matters for operations that have two directions
    mode    resampling of moved pictures: "bicubic" or "bilinear"
    select  compute each group of operations only for the clips that drew from it. This is the
            default on a CPU; elsewhere all clips are computed, so that shapes stay static and the
            host need not wait for the draws

    The statistics for autocontrast, equalize and contrast are per frame, as in Pillow, which the
    official code calls frame by frame.
    """
    select = pixels.device.type == "cpu" if select is None else select
    first = 0
    for group, work in (
        (REMAPS, _remap),
        (MOVES, partial(_move, mode=mode)),
        (ENHANCEMENTS, _enhance),
    ):
        drawn, first = (op >= first) & (op < first + len(group)), first + len(group)
        if not select:
            pixels = work(pixels, op, level)
        elif len(rows := drawn.nonzero()[:, 0]):
            pixels = pixels.index_copy(0, rows, work(pixels[rows], op[rows], level[rows]))
    return pixels


def _amount(name: str, op: torch.Tensor, level: torch.Tensor, most: float) -> torch.Tensor:
    """Strength (B,) of operation `name` for each clip, up to `most`; 0 for clips with another one."""
    return torch.where(op == OPS.index(name), level * (most / MAX_LEVEL), 0.0)


def _move(pixels: torch.Tensor, op: torch.Tensor, level: torch.Tensor, mode: str) -> torch.Tensor:
    """Rotate about the centre, shear about the top left corner, translate."""
    height, width = pixels.shape[-2:]
    angle = _amount("rotate", op, level, math.radians(ROTATE))
    shear_x = _amount("shear-x", op, level, SHEAR) * (height / width)
    shear_y = _amount("shear-y", op, level, SHEAR) * (width / height)
    right = shear_x + 2 * _amount("translate-x", op, level, TRANSLATE)
    down = shear_y + 2 * _amount("translate-y", op, level, TRANSLATE)
    cos, sin = angle.cos(), angle.sin()
    # Source coordinates of a pixel, in units of half the frame. A clip has one operation, so the
    # terms of all others are zero.
    rows = (
        cos,
        shear_x - sin * (height / width),
        right,
        shear_y + sin * (width / height),
        cos,
        down,
    )
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    pictures = pixels.flatten(1, 2)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures, grid, mode, "border", align_corners=False)
    covered = (grid.abs() <= 1).all(dim=-1)[:, None]
    return torch.where(covered, moved, FILL).round_().clamp_(0, 255).view_as(pixels)


def _remap(pixels: torch.Tensor, op: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Map every value through a table: 256 values for each channel of each frame."""
    values = torch.arange(256.0, device=pixels.device)
    index = pixels.flatten(3).long()
    ones = torch.ones((), device=pixels.device).expand(index.shape)
    counts = torch.zeros((*index.shape[:3], 256), device=pixels.device).scatter_add_(3, index, ones)
    level = level.abs().view(-1, 1, 1, 1)
    low, high = pixels.amin((3, 4))[..., None], pixels.amax((3, 4))[..., None]
    # Equalize with Pillow's integer arithmetic, which ignores the brightest value that occurs.
    brightest = counts.gather(3, high.long())
    step = ((index.shape[3] - brightest) / 255).floor()
    below = counts.cumsum(3) - counts
    equal = (((step / 2).floor() + below) / step.clamp(min=1)).floor()
    kept = 2 ** (4 + (level * (4 / MAX_LEVEL)).floor())  # step width of posterize
    threshold = 256 - (level * (256 / MAX_LEVEL)).floor()
    added = (level * (110 / MAX_LEVEL)).floor()
    tables = {
        "autocontrast": torch.where(high > low, (values - low) * 255 / (high - low), values),
        "equalize": torch.where(step > 0, equal, values),
        "invert": 255 - values,
        "posterize": (values / kept).floor() * kept,
        "solarize": torch.where(values < threshold, values, 255 - values),
        "solarize-add": torch.where(values < 128, values + added, values),
    }
    table = values.expand_as(counts)
    for name, new in tables.items():
        table = torch.where((op == OPS.index(name)).view(-1, 1, 1, 1), new, table)
    return table.floor().clamp(0, 255).gather(3, index).view_as(pixels)


def _enhance(pixels: torch.Tensor, op: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Blend with a duller picture or move away from it: colour, contrast, brightness, sharpness."""
    red, green, blue = (weight * x for weight, x in zip(_GREY, pixels.unbind(1), strict=True))
    grey = ((red + green + blue + 32768) / 65536).floor()[:, None]  # (B, 1, T, H, W)
    mean = (grey.mean((3, 4), keepdim=True) + 0.5).floor()
    smooth = pixels.clone()
    inner = pixels[..., 1:-1, 1:-1]  # Pillow does not change the border
    sums = F.avg_pool2d(pixels.flatten(1, 2), 3, stride=1, divisor_override=1).view_as(inner)
    smooth[..., 1:-1, 1:-1] = ((sums + 4 * inner) / 13 + 0.5).floor()

    dull = torch.where(_chosen(op, "contrast"), mean, 0.0)  # brightness: from black
    dull = torch.where(_chosen(op, "color"), grey, dull)
    dull = torch.where(_chosen(op, "sharpness"), smooth, dull)
    change = torch.stack([_amount(name, op, level, ENHANCE) for name in ENHANCEMENTS]).sum(0)
    factor = (1 + change).view(-1, 1, 1, 1, 1)
    return (dull + factor * (pixels - dull)).clamp_(0, 255).floor_()


def _chosen(op: torch.Tensor, name: str) -> torch.Tensor:
    return (op == OPS.index(name)).view(-1, 1, 1, 1, 1)
