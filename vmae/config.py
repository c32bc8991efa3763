"""Configurations of models and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vmae.base_config import Config, ConfigError
from vmae.grid import TokenGrid

#: Channel statistics of ImageNet, which VideoMAE and MAE use to normalise pixels in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# embed_dim, depth, num_heads, mlp_ratio, decoder_embed_dim, decoder_num_heads (V2's scripts and code)
_SIZES: dict[str, tuple[int, int, int, float, int, int]] = {
    "tiny": (64, 4, 4, 4.0, 48, 3),
    "S": (384, 12, 6, 4.0, 192, 3),
    "B": (768, 12, 12, 4.0, 384, 6),
    "L": (1024, 24, 16, 4.0, 512, 8),
    "H": (1280, 32, 16, 4.0, 512, 8),
    "g": (1408, 40, 16, 48 / 11, 512, 8),
}


@dataclass(frozen=True)
class ModelConfig(Config):
    """One model: the clip it reads, its encoder, its decoder."""

    family: Literal["videomae", "mae"] = "videomae"
    """What the two families do differently. "videomae": no class token, 1-D sin-cos positions, no
    key bias, targets standardised per channel. "mae": class token, 2-D positions, key bias, targets
    standardised over all values of a patch."""
    num_frames: int = 16
    """T, frames in a clip."""
    img_size: int = 224
    """H = W, the side of a frame in pixels."""
    channels: int = 3
    """C."""
    tubelet: tuple[int, int, int] = (2, 16, 16)
    """(p_t, p_h, p_w): frames, rows and columns of one token."""
    embed_dim: int = 768
    """D, the encoder's width."""
    depth: int = 12
    """Blocks of the encoder."""
    num_heads: int = 12
    mlp_ratio: float = 4.0
    """Hidden width of an MLP over the width of its block, in encoder and decoder."""
    decoder_embed_dim: int = 384
    """E, the decoder's width."""
    decoder_depth: int = 4
    decoder_num_heads: int = 6
    normalize_targets: bool = True
    """Whether each patch of the targets is standardised (MAE's norm_pix_loss)."""
    attention: Literal["joint", "divided"] = "joint"
    """In the encoder: over all tokens, as published; or over time, then over space, as in
    TimeSformer."""
    pos_embed_from: tuple[int, int] | None = None
    """(num_frames, img_size) that the weights were trained with, to interpolate their position
    table to this clip; None: a table computed for this clip."""
    learned_pos_embed: bool = False
    """Whether the encoder's position table is a parameter, as in MAE's fine-tuning. It starts as the
    fixed one."""
    global_pool: bool = False
    """Whether an MAE classifier averages its patch tokens instead of using its class token, as
    main_finetune.py does by default. VideoMAE's classifiers always average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.img_size, int):
            raise ConfigError(
                f"img_size is {self.img_size}; frames are square, so it must be one whole number"
            )
        self.require("channels depth embed_dim decoder_embed_dim", 1)
        self.require("decoder_depth mlp_ratio", 0)
        for prefix in ("", "decoder_"):
            width, heads = (getattr(self, prefix + name) for name in ("embed_dim", "num_heads"))
            if heads < 1 or width % heads or width % 2:
                raise ConfigError(
                    f"{prefix}embed_dim={width} must be even and divisible by "
                    f"{prefix}num_heads={heads}"
                )
        if self.family == "mae" and (self.embed_dim % 4 or self.decoder_embed_dim % 4):
            raise ConfigError(
                f"embed_dim={self.embed_dim} and decoder_embed_dim={self.decoder_embed_dim} must both "
                "be divisible by 4, as 2-D position embeddings require"
            )
        if self.attention == "divided" and self.family != "videomae":
            raise ConfigError(
                'attention "divided" requires family "videomae": change either of them'
            )
        if self.global_pool and self.family != "mae":
            raise ConfigError(
                f'global_pool requires family "mae", but family is {self.family!r}, whose '
                "classifiers always average their tokens: set global_pool to false"
            )
        if self.pos_embed_from is not None:
            num_frames, img_size = self.pos_embed_from
            _ = TokenGrid((num_frames, img_size, img_size), self.tubelet, self.channels)
        _ = self.grid  # raises if the clip does not divide into tubelets

    @property
    def grid(self) -> TokenGrid:
        """The token grid of the model's clips."""
        clip = (self.num_frames, self.img_size, self.img_size)
        return TokenGrid(clip, self.tubelet, self.channels)

    @property
    def size(self) -> str:
        """The name of the encoder's size, such as "ViT-B"; one that is not published goes by its width."""
        shape = (self.embed_dim, self.depth, self.num_heads, self.mlp_ratio)
        names = (name for name, values in _SIZES.items() if values[:4] == shape)
        return f"ViT-{next(names, self.embed_dim)}"

    @classmethod
    def videomae(cls, name: str = "B", /, version: int = 1, **changes: Any) -> ModelConfig:
        """A published VideoMAE by name (tiny, S, B, L, H, g); V1 has deeper decoders for L and H."""
        values = _sized(name)
        if version == 1 and name in ("L", "H"):
            values["decoder_depth"] = 12
            if name == "H":
                values["decoder_embed_dim"] = 640
        if name == "g":
            values["tubelet"] = (2, 14, 14)
        if name == "tiny":  # trains in minutes on two CPU cores
            values |= {"num_frames": 8, "img_size": 16, "tubelet": (2, 4, 4), "decoder_depth": 2}
        return cls(**(values | changes))

    @classmethod
    def mae(cls, name: str = "L", /, **changes: Any) -> ModelConfig:
        """A published image MAE by name (B, L, H): one frame, a decoder of 8 blocks of 512."""
        values = _sized(name) | {"family": "mae", "num_frames": 1}
        values |= {"tubelet": (1, 14, 14) if name == "H" else (1, 16, 16)}
        if name != "tiny":
            values |= {"decoder_embed_dim": 512, "decoder_depth": 8, "decoder_num_heads": 16}
        return cls(**(values | changes))


def _sized(name: str) -> dict[str, Any]:
    if name not in _SIZES:
        raise ConfigError(f"unknown model size {name!r}: use one of {', '.join(_SIZES)}")
    fields = (
        "embed_dim", "depth", "num_heads", "mlp_ratio", "decoder_embed_dim", "decoder_num_heads"
    )  # fmt: skip
    return dict(zip(fields, _SIZES[name], strict=True))


#: Names that `mask_type` may have; `vmae.masking.register_mask` adds to them.
MASK_TYPES = ["tube", "random", "frame"]


@dataclass(frozen=True)
class MaskConfig(Config):
    """The tokens hidden from the encoder, and the positions at which the decoder is queried."""

    mask_type: str = "tube"
    """What is hidden: "tube", "random", "frame", or a mask of your own (masking.register_mask)."""
    mask_ratio: float = 0.9
    """Fraction of the tokens hidden from the encoder."""
    tube_length: int | None = None
    """Frames that a tube covers; None: the whole clip, as published."""
    decoder_mask_type: Literal[
        "all", "running-cell", "random", "frame", "drop-visible", "independent", "every"
    ] = "all"
    """Where the decoder is queried. "all": every hidden token (MAE, V1). "running-cell": V2.
    "random", "frame": V2's ablations. "drop-visible", "independent": common misconceptions
    of dual masking. "every": MAE's ablation, a loss on all tokens, including those that the encoder sees."""
    decoder_mask_ratio: float = 0.0
    """Fraction of the positions at which the decoder is not queried; for "drop-visible", the fraction
    of visible tokens that are dropped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_type not in MASK_TYPES:
            raise ConfigError(
                f"mask_type is {self.mask_type!r}; choose one of {', '.join(MASK_TYPES)}, or call "
                "vmae.masking.register_mask first for one of your own"
            )
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; use a value between 0 and 1")
        if not 0 <= self.decoder_mask_ratio < 1:
            raise ConfigError(
                f"decoder_mask_ratio is {self.decoder_mask_ratio}; it must be at least 0 and less than 1"
            )
        if self.tube_length is not None and self.mask_type != "tube":
            raise ConfigError(
                f"tube_length is {self.tube_length}, but mask_type is {self.mask_type!r}: set "
                "mask_type to 'tube', or tube_length to None"
            )
