"""Decode once: every video of a split, resized, in one memory-mapped file of uint8 frames.

A store is a folder of frames.bin (the frames of all videos, one after the other) and index.json
(shape and place of each, and what could not be read). It is written under a temporary name and
renamed when complete, so a store that exists is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vmae.data.annotations import Video
from vmae.data.build import run_parallel
from vmae.data.clips import Choose, VideoError, read_frames, resize_frames
from vmae.data.encode import atomic_path, require_space

_VERSION = 1


class FrameStore:
    """A store opened for reading. Videos are numbered as in the list it was made from, less the bad.

    videos   those that could be read
    failed   [(path, reason)] of those that could not
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = json.loads((self.folder / "index.json").read_text())
        self.failed: list[tuple[str, str]] = [tuple(row) for row in index["failed"]]
        self.videos = [Video(Path(row["path"]), row["label"]) for row in index["videos"]]
        self.shapes = np.array([row["shape"] for row in index["videos"]], dtype=np.int64).reshape(
            -1, 3
        )
        sizes = self.shapes.prod(axis=1) * 3
        self.offsets = np.concatenate(([0], np.cumsum(sizes)))
        path = self.folder / "frames.bin"
        if path.stat().st_size != self.offsets[-1]:
            raise ValueError(
                f"{path} has {path.stat().st_size} bytes and its index says {self.offsets[-1]}: "
                f"delete {self.folder} and run again to decode anew"
            )
        self._frames = np.memmap(path, dtype=np.uint8, mode="r") if len(self.videos) else None

    def __len__(self) -> int:
        return len(self.videos)

    def length(self, index: int) -> int:
        """Frames of a video."""
        return int(self.shapes[index, 0])

    def read(self, index: int, choose: Choose) -> np.ndarray:
        """The chosen frames (T, H, W, 3) of a video."""
        assert self._frames is not None
        shape = (*self.shapes[index], 3)
        frames = self._frames[self.offsets[index] : self.offsets[index + 1]].reshape(shape)
        return frames[choose(shape[0])]


def build_store(
    folder: str | Path,
    videos: Sequence[Video],
    size: int,
    workers: int = 2,
    progress: Callable[..., Any] = tqdm,
) -> FrameStore:
    """Decode `videos` with their short side at `size` into a store below `folder`, once.

    The store's name holds a digest of the list (paths, sizes and times of the files) and of `size`:
    where it exists it is opened; where the files change, another is made. Bad videos are skipped
    and listed. Raises DiskError where it does not fit.
    """
    target = Path(folder) / f"{size}px-{_digest(videos, size)}"
    if target.exists():
        return FrameStore(target)
    with atomic_path(target) as temporary:
        temporary.mkdir()
        rows: list[dict[str, Any]] = []
        failed: list[tuple[str, str]] = []
        with open(temporary / "frames.bin", "wb") as file:
            decoded = run_parallel(partial(_decode, size), videos, workers)
            decoded = progress(decoded, total=len(videos), desc=f"decode to {size} px")
            for video, result in zip(videos, decoded, strict=True):
                if isinstance(result, str):
                    failed.append((str(video.path), result))
                    continue
                if not rows:
                    require_space(target, result.nbytes * len(videos))
                file.write(result.tobytes())
                rows.append(
                    {"path": str(video.path), "label": video.label, "shape": result.shape[:3]}
                )
        index = {"version": _VERSION, "size": size, "failed": failed, "videos": rows}
        (temporary / "index.json").write_text(json.dumps(index))
    return FrameStore(target)


def _decode(size: int, video: Video) -> np.ndarray | str:
    """The resized frames, or the reason why there are none."""
    try:
        return resize_frames(read_frames(video.path), size)
    except VideoError as error:
        return str(error)


def _digest(videos: Sequence[Video], size: int) -> str:
    """Of what the store is made from; missing files count as such."""
    digest = hashlib.sha256(f"{_VERSION} {size}\n".encode())
    for video in videos:
        stat = video.path.stat() if video.path.exists() else None
        state = (stat.st_size, stat.st_mtime_ns) if stat else None
        digest.update(f"{video.path} {video.label} {state}\n".encode())
    return digest.hexdigest()[:12]
