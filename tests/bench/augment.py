"""Augmentation against Kornia's, as ratios measured in one run: python tests/bench/augment.py

Each row is the fastest time of Kornia over ours, on 2 threads, for clips that the CPU trains on and
for larger ones. Kornia is no dependency of the course; install it to get its rows. What it does
differently, which no ratio shows, is said in each row.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable

import torch

from vmae.data import (
    mix,
    multi_scale_crop,
    rand_augment,
    random_erase,
    random_flip,
    random_resized_crop,
)

ROUNDS = 7
SHAPES = ((64, 3, 8, 16, 16), (8, 3, 16, 112, 112))
Work = Callable[[torch.Tensor], object]


def ours() -> dict[str, Work]:
    generator = torch.Generator().manual_seed(0)

    def mixed(x: torch.Tensor, mixup: float, cutmix: float) -> object:
        return mix(x, torch.eye(len(x)), mixup, cutmix, generator)

    return {
        "multi-scale crop": lambda x: multi_scale_crop(x, generator),
        "resized crop": lambda x: random_resized_crop(x, generator=generator),
        "flip": lambda x: random_flip(x, generator),
        "erasing": lambda x: random_erase(x, 1.0, generator),
        "RandAugment": lambda x: rand_augment(x, generator=generator),
        "mixup": lambda x: mixed(x, 0.8, 0.0),
        "cutmix": lambda x: mixed(x, 0.0, 1.0),
    }


def kornias(height: int, width: int, batch: int) -> dict[str, tuple[str, Work]]:
    """By the name of ours: what is done differently, and the work."""
    import kornia.augmentation as K
    from kornia.augmentation.auto import RandAugment

    labels = torch.arange(batch)

    def video(*steps: torch.nn.Module) -> Work:
        return K.VideoSequential(*steps, data_format="BCTHW", same_on_frame=True)

    def pairs(step: torch.nn.Module) -> Work:  # takes pictures: frames lie side by side
        return lambda x: step(x.flatten(2, 3), labels)

    crop = K.RandomResizedCrop((height, width), (0.08, 1.0), (3 / 4, 4 / 3))
    erase = K.RandomErasing((0.02, 1 / 3), (0.3, 1 / 0.3), p=1.0)
    policy = RandAugment(n=4, m=21)

    def clip_by_clip(x: torch.Tensor) -> object:  # it draws operations once a call
        return [policy(clip.transpose(0, 1)) for clip in x]

    return {
        "resized crop": ("", video(crop)),
        "flip": ("", video(K.RandomHorizontalFlip(p=0.5))),
        "erasing": ("a constant, no noise", video(erase)),
        "RandAugment": ("other levels, new signs in every frame", clip_by_clip),
        "mixup": ("a share for each clip, uniform", pairs(K.RandomMixUpV2(p=1.0))),
        "cutmix": (
            "cuts through frames that lie side by side",
            pairs(K.RandomCutMixV2(p=1.0, use_correct_lambda=True)),
        ),
    }


def seconds(work: Work, clips: torch.Tensor) -> float:
    start = time.perf_counter()
    work(clips)
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(2)
    found = importlib.util.find_spec("kornia") is not None
    if not found:
        print("Kornia is not installed: only our own times follow (pip install kornia)")
    for shape in SHAPES:
        batch, height, width = shape[0], *shape[-2:]
        clips = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        mine = ours()
        theirs = kornias(height, width, batch) if found else {}
        times: dict[str, list[float]] = {name: [] for name in mine}
        others: dict[str, list[float]] = {name: [] for name in theirs}
        for turn in range(ROUNDS + 1):  # interleaved; the first turn warms up
            for name, work in mine.items():
                spent = seconds(work, clips)
                other = seconds(theirs[name][1], clips) if name in theirs else 0.0
                if turn:
                    times[name].append(spent)
                    if name in theirs:
                        others[name].append(other)
        rows = {}
        for name, values in times.items():
            best = min(values)
            row: dict[str, object] = {"ours, ms a batch": round(1000 * best, 1)}
            if name in theirs:
                row["Kornia over ours"] = round(min(others[name]) / best, 2)
                if theirs[name][0]:
                    row["Kornia's is another"] = theirs[name][0]
            rows[name] = row
        print(json.dumps({"x".join(map(str, shape)): rows}, indent=1))


if __name__ == "__main__":
    main()
