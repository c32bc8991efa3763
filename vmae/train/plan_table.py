"""The plan of a recipe as a table, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmae.cost.hardware import Hardware
from vmae.support.text import rate
from vmae.train.config import RunConfig
from vmae.train.plan import Clips, StagePlan, clips_of, planned, precision_on
from vmae.train.recipe import Recipe

#: The parts of a recipe, and what they are called in the table.
STAGES = {"pretrain": "pre-training", "finetune": "fine-tuning"}


def plan_table(
    recipe: Recipe,
    device: Hardware,
    videos: int | None = None,
    parts: Sequence[str] = tuple(STAGES),
) -> list[dict[str, str]]:
    """The plan of a recipe as a table: a row per quantity, a column for each of the `parts`.

    videos   as in `clips_of`
    """
    stages: dict[str, tuple[RunConfig, StagePlan]] = {}
    sets: dict[RunConfig, Clips] = {}
    for part in parts:
        name, config = STAGES[part], getattr(recipe, part)
        sets[config] = clips_of(config, videos)
        stages[name] = config, planned(config, device, sets[config])

    def row(quantity: str, value: Any) -> dict[str, str]:
        return {"": quantity} | {name: value(*stage) for name, stage in stages.items()}

    def clips_per_second(_: RunConfig, plan: StagePlan) -> str:
        return rate(plan.clips / (plan.seconds - plan.testing - plan.starting))

    def decoding(config: RunConfig, plan: StagePlan) -> str:
        if config.data.cache:
            return "none: the frames are stored"
        return "not known before the videos are there" if plan.cores is None else f"{plan.cores}"

    def stored(config: RunConfig, _: StagePlan) -> str:
        size = sets[config].stored
        if not config.data.cache:
            return "none"
        return "not known before the videos are there" if size is None else f"{size / 1e9:.1f} GB"

    def fits(_: RunConfig, plan: StagePlan) -> str:
        text = f"{plan.memory / 1e9:.1f} of {device.memory / 1e9:.0f} GB"
        return text if plan.memory < 0.9 * device.memory else f"{text}: does not fit"

    return [
        row("precision", lambda c, _: precision_on(c, device)),
        row("steps", lambda _, p: f"{p.steps:,}"),
        row("clips", lambda _, p: f"{p.clips:,}"),
        row("tokens per clip", lambda _, p: p.tokens),
        row("multiply-adds per clip", lambda _, p: f"{p.multiply_adds / 1e9:,.2f} billion"),
        row("clips per second", clips_per_second),
        row("minutes", lambda _, p: f"{p.seconds / 60:,.1f}"),
        row("limited by", lambda _, p: p.limit),
        row("memory", fits),
        row("cores for decoding", decoding),
        row("store on disk", stored),
    ]
