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
# In lesson 02 your MAE borrowed its weights. Here it earns them: it *pre-trains* (預訓練) on four thousand small images without labels, with a training loop
# that you write. Then comes the harder question of what it has learned, and what it is worth beside baselines that are given a fair chance.
#
# You build a model and a loop, write three functions, and fix a bug that raises no error.
#
# Measured on 2 shared CPU cores, the whole solution: 4 minutes, 0.8 GB of memory at the peak. Allow about 90 minutes with the exercises.

# %% tags=["parameters"]
train_images = 4000
test_images = 1000
seeds = 2  # everything that is compared is run so many times
steps = 1500  # of each pre-training
looks = (50, 300)  # steps after which the model is also looked at
batch = 64
blr = 1.2e-2  # base learning rate, stated for a batch of 256
labels = 50  # per class, for fine-tuning
tune_steps = (150, 1200)  # few, and many

# %% [markdown]
# ## Set-up

# %%
import copy
import os
from itertools import pairwise

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

import vmae
from vmae import cost, data, grid, mae, train, vit
from vmae.config import IMAGENET_MEAN, IMAGENET_STD, MaskConfig, ModelConfig
from vmae.course.checks import notebook_02
from vmae.course.experiments import label_figures, results, sets, table, verdicts
from vmae.course.lessons import check, diagrams, predict, viz

os.chdir(vmae.ROOT)  # paths are relative to the checkout, wherever Jupyter was started
torch.set_num_threads(1)  # models as small as this one gain nothing from more

# %% [markdown]
# ## The images
#
# Each image is a handwritten digit from scikit-learn, in a random colour, over a dimmed piece of a photo or of the film. Its class is the digit.
# Training and test images share neither digits nor backgrounds.

# %%
train_set = sets.coloured_digits(train_images, "train")
test_set = sets.coloured_digits(test_images, "test")
answers, test_answers = train_set.labels["all labels"], test_set.labels["all labels"]
viz.pictures(
    [(f"a {answers[i]}", train_set.pixels[i, 0]) for i in range(10)],
    "Ten images of 16 by 16 pixels: coloured handwritten digits over dark, blurred backgrounds.",
    height=0.9,
)

# %%
# NBVAL_CHECK_OUTPUT
mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))


def to_images(clips: sets.Clips) -> torch.Tensor:
    """(n, 1, H, W, 3) bytes -> (n, 3, H, W), normalised as models read them."""
    return (torch.from_numpy(clips.pixels[:, 0]).permute(0, 3, 1, 2) / 255 - mean) / std


images, test_in = to_images(train_set), to_images(test_set)
print("an image", tuple(images.shape[1:]), f"from {images.min():.1f} to {images.max():.1f}")

# %% [markdown]
# ## The whole, with a dummy
#
# Everything in this lesson leads up to three lines: encode images, keep one vector of each, and see how well a linear layer reads the digit from it.
# That is a *linear probe* (線性探測), the usual examination for an encoder that is not trained any further. As a dummy, the encoder has random weights, so nothing has been
# learned yet. Guessing gets 10 % of the digits right. What will the probe get? Write a percentage in place of `None`, then run both cells.

# %%
### BEGIN SOLUTION
guess = 20
### INSTEAD
# guess = None  # a percentage
### END SOLUTION
floor = predict("linear probe of an encoder with random weights, in percent", guess)

# %%
sizes = {"img_size": 16, "embed_dim": 64, "num_heads": 4}
sizes |= {"decoder_embed_dim": 32, "decoder_num_heads": 2}
config = ModelConfig.mae(
    "tiny", tubelet=(1, 4, 4), depth=3, decoder_depth=1, normalize_targets=False, **sizes
)
torch.manual_seed(0)
encoder = vit.VisionTransformer(config)  # 1. an encoder, here untrained
# 2. one vector for each image
features = [train.pooled_features(encoder, x, data.Sampling(1)) for x in (train_set, test_set)]
floor.compare(train.linear_probe(*features))  # 3. fit on training images, judged on test images
print("features of the training images:", features[0][0].shape)

# %% [markdown]
# A good half, from a network that knows nothing. A random network still mixes pixels into 64 numbers that differ from image to image, and with four thousand labels a
# linear layer makes much of them. So this is the *floor* (隨機權重基準): whoever reports a probe without it reports little. Now replace the dummy.
#
# ## The model
#
# It is lesson 02's MAE on a small scale: 16 patches of 4x4 pixels, of which 4 are visible.

# %%
diagrams.mae(config)

# %% [markdown]
# *Figure: MAE at the size of this lesson. The diagram always shows the cat, here cut into 16 patches.*
#
# ### Exercise 1 · the MAE on one screen
#
# **Difficulty** ●●● · **about 15 minutes** · build a module
#
# In lesson 02 you built the model in four parts. Write it once more in a single method, without looking, if you dare; or paste your parts together. What you write here is what will be
# trained. `MAEParts` holds the parameters under their official names, with `self.embed` and `self.patchify`, and `take` picks tokens, all as in lesson 02.
#
# - encoder: embed, add `self.pos_embed[:, 1:]`, keep `int(N * (1 - ratio))` patches (those with the smallest noise), prepend `self.cls_token + self.pos_embed[:, :1]`,
#   then `self.blocks`, `self.norm`;
# - decoder: `self.decoder_embed`, mask tokens, original order, `self.decoder_pos_embed`, `self.decoder_blocks`, `self.decoder_norm`, `self.decoder_pred`;
# - loss: mean squared error of raw pixels over the hidden patches.
#
# It must also work with a ratio of 1, when the encoder reads the class token alone.

# %%
take = grid.gather_tokens  # rows `index` (B, K) of tokens (B, N, D): (B, K, D)


class MAE(notebook_02.MAEParts):
    def forward(
        self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss, predicted (B, N, P) and hidden (B, N) bool.

        images (B, 3, H, W) normalised; noise (B, N), the smallest of which stay visible
        """
        ### BEGIN SOLUTION
        x = self.embed(images) + self.pos_embed[:, 1:]  # (B, N, D)
        ids_shuffle = noise.argsort(dim=1)
        ids_restore = ids_shuffle.argsort(dim=1)
        keep = int(x.shape[1] * (1 - ratio))
        x = take(x, ids_shuffle[:, :keep])  # (B, V, D)
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat((class_token, x), dim=1)  # (B, 1 + V, D)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))  # (B, 1 + V, E)
        missing = self.mask_token.expand(len(x), noise.shape[1] - keep, -1)
        full = take(torch.cat((x[:, 1:], missing), dim=1), ids_restore)  # (B, N, E)
        x = torch.cat((x[:, :1], full), dim=1) + self.decoder_pos_embed  # (B, 1 + N, E)
        for block in self.decoder_blocks:
            x = block(x)
        predicted = self.decoder_pred(self.decoder_norm(x))[:, 1:]  # (B, N, P)
        hidden = ids_restore >= keep  # (B, N)
        error = (predicted - self.patchify(images)).square().mean(dim=-1)  # (B, N)
        return (error * hidden).sum() / hidden.sum(), predicted, hidden
        ### END SOLUTION


MAE = check("03.MAE", MAE)

# %% [markdown]
# <details><summary>Hint 1</summary>Follow one patch. It is embedded, gets its position, is shuffled to the front or dropped, and later returns to its index through `ids_restore = ids_shuffle.argsort(dim=1)`.</details>
# <details><summary>Hint 2</summary>After `decoder_embed`, `x[:, :1]` is the class token, and `x[:, 1:]` are the visible patches in shuffled order. Append mask tokens to those, and `take` with `ids_restore`.</details>
# <details><summary>Solution</summary>
#
# ```python
# x = self.embed(images) + self.pos_embed[:, 1:]  # (B, N, D)
# ids_shuffle = noise.argsort(dim=1)
# ids_restore = ids_shuffle.argsort(dim=1)
# keep = int(x.shape[1] * (1 - ratio))
# x = take(x, ids_shuffle[:, :keep])  # (B, V, D)
# class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
# x = torch.cat((class_token, x), dim=1)  # (B, 1 + V, D)
# for block in self.blocks:
#     x = block(x)
# x = self.decoder_embed(self.norm(x))  # (B, 1 + V, E)
# missing = self.mask_token.expand(len(x), noise.shape[1] - keep, -1)
# full = take(torch.cat((x[:, 1:], missing), dim=1), ids_restore)  # (B, N, E)
# x = torch.cat((x[:, :1], full), dim=1) + self.decoder_pos_embed  # (B, 1 + N, E)
# for block in self.decoder_blocks:
#     x = block(x)
# predicted = self.decoder_pred(self.decoder_norm(x))[:, 1:]  # (B, N, P)
# hidden = ids_restore >= keep  # (B, N)
# error = (predicted - self.patchify(images)).square().mean(dim=-1)  # (B, N)
# return (error * hidden).sum() / hidden.sum(), predicted, hidden
# ```
#
# </details>


# %%
# NBVAL_CHECK_OUTPUT
def build(seed: int, depth: int = 3, decoder_depth: int = 1) -> MAE:
    """Your MAE, with random weights."""
    torch.manual_seed(seed)
    return MAE(**sizes, patch_size=4, depth=depth, decoder_depth=decoder_depth)


model = build(0)
package = mae.MaskedAutoencoder(config)
loss, predicted, hidden = model(images[:5], torch.rand(5, 16))
trained_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
assert isinstance(model, MAE) and trained_parameters == cost.parameters(package)
print(f"{trained_parameters:,} parameters to train, as in the package's model")
print("predicted", tuple(predicted.shape), "hidden", hidden.sum(dim=1).tolist())

# %% [markdown]
# ## The learning rate
#
# *Warm-up* (預熱): in the first steps the *learning rate* (學習率) rises linearly, while the optimiser is still finding out how large gradients are. Then it follows half a *cosine* (餘弦衰減) down to 0.
# The official code starts from 0, so its very first step changes no weight. The package starts one step up the ramp, at 1 / warmup of the peak, and so will you.
#
# Papers state a base rate for a batch of 256. The *linear scaling rule* (線性縮放規則) says lr = blr · batch / 256 (MAE, appendix A.1).
#
# ### Exercise 2 · the schedule
#
# **Difficulty** ●●○ · **about 10 minutes** · write a function


# %%
def learning_rates(steps: int, warmup: int, base: float, batch: int) -> list[float]:
    """The learning rate at every step of a run.

    The peak is base·batch / 256. Warm-up: 1 / warmup of it at step 0, all of it at step warmup - 1.
    Then half a cosine, which begins at step `warmup` and would reach 0 at step `steps`.
    """
    ### BEGIN SOLUTION
    peak = base * batch / 256
    rates = []
    for step in range(steps):
        progress = (step - warmup) / (steps - warmup)
        cosine = 0.5 * (1 + np.cos(np.pi * progress))
        rates.append(peak * ((step + 1) / warmup if step < warmup else cosine))
    return rates
    ### END SOLUTION


learning_rates = check("03.learning_rates", learning_rates)

# %% [markdown]
# <details><summary>Hint 1</summary>Scale the base rate first. Then there are two cases, before and after the end of the warm-up.</details>
# <details><summary>Hint 2</summary>After the warm-up, progress is (step - warmup) / (steps - warmup). The cosine of pi times it runs from 1 to -1.</details>
# <details><summary>Solution</summary>
#
# ```python
# peak = base * batch / 256
# rates = []
# for step in range(steps):
#     progress = (step - warmup) / (steps - warmup)
#     cosine = 0.5 * (1 + np.cos(np.pi * progress))
#     rates.append(peak * ((step + 1) / warmup if step < warmup else cosine))
# return rates
# ```
#
# </details>
#
# The package's schedule must agree at every step.

# %%
warmup = max(1, round(0.1 * steps))
rates = [float(rate) for rate in learning_rates(steps, warmup, blr, batch)]
optim = train.OptimConfig(
    steps=steps, batch_size=batch, lr=blr, base_batch_size=256, warmup_ratio=warmup / steps
)
theirs = [train.learning_rate(k, optim.resolved(train_images)) for k in range(steps)]
assert np.allclose(rates, theirs)
viz.lines(
    range(steps),
    {f"batch {b}": learning_rates(steps, warmup, blr, b) for b in (batch, 2 * batch)},
    "Two schedules: each rises linearly, then falls along half a cosine; twice the batch has twice the rate.",
    xlabel="step",
    ylabel="learning rate",
)

# %% [markdown]
# ## Weight decay
#
# *Weight decay* (權重衰減) pulls weights towards 0 at every step. That keeps matrices from growing, but a bias or the scale of a norm has a job to do far from 0, so neither MAE nor VideoMAE decays
# these vectors. The mask token is a special case: a vector, but stored with three axes, (1, 1, E). VideoMAE exempts it by name. MAE's code exempts nothing by name, so its mask and class tokens *do* decay.
# The package follows each for its own family.
#
# ### Exercise 3 · which parameters decay
#
# **Difficulty** ●○○ · **about 5 minutes** · write a function


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
# <details><summary>Hint 1</summary>The number of axes distinguishes matrices from vectors. A token has three axes, so it decays unless it is exempt.</details>
# <details><summary>Hint 2</summary>`shapes.items()` gives the names with their shapes; `name not in exempt` is the second condition.</details>
# <details><summary>Solution</summary>
#
# ```python
# return [name for name, shape in shapes.items() if len(shape) > 1 and name not in exempt]
# ```
#
# </details>
#
# AdamW gets two groups of parameters, one with weight decay and one without.


# %%
# NBVAL_CHECK_OUTPUT
def optimizer_of(model: MAE) -> torch.optim.AdamW:
    """AdamW as published: weight decay 0.05 on matrices, betas 0.9 and 0.95."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    names = set(decayed({name: tuple(p.shape) for name, p in named.items()}, exempt=set()))
    groups = [
        {"params": [p for n, p in named.items() if n in names], "weight_decay": 0.05},
        {"params": [p for n, p in named.items() if n not in names], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))


counts = [len(group["params"]) for group in optimizer_of(model).param_groups]
theirs = {g["weight_decay"]: len(g["params"]) for g in train.parameter_groups(package, optim)}
assert counts == [theirs[0.05], theirs[0.0]]
print(f"{counts[0]} of {sum(counts)} parameters decay")

# %% [markdown]
# ## The loop
#
# All of pre-training fits into one sentence: draw images, draw masks, compute the loss, take a step, repeat. Labels do not occur in it.
#
# ### Exercise 4 · pre-training
#
# **Difficulty** ●●○ · **about 15 minutes** · build a training loop
#
# Take one step for every learning rate: choose `batch` images at random, draw noise (`model.grid.num_tokens` numbers for each image), call the model, set the learning rate in every one of
# `optimizer.param_groups` (`group["lr"] = lr`), and update the weights. Draw all random numbers from `generator`, so that the same seed gives the same run.


# %%
def pretrain(
    model: torch.nn.Module,
    images: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    rates: list[float],
    batch: int,
    ratio: float,
    generator: torch.Generator,
) -> list[float]:
    """One step for each learning rate; returns the loss of each step, as floats.

    images     (n, 3, H, W), all of them; a step uses `batch`
    ratio      share of the patches that are hidden
    generator  of all random numbers, such as torch.rand(2, 3, generator=generator)
    """
    ### BEGIN SOLUTION
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
    ### END SOLUTION


pretrain = check("03.pretrain", pretrain)

# %% [markdown]
# <details><summary>Hint 1</summary>`torch.randint(n, (batch,), generator=generator)` draws indices, and `images[indices]` is the batch. The noise has shape (batch, N): a mask of its own for every image.</details>
# <details><summary>Hint 2</summary>The order within a step: forward pass, `zero_grad`, `backward`, rate, `step`. Keep `loss.item()`; the tensor would hold on to its whole graph.</details>
# <details><summary>Solution</summary>
#
# ```python
# losses = []
# for lr in rates:
#     chosen = torch.randint(len(images), (batch,), generator=generator)
#     noise = torch.rand(batch, model.grid.num_tokens, generator=generator)
#     loss, _, _ = model(images[chosen], noise, ratio)
#     for group in optimizer.param_groups:
#         group["lr"] = lr
#     optimizer.zero_grad()
#     loss.backward()
#     optimizer.step()
#     losses.append(loss.item())
# return losses
# ```
#
# </details>
#
# The package's `train.pretrain` is this loop, with checkpoints, a log and several devices around it.
#
# ## Pre-training
#
# Your model, your schedule, your groups, your loop. Seeds differ in the initial weights, the order of the images and the masks. The loop runs in pieces, so that the model can be looked at on the way.


# %%
def pretrained(seed: int, **depths: int) -> tuple[dict[int, MAE], list[float]]:
    """The model after 0 steps, after `looks` and at the end; and the losses."""
    model, g = build(seed, **depths), torch.Generator().manual_seed(seed)
    optimizer = optimizer_of(model)
    kept, losses = {0: copy.deepcopy(model)}, []
    for start, end in pairwise((0, *looks, steps)):
        losses += pretrain(model, images, optimizer, rates[start:end], batch, 0.75, g)
        kept[end] = copy.deepcopy(model)
    return kept, losses


runs, curves = {}, {}
for seed in viz.track(range(seeds), seeds, "runs"):
    runs[seed], curves[seed] = pretrained(seed)
assert all(len(losses) == steps and np.isfinite(losses).all() for losses in curves.values())

# %% [markdown]
# With normalised targets, a loss of 1 means that nothing has been learned. Raw pixels have no such fixed number, so we compute two baselines: the error of one grey for all images, and that of the mean
# colour of each image's visible patches.

# %%
patches = runs[0][0].patchify(test_in)  # (n, 16, 48)
noise = torch.rand(len(test_in), 16, generator=torch.Generator().manual_seed(0))
hidden = noise.argsort(dim=1).argsort(dim=1) >= 4  # (n, 16)
colours = patches.unflatten(-1, (16, 3)).mean(2)  # (n, 16, 48) -> (n, 16, 3): one per patch
visible = (colours * ~hidden[..., None]).sum(1, keepdim=True) / 4  # (n, 1, 3)
baselines = {"one grey": patches.mean(), "mean visible colour": visible.repeat(1, 1, 16)}
levels = {name: (x - patches)[hidden].square().mean().item() for name, x in baselines.items()}

chunk = max(1, steps // 60)  # steps per point of the curve
means = {f"seed {s}": np.array(x[: steps // chunk * chunk]) for s, x in curves.items()}
viz.lines(
    range(0, steps // chunk * chunk, chunk),
    {name: x.reshape(-1, chunk).mean(1).tolist() for name, x in means.items()},
    "Training loss over steps: each seed falls quickly below the levels of one grey and of the mean "
    "visible colour, then slowly further.",
    xlabel="step",
    ylabel="loss, raw pixels",
    levels=levels,
)


# %%
@torch.no_grad()
def loss_on(model: MAE, images: torch.Tensor) -> float:
    """The loss with the same masks for every model."""
    return model(images, noise[: len(images)])[0].item()


final = runs[0][steps]
for name, value in levels.items():
    print(f"{name:22} {value:.2f}")
print(f"{'MAE, training images':22} {loss_on(final, images[: len(noise)]):.2f}")
print(f"{'MAE, unseen images':22} {loss_on(final, test_in):.2f}")

# %% [markdown]
# On images that it has never seen the model does nearly as well as on those it was trained on. It has not *memorised* (記憶) them, as lesson 02's did with its cat. With new masks at
# every step it has hardly met the same puzzle twice. (The mean visible colour, a good guess for lesson 02's cat, is worse here than one grey: it depends on how much of
# the digit the four visible patches happen to show.)
#
# ## The mask token, while it learns
#
# At first the mask token is a random vector, and so is everything that the decoder makes of it. Below are seven test images after more and more steps, with the same masks. In the last column
# *nothing* is visible: the encoder reads the class token alone, so this is what mask tokens and positions predict by themselves.


# %%
def to_picture(patches: torch.Tensor) -> torch.Tensor:
    """Patches (N, P) as the model predicts them, as a picture in [0, 1]."""
    return (final.unpatchify(patches[None])[0] * std + mean).clamp(0, 1)


quarter = torch.where(hidden[:7, :, None], 0, patches[:7])
shown = [("visible", to_picture(x)) for x in quarter] + [("nothing", torch.full((3, 16, 16), 0.5))]
with torch.no_grad():
    for step, snapshot in runs[0].items():
        _, predicted, _ = snapshot(test_in[:7], noise[:7])
        pasted = torch.where(hidden[:7, :, None], predicted, patches[:7])
        _, alone, _ = snapshot(test_in[:1], noise[:1], 1.0)
        shown += [(f"step {step}", to_picture(x)) for x in (*pasted, alone[0])]
shown += [("original", to_picture(x)) for x in patches[:7]]
viz.pictures(
    shown,
    "Rows: the visible quarter of seven digits; the same with hidden patches predicted after 0, 50, 300 "
    "and all steps; the originals. The last column, predicted from nothing, ends as a blurred mixture.",
    height=0.85,
    columns=8,
)

# %% [markdown]
# First noise. After 50 steps the noise is dimmer, and the same for every image: the decoder has learned how bright pixels are on average, and does not yet listen to the encoder. After 300 there is a blob where digits lie, in the colour of
# what is visible; in the end there are strokes, blurred where several digits would fit. From nothing, the model predicts a mixture of digits in the middle. Its shape and colour differ from run to run, since no training step ever hid everything.
# The token itself remains one vector for every hidden patch. What it learns is to be a good starting point, a neutral "fill me in".

# %%
for step, snapshot in runs[0].items():
    token, start = snapshot.mask_token.flatten(), runs[0][0].mask_token.flatten()
    alike = torch.cosine_similarity(token, start, dim=0)
    print(f"step {step:5}: length {token.norm():.2f}, similarity to its beginning {alike:.2f}, "
          f"loss {loss_on(snapshot, test_in):.2f}")  # fmt: skip

# %% [markdown]
# ## From pre-training to use
#
# After pre-training the decoder is thrown away, and the encoder's weights are copied by name into a model for the task. Here that is the package's vision transformer, which reads clips: to it, an image is a
# clip of one frame. Now the official names pay off, and a silent bug is waiting.
#
# ### Exercise 5 · the bug
#
# **Difficulty** ●●○ · **about 10 minutes** · find the bug
#
# A colleague pre-trained on several GPUs. `DistributedDataParallel` wraps the model, so every name in her checkpoint starts with `module.`, as in `module.blocks.0.norm1.weight`. The program below
# should load the encoder and skip the decoder. It runs without a warning, and the probe then gives *exactly* what random weights give. Find out why, and fix it. The check accepts every program
# that loads all of the encoder's weights; a good one also raises an error when one of them is missing, so that this cannot happen silently again.


# %%
def load_encoder(
    encoder: vit.VisionTransformer, checkpoint: dict[str, torch.Tensor]
) -> vit.VisionTransformer:
    """Copy an MAE's encoder from a checkpoint, and return it.

    checkpoint   MAE's weights; `patch_embed.proj.weight` is (D, 3, p, p), the encoder's (D, 3, 1, p, p)
    """
    own = encoder.state_dict()
    ### BEGIN SOLUTION
    weights = {name.removeprefix("module."): x for name, x in checkpoint.items()}
    weights = {name: weights[name].reshape(x.shape) for name, x in own.items()}
    encoder.load_state_dict(weights)
    ### INSTEAD
    # weights = {name: x.reshape(own[name].shape) for name, x in checkpoint.items() if name in own}
    # encoder.load_state_dict(weights, strict=False)
    ### END SOLUTION
    return encoder


load_encoder = check("03.load_encoder", load_encoder)

# %% [markdown]
# <details><summary>Hint 1</summary>Print `len(weights)`. What does `strict=False` do with a weight that is missing?</details>
# <details><summary>Hint 2</summary>`"module.norm.bias".removeprefix("module.")` is `"norm.bias"`. And if you loop over the names in `own`, a missing one raises KeyError.</details>
# <details><summary>Solution</summary>
#
# ```python
# weights = {name.removeprefix("module."): x for name, x in checkpoint.items()}
# weights = {name: weights[name].reshape(x.shape) for name, x in own.items()}
# encoder.load_state_dict(weights)
# ```
#
# Any prefix will do it: `torch.compile` adds `_orig_mod.`, other libraries `encoder.` or `backbone.`. Without `strict=False`, PyTorch would have listed every name that did not fit.
#
# </details>


# %%
def encoder_of(model: MAE) -> vit.VisionTransformer:
    """Your MAE's encoder as the package's vision transformer."""
    checkpoint = {f"module.{name}": x for name, x in model.state_dict().items()}
    encoder = vit.VisionTransformer(config.replace(depth=len(model.blocks)))
    return load_encoder(encoder, checkpoint).eval()


for name, x in encoder_of(final).state_dict().items():
    assert torch.equal(x.flatten(), final.state_dict()[name].flatten()), name
print("every weight of the encoder has arrived")

# %% [markdown]
# ## Features
#
# Which vector should stand for an image? MAE's probe reads the class token (paper, appendix A.1), on which no loss was ever taken. Its fine-tuning code averages the patch tokens by default. Or one keeps
# all of them. MAE also standardises features before the linear layer, by a BatchNorm without scale and shift.
#
# ### Exercise 6 · standardise without leakage
#
# **Difficulty** ●○○ · **about 5 minutes** · write a function


# %%
def standardize_features(
    train: torch.Tensor, test: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the mean and standard deviation of each feature out of both sets.

    train, test   (n, D) and (m, D); the statistics are those of the training set, and the standard
                  deviation divides by n (correction=0)
    """
    ### BEGIN SOLUTION
    mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
    return (train - mean) / std, (test - mean) / std
    ### END SOLUTION


standardize_features = check("03.standardize_features", standardize_features)

# %% [markdown]
# <details><summary>Hint 1</summary>One mean and one deviation for each of the D features, over the images of the training set.</details>
# <details><summary>Hint 2</summary>The test set is scaled by the same numbers. Its own would be *leakage* (資料洩漏): they are not known for a single new image.</details>
# <details><summary>Solution</summary>
#
# ```python
# mean, std = train.mean(dim=0), train.std(dim=0, correction=0)
# return (train - mean) / std, (test - mean) / std
# ```
#
# </details>


# %%
kinds = {
    "class token": lambda tokens: tokens[:, 0],
    "mean of the patches": lambda tokens: tokens[:, 1:].mean(1),
    "all patches": lambda tokens: tokens[:, 1:].flatten(1),  # (n, N, D) -> (n, N·D)
}


@torch.no_grad()
def tokens_of(model: MAE, images: sets.Clips) -> torch.Tensor:
    """(n, 1 + N, D): all tokens of each image, class token first."""
    clips = torch.from_numpy(images.pixels).permute(0, 4, 1, 2, 3)  # (n, 3, 1, H, W)
    encoder = encoder_of(model)
    return torch.cat([encoder.forward_features(x) for x in clips.split(500)])


def probe(train_features: torch.Tensor, test_features: torch.Tensor) -> float:
    """Accuracy of a linear layer on frozen features, in percent."""
    both = standardize_features(train_features, test_features)
    pairs = zip(both, (answers, test_answers), strict=True)
    return train.linear_probe(*((x.numpy(), y) for x, y in pairs), strength=0.1)


def probes(model: MAE, *names: str) -> dict[str, float]:
    """By kind of feature."""
    both = [tokens_of(model, x) for x in (train_set, test_set)]
    return {name: probe(*(kinds[name](x) for x in both)) for name in names}


both = [x.flatten(1) for x in (images, test_in)]
scaler = StandardScaler().fit(both[0])
assert np.allclose(standardize_features(*both)[1], scaler.transform(both[1]), atol=1e-3)
from_pixels = probe(*both)

# %%
before = [probes(runs[seed][0], *kinds) for seed in range(seeds)]
after = [probes(runs[seed][steps], *kinds) for seed in range(seeds)]
rows = []
for name, width in {"class token": 64, "mean of the patches": 64, "all patches": 16 * 64}.items():
    low, high = (np.mean([found[name] for found in x]) for x in (before, after))
    rows.append(
        {"features": name, "numbers": width, "random": low, "pre-trained": high, "gain": high - low}
    )
rows.append(
    {"features": "the pixels", "numbers": 768, "random": from_pixels, "pre-trained": "", "gain": ""}
)
viz.table(
    rows,
    f"Linear probes: test accuracy in percent, mean of {seeds} seeds. The pixels need no encoder.",
)

# %% [markdown]
# Read the table without mercy. (Its floors are lower than the 59 % above mainly because these probes are regularised ten times as strongly, with `strength=0.1`.) Pre-training raises every row. The class token, never addressed by the loss, is the poorest summary; averaging does better. But the honest opponent is the last row: *pixels*, with no network at
# all, beat every summary of 64 numbers. These digits are centred and upright, so that a pixel means the same thing in every image, and a linear layer needs nothing more. With all patches the encoder does
# better than its own input, but so does a random one, by about half as much.
#
# So is the task too easy to need an encoder? With four thousand labels, yes. That is why self-supervised learning is usually tested with few.
#
# ## Encoding or decoding
#
# MAE gives most of its depth to the encoder, and it is often said that decoding is the easier half. Let us test that: begin with one block on each side and add two more, either to the encoder or to the decoder. At these
# sizes both cost almost the same. Which of the two will reconstruct better?

# %%
# NBVAL_CHECK_OUTPUT
depths = {"1 + 1": (1, 1), "encoder deeper: 3 + 1": (3, 1), "decoder deeper: 1 + 3": (1, 3)}
for name, (depth, decoder_depth) in depths.items():
    shape = config.replace(depth=depth, decoder_depth=decoder_depth)
    total = cost.pretraining_multiply_adds(shape, MaskConfig("random", 0.75))["total"]
    print(f"{name:22} {total / 1e6:.2f} M multiply-adds per image")

# %%
### BEGIN SOLUTION
guess = "encoder"
### INSTEAD
# guess = None  # "encoder" or "decoder"
### END SOLUTION
sides = ("encoder", "decoder")
lower = predict("the smaller reconstruction error comes from a deeper", guess, sides)

# %%
trials = {"encoder deeper: 3 + 1": [runs[seed] for seed in range(seeds)]}
for name in ("1 + 1", "decoder deeper: 1 + 3"):
    depth, decoder_depth = depths[name]
    tracked = viz.track(range(seeds), seeds, name)
    trials[name] = [pretrained(s, depth=depth, decoder_depth=decoder_depth)[0] for s in tracked]

# %%
rows, errors = [], {}
for name in depths:
    kind = "mean of the patches"
    ends = [run[steps] for run in trials[name]]
    errors[name] = np.mean([loss_on(model, test_in) for model in ends])
    low = np.mean([probes(run[0], kind)[kind] for run in trials[name]])
    high = [probes(model, kind)[kind] for model in ends]
    rows.append({
        "blocks, encoder + decoder": name, "error on unseen images": f"{errors[name]:.3f}",
        "probe": np.mean(high), "each seed": ", ".join(f"{x:.1f}" for x in high), "random weights": low,
    })  # fmt: skip
lower.compare(
    "encoder" if errors["encoder deeper: 3 + 1"] < errors["decoder deeper: 1 + 3"] else "decoder"
)
viz.table(
    rows, "Two more blocks, in the encoder or in the decoder. Probe: mean of the patches, percent."
)

# %% [markdown]
# The deeper decoder reconstructs better; the deeper encoder hardly moves the error. At this size, then, decoding is *not* the easier half: with four visible patches there is little to encode, and most of the work is to spread
# it over twelve hidden ones. The probes differ by no more than the seeds do, so two seeds cannot rank the depths. Nor does the smaller error settle it: what is kept is the encoder, and it is one block
# against three. The paper's models are another matter, with 49 visible patches and 12 or more encoder blocks; there it reports that even one decoder block fine-tunes well. A claim about depth needs its
# scale beside it, and lesson 06 measures it again, on video.
#
# ## Few labels
#
# *Fine-tuning* (微調) trains the encoder too, with labels. Suppose that only 50 images per class have one. Start from your pre-trained encoder, or *from scratch* (從頭訓練), with the same images and as many steps. An earlier version of this
# lesson stopped both after 150 steps and reported a huge gain from pre-training. Was that fair? Predict what happens to the gain when both train eight times as long.

# %%
### BEGIN SOLUTION
guess = "shrinks"
### INSTEAD
# guess = None  # "grows", "stays" or "shrinks"; a change below 3 points counts as "stays"
### END SOLUTION
question = "with eight times the steps for both, the gain from pre-training"
change = predict(question, guess, ("grows", "stays", "shrinks"))

# %%
sources = train.Sources(tuple("0123456789"), train_set, test_set)
starts = {"from scratch": None, "pre-trained": encoder_of(final)}
tuned = {}
for count in viz.track(tune_steps, len(tune_steps), "fine-tuning"):
    tuning = train.OptimConfig(
        steps=count, batch_size=batch, lr=1e-3, betas=(0.9, 0.999), warmup_ratio=0.1, clip_grad=None
    )
    recipe = train.FinetuneConfig(model=config, optim=tuning, labels_per_class=labels, device="cpu")
    for name, start in starts.items():
        tuned[name, count] = train.finetune(recipe, sources, start).test.accuracy

# %%
few, many = tune_steps
gains = {n: tuned["pre-trained", n] - tuned["from scratch", n] for n in tune_steps}
moved = gains[many] - gains[few]
change.compare("stays" if abs(moved) < 3 else "grows" if moved > 0 else "shrinks")
viz.bars(
    {f"{name}, {count:,} steps": [x] for (name, count), x in tuned.items()},
    f"Test accuracy after fine-tuning on {labels} labels per class: from scratch and pre-trained, after "
    "few and many steps.",
    chance=10,
)
print(f"gain after {few:,} steps: {gains[few]:.1f} points; after {many:,}: {gains[many]:.1f}")

# %% [markdown]
# It was not fair. After few steps the encoder from scratch has hardly begun, and pre-training looks like a miracle. Given more steps, scratch catches up on most of the difference. A gain over an *undertrained* baseline measures a head start, not
# what was learned. One seed at two lengths cannot tell what would be left in the end.
#
# ### Both at their plateau
#
# The course's experiment on labels asks the same question properly (`data/experiments/README.md`). For each start and each number of labels, training lasts 300 steps, then 600, 1,200 and so on. It ends when a doubling, of 600 steps or more, gains less
# than 2 points. The learning rate is searched for both starts, on images kept for this purpose. There a start has reached its *plateau* (平台期). Only then are the seeds compared.

# %%
found = {"images": results.load("images")}
label_figures.labels_and_steps("labels", "images", found)

# %% [markdown]
# *Figure: the plateau of both starts by number of labels, one point per seed, beside linear probes (left); how accuracy rises with the steps (right).*
#
# For each number of labels, whether pre-training *holds* its lead: the 95 % interval of the difference, seed by seed, must exclude zero.

# %%
for claim in table.EXPERIMENTS["labels"].claims:
    if claim.set == "images":
        print(verdicts.judgement("labels", claim, found))

# %% [markdown]
# Look for two places: where the gain is largest, and where it ends. With enough labels, training from scratch should catch up, because labels can teach what pre-training taught. "Inconclusive" means that these seeds cannot decide. Here the lead holds at 5, 20 and 100 labels per class. At 10 and at 50, pre-training is ahead on average too, but scratch varies so much that three seeds cannot decide. With all labels nothing is left of the lead: the gain ends beyond 100 labels. One arm is not at its plateau: at 50 labels, scratch still gained 4.6 points from its last doubling, to 9,600 steps, so the lead of pre-training there could only shrink.
#
# ## Open questions
#
# **1.** Pixels beat the class token here. On which images would they not, and how would you change this data set so that a probe of pixels fails while a good encoder's does not?
#
# <details><summary>What a good answer contains</summary>
#
# A linear layer on pixels needs every pixel to mean the same thing everywhere. Shift, scale or rotate the digits, or let backgrounds be as bright as the ink, and it fails; photographs do all of this. Then features must be *invariant*
# to such changes. An answer should also say how to check: probe pixels, random weights and the pre-trained encoder on the changed images, with several seeds, and expect all three to fall. It is a prediction, not
# yet a result.
#
# </details>
#
# **2.** A smaller loss or a better probe: which of them would you use to choose between two pre-trainings, and when may you look at the loss?
#
# <details><summary>What a good answer contains</summary>
#
# The loss measures reconstruction, the probe what is left when the decoder is gone. Losses are comparable only for the same targets, masks and images, for
# example to see whether a run is still improving or has diverged. To choose a model, use the task, or a probe close to it, on data kept for that; choosing on the test images would leak them.
#
# </details>
#
# ## Published and used here
#
# | paper | where | cell | value here | why smaller |
# |---|---|---|---|---|
# | random masks, 75 % | MAE, section 3 | exercise 1 | 12 of 16 patches | images of 16x16 |
# | lr = blr · batch / 256, warm-up, cosine | MAE, appendix A.1 | exercise 2 | blr 1.2e-2, batch 64 | few steps, so a higher rate than 1.5e-4 |
# | AdamW, weight decay 0.05, betas 0.9, 0.95 | MAE, appendix A.1 | exercise 3 | the same | as published |
# | 800 to 1600 epochs of ImageNet | MAE, section 4 | "Pre-training" | 1,500 steps of 64, or 24 epochs of 4,000 images | minutes on two cores |
# | raw or normalised targets | MAE, section 4 | "The model" | raw | normalised ones are for lesson 06 |
# | linear probe with BatchNorm and LARS | MAE, appendix A.1 | exercise 6 | standardised, logistic regression | few images |
# | depth of the decoder | MAE, section 4 | "Encoding or decoding" | 1 or 3 blocks | small models, two seeds |
# | fine-tuning, all labels | MAE, appendix A.1 | "Few labels" | 50 per class; 5 to all in the experiment | the question is about few |
#
# ## What you can do now
#
# - pre-train an MAE with a loop of your own, and know what its loss should be compared with;
# - set learning rate, warm-up and weight decay as the papers do;
# - move an encoder into another model, and notice when nothing was loaded;
# - examine features beside a floor and beside the pixels, and distrust a baseline that was stopped early.
#
# ## Terms of this lesson
#
# | term | 中文 | meaning |
# |---|---|---|
# | plateau | 平台期 | where more steps no longer help |
# | pre-training | 預訓練 | training without labels, before the task |
# | learning rate | 學習率 | size of an optimiser's step |
# | warm-up | 預熱 | the steps in which the learning rate rises |
# | cosine decay | 餘弦衰減 | the learning rate falls along half a cosine |
# | linear scaling rule | 線性縮放規則 | the learning rate grows with the batch |
# | weight decay | 權重衰減 | weights are pulled towards 0 |
# | memorise | 記憶 | learn the training images, and nothing about others |
# | linear probe | 線性探測 | a linear layer on frozen features |
# | floor | 隨機權重基準 | what a probe finds in random weights |
# | leakage | 資料洩漏 | test data that influence the training |
# | fine-tuning | 微調 | training all weights on the task |
# | from scratch | 從頭訓練 | starting from random weights |
