"""What the image processor of a Hugging Face folder does to frames before its model reads them.

Models here always normalise pixels as ImageNet's. Other statistics are folded into the patch
embedding, which is exact: both are affine. How frames are resized is kept for `predict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vmae.config import ModelConfig
from vmae.inference import Inference
from vmae.mae import MaskedAutoencoder
from vmae.vit import VisionTransformer, channel_statistics
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.files import WeightFile

#: What both processors, VideoMAE's and ViT's, do about fields that are missing.
_MEAN = _STD = 0.5
_SIDE = 224
#: Pillow's filters by number. Frames are resized with number 2 here, which both take if none is stated.
_FILTERS = ("nearest", "Lanczos", "bilinear", "bicubic", "box", "Hamming")


def fold_statistics(file: WeightFile, model: MaskedAutoencoder | VisionTransformer) -> None:
    """Change a file's patch embedding so that it may read pixels normalised as ImageNet's.

    Its own input is (255 r u - m') / s' for pixels u in [0, 1], the rescaling r and the statistics
    of its processor; ours is x = (u - m) / s. In terms of x it is (255 r s x + 255 r m - m') / s'.
    Raises CheckpointError if a pre-training target depends on the statistics, too.
    """
    if not file.hf or not file.processor:
        return
    config = model.config
    mean, std = (x.double() for x in channel_statistics(config.channels, torch.device("cpu")))
    scale, their_mean, their_std = _statistics(file, config.channels)
    ratio, shift = scale * std / their_std, (scale * mean - their_mean) / their_std
    if max((ratio - 1).abs().max().item(), shift.abs().max().item()) < 1e-6:
        return
    plain = config.family == "mae" or not config.normalize_targets
    if isinstance(model, MaskedAutoencoder) and plain:
        raise CheckpointError(
            f"{file.path}: preprocessor_config.json normalises pixels with mean "
            f"{their_mean.tolist()} and deviation {their_std.tolist()} after rescaling by "
            f"{scale / 255:.6g}, not as ImageNet's, and the decoder's targets depend on that: use "
            "load_encoder to load only the encoder"
        )
    at = "encoder.patch_embed.proj."
    kernel, bias = (file.state[at + kind].double() for kind in ("weight", "bias"))
    file.state[at + "bias"] = (bias + kernel.sum((2, 3, 4)) @ shift).float()
    file.state[at + "weight"] = (kernel * ratio.view(-1, 1, 1, 1)).float()


def _statistics(file: WeightFile, channels: int) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The rescaling of pixels in [0, 1], then mean and deviation per channel."""
    values = file.processor
    scale = 255 * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 255.0
    if not values.get("do_normalize", True):
        return scale, torch.zeros(channels).double(), torch.ones(channels).double()
    found = []
    for name, default in (("image_mean", _MEAN), ("image_std", _STD)):
        given = values.get(name)
        given = default if given is None else given
        try:
            tensor = torch.tensor(given, dtype=torch.float64).expand(channels)
        except (TypeError, ValueError, RuntimeError):
            tensor = torch.zeros(0)
        if tensor.numel() != channels or (isinstance(given, list) and len(given) != channels):
            raise _unusable(file, f"{name} is {given}; it must be a number for each of the "
                            f"{channels} channels")  # fmt: skip
        found.append(tensor)
    if not bool((found[1] > 0).all()):
        raise _unusable(file, f"image_std is {values['image_std']}; it must be positive")
    return scale, found[0], found[1]


def inference_of(file: WeightFile, config: ModelConfig) -> Inference:
    """How a file's classifier is applied to a video, as far as its folder says.

    Raises CheckpointError if nothing here can do what its processor does.
    """
    if not file.hf:
        return file.inference
    problem = file.hf.get("problem_type")
    if problem == "regression":
        raise CheckpointError(
            f"{file.path}: problem_type is 'regression', so the outputs are not classes: use "
            "load_encoder to load only the encoder"
        )
    try:
        kept = file.processor.get("vmae")
        inference = _resizing(file, config) if kept is None else Inference.from_dict(kept)
    except ValueError as error:
        raise _unusable(file, str(error)) from None
    resample = file.processor.get("resample")
    if resample not in (None, 2):
        name = _FILTERS[resample] if resample in range(len(_FILTERS)) else "unknown"
        warn(
            f"{file.path.with_name('preprocessor_config.json')}: resample is {resample} ({name}), but "
            "frames are resized bilinearly here: probabilities may differ a little"
        )
    return inference.replace(multi_label=problem == "multi_label_classification")


def _resizing(file: WeightFile, config: ModelConfig) -> Inference:
    """The short side, in proportion to the crop that the model reads; whether frames are squeezed."""
    values, video = file.processor, file.hf.get("model_type") == "videomae"
    if not values:
        return Inference()
    if not values.get("do_resize", True):
        raise ValueError("do_resize is false, but frames are always resized here: set it to true")
    size = values.get("size") or _SIDE
    if isinstance(size, int):  # of old folders
        size = {"shortest_edge": size} if video else {"height": size, "width": size}
    side = size.get("shortest_edge", size.get("height"))
    if side is None or size.get("width", side) != side:
        raise ValueError(f"size is {size}; only square frames and shortest_edge are supported")
    crop = side
    if values.get("do_center_crop", video):
        crop = values.get("crop_size") or _SIDE
        crop = crop["height"] if isinstance(crop, Mapping) else crop
    if side < crop:
        raise ValueError(f"size is {side}, less than the crop of {crop}: make it at least that")
    short_side = None if side == crop else round(side * config.img_size / crop)
    return Inference(short_side=short_side, squeeze="height" in size)


def _unusable(file: WeightFile, reason: str) -> CheckpointError:
    return CheckpointError(f"{file.path.with_name('preprocessor_config.json')}: {reason}")


def hf_processor(config: ModelConfig, inference: Inference | None) -> dict[str, Any]:
    """The preprocessor_config.json to go with `to_hf`; `inference` if the model is a classifier.

    Without it, transformers normalises clips with mean and deviation 0.5 instead of ImageNet's. It
    keeps the field "vmae", which says what its own fields cannot.
    """
    crop = {"height": config.img_size, "width": config.img_size}
    mae = config.family == "mae"
    resized = inference or Inference()
    side = resized.short_side or config.img_size
    size = {"height": side, "width": side} if resized.squeeze else {"shortest_edge": side}
    mean, std = channel_statistics(config.channels, torch.device("cpu"))
    values = {
        "image_processor_type": "ViTImageProcessor" if mae else "VideoMAEImageProcessor",
        "do_resize": True, "size": crop if mae else size,
        "do_center_crop": not mae, "crop_size": crop,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [round(x, 6) for x in mean.tolist()],
        "image_std": [round(x, 6) for x in std.tolist()],
    }  # fmt: skip
    return values if inference is None else values | {"vmae": inference.to_dict()}
