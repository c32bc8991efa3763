"""Classify video files with a trained model: one, or many, or a long one stretch by stretch."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vmae.config import ModelConfig
from vmae.data.reading.loader import ClipDataset
from vmae.data.reading.player import frame_rate
from vmae.data.reading.reader import FrameSelector, VideoError, open_video
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.sources import VideoFiles
from vmae.data.reading.workers import run_parallel
from vmae.data.sets.finding import walk
from vmae.data.sets.formats import FOREIGN_SUFFIXES, VIDEO_SUFFIXES
from vmae.data.sets.videos import SetError, Video
from vmae.inference import Inference
from vmae.mae import MaskedAutoencoder
from vmae.support.files import printable
from vmae.support.near import not_found
from vmae.train.batches import seeded
from vmae.train.devices import inference_autocast
from vmae.train.evaluate import mean_of_views, view_logits
from vmae.vit import VisionTransformer


def read_clip(path: str | Path, config: ModelConfig, stride: int = 1) -> torch.Tensor:
    """Read the centre clip of a video, (1, C, T, H, W) uint8, at the clip size of `config`.

    Raises VideoError if the video is unreadable or shorter than the clip.
    """
    return read_views(path, config, Inference(stride=stride))


def read_views(
    path: str | Path,
    config: ModelConfig,
    inference: Inference,
    stretch: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Read the views of a video that a test takes, (clips·crops, C, T, H, W) uint8.

    stretch   take them from the frames from the first number to the second, exclusive

    Raises VideoError if the video is unreadable or too short.
    """
    video = _Stretch(
        [Video(Path(path), -1)], config.img_size, inference.short_side, inference.squeeze, stretch
    )
    clips = ClipDataset(video, Sampling.of(inference, config.num_frames), seed=0)
    return clips.test_clips(0, inference.clips, inference.crops)


@dataclass
class _Stretch(VideoFiles):
    """A video of which only the frames from the first to the second number of `stretch` exist."""

    stretch: tuple[int, int] | None = None

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        if self.stretch is None:
            return super().read(index, choose)
        first, last = self.stretch
        return super().read(index, lambda length: first + choose(min(last, length) - first))


@dataclass(frozen=True)
class Prediction:
    """What a model says of a video, or of the stretch of it from `start` to `end`, in seconds.

    classes   [(class, probability)], best first; empty if the video could not be read
    error     the reason, then
    """

    path: Path
    classes: Sequence[tuple[str, float]] = ()
    start: float | None = None
    end: float | None = None
    error: str = ""


@torch.inference_mode()
def predict(
    model: VisionTransformer,
    path: str | Path,
    stride: int | None = None,
    top: int = 5,
    *,
    clips: int | None = None,
    crops: int | None = None,
) -> list[tuple[str, float]]:
    """The `top` most likely classes of a video with their probabilities, best first.

    The video is read as `model.inference` says. For the classifier of a run that is how its own test
    read it, so the probabilities are those of `evaluate` (whose batches may round differently). For
    an official file, which does not store it, it is one clip from the centre with a stride of 1.

    stride, clips, crops   use these instead

    The order of a "shuffled" view depends on the position in the set, so it is that of another
    video. Classes without names go by their number. Raises ValueError if the model has no head.
    """
    inference = used_inference(model, stride, clips, crops)
    return _best(model, read_views(path, model.config, inference), inference, top)


def predict_all(
    model: VisionTransformer,
    paths: Sequence[Path],
    inference: Inference,
    top: int = 5,
    every: float | None = None,
    num_workers: int = 2,
    progress: Callable[..., Any] = tqdm,
) -> Iterator[Prediction]:
    """Predict many videos, which `num_workers` processes read; an unreadable one has an error instead.

    every   predict each stretch of so many seconds; the last one may be shorter
    """
    jobs: list[_Job] = [
        job for path in paths for job in (_stretches(path, every) if every else [_Job(path)])
    ]
    work = partial(_read, model.config, inference)
    model.eval()
    done = run_parallel(work, jobs, num_workers, chunk=4)
    for job, read in zip(jobs, progress(done, total=len(jobs), desc="predict"), strict=True):
        if isinstance(read, str):
            yield Prediction(job.path, (), *job.seconds, error=read)
        else:
            with torch.inference_mode():
                best = _best(model, torch.from_numpy(read), inference, top)
            yield Prediction(job.path, best, *job.seconds)


@dataclass(frozen=True)
class _Job:
    """A video to read, or a stretch of it, in frames and in seconds; or why there is none."""

    path: Path
    stretch: tuple[int, int] | None = None
    seconds: tuple[float | None, float | None] = (None, None)
    error: str = ""


def _stretches(path: Path, every: float) -> list[_Job]:
    try:
        rate, length = frame_rate(path), len(open_video(path))
    except VideoError as error:
        return [_Job(path, error=_reason(path, error))]
    starts = np.arange(0, length / rate, every)
    # A rest of less than half a stretch belongs to the one before.
    ends = [*starts[1:], length / rate]
    if len(starts) > 1 and ends[-1] - starts[-1] < every / 2:
        starts, ends = starts[:-1], [*ends[:-2], ends[-1]]
    return [
        _Job(path, (round(a * rate), round(b * rate)), (round(float(a), 3), round(float(b), 3)))
        for a, b in zip(starts, ends, strict=True)
    ]


def _read(config: ModelConfig, inference: Inference, job: _Job) -> np.ndarray | str:
    """The views, or why there are none."""
    try:
        return job.error or read_views(job.path, config, inference, job.stretch).numpy()
    except VideoError as error:
        return _reason(job.path, error)


def _reason(path: Path, error: VideoError) -> str:
    """An error without the file that it is about, which a prediction names anyway."""
    return str(error).removeprefix(f"{printable(path)}: ")


def used_inference(
    model: MaskedAutoencoder | VisionTransformer,
    stride: int | None = None,
    clips: int | None = None,
    crops: int | None = None,
) -> Inference:
    """How a classifier reads a video: as it was tested, but for what is given.

    Raises ValueError if the model has no head.
    """
    if isinstance(model, MaskedAutoencoder) or model.num_classes is None:
        raise ValueError(
            "this model has no classification head, so it cannot predict classes: fine-tune the "
            "model, or load a classifier"
        )
    given = {"stride": stride, "clips": clips, "crops": crops}
    inference = model.inference.replace(**{k: v for k, v in given.items() if v is not None})
    return inference if stride is None else inference.replace(clip_seconds=None)


def _best(
    model: VisionTransformer, seen: torch.Tensor, inference: Inference, top: int
) -> list[tuple[str, float]]:
    """The most likely classes of the views of a video, with their probabilities."""
    device = next(model.parameters()).device
    model.eval()
    with inference_autocast(device):
        logits = view_logits(
            model, seen.to(device), inference.view, len(seen), seeded(0, 0, device)
        )
    if inference.multi_label:
        probabilities = logits.sigmoid().mean(1)[0]
    else:
        probabilities = mean_of_views(logits).softmax(-1)[0]
    assert model.num_classes is not None
    best, classes = probabilities.topk(min(top, model.num_classes))
    names = model.class_names or tuple(map(str, range(model.num_classes)))
    return [(names[c], p) for c, p in zip(classes.tolist(), best.tolist(), strict=True)]


def videos_in(path: Path) -> list[Path]:
    """The file itself, or every video below a folder, in order. Raises SetError if there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SetError(not_found(path, "file or folder", at_root=False))
    suffixes = VIDEO_SUFFIXES + FOREIGN_SUFFIXES
    files = [p for p in walk(path) if p.suffix.lower() in suffixes]
    if not files:
        raise SetError(
            f"{printable(path)}: the folder contains no videos ({', '.join(VIDEO_SUFFIXES)})"
        )
    return files


def passed_over(path: Path, videos: Sequence[Path]) -> list[Path]:
    """The other files below a folder, except those whose name begins with a dot."""
    return sorted(set(walk(path)) - set(videos)) if path.is_dir() else []


def to_csv(predictions: Sequence[Prediction], folder: Path) -> str:
    """A table with a row for each prediction: file (relative to `folder`), seconds, classes, error."""
    stretches = any(prediction.start is not None for prediction in predictions)
    most = max((len(prediction.classes) for prediction in predictions), default=0)
    heads = ["file", *(["start", "end"] if stretches else [])]
    heads += [f"{name} {rank}" for rank in range(1, most + 1) for name in ("class", "probability")]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*heads, "error"])
    for found in predictions:
        row: list[Any] = [printable(found.path.relative_to(folder))]
        row += [found.start, found.end] if stretches else []
        for name, probability in found.classes:
            row += [name, f"{probability:.4f}"]
        table.writerow([*row, *[""] * (len(heads) - len(row)), found.error])
    return text.getvalue()
