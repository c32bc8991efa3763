"""What two stated differences from the published code are worth: python tests/bench/differences.py

1. Test views: frames are made smaller with antialiasing here, by plain bilinear sampling there.
2. Training for classification: here frames are made smaller and cropped to a square first, then
   come RandAugment and the random resized crop. There both work on the whole frame, and the crop is
   resized last, by plain bilinear sampling.

A small classifier learns from scratch to tell the shots of the film that ships apart, on early
clips of each shot, and is tested on later ones. Frames are 320:224 times as large as the model's, as
on Kinetics. Both orders are trained with the same seeds, and each classifier is tested on both kinds
of views; the results go to data/bench/DEVICE.json.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import results
import torch
import torch.nn.functional as F

from vmae.config import ModelConfig
from vmae.course.making.film import FILM, shot_bounds
from vmae.data import crop_square, rand_augment, random_erase, random_resized_crop
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.train import OptimConfig
from vmae.train.schedule import adamw, learning_rate, set_lr
from vmae.vit import VisionTransformer

SEEDS = (0, 1, 2)
MODEL = ModelConfig.videomae("tiny", img_size=32, tubelet=(2, 8, 8))
#: Short side of the frames that training reads, 320 / 224 times the model's.
SIDE = 46
OPTIM = OptimConfig(
    steps=2000, batch_size=32, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, warmup_ratio=0.1
)
#: Clips of a shot that are needed to train and to test on, and the share that is tested.
CLIPS, TESTED = 8, 0.25

VIEWS = {"antialiased": True, "plain": False}

Clips = list[tuple[np.ndarray, int]]


def film_clips() -> tuple[Clips, Clips, int]:
    """(frames (T, H, W, 3), shot) of early and of later clips, and the number of shots."""
    length = MODEL.num_frames
    shots, changes = shot_bounds(FILM, cut=15.0)
    end = int(0.8 * len(changes))  # credits follow
    train: Clips = []
    test: Clips = []
    number = 0
    for first, last in shots:
        starts = range(first, min(last, end) - length + 1, length)
        if len(starts) < CLIPS:
            continue
        frames = resize_frames(
            read_frames(FILM, lambda _, a=starts: np.arange(a[0], a[-1] + length)), SIDE
        )
        cut = round(len(starts) * (1 - TESTED))
        for i in range(len(starts)):
            if i != cut - 1:  # a gap between early and later clips
                (train if i < cut else test).append((frames[i * length : (i + 1) * length], number))
        number += 1
    return train, test, number


def resized(clips: torch.Tensor, antialias: bool) -> torch.Tensor:
    """Clips (B, C, T, H, W) uint8 with the short side of the model's frames."""
    scale = MODEL.img_size / min(clips.shape[-2:])
    size = [round(side * scale) for side in clips.shape[-2:]]
    out = F.interpolate(clips.flatten(1, 2), size=size, mode="bilinear", antialias=antialias)
    return out.unflatten(1, clips.shape[1:3])


def here(clips: torch.Tensor, generator: torch.Generator, rng: np.random.Generator) -> torch.Tensor:
    """Resize, square, RandAugment, crop."""
    small = resized(clips, antialias=True).permute(0, 2, 3, 4, 1).numpy()
    squares = np.stack([crop_square(frames, rng) for frames in small])
    clips = torch.from_numpy(squares).permute(0, 4, 1, 2, 3)
    clips = random_resized_crop(rand_augment(clips, generator=generator), generator=generator)
    return random_erase(clips, generator=generator)


def published(
    clips: torch.Tensor, generator: torch.Generator, rng: np.random.Generator
) -> torch.Tensor:
    """RandAugment, crop, resize: the crop is a rectangle of the whole frame."""
    frames = rand_augment(clips, generator=generator)
    height, width = clips.shape[-2:]
    crops = []
    for clip in frames:
        top, left, tall, wide = rectangle(height, width, rng)
        cut = clip[..., top : top + tall, left : left + wide]
        crops.append(F.interpolate(cut, size=[MODEL.img_size] * 2, mode="bilinear"))
    return random_erase(torch.stack(crops), generator=generator)


def rectangle(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height, width: 8 to 100 % of the frame, aspect 3:4 to 4:3 (`random_resized_crop`)."""
    for _ in range(10):
        area = rng.uniform(0.08, 1) * height * width
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, tall = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < tall <= height and 0 < wide <= width:
            return rng.integers(height - tall + 1), rng.integers(width - wide + 1), tall, wide
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def trained(augment: Callable[..., torch.Tensor], train: Clips, classes: int, seed: int):
    torch.manual_seed(seed)
    model = VisionTransformer(MODEL, classes)
    optimizer = adamw(model, OPTIM)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for step in range(OPTIM.steps):
        rows = rng.integers(len(train), size=OPTIM.batch_size)
        clips = torch.from_numpy(np.stack([train[i][0] for i in rows])).permute(0, 4, 1, 2, 3)
        labels = torch.tensor([train[i][1] for i in rows])
        set_lr(optimizer, learning_rate(step, OPTIM))
        optimizer.zero_grad()
        logits = model(augment(clips.contiguous(), generator, rng))
        F.cross_entropy(logits, labels, label_smoothing=0.1).backward()
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def accuracy(model: VisionTransformer, test: Clips, antialias: bool) -> float:
    clips = torch.from_numpy(np.stack([frames for frames, _ in test])).permute(0, 4, 1, 2, 3)
    small = resized(clips.contiguous(), antialias).permute(0, 2, 3, 4, 1).numpy()
    squares = torch.from_numpy(np.stack([crop_square(frames) for frames in small]))
    found = torch.cat([model(x.permute(0, 4, 1, 2, 3)).argmax(1) for x in squares.split(128)])
    return 100 * (found == torch.tensor([label for _, label in test])).double().mean().item()


def main() -> None:
    train, test, classes = film_clips()
    whole = torch.from_numpy(np.stack([frames for frames, _ in test])).permute(0, 4, 1, 2, 3)
    pixels = [resized(whole.contiguous(), antialias=x).float() for x in (True, False)]
    entry = {
        "shots": classes,
        "clips": [len(train), len(test)],
        "pixel difference": round((pixels[0] - pixels[1]).abs().mean().item(), 2),
    }
    orders = {"here": here, "published": published}
    arms: dict[str, list[float]] = {f"{order}, {view}": [] for order in orders for view in VIEWS}
    for seed in SEEDS:
        for order, augment in orders.items():
            model = trained(augment, train, classes, seed)
            for view, antialias in VIEWS.items():
                arms[f"{order}, {view}"].append(round(accuracy(model, test, antialias), 2))
    results.keep("differences", entry | {"accuracy": arms})


if __name__ == "__main__":
    main()
