"""`vmae`, also `python -m vmae`: the package's work from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vmae import __version__
from vmae.cli import commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors that a reader can mend are one message."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except KeyboardInterrupt:
        resume = " with --resume" if hasattr(arguments, "resume") else ""
        print(f"\nvmae: stopped; the same command{resume} goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `vmae progress | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        if arguments.debug:
            raise
        print(f"vmae: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vmae", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", required=True)

    render = subparsers.add_parser(
        "render", help="make a labelled set: rendered motion, or the film in clips"
    )
    render.add_argument("what", choices=("motion", "film"))
    render.add_argument(
        "--level", choices=("digits", "textures", "scenes"), default="digits", help="of motion"
    )
    render.add_argument(
        "--size", choices=("mini", "small", "full"), default="small", help="of motion"
    )
    render.add_argument(
        "--label",
        choices=("arrow", "speed"),
        default="arrow",
        help="of the film: arrow of time, speed",
    )
    render.add_argument(
        "--out",
        type=Path,
        help="folder (default: data/motion-SIZE, data/motion-LEVEL-SIZE, data/film, data/film-speed)",
    )
    render.add_argument("--train", type=int, help="videos to train on")
    render.add_argument("--test", type=int, help="videos to test on")
    render.add_argument("--frames", type=int, help="frames of a video")
    render.add_argument("--pixels", type=int, help="side of a frame, 64 or more")
    render.add_argument("--seed", type=int)
    render.add_argument("--num-workers", type=int, default=2)
    render.set_defaults(run=commands.render)

    environment = subparsers.add_parser(
        "check-env", help="is this computer ready for the course? each problem with its fix"
    )
    environment.set_defaults(run=commands.check_env)

    progress = subparsers.add_parser("progress", help="which exercises are solved, by notebook")
    progress.add_argument(
        "--mistakes", action="store_true", help="and which mistakes each check knows, in its words"
    )
    progress.set_defaults(run=commands.progress)

    store = subparsers.add_parser("store", help="decode a set once into memory-mapped frames")
    store.add_argument("set", type=Path)
    store.add_argument("--pixels", type=int, required=True, help="short side to resize to")
    store.add_argument("--num-workers", type=int, default=2)
    store.set_defaults(run=commands.store)

    scan = subparsers.add_parser("scan", help="open every video of a set and report what is wrong")
    scan.add_argument("set", type=Path)
    scan.add_argument("--num-frames", type=int, default=16, help="frames of a clip")
    scan.add_argument("--stride", type=int, default=1, help="of a clip")
    scan.add_argument("--json", type=Path, metavar="FILE", help="write everything found")
    scan.add_argument("--num-workers", type=int, default=2)
    scan.set_defaults(run=commands.scan)

    normalize = subparsers.add_parser(
        "normalize", help="re-encode a set into files that decord reads exactly"
    )
    normalize.add_argument("set", type=Path)
    normalize.add_argument("out", type=Path, help="folder of the new set")
    normalize.add_argument("--short-side", type=int, default=256, help="at most; never enlarged")
    normalize.add_argument("--num-workers", type=int, default=2)
    normalize.set_defaults(run=commands.normalize)

    for name, train, text in (
        ("pretrain", commands.pretrain, "pre-train a masked autoencoder"),
        ("finetune", commands.finetune, "train and test a classifier"),
    ):
        command = subparsers.add_parser(name, help=text)
        command.add_argument("config", help="a recipe's name (cpu, gpu) or a YAML file")
        command.add_argument("--out", type=Path, required=True, help="folder of the run")
        command.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="change a field"
        )
        command.add_argument(
            "--resume", action="store_true", help="go on with the run in --out; start it if new"
        )
        command.set_defaults(run=commands.training, train=train)
        if name == "finetune":
            command.add_argument(
                "--encoder",
                type=Path,
                help="pre-trained weights, of any layout that `vmae convert` reads",
            )

    test = subparsers.add_parser("evaluate", help="test a classifier that `vmae finetune` saved")
    test.add_argument("model", type=Path, help="folder given to finetune as --out")
    test.add_argument("--data", type=Path, help="another set with the same classes")
    test.add_argument("--clips", type=int, help="clips over a video (default: its test_clips)")
    test.add_argument("--crops", type=int, help="squares along the long side (its test_crops)")
    test.add_argument("--probe", action="store_true", help="a linear probe of its features too")
    test.add_argument("--knn", action="store_true", help="their 20 nearest neighbours too")
    test.add_argument("--json", type=Path, metavar="FILE", help="write all of it, and confusions")
    test.set_defaults(run=commands.evaluate)

    claims = subparsers.add_parser(
        "claims",
        help="what the papers claim, measured small; with --seeds, measure what is missing",
    )
    claims.add_argument("claims", nargs="*", metavar="CLAIM", help="such as 'decoder mask'; all")
    claims.add_argument(
        "--seeds", type=int, nargs="+", default=[], help="measure what is missing for these"
    )
    claims.set_defaults(run=commands.claims)

    convert = subparsers.add_parser(
        "convert", help="weights from and to official, Hugging Face and our own layouts"
    )
    convert.add_argument("source", type=Path, help="file or folder of any layout")
    convert.add_argument("target", type=Path, help="folder to write; for official a .pth file")
    convert.add_argument("--to", choices=("vmae", "official", "hf"), required=True)
    convert.add_argument("--drop-head", action="store_true", help="of a classifier, the encoder")
    convert.add_argument("--encoder-only", action="store_true", help="leave out decoder and head")
    for name, text in (
        ("--num-frames", "frames of a clip, where the source does not tell (16; MAE 1)"),
        ("--img-size", "side of a frame, likewise (224)"),
        ("--num-heads", "attention heads, likewise (by width, as published)"),
        ("--decoder-num-heads", "the decoder's, likewise"),
    ):
        convert.add_argument(name, type=int, metavar="N", help=text)
    convert.set_defaults(run=commands.convert)
    return parser
