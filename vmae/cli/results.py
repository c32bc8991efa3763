"""What is done with a trained classifier: `vmae predict` and `vmae report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, cast


def add_to(subparsers: Any) -> None:
    """Add the two commands to the parser of `vmae`."""
    command = subparsers.add_parser(
        "predict", help="predict the classes of videos with a classifier"
    )
    command.add_argument("model", type=Path, help="a run's folder, or weights in any layout")
    command.add_argument("path", type=Path, help="a video, or a folder of videos")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write a table instead of lines")
    command.add_argument(
        "--top", type=int, default=5, help="number of classes to list (default: %(default)s)"
    )
    command.add_argument(
        "--every",
        type=float,
        metavar="SECONDS",
        help="predict each stretch of so many seconds of a long video, rather than the whole",
    )
    for name, text in (
        ("--clips", "clips spread along each video"),
        ("--crops", "crops along the long side"),
        ("--stride", "frames from one to the next"),
    ):
        command.add_argument(name, type=int, help=f"{text} (default: as in the run's test)")
    command.add_argument(
        "--num-workers",
        type=int,
        default=2,
        help="number of processes that read (default: %(default)s)",
    )
    command.set_defaults(run=predict)

    command = subparsers.add_parser("report", help="write a page about a run of `vmae finetune`")
    command.add_argument("folder", type=Path, help="folder passed to `vmae finetune` as --out")
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="page to write (default: report.html in the folder)",
    )
    command.set_defaults(run=report)


def predict(arguments: argparse.Namespace) -> int:
    """Predict the classes of a file or of all videos in a folder; returns 1 if any is unreadable."""
    from tqdm import tqdm

    from vmae import load
    from vmae.predict import predict_all, to_csv, used_inference, videos_in
    from vmae.support.files import printable, write_text
    from vmae.train.devices import accelerator_for
    from vmae.vit import VisionTransformer

    for name in ("top", "every"):
        if (value := getattr(arguments, name)) is not None and value <= 0:
            raise ValueError(f"--{name} is {value}; it must be greater than 0")
    model = load(arguments.model)
    inference = used_inference(model, arguments.stride, arguments.clips, arguments.crops)
    paths = videos_in(arguments.path)
    print(f"each video: {inference.described(model.config.num_frames)}", file=sys.stderr)
    # Lines are their own display of progress.
    found = predict_all(
        cast(VisionTransformer, model.to(accelerator_for("auto").device)),
        paths, inference, arguments.top, arguments.every, arguments.num_workers,
        tqdm if arguments.csv else lambda results, **_: results,
    )  # fmt: skip
    predictions = []
    for one in found:
        predictions.append(one)
        if arguments.csv is None:
            when = "" if one.start is None else f" {one.start:g}-{one.end:g} s"
            best = ", ".join(f"{name} {100 * p:.1f} %" for name, p in one.classes)
            print(f"{printable(one.path)}{when}: {best or one.error}", flush=True)
    unreadable = {one.path for one in predictions if one.error}
    if arguments.csv:
        folder = arguments.path if arguments.path.is_dir() else arguments.path.parent
        write_text(arguments.csv, to_csv(predictions, folder))
        print(f"{len(paths)} videos, {len(unreadable)} unreadable: {arguments.csv}")
    return int(bool(unreadable))


def report(arguments: argparse.Namespace) -> None:
    """Write the report of a fine-tuning run as one HTML file."""
    from vmae.viz.report import write_report

    print(write_report(arguments.folder, arguments.out))
