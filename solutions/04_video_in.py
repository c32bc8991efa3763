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
# An image goes into a transformer as patches. A video goes in as *tubelets* (tubelet, 時空立方體).
# This lesson follows a real film from the file to the tokens: which frames are read, how they are cut, how each
# piece becomes a vector, and how the model learns where the piece came from.
#
# You write four functions. The package has the same four, and the notebook compares them with yours.
#
# Measured on 2 shared CPU cores, the whole solution: 0.4 minutes, 0.7 GB of memory at the peak.

# %% tags=["parameters"]
film = "data/big_buck_bunny_shot.mp4"  # any video that decord reads, 64 frames or more
frames, stride = 16, 4  # of a clip: 16 frames, 4 apart
seed = 0

# %% [markdown]
# ## Set-up
#
# Paths are relative to the checkout, wherever Jupyter was started.

# %%
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import decord
import numpy as np
import torch
from einops import rearrange
from torch import nn

import vmae
from vmae import data, viz
from vmae.course.checks import check
from vmae.grid import TokenGrid, patchify, unpatchify
from vmae.positions import sincos_1d, sincos_2d

os.chdir(vmae.ROOT)

# %% [markdown]
# ## From a file to frames
#
# *decord* reads videos. We ask it for frames by number and get an array (T, H, W, 3) of uint8: time, rows, columns, colour.

# %%
# NBVAL_CHECK_OUTPUT
reader = decord.VideoReader(film, num_threads=1)
length = len(reader)
few = reader.get_batch([0, 40, 80, 120]).asnumpy()
print(length, "frames,", reader.get_avg_fps(), "a second")
print("four of them:", few.shape, few.dtype)

# %% [markdown]
# The file is far smaller than its frames. It holds few whole pictures; most frames are stored as changes.
# So a frame in the middle costs the decoding of all frames since the last whole picture, the *key frame* (關鍵影格).

# %%
size = Path(film).stat().st_size
print(f"file {size / 1e6:.2f} MB, frames {few[0].nbytes * length / 1e6:.1f} MB")
print("key frames:", reader.get_key_indices())

# %% [markdown]
# A model wants a *clip* (影片片段) of shape (C, T, H, W): colour first, then time. One `rearrange` does it.
# Resizing and the square crop are the package's.

# %%
# NBVAL_CHECK_OUTPUT


def to_clip(pictures: np.ndarray, side: int = 224) -> torch.Tensor:
    """Frames (T, H, W, 3) as a clip (C, T, side, side): resized, the square of the centre."""
    square = data.crop_square(data.resize_frames(pictures, side))  # (T, side, side, 3)
    return rearrange(torch.from_numpy(square), "t h w c -> c t h w").contiguous()


clip = to_clip(few)
print(tuple(clip.shape), clip.dtype)
assert clip.shape == (3, 4, 224, 224)

# %% [markdown]
# ### When decord is wrong in silence
#
# In a file with an *open GOP* (a group of pictures that borrows from the one before it), decord can return another frame than
# the one asked for, and raises no error.
# `vmae scan SET` compares decord with a second reader, PyAV, and lists such files with the way out.
#
# The cell writes a file of each kind from the same frames, and scans them and the film.

# %%
import av

decord.logging.set_level(decord.logging.QUIET)  # it warns, and goes on
work = TemporaryDirectory(ignore_cleanup_errors=True)
folder = Path(work.name)
pictures = data.resize_frames(data.read_frames(film, lambda n: np.arange(n)), 96)[:, :, :160]
data.write_video(folder / "closed.mp4", pictures, fps=25)
group = "keyint=12:min-keyint=12:bframes=3:scenecut=0:b-adapt=0:log-level=none"
with av.open(str(folder / "open.mp4"), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
    stream.options = {"x264-params": f"open-gop=1:{group}"}
    for picture in pictures:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
    container.mux(stream.encode())

three = tuple(
    data.Video(path, 0) for path in (Path(film), folder / "closed.mp4", folder / "open.mp4")
)
scanned = data.VideoSet(folder, ("film",), train=three, test=())
for report in data.scan_set(scanned, workers=1, progress=lambda reports, **_: reports):
    print(Path(report.path).name, "→", [text for _, text in report.problems] or "read exactly")

# %% [markdown]
# Only the file with the open GOP is read wrongly. decord noticed nothing.
#
# ## Which frames make a clip
#
# A video has hundreds of frames; the model takes 16. Which?
# We start with a dummy rule, the first 16 frames, and put the whole path around it: choose, read, resize, crop.


# %%
def first_frames(length: int) -> np.ndarray:
    """A dummy: the first frames, one after the other."""
    return np.arange(frames)


def read_clip(choose, side: int = 64) -> torch.Tensor:
    """The chosen frames of the film as a clip (C, T, side, side)."""
    return to_clip(data.read_frames(film, choose), side)


viz.film_strips(
    {"first 16": read_clip(first_frames)},
    alt="The first sixteen frames of the film. They look almost the same: little moves so soon.",
    frames=16,
)

# %% [markdown]
# The frames are nearly one picture. Sixteen frames at 25 a second last 0.64 seconds: too short to see a
# rabbit get up. Film is *redundant* (時序冗餘) over time, and the next lesson measures how much.
#
# ### Dense sampling: a stride
#
# *Dense sampling* (密集取樣) takes every s-th frame, s the *stride* (取樣間隔), from a random start.
# A clip of T frames spans (T - 1)·s + 1 frames from its first to its last. The paper uses T = 16 and s = 4 on Kinetics and 2 on
# Something-Something (V1, scripts).

# %%
# NBVAL_CHECK_OUTPUT
span = (frames - 1) * stride + 1
print(f"{frames} frames with stride {stride} span {span} of the film's {length} frames")
print(f"a start may lie at 0 to {length - span}: that is all the room there is")
print(f"published code: 0 to {length - frames * stride}")

# %% [markdown]
# The published pre-training code leaves room for T·s frames, a little more than the span.
# So the last three starts are never drawn. It does no harm; to match the official clips one must do the same.
#
# ### Exercise 1 · dense indices
#
# **Difficulty** ●●○ · **about 10 minutes**
#
# Write the published rule: T frames, an exact stride, a start from `rng`.
# In a video shorter than the clip, the published loop repeats the last frame that it sampled: an index
# advances only while the next one is below length - 1, so the very last frame is never used.


# %%
def dense_indices(length: int, frames: int, stride: int, rng: np.random.Generator) -> np.ndarray:
    """Frames of a random clip.

    length   frames of the video       frames   T       stride   s
    rng      the only source of chance

    Returns T integers (T,). The start is uniform over 0, 1, ..., length - T·s, both ends included, and 0
    where that is negative. An index advances by `stride` only while the next one is below
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
# The room for the start, the start, and the indices `start + stride * (0, 1, ..., T - 1)`, none of them above the last
# index that the loop reaches. A loop over T frames will do, too.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `rng.integers(n)` draws from 0 to n - 1. `np.minimum` holds an array below a limit.
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
# Now put it in place of the dummy. The same film, with stride 4:


# %%
def dense(length: int) -> np.ndarray:
    return dense_indices(length, frames, stride, np.random.default_rng(seed))


player = {"first 16": read_clip(first_frames, 160), "stride 4": read_clip(dense, 160)}
viz.player(
    player, alt="Two clips playing: the film's first frames, nearly still, and frames 4 apart."
)
ours = dense(length)
assert np.array_equal(
    ours, data.Sampling(frames, stride).train(length, np.random.default_rng(seed))
)
print(ours)

# %% [markdown]
# The package draws the same clip from the same seed.
#
# ### As published for fine-tuning: 4, 4, 4, 5
#
# The fine-tuning code for Kinetics, UCF101 and HMDB51 does not step by 4.
# It spreads 16 points evenly over 64 frames, *both ends included*. That makes 15 gaps of 64 / 15 = 4.27 frames.
# Rounded down, they become 4, 4, 4, 5 (official file `kinetics.py`).

# %%
# NBVAL_CHECK_OUTPUT
points = np.linspace(0, frames * stride, frames)
index = np.minimum(points.astype(int), frames * stride - 1)
print("gaps by hand:    ", np.diff(index))
kinetics = data.Sampling(frames, stride, "kinetics").train(length, np.random.default_rng(0))
print("from the package:", np.diff(kinetics))
assert np.array_equal(np.diff(index), np.diff(kinetics))

# %% [markdown]
# The last point, 64, lies just past the clip. It is held at frame 63, so the last gap is 4 and not 5.
# A model that was fine-tuned so has seen a time of slightly uneven steps.
#
# ### TSN sampling: one frame a segment
#
# Something-Something shows short actions from start to end. There the clip should cover the whole video.
# *TSN sampling* (分段取樣, from Temporal Segment Networks) cuts the video in T equal *segments* and takes one frame of each.
# In training it is a random frame of the segment.
#
# ### Exercise 2 · TSN indices
#
# **Difficulty** ●○○ · **about 7 minutes**


# %%
def tsn_indices(length: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame of each segment; length is T or more.

    Segment i holds the frames i·S to (i + 1)·S - 1, with S = length // T; what remains at the end is unused.
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
# An index is the start of its segment plus an offset into it.
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
# All rules on one line of time. Each mark is a frame that is read.


# %%
def tsn(length: int) -> np.ndarray:
    return tsn_indices(length, frames, np.random.default_rng(seed))


rules = {"first 16": first_frames(length), "dense": dense(length)}
rules |= {"kinetics": kinetics, "TSN": tsn(length)}
viz.timeline(
    {f"{name}: {np.ptp(index) + 1} frames": index for name, index in rules.items()},
    length,
    alt="Marks on four lines of time. The first 16 frames lie together at the start; "
    "dense and kinetics cover about half of the film; TSN covers nearly all of it, unevenly.",
)
package = data.Sampling(frames, scheme="tsn").train(length, np.random.default_rng(seed))
assert np.array_equal(tsn(length), package)

# %%
viz.film_strips(
    {name: read_clip(lambda _, index=rules[name]: index) for name in ("first 16", "dense", "TSN")},
    alt="Three rows of sixteen frames, one row a rule. From top to bottom the rows show more of the "
    "rabbit getting up.",
    frames=16,
)

# %% [markdown]
# TSN covers nearly the whole film and pays for it with uneven steps: speed is hard to read from such a clip.
#
# ### Testing with several views
#
# One clip of a long video may miss the action. For testing, several clips and several squares are classified,
# and their probabilities averaged: *multi-view testing* (多視角測試).
# Published on Kinetics: 5 clips x 3 crops = 15 views; on Something-Something 2 x 3 (V1, scripts).
# Here nothing is random.

# %%
# NBVAL_CHECK_OUTPUT
views = data.Sampling(frames, stride, "kinetics").test(length, clips=5)
print(views.shape, "starts", views[:, 0])
sampling = data.Sampling(frames, stride, "kinetics")
dataset = data.ClipDataset(data.VideoFiles([data.Video(Path(film), 0)], 224), sampling, seed)
fifteen = dataset.views(0, clips=5, crops=3)
print(fifteen.shape, "(views, T, H, W, 3)")
assert fifteen.shape == (15, 16, 224, 224, 3)

# %%
viz.timeline(
    {f"clip {k + 1}": row for k, row in enumerate(views)},
    length,
    alt="Five lines of time. The five test clips start at even distances and overlap; "
    "together they cover the whole film.",
)
crops = rearrange(torch.from_numpy(fifteen[:3, :, ::4, ::4]), "v t h w c -> v c t h w")
viz.film_strips(
    {"left": crops[0], "middle": crops[1], "right": crops[2]},
    alt="Four frames of the first clip in three rows: the square at the left end of the picture, in "
    "the middle, and at the right end.",
    frames=4,
)

# %% [markdown]
# ## Tubelets
#
# A transformer takes a list of vectors. An image becomes patches of 16x16 pixels. With video there is a choice:
# cut every frame on its own, or cut blocks that reach over p_t frames. Such a block is a *tubelet*.
#
# T·H·W pixels in tubelets of (p_t, p_h, p_w) give N = t·h·w tokens of P = C·p_t·p_h·p_w values,
# with t = T / p_t, h = H / p_h, w = W / p_w.

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
# Both 3136 are right. Popular notes cut 16 frames one by one: 3136 tokens of 768. VideoMAE takes 2 frames a tubelet
# (official file `modeling_finetune.py`): 1568 tokens of 1536. With 32 frames it is 3136 tokens of 1536.
# Attention compares every token with every other, so half the tokens are a quarter of the pairs.
#
# Cutting loses no value: 1568 · 1536 = 3 · 16 · 224 · 224. It only sorts them anew.
# The order must be agreed on. Tokens run time, then rows, then columns, as a book is read, page after page.
# Inside a token the pixels run frame, row, column, and colour fastest. It is the order of the official targets.
#
# A tiny example: 2 steps in time, 2 rows, 3 columns of tubelets. The tokens are numbered
#
# | | column 0 | 1 | 2 |
# |---|---|---|---|
# | **time 0**, row 0 | 0 | 1 | 2 |
# | row 1 | 3 | 4 | 5 |
# | **time 1**, row 0 | 6 | 7 | 8 |
# | row 1 | 9 | 10 | 11 |
#
# ### Exercise 3 · cut a clip into tubelets
#
# **Difficulty** ●●○ · **about 10 minutes**


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
# Split each of T, H, W in two axes, grid and inside. That makes eight axes. Reorder them, then join them into three.
# </details>
#
# <details><summary>Hint 2</summary>
#
# With einops the left side is `"b c (t p_t) (h p_h) (w p_w)"`. The right side has three groups.
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
clip = read_clip(dense, 224)[None]  # (1, C, T, H, W)
grid = TokenGrid((16, 224, 224), (2, 16, 16))
tokens = tubelets(clip, grid.tubelet)  # (B, C, T, H, W) -> (B, N, P)
back = unpatchify(tokens, grid)  # (B, N, P) -> (B, C, T, H, W)
print(tuple(clip.shape), "→", tuple(tokens.shape), "→", tuple(back.shape))
assert tokens.shape == (1, 1568, 1536) and tokens.numel() == clip.numel()
assert torch.equal(tokens, patchify(clip, grid)) and torch.equal(back, clip)

# %% [markdown]
# Your tokens are the package's, and `unpatchify` loses not one bit on the way back.
# Reconstructions need it: the decoder predicts tokens, and we want to see a clip.
#
# What does one token hold? Here are four that lie side by side. Each is two small pictures, from two
# frames of the clip. With stride 4 these are 0.16 seconds of film apart.

# %%
t, h, w = grid.shape
column = torch.arange(4) + (3 * t // 4 * h + h // 2) * w + w // 2  # four neighbours in a row
pairs = rearrange(tokens[0, column], "n (f p q c) -> n c f p q", f=2, p=16, q=16)
viz.film_strips(
    {f"token {n}": pair for n, pair in zip(column.tolist(), pairs, strict=True)},
    alt="Four tokens, one a row, each of two pictures of 16 by 16 pixels. The two pictures of a token are "
    "almost the same, moved a little.",
)

# %% [markdown]
# To see the grid in time, we keep the tokens of every second step and paint the rest grey.

# %%
kept = rearrange(tokens.clone(), "b (t n) p -> b t n p", t=t)  # N -> (t, h·w)
kept[:, 1::2] = 128
half = unpatchify(kept.flatten(1, 2), grid)[0]
viz.film_strips(
    {"clip": clip[0], "half": half},
    frames=16,
    grid=16,
    alt="The clip of 16 frames and below it the same with the tokens of every second step in time "
    "grey: two frames are shown, two are grey, and so on, since a tubelet holds two frames.",
)

# %% [markdown]
# ## Embedding: a convolution that is a linear layer
#
# Each token of 1536 values is projected to the encoder's width D, 768 for ViT-B. That is the *tubelet embedding* (時空立方體嵌入).
# The official code writes it as a 3-D convolution whose stride is its kernel: `Conv3d(3, 768, (2, 16, 16), stride=(2, 16, 16))`.
# Its windows do not overlap. So each output sees one tubelet, and the convolution is a linear layer on the flattened tubelet.
#
# A tiny example first: a tubelet of 1x1x2 pixels with 3 channels, one output.

# %%
# NBVAL_CHECK_OUTPUT
pair = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).view(1, 3, 1, 1, 2)  # (B, C, T, H, W)
kernel = torch.tensor([[1.0, 0.0], [0.0, 10.0], [0.0, 100.0]]).view(1, 3, 1, 1, 2)
print("convolution:", nn.functional.conv3d(pair, kernel).item())
print("flat tubelet:", tubelets(pair, (1, 1, 2)).flatten().tolist())
print("flat kernel: ", tubelets(kernel, (1, 1, 2)).flatten().tolist())
print("their product:", (tubelets(pair, (1, 1, 2)) * tubelets(kernel, (1, 1, 2))).sum().item())

# %% [markdown]
# 1·1 + 4·10 + 6·100 = 641, both ways. Only the order of the weights must fit the order of the values.
#
# ### Exercise 4 · the weights of the Conv3d
#
# **Difficulty** ●●○ · **about 8 minutes**
#
# A linear layer on tubelets has weights (D, P), one row an output. Each row runs frame, row, column, channel.
# Give the same weights the shape that a `Conv3d` wants.


# %%
def conv3d_weight(weight: torch.Tensor, sides: tuple[int, int, int]) -> torch.Tensor:
    """Weights of the Conv3d that does what a linear layer does on flattened tubelets.

    weight   (D, P), its rows in the order (p_t, p_h, p_w, C)       sides   (p_t, p_h, p_w)

    Returns (D, C, p_t, p_h, p_w).
    """
    ### BEGIN SOLUTION
    p_t, p_h, p_w = sides
    return rearrange(weight, "d (p_t p_h p_w c) -> d c p_t p_h p_w", p_t=p_t, p_h=p_h, p_w=p_w)
    ### END SOLUTION


conv3d_weight = check("04.conv3d_weight", conv3d_weight)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First undo the flattening: (D, P) to (D, p_t, p_h, p_w, C). Then move one axis.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `weight.view(D, p_t, p_h, p_w, -1)` and `permute`, or one `rearrange`.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# p_t, p_h, p_w = sides
# return rearrange(weight, "d (p_t p_h p_w c) -> d c p_t p_h p_w", p_t=p_t, p_h=p_h, p_w=p_w)
# ```
# </details>
#
# Now on the real clip at the published size: 1568 tokens, D = 768.

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(seed)
linear = nn.Linear(grid.token_dim, 768)
conv = nn.Conv3d(3, 768, grid.tubelet, stride=grid.tubelet)
with torch.no_grad():
    conv.weight.copy_(conv3d_weight(linear.weight, grid.tubelet))
    conv.bias.copy_(linear.bias)
    pixels = clip / 255
    from_conv = conv(pixels).flatten(2).transpose(1, 2)  # (B, D, t, h, w) -> (B, N, D)
    from_linear = linear(tubelets(pixels, grid.tubelet))  # (B, N, P) -> (B, N, D)
apart = (from_conv - from_linear).abs().max().item()
print(tuple(from_conv.shape), tuple(from_linear.shape))
print("largest difference below 1e-5:", apart < 1e-5)
assert apart < 1e-5

# %% [markdown]
# The difference is rounding: the two add the same products in another order.
#
# Why does it matter? VideoMAE hides 90 % of the tokens. A convolution embeds all of them first.
# The linear layer embeds the visible ones alone. The package keeps the weights in a `Conv3d`, so that official
# checkpoints load, and computes the linear layer. It also answers a common worry: no hidden pixel leaks
# into a neighbour, because windows do not overlap.

# %%
# NBVAL_CHECK_OUTPUT
from vmae.config import ModelConfig
from vmae.vit import PatchEmbed

embed = PatchEmbed(ModelConfig.videomae("B"))
print(
    "published weights:", tuple(embed.proj.weight.shape), "and bias", tuple(embed.proj.bias.shape)
)
visible = torch.arange(0, grid.num_tokens, 10)  # every tenth token
print("embedded:", tuple(embed(tokens[:, visible]).shape))
flat = tubelets(embed.proj.weight.detach(), grid.tubelet)[:, 0]  # a kernel is one tubelet: (D, P)
assert torch.equal(conv3d_weight(flat, grid.tubelet), embed.proj.weight)

# %% [markdown]
# ## Where a token comes from: positions
#
# Attention does not know the order of its tokens. A *position embedding* (位置編碼) is added to each token: a vector that depends on its place alone.
#
# Notes often say that VideoMAE's positions have a space part and a time part. The published code has neither.
# It numbers the tokens 0 to 1567 and takes the sine and cosine of that one number, at 384 frequencies
# (official function `get_sinusoid_encoding_table`). Time, row and column are not told apart.
#
# Beside it, a *separable* table (時空可分離): one table for the step in time, one for row and column, added.
# MAE-ST learns such tables; here it is made of sines and cosines, so that it can be compared without training.

# %%
# NBVAL_CHECK_OUTPUT
D = 768
one_d = sincos_1d(grid.num_tokens, D)
in_time = sincos_1d(t, D)  # (t, D)
in_space = sincos_2d(h, w, D)  # (h·w, D)
separable = rearrange(in_time[:, None] + in_space, "t n d -> (t n) d")  # (N, D)
print("1-D", tuple(one_d.shape), "separable", tuple(separable.shape))
print(
    "to be learned:",
    grid.num_tokens * D,
    "values joint,",
    (t + h * w) * D,
    "separable, 0 with sines",
)

# %% [markdown]
# How alike are two positions? We take the cosine similarity of one token, in the middle, with all others.
# One picture a step in time; bright is alike. Each row of pictures has its own scale, from its least value to 1.


# %%
def similarity(table: torch.Tensor, place: int) -> torch.Tensor:
    """Cosine similarity of one position with all: (t, h, w)."""
    unit = nn.functional.normalize(table, dim=-1)
    return (unit @ unit[place]).view(t, h, w)


middle = (4 * h + 7) * w + 7  # time 4, row 7, column 7
tables = {"1-D": one_d, "separable": separable}
alike = {name: similarity(table, middle) for name, table in tables.items()}
viz.film_strips(
    {name: ((x - x.min()) / (1 - x.min()))[None] for name, x in alike.items()},
    alt="Similarity of one position with all others, eight pictures of 14 by 14 a row, one a step in time. "
    "1-D: the token's own row is bright at its own time, all the rest is dark. "
    "Separable: a bright spot at the token's place in every picture, brightest at its own time.",
)

# %%
# NBVAL_CHECK_OUTPUT
steps = {"one column on": 1, "one row down": w, "one step in time": h * w, "end of its row": 6}
for name, values in alike.items():
    flat = values.flatten()
    told = ", ".join(f"{what} {flat[middle + far].item():.3f}" for what, far in steps.items())
    print(f"{name:9} {told}")
edge = 4 * h * w + 7 * w + 13  # the last token of a row; the next one opens the row below
print("1-D, from the end of a row to the start of the next:", end=" ")
print(f"{similarity(one_d, edge).flatten()[edge + 1].item():.3f}")

# %% [markdown]
# In the 1-D table only the distance in the list counts. One step in time is 196 places on, and the similarity of the two drops
# to 0.362. The end of one row and the start of the next lie at opposite borders of the picture, and are as alike
# as two neighbours: 0.973. In the separable table all three neighbours are alike, and the same place stays bright over time.
#
# VideoMAE's published results were reached with the 1-D table. Every place has a vector of its own; the rest is left to training.
#
# ## Files against a store
#
# Training reads every video again and again. Decoding each time is slow. The package can decode once instead, into a *store* (解碼後的影格庫): one
# memory-mapped file of raw frames, resized, from which a clip is copied.
# The two must give the same clips, or a run would depend on how its data was read.
#
# We cut a few small mp4 files from the film, into a temporary folder.

# %%
piece, count = 64, 12
scene = data.read_frames(
    "data/big_buck_bunny_192x108.mp4", lambda n: 3000 + np.arange(piece * count)
)
videos = [data.Video(folder / f"{i:02d}.mp4", label=i) for i in range(count)]
for i, video in enumerate(videos):
    data.write_video(video.path, scene[i * piece : (i + 1) * piece], fps=24)
files = data.VideoFiles(videos, 64)
store = data.build_store(folder / "stores", videos, 64, workers=1, progress=viz.track)
compressed = sum(video.path.stat().st_size for video in videos)
raw = sum(np.prod(store.shape(i)) * 3 for i in range(count))
print(f"{count} files: {compressed / 1e6:.1f} MB as mp4, {raw / 1e6:.1f} MB in the store")

# %% [markdown]
# Batch k is a function of the seed and of k. So two loaders with the same seed must agree, clip by clip, and one that starts at
# step 3 must continue where another stopped.


# %%
# NBVAL_CHECK_OUTPUT
def batches(source, start: int = 0) -> list[torch.Tensor]:
    """The clips (B, C, T, H, W) of steps start to 5."""
    dataset = data.ClipDataset(source, data.Sampling(16, 2), seed)
    steps = data.StepBatches(total=count, batch=4, steps=6, seed=seed, start=start)
    return [batch.clips for batch in data.train_loader(dataset, steps, num_workers=0)]


of_files, of_store = batches(files), batches(store)
print(len(of_files), "batches of", tuple(of_files[0].shape), of_files[0].dtype)
same = all(torch.equal(a, b) for a, b in zip(of_files, of_store, strict=True))
resumed = all(torch.equal(a, b) for a, b in zip(batches(store, 3), of_store[3:], strict=True))
print("files and store agree:", same, "· resumed at step 3 agrees:", resumed)
assert same and resumed

# %% [markdown]
# And the time? The cell takes the best of three passes over the same batches.


# %% tags=["timing"]
def seconds(source) -> float:
    """The fastest of three passes."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        batches(source)
        times.append(time.perf_counter() - start)
    return min(times)


slow, fast = seconds(files), seconds(store)
print(
    f"{24 / slow:,.0f} clips/s from files, {24 / fast:,.0f} from the store: {slow / fast:.0f} times"
)
del store, of_store  # a memory-mapped file must be let go before its folder is removed (Windows)
work.cleanup()

# %% [markdown]
# The ratio is your machine's, for one process and small frames. A store costs disk: the frames are raw. At 224 pixels and
# hundreds of thousands of videos it may not fit, and files with more worker processes are the way.
# A store is made once, and it notices when a file has changed since.
#
# ## What was published, what was run here
#
# | published | where | cell | value used here | why other |
# |---|---|---|---|---|
# | 16 frames, stride 4 (K400) or 2 (SSv2), random start in 0 to n - 16·s | V1 scripts; `kinetics.py` | exercise 1 | stride 4; 2 in the store | small pieces of film |
# | fine-tuning clips with gaps 4, 4, 4, 5 | `kinetics.py` | 4, 4, 4, 5 | the same | |
# | TSN, 16 segments, for SSv2 | `ssv2.py` | exercise 2 | the same | |
# | 5 x 3 views (K400), 2 x 3 (SSv2) | V1 scripts | several views | 5 x 3 | |
# | tubelets of 2x16x16, 1568 tokens of 1536 | V1, `modeling_finetune.py` | exercise 3 | the same | |
# | `Conv3d` with bias, stride = kernel | `modeling_finetune.py` | exercise 4 | linear layer, same weights | only visible tokens are embedded |
# | 1-D sine and cosine over 1568 places | `modeling_finetune.py` | positions | the same, beside a separable one | to compare |
# | multi-scale crop to 224 | V1 code | `to_clip` | centre square of 224 | to see the whole scene |
#
# ## What you can do now
#
# - Read a clip from any video, with dense, Kinetics or TSN sampling, and say which frames it takes.
# - Count tokens for any clip and tubelet, cut a clip and put it back together.
# - Turn a linear embedding into the published `Conv3d` and back.
# - Say what VideoMAE's positions know of space and time, and what they do not.
# - Choose between files and a store, and know that the clips are the same.
#
# ## Terms of this lesson
#
# | term | 中文 | meaning |
# |---|---|---|
# | clip | 影片片段 | the frames that go into the model together, (C, T, H, W) |
# | key frame | 關鍵影格 | a frame stored whole, from which decoding can start |
# | stride | 取樣間隔 | frames from one chosen frame to the next |
# | dense sampling | 密集取樣 | equal steps from a random start |
# | TSN sampling | 分段取樣 | one frame of each of T segments |
# | multi-view test | 多視角測試 | averaging over several clips and crops of a video |
# | tubelet | 時空立方體 | a block of p_t frames of p_h x p_w pixels; one token |
# | tubelet embedding | 時空立方體嵌入 | the projection of a tubelet to D values |
# | position embedding | 位置編碼 | a vector that says where a token lies |
# | separable | 時空可分離 | made of a part for time and a part for space |
# | redundancy | 時序冗餘 | neighbouring frames say nearly the same |
# | store | 解碼後的影格庫 | decoded frames on disk, read without decoding |
