"""The checks of notebook 07: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from answers import assert_rejected, right_answers, wrong_answers
from conftest import random_clips, randomize

from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_07 as right
from vmae.data import mix
from vmae.mae import MaskedAutoencoder
from vmae.train import OptimConfig, mean_of_views, parameter_groups
from vmae.vit import VisionTransformer

ALL = exercises("07")

pytestmark = pytest.mark.usefixtures("drawn")


# ---- the exercises themselves --------------------------------------------------------------------


def test_the_package_loads_the_same_tensors(tiny):
    autoencoder = randomize(MaskedAutoencoder(tiny))
    torch.manual_seed(0)
    package = VisionTransformer(tiny, 5)
    file, fresh = autoencoder.state_dict(), {k: p.clone() for k, p in package.state_dict().items()}
    package.load_encoder(autoencoder.encoder)
    kept = right.transfer(list(fresh), list(file))
    assert fresh.keys() - kept.keys() == {
        "fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"
    }  # fmt: skip
    ours = VisionTransformer(tiny, 5)
    ours.load_state_dict(fresh | {own: file[theirs] for own, theirs in kept.items()})
    clips = random_clips(tiny, 2)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(clips), package.eval()(clips), rtol=0, atol=0)


@pytest.mark.parametrize("decay", [0.75, 0.9])
def test_the_package_gives_the_same_learning_rates(tiny, decay):
    model = VisionTransformer(tiny, 5)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, OptimConfig(layer_decay=decay), tiny.depth)
    found = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    expected = {name: right.rate_scale(name, tiny.depth, decay) for name in found}
    assert found == pytest.approx(expected) and len(found) == len(names)


def test_the_package_applies_the_same_mixup(tiny):
    clips = random_clips(tiny, 4).float() / 255
    labels, logits = torch.tensor([0, 3, 1, 2]), torch.randn(4, 5)
    hard = F.one_hot(labels, 5).float()
    theirs, drawn = mix(clips, hard, mixup=0.8, cutmix=0.0, generator=torch.Generator())
    share = drawn[0, 0].item()
    ours, smooth = right.mix_batch(clips, labels, 5, share, 0.1)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        F.cross_entropy(logits, smooth), F.cross_entropy(logits, drawn, label_smoothing=0.1)
    )


def test_the_package_averages_views_the_same_way():
    logits = torch.randn(6, 5, 8)
    ours = right.mean_over_views(logits.flatten(0, 1), torch.arange(6).repeat_interleave(5))
    torch.testing.assert_close(ours.log(), mean_of_views(logits))


# ---- right answers in other styles ---------------------------------------------------------------


def transfer_from_the_file(classifier, file):
    found = {}
    for theirs in file:
        own = theirs.removeprefix("encoder.")
        if theirs.startswith("encoder.") and own in classifier:
            found[own] = theirs
    return found


def transfer_by_part(classifier, file):
    kept = [x for x in classifier if x.split(".")[0] in ("patch_embed", "blocks")]
    return {x: "encoder." + x for x in kept}


def rate_by_table(name, depth, decay):
    part, _, rest = name.partition(".")
    layer = {"patch_embed": 0, "blocks": rest.split(".")[0]}.get(part, depth)
    scales = [decay**k for k in range(depth + 1, -1, -1)]
    return scales[int(layer) + (part != "patch_embed")]


def mixed_by_loop(clips, labels, classes, share, smoothing):
    out, targets = torch.empty_like(clips), torch.full((len(labels), classes), smoothing / classes)
    for i, label in enumerate(labels):
        j = len(labels) - 1 - i
        out[i] = torch.lerp(clips[j], clips[i], share)
        targets[i, label] += share * (1 - smoothing)
        targets[i, labels[j]] += (1 - share) * (1 - smoothing)
    return out, targets


def views_by_index(logits, videos):
    total = torch.zeros(int(videos.max()) + 1, logits.shape[1])
    total.index_add_(0, videos, F.softmax(logits, dim=-1))
    return total / torch.bincount(videos)[:, None]


def views_by_matrix(logits, videos):
    whose = F.one_hot(videos).float()  # (views, videos)
    return (whose / whose.sum(0)).T @ logits.softmax(-1)


@right_answers(
    {
        "transfer": [transfer_from_the_file, transfer_by_part],
        "rate_scale": [rate_by_table],
        "mix_batch": [mixed_by_loop],
        "mean_over_views": [views_by_index, views_by_matrix],
    }
)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[f"07.{name}"], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def everything_but_the_prefix(classifier, file):
    return {x.removeprefix("encoder."): x for x in file if x.startswith("encoder.")}


def with_the_old_head(classifier, file):
    found = right.transfer(classifier, file)
    return found | {x: x for x in file if x.startswith("head.")}


def one_rate(name, depth, decay):
    return 1.0


def without_the_embedding(name, depth, decay):
    layer = int(name.split(".")[1]) + 1 if name.startswith("blocks") else depth + 1
    return decay ** (depth + 1 - layer)


def text_for_number(name, depth, decay):
    return decay ** (depth - name.split(".")[1])


def in_place(clips, labels, classes, share, smoothing):
    targets = right.mix_batch(clips, labels, classes, share, smoothing)[1]
    other = clips.flip(0)
    return clips.mul_(share).add_((1 - share) * other), targets


def not_smoothed(clips, labels, classes, share, smoothing):
    hard = F.one_hot(labels, classes).float()
    return share * clips + (1 - share) * clips.flip(0), share * hard + (1 - share) * hard.flip(0)


def only_the_clips(clips, labels, classes, share, smoothing):
    return share * clips + (1 - share) * clips.flip(0)


def best_logits(logits, videos):
    return torch.stack([logits[videos == v].mean(0) for v in videos.unique()])


def over_all(logits, videos):
    return logits.softmax(1).mean(0)


@wrong_answers(
    {
        "transfer": [
            (everything_but_the_prefix, "tensors that the classifier does not have"),
            (with_the_old_head, "the file's head is loaded"),
            (
                lambda own, file: {x: x for x in own if x in file},
                "the file's head is loaded|nothing is transferred",
            ),
        ],
        "rate_scale": [
            (without_the_embedding, "patch embedding gets the full learning rate"),
            (one_rate, "patch embedding gets the full learning rate"),
            (text_for_number, "TypeError"),
        ],
        "mix_batch": [
            (not_smoothed, "the labels are not smoothed"),
            (in_place, "it modifies its arguments"),
            (only_the_clips, "got 1 value; expected 2 values"),
        ],
        "mean_over_views": [
            (best_logits, "the logits are averaged"),
            (over_all, r"the shape is \(5,\)"),
            (lambda x, v: right.mean_over_views(x, v).log(), "values are wrong"),
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"07.{name}"], answer, words)


def test_a_wrong_mix_is_drawn_too(drawn):
    verdict(ALL["07.mix_batch"], not_smoothed)
    assert len(drawn) == 1
