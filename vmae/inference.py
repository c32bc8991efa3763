"""How a classifier is applied to a video: which frames and squares it sees, what its logits mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from vmae.base_config import Config, ConfigError


@dataclass(frozen=True)
class Inference(Config):
    """How a classifier was tested; the defaults where nobody knows."""

    sampling: Literal["dense", "kinetics", "tsn"] = "dense"
    """The sampling scheme: see vmae.data.reading.sampling."""
    stride: int = 1
    """Distance between neighbouring frames of a clip, in frames of the video."""
    clip_seconds: float | None = None
    """Seconds that a clip covers, instead of a stride."""
    short: Literal["skip", "repeat"] = "skip"
    """Refuse a video shorter than a clip, or repeat its last frame."""
    clips: int = 1
    """Clips along the video, whose probabilities are averaged."""
    crops: int = 1
    """Squares along the long side of each."""
    view: Literal["video", "single-frame", "shuffled"] = "video"
    """What the classifier sees of a clip."""
    short_side: int | None = None
    """Pixels to which the short side of a frame is resized before it is cropped; None: those of the
    crop, the model's img_size."""
    squeeze: bool = False
    """Squeeze the frame to a square of that side instead, which changes its aspect ratio."""
    multi_label: bool = False
    """Whether a video may have several classes: a probability for each, rather than one sum of 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("stride", "clips", "crops"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def described(self, num_frames: int) -> str:
        """The views of a video, in words."""
        if self.sampling == "tsn":
            spacing = "spread over it"
        elif self.clip_seconds:
            spacing = f"over {self.clip_seconds:g} s"
        else:
            spacing = f"{self.stride} apart"
        crops = f", {self.crops} crops of each" if self.crops > 1 else ""
        clips = f"{self.clips} clip{'s' * (self.clips > 1)} of {num_frames} frames {spacing}{crops}"
        return clips + (", short ones repeat their last frame" if self.short == "repeat" else "")

    @classmethod
    def of_run(cls, values: Mapping[str, Any]) -> Self:
        """That of a fine-tuning run, from the plain dicts of its configuration, of any edition."""
        data = values["data"]
        names = ("sampling", "stride", "clip_seconds", "short")
        fields = {name: data[name] for name in names if name in data}
        for theirs, ours in (("test_clips", "clips"), ("test_crops", "crops"), ("view", "view")):
            if theirs in values:
                fields[ours] = values[theirs]
        return cls.from_dict(fields)
