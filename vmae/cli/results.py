"""What is done with a trained classifier: `vmae evaluate`, `vmae predict` and `vmae report`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vmae import at_root
from vmae.cli.parser import at_least
from vmae.cli.printing import as_json, rounded
from vmae.support.near import require

if TYPE_CHECKING:
    from vmae.train.splits import Row

#: Views in a batch of `vmae evaluate`: few, so that its progress is seen on a CPU too. An order of frames is
#: drawn batch by batch, so a classifier of shuffled frames is tested in the batches of its run.
BATCH = 32
#: Seconds after which it shows its progress.
PATIENCE = 3


def add_to(subparsers: Any) -> None:
    """Add the three commands to the parser of `vmae`."""
    test = subparsers.add_parser("evaluate", help="evaluate a classifier saved by `vmae finetune`")
    test.add_argument("model", type=Path, help="folder passed to `vmae finetune` as --out")
    test.add_argument(
        "--data",
        type=Path,
        help="evaluate on a different dataset with classes of the model: a folder, or a labelled list",
    )
    test.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="part of the dataset to evaluate on (default: test; with --data, all)",
    )
    test.add_argument(
        "--clips", type=at_least(1), help="clips per video (default: the run's test_clips)"
    )
    test.add_argument(
        "--crops",
        type=at_least(1),
        help="crops along the long side (default: the run's test_crops)",
    )
    test.add_argument(
        "--num-workers", type=at_least(0), help="number of processes that read (default: the run's)"
    )
    for name, text in (
        ("--probe", "also train and evaluate a linear probe on the features"),
        ("--knn", "also evaluate a 20-nearest-neighbour classifier on the features"),
    ):
        test.add_argument(name, action="store_true", help=text)
    test.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the report and the confusion matrix to FILE",
    )
    test.set_defaults(run=evaluate)

    command = subparsers.add_parser(
        "predict",
        help="predict the classes of videos with a classifier",
        description="Predict the classes of videos with a classifier. The exit status is 1 if a file "
        "could not be read, although all others are predicted.",
    )
    command.add_argument(
        "model", help="a run's folder, weights in any layout, or OWNER/NAME on the Hugging Face hub"
    )
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
        type=at_least(0),
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


def evaluate(arguments: argparse.Namespace) -> None:
    """Test a classifier on its own set or another one, and print the report."""
    from tqdm import tqdm

    from vmae.data.reading.loader import open_set, open_source
    from vmae.data.reading.sampling import Sampling
    from vmae.data.sets.lists import from_test_list
    from vmae.data.sets.load import labelled, load_set, require_no_video
    from vmae.support.files import require_writable, write_text
    from vmae.support.text import few
    from vmae.train.classifier import load_classifier, unfinished
    from vmae.train.devices import accelerator_for
    from vmae.train.evaluate import evaluate, interval, knn_probe, linear_probe, pooled_features
    from vmae.train.splits import identity, kept, relative, seen

    if arguments.json:
        require_writable(arguments.json)
    model, classes, config = load_classifier(arguments.model)
    if note := unfinished(arguments.model):
        print(f"vmae: {note}", file=sys.stderr)
    # Without --data, test as in training: the same set and split, the same view of the clips.
    probes = arguments.probe or arguments.knn  # these train on the training videos
    given = at_root(arguments.data) if arguments.data else None
    left_out: Sequence[Row] = ()
    if given is None:
        videos = open_set(config.data)
        if splits := kept(arguments.model, videos):
            videos, left_out = splits.as_set(), splits.left_out
    elif not given.is_file():
        videos = load_set(arguments.data)
    elif probes:
        raise ValueError(
            f"{given} is one list, of test videos, but --probe and --knn also need training videos: "
            "pass a folder with train.csv and test.csv"
        )
    else:
        require_no_video(given)
        videos = from_test_list(given, classes)
    split = arguments.split or ("all" if arguments.data and not probes else "test")
    if probes and split in ("train", "all"):
        raise ValueError(f"--split {split}: a probe is trained on train, so test it on val or test")
    if rows := [row for row in left_out if split in ("all", row.split)]:
        names = few([relative(row.video.path, videos.folder) for row in rows])
        print(f"vmae: left out, as the run could not read them: {names}", file=sys.stderr)
    tested = labelled(videos, split, classes)
    trained = labelled(videos, "train", classes) if probes else ()
    accelerator = accelerator_for(config.precision)
    used = seen(arguments.model, config)
    if (known := sum(identity(video) in used for video in tested)) and accelerator.is_main_process:
        print(
            f"vmae: {known} of these {len(tested)} videos were used for training or validation of this "
            "run: the accuracy is no test of it. Pass other videos; without --data and --split, the "
            "run's own test videos are taken",
            file=sys.stderr,
        )
    data, size, frames = config.data, model.config.img_size, model.config.num_frames
    with accelerator.main_process_first():  # one process decodes, the others use its cache
        test = open_source(data, tested, size, frames)
    sampling = Sampling.of(data, frames)
    reading: dict[str, Any] = {
        "device": accelerator.device, "max_unreadable": data.max_unreadable,
        "num_workers": data.num_workers if arguments.num_workers is None else arguments.num_workers,
    }  # fmt: skip
    batches: dict[str, Any] = {} if config.view == "shuffled" else {"batch_size": BATCH}
    result = evaluate(
        model,
        test,
        sampling,
        **batches,
        clips=config.test_clips if arguments.clips is None else arguments.clips,
        crops=config.test_crops if arguments.crops is None else arguments.crops,
        view=config.view,
        accelerator=accelerator,
        **reading,
        progress=partial(tqdm, delay=PATIENCE, disable=not accelerator.is_main_process),
    )
    if not accelerator.is_main_process:
        return
    report: dict[str, Any] = {
        "set": str(videos.folder), "split": split,
        "videos": len(result.labels), "right": result.right, "top1": result.accuracy,
        "top1_interval": interval(result.right, len(result.labels)),
    }  # fmt: skip
    if len(classes) > 5:
        report["top5"] = result.topk(5)
    if probes:
        sources = (open_source(data, trained, size, frames), test)
        train_features, test_features = (
            pooled_features(model, source, sampling, **reading) for source in sources
        )
        if arguments.probe:
            report["probe"] = linear_probe(train_features, test_features)
        if arguments.knn:
            report["knn"] = knn_probe(train_features, test_features)
    # A class without test videos is NaN, which JSON lacks.
    accuracies = [None if a != a else a for a in result.per_class().tolist()]
    report["per_class"] = dict(zip(classes, accuracies, strict=True))
    report = rounded(report)
    print(as_json(report))
    if arguments.json:
        report["confusion"] = result.confusion().tolist()
        write_text(arguments.json, json.dumps(report) + "\n")


def predict(arguments: argparse.Namespace) -> int:
    """Predict the classes of a file or of all videos in a folder; returns 1 if any is unreadable."""
    require(arguments.path, "file or folder")
    from tqdm import tqdm

    from vmae import load
    from vmae.predict import passed_over, predict_all, to_csv, used_inference, videos_in
    from vmae.support.files import printable, require_writable, write_text
    from vmae.support.text import few
    from vmae.train.classifier import unfinished
    from vmae.train.devices import accelerator_for
    from vmae.vit import VisionTransformer

    for name in ("top", "every"):
        if (value := getattr(arguments, name)) is not None and value <= 0:
            raise ValueError(f"--{name} is {value}; it must be greater than 0")
    if arguments.csv:
        require_writable(arguments.csv)
    paths = videos_in(arguments.path)  # before the model, which takes longer
    if others := passed_over(arguments.path, paths):
        names = few([printable(path.relative_to(arguments.path)) for path in others])
        print(f"passed over, as they are not videos: {names}", file=sys.stderr)
    model = load(arguments.model)
    if note := unfinished(arguments.model):
        print(f"vmae: {note}", file=sys.stderr)
    inference = used_inference(model, arguments.stride, arguments.clips, arguments.crops)
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
            name = printable(one.path)
            print(f"{name}{when}: {best or one.error}", flush=True)
    unreadable = {one.path for one in predictions if one.error}
    if arguments.csv:
        folder = arguments.path if arguments.path.is_dir() else arguments.path.parent
        write_text(arguments.csv, to_csv(predictions, folder))
        print(f"{len(paths)} videos, {len(unreadable)} unreadable: {arguments.csv}")
    return int(bool(unreadable))


def report(arguments: argparse.Namespace) -> None:
    """Write the report of a fine-tuning run as one HTML file."""
    require(arguments.folder, "folder of a run")
    from vmae.figures.report_page import write_report

    print(write_report(arguments.folder, arguments.out))
