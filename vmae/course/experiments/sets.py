"""The clips of the experiments, made from what ships: 16x16 pixels; grey and 8 or 16 frames, if not said.

The same clips may carry several labels, one per question: "how" does it move, "what" is it.

digits        a handwritten digit drifts over a black torus. how: one of 8 directions. what: the digit.
              Test clips show digits that are never used for training
textures      a window onto a photo or a film frame drifts. how: the direction. Test clips show
              pictures that are never used for training
images        not clips: coloured digits over dimmed photos, lesson 03's. Label: the digit
videos        of the recipe `cpu`: mp4 files, rendered and decoded on first use. Label: the class
film          Big Buck Bunny, whole frames squeezed to squares, contrast-normalised. what: which of
              its longer shots. Training clips are early in their shot, test clips late, with a gap
textures-16, film-16   the same with twice as many frames in the same time
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image

from vmae import ROOT, at_root
from vmae.course.making.film import FILM, FilmSpec, shot_bounds
from vmae.course.making.motion import render_set
from vmae.course.making.pictures import pictures, random_crop
from vmae.data.reading.reader import FrameSelector, open_video
from vmae.data.reading.sources import Source
from vmae.data.sets.motion_specs import spec_named
from vmae.data.sets.videos import Video

SIZE = 16
DIRECTIONS = 8
#: Of digits and textures, drawn between these, in pixels per frame of a clip of 8 frames. With a
#: single speed, random weights would already tell most directions apart.
SPEEDS = (0.5, 2.0)
#: Frames of the film that a clip covers, whether it has 8 frames of them or 16.
SPAN = 16
#: The length in frames from which a shot is a class of the film, and the share of it for training.
SHOT, EARLY = 60, 0.6
#: Frames of a shot between its training and its test clips.
GAP = 8
#: The digits of scikit-learn that are used for training; the rest is for testing.
TRAINING_DIGITS = 1437


@dataclass
class Clips:
    """Clips (N, T, H, W) or (N, T, H, W, 3) uint8 in memory, a source for the package's training.

    labels   (N,) by question; training reads those of the first question
    """

    pixels: np.ndarray
    labels: dict[str, np.ndarray]

    @cached_property
    def videos(self) -> list[Video]:
        """Names and labels: nothing is read from files."""
        numbered = enumerate(next(iter(self.labels.values())))
        return [Video(Path(f"clip-{i}"), int(label)) for i, label in numbered]

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames of a clip, (T, H, W, C)."""
        frames = self.pixels[index][choose(self.pixels.shape[1])]
        return frames if frames.ndim == 4 else frames[..., None]

    def __getitem__(self, rows: slice) -> Clips:
        return Clips(self.pixels[rows], {q: labels[rows] for q, labels in self.labels.items()})


@dataclass
class ClipSet:
    """Clips to pre-train on, clips to train a probe on, clips to choose rates by, clips to test on."""

    unlabelled: Clips
    train: Clips
    validation: Clips
    test: Clips

    @property
    def num_frames(self) -> int:
        """T."""
        return self.test.pixels.shape[1]

    @property
    def questions(self) -> tuple[str, ...]:
        """The labels that the clips carry."""
        return tuple(self.test.labels)


@lru_cache(maxsize=4)
def make_set(name: str, unlabelled: int = 16_000, train: int = 3_000, test: int = 2_000) -> ClipSet:
    """A set by name, always the same clips; takes up to a minute.

    unlabelled, train, test   numbers of clips; as many for validation as for the test. The film gives
                              what it has, at most this many
    """
    kind, _, frames = name.partition("-")
    num_frames = int(frames or 8)
    if kind == "images":
        images = coloured_digits(unlabelled // 4, "train")  # lesson 03 has 4,000 and 1,000
        validation, judged = (coloured_digits(test // 2, "test", seed=seed) for seed in (1, 0))
        return ClipSet(images, images, validation, judged)
    if kind == "videos":
        return _videos()
    if kind == "film":
        return _film(num_frames, unlabelled, train, test)
    render = {"digits": _digits, "textures": _textures}[kind]
    clips = render("train", num_frames, max(unlabelled, train))
    held_out = render("test", num_frames, 2 * test)
    return ClipSet(clips[:unlabelled], clips[:train], held_out[:test], held_out[test:])


def _velocities(rng: np.random.Generator, how: np.ndarray, num_frames: int) -> np.ndarray:
    """(N, 2): pixels per frame, rows and columns, for each direction."""
    angles = 2 * np.pi * how / DIRECTIONS
    speeds = rng.uniform(*SPEEDS, size=(len(how), 1)) * 8 / num_frames
    return speeds * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _digits(split: str, num_frames: int, count: int) -> Clips:
    from sklearn.datasets import load_digits

    rng, digits = np.random.default_rng((0, split == "test")), load_digits()
    pool = (0, TRAINING_DIGITS) if split == "train" else (TRAINING_DIGITS, len(digits.images))
    chosen, how = rng.integers(*pool, size=count), np.arange(count) % DIRECTIONS
    time = np.arange(num_frames)[:, None]
    clips = np.zeros((count, num_frames, SIZE, SIZE), np.uint8)
    velocities = _velocities(rng, how, num_frames)
    for clip, number, velocity in zip(clips, chosen, velocities, strict=True):
        places = np.rint(rng.uniform(0, SIZE, 2) + time * velocity).astype(int)
        clip[:, :8, :8] = digits.images[number] * (255 / 16)
        for frame, place in zip(clip, places, strict=True):
            frame[:] = np.roll(frame, tuple(place), axis=(0, 1))
    return Clips(clips, {"how": how, "what": digits.target[chosen]})


def coloured_digits(count: int, split: str, size: int = SIZE, seed: int = 0) -> Clips:
    """Lesson 03's images: a coloured digit of scikit-learn over a dimmed crop; clips of one frame."""
    from sklearn.datasets import load_digits

    rng, digits = np.random.default_rng((seed, split == "test")), load_digits()
    pool = (0, TRAINING_DIGITS) if split == "train" else (TRAINING_DIGITS, len(digits.images))
    chosen = rng.integers(*pool, size=count)
    crops = np.stack([random_crop(rng, split, size) for _ in range(min(count, 400))])
    ground = 0.08 * crops[rng.integers(len(crops), size=count)]  # (N, H, W, 3)
    ink = digits.images[chosen].repeat(size // 8, 1).repeat(size // 8, 2)[..., None] / 16
    colour = rng.uniform(120, 255, (count, 1, 1, 3))
    pixels = (ground * (1 - ink) + colour * ink).astype(np.uint8)
    return Clips(pixels[:, None], {"all labels": digits.target[chosen]})


def _videos() -> ClipSet:
    """The videos of the recipe cpu; the first half of its test is for validation."""
    from vmae.train.finetune import open_sources
    from vmae.train.recipe import Recipe

    config = Recipe.load("cpu").finetune.replace(labels_per_class=None)
    path, lock = at_root(config.data.path), ROOT / "runs" / "videos.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):  # one process renders and decodes, the others find the files
        if spec := spec_named(path.name):
            render_set(path, spec, workers=1)
        sources = open_sources(config)

    def clips(source: Source) -> Clips:
        pixels = np.stack([source.read(i, np.arange) for i in range(len(source.videos))])
        return Clips(pixels, {"all labels": np.array([video.label for video in source.videos])})

    train, test = clips(sources.train), clips(sources.test)
    half = len(test.pixels) // 2
    return ClipSet(train, train, test[:half], test[half:])


def _textures(split: str, num_frames: int, count: int) -> Clips:
    rng, how = np.random.default_rng((1, split == "test")), np.arange(count) % DIRECTIONS
    pools = [[Image.fromarray(x).convert("L") for x in pool] for pool in pictures(split)]
    velocities = _velocities(rng, how, num_frames)
    return Clips(np.stack([_window(rng, pools, v, num_frames) for v in velocities]), {"how": how})


def _window(
    rng: np.random.Generator, pools: list[list[Image.Image]], velocity: np.ndarray, frames: int
) -> np.ndarray:
    """A picture that drifts past a window, which never leaves it: (T, SIZE, SIZE) uint8."""
    shifts = -velocity * np.arange(frames)[:, None] / SIZE  # of the window, in its own sides
    extent = np.ptp(shifts, axis=0)
    for _ in range(8):  # until there is some contrast
        pool = pools[rng.integers(2)]
        picture = pool[rng.integers(len(pool))]
        height, width = picture.size[::-1]
        side = rng.uniform(0.25, 0.5) * min(height, width)
        room = np.array([height, width]) - side * (1 + extent)
        corners = rng.uniform(0, room) + side * (shifts - shifts.min(axis=0))
        boxes = [(x, y, x + side, y + side) for y, x in corners]
        size = (SIZE, SIZE)
        clip = [picture.resize(size, Image.Resampling.BILINEAR, box=box) for box in boxes]
        pixels = np.stack([np.asarray(frame) for frame in clip])
        if pixels.std() >= 25:
            break
    return pixels


def _film(num_frames: int, unlabelled: int, train: int, test: int) -> ClipSet:
    frames, bounds = _film_frames()
    shots = [(first, end) for first, end in bounds if end - first >= SHOT]
    ends = [first + int(EARLY * (end - first)) for first, end in shots]  # of the early parts
    early = [np.arange(first, end - SPAN + 1) for (first, _), end in zip(shots, ends, strict=True)]
    late = [
        np.arange(start + GAP, end - SPAN + 1) for (_, end), start in zip(shots, ends, strict=True)
    ]
    short = [np.arange(a, b - SPAN + 1) for a, b in bounds if b - a < SHOT]

    def clips(starts: list[np.ndarray], most: int) -> Clips:
        index = np.arange(num_frames) * (SPAN // num_frames)
        kept = [
            _spread(x, most // len(starts)) for x in starts
        ]  # as many of each shot, if it has them
        pixels = [_standardised(frames[start + index]) for x in kept for start in x]
        return Clips(
            np.stack(pixels), {"what": np.repeat(np.arange(len(kept)), list(map(len, kept)))}
        )

    held_out = clips(late, 2 * test)
    parts = held_out[::2], held_out[1::2]  # of every shot
    return ClipSet(clips(early + short, unlabelled), clips(early, train), *parts)


def _spread(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values, evenly spread."""
    chosen = np.linspace(0, len(values) - 1, min(most, len(values)))
    return values[np.unique(chosen.astype(int))]


@lru_cache(maxsize=1)
def _film_frames() -> tuple[np.ndarray, list[tuple[int, int]]]:
    """All grey frames (N, SIZE, SIZE), and the shots before the credits as (first, end)."""
    bounds, change = shot_bounds(FILM, FilmSpec.cut)
    end = int(len(change) * (1 - FilmSpec.credits))
    reader, size = open_video(FILM), (SIZE, SIZE)
    parts = []
    for first in range(0, end, 256):
        pixels = torch.from_numpy(reader.frames(np.arange(first, min(first + 256, end))))
        grey = pixels.float().mean(dim=-1)[:, None]  # (T, 1, H, W)
        parts.append(F.interpolate(grey, size=size, mode="bilinear", antialias=True)[:, 0].numpy())
    return np.concatenate(parts), [shot for shot in bounds if shot[1] <= end]


def _standardised(clip: np.ndarray) -> np.ndarray:
    """A clip with mean 128 and standard deviation 50: brightness and contrast name no shot."""
    return np.clip(128 + 50 * (clip - clip.mean()) / (clip.std() + 1), 0, 255).astype(np.uint8)
