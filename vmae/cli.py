"""`vmae`, also `python -m vmae`: the package's work from the command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmae import ROOT, __version__, at_root


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


def _render(arguments: argparse.Namespace) -> None:
    if arguments.what == "motion":
        from vmae.data.motion import SIZES, render_set, set_name, with_sizes

        spec = with_sizes(
            SIZES[arguments.size], level=arguments.level, train=arguments.train,
            test=arguments.test, frames=arguments.frames, size=arguments.pixels,
            seed=arguments.seed,
        )  # fmt: skip
        out = arguments.out or ROOT / "data" / set_name(arguments.level, arguments.size)
        print(render_set(out, spec, arguments.workers))
    else:
        from vmae.data.film import FILM, FilmSpec, render_film

        frames = FilmSpec.frames if arguments.frames is None else arguments.frames
        spec_film = FilmSpec(frames=frames, label=arguments.label)
        name = "film" if arguments.label == "arrow" else f"film-{arguments.label}"
        print(
            render_film(arguments.out or ROOT / "data" / name, FILM, spec_film, arguments.workers)
        )


def _store(arguments: argparse.Namespace) -> None:
    from vmae.config import DataConfig
    from vmae.data.annotations import load_set
    from vmae.data.loader import open_source

    videos = load_set(at_root(arguments.set))
    config = DataConfig(path=str(arguments.set), workers=arguments.workers)
    for split in ("train", "test"):
        source = open_source(config, videos.split(split), arguments.pixels, frames=1)
        print(f"{split}: {len(source.videos)} videos, {arguments.pixels} pixels")


def _scan(arguments: argparse.Namespace) -> int:
    from vmae.data.annotations import load_set
    from vmae.data.scan import scan_set, summary, write_json

    videos = load_set(arguments.set)
    reports = scan_set(videos, arguments.frames, arguments.stride, arguments.workers)
    print(summary(reports))
    if arguments.json:
        write_json(arguments.json, reports)
    return int(any(report.problems for report in reports))


def _normalize(arguments: argparse.Namespace) -> None:
    from vmae.data.normalize import normalize_set

    done = normalize_set(arguments.set, arguments.out, arguments.short_side, arguments.workers)
    print(f"{done.folder}: {done.written} videos, {len(done.left_out)} left out")
    for path, reason in done.left_out[:20]:
        print(f"  {path}: {reason}")
    if len(done.left_out) > 20:
        print(f"  and {len(done.left_out) - 20} more; {done.folder / 'left_out.txt'} has all")


def _recipe(arguments: argparse.Namespace):
    import yaml

    from vmae.config import ConfigError, Recipe

    changes = {}
    for text in arguments.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}: write name=value, for example optim.steps=100")
        changes[name] = yaml.safe_load(value)
    return Recipe.load(arguments.config).changed(**{arguments.command: changes})


def _training(arguments: argparse.Namespace) -> int:
    """Pre-train or fine-tune; the status says where a signal stopped the run."""
    from accelerate import PartialState

    from vmae.train.trouble import STOPPED_STATUS, Stopped

    try:
        report = arguments.train(arguments)
    except Stopped as stopped:
        print(f"vmae: {stopped}; the same command with --resume goes on", file=sys.stderr)
        return STOPPED_STATUS
    if PartialState().is_main_process:
        print(json.dumps(report, indent=1))
    return 0


def _pretrain(arguments: argparse.Namespace) -> dict[str, Any]:
    from vmae.train.pretrain import pretrain

    result = pretrain(_recipe(arguments).pretrain, arguments.out, arguments.resume)
    return {"loss": result.records[-1].loss if result.records else None, **result.cost}


def _finetune(arguments: argparse.Namespace) -> dict[str, Any]:
    from vmae.train.finetune import finetune, open_sources
    from vmae.train.runtime import Bar
    from vmae.weights import load_encoder

    config = _recipe(arguments).finetune
    model, encoder = config.model, None
    if arguments.encoder:
        encoder = load_encoder(arguments.encoder, frames=model.frames, size=model.size)
    sources = open_sources(config)
    result = finetune(config, sources, encoder, Bar(), arguments.out, arguments.resume)
    return {"accuracy": result.test.accuracy, **result.cost}


def _evaluate(arguments: argparse.Namespace) -> None:
    from vmae.data.annotations import load_set, require_labels
    from vmae.data.encode import write_text
    from vmae.data.loader import open_set, open_source
    from vmae.data.sampling import Sampling
    from vmae.train.checkpoint import load_classifier
    from vmae.train.evaluate import evaluate, knn_probe, linear_probe, pooled_features
    from vmae.train.runtime import accelerator_for

    model, classes, config = load_classifier(arguments.model)
    # The test of its own set is that of the split it was trained on, with the view it was trained with.
    chosen = load_set(at_root(arguments.data)) if arguments.data else open_set(config.data)
    videos = require_labels(chosen)
    if videos.classes != classes:
        raise ValueError(
            f"{videos.folder} has classes {videos.classes}; the model was trained on {classes}"
        )
    accelerator = accelerator_for(config.precision)
    data, size, frames = config.data, model.config.size, model.config.frames
    with accelerator.main_process_first():  # one process decodes, the others find the store
        test = open_source(data, videos.test, size, frames)
    sampling, device = Sampling.of(data, frames), accelerator.device
    result = evaluate(
        model,
        test,
        sampling,
        clips=config.test_clips if arguments.clips is None else arguments.clips,
        crops=config.test_crops if arguments.crops is None else arguments.crops,
        view=config.view,
        device=device,
        max_bad=data.max_bad,
        accelerator=accelerator,
    )
    if not accelerator.is_main_process:
        return
    report: dict[str, Any] = {
        "videos": len(result.labels), "top1": result.accuracy, "top5": result.topk(5)
    }  # fmt: skip
    if arguments.probe or arguments.knn:
        sources = (open_source(data, videos.train, size, frames), test)
        known, asked = (
            pooled_features(model, source, sampling, device=device, max_bad=data.max_bad)
            for source in sources
        )
        if arguments.probe:
            report["probe"] = linear_probe(known, asked)
        if arguments.knn:
            report["knn"] = knn_probe(known, asked)
    shares = [None if share != share else share for share in result.per_class().tolist()]
    report["per_class"] = dict(zip(classes, shares, strict=True))
    print(json.dumps(report, indent=1))
    if arguments.json:
        report["confusion"] = result.confusion().tolist()
        write_text(arguments.json, json.dumps(report) + "\n")


def _check_env(_: argparse.Namespace) -> int:
    from vmae.check_env import check_env, report

    rows = check_env()
    print(report(rows))
    return int(any(row.status == "FAIL" for row in rows))


def _progress(arguments: argparse.Namespace) -> None:
    from vmae.checks import exercises, notebooks, solved

    done = solved()
    for notebook in notebooks():
        known = exercises(notebook)
        print(f"{notebook}: {len(done & set(known))} of {len(known)}")
        for name, exercise in known.items():
            print(f"  {'[x]' if name in done else '[ ]'} {name}")
            for mistake in exercise.mistakes if arguments.mistakes else ():
                print(f"        {mistake}")


def _convert(arguments: argparse.Namespace) -> None:
    from vmae.weights import convert

    print(
        convert(
            arguments.source, arguments.target, arguments.to, drop_head=arguments.drop_head,
            encoder_only=arguments.encoder_only, frames=arguments.frames, size=arguments.size,
            heads=arguments.heads, decoder_heads=arguments.decoder_heads,
        )
    )  # fmt: skip


def _claims(arguments: argparse.Namespace) -> None:
    from statistics import mean

    from vmae import claims

    wrong = set(arguments.claims) - set(claims.CLAIMS)
    if wrong:
        raise ValueError(f"no claim {', '.join(map(repr, wrong))}; there are {list(claims.CLAIMS)}")
    names = arguments.claims or list(claims.CLAIMS)
    if arguments.seeds:
        claims.measure(names, arguments.seeds)
    for name in names:
        for test in ("probe", "10 labels"):
            print(f"{name}, {test}")
            for setting, found in claims.values(name, test).items():
                listed = ", ".join(f"{value:.1f}" for value in found)
                line = f"{mean(found):5.1f} ({listed})" if found else "not measured yet"
                print(f"  {setting:14} {line}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vmae", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True)

    render = commands.add_parser(
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
    render.add_argument("--workers", type=int, default=2)
    render.set_defaults(run=_render)

    environment = commands.add_parser(
        "check-env", help="is this computer ready for the course? each problem with its fix"
    )
    environment.set_defaults(run=_check_env)

    progress = commands.add_parser("progress", help="which exercises are solved, by notebook")
    progress.add_argument(
        "--mistakes", action="store_true", help="and which mistakes each check knows, in its words"
    )
    progress.set_defaults(run=_progress)

    store = commands.add_parser("store", help="decode a set once into memory-mapped frames")
    store.add_argument("set", type=Path)
    store.add_argument("--pixels", type=int, required=True, help="short side to resize to")
    store.add_argument("--workers", type=int, default=2)
    store.set_defaults(run=_store)

    scan = commands.add_parser("scan", help="open every video of a set and report what is wrong")
    scan.add_argument("set", type=Path)
    scan.add_argument("--frames", type=int, default=16, help="frames of a clip")
    scan.add_argument("--stride", type=int, default=1, help="of a clip")
    scan.add_argument("--json", type=Path, metavar="FILE", help="write everything found")
    scan.add_argument("--workers", type=int, default=2)
    scan.set_defaults(run=_scan)

    normalize = commands.add_parser(
        "normalize", help="re-encode a set into files that decord reads exactly"
    )
    normalize.add_argument("set", type=Path)
    normalize.add_argument("out", type=Path, help="folder of the new set")
    normalize.add_argument("--short-side", type=int, default=256, help="at most; never enlarged")
    normalize.add_argument("--workers", type=int, default=2)
    normalize.set_defaults(run=_normalize)

    for name, train, text in (
        ("pretrain", _pretrain, "pre-train a masked autoencoder"),
        ("finetune", _finetune, "train and test a classifier"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("config", help="a recipe's name (cpu, gpu) or a YAML file")
        command.add_argument("--out", type=Path, required=True, help="folder of the run")
        command.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="change a field"
        )
        command.add_argument(
            "--resume", action="store_true", help="go on with the run in --out; start it if new"
        )
        command.set_defaults(run=_training, train=train)
        if name == "finetune":
            command.add_argument(
                "--encoder",
                type=Path,
                help="pre-trained weights, of any layout that `vmae convert` reads",
            )

    test = commands.add_parser("evaluate", help="test a classifier that `vmae finetune` saved")
    test.add_argument("model", type=Path, help="folder given to finetune as --out")
    test.add_argument("--data", type=Path, help="another set with the same classes")
    test.add_argument("--clips", type=int, help="clips over a video (default: its test_clips)")
    test.add_argument("--crops", type=int, help="squares along the long side (its test_crops)")
    test.add_argument("--probe", action="store_true", help="a linear probe of its features too")
    test.add_argument("--knn", action="store_true", help="their 20 nearest neighbours too")
    test.add_argument("--json", type=Path, metavar="FILE", help="write all of it, and confusions")
    test.set_defaults(run=_evaluate)

    claims = commands.add_parser(
        "claims",
        help="what the papers claim, measured small; with --seeds, measure what is missing",
    )
    claims.add_argument("claims", nargs="*", metavar="CLAIM", help="such as 'decoder mask'; all")
    claims.add_argument("--seeds", type=int, nargs="+", default=[], help="4 minutes a run and seed")
    claims.set_defaults(run=_claims)

    convert = commands.add_parser(
        "convert", help="weights from and to official, Hugging Face and our own layouts"
    )
    convert.add_argument("source", type=Path, help="file or folder of any layout")
    convert.add_argument("target", type=Path, help="folder to write; for official a .pth file")
    convert.add_argument("--to", choices=("vmae", "official", "hf"), required=True)
    convert.add_argument("--drop-head", action="store_true", help="of a classifier, the encoder")
    convert.add_argument("--encoder-only", action="store_true", help="leave out decoder and head")
    for name, text in (
        ("--frames", "frames of a clip, where the source does not tell (16; MAE 1)"),
        ("--size", "side of a frame, likewise (224)"),
        ("--heads", "attention heads, likewise (by width, as published)"),
        ("--decoder-heads", "the decoder's, likewise"),
    ):
        convert.add_argument(name, type=int, metavar="N", help=text)
    convert.set_defaults(run=_convert)
    return parser
