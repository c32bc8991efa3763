"""`vmae normalize` fixes files that decord reads wrongly, and changes nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from problem_files import CLOSED, foreign_set, kinds, write

from vmae import ROOT
from vmae.cli.main import main
from vmae.data import Sampling, load_set, normalize_set, read_frames, resize_frames, scan_set
from vmae.data.checking.normalize import target_size
from vmae.data.checking.scan import pictures

SHOT = ROOT / "data" / "big_buck_bunny_shot.mp4"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    return foreign_set(tmp_path_factory.mktemp("sets") / "foreign")


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


def test_classes_named_by_numbers_keep_their_videos(tmp_path):
    """Sorted as text, 10 comes before 2, so neither is at the position that its name says."""
    for number, name in enumerate(("1", "2", "10", "jump")):
        for seed in range(5):
            write(
                tmp_path / "set" / name / f"{name}{'abcde'[seed]}.mp4", 5 * number + seed, count=4
            )
    done = normalize_set(tmp_path / "set", tmp_path / "new", workers=1)
    new = load_set(done.folder)
    assert new.classes == ("1", "10", "2", "jump")
    for video in new.train + new.test:
        assert new.classes[video.label] == video.path.parent.name


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
