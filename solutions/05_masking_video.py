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
# # 05 · Masking video
#
# A film says the same thing many times. So a mask for images, put on a film, gives most of the answer away: it stands one step earlier.
# This lesson measures how much film repeats, builds the masks that were tried, and counts what each gives away for nothing.
#
# You write four functions. The package has the same, and the notebook compares them with yours.
#
# Measured on 2 shared CPU cores, the whole solution: about 1 minute, 1.0 GB of memory at the peak.

# %% tags=["parameters"]
shot = "data/big_buck_bunny_shot.mp4"  # the clip that is shown: any video of 128 frames or more
frames, stride = 16, 4  # of a clip
clips = 16  # cut from the film, for everything that is measured
ratio = 0.9  # share of the tokens that the encoder does not see
ratios = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of the curves
timings = 5  # rounds of the stop-watch, of which the fastest counts
seed = 0

# %% [markdown]
# ## Set-up
#
# Paths are relative to the checkout, wherever Jupyter was started.

# %%
import os
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange

import vmae
from vmae import cost, data, viz
from vmae.config import MaskConfig, ModelConfig
from vmae.course.checks import check
from vmae.grid import TokenGrid, patchify, unpatchify
from vmae.masking import Mask, all_hidden, make_mask, tube_visible
from vmae.vit import VisionTransformer

os.chdir(vmae.ROOT)

# %% [markdown]
# ## Film repeats itself
#
# Take one row of pixels from the middle of every frame, and lay these rows under one another. Time then runs downwards.
# A thing that stands still draws a vertical line. A thing that moves draws a slanted one.

# %%
whole = data.read_frames(shot)  # (T, H, W, 3)
row = torch.from_numpy(whole[:, whole.shape[1] // 2])  # (T, W, 3)
dice = torch.Generator().manual_seed(seed)
noise_row = torch.randint(0, 256, (33, 99, 3), generator=dice).byte()
viz.pictures(
    {"one frame": torch.from_numpy(whole[0]), "its middle row over time": row, "noise": noise_row},
    "A frame of the film; its middle row over time, which is made of vertical and gently slanted "
    "streaks; and the same of white noise, which has no streaks.",
    height=1.3,
)

# %% [markdown]
# The streaks are *redundancy* (時序冗餘): the next frame is nearly known from this one. *White noise* (白雜訊) has none.
#
# ### Two numbers
#
# How alike are two frames, k frames apart? The *correlation* (相關係數) is 1 where one frame tells the other, and 0 where it tells nothing.
# The *copying error* asks more directly: say that the frame looks as it did k frames ago. The mean squared error is divided by the variance of the two together.
# So 1 is the error of someone who always says their mean.
#
# A tiny example: a bright bar of two pixels that moves by one.


# %%
# NBVAL_CHECK_OUTPUT
def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of the values of each clip: (B, ...), (B, ...) -> (B,)."""
    a, b = (x.flatten(1).float() for x in (a, b))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def copying_error(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Error of saying `a` where `b` is right, in units of their common variance: (B, ...) -> (B,)."""
    a, b = (x.flatten(1).float() for x in (a, b))
    return (a - b).square().mean(1) / torch.cat((a, b), dim=1).var(1, correction=0)


bar = torch.tensor([[0, 0, 9, 9, 0, 0, 0, 0]])
for name, other in {"the same": bar, "moved by 1": bar.roll(1), "moved by 2": bar.roll(2)}.items():
    print(f"{name}: correlation {correlation(bar, other).item():.2f}", end=", ")
    print(f"copying error {copying_error(bar, other).item():.2f}")

# %% [markdown]
# Moved by one, the bar still covers one of its pixels, and copying is already worse than saying the mean: things that move are not copied.
# The two numbers belong together: the error is 2·(1 - correlation), if both frames have the same mean and variance.
#
# ### Measured on film
#
# We cut pieces of 64 frames from the shipped film, evenly spread, none of which crosses a cut. Near-still pieces stay in.
# Beside them: two pieces of the shot above, the same frames stopped (a *still*), and white noise.

# %%
side, length = 112, 64


def as_clips(pictures: np.ndarray) -> torch.Tensor:
    """Frames (B·length, H, W, 3), one piece after the other, as clips (B, C, length, side, side)."""
    square = torch.from_numpy(data.crop_square(data.resize_frames(pictures, side)))
    return rearrange(square, "(b t) h w c -> b c t h w", t=length).contiguous()


starts = [
    start for _, start, _ in data.choose_clips(data.FilmSpec(frames=length, static=0.0), data.FILM)
]
chosen = [starts[int(i)] for i in np.linspace(0, len(starts) - 1, clips)]
index = np.add.outer(chosen, np.arange(length)).ravel()
film = as_clips(data.read_frames(data.FILM, lambda _: index))
sources = {
    "film": film,
    "shot": as_clips(whole[: 2 * length]),
    "still": film[:, :, length // 2, None].expand_as(film),
    "noise": torch.randint(0, 256, film[:4].shape, generator=torch.Generator().manual_seed(seed)),
}
print(f"{len(starts)} pieces of {length} frames in the film, {len(film)} are used")

# %%
distances = (1, 2, 4, 8, 16, 32, 56)
alike, copied = {}, {}
for name, x in sources.items():
    thin = x[..., ::4, ::4]  # one pixel of sixteen is enough
    pairs = [(thin[:, :, :-k], thin[:, :, k:]) for k in distances]
    alike[name] = torch.stack([correlation(a, b) for a, b in pairs])  # (distances, B)
    copied[name] = torch.stack([copying_error(a, b) for a, b in pairs])
viz.table(
    [
        {"frames apart": k}
        | {f"{n}: r": f"{round(alike[n][i].mean().item(), 2) + 0:.2f}" for n in sources}
        | {f"{n}: error": f"{copied[n][i].mean():.2f}" for n in sources}
        for i, k in enumerate(distances)
    ],
    caption="Correlation r and copying error, mean over clips.",
)


# %%
def spread(axis, x, values: torch.Tensor, name: str) -> None:
    """A line through the mean over clips; bars from the 10th to the 90th percentile of them."""
    low, middle, high = values.quantile(0.1, dim=1), values.mean(1), values.quantile(0.9, dim=1)
    bars = torch.stack((middle - low, high - middle)).clamp(min=0).numpy()
    axis.errorbar(x, middle, bars, marker="o", ms=3, lw=1.5, elinewidth=0.8, label=name)


with viz.style():
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.6), layout="constrained")
    for axis, numbers, what in zip(
        axes, (alike, copied), ("correlation", "copying error"), strict=True
    ):
        for name, values in numbers.items():
            spread(axis, distances, values, name)
        axis.set_xlabel("frames apart")
        axis.set_ylabel(what)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
viz.show(
    figure,
    "Correlation and copying error over the distance in frames. Noise is flat at 0 and 2, a still "
    "at 1 and 0. The film and the shot start close to the still and move away slowly, with a wide spread.",
)

# %% [markdown]
# One frame apart, the film has a correlation of 0.98, and copying leaves 0.04 of the variance. Eight frames apart, a third of a second, it leaves 0.21.
# Noise lies at 2.00, as the rule says: copying it is twice as bad as saying the mean. A still lies at 0.00. Film is close to the still.
# The bars show how much the pieces differ: some hardly change, others change all over.
#
# ### In time and in space
#
# A mask hides tokens, so what counts is how alike *tokens* are. We make clips of 16 frames with stride 4, and cut them in tubelets
# (時空立方體) of 2x8x8 pixels. At 112 pixels this is the published grid of 8x14x14 tokens, with a quarter of the pixels in each.

# %%
# NBVAL_CHECK_OUTPUT
grid = TokenGrid((frames, side, side), (2, 8, 8))
t, h, w = grid.shape
n = grid.tokens_per_frame
video = film[:, :, : frames * stride : stride] / 255  # (B, C, T, H, W)
tokens = patchify(video, grid)  # (B, C, T, H, W) -> (B, N, P)
assert (t, h, w) == (8, 14, 14) and tokens.shape == (clips, 1568, 384)
print(tuple(video.shape), "->", tuple(tokens.shape), "on a grid of", grid.shape)

# %%
block = tokens.view(-1, t, h, w, grid.token_dim)  # N -> t, h, w
pairs = {
    "one step in time": (block[:, :-1], block[:, 1:]),
    "one place to the left": (block[:, :, :, :-1], block[:, :, :, 1:]),
    "one place above": (block[:, :, :-1], block[:, :, 1:]),
    "half a frame to the left": (block[:, :, :, : w // 2], block[:, :, :, w - w // 2 :]),
}
viz.table(
    [
        {"copied from": name, "error": f"{copying_error(*pair).mean():.2f}"}
        for name, pair in pairs.items()
    ],
    caption="Copying error of a token, mean over clips.",
)

# %% [markdown]
# One step is two frames of the clip, so 8 frames of the film, and copying over it leaves 0.21 as in the table above.
# The neighbour in the same frame leaves three times as much, 0.61. Half a frame away, copying is worse than the mean.
#
# So film is more redundant in time than in space. V1 gives this as its reason to hide more than MAE's 75 %, and to hide it differently (section 3).
#
# ## The whole, with a dummy mask
#
# Here is the path of a *mask* (遮罩) from end to end: choose what is hidden, write it as indices, hand over the visible tokens,
# fill the holes, and measure the error there. The mask is a dummy: it shows every tenth token. So is the filler, a *copier* without skill:
# it says the mean visible token.


# %%
def paint(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Clips (B, C, T, H, W) of tokens (B, N, P), grey where hidden (B, N)."""
    return unpatchify(torch.where(hidden[..., None], 0.5, tokens), grid)


def hidden_error(guess: torch.Tensor, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the hidden tokens of each clip: (B, N, P), (B, N, P), (B, N) -> (B,)."""
    return ((guess - tokens).square().mean(-1) * hidden).sum(1) / hidden.sum(1)


example = patchify(sources["shot"][:1, :, : frames * stride : stride] / 255, grid)  # (1, N, P)
dummy = (torch.arange(grid.num_tokens) % 10 != 0)[None]  # (1, N): hidden, but for every tenth
visible = example[:, ~dummy[0]]  # (1, V, P): all that an encoder would get
guess = torch.where(dummy[..., None], visible.mean(1, keepdim=True), example)
print(f"{visible.shape[1]} of {grid.num_tokens} tokens visible")
print(f"error of the mean visible token: {hidden_error(guess, example, dummy).item():.4f}")
viz.film_strips(
    {"clip": unpatchify(example, grid)[0], "masked": paint(example, dummy)[0]},
    "The clip, a rabbit that gets up, and the same under the dummy mask: slanted stripes of "
    "visible squares on grey.",
    frames=4,
)

# %% [markdown]
# The dummy is regular, so it moves along by a few places at every step, and every clip would have the same. Now the real ones.
#
# ## Random: every token for itself
#
# A mask is drawn with *noise*: one random number for each token, as in lesson 02. A scheme is a way to read it.
# *Random masking* (隨機遮罩) sorts all N numbers and hides the int(ratio·N) largest.
# A tiny clip shows it: two steps in time, with six places each, half of them hidden.

# %%
# NBVAL_CHECK_OUTPUT
tiny = torch.tensor([[[0.12, 0.81, 0.45, 0.93, 0.28, 0.67], [0.74, 0.09, 0.88, 0.31, 0.56, 0.20]]])
print("noise\n", tiny[0])
rank = tiny.flatten(1).argsort(1).argsort(1)  # (1, t·n): the place of each number when sorted
random_hidden = rank >= 12 - int(0.5 * 12)
print("hidden\n", random_hidden.view(2, 6).int())
print("hidden in each step:", random_hidden.view(2, 6).sum(1).tolist())

# %% [markdown]
# Look at the second place: hidden in the first step, visible in the second. Whoever can copy has no work there.
#
# ## Tube: the same places at all times
#
# *Tube masking* (管道式遮罩) draws places of the frame, and hides each of them throughout the clip, from the first step to the last.
# The mask of the first step is repeated.
# V1 introduced it (section 3.3, table 1b; `masking_generator.py`). Popular notes, ours too, credit V2 and say that V1 masks at random. V2 kept it.
#
# ### Exercise 1 · tube mask
#
# **Difficulty** ●○○ · **about 8 minutes**
#
# Sort the noise of the first step only.


# %%
def tube_mask(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    """Hide the same int(ratio·n) places in all steps of a clip.

    noise    (B, t, n) random numbers, one a token: B clips, t steps in time, n = h·w places
    returns  (B, t·n) bool, True where hidden, tokens in the order time, place. The hidden places
             are those with the largest noise in the first step. Each clip has its own mask.
    """
    ### BEGIN SOLUTION
    t, n = noise.shape[1:]
    rank = noise[:, 0].argsort(dim=1).argsort(dim=1)  # (B, n)
    hidden = rank >= n - int(ratio * n)
    return hidden.repeat(1, t)  # (B, n) -> (B, t·n)
    ### END SOLUTION


tube_mask = check("05.tube_mask", tube_mask)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `argsort` twice gives the rank of each number. The places with a rank of n - int(ratio·n) or more are hidden.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Time is the slow axis: the n entries of the frame come one after the other, t times. `repeat` does that, `repeat_interleave` does not.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# t, n = noise.shape[1:]
# rank = noise[:, 0].argsort(dim=1).argsort(dim=1)  # (B, n)
# hidden = rank >= n - int(ratio * n)
# return hidden.repeat(1, t)  # (B, n) -> (B, t·n)
# ```
# </details>
#
# The tiny example again, and then the published size. The package keeps the largest numbers where we hide them, so it gets ours with the sign turned.

# %%
# NBVAL_CHECK_OUTPUT
print("hidden\n", tube_mask(tiny, 0.5).view(2, 6).int())
drawn = torch.rand(3, n, generator=torch.Generator().manual_seed(seed))
ours = tube_mask(-drawn[:, None].expand(-1, t, -1), 0.9)  # (3, N)
package = make_mask(MaskConfig("tube", 0.9), grid, 3, torch.Generator().manual_seed(seed))
assert torch.equal(ours, package.hidden(grid.num_tokens))
assert ours.sum(1).tolist() == [1408] * 3
print("equal to the package:", tuple(ours.shape), "hidden", ours.sum(1).tolist())

# %% [markdown]
# ## A tube of 4 frames
#
# The notes describe another tube: it covers 4 frames, a *tube length* (管道長度) to be chosen, then the places are drawn anew.
# Their example is a ball that rolls through the hidden places, is seen before and after, and must be found in between.
# The published tube has no before and after: it covers the clip. We build both.
#
# ### Exercise 2 · short tubes
#
# **Difficulty** ●●○ · **about 10 minutes**


# %%
def short_tubes(noise: torch.Tensor, ratio: float, length: int) -> torch.Tensor:
    """Hide int(ratio·n) places for `length` steps in time, then draw others.

    noise    (B, t, n) random numbers; a tube goes by the noise of its own first step
    length   steps in time that a tube covers; divides t. Tubelets of 2 frames: 4 frames are 2 steps
    returns  (B, t·n) bool, True where hidden: the places with the largest noise
    """
    ### BEGIN SOLUTION
    n = noise.shape[2]
    rank = noise[:, ::length].argsort(dim=2).argsort(dim=2)  # (B, tubes, n)
    hidden = rank >= n - int(ratio * n)
    return hidden.repeat_interleave(length, dim=1).flatten(1)  # (B, t, n) -> (B, t·n)
    ### END SOLUTION


short_tubes = check("05.short_tubes", short_tubes)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `noise[:, ::length]` has the first step of every tube. Rank its last axis.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Each tube's mask must come `length` times in a row: A A B B, and not A B A B.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# n = noise.shape[2]
# rank = noise[:, ::length].argsort(dim=2).argsort(dim=2)  # (B, tubes, n)
# hidden = rank >= n - int(ratio * n)
# return hidden.repeat_interleave(length, dim=1).flatten(1)  # (B, t, n) -> (B, t·n)
# ```
# </details>

# %%
# NBVAL_CHECK_OUTPUT
drawn = torch.rand(3, 4, n, generator=torch.Generator().manual_seed(seed))  # four tubes a clip
ours = short_tubes(-drawn.repeat_interleave(2, dim=1), 0.9, 2)  # (3, N)
package = tube_visible(grid, 0.9, 4, 3, torch.Generator().manual_seed(seed))  # length in frames
assert torch.equal(ours, all_hidden(package, grid).hidden(grid.num_tokens))
print("equal to the package; hidden", ours.sum(1).tolist())
many = torch.rand(2000, t, n, generator=torch.Generator().manual_seed(seed))
steps = short_tubes(many, 0.9, 2).view(-1, t, n)  # (B, t·n) -> (B, t, n)
beside = ~(steps[:, 0] & steps[:, 4])  # the second tube covers steps 2 and 3
share = beside[steps[:, 2]].float().mean().item()
print(f"hidden places of the second tube that are visible right before or after it: {share:.0%}")

# %% [markdown]
# So at 90 % a hidden place is itself seen right before or after in one case of five. Under the published tube it is seen never.
#
# ## Frame: whole steps in time
#
# *Frame masking* (整幀遮罩) hides all of some steps. V1 tried it at 87.5 %: 7 of 8 steps (table 1b). There is no official code, the package has it.
#
# Here are all four on the same clip, at 90 % where that is possible. This is what the encoder sees, step by step.

# %%
schemes = {
    "random": MaskConfig("random"),
    "tube, 4 frames": MaskConfig("tube", tube_length=4),
    "tube": MaskConfig("tube"),
    "frame": MaskConfig("frame"),
}


def draw(scheme: str, ratio: float, batch: int, seed: int) -> torch.Tensor:
    """Hidden (B, N) bool of a scheme."""
    config = schemes[scheme].replace(mask_ratio=ratio)
    mask = make_mask(config, grid, batch, torch.Generator().manual_seed(seed))
    return mask.hidden(grid.num_tokens)


viz.film_strips(
    {name: paint(example, draw(name, ratio, 1, seed))[0] for name in schemes},
    "Four rows of eight frames. Random squares, others in every frame; squares that "
    "stay for two steps; squares at the same places in all frames; and one whole frame, the rest grey.",
)

# %% [markdown]
# The tube looks out through the same few holes all the time. Through them you see how things move; beside them, nothing ever.
#
# ## How many, exactly
#
# Counts matter: a model reads indices, and tables of the papers hang on them. The official code hides int(ratio·196) places of a frame, in every frame.

# %%
# NBVAL_CHECK_OUTPUT
giant = TokenGrid((16, 224, 224), (2, 14, 14))  # V2's ViT-g: patches of 14 pixels
longer = TokenGrid((32, 224, 224), (2, 16, 16))  # the notes' walk-through
sizes = [("tube", r, grid) for r in (0.5, 0.75, 0.9, 0.95)]
sizes += [("random", 0.9, grid), ("frame", 0.875, grid), ("tube", 0.9, giant)]
sizes += [("random", 0.9, longer), ("tube", 0.9, longer)]
seen = []
for name, share, g in sizes:
    mask = make_mask(MaskConfig(name, share), g, 2)
    seen.append(mask.visible.shape[1])
    shape = "x".join(map(str, g.shape))
    print(f"{name:6} {share:5.1%} of {shape:8}: {seen[-1]:4} visible", end=", ")
    print(f"{mask.queries.shape[1]:4} hidden, really {mask.queries.shape[1] / g.num_tokens:.1%}")
assert seen == [784, 392, 160, 80, 157, 196, 208, 314, 320]

# %% [markdown]
# A page on the web says that VideoMAE's encoder sees about 157 tokens. That is random masking. With tubes it is 160: 20 places, 8 times.
#
# ### Why every clip needs the same count
#
# Section 3.3 of V1 writes a *Bernoulli* draw (伯努利): a coin for each place. The code draws an exact count. Try the coin:

# %%
# NBVAL_CHECK_OUTPUT
coin = torch.rand(1000, n, generator=torch.Generator().manual_seed(seed)) < 0.9  # hidden places
counts = t * (~coin).sum(1)  # visible tokens of each clip
try:
    torch.stack([(~row).nonzero()[:, 0] for row in coin[:4]])
except RuntimeError as error:
    print("a batch of four:", str(error).split(",")[0])
print(
    "clips of the thousand with exactly 160 visible tokens:", f"{(counts == 160).sum() / 10:.0f} %"
)

# %%
exact = t * (~tube_mask(many[:1000], 0.9).view(-1, t, n)[:, 0]).sum(1)
print(f"coin:  {counts.min()} to {counts.max()} visible, mean {counts.float().mean():.0f}")
print(f"exact: {exact.min()} to {exact.max()}")

# %% [markdown]
# Rows of different length make no tensor. One would have to pad them to the longest clip of the batch, or to run clip by clip.
# With an exact count the shapes are constant, and a GPU never waits to learn them.
#
# ### Exercise 3 · from a mask to indices
#
# **Difficulty** ●●○ · **about 10 minutes**
#
# The model wants three lists, a `Mask`: the tokens that the encoder sees (*visible*, 可見), the positions that the decoder is asked for (*queries*, 查詢位置),
# and which of these count in the loss (*targets*, 目標). In MAE and V1 the decoder is asked for all that is hidden, and all of it counts.
# A tiny mask of six tokens, `1 0 1 1 0 1` with 1 for hidden: visible 1, 4; queries 0, 2, 3, 5; targets 0, 1, 2, 3.


# %%
def mask_indices(hidden: torch.Tensor) -> Mask:
    """A mask as indices, all ascending.

    hidden   (B, N) bool, the same number of True in each row
    returns  Mask(visible, queries, targets), int64 tensors of shape
             (B, V)  numbers of the tokens that are not hidden
             (B, Q)  numbers of the hidden tokens
             (B, Q)  indices into `queries` of those that count: all, in order
    """
    ### BEGIN SOLUTION
    batch = len(hidden)
    visible = (~hidden).nonzero()[:, 1].view(batch, -1)  # (B·V,) -> (B, V)
    queries = hidden.nonzero()[:, 1].view(batch, -1)  # (B·Q,) -> (B, Q)
    return Mask(visible, queries, torch.arange(queries.shape[1]).expand(batch, -1))
    ### END SOLUTION


mask_indices = check("05.mask_indices", mask_indices)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `nonzero()` of a matrix gives pairs (row, column), row by row, columns ascending.
# </details>
#
# <details><summary>Hint 2</summary>
#
# All rows have the same count, so the columns can be viewed as (B, count). Targets are 0 to Q - 1 in each row.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# batch = len(hidden)
# visible = (~hidden).nonzero()[:, 1].view(batch, -1)  # (B·V,) -> (B, V)
# queries = hidden.nonzero()[:, 1].view(batch, -1)  # (B·Q,) -> (B, Q)
# return Mask(visible, queries, torch.arange(queries.shape[1]).expand(batch, -1))
# ```
# </details>

# %%
# NBVAL_CHECK_OUTPUT
package = make_mask(MaskConfig("tube", 0.9), grid, 3, torch.Generator().manual_seed(seed))
ours = mask_indices(package.hidden(grid.num_tokens))
for name in ("visible", "queries", "targets"):
    assert torch.equal(getattr(ours, name), getattr(package, name))
    print(f"{name:8} {tuple(getattr(ours, name).shape)}")

# %% [markdown]
# Why are targets a list of their own, if they are all queries? In V2 they are not.
#
# ## What a copier gets for free
#
# Now the question of this lesson. Someone who has learned nothing fills the holes by copying from the same place at the nearest visible time.
# This is the *copying baseline* (複製基準). A model that does no better has learned only to copy.
#
# One place over eight steps, visible at steps 2 and 6. What does the copier say?
#
# | step | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
# |---|---|---|---|---|---|---|---|---|
# | visible | | | yes | | | | yes | |
# | copied from | 2 | 2 | 2 | 2 | 2 | 6 | 6 | 6 |
#
# Step 4 is as far from 2 as from 6; the earlier one is taken. A place that is never visible has nothing to copy. It gets the clip's mean visible token.
#
# ### Exercise 4 · copy in time
#
# **Difficulty** ●●● · **about 15 minutes**


# %%
def copy_in_time(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Fill each hidden token from the nearest visible step at its place, the earlier of two.

    tokens   (B, t, n, P) floats
    hidden   (B, t, n) bool
    returns  (B, t, n, P): visible tokens as they are; places that are visible at no time get the mean
             over all visible tokens of their clip
    """
    ### BEGIN SOLUTION
    step = torch.arange(tokens.shape[1])
    cost = (step[:, None] - step).abs() + 0.1 * (step > step[:, None])  # (t to, t from)
    cost = cost[None, :, :, None] + 1000 * hidden[:, None]  # (B, t to, t from, n)
    source = cost.argmin(dim=2)  # (B, t, n): the step to copy from
    copies = tokens.gather(1, source[..., None].expand_as(tokens))
    seen = ~hidden[..., None]
    mean = (tokens * seen).sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True)
    return torch.where(hidden.all(dim=1)[:, None, :, None], mean, copies)
    ### END SOLUTION


copy_in_time = check("05.copy_in_time", copy_in_time)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Give every pair of steps a cost: how far apart they are, a little more if the source is later, and very much if it is hidden. Take the cheapest.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `source` of shape (B, t, n) says which step. `tokens.gather(1, source[..., None].expand_as(tokens))` copies from there.
# `hidden.all(dim=1)` finds places that are never visible. Loops are right too, and slower.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# step = torch.arange(tokens.shape[1])
# cost = (step[:, None] - step).abs() + 0.1 * (step > step[:, None])  # (t to, t from)
# cost = cost[None, :, :, None] + 1000 * hidden[:, None]  # (B, t to, t from, n)
# source = cost.argmin(dim=2)  # (B, t, n): the step to copy from
# copies = tokens.gather(1, source[..., None].expand_as(tokens))
# seen = ~hidden[..., None]
# mean = (tokens * seen).sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True)
# return torch.where(hidden.all(dim=1)[:, None, :, None], mean, copies)
# ```
# </details>
#
# Here is what it makes of the four masks above. Its error is given in parts of the error of saying the mean visible token:
# 1 is nothing for free, 0 is everything.


# %%
def by_time(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The copier on flat tokens: (B, N, P), (B, N) -> (B, N, P)."""
    return copy_in_time(tokens.unflatten(1, (t, n)), hidden.unflatten(1, (t, n))).flatten(1, 2)


def left_over(copier, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """A copier's error, in units of that of the mean visible token: (B,)."""
    seen = ~hidden[..., None]
    mean = (tokens * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)
    error = hidden_error(copier(tokens, hidden), tokens, hidden)
    return error / hidden_error(mean, tokens, hidden)


masks = {name: draw(name, ratio, 1, seed) for name in schemes}
viz.film_strips(
    {
        f"{name}: {left_over(by_time, example, hidden).item():.2f}": unpatchify(
            by_time(example, hidden), grid
        )[0]
        for name, hidden in masks.items()
    },
    "The clip as the copier fills it, a row a scheme. Random: a patchwork with half of the places "
    "in flat colour. Short tubes: more flat colour. Tube: a few sharp squares, all else flat. "
    "Frame: the one visible frame, everywhere.",
    frames=4,
)

# %% [markdown]
# Under frame masking the copier shows one sharp picture all the time. It is the last one here, and the rabbit has moved, so the number is poor.
# Under the tube there is nothing to copy: everything that was not seen is flat.
#
# ### Over all ratios
#
# One clip is one clip. So we take all pieces of the film, and every ratio. The line is the mean over clips, a bar holds 8 of 10 clips.
# On the right a copier with wider eyes: it takes the nearest *place* that is visible at some time, and there the nearest time.
#
# Frame masking has only 8 steps to choose from, so its points lie at whole steps.

# %%
axes_of_grid = [torch.arange(size) for size in grid.shape]
where = torch.stack(torch.meshgrid(*axes_of_grid, indexing="ij"), dim=-1).view(-1, 3)  # (N, 3)
where = where * torch.tensor([0.01, 1, 1])  # a step in time is nearer than any place
apart = torch.cdist(where, where)  # (N, N)


def by_place(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Copies from the nearest visible place, there from the nearest time."""
    sources = (~hidden).nonzero()[:, 1].view(len(hidden), -1)  # (B·V,) -> (B, V)
    nearest = [index[apart[:, index].argmin(1)] for index in sources]  # B times (N,)
    return torch.stack([x[index] for x, index in zip(tokens, nearest, strict=True)])


copiers = {"same place": by_time, "any place": by_place}
results = {copier: {} for copier in copiers}
for scheme in schemes:
    tried = tuple(k / t for k in range(4, t)) if scheme == "frame" else ratios
    hidden = [draw(scheme, r, clips, seed) for r in tried]
    share = [mask.float().mean().item() for mask in hidden]  # really hidden
    for name, copier in copiers.items():
        left = torch.stack([left_over(copier, tokens, mask) for mask in hidden])
        results[name][scheme] = (share, left)  # (ratios, B)

# %%
with viz.style():
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    for axis, (title, lines) in zip(axes, results.items(), strict=True):
        for scheme, (share, left) in lines.items():
            aside = 0.4 * list(lines).index(scheme)  # so that the bars do not hide one another
            spread(axis, [100 * s + aside for s in share], left, scheme)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("hidden, %")
        axis.set_ylim(0, 1.4)
    axes[0].set_ylabel("error left over")
    axes[1].legend(loc="upper left", fontsize=8, ncols=2)
viz.show(
    figure,
    "Error left over against the share of hidden tokens, one line a scheme, with bars over clips. "
    "Left: the tube lies at 1 for every ratio; tubes of 4 frames, random and frame masking lie "
    "below, in this order, and all rise with the ratio. Right: the order is the same, and the tube "
    "starts below 1 and reaches it.",
)


# %%
def read_off(share: list[float], left: torch.Tensor, ratio: float) -> str:
    """The curve's mean over clips at the measured ratio that lies nearest."""
    nearest = min(range(len(share)), key=lambda k: abs(share[k] - ratio))
    return f"{left[nearest].mean():.2f}"


viz.table(
    [
        {"scheme": scheme}
        | {
            f"{name}: {r:.0%}": read_off(*results[name][scheme], r)
            for name in copiers
            for r in (0.5, 0.9, 0.95)
        }
        for scheme in schemes
    ],
    caption="Error left over, mean over clips. Frame masking has 7 of 8 steps for 90 and 95 %.",
)

# %% [markdown]
# Left: with frame masking at 7 of 8 steps, 0.38 of the error is left. One visible step is enough to give most of the clip away.
# At 90 %, random masking leaves 0.72, tubes of 4 frames 0.85. The full tube leaves 1.00 at every ratio, by construction: what it hides is visible at no time.
# A short tube gives less away than random masking, and more than the published one.
#
# Right: the wider copier finds something under a tube too, beside the hole. At 50 % it leaves 0.67, at 90 % 0.90, and at 95 % copying is worse than the mean, 1.07.
# So the two go together: the tube closes time, and the high ratio closes space. Random masking at 95 % still leaves 0.74.
#
# The bars are long: pieces of film differ about as much as the schemes do. Under frame masking the stillest leave about 0.1, the liveliest about 0.7.
#
# ### What the papers found
#
# V1 pre-trained ViT-B for 800 epochs with each, and fine-tuned (table 1b, Something-Something V2 / Kinetics-400):
#
# | scheme | top-1, % |
# |---|---|
# | frame 87.5 % | 61.5 / 76.5 |
# | random 90 % | 68.3 / 79.5 |
# | tube 75 % | 68.0 / 79.8 |
# | tube 90 % | 69.6 / 80.0 |
#
# The order of frame, random and tube at about 90 % is the order of the curves: what is easy to copy taught least.
# But a copier is no proof. It has no idea of objects, and an easy puzzle is not the only thing that makes a bad teacher.
# MAE-ST (2205.09113) reports the opposite on Kinetics with ViT-L: random best, 84.4, against 83.5 for tubes and 79.1 for frames. That is quoted from memory, not checked here.
# So tube against random is not settled. That frame masking is worst, both say.
#
# ## The explorer
#
# Move the sliders. The left picture is what the encoder sees of one step, the right one what the copier makes of it; the number is the error left over in the whole clip.
# It needs a running kernel. A still picture of the same follows.

# %%
from ipywidgets import Dropdown, FloatSlider, IntSlider


def scene(ratio: float, scheme: str, seed: int, step: int) -> dict[str, torch.Tensor]:
    """One step of the clip, masked and filled by the copier side by side; named by its error."""
    hidden = draw(scheme, ratio, 1, seed)
    filled = by_time(example, hidden)
    pair = paint(example, hidden), unpatchify(filled, grid)
    both = torch.cat([x[0, :, 2 * step] for x in pair], dim=2)  # two of (C, H, W) -> (C, H, 2·W)
    left = left_over(by_time, example, hidden).item()
    return {f"{scheme}, {hidden.float().mean():.0%}: {left:.2f} left": both}


def explore(**values) -> None:
    alt = "One step of the clip, masked, and beside it the copies in time."
    viz.pictures(scene(**values), alt, height=2.2)


viz.explorer(
    explore,
    ratio=FloatSlider(ratio, min=0.3, max=0.95, step=0.05),
    scheme=Dropdown(options=list(schemes), value="tube"),
    seed=IntSlider(seed, min=0, max=20),
    step=IntSlider(t // 2, min=0, max=t - 1),
)

# %%
still = {}
for scheme in schemes:
    for share in (0.5, 0.75, 0.9):
        still |= scene(share, scheme, seed, t // 2)
viz.pictures(
    still,
    "Step 4 of the clip in four rows, one a scheme, at 50, 75 and 90 percent: masked, and beside it "
    "as the copier fills it. Under the tube the copies are flat, under the others parts are sharp.",
    columns=3,
    height=1.25,
)

# %% [markdown]
# ## What a ratio costs
#
# The encoder reads visible tokens only, so a higher *mask ratio* (遮罩率) is cheaper. How much? We count *multiply-adds* (乘加運算, the papers' FLOPs) and measure processor time:
# forward and backward through a small encoder on the same 8x14x14 grid.

# %%
small = ModelConfig.videomae(
    "tiny",
    num_frames=frames,
    img_size=side,
    tubelet=grid.tubelet,
    embed_dim=192,
    num_heads=3,
    depth=3,
)
torch.manual_seed(seed)
encoder = VisionTransformer(small)
batch = (video[:2] * 255).byte()


def seconds(visible: torch.Tensor | None) -> float:
    """Of processor time, forward and backward: other programs hardly change it."""
    start = time.process_time()
    encoder.forward_features(batch, visible).square().mean().backward()
    return time.process_time() - start


shares = (0.0, 0.5, 0.75, 0.9, 0.95)
seen, counted = {0.0: None}, {0.0: cost.classifier_multiply_adds(small)}
for share in shares[1:]:
    scheme = MaskConfig("tube", share)
    seen[share] = make_mask(scheme, small.grid, len(batch)).visible
    stages = cost.pretraining_multiply_adds(small, scheme)
    counted[share] = stages["patch embed"] + stages["encoder"]
threads = torch.get_num_threads()
torch.set_num_threads(1)  # threads that wait for each other would count as work
rounds = [[seconds(seen[share]) for share in shares] for _ in range(1 + timings)]
torch.set_num_threads(threads)
fastest = np.min(rounds[1:], axis=0)  # the first round warms up
measured = dict(zip(shares, fastest, strict=True))

# %% tags=["timing"]
viz.table(
    [
        {
            "hidden": f"{share:.0%}",
            "tokens seen": f"{(t * (n - int(share * n))) / grid.num_tokens:.1%}",
            "multiply-adds": f"{counted[share] / counted[0.0]:.1%}",
            "time": f"{measured[share] / measured[0.0]:.1%}",
        }
        for share in measured
    ],
    caption="A small encoder, in percent of the cost with nothing hidden. The time is this machine's.",
)

# %% [markdown]
# The multiply-adds fall faster than the number of tokens, since attention compares every token with every other.
# The time follows them, not exactly: moving memory and starting each operation cost time too.
#
# Now ViT-B as published, counted only. The decoder's cost stands beside the encoder's.

# %%
# NBVAL_CHECK_OUTPUT
base = ModelConfig.videomae("B")
everything = cost.classifier_multiply_adds(base) / 1e9
print(f"nothing hidden: encoder {everything:5.1f} G")
for share in (0.5, 0.75, 0.9, 0.95):
    stages = cost.pretraining_multiply_adds(base, MaskConfig("tube", share))
    encoder_g, decoder_g, total = (stages[k] / 1e9 for k in ("encoder", "decoder", "total"))
    print(
        f"{share:14.0%}: encoder {encoder_g:5.1f} G + decoder {decoder_g:.1f} G, in all {total:6.1f} G"
    )
at_90 = cost.pretraining_multiply_adds(base, MaskConfig("tube", 0.9))
print(
    f"at 90 %, with the embedding of all tokens as in the official code: {at_90['published'] / 1e9:.1f} G"
)
assert round(at_90["encoder"] / 1e9, 2) == 14.06 and round(at_90["decoder"] / 1e9, 2) == 18.65

# %% [markdown]
# With nothing hidden the encoder costs 180.3 G. At 90 % it costs 14.1 G: a thirteenth, for a tenth of the tokens.
# The decoder costs 18.7 G at every ratio. It reads all 1568 positions, the visible ones as latents and the rest as mask tokens.
# At 90 % the small decoder already is the larger part. Going to 95 % halves the encoder once more, and saves a fifth of the whole.
#
# ## What comes next
#
# V2 keeps the tube for the encoder and thins out the *decoder*: it is asked for half of the positions only, chosen by a *running cell* (滾動單元遮罩).
# This is the *dual masking* (雙重遮罩) of lesson 08. Then queries and targets are no longer the same.
#
# ## Published and told
#
# | the notes say | published | where you ran both |
# |---|---|---|
# | V1 masks at random; tube masking came with V2 | the tube is V1's; V2 kept it | random, tube |
# | a tube covers 4 frames, a parameter | it covers the whole clip | exercise 2, curves |
# | 314 visible tokens of 3136 | with tubes 320; 314 is random masking | "How many, exactly" |
# | (paper) a coin for each place | (code) an exact count | "Why every clip needs the same count" |
# | (web) the encoder sees about 157 tokens | 160 with tubes | "How many, exactly" |
# | tubes teach more than random masks | V1 found so, MAE-ST did not | quoted; what copying gets is measured |
#
# ## Ledger
#
# | paper | cell | value here | why other |
# |---|---|---|---|
# | V1 section 3.3, tube 90 % | exercise 1 | 160 visible, 1408 hidden of 8x14x14 | as published |
# | V1 table 1b, random 90 %, frame 87.5 % | schemes, curves | copying error on the film | nothing is trained here |
# | V1 figure 4, ratios | curves | 50 to 95 % | copying error in place of accuracy |
# | tubelets of 2x16x16 at 224 pixels | in time and in space | 2x8x8 at 112, the same grid | the film has 108 rows |
# | Kinetics, stride 4 | clips | the film, stride 4, 24 frames a second | it ships with the course |
# | V1, ViT-B, cost | cost | counted at full size; timed with width 192, 3 blocks | seconds on two cores |
#
# ## What you can do now
#
# - Say how redundant a film is, in two numbers, and compare time with space.
# - Build random, tube and frame masks, with exact counts, and turn them into indices.
# - Judge a mask by what a copier gets under it.
# - Say what a mask ratio saves, and what it does not.
#
# ## Glossary
#
# | term | 中文 | meaning |
# |---|---|---|
# | redundancy | 時序冗餘 | what is known already from other frames |
# | white noise | 白雜訊 | every pixel drawn for itself |
# | correlation | 相關係數 | 1: one tells the other; 0: it tells nothing |
# | tubelet | 時空立方體 | a block of pixels over a few frames, one token |
# | mask ratio | 遮罩率 | share of the tokens that is hidden |
# | random masking | 隨機遮罩 | every token is drawn for itself |
# | tube masking | 管道式遮罩 | the same places are hidden at all times |
# | tube length | 管道長度 | the notes' parameter; published: the whole clip |
# | frame masking | 整幀遮罩 | whole steps in time are hidden |
# | Bernoulli draw | 伯努利 | a coin for each place |
# | visible, queries, targets | 可見、查詢位置、目標 | what the encoder sees; where the decoder is asked; what counts |
# | copying baseline | 複製基準 | fills holes without having learned anything |
# | multiply-add | 乘加運算 | one multiplication and one addition; the papers' FLOP |
# | running cell, dual masking | 滾動單元遮罩、雙重遮罩 | V2's mask of the decoder, lesson 08 |
