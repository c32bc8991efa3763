"""The commands of `vmae`. They import inside functions, to keep `vmae --help` fast."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from vmae import ROOT, at_root


def render(arguments: argparse.Namespace) -> None:
    """Render a motion set, or cut the film into clips."""
    if arguments.what == "motion":
        from vmae.data.making.motion import SIZES, render_set, set_name, with_sizes

        spec = with_sizes(
            SIZES[arguments.size], level=arguments.level, train=arguments.train,
            test=arguments.test, frames=arguments.frames, size=arguments.pixels,
            seed=arguments.seed,
        )  # fmt: skip
        out = arguments.out or ROOT / "data" / set_name(arguments.level, arguments.size)
        print(render_set(out, spec, arguments.num_workers))
    else:
        from vmae.data.making.film import FILM, FilmSpec, render_film

        frames = FilmSpec.frames if arguments.frames is None else arguments.frames
        spec_film = FilmSpec(frames=frames, overlap=arguments.overlap, label=arguments.label)
        name = "film" if arguments.label == "arrow" else f"film-{arguments.label}"
        name += "" if frames == FilmSpec.frames else f"-{frames}"
        print(
            render_film(
                arguments.out or ROOT / "data" / name, FILM, spec_film, arguments.num_workers
            )
        )


def store(arguments: argparse.Namespace) -> None:
    """Decode a set once, into the cache that training reads."""
    from vmae.data.config import DataConfig
    from vmae.data.reading.loader import open_source
    from vmae.data.sets.load import load_set

    videos = load_set(at_root(arguments.set))
    config = DataConfig(path=str(arguments.set), num_workers=arguments.num_workers)
    for split in ("train", "test"):
        source = open_source(config, videos.split(split), arguments.pixels, num_frames=1)
        print(f"{split}: {len(source.videos)} videos, {arguments.pixels} pixels")


def scan(arguments: argparse.Namespace) -> int:
    """Open every video of a set; returns 1 if any has a problem."""
    from vmae.data.checking.scan import scan_set, summary, write_json
    from vmae.data.sets.load import load_set

    videos = load_set(arguments.set, foreign=True)
    reports = scan_set(videos, arguments.num_frames, arguments.stride, arguments.num_workers)
    print(summary(reports))
    if arguments.json:
        write_json(arguments.json, reports)
    return int(any(report.problems for report in reports))


def normalize(arguments: argparse.Namespace) -> None:
    """Re-encode a set for decord."""
    from vmae.data.checking.normalize import normalize_set

    done = normalize_set(arguments.set, arguments.out, arguments.short_side, arguments.num_workers)
    print(f"{done.folder}: {done.written} videos written; left out: {len(done.left_out)}")
    for path, reason in done.left_out[:20]:
        print(f"  {path}: {reason}")
    if len(done.left_out) > 20:
        print(f"  and {len(done.left_out) - 20} more, all listed in {done.folder / 'left_out.txt'}")


def _recipe(arguments: argparse.Namespace):
    """The recipe given on the command line, with the changes of --set.

    Raises ConfigError if a change is not of the form name=value.
    """
    import yaml

    from vmae.base_config import ConfigError
    from vmae.train.recipe import Recipe

    changes = {}
    for text in arguments.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r} must have the form NAME=VALUE, e.g. optim.steps=100")
        changes[name] = yaml.safe_load(value)
    part = "both" if arguments.command == "plan" else arguments.command
    return Recipe.load(arguments.config).changed(**{part: changes})


def plan(arguments: argparse.Namespace) -> None:
    """Print what a recipe will take on a device, and what is not measured about it."""
    from vmae.train.plan import hardware, rows

    device = hardware(arguments.device)
    recipe = _recipe(arguments)
    if arguments.data:
        recipe = recipe.changed({"data.path": str(arguments.data.resolve()), "data.root": ""})
    found = rows(recipe, device, arguments.videos)
    print(f"{arguments.config} on {device.name}, expected:")
    widths = [max(len(row[key]) for row in [{k: k for k in found[0]}, *found]) for key in found[0]]
    for row in [{key: key for key in found[0]}, *found]:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row.values(), widths, strict=True))
        )
    if device.overlaps:
        print("The constants for GPUs are fitted to a few steps of one card: data/bench/cuda.json.")


def training(arguments: argparse.Namespace) -> int:
    """Pre-train or fine-tune; returns a status of its own if a signal stopped the run."""
    from accelerate import PartialState

    from vmae.train.interrupts import STOPPED_STATUS, Stopped

    try:
        report = arguments.train(arguments)
    except Stopped as stopped:
        print(f"vmae: {stopped}; to continue, run the same command with --resume", file=sys.stderr)
        return STOPPED_STATUS
    if PartialState().is_main_process:
        print(json.dumps(report, indent=1))
    return 0


def pretrain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pre-train; returns the report to print."""
    from vmae.train.pretrain import pretrain

    result = pretrain(_recipe(arguments).pretrain, arguments.out, arguments.resume)
    return {"loss": result.records[-1].loss if result.records else None, **result.cost}


def finetune(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune; returns the report to print."""
    from vmae.support.progress import Bar
    from vmae.train.finetune import finetune, open_sources
    from vmae.train.starting import check_source
    from vmae.weights.loading import load_encoder

    config = _recipe(arguments).finetune
    model, encoder = config.model, None
    if arguments.encoder:
        encoder = load_encoder(
            arguments.encoder,
            num_frames=model.num_frames,
            img_size=model.img_size,
            keep_head=True,
        )
    check_source(encoder, config)
    sources = open_sources(config)
    result = finetune(config, sources, encoder, Bar(), arguments.out, arguments.resume)
    return {"accuracy": result.test.accuracy, **result.cost}


def evaluate(arguments: argparse.Namespace) -> None:
    """Test a classifier on its own set or another one, and print the report."""
    from vmae.data.reading.loader import open_set, open_source
    from vmae.data.reading.sampling import Sampling
    from vmae.data.sets.load import load_set, require_labels
    from vmae.support.files import write_text
    from vmae.train.classifier import load_classifier
    from vmae.train.devices import accelerator_for
    from vmae.train.evaluate import evaluate, knn_probe, linear_probe, pooled_features

    model, classes, config = load_classifier(arguments.model)
    # Without --data, test as in training: the same set and split, the same view of the clips.
    test_set = load_set(at_root(arguments.data)) if arguments.data else open_set(config.data)
    videos = require_labels(test_set)
    if videos.classes != classes:
        raise ValueError(
            f"{videos.folder} has the classes {videos.classes}, but the model was trained on "
            f"{classes}: use a dataset with the same classes"
        )
    accelerator = accelerator_for(config.precision)
    data, size, frames = config.data, model.config.img_size, model.config.num_frames
    with accelerator.main_process_first():  # one process decodes, the others use its cache
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
        max_unreadable=data.max_unreadable,
        accelerator=accelerator,
    )
    if not accelerator.is_main_process:
        return
    report: dict[str, Any] = {
        "videos": len(result.labels), "top1": result.accuracy, "top5": result.topk(5)
    }  # fmt: skip
    if arguments.probe or arguments.knn:
        sources = (open_source(data, videos.train, size, frames), test)
        train_features, test_features = (
            pooled_features(
                model, source, sampling, device=device, max_unreadable=data.max_unreadable
            )
            for source in sources
        )
        if arguments.probe:
            report["probe"] = linear_probe(train_features, test_features)
        if arguments.knn:
            report["knn"] = knn_probe(train_features, test_features)
    # A class without test videos is NaN, which JSON lacks.
    accuracies = [None if a != a else a for a in result.per_class().tolist()]
    report["per_class"] = dict(zip(classes, accuracies, strict=True))
    print(json.dumps(report, indent=1))
    if arguments.json:
        report["confusion"] = result.confusion().tolist()
        write_text(arguments.json, json.dumps(report) + "\n")


def check_env(_: argparse.Namespace) -> int:
    """Check whether this computer is ready for the course; returns 1 if something fails."""
    from vmae.course.check_env import check_env, report

    rows = check_env()
    print(report(rows))
    return int(any(row.status == "FAIL" for row in rows))


def progress(arguments: argparse.Namespace) -> None:
    """Print which exercises are solved and, with --mistakes, which mistakes their checks recognise."""
    from vmae.course.checks.core import exercises, notebooks
    from vmae.course.progress import solved

    done = solved()
    for notebook in notebooks():
        all_exercises = exercises(notebook)
        print(f"{notebook}: {len(done & set(all_exercises))} of {len(all_exercises)}")
        for name, exercise in all_exercises.items():
            print(f"  {'[x]' if name in done else '[ ]'} {name}")
            for mistake in exercise.mistakes if arguments.mistakes else ():
                print(f"        {mistake}")


def convert(arguments: argparse.Namespace) -> None:
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


def experiments(arguments: argparse.Namespace) -> None:
    """Print results and verdicts; with --measure, measure what is missing first.

    With --report, write the page about all results.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and PyTorch are imported
    from vmae.course.experiments.listing import listing
    from vmae.course.experiments.measure import measure
    from vmae.course.experiments.table import EXPERIMENTS

    unknown = set(arguments.experiments) - set(EXPERIMENTS)
    if unknown:
        raise ValueError(
            f"unknown experiment{'s' * (len(unknown) > 1)} {', '.join(map(repr, sorted(unknown)))}: "
            f"choose from {', '.join(map(repr, EXPERIMENTS))}"
        )
    names = arguments.experiments or list(EXPERIMENTS)
    if arguments.measure:
        measure(names, arguments.seeds, arguments.work)
    if arguments.report:
        from vmae.course.experiments.report import write

        print(write())
        return
    for line in listing(names, arguments.seeds):
        print(line, flush=True)
