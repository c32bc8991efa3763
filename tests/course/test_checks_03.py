"""The checks of notebook 03: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from answers import assert_rejected, right_answers, wrong_answers
from sklearn.preprocessing import StandardScaler
from styles_03 import RIGHT, MAEByScatter, load_by_splitting, rates_by_numpy

from vmae.config import ModelConfig
from vmae.course.checks import exercises, notebook_02, verdict
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


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


def test_lesson_02s_model_passes_too():
    assert verdict(ALL["03.MAE"], notebook_02.MAE) is None


def test_the_loop_overfits_a_few_images():
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 2, "embed_dim": 32, "depth": 1, "num_heads": 2}
    sizes |= {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2}
    model, images = right.MAE(**sizes), torch.randn(2, 3, 1, 1).expand(-1, -1, 8, 8)
    optimizer = torch.optim.AdamW(model.parameters())
    g = torch.Generator().manual_seed(0)
    losses = right.pretrain(model, images, optimizer, [3e-3] * 60, 8, 0.75, g)
    assert len(losses) == 60 and losses[-1] < 0.1 * losses[0]


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def one_method(
    loss="hidden", positions="before", restore="inverse", norm=True, assigned=True, kept=None
):
    """The model in one method, with a slip."""

    class Slip(notebook_02.MAEParts):
        def forward(self, images, noise, ratio=0.75):
            batch, n = noise.shape
            order = noise.argsort(1)
            keep = (kept or (lambda n, ratio: int(n * (1 - ratio))))(n, ratio)
            ids = order if restore == "shuffle" else order.argsort(1)
            rows = torch.arange(batch)[:, None]
            x = self.embed(images)
            if positions == "before":
                x = (x + self.pos_embed[:, 1:])[rows, order[:, :keep]]
            else:
                x = x[rows, order[:, :keep]] + self.pos_embed[:, 1 : 1 + keep]
            cls = self.cls_token + self.pos_embed[:, :1]
            x = torch.cat([cls.expand(batch, -1, -1), x], 1)
            for block in self.blocks:
                x = block(x) if assigned else (block(x), x)[1]
            x = self.decoder_embed(self.norm(x) if norm else x)
            full = torch.cat([x[:, 1:], self.mask_token.expand(batch, n - keep, -1)], 1)
            full = full[rows, ids] if restore != "none" else full
            x = torch.cat([x[:, :1], full], 1) + self.decoder_pos_embed
            for block in self.decoder_blocks:
                x = block(x)
            predicted = self.decoder_pred(self.decoder_norm(x))[:, 1:]
            hidden = (order if restore == "hidden by shuffle" else ids) >= keep
            target = self.patchify(images)
            if loss == "absolute":
                return (predicted - target)[hidden].abs().mean(), predicted, hidden
            chosen = {"hidden": hidden, "all": hidden | True, "visible": ~hidden}[loss]
            return ((predicted - target) ** 2)[chosen].mean(), predicted, hidden

    return Slip


class NoRatio(MAEByScatter):
    def forward(self, images, noise, ratio=0.75):
        return super().forward(images, noise)


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


def one_step_too_long(steps, warmup, base, batch):
    rates = rates_by_numpy(steps, warmup, base, batch)
    return [*rates[:warmup], base * batch / 256 * (warmup + 1) / warmup, *rates[warmup + 1 :]]


def quarter_cosine(steps, warmup, base, batch):
    fall = np.cos(np.linspace(0, np.pi / 2, steps - warmup, endpoint=False))
    rise = [(k + 1) / warmup for k in range(warmup)]
    return [base * batch / 256 * float(x) for x in [*rise, *fall]]


def as_array(steps, warmup, base, batch):
    return np.array(rates_by_numpy(steps, warmup, base, batch))


def no_pi(steps, warmup, base, batch):
    after = [0.5 * (1 + np.cos(k / (steps - warmup))) for k in range(steps - warmup)]
    return [base * batch / 256 * x for x in [(k + 1) / warmup for k in range(warmup)] + after]


def to_the_last_step(steps, warmup, base, batch):
    rise = [(k + 1) / warmup for k in range(warmup)]
    fall = 0.5 * (1 + np.cos(np.linspace(0, np.pi, steps - warmup)))
    return [base * batch / 256 * float(x) for x in [*rise, *fall]]


def no_norms_by_name(shapes, exempt):
    return [name for name in shapes if "bias" not in name]


def two_axes(shapes, exempt):
    return [name for name, shape in shapes.items() if len(shape) == 2 and name not in exempt]


def no_tokens_rule(shapes, exempt):
    return [name for name, shape in shapes.items() if len(shape) != 1]


def never_a_token(shapes, exempt):
    """The first edition's right answer."""
    tokens = ("mask_token", "cls_token")
    return [n for n, shape in shapes.items() if len(shape) > 1 and not n.endswith(tokens)]


def without_zero(model, images, optimizer, rates, batch, ratio, generator):
    losses = []
    for lr in rates:
        index = torch.randint(len(images), (batch,), generator=generator)
        loss, _, _ = model(images[index], torch.rand(batch, 16, generator=generator), ratio)
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = lr
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def mask_before_the_loop(model, images, optimizer, rates, batch, ratio, generator):
    noise, losses = torch.rand(batch, model.grid.num_tokens, generator=generator), []
    for lr in rates:
        index = torch.randint(len(images), (batch,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, _, _ = model(images[index], noise, ratio)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def global_generator(model, images, optimizer, rates, batch, ratio, generator):
    losses = []
    for lr in rates:
        index = torch.randint(0, len(images), (batch,))
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, _, _ = model(images[index], torch.rand(batch, 16), ratio)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def the_whole_result(model, images, optimizer, rates, batch, ratio, generator):
    for _ in rates:
        loss = model(images[:batch], torch.rand(batch, 16, generator=generator), ratio)
        loss.backward()


def all_images(model, images, optimizer, rates, batch, ratio, generator):
    losses = []
    for lr in rates:
        noise = torch.rand(len(images), 16, generator=generator)
        loss, _, _ = model(images, noise, ratio)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return losses


def the_colleagues(encoder, checkpoint):
    """The program that the learner gets."""
    own = encoder.state_dict()
    weights = {name: x.reshape(own[name].shape) for name, x in checkpoint.items() if name in own}
    encoder.load_state_dict(weights, strict=False)
    return encoder


def only_what_fits(encoder, checkpoint):
    own = encoder.state_dict()
    short = {name.removeprefix("module."): x for name, x in checkpoint.items()}
    same = {n: x for n, x in short.items() if n in own and x.shape == own[n].shape}
    encoder.load_state_dict(same, strict=False)
    return encoder


def no_return(encoder, checkpoint):
    load_by_splitting(encoder, checkpoint)


def strictly(encoder, checkpoint):
    encoder.load_state_dict({n.removeprefix("module."): x for n, x in checkpoint.items()})
    return encoder


def only_blocks(encoder, checkpoint):
    blocks = {n[7:]: x for n, x in checkpoint.items() if n.startswith("module.blocks")}
    encoder.load_state_dict(blocks, strict=False)
    return encoder


def own_statistics(train, test):
    return tuple(StandardScaler().fit_transform(x) for x in (train, test))


def own_statistics_torch(train, test):
    return tuple((x - x.mean(0)) / x.std(0, correction=0) for x in (train, test))


def own_statistics_and_default(train, test):
    return tuple((x - x.mean(0)) / x.std(0) for x in (train, test))


def joint(train, test):
    both = torch.cat([train, test])
    return tuple((x - both.mean(0)) / both.std(0, correction=0) for x in (train, test))


def unbiased(train, test):
    return tuple((x - train.mean(0)) / train.std(0) for x in (train, test))


@wrong_answers(
    {
        "MAE": [
            (one_method("all"), "the loss also includes the visible patches"),
            (one_method("visible"), "the loss includes only the visible patches"),
            (one_method(positions="after"), "the positions are added after masking"),
            (one_method(restore="none"), "the order is not restored"),
            (one_method(restore="shuffle"), "ids_restore is the shuffle itself"),
            (one_method(restore="hidden by shuffle"), "compares the patch numbers"),
            (one_method("absolute"), "the loss is the mean absolute error"),
            (one_method(assigned=False), "what the encoder's blocks return is lost"),
            (
                one_method(kept=lambda n, ratio: int(n * ratio)),
                r"ratio` is the share that is hidden",
            ),
            (
                one_method(kept=lambda n, ratio: max(1, int(n * (1 - ratio)))),
                "with a ratio of 1, a patch is still visible",
            ),
            (one_method(norm=False), "self.norm is missing"),
            (NoRatio, "`ratio` is ignored"),
        ],
        "pretrain": [
            (without_zero, "the gradients of all steps add up"),
            (mask_before_the_loop, "every step uses the same masks"),
            (global_generator, "pass `generator=generator` to whatever draws the images"),
            (the_whole_result, "'tuple' object has no attribute 'backward'"),
            (all_images, r"images of shape \(50, 3, 8, 8\); expected \(7, 3, 8, 8\)"),
        ],
        "load_encoder": [
            (the_colleagues, "no weight is loaded.* how many names"),
            (only_what_fits, "the patch embedding stays random"),
            (no_return, "is the `return` missing"),
            (strictly, "it raises RuntimeError"),
            (only_blocks, "only the blocks are loaded"),
        ],
        "learning_rates": [
            (as_array, "return a list"),
            (no_pi, "the cosine has no pi"),
            (to_the_last_step, "the cosine reaches 0 at the last step"),
            (not_scaled, "the base learning rate is not scaled"),
            (zero_first, "the learning rate is 0 at step 0"),
            (straight, "the learning rate falls linearly"),
            (one_step_too_long, "the warm-up is one step too long"),
            (quarter_cosine, "a quarter of a cosine"),
            (too_short, "got 99 values; expected 100 values"),
        ],
        "decayed": [
            (no_norms_by_name, "weight decay is applied to the norm weights"),
            (two_axes, "convolution is excluded.* four axes, or five"),
            (no_tokens_rule, "weight decay is applied to the mask token although"),
            (never_a_token, "the mask token and the class token are always excluded"),
            (lambda shapes, exempt: list(shapes), "weight decay is applied to every parameter"),
        ],
        "standardize_features": [
            (own_statistics, "ndarray; expected Tensor"),
            (own_statistics_torch, "their own statistics"),
            (own_statistics_and_default, "their own statistics.* divide by n instead"),
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
