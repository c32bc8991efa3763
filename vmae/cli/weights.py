"""What is done with weights: `vmae convert`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_to(subparsers: Any) -> None:
    """Add the command to the parser of `vmae`."""
    convert = subparsers.add_parser(
        "convert", help="convert weights between the official, Hugging Face and vmae layouts"
    )
    convert.add_argument(
        "source",
        help="weights in any of these layouts: a file, a folder, or OWNER/NAME on the Hugging Face hub",
    )
    convert.add_argument(
        "target", type=Path, help="output folder, or a .pth file for the official layout"
    )
    convert.add_argument("--to", choices=("vmae", "official", "hf"), required=True)
    convert.add_argument(
        "--drop-head",
        action="store_true",
        help="discard the classification head and convert only the encoder",
    )
    convert.add_argument(
        "--encoder-only",
        action="store_true",
        help="convert only the encoder, without the decoder or head",
    )
    convert.add_argument(
        "--normalize-targets",
        action=argparse.BooleanOptionalAction,
        help="whether the decoder predicts normalised pixels, if not stored in the source (default: "
        "yes for VideoMAE, no for MAE)",
    )
    convert.add_argument(
        "--state-key",
        metavar="KEY",
        help="entry of the source to convert, such as model_ema (default: the raw weights)",
    )
    for name, text in (
        (
            "--num-frames",
            "frames per clip, if not stored in the source (default: 16, or 1 for MAE)",
        ),
        (
            "--img-size",
            "frame width and height in pixels, if not stored in the source (default: 224)",
        ),
        (
            "--num-heads",
            "number of attention heads, if not stored in the source (default: the published number for "
            "this width)",
        ),
        (
            "--decoder-num-heads",
            "number of attention heads in the decoder, if not stored in the source (default: the "
            "published number for this width)",
        ),
    ):
        convert.add_argument(name, type=int, metavar="N", help=text)
    convert.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> None:
    """Convert weights to another layout."""
    from vmae.weights.saving import convert

    print(
        convert(
            arguments.source, arguments.target, arguments.to, drop_head=arguments.drop_head,
            encoder_only=arguments.encoder_only, num_frames=arguments.num_frames, img_size=arguments.img_size,
            num_heads=arguments.num_heads, decoder_num_heads=arguments.decoder_num_heads,
            normalize_targets=arguments.normalize_targets, state_key=arguments.state_key,
        )
    )  # fmt: skip
