"""Memory does not grow with the length of a video: everything that decodes runs below a hard limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

#: Bytes that a command may use on top of what its imports use. The film alone has 1.2 GB of frames.
LIMIT = 400 << 20

PROGRAM = """
import resource, sys
import numpy as np
from vmae import ROOT
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import *
from vmae.predict import predict
from vmae.vit import VisionTransformer

read_frames(ROOT / "data" / "big_buck_bunny_shot.mp4", lambda n: np.arange(4))  # starts its threads
what, folder, out = sys.argv[1:]
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + {limit}, used + {limit}))
film = load_set(folder).train[0].path
if what in ("scan", "normalize", "store"):
    more = {{"scan": [], "normalize": [out], "store": ["--pixels", "64"]}}[what]
    status = main([what, folder, *more, "--num-workers", "1"])
    assert status == 0, status
elif what == "files":
    videos = VideoFiles([Video(film, 0)], 64)
    assert videos.read(0, lambda n: np.arange(n)).shape == (450, 64, 114, 3)
    assert videos.read(0, lambda n: np.arange(n)[::-2]).shape == (225, 64, 114, 3)
elif what == "predict":
    config = ModelConfig.videomae("tiny", img_size=32, tubelet=(2, 8, 8))
    model = VisionTransformer(config, 2)
    assert len(predict(model, film, clips=40, crops=3)) == 2
print("done")
"""


def film(path: Path, count: int) -> None:
    """A square on a grey 720p picture that moves 2 pixels per frame: 30 kB, but 2.8 MB per frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "48", "bf": "0"}
        for i in range(count):
            picture = np.full((720, 1280, 3), 120, np.uint8)
            picture[300:420, 2 * i : 2 * i + 120] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def long_films(tmp_path_factory) -> Path:
    """A set of two videos, of 450 and 20 frames."""
    folder = tmp_path_factory.mktemp("sets") / "long"
    film(folder / "train" / "a" / "0.mp4", 450)
    film(folder / "test" / "a" / "0.mp4", 20)
    return folder


def run(what: str, folder: Path, tmp_path: Path) -> None:
    program = PROGRAM.format(limit=LIMIT)
    (tmp_path / "data" / "stores").mkdir(parents=True)  # the cache of a working folder that has one
    command = [sys.executable, "-c", program, what, str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-3000:]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process's data")
@pytest.mark.parametrize("what", ["files", "store", "scan", "normalize", "predict"])
def test_a_long_video_fits_in_little_memory(what, long_films, tmp_path):
    run(what, long_films, tmp_path)
