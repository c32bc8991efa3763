"""Masked autoencoders for video: make data, train, test and convert weights."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmae import ROOT, __version__
from vmae.cli import commands, results, weights
from vmae.cli.parser import Parser, at_least


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Errors the user can fix come without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its console may lack a character of a name
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    warnings.formatwarning = lambda message, *_, **__: (
        f"vmae: {message}\n"
    )  # without a line of code
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        resume = " with --resume" if hasattr(arguments, "resume") else ""
        print(f"\nvmae: stopped; to continue, run the same command{resume}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `vmae progress | head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        if arguments.debug:
            raise
        print(f"vmae: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="vmae", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show full tracebacks for errors")
    subparsers = parser.add_subparsers(dest="command", required=True)
    workers: dict[str, Any] = {
        "type": at_least(0),
        "default": 2,
        "help": "number of worker processes (default: %(default)s)",
    }

    render = subparsers.add_parser(
        "render", help="create a labelled dataset of rendered motion or film clips"
    )
    render.add_argument("what", choices=("motion", "film"))
    render.add_argument(
        "--level",
        choices=("digits", "textures", "scenes"),
        default="digits",
        help="motion: visual complexity of the videos (default: %(default)s)",
    )
    render.add_argument(
        "--size",
        choices=("mini", "small", "full"),
        default="small",
        help="motion: dataset size (default: %(default)s)",
    )
    render.add_argument(
        "--label",
        choices=("arrow", "speed"),
        default="arrow",
        help="film: label clips by playback direction or playback speed (default: %(default)s)",
    )
    render.add_argument(
        "--overlap",
        type=int,
        default=0,
        help="film: frames shared by neighbouring clips of a shot (default: %(default)s)",
    )
    render.add_argument(
        "--out",
        type=Path,
        help="output folder (default: data/motion-SIZE, data/motion-LEVEL-SIZE, data/film, "
        "data/film-speed, or data/film-FRAMES for a number of frames other than 16)",
    )
    render.add_argument("--train", type=int, help="number of training videos")
    render.add_argument("--test", type=int, help="number of test videos")
    render.add_argument("--frames", type=int, help="number of frames per video")
    render.add_argument("--pixels", type=int, help="frame width and height in pixels (minimum: 64)")
    render.add_argument("--seed", type=int, help="random seed for the videos")
    render.add_argument(
        "--num-workers",
        type=int,
        help="number of worker processes (default and maximum: what cores and memory allow)",
    )
    render.set_defaults(run=commands.render)

    environment = subparsers.add_parser(
        "check-env",
        help="check that this computer is ready for the course, and suggest a fix for each problem",
    )
    environment.set_defaults(run=commands.check_env)

    progress = subparsers.add_parser(
        "progress", help="show each notebook's exercises and which of them are solved"
    )
    progress.add_argument(
        "--mistakes", action="store_true", help="also list the mistakes that each check recognises"
    )
    progress.set_defaults(run=commands.progress)

    store = subparsers.add_parser("store", help="decode a dataset once, into a cache on disk")
    store.add_argument("set", type=Path, help="dataset folder or list file")
    store.add_argument(
        "--pixels",
        type=at_least(1),
        required=True,
        help="resize the short side of every frame to this many pixels",
    )
    store.add_argument("--num-workers", **workers)
    store.set_defaults(run=commands.store)

    scan = subparsers.add_parser("scan", help="check every video in a dataset and report problems")
    scan.add_argument("set", type=Path, help="dataset folder or list file")
    for name, value, text in (
        ("--num-frames", 16, "number of frames per clip"),
        ("--stride", 1, "frame stride within a clip"),
    ):
        scan.add_argument(name, type=at_least(1), default=value, help=f"{text} (default: {value})")
    scan.add_argument(
        "--recipe",
        help="recipe name or YAML file that says how clips are taken, instead of these two",
    )
    scan.add_argument("--json", type=Path, metavar="FILE", help="also write the report to FILE")
    scan.add_argument("--num-workers", **workers)
    scan.set_defaults(run=commands.scan)

    normalize = subparsers.add_parser(
        "normalize", help="re-encode a dataset so that decord reads every frame correctly"
    )
    normalize.add_argument("set", type=Path, help="dataset folder or list file")
    normalize.add_argument("out", type=Path, help="output folder for the re-encoded dataset")
    normalize.add_argument(
        "--short-side",
        type=int,
        default=256,
        help="maximum short side in pixels; smaller videos are not resized (default: %(default)s)",
    )
    normalize.add_argument("--num-workers", **workers)
    normalize.set_defaults(run=commands.normalize)

    plan = subparsers.add_parser(
        "plan", help="what a recipe will take on a device: steps, minutes, memory, what limits it"
    )
    plan.add_argument("config", help="recipe name (cpu, gpu, ...) or YAML file")
    plan.add_argument(
        "--device",
        default="cpu",
        help="cpu (this machine), h200, h100, a100, l4 or t4 (default: %(default)s)",
    )
    plan.add_argument("--data", type=Path, help="plan for this dataset in place of the recipe's")
    plan.add_argument(
        "--videos", type=int, help="number of training videos, for a dataset that is not here"
    )
    plan.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a field of the recipe, in each part that has it; may be repeated",
    )
    plan.set_defaults(run=commands.plan)

    for name, train, text in (
        ("pretrain", commands.pretrain, "pre-train a masked autoencoder"),
        ("finetune", commands.finetune, "train and test a classifier"),
    ):
        command = subparsers.add_parser(name, help=text)
        command.add_argument("config", help="recipe name (cpu, gpu, ...) or YAML file")
        command.add_argument("--out", type=Path, required=True, help="output folder for the run")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="override a recipe field, e.g. optim.steps=100 or labels_per_class=null; may be repeated",
        )
        command.add_argument(
            "--resume",
            action="store_true",
            help="resume the run in --out, or start a new one if there is none",
        )
        command.set_defaults(run=commands.training, train=train)
        if name == "finetune":
            command.add_argument(
                "--encoder",
                metavar="WEIGHTS",
                help="weights to start from, pre-trained or those of a classifier: like the source "
                "of `vmae convert`",
            )
            command.add_argument(
                "--state-key",
                metavar="KEY",
                help="entry of the weights to take, such as model_ema (default: the raw weights)",
            )

    results.add_to(subparsers)

    experiments = subparsers.add_parser(
        "experiments",
        help="show small-scale tests of the papers' claims, and what has not been measured yet",
    )
    experiments.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="experiment to show, e.g. masks (default: all)",
    )
    experiments.add_argument(
        "--measure",
        action="store_true",
        help="first run what is missing: hours. Stop it at any time; the same command resumes, and "
        "several processes share the work",
    )
    experiments.add_argument(
        "--report",
        action="store_true",
        help="write data/experiments/README.md and its pictures from all results, instead of printing",
    )
    experiments.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        help="random seeds (default: as many as each experiment asks for)",
    )
    experiments.add_argument(
        "--work",
        type=Path,
        default=os.environ.get("VMAE_WORK") or ROOT / "runs" / "experiments",
        help="folder for checkpoints (default: $VMAE_WORK, or runs/experiments)",
    )
    experiments.set_defaults(run=commands.experiments)

    weights.add_to(subparsers)
    return parser
