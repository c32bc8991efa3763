"""How fast clips are read, as ratios measured in one run: python tests/bench/reading.py [SET]

- decord (open, seek, 8 of the frames) against PyAV decoding the same file from its start
- the store against decoding from files, in clips per second through the same loader
- two worker processes against one
- the share of a training step's time that is spent waiting for its batch: the `cpu` recipe's model
  on the store
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F

from vmae.course.making import render_set
from vmae.data import (
    SIZES,
    ClipDataset,
    Sampling,
    Source,
    StepBatches,
    Video,
    VideoFiles,
    build_store,
    load_set,
    read_frames,
    train_loader,
    with_sizes,
)
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import make_mask
from vmae.train import Recipe, adamw

ROUNDS = 5
SAMPLING = Sampling(8)


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def with_pyav(videos: list[Video]) -> None:
    for video in videos:
        with av.open(str(video.path)) as container:
            container.streams.video[0].thread_count = 1
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")


def with_decord(videos: list[Video]) -> None:
    for video in videos:
        read_frames(video.path)


def clips_a_second(source: Source, steps: int, batch: int, workers: int) -> float:
    """Through the training loader; the first batch, which starts the workers, is not counted."""
    keys = StepBatches(len(source.videos), batch, steps + 1, seed=0)
    batches = iter(train_loader(ClipDataset(source, SAMPLING, seed=0), keys, workers))
    next(batches)
    spent = seconds(lambda: [next(batches) for _ in range(steps)])
    return steps * batch / spent


class Training:
    """Steps of the `cpu` recipe's pre-training: waiting for the batch timed apart from the rest."""

    def __init__(self, source: Source, steps: int) -> None:
        self.config = Recipe.load("cpu").pretrain
        torch.manual_seed(0)
        self.model = MaskedAutoencoder(self.config.model)
        self.optimizer = adamw(self.model, self.config.optim)
        keys = StepBatches(len(source.videos), self.config.optim.batch_size, steps, seed=0)
        self.batches = iter(
            train_loader(ClipDataset(source, SAMPLING, seed=0), keys, num_workers=0)
        )
        self.share_waited(2)  # the first steps start threads and allocate

    def share_waited(self, steps: int) -> float:
        """Of the time that so many steps take."""
        waited = worked = 0.0
        for _ in range(steps):
            start = time.perf_counter()
            clips = next(self.batches).clips
            got = time.perf_counter()
            mask = make_mask(self.config.mask, self.model.grid, len(clips))
            loss = F.mse_loss(
                self.model(clips, mask), pixel_targets(clips, mask, self.model.config)
            )
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            waited += got - start
            worked += time.perf_counter() - got
        return waited / (waited + worked)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            path = Path(sys.argv[1])
        else:
            path = render_set(
                Path(folder) / "motion", with_sizes(SIZES["mini"], train=400), workers=1
            )
        videos = list(load_set(path).train)[:400]
        files = VideoFiles(videos, 16)
        store = build_store(Path(folder) / "stores", videos, 16)
        times: dict[str, list[float]] = {"pyav": [], "decord": []}
        rates: dict[str, list[float]] = {"files, 1 worker": [], "files, 2 workers": [], "store": []}
        training = Training(store, steps=2 + 40 * ROUNDS)
        waited = []
        for _ in range(ROUNDS):  # interleaved, so that a busy moment falls on all alike
            times["pyav"].append(seconds(lambda: with_pyav(videos)))
            times["decord"].append(seconds(lambda: with_decord(videos)))
            rates["files, 1 worker"].append(clips_a_second(files, 12, 64, workers=1))
            rates["files, 2 workers"].append(clips_a_second(files, 12, 64, workers=2))
            rates["store"].append(clips_a_second(store, 60, 64, workers=0))
            waited.append(training.share_waited(40))
        time_of = {name: statistics.median(values) for name, values in times.items()}
        rate = {name: statistics.median(values) for name, values in rates.items()}
        frames = int(np.sum([store.shape(i)[0] for i in range(len(store))]))
        print(
            json.dumps(
                {
                    "decord over PyAV, frames per second": round(
                        time_of["pyav"] / time_of["decord"], 2
                    ),
                    "decord, frames per second": round(frames / time_of["decord"]),
                    "store over files with 1 worker": round(
                        rate["store"] / rate["files, 1 worker"], 1
                    ),
                    "store over files with 2 workers": round(
                        rate["store"] / rate["files, 2 workers"], 1
                    ),
                    "2 workers over 1": round(
                        rate["files, 2 workers"] / rate["files, 1 worker"], 2
                    ),
                    "share of a training step spent waiting, store": round(
                        statistics.median(waited), 4
                    ),
                    "clips per second": {name: round(value) for name, value in rate.items()},
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
