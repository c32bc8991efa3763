"""Worker processes that cannot start are named before they start: nothing hangs, nothing stays locked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vmae import ROOT
from vmae.data import (
    ClipDataset,
    Sampling,
    StepBatches,
    Subset,
    Video,
    VideoFiles,
    build_store,
    load_set,
    ordered_batches,
    train_loader,
)
from vmae.data.reading import testing, workers
from vmae.data.reading.workers import WorkerError, rendering_workers, run_parallel

SCRIPT = """
import sys
from vmae.config import ModelConfig
from vmae.data import DataConfig
from vmae.train import OptimConfig, PretrainConfig, Silent, pretrain

data = DataConfig(path=sys.argv[1], cache=False, num_workers=2)
optim = OptimConfig(steps=3, batch_size=8)
model = ModelConfig.videomae("tiny", depth=1)
pretrain(PretrainConfig(model=model, data=data, optim=optim), sys.argv[2], progress=Silent())
"""


TEST_SCRIPT = """
import sys
from vmae.data import Sampling, VideoFiles, load_set, ordered_batches

files = VideoFiles(load_set(sys.argv[1]).test * 9, 16)
list(ordered_batches(files, Sampling(8), batch=8, num_workers=2))
"""


def started(*command: str | Path, **options) -> str:
    """The last line of the error that a program ends with, within a minute of computing time."""
    before = sum(os.times()[2:4])  # of ended children; a busy machine takes longer by the clock
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert sum(os.times()[2:4]) - before < 60
    assert done.returncode
    return done.stderr.strip().splitlines()[-1]


def assert_free(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {"config.yaml", "environment.json"}


@pytest.mark.parametrize("how", ["a script without a guard", "standard input"])
def test_a_program_that_workers_would_run_again(how, motion_mini, tmp_path):
    script = tmp_path / "script.py"
    if how == "standard input":
        error = started(sys.executable, "-", motion_mini, tmp_path / "run", input=SCRIPT)
        assert "cannot start from a program on standard input: save it as a file" in error
    else:
        script.write_text(SCRIPT)
        error = started(sys.executable, script, motion_mini, tmp_path / "run")
        assert f"each of them would run {script} again from its first line" in error
    assert 'under `if __name__ == "__main__":`, or start none (num_workers=0; in some fun' in error
    assert_free(tmp_path / "run")


def test_a_program_whose_test_workers_would_run_it_again(motion_mini, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TEST_SCRIPT)
    error = started(sys.executable, script, motion_mini)
    assert f"each of them would run {script} again from its first line" in error


PREPARES = """
import sys
from vmae.course.making import render_set
from vmae.data import SIZES, build_store, load_set, normalize_set, scan_set, with_sizes

what, folder, out = sys.argv[1:]
videos = load_set(folder)
if what == "scan":
    scan_set(videos)
elif what == "normalize":
    normalize_set(folder, out)
elif what == "store":
    build_store(out, videos.train * 20, 16)
elif what == "render":
    render_set(out, with_sizes(SIZES["mini"], train=120), 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["scan", "normalize", "store", "render"])
def test_a_script_that_prepares_a_set_needs_a_guard_too(what, motion_mini, tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "out"
    arguments = (what, motion_mini, out)
    script.write_text(PREPARES)
    errors = (
        started(sys.executable, script, *arguments),
        started(sys.executable, "-", *arguments, input=PREPARES),
    )
    for error, words in zip(errors, ("each of them would run", "standard input"), strict=True):
        assert words in error and 'under `if __name__ == "__main__":`' in error
    script.write_text(f'if __name__ == "__main__":\n    exec({PREPARES!r})\n    print("done")\n')
    done = subprocess.run([sys.executable, script, *map(str, arguments)], timeout=200, check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0 and "done" in done.stdout, done.stderr


def loader(motion_mini, num_workers: int):
    videos = load_set(motion_mini).train
    dataset = ClipDataset(VideoFiles(videos, 16), Sampling(8), seed=0)
    return train_loader(dataset, StepBatches(len(videos), 8, 2, seed=0), num_workers)


STOPPED = """
import sys
from pathlib import Path
import numpy as np
from vmae.data import Sampling, StepBatches, Video, VideoFiles, train_loader
from vmae.data.reading.loader import ClipDataset
from vmae.data.writing.encode import write_video

if __name__ == "__main__":
    pixels = np.random.default_rng(0).integers(0, 256, (120, 64, 80, 3), dtype=np.uint8)
    pixels = pixels.repeat(3, 1).repeat(3, 2)
    videos = [Video(Path(sys.argv[1]) / f"{number}.mp4", 0) for number in range(12)]
    for video in videos:
        write_video(video.path, pixels, fps=25)
    dataset = ClipDataset(VideoFiles(videos, 112), Sampling(16, 4), seed=0)
    for _ in range(2):
        loader = train_loader(dataset, StepBatches(12, 6, 500, seed=0), 2)
        for _ in range(4):
            next(loader)
        loader.close()
"""


def test_workers_that_are_stopped_in_the_middle_end_quietly(tmp_path):
    """decord's threads aborted them, with a traceback on the way."""
    program = tmp_path / "stopped.py"
    program.write_text(STOPPED)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_little_shared_memory_is_found_before_workers_start(motion_mini, monkeypatch, tmp_path):
    usage = namedtuple("usage", "free")
    batch = 8 * 8 * 16 * 16 * 3
    monkeypatch.setattr(workers, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(5 * batch - 1))
    words = r"need about 0.2 MB of shared memory.*--shm-size=1g.*num_workers to 0"
    with pytest.raises(WorkerError, match=words):
        next(loader(motion_mini, num_workers=2))
    assert len(list(loader(motion_mini, num_workers=1))) == 2
    assert len(list(loader(motion_mini, num_workers=0))) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(WorkerError, match="shared memory"):
        next(loader(motion_mini, num_workers=1))
    assert list(run_parallel(str, range(8), 2, chunk=1)) == list(map(str, range(8)))


# ---- testing -------------------------------------------------------------------------------------


@pytest.fixture
def starts(monkeypatch) -> list[int]:
    """The numbers of workers that are started, from the first clip on."""
    found: list[int] = []
    real = workers.DataLoader
    monkeypatch.setattr(
        workers, "DataLoader", lambda *a, **k: found.append(k["num_workers"]) or real(*a, **k)
    )
    monkeypatch.setattr(testing, "FEW", 1)
    return found


@pytest.mark.filterwarnings("ignore:1 of 8 videos")
def test_workers_read_a_test_in_order_and_identically(motion_mini, tmp_path, starts):
    """Also the share of one of two processes, several views, and without an unreadable video."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    videos = load_set(motion_mini).test[:7]
    files = VideoFiles([*videos[:3], Video(bad, 0), *videos[3:]], 16)

    def read(num_workers: int, rank: int) -> tuple[list, list]:
        failed: list[tuple[str, str]] = []
        batches = ordered_batches(
            files, Sampling(8), 2, 2, 2, rank=rank, world_size=2, num_workers=num_workers,
            gather=lambda found: failed.extend(found) or found,
        )  # fmt: skip
        return list(batches), failed

    for rank in (0, 1):
        (alone, few), (parallel, many) = read(0, rank), read(2, rank)
        assert [x.number for x in parallel] == [x.number for x in alone] == [[0, 2], [1, 3]][rank]
        assert [x.videos for x in parallel] == [x.videos for x in alone]
        assert few == many and len(many) == rank
        for a, b in zip(alone, parallel, strict=True):
            assert torch.equal(a.clips, b.clips) and torch.equal(a.labels, b.labels)
            assert not b.clips.is_shared(), "shared memory holds a few videos, not a whole batch"
    assert starts == [2, 2]


def test_a_test_has_no_workers_where_they_do_not_pay(motion_mini, tmp_path, starts, monkeypatch):
    videos, sampling = load_set(motion_mini).test[:8], Sampling(8)
    store = build_store(tmp_path, videos, 16, workers=1)
    for source in (store, Subset(store, [1, 2, 3, 4])):
        assert list(ordered_batches(source, sampling, batch=4, num_workers=2))
    monkeypatch.setattr(testing, "FEW", 17)
    assert list(ordered_batches(VideoFiles(videos, 16), sampling, 4, clips=2, num_workers=2))
    assert starts == []


def test_little_shared_memory_is_found_before_a_test_starts(motion_mini, starts, monkeypatch):
    files, view = VideoFiles(load_set(motion_mini).test[:8], 16), 8 * 16 * 16 * 3
    monkeypatch.setattr(workers, "SHARED", motion_mini)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 6 * view - 1)
    )  # five videos, of six views each
    with pytest.raises(WorkerError, match=r"need about 0.2 MB of shared memory.*num_workers to 0"):
        next(ordered_batches(files, Sampling(8), 4, 2, 3, num_workers=2))
    assert starts == []


SMALL = "mount -t tmpfs -o size=100k tmpfs /dev/shm && exec "


@pytest.mark.slow
def test_a_container_with_little_shared_memory(motion_mini, tmp_path):
    if (
        not shutil.which("unshare")
        or subprocess.run(
            ["unshare", "-m", "sh", "-c", SMALL + "true"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this user cannot mount a file system")
    script = tmp_path / "script.py"
    script.write_text(f'if __name__ == "__main__":\n    exec({SCRIPT!r})\n')
    command = f"{sys.executable} {script} {motion_mini} {tmp_path / 'run'}"
    error = started("unshare", "-m", "sh", "-c", SMALL + command)
    assert "0.1 MB are free in /dev/shm: start the container with more" in error
    assert_free(tmp_path / "run")


def test_renderers_are_as_many_as_cores_and_memory_allow(monkeypatch):
    def machine(cores: int, gigabytes: float) -> None:
        memory = SimpleNamespace(available=int(gigabytes * 1e9))
        monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: range(cores), raising=False)
        monkeypatch.setattr(workers.psutil, "virtual_memory", lambda: memory)

    machine(cores=8, gigabytes=64)
    assert [rendering_workers(n) for n in (None, 0, 1, 4, 64)] == [8, 1, 1, 4, 8]
    machine(cores=64, gigabytes=2)
    assert [rendering_workers(n) for n in (None, 2, 64)] == [4, 2, 4]
    machine(cores=2, gigabytes=0.1)
    assert rendering_workers() == 1
