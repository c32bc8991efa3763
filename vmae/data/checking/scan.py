"""Check every video of a set and report its problems, before a training run meets them.

The reference is a sequential decode of the whole file by PyAV. decord seeks, and in some files (open
GOP, MPEG-2, edit lists) it silently returns wrong frames after a seek. The errors occur around key
frames, so those are the frames compared.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vmae.data.config import DataConfig
from vmae.data.reading.player import (
    VideoError,
    check_file,
    packet_times,
    pictures,
    video_info,
)
from vmae.data.reading.reader import open_video
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.workers import run_parallel
from vmae.data.sets.videos import Video, VideoSet
from vmae.support.files import printable, write_text
from vmae.support.text import few, first_lines

#: A file with less than this share of the frames that its duration and frame rate promise may be cut off.
COMPLETE = 0.8
#: A frame is wrong if its mean absolute difference from the reference, of 255, is above this.
#: Where decord is exact, 0.0 was measured.
WRONG = 1.5

#: Each kind of problem, with what to do about it.
ADVICE = {
    "unreadable": "could not be decoded completely: move or delete these files (in lists, their "
    "rows), or get them again; training leaves up to `max_unreadable` (by default "
    f"{100 * DataConfig.max_unreadable:g} %) of the videos out and lists them",
    "foreign": "decord cannot read these videos, but other decoders can: run `vmae normalize`",
    "wrong": "decord silently returns wrong frames for these videos: run `vmae normalize`; until then, "
    "training takes none of the formats such as .mts from class folders",
    "stretched": "their pixels are not square, and they are read as stored, as in the published code, "
    "so the picture is stretched: run `vmae normalize`",
    "short": "shorter than a clip: use fewer frames or a smaller stride, set data.short to repeat, or "
    "remove these videos",
    "duplicate": "in train and in another split: remove these videos from one of them, or test results "
    "will be too optimistic",
    "labels": "the same video in two classes: keep it in the right one",
}

#: What else is worth knowing about files and folders, which is no problem.
NOTES = {
    "colours": "decord reads the right frames of these videos in slightly other colours than a "
    "player (10 bits, HDR, another size): use them as they are, or run `vmae normalize`",
    "incomplete": "fewer frames than duration and frame rate promise: if the copy is incomplete, get it "
    "again; a changing rate, or sound that is longer, does no harm",
    "sizes": "the frame size changes: all frames are scaled to the size of the first",
    "folders": "folders of images, which are not scanned",
    "sub-folders": "they hold all videos of a class and count as its recordings: if they are the "
    "classes, pass this folder instead",
    "classes": "a classifier needs at least 2 classes: use one sub-folder per class, or lists",
    "passed over": "not part of the set, so training ignores them; videos and images among them can be "
    "used once they are converted to .mp4 and .png",
}

#: The maximum number of frames compared, and of pixels of each: of larger frames, every n-th pixel.
_MOST, _PIXELS = 32, 1 << 19
#: Weights of red, green and blue in the brightness of a pixel.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass
class Report:
    """The findings for one file: (kind, text) of ADVICE in `problems`, of NOTES in `notes`."""

    path: str
    splits: list[str] = field(default_factory=list)
    label: str = ""
    seconds: float | None = None
    frames: int | None = None
    rate: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    file_hash: str | None = None
    picture_hash: str | None = None
    notes: list[tuple[str, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def scan_set(
    videos: VideoSet,
    samplings: Sequence[Sampling] = (Sampling(16),),
    workers: int = 2,
    progress: Callable[..., Any] = tqdm,
) -> list[Report]:
    """Report on each file of a set, in list order, train before test, then on those passed over, and folders.

    samplings   how clips will be taken; a video too short for one of them has a problem
    """
    uses: dict[Path, dict[str, int]] = {}  # the label of each file in each split
    for split, part in videos.splits.items():
        for video in part:
            uses.setdefault(video.path, {})[split] = video.label
    done = run_parallel(partial(_scan, tuple(samplings)), list(uses), workers, chunk=1)
    reports = list(progress(done, total=len(uses), desc="scan"))
    for report, labels in zip(reports, uses.values(), strict=True):
        label = list(labels.values())[-1]
        report.splits = list(labels)
        report.label = videos.classes[label] if label >= 0 else "unlabelled"
    _mark_duplicates(reports)
    notes = [(path, ("passed over", path.suffix)) for path in videos.passed_over]
    notes += [(path, ("sub-folders", few(names))) for path, names in videos.nested_by_class.items()]
    if len(videos.classes) == 1:
        notes.append((videos.folder, ("classes", f"only {few(videos.classes)}")))
    return reports + [Report(printable(path), notes=[note]) for path, note in notes]


def _scan(samplings: Sequence[Sampling], path: Path) -> Report:
    if path.is_dir():
        return Report(printable(path), notes=[("folders", "folder")])
    report = check_video(path)
    if report.frames is None:
        return report
    try:
        span = max(sampling.of_video(Video(path, -1)).shortest for sampling in samplings)
    except VideoError as error:  # clips in seconds, of a file that does not state its frame rate
        report.problems.append(("unreadable", _short(error, path)))
        return report
    if report.frames < span:
        report.problems.append(("short", f"{report.frames} frames, but a clip covers {span}"))
    return report


def check_video(path: Path) -> Report:
    """Compare frames of a file as decord reads them with those that a player shows."""
    report = Report(printable(path))
    try:
        check_file(path)
        with open(path, "rb") as file:
            report.file_hash = hashlib.file_digest(file, "sha256").hexdigest()
        chosen = _choose(path, report)
        reference: dict[int, np.ndarray] = {}
        sizes: set[tuple[int, int]] = set()
        count = 0
        digest = hashlib.sha256()
        for count, picture in enumerate(pictures(path, sizes=sizes), 1):
            if count - 1 in chosen:
                reference[count - 1] = _thinned(picture)
                digest.update(picture.tobytes())
            report.height, report.width = picture.shape[:2]
        if count == 0:
            raise VideoError(f"{path}: the video contains no frames")
    except (VideoError, OSError) as error:
        report.problems.append(("unreadable", _short(error, path)))
        return report
    report.frames = count
    report.picture_hash = f"{count}-{digest.hexdigest()}"
    promised = (report.seconds or 0) * (report.rate or 0)
    if count < COMPLETE * promised:
        text = f"{count} frames, but {report.seconds:.1f} s at {report.rate:.4g} fps are {promised:.0f}"
        report.notes.append(("incomplete", text))
    if len(sizes) > 1:
        text = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        report.notes.append(("sizes", text))
    try:
        _compare(path, reference, report)
    except VideoError as error:
        report.problems.append(("foreign", _short(error, path)))
    return report


def _choose(path: Path, report: Report) -> set[int]:
    """Choose the frames to compare before decoding any; add the container's data to the report."""
    info = video_info(path)
    report.codec, report.seconds = info.codec, info.seconds
    report.rate = float(info.rate) if info.rate else None
    if info.aspect != 1:
        text = f"a pixel is {info.aspect.numerator}:{info.aspect.denominator}"
        report.problems.append(("stretched", text))
    packets = packet_times(path)
    if all(time is not None for time, _ in packets):
        packets.sort(key=lambda packet: packet[0] or 0)
    total = len(packets)
    keys = [i for i, (_, key) in enumerate(packets) if key]
    picked = np.linspace(0, len(keys) - 1, min(_MOST // 4, len(keys))).astype(int)
    chosen = {keys[i] + step for i in picked for step in (-2, -1, 1)}
    chosen |= set(np.linspace(0, max(total - 1, 0), _MOST // 4).astype(int).tolist())
    return {i for i in chosen if 0 <= i < total} | {0}


def _thinned(picture: np.ndarray) -> np.ndarray:
    """At most about _PIXELS pixels, spread over the frame."""
    step = math.ceil(math.sqrt(picture.shape[0] * picture.shape[1] / _PIXELS))
    return picture[::step, ::step].copy()


def _compare(path: Path, reference: dict[int, np.ndarray], report: Report) -> None:
    """Add to the report how decord's frames differ from the reference, if they do."""
    reader = open_video(path)
    if len(reader) != report.frames:
        text = f"decord counts {len(reader)} frames, but the file has {report.frames}"
        report.problems.append(("wrong", text))
        return
    # In random order, so that decord has to seek, as it does when clips are read.
    order = np.random.default_rng(0).permutation(sorted(reference)).tolist()
    found: list[np.ndarray] = []
    for i in order:
        frame = reader.frames([i])[0]
        if frame.shape[:2] != (report.height, report.width):
            text = (
                f"decord's frames are {frame.shape[1]}x{frame.shape[0]} pixels, but the file's are "
                f"{report.width}x{report.height}"
            )
            report.problems.append(("wrong", text))
            return
        found.append(_thinned(frame))
    pairs = [(frame, reference[i]) for i, frame in zip(order, found, strict=True)]
    off = np.array([np.abs(one.astype(np.int16) - other).mean() for one, other in pairs])
    if (off <= WRONG).all():
        return
    if (_off_in_brightness(pairs) < np.maximum(off, WRONG) / 4).all():
        report.notes.append(("colours", f"off by up to {off.max():.1f} of 255"))
    else:
        text = f"{(off > WRONG).sum()} of {len(order)} compared frames are wrong"
        report.problems.append(("wrong", text))


def _off_in_brightness(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Mean error of each frame's brightness if it may be any one linear map of the reference's colours.

    Another matrix, or other interpolation of colours between pixels, leaves almost none; a wrong frame
    does.
    """
    colours = [other[::3, ::3].reshape(-1, 3).astype(np.float32) for _, other in pairs]
    brightness = [one[::3, ::3].reshape(-1, 3) @ _LUMA for one, _ in pairs]
    weights = np.linalg.lstsq(np.concatenate(colours), np.concatenate(brightness), rcond=None)[0]
    return np.array(
        [np.abs(c @ weights - b).mean() for c, b in zip(colours, brightness, strict=True)]
    )


def _short(error: Exception, path: Path) -> str:
    """The text of an error, without the path, which the report already holds."""
    return str(error).removeprefix(f"{printable(path)}: ").strip().replace(f"; '{path}'", "")[:160]


def _mark_duplicates(reports: Sequence[Report]) -> None:
    """Add a problem to each file that is in train and in another split, or in two classes."""
    for what in ("file_hash", "picture_hash"):
        train = {getattr(r, what): r.path for r in reports if "train" in r.splits}
        train.pop(None, None)  # files that could not be read
        for report in reports:
            known = any(kind == "duplicate" for kind, _ in report.problems)
            found = train.get(getattr(report, what))
            if found and not known and set(report.splits) - {"train"}:
                same = "the same bytes" if what == "file_hash" else "the same frames"
                report.problems.append(("duplicate", f"{same} as {found} in train"))
    firsts: dict[str, Report] = {}
    for report in reports:
        if report.picture_hash is None or any(kind == "duplicate" for kind, _ in report.problems):
            continue
        first = firsts.setdefault(report.picture_hash, report)
        if first.label != report.label:
            text = f"{report.label!r} here, but {first.label!r} as {first.path}, of the same frames"
            report.problems.append(("labels", text))


def summary(reports: Sequence[Report]) -> str:
    """A text summary: counts, then each kind of problem or note, with advice and the files concerned."""
    bad = sum(bool(report.problems) for report in reports)
    codecs = sorted({report.codec for report in reports if report.codec})
    counts = [report.frames for report in reports if report.frames]
    sizes = sorted({(r.width, r.height) for r in reports if r.width and r.height})
    files = sum(bool(report.splits) for report in reports)
    lines = [f"{files} files, {bad} with problems; codecs: {', '.join(codecs) or 'none'}"]
    if counts:
        lines.append(f"{min(counts)} to {max(counts)} frames; {len(sizes)} sizes, "
                     f"{'x'.join(map(str, sizes[0]))} to {'x'.join(map(str, sizes[-1]))}")  # fmt: skip
    for kind, advice in {**ADVICE, **NOTES}.items():
        found = [f"{r.path}: {x}" for r in reports for k, x in r.problems + r.notes if k == kind]
        if found:
            lines += ["", f"{kind}: {len(found)} ({advice})"]
            lines += first_lines(found, 20, " (--json FILE lists all of them)")
    return "\n".join(lines)


def write_json(path: Path, reports: Sequence[Report]) -> None:
    """Write all reports to a JSON file, atomically."""
    write_text(path, json.dumps([asdict(report) for report in reports], indent=1) + "\n")
