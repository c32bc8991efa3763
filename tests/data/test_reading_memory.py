"""Memory does not grow with the length of a video: everything that decodes runs below a hard limit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

#: Bytes that a command may use on top of what its imports use.
LIMIT = 400 << 20
#: Videos whose frames take more together, about 1 GB: number of frames, width and height. The last is just
#: small enough for decord, which may decode all of it ahead.
FILMS = {"720p": (450, 1280, 720), "long": (1500, 640, 360), "short": (300, 640, 360)}

PROGRAM = """
import resource, sys, time
import numpy as np
from vmae import ROOT
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import *
from vmae.data.reading.reader import frame_pieces
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
    for step in (1, -2):
        frames = videos.read(0, lambda n: np.arange(n)[::step])
        assert frames.shape == ({count} // abs(step), 64, 114, 3)
elif what == "a slow reader":  # whatever decodes ahead gets the time for it
    for count, piece in enumerate(frame_pieces(film)):
        time.sleep(0.5 if count < 10 else 0)
elif what == "predict":
    config = ModelConfig.videomae("tiny", img_size=32, tubelet=(2, 8, 8))
    model = VisionTransformer(config, 2)
    assert len(predict(model, film, clips=40, crops=3)) == 2
print("done")
"""


def film(path: Path, count: int, width: int, height: int) -> None:
    """A square that moves over a grey picture, 16 pixels in a second: a few kB per second on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "480", "bf": "0"}
        for i in range(count):
            if i % 24 == 0:
                picture = np.full((height, width, 3), 120, np.uint8)
                picture[100:220, (left := 16 * (i // 24) % width) : left + 120] = 250
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Callable[[str], Path]:
    """Makes a set of one of the FILMS and one short video, once."""
    top = tmp_path_factory.mktemp("sets")

    def made(name: str) -> Path:
        count, *size = FILMS[name]
        if not (top / name).exists():
            film(top / name / "train" / "a" / "0.mp4", count, *size)
            film(top / name / "test" / "a" / "0.mp4", 20, *size)
        return top / name

    return made


#: Every command once; they share what decodes, so each film goes to some of them.
CASES = [
    *(("720p", what) for what in ("files", "scan", "predict")),
    *(("long", what) for what in ("a slow reader", "store", "normalize")),
    ("short", "a slow reader"),
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process's data")
@pytest.mark.parametrize(("name", "what"), CASES)
def test_a_long_video_fits_in_little_memory(name, what, films, tmp_path):
    program = PROGRAM.format(limit=LIMIT, count=FILMS[name][0])
    (tmp_path / "data" / "stores").mkdir(parents=True)  # the cache of a working folder that has one
    command = [sys.executable, "-c", program, what, str(films(name)), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0 and "done" in done.stdout, done.stderr[-3000:]
