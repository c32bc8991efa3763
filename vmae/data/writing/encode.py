"""Writing videos as H.264 that decord reads exactly."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from vmae.support.files import atomic_path


def write_video(path: str | Path, frames: np.ndarray, fps: int = 12, crf: int = 20) -> None:
    """Write frames (T, H, W, 3) uint8 as H.264 mp4: closed GOP of 8, no B-frames, one thread.

    decord reads every frame of such a file exactly, and the same frames give the same bytes. H and W
    must be even (yuv420p).
    """
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {"preset": "veryfast", "crf": str(crf), "g": "8", "bf": "0"}
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        container.close()  # flush before the file is renamed
