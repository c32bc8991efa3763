"""Files whose frames are a matter of choice: scan, normalize and the reader make the same as players."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from vmae import ROOT
from vmae.data import VideoError, load_set, normalize_set, open_video, read_frames, scan_set
from vmae.data.checking.scan import Report, check_video
from vmae.data.reading.player import pictures

SHOT = ROOT / "data" / "big_buck_bunny_shot.mp4"
NO_B = {"g": "12", "bf": "0", "crf": "12"}


def grey(level: int, height: int = 96, width: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def encode(container, stream, pictures) -> None:
    for picture in pictures:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
    container.mux(stream.encode())


def write(path: Path, frames, codec="libx264", pix_fmt="yuv420p", options=NO_B, **settings) -> Path:
    """Write frames, with settings of the codec such as its colour space or the shape of pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = pix_fmt, options
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        encode(container, stream, frames)
    return path


def write_streams(path: Path, *streams: tuple[str, list[np.ndarray], Disposition]) -> Path:
    """Write (codec, frames, disposition) as the video streams of one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        added = []
        for codec, frames, disposition in streams:
            stream = container.add_stream(codec, rate=24)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = disposition
            added.append(stream)
        for stream, (_, frames, _) in zip(added, streams, strict=True):
            encode(container, stream, frames)
    return path


def as_set(folder: Path, path: Path) -> Path:
    """A set with this file for training, and a good one for testing."""
    folder.mkdir()
    (folder / "train.csv").write_text(f"{path} 0\n")
    write(folder / "test.mp4", [grey(5 * i) for i in range(20)])
    (folder / "test.csv").write_text("test.mp4 0\n")
    return folder


def normalized(tmp_path: Path, path: Path, short_side: int = 256) -> np.ndarray:
    """The frames of a file after `vmae normalize`, which leaves nothing out."""
    done = normalize_set(as_set(tmp_path / "set", path), tmp_path / "new", short_side, workers=1)
    assert (done.written, done.left_out) == (2, [])
    new = load_set(done.folder)
    assert not any(report.problems for report in scan_set(new, workers=1))
    return read_frames(new.train[0].path)


def problems(report: Report) -> list[str]:
    return [kind for kind, _ in report.problems]


LEVELS = np.arange(40, 240, 10)
FILM = [grey(level) for level in LEVELS]


@pytest.mark.parametrize("name", ["cover.mkv", "cover.mp4"])
def test_a_cover_picture_is_not_the_video(tmp_path, name):
    """A player shows the film, wherever the cover picture is; number 0 was the picture."""
    cover = ("mjpeg", [grey(0, 240, 320)], Disposition.attached_pic)
    path = write_streams(tmp_path / name, cover, ("libx264", FILM, Disposition(0)))
    report = check_video(path)
    assert (problems(report), report.frames, report.width) == ([], 20, 128)
    np.testing.assert_allclose(read_frames(path).mean((1, 2, 3)), LEVELS, atol=2)
    np.testing.assert_allclose(normalized(tmp_path, path).mean((1, 2, 3)), LEVELS, atol=3)


def test_a_preview_stream_is_not_the_video(tmp_path):
    """decord takes the preview here: an error instead, and normalize writes the film."""
    preview = ("libx264", [grey(0, 48, 64)] * 20, Disposition(0))
    path = write_streams(tmp_path / "film.mkv", preview, ("libx264", FILM, Disposition.default))
    with pytest.raises(VideoError, match=r"2 video streams.*players show: run `vmae normalize`"):
        open_video(path)
    report = check_video(path)
    assert (problems(report), report.width) == (["foreign"], 128)
    frames = normalized(tmp_path, path)
    assert frames.shape == (20, 96, 128, 3)
    np.testing.assert_allclose(frames.mean((1, 2, 3)), LEVELS, atol=3)


def test_a_size_that_changes_is_scaled_to_the_first(tmp_path):
    whole = read_frames(SHOT)[::6, :, :448]
    names = []
    for i, frames in enumerate((whole[:10], whole[10:, ::2, ::2])):
        names.append(write(tmp_path / f"{i}.h264", list(np.ascontiguousarray(frames))))
    (tmp_path / "both.h264").write_bytes(b"".join(name.read_bytes() for name in names))
    path = tmp_path / "both.mp4"
    with av.open(str(tmp_path / "both.h264")) as raw, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(raw.streams.video[0])
        packets = (packet for packet in raw.demux(video=0) if packet.size)
        for number, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, Fraction(1, 24)
            packet.pts, packet.dts, packet.duration = number, number, 1
            container.mux(packet)
    report = check_video(path)
    assert (problems(report), report.frames, report.width, report.height) == ([], 22, 448, 256)
    assert ("sizes", "224x128, 448x256") in report.notes
    for frames in (read_frames(path), np.stack(list(pictures(path))), normalized(tmp_path, path)):
        assert frames.shape == (22, 256, 448, 3)
        off = np.abs(frames.astype(int) - whole).mean((1, 2, 3))
        assert off[:10].max() < 4 and off[10:].max() < 9, "of 255"


@pytest.mark.parametrize("transfer", [18, 16])  # HLG, PQ
def test_other_colours_are_no_wrong_frames(tmp_path, transfer):
    """10-bit BT.2020: decord interpolates colours otherwise, which shows on small coloured blocks."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.roll(base, (3 * i, 5 * i), (0, 1)) for i in range(20)]
    hevc = {"x265-params": "log-level=none:keyint=12:open-gop=0:bframes=0"}
    colours = {"colorspace": 9, "color_primaries": 9, "color_trc": transfer, "color_range": 1}
    path = write(tmp_path / "hdr.mp4", frames, "libx265", "yuv420p10le", hevc, **colours)
    report = check_video(path)
    assert problems(report) == []
    assert [kind for kind, _ in report.notes] == ["colours"]


def test_a_shift_by_one_frame_is_not_taken_for_other_colours(tmp_path, monkeypatch):
    path = write(tmp_path / "film.mp4", list(read_frames(SHOT)[:40, :, :448].copy()))
    reader = open_video(path)

    class Late:
        def __len__(self):
            return len(reader)

        def frames(self, index):
            return reader.frames(np.maximum(np.asarray(index) - 2, 0))

    monkeypatch.setattr("vmae.data.checking.scan.open_video", lambda _: Late())
    assert problems(check_video(path)) == ["wrong"]


@pytest.mark.parametrize("width", [16, 24, 48, 72])
def test_widths_that_decord_cannot_read(tmp_path, width):
    path = write(tmp_path / "narrow.mp4", [grey(level, 64, width) for level in LEVELS])
    with pytest.raises(VideoError, match="cannot read frames of this width: run `vmae normalize`"):
        read_frames(path)
    assert problems(check_video(path)) == ["foreign"]
    frames = normalized(tmp_path, path)
    assert frames.shape == (20, 64, width - 2, 3)
    np.testing.assert_allclose(frames.mean((1, 2, 3)), LEVELS, atol=3)


def test_a_short_side_that_decord_cannot_read_is_not_written(tmp_path):
    path = write(tmp_path / "portrait.mp4", [grey(level, 192, 96) for level in LEVELS])
    assert normalized(tmp_path, path, short_side=48).shape == (20, 96, 46, 3)


@pytest.mark.parametrize("aspect, width", [(Fraction(16, 11), 186), (Fraction(1, 2), 64)])
def test_pixels_become_square(tmp_path, aspect, width):
    """Read as stored, as in the published code; reported, and normalized to what players show."""
    path = write(tmp_path / "dv.mp4", FILM, sample_aspect_ratio=aspect)
    report = check_video(path)
    assert report.problems == [("stretched", f"a pixel is {aspect.numerator}:{aspect.denominator}")]
    assert read_frames(path).shape == (20, 96, 128, 3)
    assert normalized(tmp_path, path).shape == (20, 96, width, 3)


def test_nearly_square_pixels_are_square(tmp_path):
    path = write(tmp_path / "web.mp4", FILM, sample_aspect_ratio=Fraction(404, 405))
    assert problems(check_video(path)) == []
    assert normalized(tmp_path, path).shape == (20, 96, 128, 3)


def test_a_new_file_that_cannot_be_read_back_is_left_out(tmp_path, monkeypatch):
    bad = Report("x", [], frames=20, problems=[("wrong", "3 of 15 compared frames are wrong")])
    monkeypatch.setattr("vmae.data.checking.normalize.check_video", lambda _: bad)
    folder = as_set(tmp_path / "set", write(tmp_path / "film.mp4", FILM))
    with pytest.raises(ValueError, match=r"could not be read back \(3 of 15 compared frames"):
        normalize_set(folder, tmp_path / "new", workers=1)
    assert not list((tmp_path / "new").rglob("*.mp4"))
    left_out = (tmp_path / "new" / "left_out.txt").read_text().splitlines()
    assert len(left_out) == 2
