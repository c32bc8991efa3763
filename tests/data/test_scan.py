"""`vmae scan` finds files that decord reads wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import av
import decord
import numpy as np
import pytest
from problem_files import HEVC, cut_without_decoding, damage, foreign_set, kinds, write

from vmae.cli.main import main
from vmae.data import DataConfig, load_set, normalize_set, scan_set
from vmae.data.checking.scan import summary
from vmae.data.checking.table import class_table
from vmae.train import FinetuneConfig


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    return foreign_set(tmp_path_factory.mktemp("sets") / "foreign")


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
        assert [x for x in lines if x.strip() and not x.startswith((command[0], "next:"))] == []


def test_the_table_has_a_column_for_each_split(tmp_path):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            write(tmp_path / split / "jump" / f"{split}{number}.mp4", len(split) + 10 * number)
    table = class_table(scan_set(load_set(tmp_path), workers=1)).splitlines()
    assert [line.split()[:4] for line in table] == [
        ["class", "train", "val", "test"],
        ["jump", "3", "2", "1"],
    ]


def test_one_video_in_two_classes_is_a_problem(tmp_path):
    for name, seed in (("jump/a", 0), ("jump/b", 1), ("run/c", 2), ("run/d", 3)):
        write(tmp_path / f"{name}.mp4", seed)
    same = (tmp_path / "jump" / "a.mp4").read_bytes()
    (tmp_path / "run" / "e.mp4").write_bytes(same)
    (tmp_path / "jump" / "f.mp4").write_bytes(same)  # twice in one class is no contradiction
    reports = scan_set(load_set(tmp_path), workers=1)
    assert kinds(reports) == {"e.mp4": ["labels"]}
    ((_, text),) = next(report.problems for report in reports if report.problems)
    assert text == f"'run' here, but 'jump' as {tmp_path / 'jump' / 'a.mp4'}, of the same frames"
    assert "keep it in the right one" in summary(reports)


def test_a_copy_that_ends_early_is_a_note(tmp_path):
    """Matroska has its index and duration at the front, so half a file plays, without any error."""
    for number in range(2):
        write(tmp_path / "ab"[number] / "whole.mkv", number, count=80)
    whole = (tmp_path / "a" / "whole.mkv").read_bytes()
    (tmp_path / "a" / "half.mkv").write_bytes(whole[: len(whole) // 2])
    reports = scan_set(load_set(tmp_path), workers=1)
    assert kinds(reports) == {}
    notes = {Path(report.path).name: report.notes for report in reports}
    ((kind, text),) = notes.pop("half.mkv")
    assert kind == "incomplete" and text.endswith(" frames, but 3.3 s at 24 fps are 80")
    assert not any(notes.values()), notes
