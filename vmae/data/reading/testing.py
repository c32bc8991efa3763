"""What a test reads: every video once, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from vmae.data.config import DataConfig
from vmae.data.reading.failures import Failures
from vmae.data.reading.loader import Batch, ClipDataset
from vmae.data.reading.reader import VideoError
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.sources import Source


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
    """Every video once, in order, for testing: `batch` videos at a time, clips·crops views of each.

    rank, world_size   this process, and the number of processes: it reads every `world_size`-th batch
    gather             combines the processes' lists of unreadable videos

    The views of a video are consecutive; a single view shows the centre. Unreadable videos are
    skipped, not replaced, and reported at the end.
    Raises SetError if their share exceeds `max_unreadable`.
    """
    dataset = ClipDataset(source, sampling, seed=0)
    failed: list[tuple[str, str]] = []
    firsts = range(0, len(dataset), batch)
    for number in range(rank, len(firsts), world_size):
        first = firsts[number]
        views, labels, read = [], [], []
        for i in range(first, min(first + batch, len(dataset))):
            try:
                views.append(dataset.test_clips(i, clips, crops))
                labels.append(source.videos[i].label)
                read.append(i)
            except VideoError as error:
                failed.append((str(source.videos[i].path), str(error)))
        if views:
            yield Batch(torch.cat(views), torch.tensor(labels), [], number, tuple(read))
    Failures(len(dataset), max_unreadable).add(gather(failed))
