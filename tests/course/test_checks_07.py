"""The checks of notebook 07: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from answers import assert_rejected, right_answers, wrong_answers
from conftest import random_clips, randomize
from styles_07 import RIGHT
from torch import nn

from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_07 as right
from vmae.data import mix
from vmae.layers import DropPath
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


def test_the_package_classifies_the_same(tiny):
    torch.manual_seed(0)
    package = randomize(VisionTransformer(tiny, 5)).eval()
    ours = right.Classifier(tiny, 5)
    ours.load_state_dict(package.state_dict())
    clips = random_clips(tiny, 3)
    with torch.no_grad():
        torch.testing.assert_close(ours(clips), package(clips), rtol=1e-5, atol=1e-5)


def test_the_package_drops_branches_alike():
    torch.manual_seed(0)
    ones = torch.ones(40_000, 1, 1)
    ours, package = right.drop_path(ones, 0.25, True), DropPath(0.25)(ones)
    assert set(ours.unique().tolist()) == set(package.unique().tolist())
    assert ours.mean().item() == pytest.approx(package.mean().item(), abs=0.02)


def test_layer_decay_slows_the_early_layers_of_the_loop(tiny):
    batch = random_clips(tiny, 6).float() / 255, torch.full((6, 5), 0.2)
    ways = {}
    for decay in (1.0, 0.3):
        torch.manual_seed(0)
        model = right.Classifier(tiny, 5)
        before = model.patch_embed.proj.weight.detach().clone()
        right.fine_tune(model, [batch] * 5, 5, decay=decay)
        ways[decay] = (model.patch_embed.proj.weight - before).abs().mean().item()
    assert ways[0.3] < 0.1 * ways[1.0]


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


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def everything_but_the_prefix(classifier, file):
    return {x.removeprefix("encoder."): x for x in file if x.startswith("encoder.")}


def with_the_old_head(classifier, file):
    found = right.transfer(classifier, file)
    return found | {x: x for x in file if x.startswith("head.")}


def only_the_names(classifier, file):
    return [name for name in classifier if f"encoder.{name}" in file]


def norm_as_a_layer(name, depth, decay):
    return decay if name.startswith("fc_norm") else right.rate_scale(name, depth, decay)


def embedding_as_a_block(name, depth, decay):
    if name.startswith("patch_embed"):
        return decay**depth
    return right.rate_scale(name, depth, decay)


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


def mixed_with_the_previous(clips, labels, classes, share, smoothing):
    soft = F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    mixed = share * clips + (1 - share) * clips.roll(1, 0)
    return mixed, share * soft + (1 - share) * soft.roll(1, 0)


def undivided(clips, labels, classes, share, smoothing):
    soft = F.one_hot(labels, classes) * (1 - smoothing) + smoothing
    return share * clips + (1 - share) * clips.flip(0), share * soft + (1 - share) * soft.flip(0)


def by_appearance(logits, videos):
    shares = logits.softmax(1)
    return torch.stack([shares[videos == v].mean(0) for v in dict.fromkeys(videos.tolist())])


def best_logits(logits, videos):
    return torch.stack([logits[videos == v].mean(0) for v in videos.unique()])


def over_all(logits, videos):
    return logits.softmax(1).mean(0)


class OnTheFirstToken(right.Classifier):
    def forward(self, clips):
        return self.head(self.fc_norm(self.encoded(self.embedded(clips))[:, 0]))


class WithSoftmax(right.Classifier):
    def forward(self, clips):
        return F.softmax(self.head(self.pooled(self.encoded(self.embedded(clips)))), dim=1)


class WithLastNorm(right.Classifier):
    def __init__(self, config, num_classes):
        super().__init__(config, num_classes)
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)

    def forward(self, clips):
        return self.head(self.fc_norm(self.norm(self.encoded(self.embedded(clips))).mean(1)))


class Renamed(right.EncoderParts):
    def __init__(self, config, num_classes):
        super().__init__(config)
        self.fc_norm = nn.LayerNorm(config.embed_dim)
        self.fc = nn.Linear(config.embed_dim, num_classes)


class OverTheWidth(right.Classifier):
    def forward(self, clips):
        return self.head(self.fc_norm(self.encoded(self.embedded(clips)).mean(-1)))


class UnscaledHead(right.Classifier):
    def __init__(self, config, num_classes):
        super().__init__(config, num_classes)
        self.head = nn.Linear(config.embed_dim, num_classes)


class UnscaledBias(UnscaledHead):
    def __init__(self, config, num_classes):
        super().__init__(config, num_classes)
        self.head.weight.data.mul_(0.001)


class LostOutput(right.Classifier):
    def forward(self, clips):
        x = self.patch_embed(right.patchify(clips, self.grid)) + self.pos_embed
        for block in self.blocks:
            block(x)
        return self.head(self.fc_norm(x.mean(1)))


class LostPositions(right.Classifier):
    def forward(self, clips):
        x = self.patch_embed(right.patchify(clips, self.grid))
        for block in self.blocks:
            x = block(x)
        return self.head(self.fc_norm(x.mean(1)))


class ClipsAsTokens(right.Classifier):
    def forward(self, clips):
        return self.head(self.fc_norm(self.encoded(self.patch_embed(clips)).mean(1)))


class DefaultEps(right.Classifier):
    def __init__(self, config, num_classes):
        super().__init__(config, num_classes)
        self.fc_norm = nn.LayerNorm(config.embed_dim)


def looped(body, rise=True, fall=True, clip=True):
    """A loop that sets its learning rates with `body(optimizer, rate of this step)`."""

    def loop(model, batches, steps, lr=1e-3, decay=1.0):
        groups = [
            {
                "params": [p],
                "scale": right.rate_scale(name, len(model.blocks), decay),
                "weight_decay": 0.05 * (p.ndim > 1),
            }
            for name, p in model.named_parameters()
        ]
        optimizer = torch.optim.AdamW(groups, lr=lr)
        losses = []
        for step, (clips, targets) in zip(range(steps), batches, strict=False):
            now = lr * min(1.0, (step + 1) / (0.1 * steps)) if rise else lr
            if fall:
                now *= 0.5 * (1 + math.cos(math.pi * step / steps))
            body(optimizer, now)
            loss = F.cross_entropy(model(clips), targets)
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        return losses

    return loop


def scaled(optimizer, now):
    for group in optimizer.param_groups:
        group["lr"] = now * group["scale"]


def constant(optimizer, now):
    for group in optimizer.param_groups:
        group["lr"] = 2e-3 * group["scale"]


def planted(optimizer, now):
    for group in optimizer.param_groups:
        group["lr"] = now


def divided(optimizer, now):
    for group in optimizer.param_groups:
        group["lr"] = now / group["scale"]


def cumulative(optimizer, now):
    for group in optimizer.param_groups:
        group["done"] = group.get("done", 1.0) * group["scale"]
        group["lr"] = now * group["done"]


def scheduled_in_place(optimizer, now):
    for group in optimizer.param_groups:
        if "begun" not in group:  # as the lines before the loop set it
            group["lr"] = 2e-3 * group["scale"]
        group["begun"] = True
        group["lr"] *= now


def scaled_in_place(optimizer, now):
    for group in optimizer.param_groups:
        if "begun" not in group:
            group["lr"] = 2e-3 * group["scale"]
        group["begun"] = True
        group["lr"] *= group["scale"]


def without_lr(model, batches, steps, lr=1e-3, decay=1.0):
    return right.fine_tune(model, batches, steps, decay=decay)


def moved_afterwards(model, *arguments, **options):
    losses = right.fine_tune(model, *arguments, **options)
    with torch.no_grad():
        model.patch_embed.proj.weight.add_(0.1)
    return losses


def no_losses(*arguments, **options):
    right.fine_tune(*arguments, **options)


def dropout(branch, rate, training):
    return F.dropout(branch, rate, training)


def kept_with_rate(branch, rate, training):
    if not training:
        return branch
    return branch * torch.bernoulli(torch.full((len(branch), 1, 1), rate)) / (1 - rate)


def unscaled(branch, rate, training):
    if not training:
        return branch
    return branch * (torch.rand(len(branch), 1, 1) > rate)


def all_or_none(branch, rate, training):
    if training and torch.rand(()) < rate:
        return torch.zeros_like(branch)
    return branch / (1 - rate) if training else branch


def only_scaled(branch, rate, training):
    return branch / (1 - rate) if training else branch


def drops_in_the_test(branch, rate, training):
    return branch * (torch.rand(len(branch), 1, 1) >= rate) / (1 - rate)


def scaled_in_the_test(branch, rate, training):
    if not training:
        return branch * (1 - rate)
    return branch * (torch.rand(len(branch), 1, 1) >= rate)


@wrong_answers(
    {
        "transfer": [
            (only_the_names, "return a dictionary"),
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
            (norm_as_a_layer, "fc_norm is treated as a layer of its own"),
            (embedding_as_a_block, "the patch embedding gets the scale of block 0"),
        ],
        "mix_batch": [
            (not_smoothed, "the labels are not smoothed"),
            (in_place, "it modifies its arguments"),
            (only_the_clips, "got 1 value; expected 2 values"),
            (mixed_with_the_previous, "mixed with the one before"),
            (undivided, "divide it by the number of classes"),
        ],
        "Classifier": [
            (OnTheFirstToken, "only the first token is classified"),
            (WithSoftmax, "return the logits"),
            (WithLastNorm, "`norm.weight` is not on the card"),
            (Renamed, "`fc` must be called `head`"),
            (OverTheWidth, "the mean is taken over the width"),
            (UnscaledHead, "the head's initial weights are too large"),
            (UnscaledBias, "the head's initial bias is too large"),
            (DefaultEps, "fc_norm has eps=1e-05"),
            (LostOutput, "the blocks are not used"),
            (LostPositions, "the positions are not used"),
            (ClipsAsTokens, "shape"),
        ],
        "fine_tune": [
            (looped(planted), "every layer moves at the head's rate"),
            (looped(scheduled_in_place), "multiplied by the schedule's in every step"),
            (looped(scaled_in_place), "the scale is multiplied in at every step, and the schedule"),
            (looped(divided), "do not divide"),
            (looped(cumulative), "multiplied in at every step"),
            (no_losses, "the losses: there is none"),
            (lambda m, b, steps, **k: right.fine_tune(m, b, 3, **k), "got 3 values; expected 12"),
            (looped(constant), "warm-up and cosine are lost"),
            (looped(scaled, rise=False), "the warm-up is missing"),
            (looped(scaled, fall=False), "the cosine is missing"),
            (looped(scaled, clip=False), "gradients are not clipped"),
            (without_lr, "`lr` is ignored"),
            (moved_afterwards, "how far layer 0 moves, in % of the head: got"),
        ],
        "drop_path": [
            (dropout, "numbers are dropped one by one"),
            (kept_with_rate, "kept with probability `rate`"),
            (unscaled, "are not scaled, so the mean shrinks"),
            (all_or_none, "kept or dropped together"),
            (drops_in_the_test, "dropped in the test, too"),
            (scaled_in_the_test, "scaled in the test"),
            (lambda x, rate, training: x, "no branch is ever dropped"),
            (only_scaled, "no branch is ever dropped"),
            (lambda x, rate, training: None, "result is None"),
        ],
        "mean_over_views": [
            (best_logits, "the logits are averaged"),
            (by_appearance, "in which the videos first appear"),
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
