"""An experiment of a few steps: `python small_experiment.py RESULTS WORK` measures it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from vmae.course.experiments import measure, results, sets, table
from vmae.course.experiments.table import Claim, Experiment

NAME, STEPS = "small", 12


def shrink() -> None:
    """Add the experiment "small", and make every run small."""
    table.EXPERIMENTS[NAME] = Experiment(
        "Which is better?",
        ("digits",),
        {"tube": "base", "random": "random", "frame": "frame"},
        ("frame",),
        (Claim("frame", "tube", "digits", "how"), Claim("tube", "frame", "digits", "what")),
        seeds=2,
        copiers=True,
    )
    table.RATES = (1e-3, 2e-3)
    table.STEPS["digits"] = STEPS
    table.BASE.update({"optim.batch_size": 8, "save_every": 2, "log_every": 1})
    measure.make_set = partial(sets.make_set, unlabelled=64, train=80, test=40)
    measure.WAIT = 0.1


if __name__ == "__main__":
    shrink()
    results.FOLDER = Path(sys.argv[1])
    measure.measure([NAME], None, Path(sys.argv[2]))
