"""Worker processes that cannot start are named before they start: nothing hangs, nothing stays locked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmae.data import ClipDataset, Sampling, StepBatches, VideoFiles, load_set, train_loader
from vmae.data.reading import workers
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


def started(*command: str | Path, **options) -> str:
    """The last line of the error that a program ends with, within a minute."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=60, check=False, **options
    )
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
