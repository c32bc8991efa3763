"""Exercises of notebook 03: an MAE in one method, its pre-training, features, a checkpoint's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from vmae import ROOT
from vmae.config import ModelConfig
from vmae.course import viz
from vmae.course.checks import notebook_02 as lesson_02
from vmae.course.checks.core import Exercise
from vmae.course.checks.drawings import as_colours
from vmae.course.checks.modules import ModuleCase, module_exercise
from vmae.grid import TokenGrid
from vmae.grid import gather_tokens as take
from vmae.mae import MaskedAutoencoder
from vmae.train import schedule
from vmae.train.config import OptimConfig
from vmae.vit import VisionTransformer
from vmae.weights import load

Shapes = dict[str, tuple[int, ...]]
Pair = tuple[torch.Tensor, torch.Tensor]
State = dict[str, torch.Tensor]

# ---- reference solutions -------------------------------------------------------------------------


class MAE(lesson_02.MAEParts):
    """Lesson 02's model in one method, for raw pixels."""

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75
    ) -> lesson_02.Masking:
        """The loss, predicted (B, N, P) and hidden (B, N) bool, of images (B, 3, H, W)."""
        x = self.embed(images) + self.pos_embed[:, 1:]  # (B, N, D)
        ids_keep, ids_restore, hidden = lesson_02.random_masking(noise, ratio)
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat((class_token, take(x, ids_keep)), dim=1)  # (B, 1 + V, D)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))  # (B, 1 + V, E)
        full = lesson_02.unshuffle(x[:, 1:], self.mask_token, ids_restore)  # (B, N, E)
        x = torch.cat((x[:, :1], full), dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        predicted = self.decoder_pred(self.decoder_norm(x))[:, 1:]  # (B, N, P)
        return lesson_02.masked_loss(predicted, self.patchify(images), hidden), predicted, hidden


def pretrain(
    model: lesson_02.MAEParts,
    images: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    rates: Sequence[float],
    batch: int,
    ratio: float,
    generator: torch.Generator,
) -> list[float]:
    """One step for each learning rate, on random images and with new masks; returns the losses.

    images (n, 3, H, W) float; `generator` draws images and masks.
    """
    losses = []
    for lr in rates:
        chosen = torch.randint(len(images), (batch,), generator=generator)
        noise = torch.rand(batch, model.grid.num_tokens, generator=generator)
        loss, _, _ = model(images[chosen], noise, ratio)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def load_encoder(encoder: VisionTransformer, checkpoint: State) -> VisionTransformer:
    """Copy an MAE's encoder from a checkpoint, whose names begin with "module."; returns it.

    Raises KeyError if a weight is missing.
    """
    weights = {name.removeprefix("module."): value for name, value in checkpoint.items()}
    own = encoder.state_dict()
    encoder.load_state_dict({name: weights[name].reshape(x.shape) for name, x in own.items()})
    return encoder


def learning_rates(steps: int, warmup: int, base: float, batch: int) -> list[float]:
    """The learning rate at each step: warm-up over `warmup` steps, then cosine decay to 0.

    The peak learning rate is base·batch / 256 (MAE, appendix A.1; `main_pretrain.py`).
    """
    config = OptimConfig(
        steps=steps, warmup_ratio=warmup / steps, lr=base, base_batch_size=256, batch_size=batch
    ).resolved(videos=batch)
    return [schedule.learning_rate(step, config) for step in range(steps)]


def decayed(shapes: Shapes, exempt: set[str]) -> list[str]:
    """Names of the parameters with weight decay: those with several axes that are not exempt.

    `exempt` is what VideoMAE's `no_weight_decay` returns; MAE's code exempts nothing by name.
    """
    return [name for name, shape in shapes.items() if len(shape) > 1 and name not in exempt]


def standardize_features(train: torch.Tensor, test: torch.Tensor) -> Pair:
    """Standardise features (n, D) and (m, D) by the mean and standard deviation of the training ones.

    The standard deviation divides by n, as BatchNorm and scikit-learn's StandardScaler do.
    """
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
    return (train - mean) / std, (test - mean) / std


# ---- mistakes ----------------------------------------------------------------------------------


def _shaped(
    rise: Callable[[int, int], float], fall: Callable[[int, int, int], float]
) -> Callable[..., list[float]]:
    """A schedule of another shape: rise(step, warmup), then fall(step, steps, warmup), times the peak."""

    def rates(steps: int, warmup: int, base: float, batch: int) -> list[float]:
        factors = [rise(k, warmup) if k < warmup else fall(k, steps, warmup) for k in range(steps)]
        return [base * batch / 256 * factor for factor in factors]

    return rates


def _up(step: int, warmup: int) -> float:
    return (step + 1) / warmup


def _down(step: int, steps: int, warmup: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def _scaled(train: torch.Tensor, test: torch.Tensor, by: torch.Tensor, **how: Any) -> Pair:
    """Both standardised by the statistics of `by`."""
    mean, std = by.mean(dim=0), by.std(dim=0, **({"correction": 0} | how))
    return (train - mean) / std, (test - mean) / std


def _each(train: torch.Tensor, test: torch.Tensor, **how: Any) -> Pair:
    return _scaled(train, train, train, **how)[0], _scaled(test, test, test, **how)[0]


def _rows(train: torch.Tensor, test: torch.Tensor) -> Pair:
    first, second = _each(train.T, test.T)
    return first.T, second.T


def _named(
    keep: Callable[[str, tuple[int, ...], set[str]], bool],
) -> Callable[[Shapes, set[str]], list[str]]:
    return lambda shapes, exempt: [n for n, shape in shapes.items() if keep(n, shape, exempt)]


def _mixed(wrong: type[nn.Module]) -> type[nn.Module]:
    """Lesson 02's MAE with a mistake in one of its parts."""
    return type("Wrong", (wrong, lesson_02.MAE), {})


class _ShuffledTwice(lesson_02.MAE):
    """`take` gets ids_shuffle in place of ids_restore."""

    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        return super().forward_decoder(latents, ids_restore.argsort(dim=1))


class _NotInverted(lesson_02.MAE):
    """`order` gives ids_restore, from which hidden follows, or only hidden."""

    both = True

    def forward_encoder(
        self, images: torch.Tensor, noise: torch.Tensor, ratio: float
    ) -> lesson_02.Masking:
        latents, _, restore = super().forward_encoder(images, noise, ratio)
        order = restore.argsort(dim=1)
        return latents, order >= latents.shape[1] - 1, order if self.both else restore


class _ComparedShuffle(_NotInverted):
    both = False


class _HiddenKept(lesson_02.MAE):
    """Keeps as many patches as should be hidden."""

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75
    ) -> lesson_02.Masking:
        return super().forward(images, noise, 1 - ratio)


class _AtLeastOne(lesson_02.MAE):
    """Always keeps a patch."""

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75
    ) -> lesson_02.Masking:
        return super().forward(images, noise, min(ratio, 1 - 1.5 / noise.shape[1]))


class _Decoupled(lesson_02.MAE):
    """Latents are detached, so that the encoder is not trained."""

    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        return super().forward_decoder(latents.detach(), ids_restore)


def _some(
    keep: Callable[[str], bool],
) -> Callable[[VisionTransformer, State], VisionTransformer]:
    """Loads only some of the weights."""

    def wrong(encoder: VisionTransformer, checkpoint: State) -> VisionTransformer:
        own = encoder.state_dict()
        chosen = {n: checkpoint[f"module.{n}"].reshape(own[n].shape) for n in own if keep(n)}
        encoder.load_state_dict(chosen, strict=False)
        return encoder

    return wrong


# ---- the loop ----------------------------------------------------------------------------------

LOOP_GRID = TokenGrid((1, 8, 8), (1, 2, 2))  # 16 patches
LOOP_RATES = tuple(round(0.01 * k, 2) for k in range(1, 13))
LOOP_BATCH, LOOP_RATIO, LOOP_IMAGES = 7, 0.6, 50


@dataclass
class Step:
    """What a loop showed the model in a forward pass, and what came of it."""

    images: torch.Tensor
    noise: torch.Tensor
    ratio: float
    loss: float
    gradient: float  # of this loss alone


class _Watched(nn.Module):
    """Notes what it is shown. Its loss has a gradient that depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.grid, self.steps = LOOP_GRID, list[Step]()
        self.weight, self.bias = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.1))

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75
    ) -> lesson_02.Masking:
        mean = images.mean()
        loss = (self.weight * mean + self.bias).square()
        gradient = 2 * (self.weight * mean + self.bias) * mean
        self.steps.append(Step(images, noise, ratio, loss.item(), gradient.item()))
        hidden = torch.zeros(noise.shape, dtype=torch.bool)
        return loss, torch.zeros(*noise.shape, 12), hidden


class _Noting(torch.optim.SGD):
    """Notes, at each step, how many forward passes there were, all learning rates, the gradient."""

    def __init__(self, model: _Watched) -> None:
        super().__init__([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.5)
        self.model, self.noted = model, list[tuple[int, list[float], float | None]]()

    def step(self, closure: Any = None) -> Any:
        gradient = self.model.weight.grad
        rates = [float(group["lr"]) for group in self.param_groups]
        found = None if gradient is None else gradient.item()
        self.noted.append((len(self.model.steps), rates, found))
        return super().step(closure)


def _loop_images() -> torch.Tensor:
    """Fifty digits (50, 3, 8, 8) in [0, 1], as light on dark; the corner of each holds its number."""
    digits = torch.from_numpy(load_digits().images[:LOOP_IMAGES]).float()[:, None] / 16
    digits = digits.repeat(1, 3, 1, 1)
    digits[:, :, 0, 0] = torch.arange(LOOP_IMAGES)[:, None] / 1000
    return digits


def _watched(loop: Callable[..., Any]) -> tuple[Any, list[Step], list[Any]]:
    """What a loop returns, what it showed the model, and what its optimiser noted."""
    model, g = _Watched(), torch.Generator().manual_seed(0)
    optimizer = _Noting(model)
    arguments = (LOOP_RATES, LOOP_BATCH, LOOP_RATIO, g)
    return loop(model, _loop_images(), optimizer, *arguments), model.steps, optimizer.noted


def _numbers(step: Step) -> list[int]:
    """Which images a step used."""
    return (1000 * step.images[:, 0, 0, 0]).round().long().tolist()


NO_STEPS = "the model is called {} times; expected one call for each of the 12 learning rates"
SAME_IMAGES = "every step uses the same images: draw new ones in each"
FIRST_IMAGES = (
    "only the first {} images are ever used: draw from all of them, torch.randint(len(images), ...)"
)
IN_ORDER = "the images come in the order in which they are stored: draw them at random"
SAME_MASKS = "every step uses the same masks: draw new noise inside the loop"
ONE_MASK = "all images of a batch share one mask: draw noise of shape (batch, N)"
NOISE_SHAPE = "the noise has shape {}; expected (batch, N), here (7, 16)"
UNSEEDED = (
    "two runs with equally seeded generators differ: pass `generator=generator` to whatever draws "
    "the {}"
)
IGNORED_RATIO = "`ratio` is ignored: pass it to the model"
NO_UPDATE = "the optimiser never takes a step: call optimizer.step() after loss.backward()"
NO_GRADIENT = "optimizer.step() finds no gradient: call loss.backward() before it"
NO_BACKWARD = (
    "optimizer.step() finds a gradient of zero: optimizer.zero_grad() belongs before loss.backward(), "
    "not after it"
)
ADDED_UP = "the gradients of all steps add up: call optimizer.zero_grad() before loss.backward()"
WRONG_RATE = "the learning rates at the steps are {}, ...; expected {}, ...: set group['lr'] before each step"
LATE_RATE = (
    "each learning rate is set after its step, so it takes effect one step late: set it before "
    "optimizer.step()"
)
NEVER_SET = "the learning rate is never set: write it into group['lr'] of every parameter group"
ONE_GROUP = (
    "only the first parameter group gets the learning rate: loop over optimizer.param_groups, since "
    "the parameters without weight decay are a group of their own"
)
GRAPH = "each loss in the list is a tensor that keeps the graph of its step in memory: append loss.item()"
OTHER_LOSSES = "the losses in the list are not those of the steps: append loss.item() in each step"


def _shown(steps: list[Step]) -> str | None:
    """What is wrong with the images and masks of a run."""
    if len(steps) != len(LOOP_RATES):
        return NO_STEPS.format(len(steps))
    for step in steps:
        if step.images.shape != (LOOP_BATCH, 3, 8, 8):
            return f"the model is shown images of shape {tuple(step.images.shape)}; expected (7, 3, 8, 8)"
        if step.noise.ndim == 2 and step.noise.shape[0] == 1:
            return ONE_MASK
        if step.noise.shape != (LOOP_BATCH, 16):
            return NOISE_SHAPE.format(tuple(step.noise.shape))
    used = [_numbers(step) for step in steps]
    if all(numbers == used[0] for numbers in used):
        return SAME_IMAGES
    if (most := max(map(max, used))) <= LOOP_BATCH:
        return FIRST_IMAGES.format(most + 1)
    if all(np.diff(numbers).tolist() == [1] * (LOOP_BATCH - 1) for numbers in used):
        return IN_ORDER
    orders = [step.noise.argsort(dim=1) for step in steps]
    if all((order == order[:1]).all() for order in orders):
        return ONE_MASK
    if all(torch.equal(order, orders[0]) for order in orders):
        return SAME_MASKS
    return None if all(step.ratio == LOOP_RATIO for step in steps) else IGNORED_RATIO


def _updated(steps: list[Step], noted: list[tuple[int, list[float], float | None]]) -> str | None:
    """What is wrong with the updates of a run."""
    if not noted:
        return NO_UPDATE
    if any(gradient is None for *_, gradient in noted):
        return NO_GRADIENT
    if [count for count, *_ in noted] != list(range(1, len(steps) + 1)):
        return f"optimizer.step() is called {len(noted)} times; expected one call after each forward pass"
    gradients = [gradient or 0.0 for *_, gradient in noted]
    if not any(gradients):
        return NO_BACKWARD
    own = [step.gradient for step in steps]
    if np.allclose(gradients, np.cumsum(own), rtol=1e-4):
        return ADDED_UP
    if not np.allclose(gradients, own, rtol=1e-4):
        return (
            "the gradient at a step is not that of the loss: call backward() on the loss as it is"
        )
    return _rated([rates for _, rates, _ in noted])


def _rated(rates: list[list[float]]) -> str | None:
    """What is wrong with the learning rates at the steps, one list of all groups for each."""
    first, others = ([step[group] for step in rates] for group in (0, 1))
    if np.allclose(first, LOOP_RATES) and not np.allclose(others, LOOP_RATES):
        return ONE_GROUP
    if np.allclose(first[1:], LOOP_RATES[:-1]) and not np.allclose(first[0], LOOP_RATES[0]):
        return LATE_RATE
    if len(set(first)) == 1:
        return NEVER_SET
    if not np.allclose(first, LOOP_RATES):
        return WRONG_RATE.format(*(", ".join(f"{x:g}" for x in y[:3]) for y in (first, LOOP_RATES)))
    return None


def _returned(result: Any, steps: list[Step]) -> str | None:
    """What is wrong with the list of losses."""
    if result is None:
        return "the result is None: is the `return` missing?"
    if not isinstance(result, list | tuple):
        return f"the result is of type {type(result).__name__}; return a list with the loss of each step"
    if any(isinstance(loss, torch.Tensor) and loss.requires_grad for loss in result):
        return GRAPH
    if len(result) != len(steps) or not np.allclose(
        [float(x) for x in result], [step.loss for step in steps], rtol=1e-4
    ):
        return OTHER_LOSSES
    return None


def _judge_loop(loop: Callable[..., Any]) -> str | None:
    result, steps, noted = _watched(loop)
    with suppress(Exception):  # a wrong result cannot always be drawn
        _draw_loop(steps)
    if result is None and len(steps) == len(LOOP_RATES):
        return _returned(result, steps)
    if problem := _shown(steps) or _updated(steps, noted) or _returned(result, steps):
        return problem
    _, again, _ = _watched(loop)
    for name, of in (("images", _numbers), ("noise", lambda step: step.noise.tolist())):
        if any(of(a) != of(b) for a, b in zip(steps, again, strict=True)):
            return UNSEEDED.format(name)
    return None


def _loop(order: str = "rate zero backward step", groups: int = 2, **drawn: Any) -> Any:
    """A loop with another order of its actions, or other draws of images, noise or ratio."""

    def loop(model, images, optimizer, rates, batch, ratio, g):
        losses, fixed = [], torch.rand(batch, 16, generator=torch.Generator().manual_seed(1))
        for k, lr in enumerate(rates):
            chosen = drawn.get("images", lambda g, n, *_: torch.randint(n, (batch,), generator=g))
            noise = drawn.get("noise", lambda g, _: torch.rand(batch, 16, generator=g))
            inputs = images[chosen(g, len(images), batch, k)], noise(g, fixed)
            loss, _, _ = model(*inputs, *([] if drawn.get("no_ratio") else [ratio]))
            for action in order.split():
                if action == "rate":
                    for group in optimizer.param_groups[:groups]:
                        group["lr"] = lr
                elif action == "zero":
                    optimizer.zero_grad(set_to_none=False)
                else:
                    {"backward": loss.backward, "step": optimizer.step}[action]()
            losses.append(drawn.get("note", torch.Tensor.item)(loss))
        return losses

    return loop


def _one_step(model: Any, images: Any, optimizer: Any, rates: Any, *rest: Any) -> list[float]:
    return pretrain(model, images, optimizer, rates[:1], *rest)


PRETRAIN = Exercise(
    "03.pretrain",
    pretrain,
    mistakes={
        NO_STEPS.format(1): _one_step,
        SAME_IMAGES: _loop(
            images=lambda g, n, b, k: torch.arange(n)[torch.tensor([3, 1, 4, 15, 9, 2, 6])]
        ),
        FIRST_IMAGES.format(LOOP_BATCH): _loop(
            images=lambda g, n, b, k: torch.randint(b, (b,), generator=g)
        ),
        IN_ORDER: _loop(images=lambda g, n, b, k: torch.arange(b) + (b * k) % (n - b)),
        SAME_MASKS: _loop(noise=lambda g, fixed: fixed),
        ONE_MASK: _loop(noise=lambda g, fixed: torch.rand(1, 16, generator=g).expand_as(fixed)),
        NOISE_SHAPE.format("(16,)"): _loop(noise=lambda g, _: torch.rand(16, generator=g)),
        UNSEEDED.format("images"): _loop(images=lambda g, n, b, k: torch.randint(n, (b,))),
        UNSEEDED.format("noise"): _loop(noise=lambda g, fixed: torch.rand_like(fixed)),
        IGNORED_RATIO: _loop(no_ratio=True),
        NO_UPDATE: _loop("rate zero backward"),
        NO_GRADIENT: _loop("rate step"),
        NO_BACKWARD: _loop("rate backward zero step"),
        ADDED_UP: _loop("rate backward step"),
        LATE_RATE: _loop("zero backward step rate"),
        NEVER_SET: _loop("zero backward step"),
        ONE_GROUP: _loop(groups=1),
        GRAPH: _loop(note=lambda loss: loss),
        OTHER_LOSSES: _loop(note=lambda loss: loss.item() / LOOP_BATCH),
    },
    judge=_judge_loop,
)


# ---- drawings ----------------------------------------------------------------------------------


def _draw_loop(steps: list[Step]) -> None:
    shown: list[tuple[str, torch.Tensor]] = []
    for number, step in enumerate(steps[:3], 1):
        rank = step.noise.argsort(dim=1).argsort(dim=1)
        hidden = rank >= int(16 * (1 - step.ratio))  # (B, 16)
        gone = hidden.view(-1, 4, 4).repeat_interleave(2, 1).repeat_interleave(2, 2)
        pictures = torch.where(gone[:, None], 0.45, step.images)
        shown += [(f"step {number}", pictures[i]) for i in range(6)]
    viz.pictures(
        shown,
        "What your loop shows the model in its first three steps, a row for each: six handwritten digits, "
        "with their hidden patches in grey.",
        height=0.9,
        columns=6,
        cmap="gray",
    )


def _draw_weights(result: State, config: ModelConfig, _: State) -> None:
    encoder = VisionTransformer(config)
    shown = {"the cat": lesson_02._cat()[0]}
    shipped = load(ROOT / "data" / "weights" / "image")
    assert isinstance(shipped, MaskedAutoencoder)
    expected = shipped.encoder.state_dict()
    for name, weights in {"your encoder": result, "expected": expected}.items():
        encoder.load_state_dict(weights)
        with torch.no_grad():
            latents = encoder.eval().forward_features(lesson_02._cat()[:, :, None])[0, 1:]
        shown[name] = as_colours(latents).view(14, 14, 3)
    viz.pictures(
        shown,
        "The cat, and its 196 latents as colours (three principal components): those of the encoder that "
        "your function returned, and the expected ones, in which eyes, stripes and fur differ.",
        height=1.4,
    )


def _draw_rates(result: list[float], *case: Any) -> None:
    with viz.style():
        figure, axis = plt.subplots(figsize=(5, 1.6), layout="constrained")
        axis.plot(learning_rates(*case), lw=4, alpha=0.4, color=viz.INK, label="expected")
        axis.plot(result, lw=1.5, color=viz.PALETTE[1], label="yours")
        axis.set_xlabel("step", fontsize=8)
        axis.legend(fontsize=7)
    viz.show(figure, "Learning rate over steps: your curve drawn over the expected one.")


def _draw_decayed(result: list[str], shapes: Shapes, exempt: set[str]) -> None:
    colours = [viz.PALETTE[0] if name in result else "none" for name in shapes]
    with viz.style():
        figure, axis = plt.subplots(figsize=(6, 1.2), layout="constrained")
        axes = [len(shape) for shape in shapes.values()]
        axis.bar(range(len(axes)), axes, color=colours, edgecolor=viz.INK, linewidth=0.6)
        axis.set_ylabel("axes", fontsize=8)
        axis.set_xlabel("parameter, in order; filled: decayed by yours", fontsize=8)
    viz.show(
        figure,
        "One bar per parameter, its height the number of axes; filled if your function decays it.",
    )


def _draw_features(result: Pair, *case: torch.Tensor) -> None:
    names = ("train", "test")
    with viz.style():
        figure, axes = plt.subplots(1, 2, figsize=(6, 1.9), layout="constrained")
        expected = standardize_features(*case)
        for axis, name, ours, right in zip(axes, names, result, expected, strict=True):
            axis.plot(
                right[:, 0], right[:, 1], "o", ms=6, mfc="none", mec=viz.INK, label="expected"
            )
            axis.plot(ours[:, 0], ours[:, 1], ".", ms=4, color=viz.PALETTE[1], label="yours")
            axis.set_title(name, fontsize=8)
        axes[0].legend(fontsize=7)
    viz.show(
        figure,
        "Two features of the training and test images: your values as dots, the expected ones as rings.",
    )


# ---- inputs ------------------------------------------------------------------------------------


def _rate_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    return [(100, 10, 1.5e-4, 4096), (40, 8, 1e-3, 64)]


def _shape_cases(_: torch.Generator) -> list[tuple[Shapes, set[str]]]:
    small = ModelConfig.mae("tiny", img_size=32, tubelet=(1, 8, 8), depth=1, decoder_depth=1)
    clips = ModelConfig.videomae("tiny", depth=1, decoder_depth=1)
    models = (
        MaskedAutoencoder(small),
        MaskedAutoencoder(clips),
        VisionTransformer(small, num_classes=10),
    )
    return [
        ({name: tuple(p.shape) for name, p in model.named_parameters()}, model.no_weight_decay())
        for model in models
    ]


def _feature_cases(g: torch.Generator) -> list[Pair]:
    """Test features are distributed differently from training ones, so that any leakage shows."""
    cases = []
    for n, m, width in ((40, 25, 6), (30, 50, 3)):
        spread = 0.5 + 3 * torch.rand(width, generator=g)
        train = torch.randn(n, width, generator=g) * spread + 2
        cases.append((train, torch.randn(m, width, generator=g) * 1.5 * spread + 3))
    return cases


def _mae_cases(g: torch.Generator) -> list[ModuleCase]:
    """The cat and its mirror image with the shipped weights; small ones; one with nothing visible."""
    noise = torch.rand(2, 196, generator=g)
    images, other = torch.randn(3, 3, 40, 40, generator=g), torch.rand(3, 25, generator=g)
    return [
        (lesson_02.SHIPPED, (lesson_02._both_cats(), noise)),
        (lesson_02._small(), (images, other, 0.6)),
        (lesson_02._small(), (images[:2], other[:2], 1.0)),
    ]


def _checkpoint_cases(_: torch.Generator) -> list[tuple[ModelConfig, State]]:
    """The shipped model, and a small one: configurations, and checkpoints as DDP would save them."""
    cases = []
    small = ModelConfig.mae("tiny", img_size=40, tubelet=(1, 8, 8), embed_dim=12, depth=2,
                            num_heads=3)  # fmt: skip
    shipped = load(ROOT / "data" / "weights" / "image").config
    for config, sizes in ((shipped, lesson_02.SHIPPED), (small, lesson_02._small())):
        weights = lesson_02._weights(lesson_02.MAE, sizes)
        cases.append((config, {f"module.{name}": x for name, x in weights.items()}))
    return cases


def _loaded(answer: Callable[..., Any], config: ModelConfig, checkpoint: State) -> Any:
    """The weights of the encoder that an answer returns."""
    torch.manual_seed(0)
    result = answer(VisionTransformer(config), checkpoint)
    return result.state_dict() if isinstance(result, nn.Module) else result


def _no_list(answer: Callable[..., Any]) -> str | None:
    result = answer(5, 2, 1.0, 256)
    if isinstance(result, np.ndarray | torch.Tensor):
        return f"the result is of type {type(result).__name__}: return a list, with .tolist()"
    return None


EXERCISES = (
    module_exercise(
        "03.MAE",
        MAE,
        _mae_cases,
        {
            "the positions are added after masking: a patch keeps the position that it was cut from, so "
            "add them before": _mixed(lesson_02._PositionsAfterMasking),
            "the patches have no positions: add self.pos_embed[:, 1:]": _mixed(
                lesson_02._NoPositions
            ),
            "the class token lacks its position: add self.pos_embed[:, :1] to it": _mixed(
                lesson_02._ClassTokenWithoutPosition
            ),
            "hidden patches are set to zero, not left out: keep only the visible ones": _mixed(
                lesson_02._HiddenAsZeros
            ),
            "the encoder sees all patches: keep only the visible ones": _mixed(
                lesson_02._AllPatches
            ),
            "self.norm is missing: apply it after the last block of the encoder": _mixed(
                lesson_02._NoNorm
            ),
            "the order is not restored before the decoder: put every token at the index of its patch, "
            "with ids_restore": _mixed(lesson_02._NotRestored),
            "the tokens are shuffled once more, with ids_shuffle: put them back with its inverse, "
            "ids_restore = ids_shuffle.argsort(dim=1)": _ShuffledTwice,
            "the decoder's positions are added before the order is restored: add them afterwards": _mixed(
                lesson_02._PositionsBeforeRestoring
            ),
            "the decoder has no positions, so all mask tokens are equal: add self.decoder_pos_embed": (
                _mixed(lesson_02._NoDecoderPositions)
            ),
            "self.decoder_norm is missing: apply it before self.decoder_pred": _mixed(
                lesson_02._NoDecoderNorm
            ),
            "the last token is dropped after the decoder: drop the first, which is the class token": _mixed(
                lesson_02._LastTokenDropped
            ),
            "the loss also includes the visible patches: average over the hidden ones": (
                lesson_02._with_loss(
                    lambda model, images, predicted, hidden: lesson_02._error(
                        predicted, model.patchify(images)
                    ).mean()
                )
            ),
            "the loss includes only the visible patches: average over the hidden ones": (
                lesson_02._with_loss(
                    lambda model, images, predicted, hidden: lesson_02.masked_loss(
                        predicted, model.patchify(images), ~hidden
                    )
                )
            ),
            "the target is standardised: here the model predicts raw pixels, self.patchify(images)": (
                lesson_02._with_loss(
                    lambda model, images, predicted, hidden: lesson_02.masked_loss(
                        predicted, lesson_02.standardize(model.patchify(images)), hidden
                    )
                )
            ),
            "the loss is the mean absolute error: square the differences instead": lesson_02._with_loss(
                lambda model, images, predicted, hidden: (
                    (predicted - model.patchify(images))[hidden].abs().mean()
                )
            ),
            "ids_restore is the shuffle itself, not its inverse: compute ids_shuffle.argsort(dim=1)": (
                _NotInverted
            ),
            "`hidden` compares the patch numbers in ids_shuffle with the number of kept ones: compare "
            "ids_restore, the index of each patch in that order": _ComparedShuffle,
            "what the encoder's blocks return is lost: assign it, x = block(x)": _mixed(
                lesson_02._BlocksUnused
            ),
            "what the decoder's blocks return is lost: assign it, x = block(x)": _mixed(
                lesson_02._DecoderBlocksUnused
            ),
            "`ratio` is the share that is hidden: keep int(N * (1 - ratio)) patches": _HiddenKept,
            "with a ratio of 1, a patch is still visible: keep int(N * (1 - ratio)), which may be 0": (
                _AtLeastOne
            ),
            "the encoder gets no gradient: no detach(), no torch.no_grad()": _Decoupled,
            "`ratio` is ignored: keep int(N * (1 - ratio)) patches": lesson_02._FixedRatio,
            "`hidden` is inverted: it is True for the patches that the encoder does not see": (
                lesson_02._Visible
            ),
        },
        draw=lesson_02._draw_mae,
        weights=lesson_02._weights,
    ),
    Exercise(
        "03.learning_rates",
        learning_rates,
        _rate_cases,
        {
            "the cosine has no pi, so the learning rate falls to three quarters only: 0.5 * (1 + cos(pi * "
            "progress))": _shaped(
                _up,
                lambda step, steps, warmup: (
                    0.5 * (1 + math.cos((step - warmup) / (steps - warmup)))
                ),
            ),
            "the cosine reaches 0 at the last step, which is wasted: it would reach 0 at step `steps`, "
            "so divide by steps - warmup": _shaped(
                _up, lambda step, steps, warmup: _down(step, steps - 1, warmup)
            ),
            "the base learning rate is not scaled: multiply it by batch / 256": (
                lambda steps, warmup, base, batch: learning_rates(steps, warmup, base, 256)
            ),
            "the learning rate is scaled by 256 / batch: scale it by batch / 256, so that it "
            "grows with the batch size": lambda steps, warmup, base, batch: learning_rates(
                steps, warmup, base, 256 * 256 / batch
            ),
            "the learning rate is 0 at step 0, so that step is wasted: count the warm-up "
            "steps from 1, (step + 1) / warmup": _shaped(lambda step, warmup: step / warmup, _down),
            "there is no warm-up: increase the learning rate linearly over the first `warmup` "
            "steps": (_shaped(lambda *_: 1.0, _down)),
            "the cosine starts at step 0, so the learning rate drops abruptly after the "
            "warm-up: start the cosine after the warm-up, (step - warmup) / (steps - warmup)": _shaped(
                _up, lambda step, steps, _: _down(step, steps, 0)
            ),
            "the warm-up is one step too long, and rises above the peak: it ends at step warmup - 1, so "
            "test step < warmup": _shaped(
                _up,
                lambda step, steps, warmup: (
                    _up(step, warmup) if step == warmup else _down(step, steps, warmup)
                ),
            ),
            "this is a quarter of a cosine, from 1 to 0: half of one runs from 1 to -1, so scale and shift "
            "it, 0.5 * (1 + cos(pi * progress))": _shaped(
                _up,
                lambda step, steps, warmup: math.cos(
                    math.pi / 2 * (step - warmup) / (steps - warmup)
                ),
            ),
            "the learning rate falls linearly after the warm-up: use a cosine instead, 0.5 * "
            "(1 + cos(pi * progress))": _shaped(
                _up, lambda step, steps, warmup: (steps - step) / (steps - warmup)
            ),
        },
        draw=_draw_rates,
        inspect=_no_list,
        tolerance=1e-8,
    ),
    Exercise(
        "03.decayed",
        decayed,
        _shape_cases,
        {
            "weight decay is applied to every parameter: exclude vectors, such as biases and "
            "norm weights": (lambda shapes, _: list(shapes)),
            "weight decay is applied to the norm weights: exclude them as well as the biases, "
            "since they are vectors too and decay would pull them towards 0": _named(
                lambda name, *_: not name.endswith("bias")
            ),
            "weight decay is applied to the mask token although the model exempts it: exclude "
            "the names in `exempt`, despite their three axes": _named(
                lambda _, shape, __: len(shape) > 1
            ),
            "the mask token and the class token are always excluded: exclude a token only if it is "
            "in `exempt`, since MAE decays both": _named(
                lambda name, shape, _: len(shape) > 1 and "token" not in name
            ),
            "the list contains the parameters excluded from weight decay: return the names of "
            "the decayed parameters instead": (
                lambda shapes, exempt: [n for n in shapes if n not in decayed(shapes, exempt)]
            ),
            "the patch embedding's convolution is excluded: test for more than one axis, not "
            "for exactly two, since its weight acts as a matrix but has four axes, or five for clips": _named(
                lambda _, shape, __: len(shape) == 2
            ),
        },
        draw=_draw_decayed,
    ),
    PRETRAIN,
    Exercise(
        "03.standardize_features",
        standardize_features,
        _feature_cases,
        {
            "the test features are standardised with their own statistics, which could not be "
            "computed for a single test image: use the training statistics instead": _each,
            "the test features are standardised with their own statistics, which could not be "
            "computed for a single test image: use the training statistics instead; and the standard "
            "deviation is computed with n - 1: divide by n instead, with correction=0": (
                lambda train, test: _each(train, test, correction=1)
            ),
            "the statistics are computed over training and test features together, which "
            "leaks test data into training: compute them over the training features alone": (
                lambda train, test: _scaled(train, test, torch.cat((train, test)))
            ),
            "the statistics are computed over the test features, which leaks test data: "
            "compute them over the training features instead": (
                lambda train, test: _scaled(train, test, test)
            ),
            "each image's features are standardised separately: compute each feature's mean "
            "and standard deviation across images, with dim=0": _rows,
            "one mean and one standard deviation are shared by all features: compute both for each "
            "feature, with dim=0": lambda train, test: (
                (train - train.mean()) / train.std(correction=0),
                (test - train.mean()) / train.std(correction=0),
            ),
            "only the mean is subtracted: divide by each feature's standard deviation as well": (
                lambda train, test: (train - train.mean(dim=0), test - train.mean(dim=0))
            ),
            "the standard deviation is computed with n - 1: divide by n instead, with "
            "correction=0": (lambda train, test: _scaled(train, test, train, correction=1)),
        },
        draw=_draw_features,
    ),
    Exercise(
        "03.load_encoder",
        load_encoder,
        _checkpoint_cases,
        {
            "no weight is loaded, and nothing says so: how many names of the checkpoint are in `own`, and "
            "what does `strict=False` do about the others?": _some(lambda _: False),
            "the class token stays random: load it too": _some(lambda name: name != "cls_token"),
            "only the blocks are loaded: patch embedding, class token and norm stay random": _some(
                lambda name: name.startswith("blocks.")
            ),
            "the patch embedding stays random: its weight only needs another shape, with reshape or "
            "unsqueeze(2)": _some(lambda name: name != "patch_embed.proj.weight"),
            "the final norm stays as it was: load it too": _some(
                lambda name: not name.startswith("norm.")
            ),
            "the biases stay as they were: load them too": _some(
                lambda name: not name.endswith("bias")
            ),
        },
        draw=_draw_weights,
        run=_loaded,
    ),
)
