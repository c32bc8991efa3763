"""Batches of clips. Batch k depends only on the seed and k, so a run can resume at any step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vmae import at_root
from vmae.data.config import DataConfig
from vmae.data.reading.device_store import ClipLocation, DeviceStore, to_device
from vmae.data.reading.failures import Failures
from vmae.data.reading.reader import VideoError
from vmae.data.reading.sampling import Sampling, crop_square, place_square
from vmae.data.reading.sources import Source, Subset, VideoFiles, unwrap_subset
from vmae.data.reading.store import FrameStore, build_store
from vmae.data.reading.workers import as_is, check_workers, named_worker_deaths, start_worker
from vmae.data.sets.load import load_set, require_chosen
from vmae.data.sets.videos import SetError, Video, VideoSet
from vmae.support.files import printable

#: Replacements tried for an unreadable video before the run stops.
TRIES = 3
#: Steps from which a GPU's run has its store read by workers.
LONG = 500

T = TypeVar("T")


@dataclass
class Batch:
    """A batch of clips.

    clips    (B, C, T, H, W) uint8
    labels   (B,)
    failed   [(path, reason)] of unreadable videos met while reading the batch
    number   index of the batch, from 0; in testing only
    videos   indices of the videos; in testing only
    """

    clips: torch.Tensor
    labels: torch.Tensor
    failed: list[tuple[str, str]]
    number: int = 0
    videos: tuple[int, ...] = ()

    def pin_memory(self) -> Batch:
        """Called by DataLoader, so that the copy to the GPU overlaps with other work."""
        return Batch(self.clips.pin_memory(), self.labels.pin_memory(), self.failed)


class ClipDataset(Dataset[Batch]):
    """Clips of a source. A key is (draw, index), where `draw` seeds the sampling."""

    def __init__(self, source: Source, sampling: Sampling, seed: int) -> None:
        self.source, self.sampling, self.seed = source, sampling, seed
        kept, self._numbers = unwrap_subset(source)
        self._on_device = kept if isinstance(kept, DeviceStore) else None

    def __len__(self) -> int:
        return len(self.source.videos)

    def read(self, draw: int, index: int) -> np.ndarray:
        """A random training clip (T, S, S, 3), determined by seed, draw and index."""
        rng = np.random.default_rng((self.seed, draw, index))
        frames = self._frames(index, lambda n, sampling: sampling.train(n, rng))
        return crop_square(frames, rng)

    def locate(self, draw: int, index: int) -> ClipLocation:
        """Where in device memory the clip is that `read` would return."""
        assert self._on_device is not None
        rng = np.random.default_rng((self.seed, draw, index))
        number = int(self._numbers[index])
        length, height, width = self._on_device.shape(number)
        frames = self.sampling.of_video(self.source.videos[index]).train(length, rng)
        return ClipLocation(number, frames, *place_square(height, width, rng))

    def test_clips(self, index: int, clips: int = 1, crops: int = 1) -> torch.Tensor:
        """The test views of a video, (clips·crops, C, T, S, S), where its frames are kept."""
        if self._on_device is None:
            return torch.from_numpy(self.views(index, clips, crops)).permute(0, 4, 1, 2, 3)
        number = int(self._numbers[index])
        length, height, width = self._on_device.shape(number)
        sampling = self.sampling.of_video(self.source.videos[index])
        return self._on_device.gather(
            [
                ClipLocation(number, frames, *place_square(height, width, None, k, crops))
                for frames in sampling.test(length, clips)
                for k in range(crops)
            ]
        )

    def views(self, index: int, clips: int = 1, crops: int = 1) -> np.ndarray:
        """Test views (clips·crops, T, S, S, 3): clips along the video, squares along the long side."""
        frames = self._frames(index, lambda n, sampling: sampling.test(n, clips).ravel())
        each = np.split(frames, clips)
        return np.stack([crop_square(c, crop=k, crops=crops) for c in each for k in range(crops)])

    def _frames(self, index: int, choose: Callable[[int, Sampling], np.ndarray]) -> np.ndarray:
        try:
            sampling = self.sampling.of_video(self.source.videos[index])
            return self.source.read(index, lambda length: choose(length, sampling))
        except VideoError as error:
            path = printable(self.source.videos[index].path)
            raise VideoError(str(error) if path in str(error) else f"{path}: {error}") from None

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        failed: list[tuple[str, str]] = []
        if self._on_device is not None:
            places, labels = self._each(self.locate, keys, failed)
            return Batch(self._on_device.gather(places), torch.tensor(labels), failed)
        clips, labels = self._each(self.read, keys, failed)
        stacked = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)  # (B, C, T, H, W)
        return Batch(stacked, torch.tensor(labels), failed)

    def _each(
        self,
        get: Callable[[int, int], T],
        keys: Sequence[tuple[int, int]],
        failed: list[tuple[str, str]],
    ) -> tuple[list[T], list[int]]:
        """Results of `get` for each key, and labels; unreadable videos are replaced by others."""
        got: list[T] = []
        labels = []
        for draw, index in keys:
            for attempt in range(TRIES + 1):
                chosen = (
                    _replacement(self.seed, draw, index, attempt, len(self)) if attempt else index
                )
                try:
                    got.append(get(draw, chosen))
                    labels.append(self.source.videos[chosen].label)
                    break
                except VideoError as error:
                    failed.append((str(self.source.videos[chosen].path), str(error)))
            else:
                raise SetError(
                    f"{TRIES + 1} videos in a row could not be read; run `vmae scan` to list "
                    f"all unreadable videos. The last one was {failed[-1][1]}"
                )
        return got, labels


def _replacement(seed: int, draw: int, index: int, attempt: int, total: int) -> int:
    """A replacement for an unreadable video, the same one in every run."""
    return int(np.random.default_rng((seed, draw, index, attempt)).integers(total))


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Keys of batches `start`, `start + 1`, ...: slices of a sequence of permutations, one per epoch.

    Process `rank` of `world_size` takes its part of every batch, so the global batches do not
    depend on the number of processes.
    """

    def __init__(
        self,
        total: int,
        batch: int,
        steps: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch % world_size:
            raise ValueError(
                f"the batch size, {batch}, must be divisible by the number of processes, {world_size}"
            )
        self.total, self.batch, self.steps, self.seed, self.start = total, batch, steps, seed, start
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch // self.world_size
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start, self.steps):
            first = step * self.batch + self.rank * share
            keys = []
            for place in range(first, first + share):
                if place // self.total != epoch:
                    epoch = place // self.total
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.total)
                keys.append((epoch, int(order[place % self.total])))
            yield keys


def open_set(config: DataConfig) -> VideoSet:
    """The set named in a run's configuration. Raises SetError as `load_set` does."""
    require_chosen(config.path)
    root = None if config.root is None else at_root(config.root)
    return load_set(config.path, split=config.split, root=root)


def open_source(
    config: DataConfig,
    videos: Sequence[Video],
    img_size: int,
    num_frames: int,
    device: torch.device | None = None,
    left_out: dict[str, str] | None = None,
    **progress: Any,
) -> Source:
    """The videos as a store (built now if necessary) or as files, for clips of `num_frames` frames.

    device    the device that trains on the clips: with `config.cache_on_device` the frames are kept
              in its memory if they fit
    left_out  videos to leave out, by absolute path, with the reason; receives those that a store finds

    Raises SetError if more than a share `config.max_unreadable` of the videos is unreadable or
    shorter than a clip. If fewer are, a warning lists them and the run continues without them.
    Without a store, such videos are discovered only when they are read.
    """
    known = {} if left_out is None else left_out
    if not config.cache:
        used = [video for video in videos if os.path.abspath(video.path) not in known]
        return VideoFiles(used, img_size)
    store = build_store(at_root(config.cache_dir), videos, img_size, config.num_workers, **progress)
    sampling = Sampling.of(config, num_frames)
    failures = Failures(len(videos), config.max_unreadable)
    failed, long_enough = list(store.failed), []
    for i, video in enumerate(store.videos):
        if str(video.path) in known:
            continue
        try:
            sampling.of_video(video).check(store.shape(i)[0])
            long_enough.append(i)
        except VideoError as error:
            failed.append((str(video.path), f"{video.path}: {error}"))
    failures.add(failed)
    known |= failed
    kept = store if device is None or not config.cache_on_device else to_device(store, device)
    return kept if len(long_enough) == len(store) else Subset(kept, long_enough)


def train_loader(
    dataset: ClipDataset, batches: StepBatches, num_workers: int, pin: bool = False
) -> Iterator[Batch]:
    """Batches for training, by `num_workers` processes: from files; from a store in long GPU runs.

    A store keeps a GPU waiting, not a CPU. Raises WorkerError if workers cannot start, or one dies.
    """
    kept, _ = unwrap_subset(dataset.source)
    side = kept.size if isinstance(kept, VideoFiles) else 0
    if isinstance(kept, FrameStore) and pin and len(batches) >= LONG:
        side = min(kept.shape(0)[1:])
    if num_workers := num_workers if side else 0:
        clips = (2 * num_workers + 1) * batches.batch // batches.world_size  # that are kept ready
        check_workers(clips * dataset.sampling.num_frames * side**2 * 3)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=as_is,
        num_workers=num_workers,
        multiprocessing_context="spawn" if num_workers else None,
        worker_init_fn=partial(start_worker, os.getpid()),
        pin_memory=pin and not isinstance(kept, DeviceStore),
    )
    with named_worker_deaths():
        yield from loader
