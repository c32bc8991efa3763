"""Open every video of a set and say what is wrong with it, before a run finds out.

The reference is a decode of the whole file, one frame after the other, by PyAV. decord seeks, and
after a seek it gives other frames than asked for in some files (open GOP, MPEG-2, edit lists), and
says nothing. That shows at key frames, so frames around key frames are compared.
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
import decord
import numpy as np
from tqdm import tqdm

from vmae.data.reading.reader import VideoError, open_video
from vmae.data.reading.workers import run_parallel
from vmae.data.sets.videos import VideoSet
from vmae.support.files import write_text

#: A frame is another one where it differs by more, on average over pixels, of 255. Measured: 0.0
#: where decord is exact.
WRONG = 1.5

#: Each kind of problem, and what to do about it.
ADVICE = {
    "unreadable": "no reader gets through it: fetch it again, or take it out of the lists",
    "foreign": "decord cannot read it, other readers can: `vmae normalize`",
    "wrong": "decord gives other frames than the file shows, and says nothing: `vmae normalize`",
    "short": "shorter than a clip: use fewer frames or a smaller stride, or leave it out",
    "duplicate": "in train and in test: take it out of one, or the test result is too good",
}

#: Bytes of frames held at once for the comparison, and the most frames compared.
_HELD, _MOST = 192 << 20, 32


@dataclass
class Report:
    """What is known of one file; `problems` are [kind, text] with the kinds of ADVICE."""

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
    """All frames of a video in order, each (H, W, 3) uint8, upright, as players show them.

    Raises VideoError where the file cannot be read to its end.
    """
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video_stream(container, path)):
                if frame.is_corrupt:
                    raise VideoError(f"{path}: a frame is damaged")
                yield upright(frame.to_ndarray(format="rgb24"), _matrix(frame))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be decoded ({error})") from None


def video_stream(container: Any, path: str | Path) -> Any:
    """The first video stream of a container that PyAV opened.

    Raises VideoError where there is none, or none that PyAV can decode.
    """
    if not container.streams.video:
        raise VideoError(f"{path}: there is no video stream in it")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: its codec is unknown")
    return stream


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """The display matrix's a, b, c, d in units; the identity where there is none."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(data), dtype=np.int32)[[0, 1, 3, 4]]
            if (values % 65536).any():
                raise VideoError("its display matrix is no quarter turn")
            a, b, c, d = (int(v) >> 16 for v in values)
            return a, b, c, d
    return 1, 0, 0, 1


def upright(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """A frame (H, W, 3) turned and mirrored as its display matrix says: x' = ax + cy, y' = bx + dy.

    Raises VideoError where the matrix is no quarter turn or mirror: that would need new pixels.
    """
    a, b, c, d = matrix
    if abs(a) == abs(d) == 1 and b == c == 0:
        across, down = a, d
    elif abs(b) == abs(c) == 1 and a == d == 0:
        picture, across, down = picture.transpose(1, 0, 2), c, b
    else:
        raise VideoError(f"the display matrix {matrix} is no quarter turn")
    return np.ascontiguousarray(picture[::down, ::across])


def scan_set(
    videos: VideoSet,
    frames: int = 16,
    stride: int = 1,
    workers: int = 2,
    progress: Callable[..., Any] = tqdm,
) -> list[Report]:
    """A report on each file of a set, in the order of its lists, train first."""
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
        report.note = "a folder of images: not scanned"
        return report
    try:
        if not path.is_file() or path.stat().st_size == 0:
            open_video(path)  # says which
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
            raise VideoError(f"{path}: there are no frames in it")
    except (VideoError, OSError) as error:
        report.problems.append(("unreadable", _short(error, path)))
        return report
    report.frames = count
    report.height, report.width = next(iter(reference.values())).shape[:2]
    report.picture_hash = f"{count}-{digest.hexdigest()}"
    if count < span:
        report.problems.append(("short", f"{count} frames; a clip covers {span}"))
    try:
        wrong = _compare(path, reference, count)
    except VideoError as error:
        report.problems.append(("foreign", _short(error, path)))
    else:
        if wrong:
            report.problems.append(("wrong", wrong))
    return report


def _choose(path: Path, report: Report) -> set[int]:
    """Which frames to compare, known before any is decoded; fills in what the container tells."""
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
            f"{path}: cannot be opened as a video ({getattr(error, 'strerror', None) or error})"
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
    """How decord's frames differ from the reference; empty where they do not."""
    reader = open_video(path)
    if len(reader) != count:
        return f"decord counts {len(reader)} frames, the file shows {count}"
    # Out of order, so that decord has to seek: that is how clips are read.
    order = np.random.default_rng(0).permutation(sorted(reference))
    different = 0
    try:
        for i in order.tolist():
            frame = reader.get_batch([i]).asnumpy()[0]
            if frame.shape != reference[i].shape:
                return f"decord's frames are {frame.shape}, the file's {reference[i].shape}"
            different += np.abs(frame.astype(np.int16) - reference[i]).mean() > WRONG
    except (RuntimeError, decord.DECORDError, IndexError):
        raise VideoError(f"{path}: decord opens it and cannot decode a frame") from None
    return f"{different} of {len(order)} frames compared are others" if different else ""


def _short(error: Exception, path: Path) -> str:
    """An error's text, less the path, which the report has."""
    return str(error).removeprefix(f"{path}: ").strip().replace(f"; '{path}'", "")[:160]


def _mark_duplicates(reports: Sequence[Report]) -> None:
    """Add a problem to each file of the test split that is in the train split too."""
    for what in ("file_hash", "picture_hash"):
        train = {getattr(r, what): r.path for r in reports if "train" in r.splits}
        for report in reports:
            value = getattr(report, what)
            known = any(kind == "duplicate" for kind, _ in report.problems)
            if "test" in report.splits and value is not None and value in train and not known:
                same = "the same bytes" if what == "file_hash" else "the same frames"
                report.problems.append(("duplicate", f"{same} as {train[value]} in train"))


def summary(reports: Sequence[Report], most: int = 20) -> str:
    """What was found, to be read: counts, then each kind of problem with its files and the way out."""
    bad = sum(bool(report.problems) for report in reports)
    codecs = sorted({report.codec for report in reports if report.codec})
    counts = [report.frames for report in reports if report.frames]
    sizes = sorted({(r.width, r.height) for r in reports if r.width and r.height})
    lines = [f"{len(reports)} files, {bad} with problems; codecs: {', '.join(codecs) or 'none'}"]
    if counts:
        lines.append(f"frames {min(counts)} to {max(counts)}; {len(sizes)} sizes, "
                     f"{'x'.join(map(str, sizes[0]))} to {'x'.join(map(str, sizes[-1]))}")  # fmt: skip
    folders = sum(bool(report.note) for report in reports)
    if folders:
        lines.append(f"{folders} folders of images were not scanned")
    for kind, advice in ADVICE.items():
        rows = [(r.path, text) for r in reports for k, text in r.problems if k == kind]
        if rows:
            lines += ["", f"{kind}: {len(rows)} ({advice})"]
            lines += [f"  {path}: {text}" for path, text in rows[:most]]
            if len(rows) > most:
                lines.append(f"  and {len(rows) - most} more; --json FILE has all")
    return "\n".join(lines)


def write_json(path: Path, reports: Sequence[Report]) -> None:
    """Every report, written whole or not at all."""
    write_text(path, json.dumps([asdict(report) for report in reports], indent=1) + "\n")
