"""Videos with every kind of problem that `vmae scan` finds."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vmae.data.checking.scan import Report

OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0:b-adapt=0"}
CLOSED = {"g": "12", "bf": "3"}
HEVC = "log-level=none:keyint=12:min-keyint=12:bframes=3:scenecut=0:b-adapt=0:open-gop="


def write(path: Path, seed: int, codec="libx264", options=CLOSED, times=None, count=40) -> None:
    """Write a video of a moving pattern of blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.options = options
        if codec == "mpeg2video":
            stream.max_b_frames = 2
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.roll(base, (3 * i, 5 * i), (0, 1)), "rgb24")
            if times is not None:
                frame.pts, frame.time_base = int(times[i]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def rotate(path: Path) -> None:
    """Write the display matrix of a quarter turn into the track's header."""
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd")
    place += 8 + (20 if data[place + 4] == 0 else 32) + 16
    one = 1 << 16
    data[place : place + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 96 << 16, 0, 1 << 30)
    path.write_bytes(data)


def foreign_set(folder: Path) -> Path:
    """A set with good videos and every kind of problem file."""
    write(folder / "closed.mp4", 0)
    write(folder / "open.mp4", 1, options=OPEN)
    write(folder / "mpeg2.mpg", 2, codec="mpeg2video", options={})
    times = np.cumsum(np.random.default_rng(0).choice([20, 40, 130], 40))
    write(folder / "variable.mp4", 3, times=times - times[0])
    write(folder / "rotated.mp4", 4)
    rotate(folder / "rotated.mp4")
    write(folder / "short.mp4", 5, count=5)
    write(folder / "test.mp4", 6)
    (folder / "copy.mp4").write_bytes((folder / "closed.mp4").read_bytes())
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    data = (folder / "test.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    with av.open(str(folder / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    names = [
        "closed",
        "open",
        "rotated",
        "short",
        "variable",
        "missing",
        "empty",
        "text",
        "truncated",
        "audio",
    ]
    rows = [f"{name}.mp4 {i % 2}\n" for i, name in enumerate(names)]
    (folder / "train.csv").write_text("".join(rows) + "mpeg2.mpg 1\n")
    (folder / "test.csv").write_text("test.mp4 0\ncopy.mp4 1\n")
    (folder / "classes.txt").write_text("a\nb\n")
    return folder


def cut_without_decoding(source: Path, target: Path, seconds: float) -> None:
    """Copy packets from the key frame before `seconds`: an edit list then hides the first frames."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as container:
        stream = whole.streams.video[0]
        copied = container.add_stream_from_template(stream)
        whole.seek(int(seconds * av.time_base))
        shift = round(seconds / stream.time_base)
        for packet in whole.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copied
                container.mux(packet)


def damage(path: Path) -> None:
    """Overwrite parts of the frame data with noise; the index stays intact."""
    data = bytearray(path.read_bytes())
    first, size = data.find(b"mdat") + 4, data.find(b"moov") - data.find(b"mdat")
    assert size > 0, "the pictures come first here"
    rng = np.random.default_rng(0)
    for place in rng.integers(first + size // 4, first + size * 3 // 4, size=60):
        data[place : place + 24] = rng.bytes(24)
    path.write_bytes(data)


def kinds(reports: list[Report]) -> dict[str, list[str]]:
    return {Path(r.path).name: [k for k, _ in r.problems] for r in reports if r.problems}
