"""How many clips per second a core feeds, by path, and how many cores a GPU needs: python tests/bench/feed.py

Clips of 16 frames at stride 4 and 224 pixels, as published for Kinetics, from videos of ten seconds with
256 rows, cut out of the film and scaled up. One process reads, with one thread; then WORKERS processes, as in
a run with so many `num_workers`, with the time that their batches take to reach the main process:

files         decoded whenever they are read
store         decoded once; frames copied out of memory-mapped files that the system has cached
device store  gathered where the frames are kept. On a GPU that costs its own time and hardly any of the
              CPU's; here the CPU stands in for it, so this one is not a number of cores, and has no workers

Results go to data/bench/DEVICE.json, with the cores for 1.5 times TARGET clips per second.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import results
import torch
from PIL import Image

from vmae.course.making import FILM
from vmae.data import Sampling, StepBatches, Video, VideoFiles, build_store, train_loader
from vmae.data.reading.device_store import DeviceStore
from vmae.data.reading.loader import LONG, ClipDataset, Source
from vmae.data.reading.reader import open_video
from vmae.data.writing.encode import write_video

#: Clips per second of V2 with a ViT-B that an H100 is expected to train, and the margin over it.
TARGET, MARGIN = 2800, 1.5
VIDEOS, FRAMES, SIZE, BATCH, ROUNDS = 12, 250, (340, 256), 12, 5
WORKERS = 2
SAMPLING = Sampling(16, 4)


def make_videos(folder: Path) -> list[Video]:
    """Stretches of the film, 340x256."""
    film, videos = open_video(FILM), []
    for number in range(VIDEOS):
        frames = film.frames(np.arange(1000 + 700 * number, 1000 + 700 * number + FRAMES))
        large = [
            np.asarray(Image.fromarray(x).resize(SIZE, Image.Resampling.BICUBIC)) for x in frames
        ]
        path = folder / f"{number}.mp4"
        write_video(path, np.stack(large), fps=25)
        videos.append(Video(path, 0))
    return videos


def seconds_per_clip(source: Source, batches: int, num_workers: int = 0) -> float:
    """Of reading in this process, or in `num_workers` others."""
    # Long enough, and pinned where there is a GPU: otherwise no worker reads a store.
    keys = StepBatches(len(source.videos), BATCH, LONG, seed=0)
    dataset = ClipDataset(source, SAMPLING, seed=0)
    loader = train_loader(dataset, keys, num_workers, pin=num_workers > 0)
    for _ in range(1 + 2 * num_workers):  # workers have these ready before anybody waits for them
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    spent = time.perf_counter() - start
    loader.close()  # ends the workers
    return spent / (batches * BATCH)


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")  # nothing is pinned without a GPU
    with tempfile.TemporaryDirectory() as folder:
        videos = make_videos(Path(folder))
        store = build_store(Path(folder) / "stores", videos, 224, workers=1)
        paths: dict[str, tuple[Source, int]] = {
            "files": (VideoFiles(videos, 224), 2),
            "store": (store, 10),
            "device store": (DeviceStore(store, torch.device("cpu")), 10),
        }
        spent: dict[str, list[float]] = {name: [] for name in paths}
        shared: dict[str, list[float]] = {"files": [], "store": []}
        for _ in range(ROUNDS):  # interleaved, so that a busy moment falls on all alike
            for name, (source, batches) in paths.items():
                spent[name].append(seconds_per_clip(source, batches))
                if name in shared:
                    shared[name].append(seconds_per_clip(source, 3 * batches, WORKERS))
    rates = {name: 1 / statistics.median(values) for name, values in spent.items()}
    needed = {name: math.ceil(MARGIN * TARGET / rates[name]) for name in ("files", "store")}
    results.keep(
        "feed",
        {
            "clips per second of a core": {name: round(rate, 1) for name, rate in rates.items()},
            f"clips per second of {WORKERS} workers": {
                name: round(1 / statistics.median(values), 1) for name, values in shared.items()
            },
            "cores for 1.5 times 2,800 clips per second": needed,
            "the same, each decoded video used twice": {"files": math.ceil(needed["files"] / 2)},
        },
    )


if __name__ == "__main__":
    main()
