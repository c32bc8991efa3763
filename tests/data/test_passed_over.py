"""No file is passed over silently: other formats, linked folders, names that are not UTF-8."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import (
    DataConfig,
    SetError,
    VideoError,
    load_set,
    normalize_set,
    open_source,
    read_frames,
    scan_set,
    write_video,
)
from vmae.predict import predict, videos_in
from vmae.vit import VisionTransformer

FILM = np.random.default_rng(0).integers(0, 256, (20, 8, 12, 3), dtype=np.uint8)
FILM = FILM.repeat(8, 1).repeat(8, 2)


def film(path: Path, seed: int) -> None:
    write_video(path, np.roll(FILM, seed, 0))


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Two classes of five videos, and files that cannot be part of the set."""
    folder = tmp_path / "mixed"
    for number in range(10):
        film(folder / "ab"[number % 2] / f"{number}.mp4", number)
    film(tmp_path / "other.ts", 10)
    (folder / "a" / "day").mkdir()
    (tmp_path / "other.ts").rename(folder / "a" / "day" / "00001.MTS")
    (folder / "b" / "notes.txt").touch()
    (folder / "b" / "clip.xyz").touch()
    (folder / "b" / ".DS_Store").touch()
    (folder / "frames").mkdir()
    (folder / "frames" / "img_1.gif").touch()
    (folder / "flat.mp4").touch()
    return folder


PASSED = ["a/day/00001.MTS", "b/clip.xyz", "b/notes.txt", "flat.mp4", "frames/img_1.gif"]


def test_files_that_are_passed_over_are_counted_and_named(mixed):
    words = (
        r"not part of the set: 5 \(.*1 \.MTS.*\): 'a/day/00001.MTS', .*`vmae normalize` converts"
    )
    with pytest.warns(UserWarning, match=words):
        videos = load_set(mixed)
    assert len(videos.train + videos.test) == 10
    assert [path.relative_to(mixed).as_posix() for path in videos.passed_over] == PASSED


def test_what_lies_beside_the_folders_of_a_set_is_listed(tmp_path):
    """Splits, splits without classes, and a folder of the class folders with classes beside it."""
    for name in ("splits/train/a/1.mp4", "splits/test/a/2.mp4", "splits/x.MTS", "splits/img/1.png",
                 "flat/train/1.mp4", "flat/test/2.mp4", "inner/Dataset/a/1.mp4",
                 "inner/Dataset/a/2.mp4", "inner/c/3.mp4", "inner/.hidden"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    beside = {"splits": ["img/1.png", "x.MTS"], "flat": ["test/2.mp4"], "inner": ["c/3.mp4"]}
    for folder, names in beside.items():
        with pytest.warns(UserWarning, match=f"not part of the set: {len(names)}"):
            videos = load_set(tmp_path / folder)
        passed = [path.relative_to(tmp_path / folder).as_posix() for path in videos.passed_over]
        assert passed == names


def test_scan_and_normalize_take_other_formats_and_list_the_rest(mixed, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as one that sends to `vmae scan`
        assert main(["scan", str(mixed), "--num-workers", "1"]) in (0, 1)
    text = capsys.readouterr().out
    assert (
        "passed over: 4 (not part of the set, so training ignores them; videos and images " in text
    )
    assert text.startswith("11 files")
    assert "passed over: 4" in text and str(mixed / "b" / "clip.xyz") in text
    assert main(["normalize", str(mixed), str(tmp_path / "new"), "--num-workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert "11 videos written; left out: 4" in out
    assert err.endswith(
        f"next: pass `--set data.path={tmp_path / 'new'}`, so that training reads the new files\n"
    )
    assert not list((tmp_path / "new").glob(".*"))
    left_out = (tmp_path / "new" / "left_out.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in left_out] == [str(mixed / name) for name in PASSED[1:]]
    new = load_set(tmp_path / "new")
    assert len(new.train + new.test) == 11
    assert not any(report.problems for report in scan_set(new, workers=1))


def test_other_formats_move_no_video_to_another_split(tmp_path):
    """The same videos are tested before and after `vmae normalize`, and scan checks that split."""
    names = ["0.MTS", *(f"{number}.mp4" for number in range(1, 12)), "2.mts"]
    groups = [f"v_a_g{number:02}_c01.mp4" for number in range(1, 6)]
    for name in [
        *(f"a/{name}" for name in names),
        *(f"b/{name}" for name in groups),
        "b/v_a_g00_c01.ts",
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = load_set(tmp_path)
    checked = load_set(tmp_path, foreign=True)
    assert [video.path for video in trained.test] == [video.path for video in checked.test]
    assert {video.path.name for video in checked.test} == {"3.mp4", "8.mp4", "v_a_g05_c01.mp4"}
    assert len(checked.train) == len(trained.train) + 3


@pytest.mark.parametrize("suffix", ["bmp", "webp", "tif"])
def test_frames_in_other_formats_are_read(tmp_path, suffix):
    for name in "ab":
        for number in range(5):
            (tmp_path / name / str(number)).mkdir(parents=True)
            for i in range(3):
                picture = Image.fromarray(np.full((8, 8, 3), 50 * i, np.uint8))
                picture.save(tmp_path / name / str(number) / f"{i}.{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        videos = load_set(tmp_path)
    assert len(videos.train + videos.test) == 10
    np.testing.assert_allclose(read_frames(videos.test[0])[:, 0, 0, 0], [0, 50, 100], atol=2)


def test_frames_of_16_bits_are_an_error(tmp_path):
    Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / "img_1.png")
    with pytest.raises(VideoError, match=r"img_1.png has more than 8 bits per channel: convert it"):
        read_frames(tmp_path)


def test_linked_folders_are_followed_without_looping(tmp_path):
    for number in range(5):
        film(tmp_path / "set" / "a" / f"{number}.mp4", number)
        film(tmp_path / "disk" / "more" / f"{number}.mp4", 5 + number)
    (tmp_path / "set" / "b").mkdir()
    (tmp_path / "set" / "b" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "set" / "b")
    (tmp_path / "disk" / "more" / "self").symlink_to(".")
    videos = load_set(tmp_path / "set")
    names = [video.path.relative_to(tmp_path).as_posix() for video in videos.train + videos.test]
    assert sorted(names) == sorted(
        [f"set/a/{i}.mp4" for i in range(5)] + [f"set/b/linked/more/{i}.mp4" for i in range(5)]
    )


@pytest.fixture
def badly_named(tmp_path) -> Path:
    """A set of twenty videos; the name of one is in Latin-1."""
    folder = tmp_path / "named"
    for number in range(20):
        film(folder / "ab"[number % 2] / f"{number:02}.mp4", number)
    latin = os.fsencode(folder / "a") + b"/00cl\xedp.mp4"
    try:
        os.rename(folder / "a" / "00.mp4", latin)
        os.listdir(folder / "a")
    except OSError:
        pytest.skip("this file system has only names in Unicode")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode on other systems")
def test_a_name_that_is_not_utf8_is_one_named_bad_file(badly_named, tmp_path, capsys, monkeypatch):
    name = r"00cl\xedp.mp4"
    reason = re.escape(name) + ": the file name is not valid UTF-8: rename the file"
    videos = load_set(badly_named)
    config = DataConfig(path=str(badly_named), cache_dir=str(tmp_path / "stores"), num_workers=1,
                        max_unreadable=0.1)  # fmt: skip
    with pytest.warns(UserWarning, match=f"(?s)1 of 16 videos could not be read.*{reason}"):
        assert len(open_source(config, videos.train, 16, 8).videos) == 15
    with pytest.raises(SetError, match=f"(?s)1 of 16 videos.*{reason}"):
        open_source(config.replace(max_unreadable=0.0), videos.train, 16, 8)

    capsys.readouterr()
    out = tmp_path / "scan.json"
    assert main(["scan", str(badly_named), "--num-workers", "1", "--json", str(out)]) == 1
    found = capsys.readouterr().out
    assert "20 files, 1 with problems" in found and name in found
    assert (
        "move or delete these files (in lists, their rows), or get them again; training leaves up "
        in found
    )
    assert "to `max_unreadable` (by default 5 %) of the videos out and lists them" in found
    assert main(["normalize", str(badly_named), str(tmp_path / "new"), "--num-workers", "1"]) == 0
    assert "19 videos written; left out: 1" in capsys.readouterr().out
    assert re.search(reason.split(": ")[1], (tmp_path / "new" / "left_out.txt").read_text())

    (bad,) = (video.path for video in videos.train if "cl" in video.path.name)
    model = VisionTransformer(ModelConfig.videomae("tiny", img_size=32, tubelet=(2, 8, 8)), 2)
    with pytest.raises(VideoError, match=reason):
        predict(model, bad)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode on other systems")
def test_a_class_folder_that_is_not_utf8_leaves_the_set_usable(tmp_path):
    for number in range(10):
        film(tmp_path / "set" / "ab"[number % 2] / f"{number}.mp4", number)
    os.rename(tmp_path / "set" / "b", os.fsencode(tmp_path / "set") + b"/cl\xedp")
    (tmp_path / "set" / "c").mkdir()
    videos = load_set(tmp_path / "set")
    assert videos.classes == ("a", r"cl\xedp")
    done = normalize_set(tmp_path / "set", tmp_path / "new", workers=1)
    assert (done.written, len(done.left_out)) == (5, 5)


def test_names_that_a_list_cannot_hold_are_changed(tmp_path):
    if os.name == "nt":
        pytest.skip("Windows has no such names")
    for number, name in enumerate(("two\nlines", "back\\slash", "tab\t", "plain name", "x")):
        for label in "ab":
            film(tmp_path / "set" / label / f"{name}.mp4", number + 5 * (label == "b"))
    done = normalize_set(tmp_path / "set", tmp_path / "new", workers=1)
    assert (done.written, done.left_out) == (10, [])
    new = load_set(done.folder)
    assert not any(report.problems for report in scan_set(new, workers=1))


def test_a_class_folder_that_a_list_cannot_hold_is_refused(tmp_path, capsys):
    """In classes.txt it would be two classes, and every later one would get another's number."""
    if os.name == "nt":
        pytest.skip("Windows has no such names")
    for name in ("two\nlines", "x"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.mp4").touch()
    for command in (["scan"], ["normalize", str(tmp_path / "new")]):
        assert main([command[0], str(tmp_path / "set"), *command[1:]]) == 1
        assert r"the folder 'two\nlines' has a line break in its name" in capsys.readouterr().err


def test_hidden_folders_are_no_part_of_a_set(tmp_path):
    """Systems keep copies of another kind there, under the same names."""
    for number in range(5):
        film(tmp_path / "a" / f"{number}.mp4", number)
        film(tmp_path / "a" / ".AppleDouble" / f"{number}.mp4", number)
        film(tmp_path / ".thumbnails" / f"{number}.mp4", number)
    videos = load_set(tmp_path)
    assert len(videos.train + videos.test) == len(videos_in(tmp_path)) == 5
    assert videos.passed_over == ()
