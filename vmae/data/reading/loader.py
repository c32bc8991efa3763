"""Batches: which clips make up step k is a function of the seed and k, so a run can resume anywhere."""

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
from vmae.data.reading.reader import FrameSelector, VideoError
from vmae.data.reading.sampling import Sampling, crop_square, place_square
from vmae.data.reading.sources import Source, Subset, VideoFiles, unwrap_subset
from vmae.data.reading.store import build_store
from vmae.data.reading.workers import end_with_parent, named_worker_deaths
from vmae.data.sets.load import load_set
from vmae.data.sets.videos import SetError, Video, VideoSet

#: Other videos tried in place of one that cannot be read, before the run stops.
TRIES = 3

T = TypeVar("T")


@dataclass
class Batch:
    """clips (B, C, T, H, W) uint8 · labels (B,) · failed: [(path, reason)] met on the way.

    number   of a test: which batch this is, from 0
    """

    clips: torch.Tensor
    labels: torch.Tensor
    failed: list[tuple[str, str]]
    number: int = 0

    def pin_memory(self) -> Batch:
        """Called by the loader, so that the copy to a GPU runs beside other work."""
        return Batch(self.clips.pin_memory(), self.labels.pin_memory(), self.failed)


class ClipDataset(Dataset[Batch]):
    """Clips of a source. A key is (draw, index): `draw` seeds the sampling."""

    def __init__(self, source: Source, sampling: Sampling, seed: int) -> None:
        self.source, self.sampling, self.seed = source, sampling, seed
        kept, self._numbers = unwrap_subset(source)
        self._on_device = kept if isinstance(kept, DeviceStore) else None

    def __len__(self) -> int:
        return len(self.source.videos)

    def read(self, draw: int, index: int) -> np.ndarray:
        """A random clip (T, S, S, 3) for training; the same one for the same seed, draw and index."""
        rng = np.random.default_rng((self.seed, draw, index))
        frames = self._frames(index, lambda n: self.sampling.train(n, rng))
        return crop_square(frames, rng)

    def place(self, draw: int, index: int) -> ClipLocation:
        """Where the clip that `read` gives lies in a store in the device's memory."""
        assert self._on_device is not None
        rng = np.random.default_rng((self.seed, draw, index))
        number = int(self._numbers[index])
        length, height, width = self._on_device.shape(number)
        frames = self.sampling.train(length, rng)
        return ClipLocation(number, frames, *place_square(height, width, rng))

    def views(self, index: int, clips: int = 1, crops: int = 1) -> np.ndarray:
        """Clips over the video, and squares along its long side: (clips·crops, T, S, S, 3)."""
        frames = self._frames(index, lambda n: self.sampling.test(n, clips).ravel())
        each = np.split(frames, clips)
        return np.stack([crop_square(c, crop=k, crops=crops) for c in each for k in range(crops)])

    def _frames(self, index: int, choose: FrameSelector) -> np.ndarray:
        try:
            return self.source.read(index, choose)
        except VideoError as error:
            path = str(self.source.videos[index].path)
            raise VideoError(str(error) if path in str(error) else f"{path}: {error}") from None

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        failed: list[tuple[str, str]] = []
        if self._on_device is not None:
            places, labels = self._each(self.place, keys, failed)
            return Batch(self._on_device.gather(places), torch.tensor(labels), failed)
        clips, labels = self._each(self.read, keys, failed)
        return Batch(_stack(clips), torch.tensor(labels), failed)

    def _each(
        self,
        get: Callable[[int, int], T],
        keys: Sequence[tuple[int, int]],
        failed: list[tuple[str, str]],
    ) -> tuple[list[T], list[int]]:
        """What `get` gives for each key, or for another video in place of a bad one; and labels."""
        got: list[T] = []
        labels = []
        for draw, index in keys:
            for attempt in range(TRIES + 1):
                chosen = (
                    index if attempt == 0 else _another(self.seed, draw, index, attempt, len(self))
                )
                try:
                    got.append(get(draw, chosen))
                    labels.append(self.source.videos[chosen].label)
                    break
                except VideoError as error:
                    failed.append((str(self.source.videos[chosen].path), str(error)))
            else:
                raise SetError(
                    f"{TRIES + 1} videos in a row cannot be read; the last: {failed[-1][1]}"
                )
        return got, labels


def _another(seed: int, draw: int, index: int, attempt: int, total: int) -> int:
    """Another video in place of a bad one, the same in every run."""
    return int(np.random.default_rng((seed, draw, index, attempt)).integers(total))


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Keys of batch k, k + 1, ...: slices of an endless row of permutations, one an epoch.

    Process `rank` of `world_size` takes its part of every batch, so the global batches do not depend
    on the number of processes.
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
            raise ValueError(f"batch size {batch} is not divisible by {world_size} processes")
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
    """The set that a run's configuration names."""
    root = None if config.root is None else at_root(config.root)
    return load_set(at_root(config.path), split=config.split, root=root)


def open_source(
    config: DataConfig,
    videos: Sequence[Video],
    img_size: int,
    num_frames: int,
    device: torch.device | None = None,
    **progress: Any,
) -> Source:
    """The videos as a store (made now, if need be) or as files, for clips of `frames` frames.

    device   where batches of training clips are wanted: with `config.cache_on_device` the frames are kept
             there, if they fit

    Raises SetError where more than `config.max_unreadable` of the videos cannot be read or are shorter
    than a clip; fewer are listed in a warning, and the run goes on without them. Videos that are
    not kept in a store are found out when they are read.
    """
    if not config.cache:
        return VideoFiles(videos, img_size)
    store = build_store(at_root(config.cache_dir), videos, img_size, config.num_workers, **progress)
    sampling = Sampling.of(config, num_frames)
    failures = Failures(len(videos), config.max_unreadable)
    failed, long_enough = list(store.failed), []
    for i, video in enumerate(store.videos):
        try:
            sampling.check(store.shape(i)[0])
            long_enough.append(i)
        except VideoError as error:
            failed.append((str(video.path), f"{video.path}: {error}"))
    failures.add(failed)
    kept = store if device is None or not config.cache_on_device else to_device(store, device)
    return kept if len(long_enough) == len(store) else Subset(kept, long_enough)


def train_loader(
    dataset: ClipDataset, batches: StepBatches, num_workers: int, pin: bool = False
) -> Iterator[Batch]:
    """Batches for training. A store needs no worker processes; files do.

    Raises WorkerError where such a process dies while a batch is waited for.
    """
    kept, _ = unwrap_subset(dataset.source)
    files = isinstance(kept, VideoFiles)  # decoded each time, so that worker processes pay
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_is,
        num_workers=num_workers if files else 0,
        multiprocessing_context="spawn" if files and num_workers else None,
        worker_init_fn=partial(end_with_parent, os.getpid()),
        pin_memory=pin and not isinstance(kept, DeviceStore),
    )
    with named_worker_deaths():
        yield from loader


def ordered_batches(
    source: Source,
    sampling: Sampling,
    batch: int,
    clips: int = 1,
    crops: int = 1,
    max_unreadable: float = DataConfig.max_unreadable,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[list[tuple[str, str]]], list[tuple[str, str]]] = list,
) -> Iterator[Batch]:
    """Every video once, in order, for testing: `batch` videos at a time, each in clips·crops views.

    rank, world_size   of several processes, each reads every `world_size`-th batch
    gather             joins their lists of unreadable videos

    The views of a video follow one another; with one clip and one crop it is the centre. A video
    that cannot be read is left out, and nothing stands in for it; all such are reported at the end.
    Raises SetError where they are more than the share `max_unreadable`.
    """
    dataset = ClipDataset(source, sampling, seed=0)
    failed: list[tuple[str, str]] = []
    firsts = range(0, len(dataset), batch)
    for number in range(rank, len(firsts), world_size):
        first = firsts[number]
        views, labels = [], []
        for i in range(first, min(first + batch, len(dataset))):
            try:
                views.append(dataset.views(i, clips, crops))
                labels.append(source.videos[i].label)
            except VideoError as error:
                failed.append((str(source.videos[i].path), str(error)))
        if views:
            clip_views = _stack(list(np.concatenate(views)))
            yield Batch(clip_views, torch.tensor(labels), [], number)
    Failures(len(dataset), max_unreadable).add(gather(failed))


def _stack(clips: list[np.ndarray]) -> torch.Tensor:
    """Clips (T, H, W, C) as one batch (B, C, T, H, W)."""
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)


def _as_is(batch: Any) -> Any:
    return batch


def few_labels(
    videos: Sequence[Video], per_class: int, classes: Sequence[str], seed: int
) -> list[int]:
    """Numbers of `per_class` videos of each class, drawn by the seed.

    Raises SetError where a class has fewer.
    """
    rng = np.random.default_rng((seed, 17))
    chosen: list[int] = []
    for label, name in enumerate(classes):
        pool = [i for i, video in enumerate(videos) if video.label == label]
        if len(pool) < per_class:
            raise SetError(
                f"class {name!r} has {len(pool)} training videos, and {per_class} labels a class are "
                "asked for: use fewer, or None for all"
            )
        chosen += [pool[i] for i in rng.permutation(len(pool))[:per_class]]
    return chosen
