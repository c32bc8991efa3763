"""Re-encode a set into files that decord reads exactly; the originals are left unchanged."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from vmae.data.checking.scan import check_video
from vmae.data.reading.player import VideoError, check_file, pictures, video_info
from vmae.data.reading.reader import UNREADABLE_WIDTHS
from vmae.data.reading.workers import run_parallel
from vmae.data.sets.load import load_set
from vmae.data.sets.public_sets import split_numbers
from vmae.data.sets.videos import SetError, Video, VideoSet
from vmae.data.writing.encode import encode
from vmae.data.writing.folder import begin_set, finish_set
from vmae.support.files import atomic_path, only_writer, printable, write_text


@dataclass(frozen=True)
class Normalized:
    """The new set's folder, its number of files, and [(path, reason)] of the files left out.

    Of a set without labels, `folder` is its list, which `load_set` takes.
    """

    folder: Path
    written: int
    left_out: list[tuple[str, str]]


def normalize_set(
    source: str | Path,
    out: str | Path,
    short_side: int = 256,
    workers: int = 2,
) -> Normalized:
    """Re-encode the set `source` into `out`: H.264, closed GOP of 12, no B-frames, yuv420p, no sound.

    The frames are those that players show: of the stream that they choose, upright, with square
    pixels, all of the first one's size, in 8 bits. The frame rate is kept (a variable rate becomes its
    average). Each new file is read back and compared. Files that were already converted are skipped
    unless the original has changed. Unreadable videos are left out and listed in left_out.txt, and so
    are files that are not part of the set, and folders of images, which need no decoder.

    All splits of a set are kept. A set without labels becomes one list, for pre-training.

    Raises ValueError for an invalid `short_side`, SetError if a split has no readable video,
    FileExistsError if `out` holds something else or is inside `source`, DiskError if the set does
    not fit, BusyError if another process is writing to `out`.
    """
    source, out = Path(source), Path(out)
    if short_side < 16 or short_side % 2:
        raise ValueError(f"short_side is {short_side}; it must be even and at least 16")
    # UCF101 and HMDB51 have several splits, of the same videos.
    numbers: list[int | None] = [*split_numbers(source)] or [None]
    sets = [load_set(source, split=number, foreign=True) for number in numbers]
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise FileExistsError(
            f"the output folder {out} must be outside the dataset folder {source}: choose "
            "another folder"
        )
    spec = {"kind": "normalized", "source": str(source.resolve()), "short_side": short_side}
    begin_set(out, spec)  # a complete set is processed again: originals may have changed
    with only_writer(out):
        return _write_set(source, out, spec, sets, short_side, workers)


def _write_set(
    source: Path,
    out: Path,
    spec: dict[str, Any],
    sets: list[VideoSet],
    short_side: int,
    workers: int,
) -> Normalized:
    """Write the files and lists of `sets`, which are one set in its several splits."""
    splits = {
        name + (str(number) if number > 1 else ""): videos
        for number, one in enumerate(sets, 1)
        for name, videos in one.splits.items()
    }
    folder = source if source.is_dir() else source.parent
    names = _names(folder, [video for videos in splits.values() for video in videos])
    jobs = [(path, out / name) for path, name in names.items()]
    done = run_parallel(partial(_normalize, short_side), jobs, workers, chunk=1)
    done = tqdm(done, total=len(jobs), desc="normalize")
    reasons = {p: why for (p, _), why in zip(jobs, done, strict=True) if why}
    lists = {
        split: [(names[v.path], v.label) for v in videos if v.path not in reasons]
        for split, videos in splits.items()
    }
    passed = dict.fromkeys(sets[0].passed_over, "neither a video nor frames that can be read")
    left_out = [(printable(path), why) for path, why in (reasons | passed).items()]
    write_text(out / "left_out.txt", "".join(f"{path}: {why}\n" for path, why in left_out))
    for split, rows in lists.items():
        if not rows:
            first = "; ".join(": ".join(row) for row in left_out[:3])
            raise SetError(f"{source}: none of the {split} videos could be read ({first})")
    finish_set(out, spec, sets[0].classes, lists)
    new = out if sets[0].classes else out / "train.csv"
    return Normalized(new, len(names) - len(reasons), left_out)


def _names(source: Path, videos: list[Video]) -> dict[Path, str]:
    """A unique path in the new set for each original."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(video.path for video in videos):
        whole = Path(os.path.abspath(path))
        inside = whole.is_relative_to(os.path.abspath(source))
        name = whole.relative_to(os.path.abspath(source)) if inside else Path(whole.name)
        name = name if name.suffix == ".mp4" else name.with_name(name.name + ".mp4")
        name = Path(re.sub(r"[^\S ]|\\", "_", name.as_posix()))  # cannot be written in a list
        if not inside or str(name).lower() in taken:
            digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:10]
            name = name.with_name(f"{name.stem}-{digest}.mp4")
        taken.add(str(name).lower())
        names[path] = (Path("videos") / name).as_posix()
    return names


def _normalize(short_side: int, job: tuple[Path, Path]) -> str:
    """Re-encode one file; returns the reason if that fails, else an empty string."""
    original, target = job
    try:
        if original.is_dir():
            raise VideoError("image folders do not need re-encoding: use the original dataset")
        check_file(original)
        stat = original.stat()
        # An output gets its original's modification time, which shows whether the original has changed.
        if target.exists() and target.stat().st_mtime_ns == stat.st_mtime_ns:
            return ""
        with atomic_path(target) as temporary:
            # The limit keeps rates such as 30000/1001, and what is not stated becomes FFmpeg's default.
            rate = Fraction(video_info(original).rate or 25).limit_denominator(1001)
            frames = (_fitted(picture, short_side) for picture in pictures(original, square=True))
            written = encode(temporary, frames, rate, crf=18, gop=12, movflags="faststart")
            if not written:
                raise VideoError(f"{original}: the video contains no frames")
            report = check_video(temporary)
            if report.problems or report.frames != written:
                why = "; ".join(text for _, text in report.problems) or f"{report.frames} frames"
                raise VideoError(f"the new file of {written} frames could not be read back ({why})")
            os.utime(temporary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    except VideoError as error:
        return str(error).removeprefix(f"{printable(original)}: ")
    return ""


def _fitted(picture: np.ndarray, short_side: int) -> np.ndarray:
    """A frame (H, W, 3) scaled to `target_size`, and cropped to a width that decord can read."""
    height, width = target_size(picture.shape[0], picture.shape[1], short_side)
    # An odd edge alone is cropped, since scaling would change all pixels.
    if min(picture.shape[:2]) > short_side:
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        picture = frame.reformat(width=width, height=height, interpolation="BILINEAR").to_ndarray()
    while width in UNREADABLE_WIDTHS:
        width -= 2
    if width == 0:
        raise VideoError(f"frames {picture.shape[1]} pixels wide are too narrow: 10 is the minimum")
    return np.ascontiguousarray(picture[:height, :width])


def target_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Even (height, width) with the short side at most `short_side`; never enlarges."""
    scale = min(1.0, short_side / min(height, width))
    return (
        max(2, int(round(height * scale, 6)) // 2 * 2),
        max(2, int(round(width * scale, 6)) // 2 * 2),
    )
