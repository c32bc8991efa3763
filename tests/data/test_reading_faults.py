"""Killed processes, two writers of one folder, and folders that are not writable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from nursery import wait_for

from vmae.cli.main import main
from vmae.course.making import FILM, FilmSpec, render_film
from vmae.data import (
    ClipDataset,
    Sampling,
    StepBatches,
    VideoFiles,
    build_store,
    load_set,
    normalize_set,
    train_loader,
    write_video,
)
from vmae.data.reading.workers import WorkerError, named_worker_deaths
from vmae.support import files
from vmae.support.files import BusyError, DiskError, only_writer


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The spawned workers among a process's children, without the resource tracker."""
    return [p for p in process.children() if "spawn_main" in " ".join(p.cmdline())]


def kill_after(command: list[str], condition) -> None:
    """Start `vmae ...` in a new process and kill it with SIGKILL once `condition` holds."""
    process = subprocess.Popen([sys.executable, "-m", "vmae", *command])
    try:
        wait_for(lambda: condition() or process.poll() is not None)
        assert process.poll() is None, "the process ended before it could be killed"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """A set of videos that takes a while to re-encode."""
    folder = tmp_path_factory.mktemp("sets") / "originals"
    rng = np.random.default_rng(0)
    for i in range(12):
        small = rng.integers(0, 256, (60, 12, 16, 3), dtype=np.uint8)
        name = folder / "ab"[i % 2] / f"{i}.mp4"
        write_video(name, small.repeat(16, 1).repeat(16, 2), crf=40)
    return folder


@pytest.mark.slow
def test_a_worker_that_dies_while_decoding_is_reported_and_the_store_resumes(
    tmp_path, motion_mini, monkeypatch
):
    monkeypatch.setattr("vmae.data.reading.store.SHARD", 40)
    videos = load_set(motion_mini).train * 4  # enough for worker processes

    def kill_one(results, **_):
        for i, result in enumerate(results):
            if i == 50:
                workers_of(psutil.Process())[0].kill()
            yield result

    with pytest.raises(
        WorkerError,
        match=r"worker process died.*memory.*--num-workers.*kept: to continue, run the same command again",
    ):
        build_store(tmp_path / "cut", videos, 16, workers=2, progress=kill_one)
    (unfinished,) = (tmp_path / "cut").iterdir()
    kept = (unfinished / "00000.bin").stat().st_mtime_ns
    resumed = build_store(tmp_path / "cut", videos, 16, workers=2)
    assert (resumed.folder / "00000.bin").stat().st_mtime_ns == kept, "a complete shard is kept"
    whole = build_store(tmp_path / "whole", videos, 16, workers=1)
    for one, other in zip(resumed.shards(), whole.shards(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loader_worker_that_dies_ends_training_with_the_reason(motion_mini):
    videos = load_set(motion_mini).train
    dataset = ClipDataset(VideoFiles(videos, 16), Sampling(8), seed=0)
    keys = StepBatches(len(videos), 8, 10_000, seed=0)
    with (  # the death may be signalled during a step, outside the loader
        pytest.raises(WorkerError, match=r"worker process died.*memory.*data.num_workers"),
        named_worker_deaths(),
    ):
        for step, _ in enumerate(train_loader(dataset, keys, num_workers=2)):
            if step == 2:
                workers_of(psutil.Process())[0].kill()


def test_other_errors_are_raised_unchanged():
    with pytest.raises(RuntimeError, match="^shapes differ$"), named_worker_deaths():
        raise RuntimeError("shapes differ")


def is_running(process: psutil.Process) -> bool:
    """Whether a process is still running; an ended one may be listed until init reaps it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(tmp_path, originals):
    found: list[psutil.Process] = []

    def started() -> bool:
        mine = [p for p in psutil.Process().children() if "normalize" in " ".join(p.cmdline())]
        found[:] = workers_of(mine[0]) if mine else []
        return len(found) == 2 and any((tmp_path / "out").rglob("*.part"))

    kill_after(["normalize", str(originals), str(tmp_path / "out"), "--num-workers", "2"], started)
    wait_for(lambda: not any(is_running(p) for p in found))


@pytest.mark.slow
def test_a_killed_normalize_resumes_and_writes_identical_files(tmp_path, originals):
    out, whole = tmp_path / "out", tmp_path / "whole"
    normalize_set(originals, whole, workers=1)
    expected = {p.relative_to(whole): p.read_bytes() for p in whole.rglob("*.mp4")}
    assert len(expected) == 12
    command = ["normalize", str(originals), str(out), "--num-workers", "1"]
    for done in (1, 5):  # in the middle of a file, after this many complete ones
        kill_after(
            command,
            lambda n=done: len(list(out.rglob("[!.]*.mp4"))) >= n and any(out.rglob(".*.part")),
        )
        for path in out.rglob("[!.]*.mp4"):
            assert path.read_bytes() == expected[path.relative_to(out)], "never half a file"
    assert main(command) == 0
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*.mp4")} == expected
    assert not list(out.rglob(".*.part")), "half-written files are removed"


def test_a_second_writer_of_a_folder_is_refused(tmp_path, motion_mini, originals):
    videos = load_set(motion_mini).train
    folder = build_store(tmp_path, videos, 16, workers=1).folder
    unfinished = folder.with_name(folder.name + ".partial")
    folder.rename(unfinished)
    with (
        only_writer(unfinished),
        pytest.raises(BusyError, match=r"another process is writing to .*partial"),
    ):
        build_store(tmp_path, videos, 16, workers=1)
    assert len(build_store(tmp_path, videos, 16, workers=1)) == len(videos)

    normalize_set(originals, tmp_path / "out", workers=1)
    with only_writer(tmp_path / "out"), pytest.raises(BusyError, match="wait for it to finish"):
        normalize_set(originals, tmp_path / "out", workers=1)


def test_a_writer_leaves_no_lock_behind_and_never_removes_that_of_another(tmp_path):
    folder = tmp_path / "out"
    with only_writer(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert not list(folder.iterdir())
    with pytest.raises(KeyError), only_writer(folder):
        raise KeyError
    assert not list(folder.iterdir())
    with only_writer(folder):
        folder.rename(tmp_path / "finished")
        folder.mkdir()
        (folder / ".lock").touch()
    assert (folder / ".lock").exists()


def test_a_killed_writer_releases_the_folder_and_its_half_written_files_are_removed(tmp_path):
    code = (
        "import sys, time, pathlib; from vmae.support.files import only_writer\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with only_writer(folder):\n"
        "    (folder / '.a.mp4.1.part').touch()\n"
        "    time.sleep(600)\n"
    )
    folder, half = tmp_path / "out", tmp_path / "out" / ".a.mp4.1.part"
    writer = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    try:
        wait_for(half.exists)
        with pytest.raises(BusyError, match=r"another process is writing to .*out: wait"):
            only_writer(folder).__enter__()
        assert half.exists(), "the other process still writes it"
    finally:
        writer.kill()
        writer.wait()
    with only_writer(folder):
        assert not half.exists()


def test_a_full_disk_leaves_the_originals_unchanged_and_no_half_written_file(
    tmp_path, originals, monkeypatch
):
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in originals.rglob("*.mp4")}
    real, written = files.os.replace, []

    def full(source, target):
        if Path(target).suffix == ".mp4":
            written.append(target)
            if len(written) == 3:
                raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(DiskError, match=r"no space left.*kept: to continue, run the same command"):
        normalize_set(originals, tmp_path / "out", workers=1)
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 2
    assert not list((tmp_path / "out").rglob("*.part"))
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in originals.rglob("*.mp4")} == before
    assert normalize_set(originals, tmp_path / "out", workers=1).written == 12


@pytest.mark.parametrize("what", ["store", "normalize", "film"])
def test_a_folder_that_is_not_writable_is_reported(tmp_path, motion_mini, originals, what):
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "folder"
    videos = load_set(motion_mini).train[:3]
    with pytest.raises(DiskError, match=r"cannot write .*file.folder.*another folder"):
        if what == "store":
            build_store(below, videos, 16, workers=1)
        elif what == "normalize":
            normalize_set(originals, below, workers=1)
        else:
            render_film(below, FILM, FilmSpec(most_clips=1), workers=1)
