"""Videos of large or many frames: PyAV reads them exactly as decord would, in any order, and no further than asked."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from vmae.data import VideoError, open_video, read_frames
from vmae.data.reading import large, reader
from vmae.data.reading.large import LargeVideo
from vmae.data.reading.player import pictures

COUNT, FRAME = 60, 3 * 128 * 96
FILES = {
    "closed.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "open.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}),
    "one-key.mkv": ("libx264", {"g": "600", "bf": "2"}),
    "b-frames.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "hevc.mkv": ("libx265", {"x265-params": "keyint=12:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "cpu-used": "8", "deadline": "realtime"}),
}  # fmt: skip


def film(path: Path, codec: str, options: dict[str, str], count: int = COUNT) -> Path:
    """A small picture that drifts, for a lowered limit of what counts as large."""
    base = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.options = 128, 96, "yuv420p", options
        for i in range(count):
            picture = np.roll(base.repeat(8, 0).repeat(8, 1), (3 * i, 5 * i), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(params=FILES)
def video(request, tmp_path) -> Path:
    return film(tmp_path / request.param, *FILES[request.param])


@pytest.mark.parametrize("lowered", [("LARGE", 0), ("AHEAD", COUNT * FRAME - 1)])
def test_large_videos_are_those_that_decord_reads(video, lowered, monkeypatch):
    monkeypatch.setattr(reader, "AHEAD", COUNT * FRAME)
    by_decord = open_video(video)
    assert not isinstance(by_decord, LargeVideo)
    whole = read_frames(video)
    monkeypatch.setattr(reader, *lowered)
    by_pyav = open_video(video)
    assert isinstance(by_pyav, LargeVideo) and len(by_pyav) == len(by_decord) == COUNT
    np.testing.assert_array_equal(read_frames(video), whole)


def test_the_order_of_requests_changes_no_frame(video):
    whole, opened = np.stack([*pictures(video)]), LargeVideo(video)
    rng = np.random.default_rng(0)
    for index in (
        rng.permutation(COUNT),
        np.arange(COUNT)[::-7],
        np.array([30, 30, 31, 3, 59, 59]),
    ):
        np.testing.assert_array_equal(opened.frames(index), whole[index])


def test_no_more_is_decoded_than_a_seek_needs(tmp_path, monkeypatch):
    path, decoded = film(tmp_path / "film.mp4", *FILES["closed.mp4"], count=240), []
    real = large.Upright.__call__
    monkeypatch.setattr(
        large.Upright, "__call__", lambda *call: decoded.append(call[1].pts) or real(*call)
    )
    opened = LargeVideo(path)
    seen: list[int] = []
    step = opened._decode_to

    def counted(number):
        frame = step(number)
        seen.append(number)
        return frame

    monkeypatch.setattr(opened, "_decode_to", counted)
    opened.frames([200, 10, 11])
    assert seen == [200, 10, 11] and len(decoded) == 4, (
        "the first frame, and each that was asked for"
    )
    assert opened._next == 12 and opened._starts.tolist() == [*range(0, 240, 12)]


def test_a_seek_that_leads_too_far_starts_from_the_beginning(tmp_path, monkeypatch):
    path = film(tmp_path / "film.mp4", *FILES["closed.mp4"])
    whole, opened, real = np.stack([*pictures(path)]), LargeVideo(path), LargeVideo._seek
    late = {24: 36}
    monkeypatch.setattr(LargeVideo, "_seek", lambda self, start: real(self, late.get(start, start)))
    np.testing.assert_array_equal(opened.frames([25, 40]), whole[[25, 40]])


def test_what_cannot_be_decoded_is_named(tmp_path):
    path = film(tmp_path / "film.mkv", *FILES["one-key.mkv"])
    with pytest.raises(VideoError, match=r"film.mkv: frame 60 of 60 could not be decoded"):
        LargeVideo(path).frames([60])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shorter = LargeVideo(cut)
    assert 0 < len(shorter) < COUNT
