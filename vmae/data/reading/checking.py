"""Find the videos that a test could not read, before a run spends its time on training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from vmae.data.reading.loader import ClipDataset
from vmae.data.reading.reader import VideoError
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.sources import VideoFiles
from vmae.data.reading.workers import run_parallel
from vmae.data.sets.videos import Video

#: Sets of more videos are not checked: reading the clips of so many takes some minutes.
CHECKED = 3000
#: Frames are made this small at once, as nobody looks at them.
_PIXELS = 32


def unreadable(
    videos: Sequence[Video],
    sampling: Sampling,
    clips: int = 1,
    num_workers: int = 0,
    progress: Callable[..., Any] = tqdm,
) -> dict[Video, str]:
    """Of each video whose `clips` test clips cannot be read, the reason: damaged, missing, too short.

    Takes as long as reading the set once. A video damaged only between its test clips is not found.
    """
    done = run_parallel(partial(_reason, sampling, clips), videos, num_workers, chunk=8)
    reasons = list(progress(done, total=len(videos), desc="check the videos"))
    return {video: reason for video, reason in zip(videos, reasons, strict=True) if reason}


def _reason(sampling: Sampling, clips: int, video: Video) -> str:
    try:
        ClipDataset(VideoFiles([video], _PIXELS), sampling, seed=0).views(0, clips)
    except VideoError as error:
        return str(error)
    return ""
