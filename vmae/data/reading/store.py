"""Every video of a split, decoded once and resized, in memory-mapped files of uint8 frames.

A store is a folder of shards (the frames of 512 videos, one after the other, with a checksum) and
index.json. It is built shard by shard in a folder with the suffix `.partial`, which is renamed once
complete: a store without the suffix is always complete, and an interrupted build resumes. Frames are
written as they are decoded, so the memory needed does not depend on how long the videos are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vmae.data.reading.reader import PIECE, FrameSelector, VideoError, frame_pieces, resize_frames
from vmae.data.reading.workers import run_parallel
from vmae.data.sets.videos import Video
from vmae.support.files import atomic_path, disk_errors, only_writer, require_space, write_text

_VERSION = 2
#: Videos per shard. An interruption loses the decoding of at most one shard.
SHARD = 512
#: Stores of at most this many bytes are verified whenever they are opened (about a second).
VERIFIED = 1_000_000_000

#: A decoded video: a file of its frames, and their number, height and width.
Decoded = tuple[Path, tuple[int, int, int]]


class StoreError(RuntimeError):
    """An unusable store; the message names the file and says what to do."""


class FrameStore:
    """A store opened for reading. Videos keep the order of the list, without the unreadable ones.

    videos   the readable videos
    failed   [(path, reason)] of the unreadable ones
    """

    def __init__(self, folder: str | Path, verify: bool = True) -> None:
        self.folder = Path(folder)
        index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        if index.get("version") != _VERSION:
            raise StoreError(
                f"{self.folder} has store format version {index.get('version')}, but this code reads "
                f"version {_VERSION}: delete the folder, then run again to rebuild the store"
            )
        self.failed: list[tuple[str, str]] = []
        self.videos: list[Video] = []
        self._places: list[tuple[int, int, tuple[int, int, int]]] = []  # shard, offset, shape
        self._checksums: list[int] = [shard["crc32"] for shard in index["shards"]]
        self.states: dict[str, Any] = {}
        for number, shard in enumerate(index["shards"]):
            self.failed += [tuple(row) for row in shard["failed"]]
            self.states |= shard["states"]
            offset = 0
            for path, label, shape in shard["videos"]:
                self.videos.append(Video(Path(path), label))
                self._places.append((number, offset, tuple(shape)))
                offset += int(np.prod(shape)) * 3
            size = self._shard(number).stat().st_size
            if size != offset:
                raise StoreError(
                    f"{self._shard(number)} has {size} bytes, but the index expects {offset}: "
                    f"delete {self.folder}, then run again to rebuild the store"
                )
        self._frames = [
            np.memmap(self._shard(i), dtype=np.uint8, mode="r")
            if self._shard(i).stat().st_size
            else None
            for i in range(len(index["shards"]))
        ]
        if verify and self.nbytes <= VERIFIED:
            self.verify()

    def __reduce__(self) -> tuple[type[FrameStore], tuple[Path, bool]]:
        """Workers open the files themselves; a pickled memory map would be a copy of all frames."""
        return FrameStore, (self.folder, False)

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def nbytes(self) -> int:
        """Total size of the frames in bytes."""
        return sum(shard.nbytes for shard in self.shards())

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:05d}.bin"

    def verify(self) -> None:
        """Read every shard; raise StoreError if a checksum does not match."""
        for number, (frames, checksum) in enumerate(
            zip(self._frames, self._checksums, strict=True)
        ):
            if frames is not None and zlib.crc32(frames.data) != checksum:
                raise StoreError(
                    f"{self._shard(number)} is corrupt: its CRC-32 is "
                    f"{zlib.crc32(frames.data):08x}, but the index expects {checksum:08x}. Delete "
                    f"{self.folder}, then run again to rebuild the store"
                )

    def shape(self, index: int) -> tuple[int, int, int]:
        """The number of frames, the height and the width of a video."""
        return self._places[index][2]

    def shards(self) -> Iterator[np.ndarray]:
        """The bytes of each shard, in order; the frames of its videos follow one another."""
        yield from (frames for frames in self._frames if frames is not None)

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames (T, H, W, 3) of a video."""
        shard, offset, (length, height, width) = self._places[index]
        frames = self._frames[shard]
        assert frames is not None
        video = frames[offset : offset + length * height * width * 3]
        return video.reshape(length, height, width, 3)[choose(length)]


def build_store(
    folder: str | Path,
    videos: Sequence[Video],
    size: int,
    workers: int = 2,
    progress: Callable[..., Any] = tqdm,
) -> FrameStore:
    """Decode `videos`, resized to a short side of `size`, into a store below `folder`, once.

    The store's name contains a digest of the list, with absolute paths, and `size`. An existing store
    is opened, unless a file has changed since (in size or modification time): then everything is
    decoded again, with a warning. Unreadable videos are skipped and listed in `failed`. Raises
    DiskError if the store does not fit, StoreError if it is damaged, BusyError if another process is
    building it.
    """
    videos = [replace(video, path=Path(os.path.abspath(video.path))) for video in videos]
    listed = "".join(f"{v.path} {v.label} {v.first} {v.count}\n" for v in videos)
    digest = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    target = Path(folder) / f"{size}px-{digest}"
    states = {str(video.path): _state(video.path) for video in videos}
    if target.exists():
        store = FrameStore(target)
        changed = [path for path, state in states.items() if store.states.get(path) != state]
        if not changed:
            return store
        warnings.warn(
            f"{len(changed)} of {len(videos)} videos have changed since they were decoded, "
            f"including {changed[0]}: all videos will be decoded again",
            stacklevel=2,
        )
        del store
        shutil.rmtree(target)
    unfinished = target.with_name(target.name + ".partial")
    with only_writer(unfinished):
        _write_shards(unfinished, videos, states, size, workers, progress)
    os.replace(unfinished, target)
    return FrameStore(target)


def _write_shards(
    folder: Path,
    videos: Sequence[Video],
    states: dict[str, Any],
    size: int,
    workers: int,
    progress: Callable[..., Any],
) -> None:
    """Decode the videos of the shards that are still missing, then write the index of all."""
    shards = [videos[i : i + SHARD] for i in range(0, len(videos), SHARD)]
    todo = [i for i, shard in enumerate(shards) if not _is_done(folder, i, shard, states)]
    jobs = [(v, folder / f".{i}-{n}.part") for i in todo for n, v in enumerate(shards[i])]
    decoded = run_parallel(partial(_decode, size), jobs, workers)
    results = iter(progress(decoded, total=len(jobs), desc=f"decode to {size} px"))
    for i in todo:
        _write_shard(folder, i, shards[i], islice(results, len(shards[i])), states, len(jobs))
    for _ in results:  # so that the progress bar reaches its end
        pass
    rows = [json.loads((folder / f"{i:05d}.json").read_text()) for i in range(len(shards))]
    write_text(folder / "index.json", json.dumps({"version": _VERSION, "shards": rows}))


def _write_shard(
    folder: Path,
    number: int,
    videos: Sequence[Video],
    results: Iterator[Decoded | str],
    states: dict[str, Any],
    left: int,
) -> None:
    """Join the files of some videos into a shard, then write its index, which marks it complete."""
    rows: list[tuple[str, int, tuple[int, ...]]] = []
    failed: list[tuple[str, str]] = []
    checksum = 0
    with atomic_path(folder / f"{number:05d}.bin") as temporary, open(temporary, "wb") as file:
        for video, result in zip(videos, results, strict=True):
            if isinstance(result, str):
                failed.append((str(video.path), result))
                continue
            path, shape = result
            if not rows and number == 0:
                require_space(folder, path.stat().st_size * left)
            with open(path, "rb") as frames:
                while data := frames.read(PIECE):
                    checksum = zlib.crc32(data, checksum)
                    file.write(data)
            path.unlink()
            rows.append((str(video.path), video.label, shape))
    known = {str(video.path): states[str(video.path)] for video in videos}
    shard = {"crc32": checksum, "videos": rows, "failed": failed, "states": known}
    write_text(folder / f"{number:05d}.json", json.dumps(shard))


def _is_done(folder: Path, number: int, videos: Sequence[Video], states: dict[str, Any]) -> bool:
    """Whether an earlier, interrupted call completed this shard from the same files."""
    path = folder / f"{number:05d}.json"
    if not path.exists():
        return False
    known = json.loads(path.read_text())["states"]
    return known == {str(video.path): states[str(video.path)] for video in videos}


def _decode(size: int, job: tuple[Video, Path]) -> Decoded | str:
    """Write the resized frames to a file, piece by piece; or say why they cannot be read."""
    video, path = job
    length = height = width = 0
    try:
        with disk_errors(path), open(path, "wb") as file:
            for piece in frame_pieces(video):
                resized = resize_frames(piece, size)
                file.write(resized.data)
                length += len(resized)
                height, width = resized.shape[1:3]
    except VideoError as error:
        path.unlink()
        return str(error)
    return path, (length, height, width)


def _state(path: Path) -> list[int] | None:
    """Size and modification time, which show whether a file has changed; None if it is missing."""
    stat = path.stat() if path.exists() else None
    return [stat.st_size, stat.st_mtime_ns] if stat else None
