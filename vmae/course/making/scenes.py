"""Moving scenes of photos and film frames: the two harder levels of the motion set.

Every motion is stationary: its phase is uniform, and the picture wraps around or continues by
reflection, so a single frame has the same distribution in either direction of motion. Reversing the
frames of one class of a pair gives the other, so a shuffled clip does not reveal which of the two it is.

Lengths are in half sides of the frame, whose centre is (0, 0); x points right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from vmae.course.making.pictures import random_crop
from vmae.data.sets.motion_specs import SCENES


def texture(
    rng: np.random.Generator, split: str, velocity: np.ndarray, frames: int, size: int
) -> np.ndarray:
    """A photo or film frame that drifts by `velocity` (x, y) per frame: (T, H, W, 3) uint8."""
    ground = _picture(random_crop(rng, split, size))
    shift = rng.uniform(-2, 2, 2) - np.arange(frames)[:, None] * velocity
    return _bytes(_ground(ground, shift, np.zeros(frames), size))


@dataclass
class _Motion:
    """The motion in a scene, frame by frame.

    camera   (T, 2)  displacement of the background
    passing  (T, 2)  displacement of the object
    roll     (T,)    rotation of the whole scene, in radians
    spin     (T,)    rotation of the object alone, in radians
    """

    camera: np.ndarray
    passing: np.ndarray
    roll: np.ndarray
    spin: np.ndarray


def scene(rng: np.random.Generator, split: str, label: int, frames: int, size: int) -> np.ndarray:
    """A scene of class `SCENES[label]`: (T, H, W, 3) uint8.

    In front of a photo or a film frame there is one large cut-out, or a row of three on a conveyor.
    In every class a small cut-out drifts about, the light flickers, and there is sensor noise.
    """
    name = SCENES[label]
    motion = _motion(rng, name, frames)
    place = rng.uniform(-1, 1, 2)
    radius = rng.uniform(0.5, 0.65)
    if name.startswith(("roll", "spin", "orbit")):  # whatever rotates, rotates about the centre
        turn = rng.uniform(0, 2 * np.pi)
        reach = (
            rng.uniform(0.0, 0.1) if name.startswith(("spin", "orbit")) else rng.uniform(0.3, 0.6)
        )
        place = reach * np.array([np.cos(turn), np.sin(turn)])
    if name.startswith("spin"):
        radius = rng.uniform(0.75, 0.95)
    video = _ground(
        _picture(random_crop(rng, split, size)),
        rng.uniform(-2, 2, 2) - motion.camera,
        -motion.roll,
        size,
    )
    pace, way = rng.uniform(0.0, 0.15), rng.uniform(0, 2 * np.pi)
    drift = np.arange(frames)[:, None] * pace * np.array([np.cos(way), np.sin(way)])
    small = _cut_out(rng, split, size // 4)
    video = _paste(video, small, rng.uniform(-1, 1, 2) + drift, np.zeros(frames), 0.14)
    large = _cut_out(rng, split, size // 2)
    turned = _turn(place, motion.roll) + motion.passing
    spun = rng.uniform(0, 2 * np.pi) + motion.spin + motion.roll
    if name.startswith("conveyor"):
        for k in range(3):
            video = _paste(video, large, turned + np.array([0, 2 * k / 3]), spun, 0.7 * radius)
    else:
        video = _paste(video, large, turned, spun, radius)
    light = 1 + rng.uniform(0, 0.12) * np.sin(
        np.arange(frames) * rng.uniform(0.3, 1.5) + rng.uniform(0, 2 * np.pi)
    )
    video = video * torch.from_numpy(light).float()[:, None, None, None]
    noise = rng.normal(0, rng.uniform(0, 5), (frames, 1, size, size)).astype(np.float32)
    return _bytes(video + torch.from_numpy(noise))


def _motion(rng: np.random.Generator, name: str, frames: int) -> _Motion:
    """The motion of a class, at a random speed."""
    sign = -1 if name.endswith(("left", "up")) else 1
    time = np.arange(frames) * sign
    still, straight = np.zeros(frames), np.zeros((frames, 2))
    across = np.stack([time * rng.uniform(0.12, 0.24), still], axis=1)
    up_down = across[:, ::-1]
    turning = time * rng.uniform(0.15, 0.3)  # in radians
    kind = name.rsplit("-", 1)[0]
    motion = _Motion(straight, straight, still, still)
    if kind == "pan":
        motion.camera = motion.passing = across
    elif kind == "tilt":
        motion.camera = motion.passing = up_down
    elif kind == "roll":
        motion.roll = turning
    elif kind == "pass":
        motion.passing = across
    elif kind == "follow":
        motion.camera = -across
    elif kind == "spin":
        motion.spin = turning
    elif kind == "orbit":
        angle = rng.uniform(0, 2 * np.pi) + turning * 1.5
        motion.passing = rng.uniform(0.45, 0.6) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    elif kind == "conveyor":
        motion.passing = up_down * 0.8
    else:  # speed-up and slow-down: from rest to full speed, or the reverse
        pace = np.linspace(0, 0.45, frames - 1)
        path = np.concatenate([[0.0], np.cumsum(pace if name == "speed-up" else pace[::-1])])
        way = rng.uniform(0, 2 * np.pi)
        motion.passing = path[:, None] * np.array([np.cos(way), np.sin(way)])
    return motion


def _turn(points: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """A point (2,) rotated about the centre by each angle (T,): (T, 2). Positive is clockwise."""
    x, y = points
    return np.stack(
        [x * np.cos(angles) - y * np.sin(angles), x * np.sin(angles) + y * np.cos(angles)], axis=1
    )


def _grid(size: int) -> torch.Tensor:
    """Coordinates (H, W, 2), x and y, of every pixel's centre."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)


def _rotated(points: torch.Tensor, angles: np.ndarray) -> torch.Tensor:
    """Points (H, W, 2) or (T, H, W, 2), rotated by each angle: (T, H, W, 2)."""
    cos, sin = (torch.from_numpy(f(angles)).float() for f in (np.cos, np.sin))
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    return torch.einsum("...hwi,tij->thwj" if points.ndim == 3 else "thwi,tij->thwj", points, turn)


def _ground(
    picture: torch.Tensor, shift: np.ndarray, angles: np.ndarray, size: int
) -> torch.Tensor:
    """A picture (3, S, S), continued by reflection, seen from a moving camera: (T, 3, H, W)."""
    grid = _rotated(_grid(size), angles) + torch.from_numpy(shift).float()[:, None, None]
    return _sample(picture, grid, "reflection")


def _paste(
    video: torch.Tensor,
    cut_out: torch.Tensor,
    centres: np.ndarray,
    angles: np.ndarray,
    radius: float,
) -> torch.Tensor:
    """Paste a cut-out (4, S, S), colour and opacity, into a video at `centres` (T, 2), wrapping around."""
    centre = torch.from_numpy(np.asarray(centres)).float()[:, None, None]
    offset = (_grid(video.shape[-1]) - centre + 1).remainder(2) - 1
    layer = _sample(cut_out, _rotated(offset, -angles) / radius, "zeros")
    return torch.lerp(video, layer[:, :3], layer[:, 3:])


def _sample(picture: torch.Tensor, grid: torch.Tensor, padding: str) -> torch.Tensor:
    frames = picture.expand(len(grid), *picture.shape)
    return F.grid_sample(frames, grid, padding_mode=padding, align_corners=False)


def _cut_out(rng: np.random.Generator, split: str, size: int) -> torch.Tensor:
    """A tinted crop with a random smooth outline, and its opacity: (4, S, S)."""
    x, y = _grid(size).unbind(-1)
    angle = torch.atan2(y, x)
    outline = torch.full_like(angle, 0.6)
    for wave in (1, 2, 3):
        outline += rng.uniform(0.08, 0.18) * torch.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    opacity = ((outline - torch.hypot(x, y)) * size / 4).clamp(0, 1)
    tint = rng.uniform(0, 255, 3)
    tint[rng.integers(3)] = 255 * rng.integers(2)
    colour = _picture(random_crop(rng, split, size)) * 0.5
    colour += 0.5 * torch.from_numpy(tint).float()[:, None, None]
    return torch.cat([colour, opacity[None]])


def _picture(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 as (3, H, W) float."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float()


def _bytes(video: torch.Tensor) -> np.ndarray:
    """(T, 3, H, W) float in [0, 255] as (T, H, W, 3) uint8."""
    return video.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
