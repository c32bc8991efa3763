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
# # 04 · Video in
#
# A vision transformer reads an image as a list of patches. How does it read a film? In this lesson you follow a real one from the
# file to the tokens: you choose frames, cut them into *tubelets* (tubelet, 時空立方體; also called cubes), turn each tubelet into a vector, and tell the
# model where it came from in space and time.
#
# You fix one bug, write three functions and build one module. At the end, your module reads your clips and learns
# something that no single frame can show: how fast a film is playing.
#
# Measured on 2 CPU cores, the whole solution: about 1 minute, 1.4 GB of memory at most. Allow about 90 minutes with the exercises.

# %% tags=["parameters"]
shot = "data/big_buck_bunny_shot.mp4"  # of the film; any video of 64 frames or more will do
film = "data/big_buck_bunny_192x108.mp4"  # the whole film, small
frames, stride = 16, 4  # of a clip: 16 frames, 4 apart
pieces = 180  # of the film, for the training at the end
steps = 600  # of that training
seed = 0

# %% [markdown]
# ## Set-up

# %%
import math
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import decord
import numpy as np
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

import vmae
from vmae import data, train, weights
from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.course.lessons import check, diagrams, predict, viz
from vmae.grid import TokenGrid, patchify, unpatchify
from vmae.positions import sincos_1d, sincos_2d
from vmae.vit import PatchEmbed

os.chdir(vmae.ROOT)  # paths are relative to the checkout, wherever Jupyter was started

# %% [markdown]
# ## The whole path
#
# Here is the path of a clip in the pre-training of VideoMAE (V1, 2022) on *Kinetics-400*, 240,000 short videos of human actions, computed from the published
# recipe. This lesson covers everything up to the batch, and the model's first layer; masks, queries and targets follow in lesson 05.

# %%
diagrams.data_path(train.Recipe.load("v1-k400-b").pretrain)

# %% [markdown]
# *From file to step: decoding and sampling run on the CPU, and the batch travels to the device as uint8.*
#
# We start with the whole path in five lines. Every stage is a stand-in, borrowed from the package, that you will
# replace or take apart. The rule for choosing frames is a dummy.


# %%
# NBVAL_CHECK_OUTPUT
def first_frames(length: int) -> np.ndarray:
    """A dummy: the first frames, one after the other."""
    return np.arange(frames)


raw = data.read_frames(shot, first_frames)  # (T, H, W, 3)
square = data.crop_square(data.resize_frames(raw, 224))  # (T, 224, 224, 3)
clip = rearrange(torch.from_numpy(square), "t h w c -> c t h w")  # (C, T, H, W)
tokens = patchify(clip[None] / 255, TokenGrid((16, 224, 224), (2, 16, 16)))  # (B, N, P)
vectors = PatchEmbed(ModelConfig.videomae("B"))(tokens)  # (B, N, D)
for name, x in {"frames": raw, "clip": clip, "tokens": tokens, "vectors": vectors}.items():
    print(f"{name:8} {tuple(x.shape)}")

# %% [markdown]
# 16 frames of 456 x 256 pixels went in, 1568 vectors of 768 come out. Now one stage at a time.
#
# ## Frames from a file
#
# *decord* reads videos. We request frames by number and get an array (T, H, W, 3) of uint8: time, rows, columns, colour.

# %%
# NBVAL_CHECK_OUTPUT
reader = decord.VideoReader(shot, num_threads=1)
length = len(reader)
few = reader.get_batch([20, 50, 80, 110]).asnumpy()
print(length, "frames,", reader.get_avg_fps(), "per second")
print("four of them:", few.shape, few.dtype)
size = Path(shot).stat().st_size
print(f"file: {size / 1e6:.2f} MB; decoded: {few[0].nbytes * length / 1e6:.1f} MB")
print("key frames:", reader.get_key_indices())

# %% [markdown]
# The file is a hundred times smaller than its frames, because most frames are stored as changes to other frames. Only a *key frame* (關鍵影格) is
# stored whole. To get frame 30, decord seeks to key frame 24 and decodes forwards from there.
#
# ### Predict · the price of a scattered frame
#
# In the whole film, key frames are about 20 frames apart. We read 16 consecutive frames, and then 16 frames
# scattered over the film. How long does the second take, compared with the first? Write one of the options in place of `None`.

# %%
### BEGIN SOLUTION
guess = "more than 4 times as long"
### INSTEAD
# guess = None
### END SOLUTION
options = "about as long", "2 to 4 times as long", "more than 4 times as long"
scattered = predict("16 scattered frames take", guess, options)


# %% tags=["timing"]
def seconds(index: np.ndarray) -> float:
    """The fastest of three reads, each with a reader of its own."""
    times = []
    for _ in range(3):
        reader = decord.VideoReader(film, num_threads=1)
        start = time.perf_counter()
        reader.get_batch(index)
        times.append(time.perf_counter() - start)
    return min(times)


together, apart = np.arange(3000, 3016), np.linspace(100, 11000, 16).astype(int)
ratio = seconds(apart) / seconds(together)
scattered.compare(options[(ratio >= 2) + (ratio > 4)])
keys = np.array(decord.VideoReader(film, num_threads=1).get_key_indices())
needed = sum(i - keys[keys <= i].max() + 1 for i in apart)
print(f"{ratio:.0f} times as long; {needed} frames were decoded to get 16 scattered ones")

# %% [markdown]
# Both reads return 16 frames, but the scattered ones each pay for everything since the last key frame. Random access is what training
# does all day, so we'll come back to the cost when we store decoded frames.
#
# ## A clip from frames
#
# Frames arrive as (T, H, W, 3). VideoMAE's code expects a *clip* (影片片段) of shape (C, T, H, W): colour first, then time.
# Pixels stay uint8, a quarter of the bytes of floats; the model scales them later.
#
# ### Exercise 1 · find the bug
#
# **Difficulty** ●●○ · **about 8 minutes**
#
# The program below runs, every shape is right, and nothing is ever raised. Yet run it and look at the strip that the check draws: the grass turns
# purple, cyan and orange from frame to frame, and the rabbit has coloured ghosts. A model trains on such clips
# all the same, and no error message ever tells you. Find the line and fix it.


# %%
def to_clip(frames: np.ndarray) -> torch.Tensor:
    """Frames (T, H, W, C) as a clip (C, T, H, W); both uint8."""
    ### BEGIN SOLUTION
    pixels = torch.from_numpy(frames)
    return rearrange(pixels, "t h w c -> c t h w")
    ### INSTEAD
    # pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, H, W, C) -> (T, C, H, W)
    # t, c, h, w = pixels.shape
    # return pixels.reshape(c, t, h, w)  # (T, C, H, W) -> (C, T, H, W)
    ### END SOLUTION


to_clip = check("04.to_clip", to_clip)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `permute` moves axes. What does `reshape` do? Try both on `torch.arange(6).view(2, 3)`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# After `permute`, the planes lie in the order R0 G0 B0 R1 G1 B1 ... The `reshape` calls the first T of them "red". So the
# red of frame 1 is really the green of frame 0.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# pixels = torch.from_numpy(frames)
# return rearrange(pixels, "t h w c -> c t h w")  # or pixels.permute(3, 0, 1, 2)
# ```
#
# A common way to meet this bug: Hugging Face's VideoMAE takes (B, T, C, H, W), the official code (B, C, T, H, W), and `view` seems to fit one to the other.
# </details>

# %%
# NBVAL_CHECK_OUTPUT


def read_clip(choose, side: int = 224) -> torch.Tensor:
    """The chosen frames of the shot as a clip (C, T, side, side): resized, then the central square."""
    return to_clip(data.crop_square(data.resize_frames(data.read_frames(shot, choose), side)))


assert torch.equal(read_clip(first_frames), clip)  # as the stand-in above
print(tuple(read_clip(first_frames).shape))

# %% [markdown]
# ## Which frames make a clip
#
# A video has hundreds of frames; the model takes 16. Our dummy takes the first ones:

# %%
viz.film_strips(
    {"first 16": read_clip(first_frames, 96)},
    frames=6,
    alt="Six of the first sixteen frames, nearly alike: the rabbit has hardly moved.",
)

# %% [markdown]
# Sixteen frames at 25 per second last 0.64 seconds, too short to see a rabbit get up. Video is *redundant* (時序冗餘) in time;
# lesson 05 measures how much.
#
# ### Dense sampling
#
# *Dense sampling* (密集取樣) takes every s-th frame from a random start; s is the *stride* (取樣間隔). A clip then spans (T - 1)·s + 1 frames.
# VideoMAE uses T = 16 with s = 4 on Kinetics and s = 2 on *Something-Something*, short videos of hands that move objects (V1's scripts). The model zoo of
# [MMAction2](https://github.com/open-mmlab/mmaction2/blob/main/configs/recognition/videomaev2/README.md), a library for video models, writes this as
# `16x4x1`: frames x stride x clips.

# %%
# NBVAL_CHECK_OUTPUT
span = (frames - 1) * stride + 1
print(
    f"{frames} frames with stride {stride} span {span} frames = {span / 25:.2f} s at 25 per second"
)
print(f"starts that fit: 0 to {length - span}; starts that the published code draws: ", end="")
print(f"0 to {length - frames * stride}")

# %% [markdown]
# The published pre-training code leaves room for T·s frames, slightly more than the span, so it never draws the last three starts. That does
# no harm, but to get the official clips one must do the same.
#
# ### Exercise 2 · dense indices
#
# **Difficulty** ●●○ · **about 10 minutes**
#
# Write the published rule. Near the end of the video, the published loop repeats a frame: the index
# advances only while the next one is below length - 1, so the very last frame is never used.


# %%
def dense_indices(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Frames of a random clip.

    length   frames of the video       frames   T       stride   s
    rng      the only source of random numbers

    Returns T integers (T,). The start is uniform over 0, 1, ..., length - T·s, both ends included, and 0
    if that is negative. An index advances by `stride` only while the next one is below
    length - 1; from there on it is repeated.
    """
    ### BEGIN SOLUTION
    room = max(length - frames * stride, 0)
    start = rng.integers(room + 1)
    last = start + max(length - 2 - start, 0) // stride * stride
    return np.minimum(start + stride * np.arange(frames), last)
    ### END SOLUTION


dense_indices = check("04.dense_indices", dense_indices)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Compute the room for the start, draw the start, then take `start + stride * (0, 1, ..., T - 1)`, with no index above the last
# one that the loop reaches. A Python loop over T frames is fine, too.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `rng.integers(n)` draws from 0 to n - 1. `np.minimum` caps an array.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# room = max(length - frames * stride, 0)
# start = rng.integers(room + 1)
# last = start + max(length - 2 - start, 0) // stride * stride
# return np.minimum(start + stride * np.arange(frames), last)
# ```
# </details>
#
# Now it takes the dummy's place. Any correct use of the generator is fine, so we compare with the package what can be drawn,
# not what one seed draws.


# %%
def starts(draw) -> set[int]:
    """The first frames of 2,000 clips."""
    return {int(draw(np.random.default_rng(k))[0]) for k in range(2000)}


sampling = data.Sampling(frames, stride)  # the package's
yours = starts(lambda rng: dense_indices(length, frames, stride, rng))
theirs = starts(lambda rng: sampling.train(length, rng))
print("different starts in 2,000 draws: yours", len(yours), "· the package's", len(theirs))
assert yours == theirs == set(range(length - frames * stride + 1))

# %%
dense = dense_indices(length, frames, stride, np.random.default_rng(seed))
both = {"first 16": read_clip(first_frames, 160), "stride 4": read_clip(lambda _: dense, 160)}
viz.player(both, alt="Two clips in a loop: the first frames, nearly still, and frames 4 apart.")

# %% [markdown]
# And a short video? With 40 frames, the loop stops at 36, because the next index would be 40, and repeats it. The package
# does the same if `short` is "repeat"; by default it skips such videos and reports them.

# %%
# NBVAL_CHECK_OUTPUT
padded = data.Sampling(frames, stride, short="repeat").train(40, np.random.default_rng(0))
print("a video of 40 frames:", *padded)
assert np.array_equal(padded, dense_indices(40, frames, stride, np.random.default_rng(0)))

# %% [markdown]
# ### Fine-tuning's uneven steps
#
# V1's fine-tuning code for Kinetics does not step by 4. It spreads 16 points evenly over 64 frames, *both ends included*:
# 15 gaps of 64 / 15 = 4.27 frames, then every point rounded down (official file `kinetics.py`).

# %%
# NBVAL_CHECK_OUTPUT
points = np.linspace(0, frames * stride, frames)
index = np.minimum(points.astype(int), frames * stride - 1)
kinetics = data.Sampling(frames, stride, "kinetics").train(length, np.random.default_rng(0))
print("gaps by hand:    ", np.diff(index))
print("from the package:", np.diff(kinetics))
assert np.array_equal(np.diff(index), np.diff(kinetics))

# %% [markdown]
# The last point, 64, lies just outside the clip and is pulled back to frame 63, so the last gap is 4. A model fine-tuned
# this way has seen a clock that ticks slightly unevenly.
#
# ### TSN sampling
#
# In Something-Something, an action fills the whole video, so the clip should, too. *TSN sampling* (分段取樣, after
# Temporal Segment Networks) divides the video into T equal *segments* and takes a random frame from each.
#
# ### Exercise 3 · TSN indices
#
# **Difficulty** ●○○ · **about 7 minutes**


# %%
def tsn_indices(length: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each segment; length is T or more.

    Segment i holds the frames i·S to (i + 1)·S - 1, with S = length // T; the remainder at the end is unused.
    Each segment has its own draw, uniform over its frames. Returns T integers (T,).
    """
    ### BEGIN SOLUTION
    size = length // frames
    return np.arange(frames) * size + rng.integers(size, size=frames)
    ### END SOLUTION


tsn_indices = check("04.tsn_indices", tsn_indices)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# An index is the start of its segment plus an offset within it.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `rng.integers(n, size=T)` draws T numbers at once, each from 0 to n - 1.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# size = length // frames
# return np.arange(frames) * size + rng.integers(size, size=frames)
# ```
# </details>
#
# All the rules on one timeline; each mark is a frame that is read.

# %%
tsn = tsn_indices(length, frames, np.random.default_rng(seed))
package = data.Sampling(frames, scheme="tsn").train(length, np.random.default_rng(seed))
assert np.array_equal(tsn // (length // frames), package // (length // frames))  # the segments
rules = {"first 16": first_frames(length), "dense": dense, "kinetics": kinetics, "TSN": tsn}
viz.timeline(
    {f"{name}: {np.ptp(index) + 1} frames": index for name, index in rules.items()},
    length,
    alt="Marks on four timelines. The first 16 frames are crowded at the start; "
    "dense and kinetics cover about half of the shot; TSN covers nearly all of it, unevenly.",
)

# %%
viz.film_strips(
    {name: read_clip(lambda _, index=rules[name]: index, 96) for name in ("dense", "TSN")},
    frames=6,
    alt="Two rows of six frames, one row per rule. With dense sampling, the rabbit stands and stretches; with "
    "TSN, it gets up first.",
)

# %% [markdown]
# TSN covers nearly the whole shot but pays with uneven steps: speed is hard to read from such a clip.
#
# ### Several views for testing
#
# One clip of a long video may miss the action. At test time several clips, and several squares of each, are classified and
# their probabilities averaged: a *multi-view test* (多視角測試). MMAction2's page states 5 clips x 3 crops for Kinetics, as V1's scripts
# do; on Something-Something it is 2 x 3. Nothing is random here: the code first keeps every s-th frame of
# the video, then spreads the starts over what is left.

# %%
# NBVAL_CHECK_OUTPUT
sampling = data.Sampling(frames, stride, "kinetics")
test_clips = sampling.test(length, clips=5)
dataset = data.ClipDataset(data.VideoFiles([data.Video(Path(shot), 0)], 224), sampling, seed)
fifteen = dataset.views(0, clips=5, crops=3)
print(test_clips.shape, "starts", test_clips[:, 0])
print(fifteen.shape, "(views, T, H, W, 3)")
assert fifteen.shape == (15, 16, 224, 224, 3)

# %%
viz.timeline(
    {f"clip {k + 1}": row for k, row in enumerate(test_clips)},
    length,
    alt="Five timelines. The five test clips start at even distances and overlap; "
    "together they cover the whole shot.",
)
names = "left", "middle", "right"
viz.pictures(
    {name: fifteen[k, 0, ::2, ::2] for k, name in enumerate(names)},
    alt="The first frame of the first clip, three times: the square at the left end of the picture, in "
    "the middle, and at the right end.",
)

# %% [markdown]
# ## Tubelets
#
# Video leaves a choice that images do not: cut every frame on its own, or cut blocks that reach over p_t frames. Such a block is a
# *tubelet*. Each becomes one token.

# %%
diagrams.tubelets(ModelConfig.videomae("B"))

# %% [markdown]
# *VideoMAE-B's tubelets: 2 frames of 16 x 16 pixels. All tubelets share one linear layer.*
#
# Tubelets of (p_t, p_h, p_w) give N = t·h·w tokens of P = C·p_t·p_h·p_w values, with t = T / p_t, h = H / p_h, w = W / p_w.

# %%
# NBVAL_CHECK_OUTPUT
sizes = {
    "one frame, as an image": ((1, 224, 224), (1, 16, 16)),
    "16 frames, 1x16x16": ((16, 224, 224), (1, 16, 16)),
    "16 frames, 2x16x16": ((16, 224, 224), (2, 16, 16)),
    "32 frames, 2x16x16": ((32, 224, 224), (2, 16, 16)),
}
counts = []
for name, (shape, tubelet) in sizes.items():
    grid = TokenGrid(shape, tubelet)
    counts.append((grid.num_tokens, grid.token_dim))
    print(f"{name:23} {grid.shape!s:13} = {grid.num_tokens:4} tokens of {grid.token_dim}")
assert counts == [(196, 768), (3136, 768), (1568, 1536), (3136, 1536)]
print("pairs of tokens: 1x16x16 has", 3136**2 // 1568**2, "times as many as 2x16x16")

# %% [markdown]
# 3136 appears twice, and both are right. Explanations of VideoMAE often cut 16 frames one by one: 3136 tokens of 768. The published
# model takes 2 frames per tubelet (`modeling_finetune.py`): 1568 tokens of 1536. With 32 frames that makes 3136
# tokens of 1536. Attention compares every token with every other, so half the tokens are a quarter of the pairs.
#
# The order is a convention. Tokens run through time, then rows, then columns, as you read a book page after page. Inside a
# token, values run through frame, row, column and channel. For 2 time steps, 2 rows and 3 columns:
#
# | | column 0 | 1 | 2 |
# |---|---|---|---|
# | **time 0**, row 0 | 0 | 1 | 2 |
# | row 1 | 3 | 4 | 5 |
# | **time 1**, row 0 | 6 | 7 | 8 |
# | row 1 | 9 | 10 | 11 |
#
# ### Exercise 4 · cut a clip into tubelets
#
# **Difficulty** ●○○ · **about 7 minutes**
#
# The patches of an image, with one more axis. Write it in one `rearrange`.


# %%
def tubelets(clips: torch.Tensor, sides: tuple[int, int, int]) -> torch.Tensor:
    """Cut clips into tokens.

    clips   (B, C, T, H, W)       sides   (p_t, p_h, p_w), which divide T, H and W

    Returns (B, N, P): tokens in the order time, row, column; their values in the order frame, row,
    column, channel.
    """
    ### BEGIN SOLUTION
    p_t, p_h, p_w = sides
    return rearrange(
        clips,
        "b c (t p_t) (h p_h) (w p_w) -> b (t h w) (p_t p_h p_w c)",
        p_t=p_t,
        p_h=p_h,
        p_w=p_w,
    )
    ### END SOLUTION


tubelets = check("04.tubelets", tubelets)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Split each of T, H, W into two axes, grid and inside. That makes eight axes. Reorder them, then join them into three.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The left side is `"b c (t p_t) (h p_h) (w p_w)"`. The right side has three groups.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# p_t, p_h, p_w = sides
# return rearrange(
#     clips,
#     "b c (t p_t) (h p_h) (w p_w) -> b (t h w) (p_t p_h p_w c)",
#     p_t=p_t, p_h=p_h, p_w=p_w,
# )
# ```
# </details>

# %%
# NBVAL_CHECK_OUTPUT
clips = read_clip(lambda _: 30 + 4 * np.arange(frames))[None]  # (1, C, T, H, W)
grid = TokenGrid((16, 224, 224), (2, 16, 16))
tokens = tubelets(clips, grid.tubelet)  # (B, C, T, H, W) -> (B, N, P)
back = unpatchify(tokens, grid)  # (B, N, P) -> (B, C, T, H, W)
print(tuple(clips.shape), "→", tuple(tokens.shape), "→", tuple(back.shape))
assert tokens.shape == (1, 1568, 1536) and tokens.numel() == clips.numel()
assert torch.equal(tokens, patchify(clips, grid)) and torch.equal(back, clips)

# %% [markdown]
# Nothing is lost: `unpatchify` restores every bit. What do tokens hold? Here are 30 neighbours around the rabbit's head.

# %%
t, h, w = grid.shape
rows, columns = torch.arange(1, 6), torch.arange(3, 9)
near = (1 * h + rows[:, None]) * w + columns  # (5, 6): their indices, at time step 1
two = rearrange(tokens[0, near.flatten()] / 255, "n (f p) -> f n p", f=2)  # (2, 30, 768)
viz.pictures(
    {f"frame {2 + i} of the clip": viz.tiles(frame, 6) for i, frame in enumerate(two)},
    height=3,
    alt="Thirty tokens of one time step, as tiles with gaps: the rabbit's head and raised arm in the first "
    "frame of the tubelets, and in the second, a little further.",
)
print(f"tokens {near[0, 0]} to {near[0, -1]} are the first row of tiles")

# %% [markdown]
# Every token holds a tile of the left picture *and* the tile at the same position on the right. The head moves between them, so a single
# token can already contain motion. We'll measure that at the end.
#
# To see the grid in time, grey out the tokens of every other time step:

# %%
kept = rearrange(tokens.clone(), "b (t n) p -> b t n p", t=t)  # N -> (t, h·w)
kept[:, 1::2] = 128
half = unpatchify(kept.flatten(1, 2), grid)[0]
viz.film_strips(
    {"half": half[:, :4]},
    grid=16,
    alt="Four frames with a grid of patches: two of the rabbit, then two grey ones, because a tubelet "
    "holds two frames.",
)

# %% [markdown]
# ## Sizes that do not divide
#
# A clip must divide evenly in all three directions. Let's try some that don't.

# %%
# NBVAL_CHECK_OUTPUT
for shape in ((16, 224, 224), (15, 224, 224), (16, 180, 320), (16, 256, 456)):
    try:
        print(shape, "→", TokenGrid(shape, (2, 16, 16)).num_tokens, "tokens")
    except ValueError as error:
        print(shape, "→", error)
conv = nn.Conv3d(3, 8, (2, 16, 16), stride=(2, 16, 16))
print("Conv3d on 15 frames of 180x320:", tuple(conv(torch.zeros(1, 3, 15, 180, 320)).shape))

# %% [markdown]
# The package refuses and proposes sizes. PyTorch's convolution does not: it returns 7 x 11 x 20 tokens and silently ignores the last frame and the lowest
# 4 rows. A transformer would then train without ever seeing them.
#
# There are three remedies. *Choose*: sample 16 frames, not 15; that's why sampling always returns exactly T. *Crop*: VideoMAE cuts a square and
# scales it to 224 = 14 · 16; its giant model, with patches of 14, has 224 = 16 · 14. *Pad*: repeat the last sampled frame, as the published code does with short videos.

# %%
# NBVAL_CHECK_OUTPUT
odd = torch.rand(1, 3, 15, 180, 320)
padded = torch.cat((odd, odd[:, :, -1:]), dim=2)  # T: 15 -> 16
cropped = padded[..., 2:-2, :]  # H: 180 -> 176
print(tuple(odd.shape), "→", tuple(cropped.shape), "→", tuple(tubelets(cropped, (2, 16, 16)).shape))

# %% [markdown]
# ## Positions in time and space
#
# Without positions, a transformer cannot tell in which order its tokens came. Nor can an average: with tokens of one frame each, a shuffled film
# has the same one.

# %%
# NBVAL_CHECK_OUTPUT
shuffled = clips[:, :, torch.randperm(frames, generator=torch.Generator().manual_seed(seed))]
means = [tubelets(x.double(), (1, 16, 16)).mean(1) for x in (clips, shuffled)]
print("mean token of film and shuffled film agree:", torch.allclose(*means))
assert torch.allclose(*means)

# %% [markdown]
# So each token gets a *position embedding* (位置編碼): a vector that depends only on its index. A common misconception is that
# VideoMAE's has a spatial part and a temporal part. The published code has neither. It numbers the tokens
# 0 to 1567 and takes sines and cosines of that one number, at 384 frequencies (`get_sinusoid_encoding_table`).
#
# For comparison, a *separable* table (時空可分離) adds one vector for the time step and one for row and column. MAE-ST, another masked autoencoder for video (arXiv 2205.09113), learns such tables; here
# we make one of sines, so that nothing has to be trained.

# %%
# NBVAL_CHECK_OUTPUT
D = 768
one_d = sincos_1d(grid.num_tokens, D)  # (N, D)
in_time, in_space = sincos_1d(t, D), sincos_2d(h, w, D)  # (t, D), (h·w, D)
separable = rearrange(in_time[:, None] + in_space, "t n d -> (t n) d")  # (N, D)
print("1-D", tuple(one_d.shape), "· separable", tuple(separable.shape))

# %% [markdown]
# ### Predict · neighbours
#
# Take the token at time step 4, row 7, last column. In VideoMAE's 1-D table, whose position vector resembles its own more: that of the same patch
# one time step later, or that of the token at the *opposite* border, one row down?

# %%
### BEGIN SOLUTION
guess = "the opposite border"
### INSTEAD
# guess = None
### END SOLUTION
neighbour = predict("More similar", guess, options=("the next time step", "the opposite border"))


# %%
# NBVAL_CHECK_OUTPUT
def similarity(table: torch.Tensor, token: int) -> torch.Tensor:
    """Cosine similarity of one position with all others: (t, h, w)."""
    unit = F.normalize(table, dim=-1)
    return (unit @ unit[token]).view(t, h, w)


alike = similarity(one_d, (4 * h + 7) * w + 13)
later, border = alike[5, 7, 13].item(), alike[4, 8, 0].item()
neighbour.compare("the next time step" if later > border else "the opposite border")
print(f"next time step {later:.3f}, opposite border {border:.3f}")

# %% [markdown]
# In the list, the opposite border is the next token, while the same patch one time step later is 196 tokens away. The 1-D table knows only
# distances in the list. Here are the similarities of a token in the middle with all others:

# %%
middle = (4 * h + 7) * w + 7  # time step 4, row 7, column 7
maps = {"1-D": similarity(one_d, middle), "separable": similarity(separable, middle)}
viz.film_strips(
    {name: ((x - x.min()) / (1 - x.min()))[None] for name, x in maps.items()},
    alt="Similarity of one position with all others, eight maps of 14 by 14 per row, one per time step. "
    "1-D: the token's own row is bright at its own time step, everything else is dark. "
    "Separable: a bright spot at the token's position in every map, brightest at its own time step.",
)

# %% [markdown]
# *Bright: similar. Each row of maps has its own scale, from its smallest value to 1.*
#
# In the separable table, a position resembles its neighbours in all three directions. VideoMAE reached its results with the 1-D table nonetheless:
# every position has a vector of its own, and training does the rest.
#
# ## The tubelet embedding
#
# *Tubelet embedding* (時空立方體嵌入), also called cube embedding, has four steps: cut, flatten, project 1536 values to
# 768, add the position. (So say the notes behind this course, which start from two articles on Zhihu, [one](https://zhuanlan.zhihu.com/p/670040233) and
# [two](https://zhuanlan.zhihu.com/p/2906234248), and MMAction2's page.) The official code does the first three steps at once, with a 3-D convolution whose stride equals its kernel.


# %%
diagrams.conv_and_linear(ModelConfig.videomae("B"))

# %% [markdown]
# *Two ways to the same tokens. Since windows do not overlap, each output sees one tubelet, and the convolution is a linear layer.*
#
# In small: a tubelet of 1x1x2 pixels with 3 channels, and one output.

# %%
# NBVAL_CHECK_OUTPUT
pair = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).view(1, 3, 1, 1, 2)  # (B, C, T, H, W)
kernel = torch.tensor([[1.0, 0.0], [0.0, 10.0], [0.0, 100.0]]).view(1, 3, 1, 1, 2)
flat = [tubelets(x, (1, 1, 2)).flatten() for x in (pair, kernel)]
print("flat tubelet:", flat[0].tolist())
print("flat kernel: ", flat[1].tolist())
print("convolution", F.conv3d(pair, kernel).item(), "· product", (flat[0] @ flat[1]).item())

# %% [markdown]
# 1·1 + 4·10 + 6·100 = 641, either way, as long as both are flattened in the same order.
#
# Why bother? VideoMAE hides 90 % of the tokens. A convolution embeds all of them before most are thrown away; a linear
# layer embeds only the visible ones. It also settles a common worry: no hidden pixel leaks into a visible token.
#
# ### Exercise 5 · build the embedding
#
# **Difficulty** ●●● · **about 20 minutes**
#
# ```python
# TubeletEmbed(clip: (T, H, W), tubelet: (p_t, p_h, p_w), embed_dim: int)
# forward(clips: (B, 3, T, H, W), visible: (B, V) | None) -> (B, N, embed_dim) or (B, V, embed_dim)
# ```
#
# - The only parameters are those of `self.proj`, an `nn.Conv3d(3, embed_dim, tubelet, stride=tubelet)`: the official name and shape.
# - Positions are `sincos_1d(N, embed_dim)`. They are fixed and stored in no checkpoint.
# - With `visible`, return only those tokens, each with the position it has in the clip. Ideally, compute only those.


# %%
class TubeletEmbed(nn.Module):
    """Tokens of clips: every tubelet projected, its position added."""

    def __init__(self, clip: tuple, tubelet: tuple, embed_dim: int) -> None:
        ### BEGIN SOLUTION
        super().__init__()
        self.tubelet = tubelet
        self.proj = nn.Conv3d(3, embed_dim, tubelet, stride=tubelet)
        table = sincos_1d(math.prod(clip) // math.prod(tubelet), embed_dim)  # (N, D)
        self.register_buffer("pos_embed", table, persistent=False)
        ### END SOLUTION

    def forward(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        ### BEGIN SOLUTION
        tokens, pos_embed = tubelets(clips, self.tubelet), self.pos_embed  # (B, N, P), (N, D)
        if visible is not None:
            each = torch.arange(len(clips))[:, None]  # (B, 1)
            tokens, pos_embed = tokens[each, visible], pos_embed[visible]  # (B, V, P), (B, V, D)
        weight = rearrange(self.proj.weight, "d c p_t p_h p_w -> d (p_t p_h p_w c)")
        return F.linear(tokens, weight, self.proj.bias) + pos_embed
        ### END SOLUTION


TubeletEmbed = check("04.TubeletEmbed", TubeletEmbed)

# %% [markdown]
# <details><summary>Hint 1: the constructor</summary>
#
# Call `super().__init__()` first. N is the product of the clip's sides over that of the tubelet's. `self.register_buffer(name, table, persistent=False)`
# keeps a tensor that moves to the GPU with the module but is not saved.
# </details>
#
# <details><summary>Hint 2: the whole clip</summary>
#
# Start with `self.proj(clips)`, which is (B, D, t, h, w). `.flatten(2).transpose(1, 2)` makes (B, N, D) of it.
# </details>
#
# <details><summary>Hint 3: only the visible tokens</summary>
#
# Pick the rows of `tubelets(clips, tubelet)`: `tokens[torch.arange(B)[:, None], visible]`. The weight that fits them is `self.proj.weight` with its channel
# axis moved to the end, then flattened to (D, P). Pick positions with `pos_embed[visible]`.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def __init__(self, clip, tubelet, embed_dim):
#     super().__init__()
#     self.tubelet = tubelet
#     self.proj = nn.Conv3d(3, embed_dim, tubelet, stride=tubelet)
#     table = sincos_1d(math.prod(clip) // math.prod(tubelet), embed_dim)
#     self.register_buffer("pos_embed", table, persistent=False)
#
# def forward(self, clips, visible=None):
#     tokens, pos_embed = tubelets(clips, self.tubelet), self.pos_embed
#     if visible is not None:
#         each = torch.arange(len(clips))[:, None]
#         tokens, pos_embed = tokens[each, visible], pos_embed[visible]
#     weight = rearrange(self.proj.weight, "d c p_t p_h p_w -> d (p_t p_h p_w c)")
#     return F.linear(tokens, weight, self.proj.bias) + pos_embed
# ```
# </details>
#
# Your parameter names are the official ones, so trained weights load. Here are those of the small VideoMAE that lesson 00 used.

# %%
# NBVAL_CHECK_OUTPUT
encoder = weights.load("data/tiny").encoder
small, config = encoder.grid, encoder.config
embed = TubeletEmbed(small.clip, small.tubelet, config.embed_dim)
print(embed.load_state_dict(encoder.patch_embed.state_dict()))
mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
pixels = torch.rand(2, 3, *small.clip, generator=torch.Generator().manual_seed(seed))
visible = torch.tensor([[0, 5, 40], [7, 8, 63]])
with torch.no_grad():
    yours, theirs = embed((pixels - mean) / std, visible), encoder.embed(pixels, visible)
torch.testing.assert_close(yours, theirs, rtol=1e-3, atol=1e-3)
print(tuple(yours.shape), "the tokens that the trained encoder reads")

# %% [markdown]
# And at the published size:

# %%
# NBVAL_CHECK_OUTPUT
embed = TubeletEmbed(grid.clip, grid.tubelet, 768)
visible = torch.arange(0, 1600, 10)[None] % 1568  # 160 tokens, as many as VideoMAE leaves visible
with torch.no_grad():
    all_tokens, some = embed(clips / 255), embed(clips / 255, visible)
count = sum(p.numel() for p in embed.parameters())
print(f"{count:,} parameters;", tuple(all_tokens.shape), "all,", tuple(some.shape), "visible")
assert all_tokens.shape == (1, 1568, 768) and some.shape == (1, 160, 768)
torch.testing.assert_close(some, all_tokens[:, visible[0]], rtol=1e-3, atol=1e-3)

# %% [markdown]
# ## Files and a store
#
# Training reads every video again and again. The package can decode once into a *store* (解碼後的影格庫): a memory-mapped file of resized
# raw frames, from which clips are copied. We cut the film into short mp4 files and build one.

# %%
work = TemporaryDirectory(ignore_cleanup_errors=True)
folder = Path(work.name)
videos = [data.Video(folder / f"{i:03d}.mp4", label=0) for i in range(pieces)]
reader = data.open_video(film)
for i, video in enumerate(viz.track(videos, len(videos), "cut")):
    data.write_video(video.path, reader.frames(64 * i + np.arange(64)), fps=24)
files = data.VideoFiles(videos, 32)
store = data.build_store(folder / "stores", videos, 32, workers=1, progress=viz.track)
compressed = sum(video.path.stat().st_size for video in videos)
stored = sum(math.prod(store.shape(i)) * 3 for i in range(pieces))
print(
    f"{pieces} files: {compressed / 1e6:.1f} MB as mp4; store: {stored / 1e6:.1f} MB, at 32 pixels"
)

# %% [markdown]
# Now all your parts come together: a data set from file to clip.


# %%
class FilmClips:
    """Random clips (C, 8, 32, 32) of a source, files or a store: your sampler, your clips."""

    def __init__(self, source) -> None:
        self.source = source

    def read(self, index: int, stride: int, rng: np.random.Generator) -> torch.Tensor:
        """A random clip of video `index`."""
        chosen = self.source.read(index, lambda n: dense_indices(n, 8, stride, rng))
        return to_clip(data.crop_square(chosen, rng))


def some_clips(source) -> list[torch.Tensor]:
    """Eight clips, the same ones for every source."""
    rng, of = np.random.default_rng(seed), FilmClips(source)
    return [of.read(i, 4, rng) for i in range(8)]


same = all(map(torch.equal, some_clips(files), some_clips(store)))
print("files and store give the same clips:", same)
assert same

# %% tags=["timing"]
times = {}
for name, source in {"files": files, "store": store}.items():
    start = time.perf_counter()
    for _ in range(5):
        some_clips(source)
    times[name] = time.perf_counter() - start
    print(f"{name}: {40 / times[name]:,.0f} clips/s")
print(f"the store is {times['files'] / times['store']:.0f} times as fast")

# %% [markdown]
# The ratio depends on your machine, and the price is disk space: at 224 pixels, hundreds of thousands of videos may not fit, and more worker processes
# on files are the alternative.
#
# ## A model that reads speed
#
# Does it matter that a tubelet spans two frames? Here is a task about time: was a clip sampled with stride 1, or with
# stride 8, as if the film were played 8 times as fast? The model is your `TubeletEmbed`, plus a small MLP that lets
# each token vote on its own. There is no attention, so no token can compare itself with another.


# %%
class SpeedNet(nn.Module):
    """Every token votes for "stride 1" or "stride 8"; the votes are averaged."""

    def __init__(self, frames_per_tubelet: int) -> None:
        super().__init__()
        self.embed = TubeletEmbed((8, 32, 32), (frames_per_tubelet, 8, 8), 64)
        layers = nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 2)
        self.vote = nn.Sequential(*layers)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        x = (clips / 255 - 0.45) / 0.25  # uint8 -> about -2 to 2
        return self.vote(self.embed(x)).mean(1)  # (B, N, 2) -> (B, 2)


def batch(dataset: FilmClips, videos: list[int], rng: np.random.Generator, size: int = 16):
    """`size` clips with stride 1 and as many with stride 8: (2·size, C, 8, 32, 32), (2·size,)."""
    chosen, labels = rng.choice(videos, 2 * size), torch.arange(2 * size) // size
    clips = [dataset.read(i, 8 if y else 1, rng) for i, y in zip(chosen, labels, strict=True)]
    mirrored = torch.stack([x.flip(-1) if rng.random() < 0.5 else x for x in clips])
    return mirrored, labels


# %% [markdown]
# Two eighths of the film, the fourth and the last, are kept for testing, so that test clips come from other scenes.

# %%
dataset = FilmClips(store)
held_out = [i for i in range(pieces) if 8 * i // pieces in (3, 7)]
training = [i for i in range(pieces) if i not in held_out]


def train_speed(frames_per_tubelet: int) -> tuple[float, list[train.Record]]:
    """Train a model; its accuracy on clips of other scenes in percent, and its losses."""
    torch.manual_seed(seed)
    rng, model = np.random.default_rng(seed), SpeedNet(frames_per_tubelet)
    losses, records = [], []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for step in viz.track(range(1, steps + 1), steps, f"{frames_per_tubelet} per tubelet"):
        clips, labels = batch(dataset, training, rng)
        loss = F.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 20 == 0 or step == steps:  # the mean of 20 steps, for the curve
            records.append(train.Record(step, float(np.mean(losses[-20:])), 0.0, 0.0, 0.0))
    test_rng = np.random.default_rng(99)  # the same test clips for every model
    clips, labels = batch(dataset, held_out, test_rng, 400)
    with torch.no_grad():
        right = model(clips).argmax(1) == labels
    return 100 * right.float().mean().item(), records


# %% [markdown]
# ### Predict · one frame per tubelet
#
# The same training, with tubelets of 1 frame and of 2. Guessing gives 50 %. What accuracy does the model with *one* frame per tubelet reach?

# %%
### BEGIN SOLUTION
guess = 50
### INSTEAD
# guess = None
### END SOLUTION
one_frame = predict("Accuracy with one frame per tubelet", guess)

# %%
results = {p_t: train_speed(p_t) for p_t in (1, 2)}
one_frame.compare(results[1][0], unit="%")
names = {1: "1 frame per tubelet", 2: "2 frames per tubelet"}
print(", ".join(f"{names[p_t]}: {accuracy:.1f} %" for p_t, (accuracy, _) in results.items()))
viz.curves(
    {names[p_t]: records for p_t, (_, records) in results.items()},
    alt="Training loss over steps. With one frame per tubelet it stays at 0.69, the loss of guessing; with two "
    "frames it falls clearly below.",
)
viz.bars(
    {names[p_t]: [accuracy] for p_t, (accuracy, _) in results.items()},
    chance=50,
    alt="Accuracy on other scenes: with one frame per tubelet about 50 percent, chance; with two frames far above.",
)

# %% [markdown]
# With one frame per tubelet the loss stays at 0.69 = ln 2, the loss of a coin toss: a token that holds one frame cannot see speed. Two
# frames make the difference, in the same network. It does not get everything right, nor could it: in a shot where nothing
# moves, stride 1 and stride 8 are the same clip. This is one seed and a toy; a model with attention can
# also compare tokens across time.

# %%
del (
    store,
    files,
    source,
)  # a memory-mapped file must be closed before its folder is removed (Windows)

# %% [markdown]
# ## Aside: files that decord misreads
#
# In a file with an *open GOP* (a group of pictures that borrows from the one before it), decord can return another frame than
# the one requested, and raises no error. `vmae scan SET` compares decord with a second reader, PyAV, and lists such files.
# The cell writes the same frames with a closed and an open GOP, and scans both and our shot.

# %%
import av

decord.logging.set_level(decord.logging.QUIET)  # it warns, and continues
pictures = data.resize_frames(data.read_frames(shot), 96)[:, :, :160]
data.write_video(folder / "closed.mp4", pictures, fps=25)
group = "keyint=12:min-keyint=12:bframes=3:scenecut=0:b-adapt=0:log-level=none"
with av.open(str(folder / "open.mp4"), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
    stream.options = {"x264-params": f"open-gop=1:{group}"}
    for picture in pictures:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
    container.mux(stream.encode())

paths = Path(shot), folder / "closed.mp4", folder / "open.mp4"
scanned = data.VideoSet(folder, ("film",), tuple(data.Video(path, 0) for path in paths), ())
reports = data.scan_set(scanned, workers=1, progress=lambda reports, **_: reports)
for path, report in zip(paths, reports, strict=False):  # after the files comes one on the set
    print(path.name, "→", [text for _, text in report.problems] or "read exactly")
work.cleanup()

# %% [markdown]
# Only the file with the open GOP is misread. `vmae normalize` re-encodes a set so that decord reads it exactly.
#
# ## Published and used here
#
# | published | where | cell | value used here | why different |
# |---|---|---|---|---|
# | 16 frames, stride 4 (K400) or 2 (SSv2), start in 0 to n - 16·s | V1 scripts; `kinetics.py` | exercise 2 | 16 frames, stride 4; at the end 8 frames, stride 1 and 8 | a task about speed |
# | fine-tuning clips with gaps 4, 4, 4, 5 | `kinetics.py` | uneven steps | the same | |
# | TSN, 16 segments, for SSv2 | `ssv2.py` | exercise 3 | the same | |
# | 5 x 3 views (K400), 2 x 3 (SSv2) | V1 scripts; MMAction2's page | several views | 5 x 3 | |
# | tubelets of 2x16x16, 1568 tokens of 1536 | V1, `modeling_finetune.py` | exercise 4 | the same; at the end 2x8x8 | small frames train in seconds |
# | `Conv3d` with bias, stride = kernel | `modeling_finetune.py` | exercise 5 | linear layer, same weights | only visible tokens are embedded |
# | 1-D sines and cosines over 1568 positions | `modeling_finetune.py` | positions | the same, beside a separable table | to compare |
# | multi-scale crop to 224 | V1 code | `read_clip` | central square of 224 | to see the whole scene |
#
# ## Open questions
#
# **1.** A colleague doubles the clip from 16 to 32 frames and keeps everything else. What changes in the number of tokens, in the pairs that
# attention compares, and in the film covered? How could she cover the same film at the old cost?
#
# <details><summary>What a good answer contains</summary>
#
# Twice the tokens (3136), four times the pairs in attention but only twice the work in the MLPs, and twice the seconds. Doubling the stride to 8
# instead covers the same 5 seconds with 1568 tokens, at the price of coarser motion. Tubelets of 4 frames keep the tokens at 1568, but
# each must then describe four frames with the same 768 numbers, and trained weights no longer fit. A large mask ratio (lesson 05) reduces the cost of the encoder
# in pre-training, but not in fine-tuning.
# </details>
#
# **2.** VideoMAE chose tubelets of 2 frames. What would you expect from 1 and from 8, for a set where the action is a slow gesture, and for one
# where it is a clap? How would you test it with the code of this lesson?
#
# <details><summary>What a good answer contains</summary>
#
# With 1 frame, motion is visible only across tokens: attention must find it, over twice as many tokens. With 8 frames, there are few tokens, but one linear layer
# must summarise movement that may cross the tubelet's borders, and neighbouring frames are no longer separate; a clap may fit in a
# single tubelet. A fair test varies p_t at equal steps and several seeds, adds attention to `SpeedNet`, and chooses pairs of strides that are
# closer together (1 against 2), where the small differences decide.
# </details>
#
# ## What you can do now
#
# - Read a clip from any video with dense, Kinetics or TSN sampling, and say which frames it contains and what reading them costs.
# - Count tokens for any clip and tubelet, and choose, crop or pad a clip that does not divide.
# - Embed all or only some tubelets with the published weights.
# - Say what VideoMAE's positions know of space and time, and what they don't.
#
# ## Terms of this lesson
#
# | term | 中文 | meaning |
# |---|---|---|
# | clip | 影片片段 | the frames that enter the model together, (C, T, H, W) |
# | key frame | 關鍵影格 | a frame stored whole, from which decoding can start |
# | stride | 取樣間隔 | frames from one chosen frame to the next |
# | dense sampling | 密集取樣 | equal steps from a random start |
# | TSN sampling | 分段取樣 | one frame from each of T segments |
# | multi-view test | 多視角測試 | averaging over several clips and crops of a video |
# | tubelet | 時空立方體 | a block of p_t frames of p_h x p_w pixels; one token |
# | tubelet embedding | 時空立方體嵌入 | the projection of a tubelet to D values, plus its position |
# | position embedding | 位置編碼 | a vector that depends only on where a token is |
# | separable | 時空可分離 | made of a part for time and a part for space |
# | redundancy | 時序冗餘 | neighbouring frames hold nearly the same information |
# | store | 解碼後的影格庫 | decoded frames on disk, read without decoding |
