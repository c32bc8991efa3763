"""A store's frames in device memory: clips are gathered there, so pixels cross the bus only once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from vmae.data.reading.reader import PIECE, FrameSelector
from vmae.data.reading.store import FrameStore

#: Share of the free memory that frames may take; the rest is left for the model.
SHARE = 0.5


@dataclass(frozen=True)
class ClipLocation:
    """A clip in a store: the video's index, frame indices (T,), and the square to crop."""

    video: int
    frames: np.ndarray
    row: int
    column: int
    side: int


class DeviceStore:
    """A FrameStore whose frames are also held in one tensor on `device`."""

    def __init__(self, store: FrameStore, device: torch.device) -> None:
        self.store, self.videos = store, store.videos
        self._pixels = torch.empty((store.nbytes // 3, 3), dtype=torch.uint8, device=device)
        flat, first = self._pixels.view(-1), 0
        for shard in store.shards():
            for start in range(0, len(shard), PIECE):
                piece = torch.from_numpy(np.array(shard[start : start + PIECE]))  # not read-only
                flat[first : first + len(piece)] = piece.to(device)
                first += len(piece)
        shapes = np.array([store.shape(i) for i in range(len(store))], dtype=np.int64)
        self._first = np.cumsum(shapes.prod(1)) - shapes.prod(1)  # each video's first pixel

    def shape(self, index: int) -> tuple[int, int, int]:
        """The number of frames, the height and the width of a video."""
        return self.store.shape(index)

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The chosen frames (T, H, W, 3) of a video, read on the host from the memory-mapped files."""
        return self.store.read(index, choose)

    def gather(self, places: Sequence[ClipLocation]) -> torch.Tensor:
        """Clips (B, 3, T, S, S) uint8 on the device; all have the same T and S."""
        side = torch.arange(places[0].side, device=self._pixels.device)
        corners, widths = [], []  # (B, T): index of each crop's first pixel; (B,): pixels per row
        for place in places:
            _, height, width = self.shape(place.video)
            corner = self._first[place.video] + place.row * width + place.column
            corners.append(corner + place.frames * height * width)
            widths.append(width)
        # A single small copy to the device; everything else is computed there.
        host = torch.from_numpy(np.column_stack([np.stack(corners), np.array(widths)]))
        index = host.to(self._pixels.device, non_blocking=True)
        rows = index[:, -1:, None] * side  # (B, 1, S)
        pixels = index[:, :-1, None, None] + rows[..., None] + side  # (B, T, S, S)
        return self._pixels[pixels].permute(0, 4, 1, 2, 3)


def to_device(store: FrameStore, device: torch.device) -> DeviceStore | FrameStore:
    """The store in device memory, or, with a warning, the store itself if it does not fit."""
    free = free_memory(device)
    if store.nbytes > SHARE * free:
        warnings.warn(
            f"the frames do not fit in memory on {device}: they need {store.nbytes:,} bytes, "
            f"but only {free:,} are free, of which at most {SHARE:.0%} may be used. The frames "
            f"will be read from {store.folder} instead; to make them fit, use smaller or fewer frames",
            stacklevel=3,
        )
        return store
    return DeviceStore(store, device)


def free_memory(device: torch.device) -> int:
    """Free bytes on a device; on the host if the device shares the host's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
