"""A trained classifier on one video file."""

from __future__ import annotations

from pathlib import Path

import torch

from vmae.config import ModelConfig
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.data.reading.sampling import Sampling, crop_square
from vmae.vit import VisionTransformer


def read_clip(path: str | Path, config: ModelConfig, stride: int = 1) -> torch.Tensor:
    """The centre clip of a video, (1, C, T, H, W) uint8, as a model of `config` wants it.

    Raises VideoError on an unreadable video, or one shorter than the clip.
    """
    frames = read_frames(path, lambda n: Sampling(config.num_frames, stride).test(n)[0])
    frames = crop_square(resize_frames(frames, config.img_size))
    return torch.from_numpy(frames.copy()).permute(3, 0, 1, 2)[None]


@torch.inference_mode()
def predict(
    model: VisionTransformer, path: str | Path, stride: int = 1, top: int = 5
) -> list[tuple[str, float]]:
    """The likeliest classes of a video with their probabilities, best first.

    Classes without names are called by their number. Raises ValueError for an encoder without head.
    """
    if model.num_classes is None:
        raise ValueError("this model has no head: fine-tune it, or load a classifier")
    device = next(model.parameters()).device
    logits = model.eval()(read_clip(path, model.config, stride).to(device))
    share, index = logits.softmax(-1)[0].topk(min(top, model.num_classes))
    names = model.class_names or tuple(map(str, range(model.num_classes)))
    return [(names[i], p) for i, p in zip(index.tolist(), share.tolist(), strict=True)]
