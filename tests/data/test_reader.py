"""The one interface through which the package reads video files."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from vmae import ROOT
from vmae.course.making import FILM, FilmSpec
from vmae.course.making.film import _write_clips
from vmae.data import Video, VideoError, load_set, open_video, read_frames, scan_set
from vmae.data.reading import VideoReader
from vmae.data.reading.reader import _reason

PACKAGE = ROOT / "vmae"


def imported(text: str) -> set[str]:
    """The top-level packages that a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_only_the_reader_imports_decord():
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "decord" in imported(path.read_text(encoding="utf-8"))
    ]
    assert users == ["data/reading/reader.py"]


def test_a_reader_gives_frames_by_index_in_the_order_requested(motion_mini):
    path = load_set(motion_mini).test[0].path
    reader = open_video(path)
    every = read_frames(path)
    assert len(reader) == len(every) == 16
    order = [9, 2, 2, 15, 0]
    frames = reader.frames(order)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, every[order])
    np.testing.assert_array_equal(reader.frames(np.array(order)), every[order])
    with pytest.raises(VideoError, match=r"000000.mp4: the video could not be decoded \(.+\)$"):
        reader.frames([16])


def test_the_reason_is_decords_message_without_its_source_and_the_path():
    long = (
        "[20:49:05] /src/video/video_reader.cc:444: [/a/long/path/to/film.mp4]Unable to handle EOF"
    )
    assert _reason(RuntimeError(f"{long} because it takes too long")) == (
        "Unable to handle EOF because it takes too long"
    )
    corrupt = (
        "because the video might have corrupted framesand `DECORD_REWIND_RETRY_MAX=16`. You may"
    )
    assert _reason(RuntimeError(f"{long} {corrupt}")) == (
        "decord cannot read it to its end: run `vmae normalize`"
    )
    assert _reason(RuntimeError("Check failed: pos < 16\n")) == "Check failed: pos < 16"
    assert _reason(IndexError()) == "IndexError"


def test_another_decoder_takes_decords_place(tmp_path, motion_mini, monkeypatch):
    """Everything that reads video files goes through `_DecordReader`'s two methods."""

    class Grey(VideoReader):
        def __init__(self, path):
            pass

        def __len__(self):
            return 99

        def frames(self, index):
            return np.full((len(index), 64, 64, 3), 77, np.uint8)

    monkeypatch.setattr("vmae.data.reading.reader._DecordReader", Grey)
    videos = load_set(motion_mini)
    chosen = read_frames(Video(videos.train[0].path, 0), lambda n: np.array([0, n - 1]))
    assert chosen.shape == (2, 64, 64, 3) and (chosen == 77).all()
    found = scan_set(videos, workers=1)
    assert {problem for report in found for problem, _ in report.problems} == {"wrong"}
    _write_clips(tmp_path, FILM, FilmSpec(), [("train", 0, 0)])
    monkeypatch.undo()
    clip = read_frames(tmp_path / FilmSpec().name("train", 0, 0))
    assert clip.shape == (16, 64, 64, 3) and np.abs(clip.astype(int) - 77).max() < 4
