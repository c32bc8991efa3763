"""`vmae scan` finds files that decord reads wrongly, and `vmae normalize` fixes them."""

from __future__ import annotations

import json
import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import pytest

from vmae import ROOT
from vmae.cli.main import main
from vmae.data import (
    DataConfig,
    Sampling,
    load_set,
    normalize_set,
    read_frames,
    resize_frames,
    scan_set,
)
from vmae.data.checking.normalize import target_size
from vmae.data.checking.scan import Report, pictures
from vmae.data.checking.table import class_table
from vmae.train import FinetuneConfig

SHOT = ROOT / "data" / "big_buck_bunny_shot.mp4"
OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0:b-adapt=0"}
CLOSED = {"g": "12", "bf": "3"}


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


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    """A set with good videos and every kind of problem file."""
    folder = tmp_path_factory.mktemp("sets") / "foreign"
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


def kinds(reports: list[Report]) -> dict[str, list[str]]:
    return {Path(r.path).name: [k for k, _ in r.problems] for r in reports if r.problems}


def test_scan_finds_every_kind_of_problem_and_flags_no_good_file(foreign, tmp_path, capsys):
    out = tmp_path / "scan.json"
    assert main(["scan", str(foreign), "--num-workers", "1", "--json", str(out)]) == 1
    found = {
        Path(r["path"]).name: [kind for kind, _ in r["problems"]]
        for r in json.loads(out.read_text())
        if r["problems"]
    }
    bad = ("missing", "empty", "text", "truncated", "audio")
    assert found == {
        **{f"{name}.mp4": ["unreadable"] for name in bad},
        "open.mp4": ["wrong"],
        "mpeg2.mpg": ["wrong"],
        "short.mp4": ["short"],
        "copy.mp4": ["duplicate"],
    }
    text = capsys.readouterr().out
    assert "13 files, 9 with problems" in text
    assert "vmae normalize" in text


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


HEVC = "log-level=none:keyint=12:min-keyint=12:bframes=3:scenecut=0:b-adapt=0:open-gop="


@pytest.mark.slow
def test_other_containers_and_codecs_are_reported_correctly(tmp_path):
    """The behaviour of decord 0.6.0 was measured beforehand, against a sequential decode by PyAV."""
    folder = tmp_path / "set"
    write(folder / "transport.ts", 0)
    write(folder / "mpeg2.ts", 1, codec="mpeg2video", options={})
    write(folder / "hevc-open.mp4", 2, codec="libx265", options={"x265-params": HEVC + "1"})
    write(folder / "hevc-closed.mp4", 3, codec="libx265", options={"x265-params": HEVC + "0"})
    write(
        folder / "vp9.webm",
        4,
        codec="libvpx-vp9",
        options={"deadline": "realtime", "cpu-used": "8"},
    )
    write(folder / "whole.mp4", 5, count=60)
    cut_without_decoding(folder / "whole.mp4", folder / "edited.mp4", 20 / 24)
    assert b"elst" in (folder / "edited.mp4").read_bytes()
    write(folder / "damaged.mp4", 6)
    damage(folder / "damaged.mp4")
    unknown = (folder / "damaged.mp4").read_bytes().replace(b"avc1", b"zzzz")
    (folder / "unknown.mp4").write_bytes(unknown)
    names = sorted(path.name for path in folder.iterdir())
    if "libsvtav1" in av.codecs_available:
        write(folder / "av1.mp4", 7, codec="libsvtav1", options={"preset": "12"})
        names.append("av1.mp4")
    (folder / "train.csv").write_text("".join(f"{name} {i % 2}\n" for i, name in enumerate(names)))
    write(folder / "test.mp4", 8)
    (folder / "test.csv").write_text("test.mp4 0\n")
    expected = {
        "transport.ts": ["wrong"],
        "mpeg2.ts": ["wrong"],
        "hevc-open.mp4": ["wrong"],
        "edited.mp4": ["wrong"],
        "damaged.mp4": ["unreadable"],
        "unknown.mp4": ["unreadable"],
    }
    if "av1.mp4" in names and decord.__version__ == "0.6.0":  # later versions can read it
        expected["av1.mp4"] = ["foreign"]
    reports = scan_set(load_set(folder), workers=2)  # enough files for worker processes
    assert kinds(reports) == expected
    codec = {Path(r.path).name: r.codec for r in reports}
    assert (codec["transport.ts"], codec["mpeg2.ts"]) == ("h264", "mpeg2video")
    assert codec.get("av1.mp4", "av1") == "av1"

    done = normalize_set(folder, tmp_path / "new", workers=2)
    assert sorted(Path(path).name for path, _ in done.left_out) == ["damaged.mp4", "unknown.mp4"]
    assert kinds(scan_set(load_set(done.folder), workers=1)) == {}


def test_normalized_files_are_the_originals_and_read_exactly(foreign, tmp_path):
    done = normalize_set(foreign, tmp_path / "new", workers=1)
    assert (done.written, len(done.left_out)) == (8, 5)
    new = load_set(done.folder)
    assert set(kinds(scan_set(new, [Sampling(5)], workers=1))) == {"copy.mp4"}
    for video in new.train + new.test:
        name = (
            video.path.name.removesuffix(".mp4") if ".mpg" in video.path.name else video.path.name
        )
        expected = np.stack(list(pictures(foreign / name))).astype(int)
        frames = read_frames(video.path)
        assert frames.shape == expected.shape
        # Blocks of random colour are the worst case for 4:2:0; a wrong frame differs by about 80.
        assert np.abs(frames - expected).mean((1, 2, 3)).max() < 10
        assert np.abs(frames[1:] - expected[:-1]).mean((1, 2, 3)).min() > 30

    lost, *kept = [video.path for video in new.train]
    times = [path.stat().st_ctime_ns for path in kept]
    lost.unlink()
    (done.folder / "set.json").rename(done.folder / "set.partial.json")  # as if interrupted
    normalize_set(foreign, done.folder, workers=1)
    assert lost.exists()
    assert [path.stat().st_ctime_ns for path in kept] == times


def test_scan_knows_the_sampling_of_a_recipe(foreign, tmp_path, capsys):
    for short, problem in (("repeat", False), ("skip", True)):
        data = DataConfig(sampling="kinetics", stride=2, short=short)
        FinetuneConfig(data=data).to_yaml(tmp_path / "mine.yaml")
        command = ["scan", str(foreign), "--num-workers", "1", "--recipe"]
        assert main([*command, str(tmp_path / "mine.yaml")]) == 1
        text = capsys.readouterr().out
        assert ("short.mp4: 5 frames, but a clip covers 32" in text) == problem
        assert ("short: " in text) == problem


def test_scan_prints_a_table_of_the_classes(foreign, capsys):
    main(["scan", str(foreign), "--num-workers", "1"])
    table = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert [line.split() for line in table] == [
        ["class", "train", "test", "seconds", "sizes", "fps"],
        ["a", "5", "1", "1.7", "to", "2.4", "96x128", "to", "128x96", "16.65", "to", "24"],
        ["b", "6", "1", "0.2", "to", "1.7", "128x96", "24"],
    ]


def test_output_folders_that_are_refused(foreign, tmp_path):
    for out in (foreign, foreign / "new"):
        with pytest.raises(FileExistsError, match="outside the dataset"):
            normalize_set(foreign, out)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="already contains other files"):
        normalize_set(foreign, tmp_path)


def test_sizes_are_even_and_never_larger():
    assert target_size(95, 127, 256) == (94, 126)
    assert target_size(720, 1280, 256) == (256, 454)
    assert target_size(1280, 720, 256) == (454, 256)


@pytest.mark.slow
def test_film_keeps_its_picture_when_it_is_scaled_and_normalized(tmp_path):
    """On natural video, from the command line, every frame is equal up to codec noise."""
    for name in ("a", "b"):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True)
        for i in range(5):
            shutil.copy(SHOT, folder / f"{i}.mp4")
    whole = read_frames(SHOT)
    # The second bound also covers a resizing filter other than that of resize_frames.
    for side, bound in ((256, 3), (128, 5)):
        out = tmp_path / f"out{side}"
        command = ["normalize", str(tmp_path / "set"), str(out), "--short-side", str(side)]
        assert main([*command, "--num-workers", "1"]) == 0
        normalized = read_frames(load_set(out).train[0].path)
        original = resize_frames(whole, side)
        assert normalized.shape == original.shape
        off = np.abs(normalized.astype(int) - original).mean((1, 2, 3))
        assert off.max() < bound, "of 255"


def test_scaling_by_one_pixel_does_not_crop(tmp_path):
    """From 65x325 to a short side of 64: the last column of a ramp is still the brightest."""
    ramp = np.linspace(0, 255, 325).astype(np.uint8)[None, :, None].repeat(65, 0).repeat(3, 2)
    for name in ("a", "b"):
        for i in range(5):
            path = tmp_path / "set" / name / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(path), "w") as container:
                stream = container.add_stream("libx264", rate=24)
                stream.height, stream.width, stream.pix_fmt = 65, 325, "yuv444p"
                stream.options = CLOSED
                for _ in range(8):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp, "rgb24")))
                container.mux(stream.encode())
    normalize_set(tmp_path / "set", tmp_path / "out", short_side=64, workers=1)
    frames = read_frames(load_set(tmp_path / "out").train[0].path)
    assert frames.shape == (8, 64, 320, 3)
    assert frames[:, :, -1].mean() > 252.5, "a crop would end at 251"


def test_decoders_print_nothing_about_damaged_files(tmp_path, capfd):
    """Neither about one that is cut off nor about one with broken NAL units."""
    folder = tmp_path / "set"
    for number in range(4):
        write(folder / "ab"[number % 2] / f"{number}.mkv", number)
    whole = (folder / "a" / "0.mkv").read_bytes()
    (folder / "a" / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    broken, rng = bytearray(whole), np.random.default_rng(0)
    for place in rng.integers(len(whole) // 4, len(whole), 300):
        broken[place] = rng.integers(256)
    (folder / "b" / "broken.mkv").write_bytes(broken)
    for command in (["scan", str(folder)], ["normalize", str(folder), str(tmp_path / "new")]):
        main([*command, "--num-workers", "1"])
        out, err = capfd.readouterr()
        assert "broken.mkv" in out, out
        lines = err.replace("\r", "\n").splitlines()
        assert [x for x in lines if x.strip() and not x.startswith(command[0])] == []


def test_the_table_has_a_column_for_each_split(tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            write(tmp_path / split / "jump" / f"{split}{number}.mp4", len(split) + 10 * number)
    table = class_table(scan_set(load_set(tmp_path), workers=1)).splitlines()
    assert [line.split()[:4] for line in table] == [
        ["class", "train", "val", "test"],
        ["jump", "3", "2", "1"],
    ]
