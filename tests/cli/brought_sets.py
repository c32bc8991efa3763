"""Sets as people bring them: a folder from several cameras, a UCF101 tree, a Something-Something V2 tree."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np

CLASSES = ("turning 'left'", "wächst – 成長")
#: Of each camera: suffix, codec, frames per second, height and width.
CAMERAS = [
    (".mp4", "libx264", 30, 60, 106), (".MOV", "libx264", 60, 106, 60), (".avi", "mpeg4", 25, 64, 80),
    (".mkv", "libx264", 15, 80, 104), (".webm", "libvpx", 12, 60, 80), (".m4v", "libx264", 24, 96, 54),
]  # fmt: skip
NAMES = ["my video ({})", "{}, final #2", "видео {}", 'the "{}"', "{}'s", "größe-{}", "{}"]
WORDS = ("kitchen", "garden", "street", "hall", "roof", "beach", "tower", "market", "forest", "pier",
         "bridge")  # fmt: skip
TEMPLATES = ("Pushing [something] up", "Moving [something], or part of it", "Turning [something]")


def film(
    path: Path, seed: int, seconds: float, codec: str, fps: int, height: int, width: int
) -> None:
    """A random texture that drifts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texture = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    texture = texture.repeat(8, 0).repeat(8, 1)[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(round(seconds * fps)):
            picture = np.ascontiguousarray(np.roll(texture, number, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def own_folder(folder: Path) -> Path:
    """Ten videos of one class and eleven of the other, a broken file, one of a camcorder, and notes."""
    for label, name in enumerate(CLASSES):
        for number in range(10 + label):
            suffix, *form = CAMERAS[number % len(CAMERAS)]
            stem = NAMES[number % len(NAMES)].format(WORDS[number])
            film(folder / name / f"{stem}{suffix}", 20 * label + number, 0.8, *form)
    film(folder / CLASSES[0] / "00001.MTS", 50, 0.8, "mpeg2video", 25, 64, 80)
    (folder / CLASSES[1] / "broken.mp4").write_bytes(b"\0" * 3000)
    (folder / CLASSES[1] / "notes.txt").write_text("filmed in May")
    return folder


def ucf101(folder: Path) -> Path:
    """Two classes of four groups of two clips, the first group for testing."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    names, rows = ("ApplyLipstick", "Archery"), {"train": "", "test": ""}
    for label, name in enumerate(names, 1):
        for group in range(1, 5):
            for clip in range(1, 3):
                path = f"{name}/v_{name}_g{group:02}_c{clip:02}.avi"
                seed = 100 * label + 10 * group + clip
                film(folder / "UCF-101" / path, seed, 0.8, "mpeg4", 25, 60, 80)
                rows["test" if group == 1 else "train"] += (
                    f"{path}\n" if group == 1 else f"{path} {label}\n"
                )
    (lists / "classInd.txt").write_text("".join(f"{n} {c}\n" for n, c in enumerate(names, 1)))
    for split, text in rows.items():
        (lists / f"{split}list01.txt").write_text(text)
    return folder


def ssv2(folder: Path) -> Path:
    """Three templates of six videos, of which the last is for validation."""
    (folder / "labels").mkdir(parents=True)
    rows: dict[str, list] = {"train": [], "validation": []}
    for label, template in enumerate(TEMPLATES):
        for number in range(6):
            name = str(1000 * label + 37 * number + 5)
            film(folder / "20bn-something-something-v2" / f"{name}.webm", int(name), 1.5, "libvpx", 12,
                 60, 106)  # fmt: skip
            row = {"id": name, "label": template.replace("[something]", "a cup"), "template": template,
                   "placeholders": ["a cup"]}  # fmt: skip
            rows["train" if number < 5 else "validation"].append(row)
    names = {name.replace("[", "").replace("]", ""): str(n) for n, name in enumerate(TEMPLATES)}
    for name, content in {"labels": names, **rows}.items():
        (folder / "labels" / f"{name}.json").write_text(json.dumps(content))
    return folder
