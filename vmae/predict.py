"""Classify a video file with a trained model."""

from __future__ import annotations

from pathlib import Path

import torch

from vmae.config import ModelConfig
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.data.reading.sampling import Sampling, crop_square
from vmae.vit import VisionTransformer


def read_clip(path: str | Path, config: ModelConfig, stride: int = 1) -> torch.Tensor:
    """Read the centre clip of a video, (1, C, T, H, W) uint8, at the clip size of `config`.

    Raises VideoError if the video is unreadable or shorter than the clip.
    """
    frames = read_frames(path, lambda n: Sampling(config.num_frames, stride).test(n)[0])
    frames = crop_square(resize_frames(frames, config.img_size))
    return torch.from_numpy(frames.copy()).permute(3, 0, 1, 2)[None]


@torch.inference_mode()
def predict(
    model: VisionTransformer, path: str | Path, stride: int = 1, top: int = 5
) -> list[tuple[str, float]]:
    """The `top` most likely classes of a video with their probabilities, best first.

    Classes without names go by their number. Raises ValueError if the model has no head.
    """
    if model.num_classes is None:
        raise ValueError(
            "this model has no classification head, so it cannot predict classes: fine-tune the "
            "model, or load a classifier"
        )
    device = next(model.parameters()).device
    logits = model.eval()(read_clip(path, model.config, stride).to(device))
    probabilities, classes = logits.softmax(-1)[0].topk(min(top, model.num_classes))
    names = model.class_names or tuple(map(str, range(model.num_classes)))
    pairs = zip(classes.tolist(), probabilities.tolist(), strict=True)
    return [(names[c], p) for c, p in pairs]
