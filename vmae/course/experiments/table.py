"""The experiments, as data: which sets, which settings, and what the papers lead one to expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Steps of a pre-training run by set. Whether they reach the plateau is measured with the first seed:
#: twice as many should gain less than `PLATEAU` points.
STEPS = {"digits": 6000, "textures": 6000, "film": 4000, "film-16": 4000}
PLATEAU, PLATEAU_SEEDS = 2.0, (0,)
#: The rates that a search begins with (`search.tried`), and its seed, which no result uses.
RATES, SEARCH_SEED = (2e-3, 4e-3, 8e-3), 100

#: Results by set and key.
Results = Mapping[str, Mapping[str, Mapping[str, Any]]]

#: The base, as published as the size allows: the recipe cpu's model on grey clips with normalised
#: targets, V1's tube mask, every hidden token reconstructed.
BASE = {
    "model.channels": 1, "model.normalize_targets": True,
    "mask.mask_type": "tube", "mask.mask_ratio": 0.75,
    "mask.decoder_mask_type": "all", "mask.decoder_mask_ratio": 0.0,
    "data.cache": False, "device": "cpu", "precision": "fp32", "save_every": 500, "log_every": 50,
}  # fmt: skip

_PLAIN = {"model.normalize_targets": False}
_EVERY = {"mask.decoder_mask_type": "every"}
_SINGLE = {"model.tubelet": (1, 4, 4)}
_LARGE = {"model.decoder_embed_dim": 64, "model.decoder_depth": 4, "model.decoder_num_heads": 4}

#: Changes of the base.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "random": {"mask.mask_type": "random"},
    "frame": {"mask.mask_type": "frame"},
    "tube of 4": {"mask.tube_length": 4},
    "ratio 0.5": {"mask.mask_ratio": 0.5},
    "ratio 0.9": {"mask.mask_ratio": 0.9},
    "ratio 0.95": {"mask.mask_ratio": 0.95},
    "plain": _PLAIN,
    "every": _EVERY,
    "plain every": _PLAIN | _EVERY,
    "single": _SINGLE,
    "single plain": _SINGLE | _PLAIN,
    "single every": _SINGLE | _EVERY,
    "single plain every": _SINGLE | _PLAIN | _EVERY,
    "running cell": {"mask.decoder_mask_type": "running-cell", "mask.decoder_mask_ratio": 0.5},
    "decoder random": {"mask.decoder_mask_type": "random", "mask.decoder_mask_ratio": 0.5},
    "decoder frame": {"mask.decoder_mask_type": "frame", "mask.decoder_mask_ratio": 0.5},
    "half dropped": {
        "mask.mask_type": "random",
        "mask.decoder_mask_type": "drop-visible",
        "mask.decoder_mask_ratio": 0.5,
    },
    "two ratios": {
        "mask.mask_type": "random",
        "mask.mask_ratio": 0.6,
        "mask.decoder_mask_type": "independent",
        "mask.decoder_mask_ratio": 0.1,
    },
    "large decoder": _LARGE,
    "encoder sees all": {},
    "symmetric": _LARGE,
}
#: Variants whose encoder sees mask tokens, and those that train for as long as the base by the clock.
SEES_ALL = ("encoder sees all", "symmetric")
TIMED = ("large decoder", *SEES_ALL)


@dataclass(frozen=True)
class Claim:
    """That one setting beats another at a question, on one set."""

    better: str
    worse: str
    set: str
    question: str


@dataclass(frozen=True)
class Experiment:
    """One question, its sets and its settings.

    arms      {name in a figure: variant}; the first is the base
    extremes  arms that, like the base, have their learning rate searched and their plateau shown;
              the others use the base's rate
    copiers   whether what a copier gets for free is measured beside
    costs     whether accuracy is also shown over cost
    labels    numbers of labels per class (None: all) that the arms are fine-tuned on, instead of probed
    """

    title: str
    sets: tuple[str, ...]
    arms: dict[str, str]
    extremes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    seeds: int = 3
    copiers: bool = False
    costs: bool = False
    labels: tuple[int | None, ...] = ()
    base: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", next(iter(self.arms.values())))

    @property
    def searched(self) -> tuple[str, ...]:
        """The variants whose learning rate is searched."""
        return (self.base, *(self.arms[name] for name in self.extremes))


EXPERIMENTS: dict[str, Experiment] = {
    "masks": Experiment(
        "What does a mask teach?",
        ("digits", "textures", "film"),
        {"tube": "base", "random": "random", "frame": "frame", "tube of 4 frames": "tube of 4"},
        ("random", "frame"),
        (
            Claim("frame", "tube", "digits", "how"),
            Claim("tube", "frame", "digits", "what"),
            Claim("frame", "tube", "textures", "how"),
            Claim("tube", "frame", "film", "what"),
            Claim("tube", "random", "film", "what"),
        ),
        seeds=5,
        copiers=True,
    ),
    "dense": Experiment(
        "Does a tube pass random masks where frames are close together?",
        ("film-16",),
        {"tube": "base", "random": "random"},
        ("random",),
        (Claim("tube", "random", "film-16", "what"),),
        seeds=5,
        copiers=True,
    ),
    "ratio": Experiment(
        "How much should be hidden?",
        ("textures",),
        # Of the grid's 16 positions, 4, 8, 2 and 1 stay visible.
        {"75 %": "base", "50 %": "ratio 0.5", "90 %": "ratio 0.9", "95 %": "ratio 0.95"},
        ("50 %", "95 %"),
        (
            Claim("75 %", "50 %", "textures", "how"),
            Claim("90 %", "75 %", "textures", "how"),
            Claim("90 %", "95 %", "textures", "how"),
        ),
        copiers=True,
    ),
    "targets": Experiment(
        "Which targets, and a loss on which tokens?",
        ("textures",),
        {
            "normalised, hidden": "base",
            "plain, hidden": "plain",
            "normalised, all": "every",
            "plain, all": "plain every",
            "normalised, hidden, 1 frame": "single",
            "plain, hidden, 1 frame": "single plain",
            "normalised, all, 1 frame": "single every",
            "plain, all, 1 frame": "single plain every",
        },
        ("plain, all", "normalised, hidden, 1 frame", "plain, all, 1 frame"),
        (
            Claim("normalised, hidden", "plain, hidden", "textures", "how"),
            Claim("normalised, hidden", "normalised, all", "textures", "how"),
            Claim("normalised, hidden, 1 frame", "plain, hidden, 1 frame", "textures", "how"),
            Claim("normalised, hidden, 1 frame", "normalised, all, 1 frame", "textures", "how"),
        ),
    ),
    "decoder mask": Experiment(
        "Is half of the queries enough?",
        ("textures",),
        {
            "none": "base",
            "running cell": "running cell",
            "random": "decoder random",
            "frame": "decoder frame",
            # two misconceptions of it, both with random masks
            "half of visible dropped": "half dropped",
            "two ratios": "two ratios",
        },
        ("random",),
        (
            Claim("none", "running cell", "textures", "how"),
            Claim("running cell", "random", "textures", "how"),
            Claim("running cell", "frame", "textures", "how"),
            Claim("running cell", "half of visible dropped", "textures", "how"),
            Claim("running cell", "two ratios", "textures", "how"),
        ),
        costs=True,
    ),
    "labels": Experiment(
        "How many labels, and how many steps?",
        ("images", "videos"),
        {"pre-trained": "pre-trained", "from scratch": "from scratch"},
        claims=tuple(
            Claim("pre-trained", "from scratch", set_name, question)
            for set_name in ("images", "videos")
            for question in (
                "5 labels",
                "10 labels",
                "20 labels",
                "50 labels",
                "100 labels",
                "all labels",
            )
        ),
        labels=(5, 10, 20, 50, 100, None),
    ),
    "cost": Experiment(
        "Is asymmetry worth it, at equal time?",
        ("textures",),
        {
            "asymmetric": "base",
            "decoder as large": "large decoder",
            "encoder sees all": "encoder sees all",
            "symmetric": "symmetric",
        },
        ("decoder as large", "encoder sees all", "symmetric"),
        (
            Claim("asymmetric", "decoder as large", "textures", "how"),
            Claim("asymmetric", "encoder sees all", "textures", "how"),
            Claim("asymmetric", "symmetric", "textures", "how"),
        ),
        costs=True,
    ),
}
