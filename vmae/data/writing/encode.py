"""Writing videos as H.264 that decord reads exactly."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vmae.support.files import atomic_path


def write_video(path: str | Path, frames: np.ndarray, fps: int = 12, crf: int = 20) -> None:
    """Write frames (T, H, W, 3) uint8 as H.264 mp4: closed GOP of 8, no B-frames, one thread.

    decord reads every frame of such a file exactly, and the same frames give the same bytes. H and W
    must be even (yuv420p).
    """
    with atomic_path(path) as temporary:
        encode(temporary, frames, fps, crf, gop=8)


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: int | Fraction,
    crf: int,
    gop: int,
    **options: str,
) -> int:
    """Write frames (H, W, 3) uint8 of one even size as H.264 mp4; returns their number.

    gop      frames from one key frame to the next; scene cuts may add key frames, which is harmless,
             and x264 closes its groups by default
    options  of the mp4 format
    """
    count = 0
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        stream.options = {"preset": "veryfast", "crf": str(crf), "g": str(gop), "bf": "0"}
        for count, frame in enumerate(frames, 1):
            if count == 1:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        if count:
            container.mux(stream.encode())
    return count
