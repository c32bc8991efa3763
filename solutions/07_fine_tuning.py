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
# # 07 · Fine-tuning
#
# Pre-training has given an encoder that can paint. This lesson makes a classifier of it: what is kept and what is dropped, how it is trained
# gently, and how it is tested. At its end you load, test and export weights in the official layout.
#
# Measured: the solution run takes half a minute and 0.7 GB, with one thread of two CPU cores; rendering its videos, once, comes on top.
# There are four exercises, about half an hour in all.

# %% tags=["parameters"]
checkpoint = "data/tiny"  # the pre-trained model that ships
train_videos = 80  # to render
test_videos = 400
labels = 10  # a class, for fine-tuning
steps = 100  # of each fine-tuning
seed = 0

# %% [markdown]
# ## Set-up

# %%
import json
import os
import time
import warnings
from pathlib import Path

import torch
from ipywidgets import IntSlider
from safetensors.torch import load_file

import vmae
from vmae import data, train
from vmae.config import ModelConfig
from vmae.course.lessons import check, making, viz
from vmae.layers import DropPath
from vmae.predict import predict
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, load, load_encoder, save

os.chdir(vmae.ROOT)
torch.set_num_threads(1)  # the model is small: threads would wait for each other
started = time.perf_counter()

# %% [markdown]
# ## The task
#
# Photos and film frames drift in eight directions; the direction is the label. The videos have 24 frames, the model reads clips of 8.
# What a test video shows never appears in training.

# %%
plan = train.Recipe.load("evening")
spec = data.with_sizes(
    data.spec_named("motion-textures-small"), train=train_videos, test=test_videos, frames=24
)
path = f"data/motion-textures-24-{train_videos}-{test_videos}"
making.render_set(path, spec, workers=1)  # once; the next run finds it
plan = plan.changed(
    {"data.path": path, "data.num_workers": 0},
    finetune={"labels_per_class": labels, "optim.steps": steps, "seed": seed, "log_every": 5},
)
tune = plan.finetune
sources = train.open_sources(tune)
sampling = data.Sampling.of(tune.data, tune.model.num_frames)
sample = next(data.ordered_batches(sources.test, sampling, batch=8))
names = [sources.classes[label] for label in sample.labels]
viz.film_strips(
    {names[i]: sample.clips[i] for i in range(3)},
    "Three test clips of eight frames, one row each: textures that drift right, down-right and down.",
)

# %% [markdown]
# ## The whole, with dummy parts
#
# A *classifier* (分類器) of clips is short: embed the *tokens* (詞元), run the blocks, average, normalise, one linear layer. Here the weights are random and there is no block.

# %%
# NBVAL_CHECK_OUTPUT
g = torch.Generator().manual_seed(seed)
tokens = torch.rand(8, 64, 2 * 4 * 4 * 3, generator=g)  # 8 clips, 4·4·4 tubelets
x = tokens @ torch.randn(96, 64, generator=g)  # dummy encoder: (8, 64, 96) -> (8, 64, 64)
pooled = x.mean(dim=1)  # (8, 64, 64) -> (8, 64)
logits = pooled @ torch.randn(64, 8, generator=g)  # dummy head: (8, 64) -> (8, 8)
for name, value in {"tokens": tokens, "encoded": x, "pooled": pooled, "logits": logits}.items():
    print(f"{name:8} {tuple(value.shape)}")
assert logits.shape == (8, len(sources.classes))

# %% [markdown]
# *Mean pooling* (平均池化) is the third line. VideoMAE has no *class token* (分類詞元) to read from, in pre-training or later. MAE has one.
#
# ## What the file holds
#
# The shipped file is a whole autoencoder. Which of its tensors does a classifier need?

# %%
# NBVAL_CHECK_OUTPUT
autoencoder = load(checkpoint)
file = autoencoder.state_dict()
parts: dict[str, list[int]] = {}
for name, tensor in file.items():
    words = name.split(".")
    part = ".".join(words[:2]) if words[0] in ("encoder", "decoder") else words[0]
    parts.setdefault(part, []).append(tensor.numel())
for part, sizes in parts.items():
    print(f"{part:20} {len(sizes):3} tensors {sum(sizes):8,} values")

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(seed)
classifier = VisionTransformer(tune.model, len(sources.classes))
fresh = {name: p.clone() for name, p in classifier.state_dict().items()}
print(len(fresh), "tensors; the last:", *list(fresh)[-4:])
print("positions in either file:", any("position" in name for name in {**file, **fresh}))

# %% [markdown]
# | in the file | classifier |
# |---|---|
# | `encoder.patch_embed`, `encoder.blocks` | kept |
# | `encoder.norm` | dropped: it was trained on single tokens; `fc_norm`, after the mean, is new |
# | `encoder_to_decoder`, `mask_token`, `decoder` | dropped |
# | - | `head` is new: no file knows your classes |
#
# *Positions* (位置編碼) are computed, so no file has them.
#
# ### Exercise 1 · the transfer
#
# **Difficulty** ●●○ · **about 8 minutes**


# %%
def transfer(classifier: list[str], file: list[str]) -> dict[str, str]:
    """Where each tensor of the classifier comes from: {its name: name in the file}.

    classifier  names such as "blocks.0.norm1.weight", "fc_norm.bias", "head.weight"
    file        names of a whole autoencoder, perhaps with a head for other classes
    returns     only those that are kept; what starts afresh is left out
    """
    ### BEGIN SOLUTION
    return {own: f"encoder.{own}" for own in classifier if f"encoder.{own}" in file}
    ### END SOLUTION


transfer = check("07.transfer", transfer)

# %% [markdown]
# <details><summary>Hint 1</summary>Go through the classifier's names, not the file's. What would each be called in the file?</details>
# <details><summary>Hint 2</summary>Put `encoder.` before the name, and keep it if the file has that. Neither `fc_norm` nor `head` is found then.</details>
# <details><summary>Solution</summary>
#
# ```python
# return {own: f"encoder.{own}" for own in classifier if f"encoder.{own}" in file}
# ```
#
# </details>

# %%
# NBVAL_CHECK_OUTPUT
kept = transfer(list(fresh), list(file))
classifier.load_state_dict(fresh | {own: file[theirs] for own, theirs in kept.items()})
package = VisionTransformer(tune.model, len(sources.classes))
package.load_state_dict(fresh)
package.load_encoder(autoencoder.encoder)
with torch.no_grad():
    same = torch.equal(classifier(sample.clips), package(sample.clips))
assert same
print(f"{len(kept)} of {len(fresh)} tensors come from the file")
print("new:", *(name for name in fresh if name not in kept))
print("the package's transfer gives the same logits:", same)

# %% [markdown]
# The new head's weights are multiplied by 0.001, as published (`init_scale`). So all classes begin with nearly the same probability, and the first gradients stay small.
#
# ## What the encoder knows already
#
# Nothing has been trained on labels yet. A *linear probe* (線性探測) leaves the encoder frozen and fits one linear classifier on its pooled features. Beside it the same with random weights.

# %%
torch.manual_seed(seed)
encoders = {"pre-trained": autoencoder.encoder, "random weights": VisionTransformer(tune.model)}
chosen = data.few_labels(sources.train.videos, labels, sources.classes, seed)
probes = {}
for name, encoder in encoders.items():
    known, asked = (
        train.pooled_features(encoder, s, sampling) for s in (sources.train, sources.test)
    )
    probes[name] = [train.linear_probe([part[chosen] for part in known], asked)]
viz.bars(
    probes,
    "Two bars: test accuracy of a linear probe on the pre-trained encoder, and on random weights.",
    chance=100 / len(sources.classes),
)

# %% [markdown]
# V1 reports 38.9 % for a probe on Something-Something, and 69.6 % after fine-tuning. The features are good, and they are not yet sorted for a straight line.
#
# ## Where a token looks
#
# *Attention maps* (注意力圖) show how much each token takes from each other. We ask one token of a clip: the marked *tubelet* (時空立方體).
# Below, the weights of the first and of the last block, mean over *heads* (多頭), one picture a step in time.


# %%
def look(clip: int = 0, query: int = 21) -> None:
    """The clip's four steps, and where token `query` looks in the first and the last block."""
    one = sample.clips[clip : clip + 1]
    frames = one[0, :, ::2].float() / 255  # the first frame of each step: (3, 4, 16, 16)
    step, row, column = query // 16, query // 4 % 4, query % 4
    marked = frames.clone()
    marked[:, step, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = torch.tensor(
        [1.0, 0.3, 0.0]
    ).view(3, 1, 1)
    shown = {f"frame {2 * t}": marked[:, t] for t in range(4)}
    for name, layer in {"first": 0, "last": -1}.items():
        weights = autoencoder.encoder.attention_maps(one, layer)[0, :, query].mean(0)  # (64,)
        maps = weights.view(4, 4, 4)  # (t·h·w,) -> (t, h, w)
        shown |= {f"{name}, step {t}": maps[t] for t in range(4)}
    viz.pictures(
        shown,
        f"Four frames of a clip that drifts {names[clip]}, with one token marked; below, where this "
        "token looks in the first and in the last block, one small map a step in time.",
        height=1.2, columns=4, limits=(0, 0.1),
    )  # fmt: skip


look()

# %%
viz.explorer(look, clip=IntSlider(0, min=0, max=7), query=IntSlider(21, min=0, max=63))

# %% [markdown]
# One token proves little. The table takes all test clips of the batch, all tokens and all heads: what share of the attention goes to the token's own step in time, and to others?
# The last row is what attention without any preference would give.

# %%
apart = (torch.arange(64)[:, None] // 16 - torch.arange(64) // 16).abs()  # steps between two tokens
rows = {
    f"block {layer + 1}": autoencoder.encoder.attention_maps(sample.clips, layer).mean((0, 1))
    for layer in range(tune.model.depth)
} | {"even": torch.full((64, 64), 1 / 64)}
shares = {
    name: [weights[apart == d].sum().item() / 64 for d in range(4)]
    for name, weights in rows.items()
}
viz.table(
    [
        {"attention of": name} | {f"{d} steps away, %": 100 * x for d, x in enumerate(row)}
        for name, row in shares.items()
    ]
)
assert all(abs(sum(row) - 1) < 1e-4 for row in shares.values())

# %% [markdown]
# Each row sums to 100. In every block the steps just before and after get more than an even share. That is where a direction can be seen: it lies in no single frame.
#
# ## Gently: layer decay
#
# Early blocks hold what pre-training found, and should change little. *Layer decay* (逐層學習率衰減) gives layer k the share decay^(L + 1 - k) of the rate, where L is the number of blocks.
# Layer 0 is the patch embedding, block i (from 0) is layer i + 1, and what comes after the blocks is layer L + 1. Names look like `blocks.10.mlp.fc1.weight`.
#
# ### Exercise 2 · a parameter's rate
#
# **Difficulty** ●●○ · **about 8 minutes**


# %%
def rate_scale(name: str, depth: int, decay: float) -> float:
    """The share of the learning rate that this parameter gets.

    name    "patch_embed...", "blocks.I....", or what comes after: "fc_norm...", "head..."
    depth   number of blocks
    decay   0.75 in most recipes
    """
    ### BEGIN SOLUTION
    layer = depth + 1
    if name.startswith("patch_embed"):
        layer = 0
    if name.startswith("blocks."):
        layer = int(name.split(".")[1]) + 1
    return decay ** (depth + 1 - layer)
    ### END SOLUTION


rate_scale = check("07.rate_scale", rate_scale)

# %% [markdown]
# <details><summary>Hint 1</summary>Find the layer first, in three cases. `name.split(".")[1]` is a block's number, as text.</details>
# <details><summary>Hint 2</summary>The head must get decay⁰ = 1, the last block decay¹.</details>
# <details><summary>Solution</summary>
#
# ```python
# layer = depth + 1
# if name.startswith("patch_embed"):
#     layer = 0
# if name.startswith("blocks."):
#     layer = int(name.split(".")[1]) + 1
# return decay ** (depth + 1 - layer)
# ```
#
# </details>

# %%
# NBVAL_CHECK_OUTPUT
shown = ("patch_embed.proj.bias", "blocks.0.norm1.bias", "blocks.6.norm1.bias")
shown += ("blocks.11.norm1.bias", "head.bias")
print("ViT-B                  0.65   0.75   0.90")
for name in shown:
    print(f"{name:21}", *(f"{rate_scale(name, 12, d):6.3f}" for d in (0.65, 0.75, 0.9)))
for group in train.parameter_groups(
    classifier, train.OptimConfig(layer_decay=0.75), tune.model.depth
):
    inside = {id(p) for p in group["params"]}
    ours = {rate_scale(n, 4, 0.75) for n, p in classifier.named_parameters() if id(p) in inside}
    assert ours == {group["lr_scale"]}

# %% [markdown]
# With 0.75, the patch embedding of ViT-B moves at about a fortieth of the head's rate. Deep models take a milder decay: 0.9 for ViT-g with its 40 blocks (V2's scripts).
# Our four blocks need none: the recipe says 1.0, for pre-trained and from scratch.
#
# ## Drop path
#
# *Drop path* (隨機深度), or stochastic depth, leaves out a block's branch for some clips of a batch in training. The residual path carries these clips past it.
# What stays is divided by the chance to stay. Why? Eight clips of ones, a rate of 0.25:

# %%
torch.manual_seed(seed)
drop = DropPath(0.25)
print("training:", drop(torch.ones(8, 1, 1)).flatten().numpy().round(2))
print(f"mean of many: {drop(torch.ones(100_000, 1, 1)).mean():.2f}")
print("testing: ", drop.eval()(torch.ones(8, 1, 1)).flatten().numpy())

# %%
# NBVAL_CHECK_OUTPUT
deep = VisionTransformer(ModelConfig.videomae("tiny").replace(depth=12), 8, drop_path=0.1)
rates = [block.drop_path.rate for block in deep.blocks]
print("rates of 12 blocks:", *(f"{rate:.3f}" for rate in rates))
assert rates[0] == 0 and abs(rates[-1] - 0.1) < 1e-9

# %% [markdown]
# A clip's branch is whole or gone, never halved. The mean stays 1, so the test needs no correction. The rate grows from 0 in the first block to its full value in the last.
#
# ## Mixup and smoothing
#
# *Mixup* (混合增強) blends each clip with a partner, and the targets in the same shares. *Label smoothing* (標籤平滑) takes a little from the right class and spreads it over all classes.
# The official code does both at once. Its partner of clip i is clip B - 1 - i: the batch in reverse.
#
# ### Exercise 3 · mix a batch
#
# **Difficulty** ●●○ · **about 8 minutes**


# %%
def mix_batch(
    clips: torch.Tensor, labels: torch.Tensor, classes: int, share: float, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixed clips and mixed, smoothed targets.

    clips      (B, C, T, H, W), float in [0, 1]
    labels     (B,), class numbers
    share      of a clip's own pixels and target; the partner has the rest
    smoothing  spread evenly over all classes, the right one included
    returns    clips (B, C, T, H, W) and targets (B, classes), rows that sum to 1
    """
    ### BEGIN SOLUTION
    hard = torch.nn.functional.one_hot(labels, classes)  # (B,) -> (B, classes)
    soft = hard * (1 - smoothing) + smoothing / classes
    mixed = share * clips + (1 - share) * clips.flip(0)
    return mixed, share * soft + (1 - share) * soft.flip(0)
    ### END SOLUTION


mix_batch = check("07.mix_batch", mix_batch)

# %% [markdown]
# <details><summary>Hint 1</summary>Make the labels one-hot. Then clips and targets are mixed by the same line.</details>
# <details><summary>Hint 2</summary>Smoothed: `hard * (1 - smoothing) + smoothing / classes`. The partner: `x.flip(0)`.</details>
# <details><summary>Solution</summary>
#
# ```python
# hard = torch.nn.functional.one_hot(labels, classes)
# soft = hard * (1 - smoothing) + smoothing / classes
# mixed = share * clips + (1 - share) * clips.flip(0)
# return mixed, share * soft + (1 - share) * soft.flip(0)
# ```
#
# </details>

# %%
# NBVAL_CHECK_OUTPUT
pair = sample.clips[[0, 2]].float() / 255
mixed, targets = mix_batch(pair, torch.tensor([0, 2]), 8, 0.7, 0.1)
print("targets:", *(f"{x:.4f}" for x in targets[0]), "  sum", f"{targets[0].sum():.2f}")
hard = torch.nn.functional.one_hot(torch.tensor([0, 2]), 8).float()
theirs, drawn = data.mix(pair, hard, mixup=0.8, cutmix=0.0, generator=g)
ours, _ = mix_batch(pair, torch.tensor([0, 2]), 8, drawn[0, 0].item(), 0.0)
torch.testing.assert_close(ours, theirs)
said = torch.randn(2, 8, generator=g)
_, smooth = mix_batch(pair, torch.tensor([0, 2]), 8, drawn[0, 0].item(), 0.1)
loss = torch.nn.functional.cross_entropy
torch.testing.assert_close(loss(said, smooth), loss(said, drawn, label_smoothing=0.1))
print("the package mixes the same, and cross_entropy smooths the same")

# %%
viz.film_strips(
    {names[0]: pair[0], names[2]: pair[1], "0.7 to 0.3": mixed[0]},
    "Two clips and their mix, one row each: in the mix both textures drift through each other.",
)

# %% [markdown]
# Class 0 has 0.7·0.9 and its part of the smoothing. The share is drawn once for a batch, from a Beta distribution of 0.8. A coin decides between mixup and cutmix, which pastes a rectangle.
# The runs below use smoothing only, as the recipe says.
#
# ## Fine-tune, twice
#
# *Fine-tuning* (微調) trains everything, encoder and head. Once from the shipped weights, once *from scratch* (從頭訓練); same labels, same steps, same rates.

# %%
tuned = train.finetune(tune, sources, autoencoder.encoder)
scratch = train.finetune(tune, sources)
viz.curves(
    {"pre-trained": tuned.records, "from scratch": scratch.records},
    "Fine-tuning loss over steps on a logarithmic axis: one line pre-trained, one from scratch.",
)
few = {"pre-trained": [tuned.test.accuracy], "from scratch": [scratch.test.accuracy]}
viz.bars(
    few,
    f"Test accuracy with {labels} labels a class: two bars, pre-trained and from scratch.",
    chance=100 / len(sources.classes),
)

# %% [markdown]
# The loss cannot reach 0: smoothed targets are never quite sure. A hundred steps are few for a start from scratch. With few labels the committed evidence trains three times as long. Below are all its seeds:
# `cpu` pre-trains on digits for 8,000 steps, `evening` on these textures for 42,000. Each has 16,000 videos with labels at most.

# %%
panels: dict[str, dict[str, list[float]]] = {}
for recipe in ("cpu", "evening"):
    for key, entry in json.loads(Path(f"data/evidence/{recipe}.json").read_text()).items():
        _, amount, start = key.split(", ")
        column = f"{amount.split()[0]} {start}"
        panels.setdefault(recipe, {}).setdefault(column, []).append(entry["accuracy"])
viz.seeds(
    panels,
    "Test accuracy by number of labels a class, pre-trained and from scratch, a panel a recipe: a dot "
    "a seed, a line at the mean.",
)
for recipe, found in panels.items():
    for column in (c for c in found if c.endswith("pre-trained")):
        amount = column.split()[0]
        gain = sum(found[column]) / len(found[column])
        gain -= sum(found[f"{amount} scratch"]) / len(found[f"{amount} scratch"])
        print(
            f"{recipe:8} {amount:>3} labels a class: {gain:+5.1f} points, seeds {len(found[column])}"
        )

# %% [markdown]
# Read the figure by pairs. What pre-training is worth depends on how many labels there are; with all of them both starts can arrive at the same place, on data as simple as this.
# V1 reports the same trend on real data: pre-training gains 11 points over scratch on the 240,000 videos of Kinetics, 40 on the 9,500 of UCF101.
#
# ## The test as published
#
# A video is longer than a clip and wider than a square. A *multi-view test* (多視角測試) takes several clips over the video, several crops along the long side, and averages.
# Kinetics: 5 clips of 3 crops. Something-Something: 2 of 3. Here is the film, 16:9, 60 frames of it:

# %%
film_sampling = data.Sampling(16, 2)
views = film_sampling.test(60, clips=5)  # (5, 16)
viz.timeline(
    {f"clip {k + 1}": index for k, index in enumerate(views)},
    60,
    "Five rows of marks on a line of 60 frames: the clips overlap and cover the video from end to end.",
)
frame = data.resize_frames(data.read_frames(making.FILM, lambda n: views[2][:1] + 3000), 108)
crops = [data.crop_square(frame, crop=k, crops=3)[0] for k in range(3)]
viz.pictures(
    {"frame": torch.from_numpy(frame[0].copy())}
    | {f"crop {k + 1}": torch.from_numpy(x.copy()) for k, x in enumerate(crops)},
    "A wide frame of the film, and three squares cut from its left, its middle and its right.",
    height=1.8,
)

# %% [markdown]
# The first crop misses the squirrel. Many processes write their views to files, in any order, each with the number of its video. Then somebody must put them together.
#
# ### Exercise 4 · one answer a video
#
# **Difficulty** ●●○ · **about 8 minutes**


# %%
def mean_over_views(logits: torch.Tensor, videos: torch.Tensor) -> torch.Tensor:
    """The mean probability of each video's views.

    logits   (views, classes), in any order
    videos   (views,), the number of the video of each view, from 0
    returns  (videos, classes), rows that sum to 1
    """
    ### BEGIN SOLUTION
    shares = logits.softmax(dim=1)
    count = int(videos.max()) + 1
    return torch.stack([shares[videos == v].mean(dim=0) for v in range(count)])
    ### END SOLUTION


mean_over_views = check("07.mean_over_views", mean_over_views)

# %% [markdown]
# <details><summary>Hint 1</summary>First probabilities, then the mean. `shares[videos == v]` are the views of video v.</details>
# <details><summary>Hint 2</summary>Stack one row for each number from 0 to the largest.</details>
# <details><summary>Solution</summary>
#
# ```python
# shares = logits.softmax(dim=1)
# count = int(videos.max()) + 1
# return torch.stack([shares[videos == v].mean(dim=0) for v in range(count)])
# ```
#
# </details>
#
# Averaged logits let one loud view outvote two quiet ones. A tiny example, three views of one video, two classes:

# %%
# NBVAL_CHECK_OUTPUT
loud = torch.tensor([[9.0, 0.0], [0.0, 1.5], [0.0, 1.5]])
shares = mean_over_views(loud, torch.zeros(3, dtype=torch.long))[0]
print("mean of the logits:       ", *(f"{x:.2f}" for x in loud.mean(0)), "-> class 0")
print("mean of the probabilities:", *(f"{x:.2f}" for x in shares), "-> class", int(shares.argmax()))
several = torch.randn(6, 5, 8, generator=g)  # 6 videos of 5 views
flat = several.flatten(0, 1)  # (6, 5, 8) -> (30, 8)
ours = mean_over_views(flat, torch.arange(6).repeat_interleave(5))
torch.testing.assert_close(ours.log(), train.mean_of_views(several))

# %% [markdown]
# The package keeps the logarithm of the same mean. Now both classifiers, with one clip a video and with several. The videos are square, so crops would all be the same.

# %%
counts = (1, 2, 5)
tested = {
    name: [train.evaluate(result.model, sources.test, sampling, clips=n) for n in counts]
    for name, result in {"pre-trained": tuned, "from scratch": scratch}.items()
}
viz.table(
    [
        {"start": name} | {f"clips {n}, %": r.accuracy for n, r in zip(counts, row, strict=True)}
        for name, row in tested.items()
    ],
    caption="Test accuracy by clips a video.",
)
changed = {
    name: 100 * (row[0].logits.argmax(1) != row[2].logits.argmax(1)).double().mean().item()
    for name, row in tested.items()
}
print("answers that five clips change:", *(f"{n} {x:.1f} %" for n, x in changed.items()))

# %% [markdown]
# Here a texture drifts alike from its first frame to its last, so every view tells the same story and little can be gained. In a real video one clip may miss the action.
# V2's ViT-H on Kinetics has 83.2 % with one view and 86.9 % with all (reported). So compare numbers only with their views: 5 x 3 costs fifteen times as much.
#
# ## Official weights: load, predict, export
#
# Your classifier goes out in the two layouts that the world uses, and comes back. No download: stand-ins of the same keys, only smaller.

# %%
# NBVAL_CHECK_OUTPUT
folder = Path("runs/lesson-07")
ours = tuned.model
official = save(ours, folder / "official.pth", to="official")
hugging = save(ours, folder / "hf", to="hf")
keys = list(torch.load(official, weights_only=True)["model"])
print(f"official, {len(keys)} keys:", *keys[:5], "...", *keys[-4:], sep="\n  ")
theirs = sorted(load_file(hugging / "model.safetensors"))
print(f"hf, {len(theirs)} keys:", *theirs[:3], "...", *theirs[-4:], sep="\n  ")

# %% [markdown]
# The official file keeps queries, keys and values in one `qkv.weight`, with a bias for queries and values only. Hugging Face splits it in three, so it has more keys.
# Neither holds positions. Do the loaded models say the same?

# %%
# NBVAL_CHECK_OUTPUT
known = {"num_frames": 8, "img_size": 16, "num_heads": 4}
back = {"official": load(official, **known), "hf": load(hugging)}
with torch.no_grad():
    expected = ours.eval()(sample.clips)
    for name, model in back.items():
        assert torch.equal(model(sample.clips), expected)
        print(f"{name:9} equal logits, class names: {model.class_names is not None}")

# %%
video = sources.test.videos[3]
print(f"a video that moves {sources.classes[video.label]}:")
for name, share in predict(back["hf"], video.path, top=3):
    print(f"  {name:11} {share:.2f}")

# %% [markdown]
# Three traps follow. All are known from the issues of the official repositories and of transformers.
#
# **The heads are in no shape.** A file says how wide the layers are, not how many heads share them. Nor does it know frames and size. The loader guesses what is published, and warns:

# %%
with warnings.catch_warnings(record=True) as caught, torch.no_grad():
    warnings.simplefilter("always")
    guessed = load(official, num_frames=8, img_size=16)
    print("heads taken:", guessed.config.num_heads)
    print(f"largest difference of logits: {(guessed(sample.clips) - expected).abs().max():.2f}")
for warning in caught:
    print("warning:", warning.message)

# %% [markdown]
# Nothing fails, and the answers are wrong. Hugging Face's own converter gave VideoMAE-small 16 heads in place of 6 (pull request 22788).
#
# **Token 0 is no class token.** `VideoMAEForVideoClassification` on the hub's pre-training files classifies by its first token, one corner tubelet. Such a classifier has no `fc_norm`. We make one:

# %%
bad = {"model": {k: v for k, v in torch.load(official)["model"].items() if "fc_norm" not in k}}
torch.save(bad, folder / "first-token.pth")
try:
    load(folder / "first-token.pth", **known)
except CheckpointError as error:
    print(error)

# %% [markdown]
# **What a fine-tuned file has lost.** A classifier has neither decoder nor the encoder's last norm. It cannot be pre-trained further; as an encoder it can start the next task.
# The loader says what it leaves out. `fc_norm` stays, since it belongs to the mean of the tokens; an identity takes the place of the lost norm:

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    encoder = load_encoder(official, **known)
for warning in caught:
    print("warning:", warning.message)
print("norm of the tokens:", encoder.norm)
print("norm of their mean:", encoder.fc_norm)
again = VisionTransformer(encoder.config, num_classes=18)  # another task, 18 classes
again.load_encoder(encoder)
print("new head:", tuple(again.head.weight.shape))

# %% [markdown]
# With real weights the same lines hold: `load("videomae_vitb_k400.pth")`, then `predict(model, "my.mp4", stride=4)`. In a terminal, `vmae convert` reads any layout and writes another. Mind the licences: V1's repository is CC-BY-NC 4.0, not for commercial use; V2's is MIT.
#
# ## Published and told
#
# | popular account | published | where you saw it |
# |---|---|---|
# | the class token is classified | the mean of all tokens | the whole, with dummy parts |
# | the encoder is taken over whole | all but its last norm | exercise 1 |
# | one rate for all layers | decay 0.75, 0.7 for small sets, 0.9 for ViT-g | exercise 2 |
# | averaged logits | averaged probabilities | exercise 4 |
#
# ## Ledger
#
# Official scripts: batch and rates are the recipes `v1-*.yaml` and `v2-*.yaml` in `vmae/train/recipes`.
#
# | source | cell | value here | why smaller |
# |---|---|---|---|
# | `modeling_finetune.py`, mean pooling, `fc_norm`, head times 0.001 | exercise 1 | the same | as published |
# | `optim_factory.py`, layer decay 0.75 (UCF101 0.7, ViT-g 0.9) | exercise 2 | computed as published; 1.0 in the run | four blocks |
# | drop path 0.1 (UCF101 0.2), rising over blocks | drop path | shown; 0 in the run | four blocks, a hundred steps |
# | mixup 0.8, cutmix 1.0, smoothing 0.1 | exercise 3 | mixup shown; smoothing 0.1 in the run | a hundred steps |
# | K400 ViT-B: rate 5e-4 for 256 videos, 75 epochs; UCF101: 100 epochs | fine-tune, twice | 1e-3 for batches of 32, 100 steps | seconds on two cores |
# | V1, scratch against pre-trained by size of the set | committed evidence | 10, 40, all labels a class | rendered videos |
# | 5 x 3 views (K400), 2 x 3 (SSv2), mean of softmax | exercise 4 | 1, 2, 5 clips, no crops | square videos |
# | V1 table 11, linear probe: SGD 0.1, 100 epochs | linear probe | logistic regression | same model, solved exactly |
#
# ## What you can do now
#
# - turn a pre-trained file into a classifier, and name what is dropped and why;
# - set layer decay, drop path, mixup and smoothing as the papers do;
# - judge pre-training against scratch by number of labels, and a test by its views;
# - bring weights in and out of the official layouts, and name three traps on the way.
#
# ## Glossary
#
# | term | 中文 | meaning |
# |---|---|---|
# | attention map | 注意力圖 | how much a token takes from each other |
# | classifier | 分類器 | the encoder with a head that names the class |
# | drop path | 隨機深度 | leaves out a block's branch for some clips in training |
# | fine-tuning | 微調 | training on labels, from pre-trained weights |
# | from scratch | 從頭訓練 | training from random weights |
# | label smoothing | 標籤平滑 | the right class gives a little to all |
# | layer decay | 逐層學習率衰減 | early layers learn more slowly |
# | linear probe | 線性探測 | one linear layer on frozen features |
# | mean pooling | 平均池化 | the mean of all tokens stands for the clip |
# | mixup | 混合增強 | clips and targets are blended with a partner's |
# | multi-view test | 多視角測試 | averaging over several clips and crops of a video |

# %%
memory = train.peak_memory(torch.device("cpu")) / 1e9
print(f"this run: {time.perf_counter() - started:.0f} seconds, at most {memory:.1f} GB of memory")
