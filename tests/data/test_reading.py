"""Rendered sets, reading videos and lists, the store, batches; and how bad input is handled."""

from __future__ import annotations

import pickle
import re
import shutil
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from vmae import ROOT
from vmae.base_config import ConfigError
from vmae.course.making import FILM, FilmSpec, render, render_film, render_set
from vmae.course.making.film import shot_bounds
from vmae.data import (
    SIZES,
    ClipDataset,
    DataConfig,
    Sampling,
    SetError,
    StepBatches,
    Subset,
    Video,
    VideoError,
    VideoFiles,
    build_store,
    few_labels,
    load_set,
    multi_scale_crop,
    open_source,
    open_video,
    ordered_batches,
    read_frames,
    require_labels,
    resize_frames,
    train_loader,
    view_of,
    with_sizes,
    write_video,
)
from vmae.data.reading import loader as loader_module
from vmae.data.reading.device_store import DeviceStore
from vmae.data.reading.failures import Failures
from vmae.data.reading.store import FrameStore, StoreError
from vmae.data.sets.formats import VIDEO_SUFFIXES
from vmae.data.sets.motion_specs import CLASSES
from vmae.support import files
from vmae.train import evaluate
from vmae.vit import VisionTransformer


def with_pyav(path: Path) -> np.ndarray:
    """All frames, decoded sequentially: the reference for decord."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, Path]:
    """One file of each kind that is not a readable video."""
    good = ROOT / "data" / "big_buck_bunny_shot.mp4"
    data = good.read_bytes()
    files = {
        name: tmp_path / f"{name}.mp4"
        for name in ("missing", "empty", "truncated", "damaged", "text", "audio")
    }
    files["empty"].write_bytes(b"")
    files["text"].write_bytes(data[: len(data) // 2])
    files["text"].write_text("this is no video\n" * 100)
    damaged = bytearray(data)
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) // 8, len(data) * 3 // 4, size=400):
        damaged[place : place + 32] = rng.bytes(32)
    files["damaged"].write_bytes(bytes(damaged)[: len(data)])
    with av.open(str(files["audio"]), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return files


# ---- the rendered set ----------------------------------------------------------------------------


def test_motion_is_a_set_of_real_videos(motion_mini):
    videos = load_set(motion_mini)
    spec = SIZES["mini"]
    assert videos.classes == CLASSES
    assert (len(videos.train), len(videos.test)) == (spec.train, spec.test)
    video = videos.test[3]
    frames = read_frames(video.path)
    assert frames.shape == (spec.frames, spec.size, spec.size, 3)
    np.testing.assert_array_equal(frames, with_pyav(video.path))
    rendered, label = render(spec, "test", 3)
    assert label == video.label
    assert np.abs(frames.astype(int) - rendered).mean() < 6, "H.264 preserves the picture"


def test_rendering_is_deterministic_and_resumable(tmp_path, motion_mini):
    spec = SIZES["mini"]
    again = render_set(tmp_path / "again", spec, workers=1)
    names = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(motion_mini) for path in motion_mini.rglob("*") if path.is_file()
    )
    assert all((again / name).read_bytes() == (motion_mini / name).read_bytes() for name in names)

    # As after an interruption: the mark of completion and a video are missing.
    (again / "set.json").rename(again / "set.partial.json")
    lost = again / "videos/train/000005.mp4"
    kept = again / "videos/train/000006.mp4"
    time = kept.stat().st_mtime_ns
    lost.unlink()
    with pytest.raises(SetError, match="interrupted"):
        load_set(again)
    render_set(again, spec, workers=1)
    assert lost.read_bytes() == (motion_mini / "videos/train/000005.mp4").read_bytes()
    assert kept.stat().st_mtime_ns == time, "complete videos are not rendered again"


def test_another_set_is_not_overwritten(motion_mini):
    with pytest.raises(FileExistsError, match="seed is 0 in the folder, but 1 was requested"):
        render_set(motion_mini, with_sizes(SIZES["mini"], seed=1))


def test_a_single_frame_does_not_tell_the_class():
    """Every frame has the same distribution in every class: digits are anywhere on the tile.

    The mean brightness of each pixel over many clips is the same for all classes and all frames,
    within five standard errors.
    """
    spec = with_sizes(SIZES["mini"], train=1600)
    sums = np.zeros((8, spec.frames, 4, 4))
    squares = np.zeros_like(sums)
    for index in range(spec.train):
        frames, label = render(spec, "train", index)
        small = frames.mean(-1).reshape(spec.frames, 4, 16, 4, 16).mean((2, 4))
        sums[label] += small
        squares[label] += small**2
    n = spec.train // 8
    mean = sums / n
    error = np.sqrt((squares / n - mean**2) / n)
    overall = mean.mean((0, 1))
    assert (np.abs(mean - overall) < 5 * error).mean() > 0.999


def test_opposite_classes_are_the_same_frames_in_reverse():
    """Motion is uniform on a torus, so a clip played backward belongs to the opposite class."""
    frames, label = render(SIZES["mini"], "train", 0)
    assert CLASSES[label] == "right"
    step = round(1.5 / 16 * 64)
    np.testing.assert_array_equal(np.roll(frames[0], step, axis=1), frames[1])
    np.testing.assert_array_equal(np.roll(frames[1], -step, axis=1), frames[0])


def test_a_lack_of_space_is_reported_before_anything_is_rendered(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(files.DiskError, match="only 0 MB is available on the disk"):
        render_set(tmp_path / "set", SIZES["mini"], workers=1)
    assert not list((tmp_path / "set").rglob("*.mp4"))


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path):
    with (
        pytest.raises(files.DiskError, match="no space left"),
        files.atomic_path(tmp_path / "file") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_even_if_a_library_hides_it(tmp_path, monkeypatch):
    """torch.save, for example, reports an unexpected position in its file."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with (
        pytest.raises(files.DiskError, match="no space left"),
        files.atomic_path(tmp_path / "state.pt") as temporary,
    ):
        temporary.write_text("half")
        raise RuntimeError("unexpected pos 2020736 vs 2020628")


def test_a_folder_without_write_permission_is_reported(tmp_path):
    with (
        pytest.raises(files.DiskError, match=r"cannot write .*file"),
        files.atomic_path(tmp_path / "file"),
    ):
        raise PermissionError(13, "Permission denied")


# ---- the film ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film_shots() -> tuple[list[tuple[int, int]], np.ndarray]:
    if not FILM.exists():
        pytest.skip("the film is not in this checkout")
    return shot_bounds(FILM, FilmSpec().cut)


@pytest.mark.slow
def test_the_film_is_cut_into_shots_and_split_by_shot(tmp_path, film_shots):
    shots, change = film_shots
    assert 110 <= len(shots) <= 160, "a dedicated shot detector finds 133"
    assert shots[0][0] == 0
    assert shots[-1][1] == len(change) == 14315
    folder = render_film(tmp_path / "film", FILM, FilmSpec(most_clips=120), workers=1)
    videos = load_set(folder)
    assert len(videos.train) + len(videos.test) == 120
    starts = {
        split: {int(v.path.name[:6]) for v in videos.split(split)} for split in ("train", "test")
    }
    shot_of = {
        split: {next(i for i, (a, b) in enumerate(shots) if a <= s < b) for s in starts[split]}
        for split in starts
    }
    assert not shot_of["train"] & shot_of["test"], "a shot is in only one split"
    forward, backward = (next(v for v in videos.train if v.label == label) for label in (0, 1))
    reader = open_video(FILM)
    for video, order in ((forward, 1), (backward, -1)):
        first = int(video.path.name[:6])
        expected = reader.frames(range(first, first + 16))[::order].astype(int)
        assert np.abs(read_frames(video.path) - expected).mean() < 6


def test_the_film_by_speed_gives_each_stretch_to_one_class(tmp_path, film_shots):
    spec = FilmSpec(label="speed", test=2, most_clips=40)
    folder = render_film(tmp_path / "speed", FILM, spec, workers=1)
    videos = load_set(folder)
    assert videos.classes == ("normal", "double")
    reader = open_video(FILM)
    starts = []
    for split in ("train", "test"):
        labels = [v.label for v in videos.split(split)]
        assert abs(labels.count(0) - labels.count(1)) <= 1, "balanced in each split"
        for video in videos.split(split):
            start = int(video.path.name[:6])
            starts.append(start)
            numbers = start + (2 * np.arange(16) if video.label else 8 + np.arange(16))
            off = np.abs(read_frames(video.path).astype(int) - reader.frames(numbers)).mean(
                (1, 2, 3)
            )
            assert off.max() < 6
    assert np.diff(sorted(starts)).min() >= 32, "no stretch is used for both classes"
    shots, _ = film_shots
    inside = [sum(a <= s and s + 32 <= b for a, b in shots) for s in starts]
    assert inside == [1] * 40, "no stretch crosses a cut"
    with pytest.raises(
        FileExistsError, match="label is 'speed' in the folder, but None was requested"
    ):
        render_film(folder, FILM, FilmSpec(test=2, most_clips=40))
    with pytest.raises(ValueError, match="label is 'colour'; it must be one of arrow, speed"):
        FilmSpec(label="colour")


# ---- reading -------------------------------------------------------------------------------------


def test_resize_keeps_the_ratio_and_averages():
    frames = np.zeros((2, 8, 16, 3), np.uint8)
    frames[:, ::2] = 200
    small = resize_frames(frames, 4)
    assert small.shape == (2, 4, 8, 3)
    assert abs(int(small.mean()) - 100) <= 2, "antialiased: stripes are averaged"


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "damaged", "text", "audio"])
def test_an_unreadable_file_is_reported_with_a_reason(bad_files, kind):
    with pytest.raises(VideoError) as error:
        read_frames(bad_files[kind])
    assert str(bad_files[kind]) in str(error.value)
    words = {
        "missing": "the file does not exist",
        "empty": "empty",
        "audio": "no video stream",
        "text": "not a video",
    }
    assert words.get(kind, "") in str(error.value)
    assert len(str(error.value)) < len(str(bad_files[kind])) + 160, (
        "one line, not decord's stack trace"
    )


def with_bad(motion_mini: Path, bad: dict[str, Path]) -> list[Video]:
    return [*load_set(motion_mini).train, *(Video(path, 0) for path in bad.values())]


def test_the_store_skips_unreadable_files_and_lists_them(tmp_path, motion_mini, bad_files):
    videos = with_bad(motion_mini, bad_files)
    store = build_store(tmp_path / "stores", videos, 16, workers=1)
    assert len(store) == SIZES["mini"].train
    assert sorted(path for path, _ in store.failed) == sorted(map(str, bad_files.values()))
    config = DataConfig(cache_dir=str(tmp_path / "stores"), num_workers=1, max_unreadable=0.2)
    with pytest.warns(UserWarning, match="6 of 54 videos could not be read") as caught:
        source = open_source(config, videos, 16, 8)
    assert all(path.name in str(caught[0].message) for path in bad_files.values())
    assert len(source.videos) == SIZES["mini"].train
    with pytest.raises(SetError, match="exceeds max_unreadable = 5%"):
        open_source(config.replace(max_unreadable=0.05), videos, 16, 8)


def test_an_unreadable_file_is_replaced_and_reported_without_a_store(motion_mini, bad_files):
    videos = [*load_set(motion_mini).train[:20], Video(bad_files["text"], 0)]
    dataset = ClipDataset(VideoFiles(videos, 16), Sampling(8), seed=0)
    batch = dataset.__getitems__([(0, 20), (0, 1)])
    assert batch.clips.shape == (2, 3, 8, 16, 16)
    assert [path for path, _ in batch.failed] == [str(bad_files["text"])]
    hopeless = ClipDataset(VideoFiles([videos[-1]], 16), Sampling(8), seed=0)
    with pytest.raises(SetError, match="4 videos in a row"):
        hopeless.__getitems__([(0, 0)])


def test_videos_shorter_than_a_clip_are_left_out_and_reported(tmp_path, motion_mini):
    short = tmp_path / "short.mp4"
    write_video(short, np.zeros((5, 64, 64, 3), np.uint8))
    videos = [*load_set(motion_mini).test, Video(short, 0)]
    words = r"short.mp4: the video has 5 frames, but a clip of 8 frames with stride 1 covers 8"
    config = DataConfig(cache_dir=str(tmp_path / "stores"), num_workers=1)
    with pytest.warns(UserWarning, match=words):
        stored = open_source(config, videos, 16, 8)
    assert len(stored.videos) == len(videos) - 1
    files = open_source(config.replace(cache=False), videos, 16, 8)
    with pytest.warns(UserWarning, match=words):
        tested = list(ordered_batches(files, Sampling(8), batch=10))
    assert sum(len(b.labels) for b in tested) == len(videos) - 1
    with pytest.raises(SetError, match="covers 24"):
        open_source(config, videos, 16, 24)


def test_a_store_holds_the_decoded_frames_and_is_built_once(tmp_path, motion_mini):
    videos = load_set(motion_mini).train
    store = build_store(tmp_path, videos, 16, workers=1)
    for index in (0, 17):
        expected = resize_frames(read_frames(videos[index].path), 16)
        np.testing.assert_array_equal(store.read(index, np.arange), expected)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    build_store(tmp_path, videos, 16, workers=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.verify()


def test_a_damaged_store_is_reported_with_its_checksum(tmp_path, motion_mini):
    store = build_store(tmp_path, load_set(motion_mini).train, 16, workers=1)
    shard = store.folder / "00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    with pytest.raises(
        StoreError,
        match=r"00000.bin is corrupt: its CRC-32 is [0-9a-f]{8}, but the index expects .* Delete",
    ):
        FrameStore(store.folder)
    shard.write_bytes(whole[:-5])
    with pytest.raises(
        StoreError, match=r"has \d+ bytes, but the index expects \d+: delete .*, then run again"
    ):
        FrameStore(store.folder)
    shard.write_bytes(whole)
    index = store.folder / "index.json"
    index.write_text(index.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(
        StoreError, match="version 1, but this code reads version 2: delete the folder"
    ):
        FrameStore(store.folder)


def test_an_interrupted_store_resumes_and_a_changed_set_is_decoded_again(
    tmp_path, motion_mini, monkeypatch
):
    monkeypatch.setattr("vmae.data.reading.store.SHARD", 20)
    copy = shutil.copytree(motion_mini, tmp_path / "set")
    videos = load_set(copy).train
    whole = build_store(tmp_path / "whole", videos, 16, workers=1, progress=lambda x, **_: x)
    decoded = []

    def stop_in_the_second_shard(results, **_):
        for i, result in enumerate(results):
            if i == 30:
                raise KeyboardInterrupt
            yield result

    def count(results, **_):
        for result in results:
            decoded.append(result)
            yield result

    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "cut", videos, 16, workers=1, progress=stop_in_the_second_shard)
    assert [p.suffix for p in (tmp_path / "cut").iterdir()] == [".partial"], (
        "an incomplete store is never opened"
    )
    resumed = build_store(tmp_path / "cut", videos, 16, workers=1, progress=count)
    assert len(decoded) == len(videos) - 20, "the complete shard is kept"
    for index in range(len(videos)):
        np.testing.assert_array_equal(resumed.read(index, np.arange), whole.read(index, np.arange))
    assert [v.label for v in resumed.videos] == [v.label for v in videos]

    shutil.copy(videos[1].path, videos[0].path)
    with pytest.warns(
        UserWarning,
        match="1 of 48 videos have changed since they were decoded, including .*000000.mp4",
    ):
        rebuilt = build_store(tmp_path / "cut", videos, 16, workers=1, progress=count)
    np.testing.assert_array_equal(rebuilt.read(0, np.arange), whole.read(1, np.arange))


def test_parallel_decoding_gives_the_same_store(tmp_path, motion_mini):
    videos = load_set(motion_mini).train * 3  # enough for worker processes
    one, two = (build_store(tmp_path / str(n), videos, 16, workers=n) for n in (1, 2))
    assert (one.folder / "00000.bin").read_bytes() == (two.folder / "00000.bin").read_bytes()


def test_store_and_files_give_the_same_clips(tmp_path, motion_mini):
    videos = load_set(motion_mini).train
    sources = [build_store(tmp_path, videos, 16, workers=1), VideoFiles(videos, 16)]
    keys = StepBatches(len(videos), 8, 3, seed=1)
    batches = [
        list(train_loader(ClipDataset(s, Sampling(6), seed=1), keys, num_workers=0))
        for s in sources
    ]
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a.clips, b.clips)
        assert torch.equal(a.labels, b.labels)


def mixed_videos(folder: Path) -> list[Video]:
    """Videos of different lengths and aspect ratios."""
    rng = np.random.default_rng(0)
    videos = []
    for i, (length, height, width) in enumerate(
        [(9, 64, 64), (14, 64, 96), (8, 128, 64), (30, 80, 70)]
    ):
        path = folder / f"{i}.mp4"
        write_video(path, rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8))
        videos.append(Video(path, i))
    return videos


@pytest.mark.parametrize("scheme", ["dense", "tsn"])
def test_a_store_on_the_device_gives_the_same_clips_as_on_disk(tmp_path, scheme):
    videos = mixed_videos(tmp_path)
    config = DataConfig(
        cache_dir=str(tmp_path / "stores"), num_workers=1, sampling=scheme, max_unreadable=0.5
    )
    with pytest.warns(UserWarning, match="1 of 4 videos"):  # one is too short: a Subset
        disk, device = (
            open_source(config.replace(cache_on_device=on), videos, 16, 9, torch.device("cpu"))
            for on in (False, True)
        )
    assert isinstance(device.source, DeviceStore)
    assert not isinstance(disk.source, DeviceStore)
    for chosen in ([0, 1, 2], [2, 0]):
        keys = StepBatches(len(chosen), 4, 25, seed=3)
        loaders = (
            train_loader(
                ClipDataset(Subset(s, chosen), Sampling.of(config, 9), 3), keys, 0, pin=False
            )
            for s in (disk, device)
        )
        for a, b in zip(*loaders, strict=True):
            assert torch.equal(a.clips, b.clips)
            assert torch.equal(a.labels, b.labels)
            assert a.clips.shape == (4, 3, 9, 16, 16)
    for views in ((1, 1), (2, 3)):
        tested = [
            torch.cat([b.clips for b in ordered_batches(s, Sampling(9), 2, *views)])
            for s in (disk, device)
        ]
        assert torch.equal(*tested)


def test_a_store_that_does_not_fit_stays_on_disk_and_reports_the_bytes(
    tmp_path, motion_mini, monkeypatch
):
    videos = load_set(motion_mini).train
    config = DataConfig(cache_dir=str(tmp_path), num_workers=1, cache_on_device=True)
    needed = len(videos) * SIZES["mini"].frames * 16 * 16 * 3
    cpu = torch.device("cpu")
    monkeypatch.setattr("vmae.data.reading.device_store.free_memory", lambda _: 2 * needed - 1)
    with pytest.warns(
        UserWarning, match=f"need {needed:,} bytes, but only {2 * needed - 1:,} are free"
    ):
        source = open_source(config, videos, 16, 8, cpu)
    assert isinstance(source, FrameStore)
    monkeypatch.setattr("vmae.data.reading.device_store.free_memory", lambda _: 2 * needed)
    assert isinstance(open_source(config, videos, 16, 8, cpu), DeviceStore)
    assert isinstance(open_source(config, videos, 16, 8), FrameStore), "no device, as for testing"
    with pytest.raises(ConfigError, match="cache_on_device is true, .* set both to true"):
        config.replace(cache=False)


def test_each_unreadable_video_is_counted_and_reported_once():
    failures = Failures(total=10, max_unreadable=0.2)
    with pytest.warns(
        UserWarning, match=r"1 of 10 videos could not be read:\n  a is bad\n"
    ) as caught:
        failures.add([("a", "a is bad"), ("a", "a is bad")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failures.add([("a", "a is bad")])  # in the next epoch
        failures.add([])
    with pytest.warns(
        UserWarning, match=r"2 of 10 videos could not be read:\n  b is bad\n"
    ) as caught:
        failures.add([("a", "a is bad"), ("b", "b is bad")])
    assert len(caught) == 1
    with pytest.raises(SetError, match="3 of 10 .*\n  c is bad\n.*max_unreadable = 20%.*vmae scan"):
        failures.add([("c", "c is bad")])


@pytest.mark.parametrize(("count", "total"), [(29, 100), (57, 100), (29, 50), (1, 3)])
def test_the_limit_that_the_error_advises_is_enough(count, total):
    bad = [(f"{i}", f"{i} is bad") for i in range(count)]
    with pytest.raises(SetError) as error:
        Failures(total, 0.0).add(bad)
    advised = float(re.search(r"max_unreadable=(\d\.\d+)", str(error.value))[1])
    with pytest.warns(UserWarning, match=f"{count} of {total} videos could not be read"):
        Failures(total, advised).add(bad)


def test_max_unreadable_applies_in_testing_too(tiny, motion_mini, bad_files):
    bad = [Video(bad_files[name], 0) for name in ("text", "empty")]
    model = VisionTransformer(tiny, 8)
    videos = [*load_set(motion_mini).test[:8], *bad]
    files, sampling = VideoFiles(videos, tiny.img_size), Sampling(tiny.num_frames)
    with pytest.raises(SetError, match="2 of 10 .*"):
        evaluate(model, files, sampling)
    with pytest.warns(UserWarning, match="2 of 10 videos could not be read"):
        assert len(evaluate(model, files, sampling, max_unreadable=0.2).labels) == 8
    one = VideoFiles(
        videos[:9], tiny.img_size
    )  # a single video stops no run, however small its set
    with pytest.warns(UserWarning, match="1 of 9 videos could not be read"):
        assert len(evaluate(model, one, sampling).labels) == 8


# ---- batches -------------------------------------------------------------------------------------


def test_step_batches_go_through_every_video_once_per_epoch():
    keys = [key for batch in StepBatches(10, 4, 5, seed=0) for key in batch]
    for epoch in (0, 1):
        assert sorted(index for e, index in keys if e == epoch) == list(range(10))


def test_step_batches_resume_and_are_split_among_processes():
    whole = list(StepBatches(10, 4, 6, seed=0))
    assert list(StepBatches(10, 4, 6, seed=0, start=4)) == whole[4:]
    parts = [list(StepBatches(10, 4, 6, seed=0, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    with pytest.raises(
        ValueError, match="batch size, 4, must be divisible by the number of processes, 3"
    ):
        StepBatches(10, 4, 6, seed=0, world_size=3)


def test_testing_reads_every_video_once_in_order(motion_mini):
    videos = load_set(motion_mini).test
    batches = list(ordered_batches(VideoFiles(videos, 16), Sampling(8), batch=7))
    assert torch.cat([b.labels for b in batches]).tolist() == [v.label for v in videos]


def test_few_labels_are_balanced_and_determined_by_the_seed(motion_mini):
    videos = load_set(motion_mini).train
    chosen = few_labels(videos, 3, CLASSES, seed=1)
    assert np.bincount([videos[i].label for i in chosen]).tolist() == [3] * 8
    assert (
        chosen == few_labels(videos, 3, CLASSES, seed=1) != few_labels(videos, 3, CLASSES, seed=2)
    )
    assert Subset(VideoFiles(videos, 16), chosen).videos[4] == videos[chosen[4]]
    assert few_labels(videos, None, CLASSES, seed=1) == list(range(len(videos)))
    with pytest.raises(
        SetError, match="'right' has 6 training videos, fewer than labels_per_class, 7: set"
    ):
        few_labels(videos, 7, CLASSES, seed=1)


# ---- lists ---------------------------------------------------------------------------------------


def test_all_invalid_lines_are_reported_with_their_numbers(tmp_path):
    (tmp_path / "classes.txt").write_text("run\njump\n")
    (tmp_path / "train.csv").write_text("a.mp4 0\nb.mp4 7\nc.mp4\n\nd.mp4 swim\ne f.mp4 jump\n")
    (tmp_path / "test.csv").write_text("a.mp4 -1\n")
    with pytest.raises(SetError) as error:
        load_set(tmp_path)
    text = str(error.value)
    assert "4 lines" in text
    for words in (
        "train.csv line 2: 'b.mp4 7': label 7 is not between 0 and 1",
        "train.csv line 3: 'c.mp4': expected `path label`",
        "train.csv line 5: 'd.mp4 swim': unknown class 'swim'; classes.txt lists 'run', 'jump'",
        "test.csv line 1: 'a.mp4 -1'",
    ):
        assert words in text


def test_lists_may_have_names_or_numbers_spaces_and_windows_line_endings(tmp_path):
    (tmp_path / "classes.txt").write_text("run\njump\n", encoding="utf-8-sig")
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbfmy clips/a b.mp4 jump\r\nc.mp4  0\r\n")
    (tmp_path / "val.csv").write_text("d.mp4 1")
    videos = load_set(tmp_path)
    assert [(v.path.relative_to(tmp_path).as_posix(), v.label) for v in videos.train] == [
        ("my clips/a b.mp4", 1),
        ("c.mp4", 0),
    ]
    assert videos.test == (Video(tmp_path / "d.mp4", 1),)


@pytest.mark.parametrize("layout", ["split", "classes"])
def test_a_folder_per_class(tmp_path, layout):
    for split in ("train", "val") if layout == "split" else ("",):
        for name in ("run", "jump"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(5):
                (folder / f"{i}.mp4").touch()
    videos = load_set(tmp_path)
    assert videos.classes == ("jump", "run")
    assert (len(videos.train), len(videos.test)) == ((10, 10) if layout == "split" else (8, 2))


def test_bd_sports_as_published(tmp_path):
    """Its class folders are in Dataset/, beside Annotation/; there are no split lists."""
    for name in ("Kho_Kho", "Hari_Vanga"):
        folder = tmp_path / "BD_Sports_10" / "Dataset" / name
        folder.mkdir(parents=True)
        for i in range(1, 11):
            (folder / f"{name}_{i:03d}.mp4").touch()
    (tmp_path / "BD_Sports_10" / "Annotation").mkdir()
    videos = load_set(tmp_path / "BD_Sports_10")
    assert videos.classes == ("Hari_Vanga", "Kho_Kho")
    assert (len(videos.train), len(videos.test)) == (16, 4)


@pytest.mark.parametrize("case", ["missing", "empty folder", "one class", "no test"])
def test_an_unusable_set_is_an_error_that_describes_a_usable_one(tmp_path, case):
    folder = tmp_path / "set"
    if case != "missing":
        folder.mkdir()
    for name in {"one class": ("run",), "no test": ("run", "jump")}.get(case, ()):
        (folder / name).mkdir()
        (folder / name / "a.mp4").touch()
        assert len(load_set(folder).train) == len(list(folder.iterdir())), "enough to pre-train"
    words = {"missing": "no such folder", "no test": "no test split can be made"}
    with pytest.raises(SetError, match=words.get(case, "one sub-folder per class")):
        require_labels(load_set(folder))


# ---- augmentation --------------------------------------------------------------------------------


def test_multi_scale_crop_is_the_same_for_all_frames_and_differs_between_clips():
    picture = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    clips = picture.expand(6, 3, 4, 24, 24)
    out = multi_scale_crop(clips, torch.Generator().manual_seed(1))
    assert out.shape == clips.shape
    assert torch.allclose(out, out[:, :, :1].expand_as(out))
    assert len({round(float(clip.sum()), 3) for clip in out}) > 2


def test_a_full_size_crop_changes_nothing():
    clips = torch.rand(64, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    out = multi_scale_crop(clips, torch.Generator().manual_seed(0))
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(out, clips, strict=True)]
    assert 0 < sum(same) < 20, "one of the ten pairs of sides is 1 by 1"


def test_views_without_motion():
    clips = torch.arange(2 * 3 * 8).float().view(2, 3, 8, 1, 1).expand(2, 3, 8, 4, 4)
    single = view_of(clips, "single-frame")
    assert torch.equal(single, clips[:, :, 4:5].expand_as(clips))
    shuffled = view_of(clips, "shuffled", torch.Generator().manual_seed(0))
    assert not torch.equal(shuffled, clips)
    assert torch.equal(shuffled.sort(dim=2).values, clips)
    assert view_of(clips, "video") is clips


def test_no_warning_for_a_good_set(tmp_path, motion_mini):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(
            DataConfig(cache_dir=str(tmp_path), num_workers=1), load_set(motion_mini).train, 16, 8
        )


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_every_supported_file_type_is_read_exactly_in_any_order(suffix, tmp_path):
    codec = {".avi": "mpeg4", ".webm": "vp9", ".flv": "flv1", ".wmv": "wmv2"}.get(suffix, "h264")
    path = tmp_path / f"grey{suffix}"
    with av.open(str(path), "w", format="mp4" if suffix == ".m4v" else None) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(40):  # frame i has grey level 6 i
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 6 * i, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    order = np.array([30, 3, 17, 39, 0])
    means = read_frames(path, lambda n: order[order < n]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 6 * order, atol=5.5)


def test_relative_and_absolute_paths_share_one_store(motion_mini, tmp_path, monkeypatch):
    monkeypatch.chdir(motion_mini.parent)
    for path in (
        motion_mini,
        Path(motion_mini.name),
        Path("..") / motion_mini.parent.name / "motion",
    ):
        store = build_store(tmp_path, load_set(path).test, 16, workers=1)
        assert store.videos[0].path.is_absolute()
    assert len(list(tmp_path.iterdir())) == 1


def test_decoders_print_nothing(bad_files, capfd):
    for path in bad_files.values():
        with pytest.raises(VideoError):
            read_frames(path)
    assert capfd.readouterr() == ("", "")


def test_workers_read_a_store_where_a_gpu_would_wait_for_it(tmp_path, motion_mini, monkeypatch):
    """The batches are those of one process, and the store travels as the name of its folder."""
    videos = load_set(motion_mini).train
    store = build_store(tmp_path, videos, 16, workers=1)
    assert len(pickle.dumps(store)) < 500
    started = []
    real = loader_module.DataLoader
    monkeypatch.setattr(
        loader_module,
        "DataLoader",
        lambda *a, **k: started.append(k["num_workers"]) or real(*a, **k),
    )
    monkeypatch.setattr(loader_module, "LONG", 3)
    dataset = ClipDataset(store, Sampling(8), 3)
    found = {}
    for pin, steps in ((False, 3), (True, 2), (True, 3)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing is pinned without a GPU
            keys = StepBatches(len(videos), 4, steps, seed=3)
            found[pin, steps] = [b.clips for b in train_loader(dataset, keys, 1, pin)]
    assert started == [0, 0, 1]
    for a, b in zip(found[False, 3], found[True, 3], strict=True):
        assert torch.equal(a, b)
