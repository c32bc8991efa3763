"""What a test reads: every video once, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from vmae.data.config import DataConfig
from vmae.data.reading.failures import Failures
from vmae.data.reading.loader import Batch, ClipDataset
from vmae.data.reading.reader import VideoError
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.sources import Source, VideoFiles, unwrap_subset
from vmae.data.reading.workers import run_parallel

#: Clips to decode from which a test has workers: they take seconds to start.
FEW = 128


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
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Every video once, in order, for testing: `batch` videos at a time, clips·crops views of each.

    rank, world_size   this process, and the number of processes: it reads every `world_size`-th batch
    gather             combines the processes' lists of unreadable videos
    num_workers        processes that decode files, from two on and if there are not just a few; the
                       batches are the same

    The views of a video are consecutive; a single view shows the centre. Unreadable videos are
    skipped, not replaced, and reported at the end.
    Raises SetError if their share exceeds `max_unreadable`, WorkerError as `train_loader` does.
    """
    dataset = ClipDataset(source, sampling, seed=0)
    failed: list[tuple[str, str]] = []
    firsts = range(0, len(dataset), batch)
    shares = {
        number: range(firsts[number], min(firsts[number] + batch, len(dataset)))
        for number in range(rank, len(firsts), world_size)
    }
    indices = [index for share in shares.values() for index in share]
    kept, _ = unwrap_subset(source)
    side = kept.size if isinstance(kept, VideoFiles) and len(indices) * clips >= FEW else 0
    parallel = num_workers if side else 0
    # Video by video, so that little shared memory is enough however large the batch is.
    work, size = partial(_views, dataset, clips, crops), sampling.num_frames * side**2 * 3
    read = run_parallel(work, indices, parallel, 1, clips * crops * size)
    for number, share in shares.items():
        views, labels, good = [], [], []
        for index, found in zip(share, read, strict=False):  # the rest is for later batches
            if isinstance(found, str):
                failed.append((str(source.videos[index].path), found))
                continue
            views.append(found.clone() if parallel else found)  # out of shared memory
            labels.append(source.videos[index].label)
            good.append(index)
        if views:
            yield Batch(torch.cat(views), torch.tensor(labels), [], number, tuple(good))
    Failures(len(dataset), max_unreadable).add(gather(failed))


def _views(dataset: ClipDataset, clips: int, crops: int, index: int) -> torch.Tensor | str:
    """The test views of a video, or why there are none."""
    try:
        return dataset.test_clips(index, clips, crops)
    except VideoError as error:
        return str(error)
