# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 03 · MAE, trained
#
# In lesson 02 a small MAE learned one cat by heart. Here one learns from thousands of images without labels, and is tested on images that it never saw.
# You see what it paints, and what its features are worth when labels are few.
#
# The last cell measures the minutes and memory of the run. The executed solution took under five minutes and less than 1 GB, with one thread on two CPU cores shared with other work.
# There are three exercises, about half an hour in all.

# %% tags=["parameters"]
size = 16  # pixels a side; patches are 4x4
train_images = 4000
test_images = 1000
seeds = 3  # everything that is compared is run so many times
steps = 1500  # of pre-training, of each seed
batch = 64
blr = 1.2e-2  # base learning rate, stated for a batch of 256
short_steps = 100  # of each run that compares targets and ratios
labels = (10, 50)  # labelled images a class, for fine-tuning
tune_steps = 150

# %% [markdown]
# ## Set-up

# %%
import os
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

import vmae
from vmae import data, viz
from vmae.config import MaskConfig, ModelConfig
from vmae.course.checks import check
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import make_mask
from vmae.train import (
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    Silent,
    Sources,
    finetune,
    linear_probe,
    peak_memory,
    pooled_features,
    pretrain,
)
from vmae.vit import VisionTransformer

os.chdir(vmae.ROOT)
started = time.perf_counter()

# %% [markdown]
# ## The images
#
# A handwritten digit of scikit-learn, in a random colour, lies over a dimmed crop of a photo or of the film.
# The class is the digit. Training and test share no digit and no picture: digits are divided by number, photos by name, the film by shot.


# %%
@dataclass
class Images:
    """Images (n, H, W, 3) uint8 as a source of clips of one frame, for the package's training."""

    pixels: np.ndarray
    videos: list[data.Video]

    def read(self, index: int, choose) -> np.ndarray:
        return self.pixels[index : index + 1][choose(1)]  # (1, H, W, 3)


def render(count: int, split: str, seed: int = 0) -> Images:
    """Coloured digits over dimmed crops."""
    rng, digits = np.random.default_rng((seed, split == "test")), load_digits()
    chosen = rng.integers(*((0, 1437) if split == "train" else (1437, 1797)), size=count)
    crops = np.stack([data.random_crop(rng, split, size) for _ in range(min(count, 400))])
    ground = 0.08 * crops[rng.integers(len(crops), size=count)]  # (n, H, W, 3)
    ink = digits.images[chosen].repeat(size // 8, 1).repeat(size // 8, 2)[..., None] / 16
    colour = rng.uniform(120, 255, (count, 1, 1, 3))
    pixels = (ground * (1 - ink) + colour * ink).astype(np.uint8)
    numbered = enumerate(digits.target[chosen])
    return Images(pixels, [data.Video(Path(f"{split}-{i}"), int(label)) for i, label in numbered])


train, test = render(train_images, "train"), render(test_images, "test")
viz.pictures(
    {f"{i}: a {test.videos[i].label}": test.pixels[i] for i in range(10)},
    "Ten small images: coloured handwritten digits over dark, blurred pieces of photos.",
    height=0.9,
)

# %% [markdown]
# ## The model
#
# It is the MAE of lesson 02, made small: 16 patches of 4x4 pixels, of which 4 are seen.

# %%
# NBVAL_CHECK_OUTPUT
model = ModelConfig.mae(
    "tiny", img_size=size, tubelet=(1, 4, 4), depth=3, decoder_embed_dim=32, decoder_num_heads=2,
    decoder_depth=1, normalize_targets=False,
)  # fmt: skip
mask = make_mask(MaskConfig("random", 0.75), model.grid, 2)
assert mask.visible.shape == (2, 4) and mask.targets.shape == (2, 12)
print(
    "tokens",
    model.grid.num_tokens,
    "· visible",
    mask.visible.shape[1],
    "· pixels",
    model.grid.token_dim,
)

# %% [markdown]
# ## The loop, in fifteen lines
#
# All of pre-training (預訓練) is this: draw images, draw masks, compute the loss, take a step. Nothing here asks for a label.


# %%
def simple_pretraining(model: ModelConfig, count: int) -> list[float]:
    """Losses of `count` steps at one rate."""
    g = torch.Generator().manual_seed(0)
    learner = MaskedAutoencoder(model)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3, betas=(0.9, 0.95))
    images = torch.from_numpy(train.pixels).permute(0, 3, 1, 2)[:, :, None]  # (n, 3, 1, H, W)
    losses = []
    for _ in range(count):
        clips = images[torch.randint(len(images), (batch,), generator=g)]
        mask = make_mask(MaskConfig("random", 0.75), model.grid, batch, g)
        loss = learner.loss(clips, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


torch.manual_seed(0)
losses = simple_pretraining(model, short_steps // 4)
print(f"first loss {losses[0]:.2f}, last {losses[-1]:.2f}")

# %% [markdown]
# The rest of the lesson uses the package's `pretrain`. It is this loop, with a log, checkpoints, and three details that you write next.
#
# ## The rate
#
# *Warm-up* (預熱): the rate rises in a line, while the optimiser still learns how large gradients are. Then it falls along half a *cosine* (餘弦衰減).
# The official VideoMAE code begins its warm-up at rate 0, so its step 0 changes no weight. The package, and your function, begin one step higher.
#
# Papers state a base rate, `blr`, for a batch of 256. The *linear scaling rule* says lr = blr · batch / 256 (MAE, appendix A.1).
#
# ### Exercise 1 · the rates of a run
#
# **Difficulty** ●●○ · **about 10 minutes**


# %%
def learning_rates(steps: int, warmup: int, base: float, batch: int) -> list[float]:
    """The rate of every step of a run.

    The highest rate is base·batch / 256. Warm-up: step 0 has 1 / warmup of it, and step warmup - 1
    all of it. Then half a cosine, which begins at step `warmup` and would reach 0 at step `steps`.
    """
    ### BEGIN SOLUTION
    highest = base * batch / 256
    rates = []
    for step in range(steps):
        progress = (step - warmup) / (steps - warmup)
        cosine = 0.5 * (1 + np.cos(np.pi * progress))
        rates.append(highest * ((step + 1) / warmup if step < warmup else cosine))
    return rates
    ### END SOLUTION


learning_rates = check("03.learning_rates", learning_rates)

# %% [markdown]
# <details><summary>Hint 1</summary>Scale the base rate first. Then there are two cases, before and after the end of the warm-up.</details>
# <details><summary>Hint 2</summary>After the warm-up, progress is (step - warmup) / (steps - warmup). The cosine of pi times it runs from 1 to -1.</details>
# <details><summary>Solution</summary>
#
# ```python
# highest = base * batch / 256
# rates = []
# for step in range(steps):
#     progress = (step - warmup) / (steps - warmup)
#     cosine = 0.5 * (1 + np.cos(np.pi * progress))
#     rates.append(highest * ((step + 1) / warmup if step < warmup else cosine))
# return rates
# ```
#
# </details>
#
# The package's schedule gives the same at every step.

# %%
optim = OptimConfig(
    steps=steps, batch_size=batch, lr=blr, base_batch_size=256, warmup_ratio=0.1, clip_grad=None
)
resolved, warmup = optim.resolved(train_images), round(0.1 * steps)
ours = learning_rates(steps, warmup, blr, batch)
theirs = [vmae.train.learning_rate(k, resolved) for k in range(steps)]
assert np.allclose(ours, theirs)
with viz.style():
    figure, axis = plt.subplots(figsize=(6, 1.8))
    axis.plot(ours, label=f"batch {batch}")
    axis.plot(learning_rates(steps, warmup, blr, 2 * batch), label="twice")
    axis.set_xlabel("step")
    axis.set_ylabel("rate")
    axis.legend()
viz.show(
    figure, "The rate rises in a line and falls along a cosine; twice the batch, twice the rate."
)

# %% [markdown]
# ## Weight decay, and what it must not touch
#
# *Weight decay* (權重衰減) pulls every weight a little towards 0. For matrices that helps. A bias and the scale of a norm are
# single vectors, and pulled to 0 they would no longer do their job, so neither MAE nor VideoMAE decays them. The mask token is a
# vector too, but stored with three axes, (1, 1, D). VideoMAE's code exempts it by name; MAE's has no such list, so its mask and
# class tokens do decay. The package follows each of them: `no_weight_decay` gives the exempt names.
#
# ### Exercise 2 · which parameters decay
#
# **Difficulty** ●○○ · **about 5 minutes**


# %%
def decayed(shapes: dict[str, tuple[int, ...]], exempt: set[str]) -> list[str]:
    """Names of the parameters that decay, in the order given.

    shapes   the shape of each parameter. Those with one axis do not decay
    exempt   names of parameters that do not decay although they have several axes
    """
    ### BEGIN SOLUTION
    return [name for name, shape in shapes.items() if len(shape) > 1 and name not in exempt]
    ### END SOLUTION


decayed = check("03.decayed", decayed)

# %% [markdown]
# <details><summary>Hint 1</summary>The number of axes tells matrices from vectors. A token has three axes, so it decays unless it is exempt.</details>
# <details><summary>Hint 2</summary>`shapes.items()` gives the names with their shapes; `name not in exempt` is the second condition.</details>
# <details><summary>Solution</summary>
#
# ```python
# return [name for name, shape in shapes.items() if len(shape) > 1 and name not in exempt]
# ```
#
# </details>
#
# The package sorts parameters into groups for AdamW by the same rule.

# %%
# NBVAL_CHECK_OUTPUT
fresh = MaskedAutoencoder(model)
named = dict(fresh.named_parameters())
chosen = decayed({name: tuple(p.shape) for name, p in named.items()}, fresh.no_weight_decay())
groups = vmae.train.parameter_groups(fresh, optim)
with_decay = {id(p) for g in groups if g["weight_decay"] > 0 for p in g["params"]}
assert {n for n, p in fresh.named_parameters() if id(p) in with_decay} == set(chosen)
print(len(chosen), "of", len(named), "parameters decay")

# %% [markdown]
# ## What a loss near 1 means
#
# Targets may be raw pixels, or pixels *normalised* (正規化) for each patch: mean 0, variance 1.
# Whoever then says 0 everywhere, the mean of the patch, has a loss of about 1. Measure it.

# %%
normalised = model.replace(normalize_targets=True)
some = torch.from_numpy(test.pixels[:100]).permute(0, 3, 1, 2)[:, :, None]  # (100, 3, 1, H, W)
some_masks = make_mask(
    MaskConfig("random", 0.75), model.grid, len(some), torch.Generator().manual_seed(0)
)
trivial = pixel_targets(some, some_masks, normalised).square().mean().item()
raw = pixel_targets(some, some_masks, model)
constant = (raw - raw.mean()).square().mean().item()
print(f"says the mean of each patch, normalised: {trivial:.2f}")
print(f"says one grey for all, raw: {constant:.2f}")

# %% [markdown]
# With normalised targets a curve that stays near 1 has learned nothing, however smooth it is.
# With raw targets there is no such fixed number: compute what one constant costs, and compare with that.
# The two losses cannot be compared with each other.
#
# ## Pre-training
#
# One run a seed. Images are the same; initial weights, order, and masks differ.


# %%
def pretrained(model: ModelConfig, seed: int, ratio: float = 0.75, count: int = steps):
    """A run of the package's loop on the training images, without their labels."""
    config = PretrainConfig(
        model=model, mask=MaskConfig("random", ratio), optim=optim.replace(steps=count),
        seed=seed, device="cpu", log_every=max(1, count // 25),
    )  # fmt: skip
    return pretrain(config, source=train, progress=Silent())


runs = [pretrained(model, seed) for seed in range(seeds)]
with viz.style():
    figure, axis = plt.subplots(figsize=(6, 2.2))
    for seed, run in enumerate(runs):
        axis.plot([r.step for r in run.records], [r.loss for r in run.records], label=f"{seed}")
    axis.axhline(constant, color=viz.INK, ls="--", lw=1)
    axis.set_xlabel("step")
    axis.set_ylabel("loss, raw pixels")
    axis.legend(title="seed")
viz.show(
    figure, "The loss of each seed falls below the dashed line, the cost of one constant grey."
)

# %% [markdown]
# ## What it paints
#
# Images of the test, with three quarters hidden. The model has seen neither these digits nor these pictures.

# %%
result = runs[0].model.reconstruct(some, some_masks)
shown = {}
for name, clips in {"image": some / 255, "seen": result.masked, "painted": result.pasted}.items():
    shown |= {f"{name} {i}": clips[i, :, 0] for i in range(8)}
viz.pictures(
    shown,
    "Three rows of eight: test images, the quarter that the model sees, and what it paints.",
    columns=8,
    height=0.9,
)
with torch.no_grad():
    unseen = runs[0].model.loss(some, some_masks).item()
print(f"loss on unseen images {unseen:.2f}; one grey for all {constant:.2f}")

# %% [markdown]
# ## Features: the linear probe
#
# A *linear probe* (線性探測) freezes the encoder and trains one linear layer on its features. MAE puts a BatchNorm without scale and shift
# before that layer (paper, appendix A.1): the features are standardised, with statistics of the training set.
#
# ### Exercise 3 · standardise without a leak
#
# **Difficulty** ●○○ · **about 5 minutes**


# %%
def standardize_features(
    train: torch.Tensor, test: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the mean and deviation of each feature out of both sets.

    train, test   (n, D) and (m, D); the statistics are those of the training set, and the
                  deviation divides by n (correction=0)
    """
    ### BEGIN SOLUTION
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
    return (train - mean) / std, (test - mean) / std
    ### END SOLUTION


standardize_features = check("03.standardize_features", standardize_features)

# %% [markdown]
# <details><summary>Hint 1</summary>One mean and one deviation for each of the D features, over the images of the training set.</details>
# <details><summary>Hint 2</summary>The test set is scaled by the same numbers. Its own would be a leak (資料洩漏): they are not known for a single new image.</details>
# <details><summary>Solution</summary>
#
# ```python
# mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
# return (train - mean) / std, (test - mean) / std
# ```
#
# </details>
#
# Now the probe, on the class token (分類詞元) as published, for encoders with random weights and for pre-trained ones.


# %%
def probe(encoder: VisionTransformer) -> float:
    """Accuracy of a linear layer on frozen features, in percent."""
    sets = [pooled_features(encoder, images, data.Sampling(1)) for images in (train, test)]
    features = standardize_features(*(torch.from_numpy(x) for x, _ in sets))
    pairs = [(x.numpy(), y) for x, (_, y) in zip(features, sets, strict=True)]
    return linear_probe(*pairs, strength=0.1)


def untrained(seed: int) -> VisionTransformer:
    """An encoder with random weights."""
    torch.manual_seed(seed)
    return MaskedAutoencoder(model).encoder


probes = {
    "random features": [probe(untrained(seed)) for seed in range(seeds)],
    "pre-trained": [probe(run.model.encoder) for run in runs],
}
viz.bars(probes, "Linear probes: random features and pre-trained ones, a dot a seed.", chance=10)
for name, values in probes.items():
    print(f"{name:16} {np.mean(values):.1f} ± {np.std(values):.1f}")

# %% [markdown]
# Random features are no straw man: a linear layer with all labels finds a good half of the digits in them. Pre-training adds about eleven points,
# several times the spread of the seeds. How short may it be? The short runs at the end of this lesson tell. The next test asks another question.
#
# ## Few labels: fine-tuning against scratch
#
# *Fine-tuning* (微調) trains the encoder too. Of the training images, 10 or 50 a class now have a label; pre-training used them all, without any.
# The same few labelled images, the same steps: once from the pre-trained weights, once from random ones.

# %%
sources = Sources(tuple("0123456789"), train, test)
tuning = OptimConfig(
    steps=tune_steps,
    batch_size=batch,
    lr=2e-3,
    betas=(0.9, 0.999),
    warmup_ratio=0.1,
    clip_grad=None,
)
tuned: dict[str, list[float]] = {}
for count in labels:
    for seed, run in enumerate(runs):
        config = FinetuneConfig(
            model=model, optim=tuning, labels_per_class=count, seed=seed, device="cpu"
        )
        for name, encoder in {"from scratch": None, "pre-trained": run.model.encoder}.items():
            accuracy = finetune(config, sources, encoder).test.accuracy
            tuned.setdefault(f"{count} labels, {name}", []).append(accuracy)
viz.bars(tuned, "Fine-tuning on few labels a class, a dot a seed.", chance=10)
for name, values in tuned.items():
    print(f"{name:24} {np.mean(values):.1f} ± {np.std(values):.1f}")

# %% [markdown]
# From scratch, 150 steps learn little, with 50 labels hardly more than with 10. The pre-trained encoder takes the same steps and gets nearly twice as far.
# Each seed draws its own labelled images, and both ways share them. So compare dots of one seed, and look at the spread before you believe a mean.
#
# ## Targets and ratios
#
# Short runs of one seed. They show the way to compare, and are too short to rank settings: the paper's order (table 1d, figure 5) took
# hundreds of epochs of ImageNet.

# %%
settings = {
    "raw, 75 %": (model, 0.75),
    "normalised, 75 %": (normalised, 0.75),
    "raw, 25 %": (model, 0.25),
    "raw, 50 %": (model, 0.5),
}
rows = []
for name, (setting, ratio) in settings.items():
    run = pretrained(setting, 0, ratio, short_steps)
    rows.append(
        {"run": name, "last loss": f"{run.records[-1].loss:.2f}", "probe": probe(run.model.encoder)}
    )
viz.table(rows, f"{short_steps} steps each. Losses of different rows are different puzzles.")

# %% [markdown]
# A lower ratio is an easier puzzle, so its loss tells nothing about the features: only the probe does.
# And after 100 steps no probe here stands clearly above that of random features: it took the 1,500 steps above. The size of the run and the brightness
# of the backgrounds were chosen by such trials on one seed, so read the figures of this lesson as an example, not as a benchmark.

# %% tags=["timing"]
minutes = (time.perf_counter() - started) / 60
memory = peak_memory(torch.device("cpu")) / 1e9
print(f"{minutes:.1f} minutes, {memory:.1f} GB, {torch.get_num_threads()} thread(s)")

# %% [markdown]
# ## Ledger
#
# | paper | cell | value here | why smaller |
# |---|---|---|---|
# | MAE section 3, random 75 % | the model | 12 of 16 patches | small images |
# | MAE appendix A.1, lr = blr · batch / 256 | exercise 1 | blr 1.2e-2, batch 64 | few steps, so a higher rate than 1.5e-4 |
# | MAE appendix A.1, AdamW, weight decay 0.05, betas 0.9, 0.95 | exercise 2 | the same | as published |
# | MAE table 1d, normalised or raw targets | targets and ratios | raw in the main runs, both in the table | the short runs do not rank them |
# | MAE appendix A.1, linear probe with BatchNorm and LARS | exercise 3 | standardised, logistic regression | few images |
# | MAE, 800 to 1600 epochs of ImageNet | pre-training | 1,500 steps of 64 images | minutes on two cores |
#
# ## What you can do now
#
# - train an MAE on images of your own, and know what its loss should be compared with;
# - set rate, warm-up and weight decay as the papers do;
# - test features with a probe that does not leak, and with few labels against scratch, over seeds.
#
# ## Glossary
#
# | term | 中文 | meaning |
# |---|---|---|
# | pre-training | 預訓練 | training without labels, before the task |
# | warm-up | 預熱 | the steps in which the rate rises |
# | cosine decay | 餘弦衰減 | the rate falls along half a cosine |
# | weight decay | 權重衰減 | weights are pulled towards 0 |
# | linear probe | 線性探測 | one linear layer on frozen features |
# | leak | 資料洩漏 | the test tells the training something |
# | fine-tuning | 微調 | training all weights on the task |
