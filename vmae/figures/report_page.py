"""The report of a fine-tuning run as a page: its test, its curves, and what it was made from."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path

import matplotlib

from vmae.data.reading.sampling import Sampling
from vmae.figures.charts import lines, table
from vmae.figures.figure import page, paragraph
from vmae.figures.report import results
from vmae.support.files import require_writable, write_text
from vmae.support.progress import Record
from vmae.support.text import few
from vmae.train.classifier import load_classifier, load_test
from vmae.train.config import FinetuneConfig
from vmae.train.evaluate import Evaluation
from vmae.train.log import read_records
from vmae.train.run_folder import start_kind
from vmae.train.splits import left_out, passed_over, training_videos
from vmae.train.validation import best_row, read_validation

#: A share of the loss of guessing; a model whose training loss ends above it has hardly learned.
LEARNED = 0.9
#: What to do about such a loss, in any run.
ADVICE = ("raise optim.lr by a factor of 3", "train for more epochs")


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a fine-tuning run as one HTML file, by default report.html in its folder.

    Raises CheckpointError if the run has not been tested, or the folder is not that of one.
    """
    folder = Path(folder)
    out = folder / "report.html" if out is None else Path(out)
    test, videos = load_test(folder)
    require_writable(out)
    _, classes, config = load_classifier(folder)
    with page() as parts, _missing_letters():
        results(test, videos, classes, Sampling.of(config.data, config.model.num_frames))
        paragraph("Training", "h2")
        _training(folder, config, test)
    title = escape(f"Report of {folder.resolve().name}")
    write_text(out, _PAGE.format(title=title, parts="\n".join(parts)))
    return out


@contextmanager
def _missing_letters() -> Iterator[None]:
    """One warning, with a way out, in place of Matplotlib's for each letter that no installed font has."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing: dict[str, None] = {}
    for one in caught:
        if found := re.match(r"Glyph (\d+) .* missing from font", str(one.message)):
            missing[chr(int(found[1]))] = None
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if missing:
        fonts = Path(matplotlib.get_cachedir(), "fontlist-*.json")
        warnings.warn(
            f"the pictures show boxes for {len(missing)} letter{'s' * (len(missing) != 1)} that no "
            f"installed font has: {' '.join([*missing][:10])}. The tables show them. "
            "Install a font that has them, such as Noto Sans CJK for Chinese, delete "
            f"Matplotlib's list of fonts ({fonts}), and run `vmae report` again",
            stacklevel=5,
        )


def _training(folder: Path, config: FinetuneConfig, test: Evaluation) -> None:
    """The curves of the run, also if it was resumed, and what it was made from."""
    records, validation = (
        read_records(folder / "metrics.jsonl"),
        read_validation(folder / "validation.jsonl"),
    )
    if records:
        training_curve(records, test.logits.shape[1], _advice(folder, config))
    if validation:
        best = best_row(validation)
        lines(
            [row["step"] for row in validation],
            {"validation": [row["accuracy"] for row in validation]},
            alt=f"Validation accuracy over steps; the best is {best['accuracy']:.1f} percent.",
            xlabel="step",
            ylabel="validation accuracy, %",
            levels={"test": test.accuracy},
            top=105,
        )
        paragraph(
            f"The weights are those of step {best['step']}, which did best on the {best['videos']} "
            f"validation videos ({best['accuracy']:.1f} %). As it was chosen for that, this number is "
            "too optimistic; the test was not used for any choice."
        )
    else:
        paragraph(
            "The weights are those of the last step. With val_share set, those of the best epoch on "
            "videos held out of training would be kept."
        )
    optim, data = config.optim, config.data
    unread, passed = left_out(folder), passed_over(folder)
    started = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    clip = f"{data.clip_seconds:g} s" if data.clip_seconds else f"stride {data.stride}"
    rows = {
        "videos": data.path,
        **({"left out, unreadable": f"{len(unread)}: {few(unread)}"} if unread else {}),
        **({"passed over, not read": f"{len(passed)}: {few(passed)}"} if passed else {}),
        "model": f"{config.model.size}, {config.model.num_frames} frames of {config.model.img_size} "
        f"pixels, {clip}",
        "weights": _weights(folder, config),
        "frozen layers": f"{config.frozen_layers} of {config.model.depth}",
        "training": f"{_length(folder, config)}; learning rate up to {optim.lr:g}"
        + (f" per {optim.base_batch_size} videos" if optim.base_batch_size else ""),
        "views in the test": f"{config.test_clips * config.test_crops} per video",
        "device": started[-1]["device"],
        "minutes": f"{records[-1].seconds / 60:.1f}" if records else "",
        "made with": f"vmae {started[-1]['vmae']}, {started[-1]['time']}",
    }
    table([{"setting": name, "value": value} for name, value in rows.items()])


def _weights(folder: Path, config: FinetuneConfig) -> str:
    """What the run started from, and what those weights were trained for, where that is known."""
    if config.start_from is None:
        return (folder / "start.txt").read_text(encoding="utf-8").strip()
    kind = start_kind(folder)
    return f"{config.start_from}, {kind}" if kind else config.start_from


def _length(folder: Path, config: FinetuneConfig) -> str:
    """How long the run trained; one without lists of its videos says what it was asked to do."""
    optim = config.optim
    if (folder / "splits.csv").exists():
        return optim.in_words(training_videos(folder, config.labels_per_class))
    length = f"{optim.epochs:g} epochs" if optim.epochs else f"{optim.steps:,} steps"
    return f"{length} in batches of {optim.batch_size} videos"


def _advice(folder: Path, config: FinetuneConfig) -> list[str]:
    """What this run could do to learn more."""
    more = list(ADVICE)
    if config.frozen_layers:
        more.append(f"freeze fewer than {config.frozen_layers} of the {config.model.depth} layers")
    if not start_kind(folder).startswith("a classifier"):
        more.append("start from the weights of a classifier")
    return more


def training_curve(records: Sequence[Record], classes: int, advice: Sequence[str] = ADVICE) -> None:
    """The training loss beside that of guessing, from 0 on; if it is hardly any lower, says so with
    `advice`, of at least two things to do.

    The loss of equal probabilities is ln(classes), whether labels are hard, smoothed or mixed.
    """
    losses, guess = [record.loss for record in records], math.log(classes)
    lines(
        [record.step for record in records],
        {"training": losses},
        alt=f"Training loss over steps, from {losses[0]:.2f} to {losses[-1]:.2f}; guessing would give "
        f"ln({classes}) = {guess:.2f}.",
        xlabel="step",
        ylabel="training loss",
        levels={f"guessing: ln({classes}) = {guess:.2f}": guess},
        top=1.15 * max(*losses, guess),
    )
    if losses[-1] > LEARNED * guess:
        paragraph(
            f"The training loss has hardly fallen below that of guessing ({losses[-1]:.2f} of "
            f"{guess:.2f}): the model has learned next to nothing from these videos, and right "
            f"answers in a small test may be luck. What may help: {', '.join(advice[:-1])}, or "
            f"{advice[-1]}."
        )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }}
h2 {{ margin-top: 2.2rem; }}
img {{ max-width: 100%; height: auto; display: block; margin: 1rem 0; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; }}
caption {{ text-align: left; }}
</style></head><body>
<h1>{title}</h1>
{parts}
</body></html>
"""
