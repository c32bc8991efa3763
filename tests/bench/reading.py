"""How fast clips are read, as ratios measured in one run: python tests/bench/reading.py [SET]

- decord (open, seek, 8 of the frames) against PyAV decoding the same file from its start
- the store against decoding from files, in clips a second through the same loader
- two worker processes against one
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

from vmae.data.annotations import Video, load_set
from vmae.data.clips import read_frames
from vmae.data.loader import ClipDataset, Source, StepBatches, VideoFiles, train_loader
from vmae.data.motion import SIZES, render_set, with_sizes
from vmae.data.sampling import Sampling
from vmae.data.store import build_store

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
        for _ in range(ROUNDS):  # interleaved, so that a busy moment falls on all alike
            times["pyav"].append(seconds(lambda: with_pyav(videos)))
            times["decord"].append(seconds(lambda: with_decord(videos)))
            rates["files, 1 worker"].append(clips_a_second(files, 12, 64, workers=1))
            rates["files, 2 workers"].append(clips_a_second(files, 12, 64, workers=2))
            rates["store"].append(clips_a_second(store, 60, 64, workers=0))
        time_of = {name: statistics.median(values) for name, values in times.items()}
        rate = {name: statistics.median(values) for name, values in rates.items()}
        frames = int(np.sum([store.length(i) for i in range(len(store))]))
        print(
            json.dumps(
                {
                    "decord over PyAV, frames a second": round(
                        time_of["pyav"] / time_of["decord"], 2
                    ),
                    "decord, frames a second": round(frames / time_of["decord"]),
                    "store over files with 1 worker": round(
                        rate["store"] / rate["files, 1 worker"], 1
                    ),
                    "store over files with 2 workers": round(
                        rate["store"] / rate["files, 2 workers"], 1
                    ),
                    "2 workers over 1": round(
                        rate["files, 2 workers"] / rate["files, 1 worker"], 2
                    ),
                    "clips a second": {name: round(value) for name, value in rate.items()},
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
