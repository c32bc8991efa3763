"""Check every video of a set and report its problems, before a training run meets them.

The reference is a sequential decode of the whole file by PyAV. decord seeks, and in some files (open
GOP, MPEG-2, edit lists) it silently returns wrong frames after a seek. The errors occur around key
frames, so those are the frames compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from vmae.data.reading.reader import VideoError, open_video
from vmae.data.reading.workers import run_parallel
from vmae.data.sets.videos import VideoSet
from vmae.support.files import write_text

#: A frame is wrong if its mean absolute difference from the reference, of 255, is above this.
#: Where decord is exact, 0.0 was measured.
WRONG = 1.5

#: Each kind of problem, with what to do about it.
ADVICE = {
    "unreadable": "could not be decoded completely: download these videos again, or remove them "
    "from the lists",
    "foreign": "decord cannot read these videos, but other decoders can: run `vmae normalize`",
    "wrong": "decord silently returns wrong frames for these videos: run `vmae normalize`",
    "short": "shorter than a clip: use fewer frames or a smaller stride, or remove these videos",
    "duplicate": "in both train and test: remove these videos from one split, or test results will "
    "be too optimistic",
}

#: Bytes of reference frames held in memory at once, and the maximum number of frames compared.
_HELD, _MOST = 192 << 20, 32


@dataclass
class Report:
    """The findings for one file; `problems` are (kind, text), where kind is a key of ADVICE."""

    path: str
    splits: list[str]
    seconds: float | None = None
    frames: int | None = None
    rate: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    file_hash: str | None = None
    picture_hash: str | None = None
    note: str = ""
    problems: list[tuple[str, str]] = field(default_factory=list)


def pictures(path: str | Path) -> Iterator[np.ndarray]:
    """All frames of a video in order, each (H, W, 3) uint8, upright as a player shows them.

    Raises VideoError if the file cannot be decoded to its end.
    """
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video_stream(container, path)):
                if frame.is_corrupt:
                    raise VideoError(f"{path}: the video contains a corrupt frame")
                yield upright(frame.to_ndarray(format="rgb24"), _matrix(frame))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: the video could not be decoded ({error})") from None


def video_stream(container: Any, path: str | Path) -> Any:
    """The first video stream of a container opened by PyAV.

    Raises VideoError if there is no video stream or PyAV does not know its codec.
    """
    if not container.streams.video:
        raise VideoError(f"{path}: the file has no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: the video uses an unknown codec")
    return stream


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """Entries a, b, c, d of the display matrix; the identity if the frame has none."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(data), dtype=np.int32)[[0, 1, 3, 4]]
            if (values % 65536).any():
                raise VideoError(
                    "the video's display matrix is not a rotation by a multiple of 90 degrees"
                )
            a, b, c, d = (int(v) >> 16 for v in values)
            return a, b, c, d
    return 1, 0, 0, 1


def upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Rotate and mirror a frame (H, W, 3) by its display matrix: x' = ax + cy, y' = bx + dy.

    Raises VideoError unless the matrix is a quarter turn or a mirror: others need interpolation.
    """
    a, b, c, d = matrix
    if abs(a) == abs(d) == 1 and b == c == 0:
        across, down = a, d
    elif abs(b) == abs(c) == 1 and a == d == 0:
        picture, across, down = picture.transpose(1, 0, 2), c, b
    else:
        raise VideoError(
            f"the display matrix {matrix} is not a rotation by a multiple of 90 degrees"
        )
    return np.ascontiguousarray(picture[::down, ::across])


def scan_set(
    videos: VideoSet,
    frames: int = 16,
    stride: int = 1,
    workers: int = 2,
    progress: Callable[..., Any] = tqdm,
) -> list[Report]:
    """Report on each file of a set, in list order, train before test."""
    splits: dict[Path, list[str]] = {}
    for split in ("train", "test"):
        for video in videos.split(split):
            names = splits.setdefault(video.path, [])
            if split not in names:
                names.append(split)
    work = partial(_scan, (frames - 1) * stride + 1)
    done = run_parallel(work, list(splits.items()), workers, chunk=1)
    reports = list(progress(done, total=len(splits), desc="scan"))
    _mark_duplicates(reports)
    return reports


def _scan(span: int, job: tuple[Path, list[str]]) -> Report:
    path, splits = job
    report = Report(str(path), splits)
    if path.is_dir():
        report.note = "image folders are not scanned"
        return report
    try:
        if not path.is_file() or path.stat().st_size == 0:
            open_video(path)  # raises with the reason
        with open(path, "rb") as file:
            report.file_hash = hashlib.file_digest(file, "sha256").hexdigest()
        chosen = _choose(path, report)
        reference: dict[int, np.ndarray] = {}
        count = 0
        digest = hashlib.sha256()
        for count, picture in enumerate(pictures(path), 1):
            if count - 1 in chosen:
                reference[count - 1] = picture
                digest.update(picture.tobytes())
        if count == 0:
            raise VideoError(f"{path}: the video contains no frames")
    except (VideoError, OSError) as error:
        report.problems.append(("unreadable", _short(error, path)))
        return report
    report.frames = count
    report.height, report.width = next(iter(reference.values())).shape[:2]
    report.picture_hash = f"{count}-{digest.hexdigest()}"
    if count < span:
        report.problems.append(("short", f"{count} frames, but a clip covers {span}"))
    try:
        wrong = _compare(path, reference, count)
    except VideoError as error:
        report.problems.append(("foreign", _short(error, path)))
    else:
        if wrong:
            report.problems.append(("wrong", wrong))
    return report


def _choose(path: Path, report: Report) -> set[int]:
    """Choose the frames to compare before decoding any; add the container's data to the report."""
    try:
        with av.open(str(path)) as container:
            stream = video_stream(container, path)
            report.codec = stream.codec_context.codec.canonical_name
            report.rate = float(stream.average_rate) if stream.average_rate else None
            report.seconds = container.duration / av.time_base if container.duration else None
            size = max(stream.codec_context.width * stream.codec_context.height * 3, 1)
            packets = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.size]
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{path}: the file could not be opened as a video ({getattr(error, 'strerror', None) or error})"
        ) from None
    if all(time is not None for time, _ in packets):
        packets.sort(key=lambda packet: packet[0] or 0)
    most = min(_MOST, max(8, _HELD // size))
    total = len(packets)
    keys = [i for i, (_, key) in enumerate(packets) if key]
    picked = [keys[i] for i in np.linspace(0, len(keys) - 1, min(most // 4, len(keys))).astype(int)]
    chosen = {k + step for k in picked for step in (-2, -1, 1)}
    chosen |= set(np.linspace(0, max(total - 1, 0), most // 4).astype(int).tolist())
    return {i for i in chosen if 0 <= i < total} | {0}


def _compare(path: Path, reference: dict[int, np.ndarray], count: int) -> str:
    """How decord's frames differ from the reference; empty if they do not."""
    reader = open_video(path)
    if len(reader) != count:
        return f"decord counts {len(reader)} frames, but the file has {count}"
    # In random order, so that decord has to seek, as it does when clips are read.
    order = np.random.default_rng(0).permutation(sorted(reference))
    different = 0
    for i in order.tolist():
        frame = reader.frames([i])[0]
        if frame.shape != reference[i].shape:
            return f"decord's frames have shape {frame.shape}, but the file's have {reference[i].shape}"
        different += np.abs(frame.astype(np.int16) - reference[i]).mean() > WRONG
    return f"{different} of {len(order)} compared frames are wrong" if different else ""


def _short(error: Exception, path: Path) -> str:
    """The text of an error, without the path, which the report already holds."""
    return str(error).removeprefix(f"{path}: ").strip().replace(f"; '{path}'", "")[:160]


def _mark_duplicates(reports: Sequence[Report]) -> None:
    """Add a problem to each test file that is also in the train split."""
    for what in ("file_hash", "picture_hash"):
        train = {getattr(r, what): r.path for r in reports if "train" in r.splits}
        for report in reports:
            value = getattr(report, what)
            known = any(kind == "duplicate" for kind, _ in report.problems)
            if "test" in report.splits and value is not None and value in train and not known:
                same = "the same bytes" if what == "file_hash" else "the same frames"
                report.problems.append(("duplicate", f"{same} as {train[value]} in train"))


def summary(reports: Sequence[Report], most: int = 20) -> str:
    """A text summary: counts, then each kind of problem, with advice and the files concerned."""
    bad = sum(bool(report.problems) for report in reports)
    codecs = sorted({report.codec for report in reports if report.codec})
    counts = [report.frames for report in reports if report.frames]
    sizes = sorted({(r.width, r.height) for r in reports if r.width and r.height})
    lines = [f"{len(reports)} files, {bad} with problems; codecs: {', '.join(codecs) or 'none'}"]
    if counts:
        lines.append(f"{min(counts)} to {max(counts)} frames; {len(sizes)} sizes, "
                     f"{'x'.join(map(str, sizes[0]))} to {'x'.join(map(str, sizes[-1]))}")  # fmt: skip
    folders = sum(bool(report.note) for report in reports)
    if folders:
        lines.append(f"image folders not scanned: {folders}")
    for kind, advice in ADVICE.items():
        rows = [(r.path, text) for r in reports for k, text in r.problems if k == kind]
        if rows:
            lines += ["", f"{kind}: {len(rows)} ({advice})"]
            lines += [f"  {path}: {text}" for path, text in rows[:most]]
            if len(rows) > most:
                lines.append(f"  and {len(rows) - most} more (--json FILE lists all of them)")
    return "\n".join(lines)


def write_json(path: Path, reports: Sequence[Report]) -> None:
    """Write all reports to a JSON file, atomically."""
    write_text(path, json.dumps([asdict(report) for report in reports], indent=1) + "\n")
