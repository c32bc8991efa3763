"""Classify a video file with a trained model."""

from __future__ import annotations

from pathlib import Path

import torch

from vmae.config import ModelConfig
from vmae.data.reading.loader import ClipDataset
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.sources import VideoFiles
from vmae.data.sets.videos import Video
from vmae.inference import Inference
from vmae.train.batches import seeded
from vmae.train.evaluate import mean_of_views, view_logits
from vmae.vit import VisionTransformer


def read_clip(path: str | Path, config: ModelConfig, stride: int = 1) -> torch.Tensor:
    """Read the centre clip of a video, (1, C, T, H, W) uint8, at the clip size of `config`.

    Raises VideoError if the video is unreadable or shorter than the clip.
    """
    return read_views(path, config, Inference(stride=stride))


def read_views(path: str | Path, config: ModelConfig, inference: Inference) -> torch.Tensor:
    """Read the views of a video that a test takes, (clips·crops, C, T, H, W) uint8.

    Raises VideoError if the video is unreadable or too short.
    """
    video = VideoFiles(
        [Video(Path(path), -1)], config.img_size, inference.short_side, inference.squeeze
    )
    sampling = Sampling(
        config.num_frames,
        inference.stride,
        inference.sampling,
        inference.short,
        inference.clip_seconds,
    )
    views = ClipDataset(video, sampling, seed=0).views(0, inference.clips, inference.crops)
    return torch.from_numpy(views).permute(0, 4, 1, 2, 3)


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
    if model.num_classes is None:
        raise ValueError(
            "this model has no classification head, so it cannot predict classes: fine-tune the "
            "model, or load a classifier"
        )
    given = {"stride": stride, "clips": clips, "crops": crops}
    inference = model.inference.replace(**{k: v for k, v in given.items() if v is not None})
    if stride is not None:
        inference = inference.replace(clip_seconds=None)
    device = next(model.parameters()).device
    seen = read_views(path, model.config, inference).to(device)
    views = view_logits(model.eval(), seen, inference.view, len(seen), seeded(0, 0, device))
    if inference.multi_label:
        probabilities = views.sigmoid().mean(1)[0]
    else:
        probabilities = mean_of_views(views).softmax(-1)[0]
    best, classes = probabilities.topk(min(top, model.num_classes))
    names = model.class_names or tuple(map(str, range(model.num_classes)))
    pairs = zip(classes.tolist(), best.tolist(), strict=True)
    return [(names[c], p) for c, p in pairs]
