"""The commands of `vmae`. They import inside functions, to keep `vmae --help` fast."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any

from vmae import ROOT
from vmae.cli.printing import as_json, rounded
from vmae.support.recipes import recipe_file


def render(arguments: argparse.Namespace) -> None:
    """Render a motion set, or cut the film into clips."""
    if arguments.what == "motion":
        from vmae.course.making.motion import render_set
        from vmae.data.sets.motion_specs import SIZES, set_name, with_sizes

        spec = with_sizes(
            SIZES[arguments.size], level=arguments.level, train=arguments.train,
            test=arguments.test, frames=arguments.frames, size=arguments.pixels,
            seed=arguments.seed,
        )  # fmt: skip
        out = arguments.out or ROOT / "data" / set_name(arguments.level, arguments.size)
        print(render_set(out, spec, arguments.num_workers))
    else:
        from vmae.course.making.film import FILM, FilmSpec, render_film

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

    videos = load_set(arguments.set)
    config = DataConfig(path=str(arguments.set), num_workers=arguments.num_workers)
    for split, part in videos.splits.items():
        source = open_source(config, part, arguments.pixels, num_frames=1)
        print(f"{split}: {len(source.videos)} videos, {arguments.pixels} pixels")


def scan(arguments: argparse.Namespace) -> int:
    """Open every video of a set; returns 1 if any has a problem."""
    from vmae.data.checking.scan import scan_set, summary, write_json
    from vmae.data.checking.table import class_table
    from vmae.data.reading.sampling import Sampling
    from vmae.data.sets.load import load_set
    from vmae.support.files import require_writable
    from vmae.train.recipe import Recipe

    if arguments.json:
        require_writable(arguments.json)
    samplings = [Sampling(arguments.num_frames, arguments.stride)]
    if arguments.recipe:
        recipe = Recipe.load(arguments.recipe)
        parts = (recipe.pretrain, recipe.finetune)
        samplings = [Sampling.of(part.data, part.model.num_frames) for part in parts]
    videos = load_set(arguments.set, foreign=True)
    reports = scan_set(videos, samplings, arguments.num_workers)
    print(summary(reports), class_table(reports), sep="\n\n")
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
        print(
            f"  and {len(done.left_out) - 20} more, all listed in {arguments.out / 'left_out.txt'}"
        )
    new = shlex.quote(f"data.path={done.folder}")
    print(f"next: pass `--set {new}`, so that training reads the new files", file=sys.stderr)


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
        if not (name and equals):
            raise ConfigError(f"--set {text!r} must have the form NAME=VALUE, e.g. optim.steps=100")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {text!r}: {value!r} is not a value that YAML knows") from None
    part = "both" if arguments.command == "plan" else arguments.command
    recipe = Recipe.load(arguments.config).with_fields(part, changes)
    recipe.pretrain.require_rgb()  # a command reads videos; a notebook may bring clips of its own
    return recipe


def plan(arguments: argparse.Namespace) -> None:
    """Print what a recipe will take on a device, and what is not measured about it."""
    recipe_file(arguments.config)
    from vmae.support.text import aligned
    from vmae.train.plan import hardware
    from vmae.train.plan_table import plan_table
    from vmae.train.recipe import Recipe

    device = hardware(arguments.device)
    recipe = _recipe(arguments)
    if arguments.data:
        there = {"data.path": str(arguments.data), "data.root": None}
        recipe = recipe.with_fields("both", there)
    stages = Recipe.load(arguments.config).stages  # those of the recipe, whatever --set adds
    found = plan_table(recipe, device, arguments.videos, stages)
    print(f"{arguments.config} on {device.name}, expected:")
    print("\n".join(aligned([list(found[0]), *(list(row.values()) for row in found)])))
    if device.overlaps:
        print("The constants for GPUs are fitted to a few steps of one card: data/bench/cuda.json.")


def training(arguments: argparse.Namespace) -> int:
    """Pre-train or fine-tune; returns a status of its own if a signal stopped the run."""
    recipe_file(arguments.config)  # a mistyped name need not wait for PyTorch
    from accelerate import PartialState

    from vmae.train.interrupts import STOPPED_STATUS, Stopped

    try:
        report = arguments.train(arguments)
    except Stopped as stopped:
        print(f"vmae: {stopped}; to continue, run the same command with --resume", file=sys.stderr)
        return STOPPED_STATUS
    if PartialState().is_main_process:
        print(as_json(report))
        if arguments.command == "finetune":
            out = shlex.quote(str(arguments.out))
            print(f"next: `vmae report {out}`, `vmae predict {out} VIDEOS`", file=sys.stderr)
    return 0


def pretrain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Pre-train; returns the report to print."""
    from vmae.train.pretrain import pretrain

    result = pretrain(_recipe(arguments).pretrain, arguments.out, arguments.resume)
    loss = round(result.records[-1].loss, 4) if result.records else None
    return {"loss": loss, **rounded(result.cost)}


def finetune(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune; returns the report to print."""
    from vmae.support.progress import Bar
    from vmae.train.devices import accelerator_for
    from vmae.train.finetune import finetune, open_sources
    from vmae.train.monitoring import require_tracker
    from vmae.train.overview import overview
    from vmae.train.run_folder import check_folder
    from vmae.train.starting import load_start
    from vmae.train.validation import best_row

    config = _recipe(arguments).finetune
    for field, given in (("start_from", arguments.encoder), ("state_key", arguments.state_key)):
        if given is not None:
            config = config.replace(**{field: given})
    config, encoder = load_start(config)
    require_tracker(config, arguments.out)  # this and the next before anything is decoded
    check_folder(arguments.out, config, arguments.resume)
    sources = open_sources(config, arguments.out if arguments.resume else None)
    accelerator = accelerator_for(config.precision, config.device, config.grad_accum_steps)
    if accelerator.is_main_process:
        print(overview(config, sources, accelerator, encoder), file=sys.stderr, flush=True)
    result = finetune(config, sources, encoder, Bar(), arguments.out, arguments.resume)
    best = best_row(result.validation) if result.validation else None
    kept = {}
    if best:
        kept = {"best_step": best["step"], "validation_accuracy": round(best["accuracy"], 1)}
    test = result.test
    tested = {"right": test.right, "test_videos": len(test.labels)}
    return {"accuracy": round(test.accuracy, 1), **tested, **kept, **rounded(result.cost)}


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
