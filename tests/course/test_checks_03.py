"""The checks of notebook 03: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from sklearn.preprocessing import StandardScaler

from vmae.config import ModelConfig
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_03 as right
from vmae.mae import MaskedAutoencoder
from vmae.train import OptimConfig, parameter_groups

ALL = exercises("03")

pytestmark = pytest.mark.usefixtures("drawn")


@pytest.mark.parametrize("family", ["mae", "videomae"])
def test_the_package_decays_the_same_parameters(family):
    config = ModelConfig.mae("tiny", img_size=32, tubelet=(1, 8, 8))
    if family == "videomae":
        config = ModelConfig.videomae("tiny")
    model = MaskedAutoencoder(config)
    groups = parameter_groups(model, OptimConfig(weight_decay=0.05))
    kept = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    names = [name for name, p in model.named_parameters() if id(p) in kept]
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert right.decayed(shapes, model.no_weight_decay()) == names


# ---- right answers in other styles ---------------------------------------------------------------


def rates_by_numpy(steps, warmup, base, batch):
    rise = np.arange(1, warmup + 1) / warmup
    fall = (1 + np.cos(np.pi * np.arange(steps - warmup) / (steps - warmup))) / 2
    return list(np.concatenate((rise, fall)) * base * batch / 256)


def rates_by_half_angle(steps, warmup, base, batch):
    found = []
    for step in range(steps):
        share = (step + 1) / warmup
        if step >= warmup:
            share = math.cos(math.pi / 2 * (step - warmup) / (steps - warmup)) ** 2
        found.append(share * base * batch / 256)
    return found


def decayed_by_loop(shapes, exempt):
    names = []
    for name in shapes:
        if len(shapes[name]) == 1 or name in exempt:
            continue
        names.append(name)
    return names


def features_by_sklearn(train, test):
    scaler = StandardScaler().fit(train)
    return tuple(torch.from_numpy(scaler.transform(x)).float() for x in (train, test))


@right_answers(
    {
        "learning_rates": [rates_by_numpy, rates_by_half_angle],
        "decayed": [decayed_by_loop],
        "standardize_features": [features_by_sklearn],
    }
)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[f"03.{name}"], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def not_scaled(steps, warmup, base, batch):
    return [rate * 256 / batch for rate in rates_by_numpy(steps, warmup, base, batch)]


def zero_first(steps, warmup, base, batch):
    rates = rates_by_numpy(steps, warmup, base, batch)
    return [0.0, *rates[: warmup - 1], *rates[warmup:]]


def straight(steps, warmup, base, batch):
    highest = base * batch / 256
    return [highest * min((k + 1) / warmup, (steps - k) / (steps - warmup)) for k in range(steps)]


def too_short(steps, warmup, base, batch):
    return rates_by_numpy(steps, warmup, base, batch)[1:]


def no_norms_by_name(shapes, exempt):
    return [name for name in shapes if "bias" not in name]


def no_tokens_rule(shapes, exempt):
    return [name for name, shape in shapes.items() if len(shape) != 1]


def never_a_token(shapes, exempt):
    """The first edition's right answer."""
    tokens = ("mask_token", "cls_token")
    return [n for n, shape in shapes.items() if len(shape) > 1 and not n.endswith(tokens)]


def own_statistics(train, test):
    return tuple(StandardScaler().fit_transform(x) for x in (train, test))


def own_statistics_torch(train, test):
    return tuple((x - x.mean(0)) / x.std(0, correction=0) for x in (train, test))


def joint(train, test):
    both = torch.cat([train, test])
    return tuple((x - both.mean(0)) / both.std(0, correction=0) for x in (train, test))


def unbiased(train, test):
    return tuple((x - train.mean(0)) / train.std(0) for x in (train, test))


@wrong_answers(
    {
        "learning_rates": [
            (not_scaled, "the base learning rate is not scaled"),
            (zero_first, "the learning rate is 0 at step 0"),
            (straight, "the learning rate falls linearly"),
            (too_short, "got 99 values; expected 100 values"),
        ],
        "decayed": [
            (no_norms_by_name, "weight decay is applied to the norm weights"),
            (no_tokens_rule, "weight decay is applied to the mask token although"),
            (never_a_token, "the mask token and the class token are always excluded"),
            (lambda shapes, exempt: list(shapes), "weight decay is applied to every parameter"),
        ],
        "standardize_features": [
            (own_statistics, "ndarray; expected Tensor"),
            (own_statistics_torch, "their own statistics"),
            (joint, "training and test features together"),
            (unbiased, "is computed with n - 1"),
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"03.{name}"], answer, words)


def test_wrong_features_are_drawn_too(drawn):
    verdict(ALL["03.standardize_features"], joint)
    assert len(drawn) == 1
