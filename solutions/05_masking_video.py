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
# Hide 75 % of a photo, and a model has to work for the rest. Hide 75 % of a video the same way, and most of the answer stays in plain sight, one
# time step earlier. In this lesson you measure how much video repeats itself, build the masks that were invented against it, and find
# out what each of them leaves to be learned.
#
# You write three functions, fix one bug and build a generator of masks. One of the functions is a copier, an opponent that has learned nothing and that any model
# ought to beat.
#
# Measured on 2 shared CPU cores, the whole solution: about 1 minute, 1.2 GB of memory at most. Allow about 90 minutes with the exercises.

# %% tags=["parameters"]
shot = "data/big_buck_bunny_shot.mp4"  # the clip that is shown: any video of 128 frames or more
frames, stride = 16, 4  # of a clip
clips = 16  # cut from the whole film, for everything that is measured
ratio = 0.9  # share of the tokens that the encoder does not see
ratios = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of the curves
timings = 5  # rounds of the stopwatch, of which the fastest counts
seed = 0

# %% [markdown]
# ## Set-up

# %%
import os
import time

import numpy as np
import torch
from einops import rearrange, repeat

import vmae
from vmae import cost, data, train, vit
from vmae.config import MaskConfig, ModelConfig
from vmae.course.experiments import copier, figures, results, table, verdicts
from vmae.course.lessons import check, diagrams, making, predict, viz
from vmae.grid import TokenGrid, patchify, unpatchify
from vmae.masking import Mask, make_mask

os.chdir(vmae.ROOT)  # paths are relative to the checkout, wherever Jupyter was started

# %% [markdown]
# ## Redundancy
#
# Take the middle row of pixels from every frame of a shot, and stack these rows: time now runs downwards. Whatever stands still draws a
# vertical line; whatever moves draws a slanted one.

# %%
whole = data.read_frames(shot)  # (T, H, W, 3)
row = torch.from_numpy(whole[:, whole.shape[1] // 2])  # (T, W, 3)
noise_row = torch.randint(0, 256, (12, 36, 3), generator=torch.Generator().manual_seed(seed)).byte()
viz.pictures(
    {"one frame": torch.from_numpy(whole[0]), "its middle row over time": row, "noise": noise_row},
    "A frame of the film, a rabbit on a meadow; its middle row over time, made of vertical and gently "
    "slanted streaks; and the same of white noise, which has no streaks.",
    height=1.3,
)

# %% [markdown]
# The streaks are *redundancy* (時序冗餘): this frame nearly determines the next. *White noise* (白雜訊) has none.
#
# Two numbers capture it. The *correlation* (相關係數) of two frames is 1 if one determines the other up to brightness and contrast, and 0 if they are unrelated. The *copying error*
# is that of predicting the frame of k frames ago: the mean squared error, divided by the variance of both frames together. So 1 is
# the error of always predicting their mean. For example, a bright bar two pixels wide:


# %%
# NBVAL_CHECK_OUTPUT
def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of the values of each clip: (B, ...), (B, ...) -> (B,)."""
    a, b = (x.flatten(1).float() for x in (a, b))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def copying_error(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of predicting `b` to be `a`, in units of their common variance: (B, ...), (B, ...) -> (B,)."""
    a, b = (x.flatten(1).float() for x in (a, b))
    return (a - b).square().mean(1) / torch.cat((a, b), dim=1).var(1, correction=0)


bar = torch.tensor([[0, 0, 9, 9, 0, 0, 0, 0]])
for name, other in {"the same": bar, "moved by 1": bar.roll(1), "moved by 2": bar.roll(2)}.items():
    print(f"{name}: correlation {correlation(bar, other).item():.2f}", end=", ")
    print(f"copying error {copying_error(bar, other).item():.2f}")

# %% [markdown]
# Moved by one, the bar still covers one of its pixels, yet copying is already worse than predicting the mean: moving things cannot be
# copied from where they were. (If both frames have the same mean and variance, the error is 2·(1 - correlation).)
#
# ### In time
#
# We take pieces of 64 frames from the whole film, none across a cut. Beside them: two pieces of the
# shot above, frames held still, and white noise.

# %%
side, length = 112, 64


def as_clips(pictures: np.ndarray) -> torch.Tensor:
    """Frames (B·length, H, W, 3), one piece after the other, as clips (B, C, length, side, side)."""
    square = torch.from_numpy(data.crop_square(data.resize_frames(pictures, side)))
    return rearrange(square, "(b t) h w c -> b c t h w", t=length).contiguous()


spec = making.FilmSpec(frames=length, static=0.0)  # static=0: pieces that hardly move stay in
starts = [start for _, start, _ in making.choose_clips(spec, making.FILM)]
chosen = [starts[int(i)] for i in np.linspace(0, len(starts) - 1, clips)]
index = np.add.outer(chosen, np.arange(length)).ravel()
film = as_clips(data.read_frames(making.FILM, lambda _: index))
dice = torch.Generator().manual_seed(seed)
sources = {
    "film": film,
    "shot": as_clips(whole[: 2 * length]),
    "still": film[:, :, length // 2, None].expand_as(film),
    "noise": torch.randint(0, 256, film[:4].shape, generator=dice).byte(),
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
viz.spreads(
    {
        label: {name: (distances, x) for name, x in values.items()}
        for label, values in {"correlation": alike, "copying error": copied}.items()
    },
    "Correlation and copying error over the distance in frames. Noise is flat at 0 and 2, a still "
    "at 1 and 0. The film and the shot start close to the still and move away slowly, with a wide spread.",
    xlabel="frames apart",
)

# %% [markdown]
# From one frame to the next, the film has a correlation of 0.98, and copying leaves 0.04 of the variance. Eight frames apart, a third of a second,
# it leaves 0.21. Noise lies at 2, twice as bad as predicting the mean. The film is nearer to the still, though pieces differ (8 of 10 lie within the bars).
#
# ### In time against in space
#
# A mask hides tokens, so what matters is how alike *tokens* are. Clips of 16 frames with stride 4 and 112 pixels, in tubelets
# (時空立方體) of 2x8x8, give the published grid of 8x14x14 tokens.

# %%
# NBVAL_CHECK_OUTPUT
grid = TokenGrid((frames, side, side), (2, 8, 8))
t, h, w = grid.shape
n = grid.tokens_per_frame
video = film[:, :, : frames * stride : stride] / 255  # (B, C, T, H, W)
tokens = patchify(video, grid)  # (B, C, T, H, W) -> (B, N, P)
assert (t, h, w) == (8, 14, 14) and tokens.shape == (clips, 1568, 384)
print(tuple(video.shape), "→", tuple(tokens.shape), "on a grid of", grid.shape)

# %%
block = tokens.view(-1, t, h, w, grid.token_dim)  # N -> t, h, w
pairs = {
    "one time step earlier": (block[:, :-1], block[:, 1:]),
    "one position to the left": (block[:, :, :, :-1], block[:, :, :, 1:]),
    "one position above": (block[:, :, :-1], block[:, :, 1:]),
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
# A time step is 2·4 = 8 frames of the film, hence 0.21 again. The neighbour in the same
# frame leaves three times as much. Video is more redundant in time than in space: V1's reason (section 3) for hiding more than
# MAE's 75 %, and for hiding it differently.
#
# ## The whole, with a dummy mask
#
# The life of a *mask* (遮罩): choose what is hidden, hand the visible tokens to an encoder, fill the holes,
# measure the error there. Here the mask is a dummy that shows every tenth token, and the filler a dummy that predicts the mean visible token.


# %%
def masked(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Clips (B, C, T, H, W) of tokens (B, N, P), grey where hidden (B, N)."""
    return unpatchify(torch.where(hidden[..., None], 0.74, tokens), grid)


def mean_visible(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The mean visible token of each clip: (B, N, P), (B, N) -> (B, 1, P)."""
    seen = ~hidden[..., None]
    return (tokens * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)


def hidden_error(guess: torch.Tensor, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the hidden tokens of each clip: (B, N, P), (B, N, P), (B, N) -> (B,)."""
    return ((guess - tokens).square().mean(-1) * hidden).sum(1) / hidden.sum(1)


example = patchify(sources["shot"][:1, :, : frames * stride : stride] / 255, grid)  # (1, N, P)
dummy = (torch.arange(grid.num_tokens) % 10 != 0)[None]  # (1, N): hidden, but for every tenth
visible = example[:, ~dummy[0]]  # (1, V, P): all that an encoder would get
error = hidden_error(mean_visible(example, dummy), example, dummy).item()
print(f"{visible.shape[1]} of {grid.num_tokens} tokens visible")
print(f"error of the mean visible token: {error:.4f}")
viz.film_strips(
    {"clip": unpatchify(example, grid)[0], "masked": masked(example, dummy)[0]},
    "The clip, a rabbit that gets up, and the same under the dummy mask: slanted stripes of "
    "visible squares on grey.",
    frames=5,
)

# %% [markdown]
# A regular mask would be the same for every clip. Real ones are drawn at random.
#
# ## Random masking
#
# As in lesson 02, a mask starts from *noise*: one random number per token. *Random masking* (隨機遮罩) ranks all N numbers and
# hides the tokens with the int(ratio·N) largest. Here are two time steps with six positions each, half of the tokens hidden.

# %%
# NBVAL_CHECK_OUTPUT
tiny = torch.tensor([[[0.12, 0.81, 0.45, 0.93, 0.28, 0.67], [0.74, 0.09, 0.88, 0.31, 0.56, 0.20]]])
print("noise\n", tiny[0])
rank = tiny.flatten(1).argsort(1).argsort(1)  # (1, t·n): the rank of each number
tiny_hidden = rank >= 12 - int(0.5 * 12)
print("hidden\n", tiny_hidden.view(2, 6).int())
print("hidden per step:", tiny_hidden.view(2, 6).sum(1).tolist())

# %% [markdown]
# (That each step hides three is chance.) Look at the second position: hidden at the first time step, visible at the second. Since neighbouring steps look alike, its content is as good as known. V1 calls
# this *information leakage* (資訊洩漏).
#
# ### Predict · how much leaks
#
# Under random masking at 90 % on 8 time steps, how many of the hidden tokens, in percent, are visible at the same position at some other time step? Write a number in place of `None`.

# %%
### BEGIN SOLUTION
guess = 50
### INSTEAD
# guess = None
### END SOLUTION
leak = predict("Hidden tokens that leak at 90 %", guess)


# %%
def leaking(hidden: torch.Tensor) -> float:
    """Share of the hidden tokens (B, t·n) whose position is visible at another time step, in percent."""
    hidden = hidden.view(len(hidden), t, -1)  # t·n -> t, n
    return 100 * (hidden & ~hidden.all(1, keepdim=True)).sum().item() / hidden.sum().item()


drawn = torch.Generator().manual_seed(seed)
at_random = make_mask(MaskConfig("random", 0.9), grid, 200, drawn).hidden(
    grid.num_tokens
)  # (200, N)
leak.compare(leaking(at_random), unit="%")
print(f"by calculation: 1 - 0.9^7 = {1 - 0.9**7:.0%}")

# %% [markdown]
# Each of the other seven steps hides the position with probability 0.9. So even at 90 %, half of what random masking hides
# is on show at another time. The diagram follows one position through the three types of mask that V1 compares.

# %%
diagrams.masks(TokenGrid((16, 80, 80), (2, 16, 16)))

# %% [markdown]
# *Three masks on 8 x 5 x 5 tokens, time step by time step, and what leaks through each.*
#
# ## Tube masking
#
# *Tube masking* (管道式遮罩) draws positions of the frame and hides each of them throughout the clip, so that no hidden position is ever visible. A common misconception is
# that V1 masks at random and V2 brought the tube. The tube is V1's (section 3.3, table 1b, `masking_generator.py`); V2 kept it.
#
# ### Exercise 1 · tube mask
#
# **Difficulty** ●○○ · **about 8 minutes**
#
# Rank the noise of the first time step only.


# %%
def tube_mask(noise: torch.Tensor, ratio: float) -> torch.Tensor:
    """Hide the same int(ratio·n) positions at all time steps of a clip.

    noise    (B, t, n) random numbers, one per token: B clips, t time steps, n = h·w positions
    returns  (B, t·n) bool, True where hidden, tokens in the order time, position. The hidden positions
             are those with the largest noise at the first time step. Each clip has its own mask.
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
# `argsort` twice gives the rank of each number. The positions with a rank of n - int(ratio·n) or more are hidden.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Time varies slowest: the n entries of the frame come one after the other, t times. `repeat` does that, `repeat_interleave` does not.
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
# The tiny example again, then the published size. (We hide the largest numbers; the package keeps them, hence the minus sign.)

# %%
# NBVAL_CHECK_OUTPUT
print("hidden\n", tube_mask(tiny, 0.5).view(2, 6).int())
numbers = torch.rand(3, n, generator=torch.Generator().manual_seed(seed))
ours = tube_mask(-numbers[:, None].expand(-1, t, -1), 0.9)  # (3, N)
package = make_mask(MaskConfig("tube", 0.9), grid, 3, torch.Generator().manual_seed(seed))
assert torch.equal(ours, package.hidden(grid.num_tokens))
assert ours.sum(1).tolist() == [1408] * 3
print("equal to the package:", tuple(ours.shape), "hidden", ours.sum(1).tolist())

# %% [markdown]
# ## Tubes of four frames
#
# A common misconception is of another tube: it covers 4 frames, a *tube length* (管道長度) to be chosen, then positions are drawn anew.
# Their example is a rolling ball, hidden for four frames in the middle of its path. A model that has seen it enter and leave must
# infer where it was in between. Here it rolls behind four masks.

# %%
diagrams.rolling_ball(TokenGrid((16, 80, 80), (2, 16, 16)), seed=324)

# %% [markdown]
# *A ball rolls behind four masks. Arrows show where a hidden ball could simply be copied from a neighbouring time step.*
#
# The published tube has no length: V1's code repeats the mask of one time step for the whole clip. We'll have both.
#
# ### Exercise 2 · find the bug
#
# **Difficulty** ●●○ · **about 8 minutes**
#
# A colleague's program for short tubes. With `length` equal to t it returns exactly what your `tube_mask` returns, and for every length the shape and all counts are right.
# But run it with shorter tubes and look at the strips that the check draws: the grey squares should stay where they are for `length` time steps, and they jump
# at every single one. What's more, a copier finds far too much under these masks. Find the line and fix it.


# %%
def short_tubes(noise: torch.Tensor, ratio: float, length: int) -> torch.Tensor:
    """Hide int(ratio·n) positions for `length` time steps, then draw others.

    noise    (B, t, n) random numbers; a tube uses the noise of its own first time step
    length   time steps that a tube covers; divides t. With tubelets of 2 frames, 4 frames are 2 steps
    returns  (B, t·n) bool, True where hidden: the positions with the largest noise
    """
    ### BEGIN SOLUTION
    n = noise.shape[2]
    rank = noise[:, ::length].argsort(dim=2).argsort(dim=2)  # (B, tubes, n)
    hidden = rank >= n - int(ratio * n)
    return hidden.repeat_interleave(length, dim=1).flatten(1)  # (B, t, n) -> (B, t·n)
    ### INSTEAD
    # n = noise.shape[2]
    # rank = noise[:, ::length].argsort(dim=2).argsort(dim=2)  # (B, tubes, n)
    # hidden = rank >= n - int(ratio * n)
    # return hidden.repeat(1, length, 1).flatten(1)  # (B, t, n) -> (B, t·n)
    ### END SOLUTION


short_tubes = check("05.short_tubes", short_tubes)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Call the four tubes of a clip A, B, C, D. In which order does the program put them on the eight time steps? Try `torch.arange(4).repeat(2)`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# A B C D A B C D should be A A B B C C D D. With one tube, A A A A is the same either way, which is how the bug survived its test.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# return hidden.repeat_interleave(length, dim=1).flatten(1)  # (B, t, n) -> (B, t·n)
# ```
# </details>

# %%
# NBVAL_CHECK_OUTPUT
numbers = torch.rand(3 * 4, n, generator=torch.Generator().manual_seed(seed))  # four tubes per clip
noise = rearrange(-numbers, "(b k) n -> b k n", b=3).repeat_interleave(2, dim=1)  # (3, t, n)
ours = short_tubes(noise, 0.9, 2)  # (3, N)
short = MaskConfig("tube", 0.9, tube_length=4)  # in frames
package = make_mask(short, grid, 3, torch.Generator().manual_seed(seed))
assert torch.equal(ours, package.hidden(grid.num_tokens))
print("equal to the package; hidden", ours.sum(1).tolist())

# %% [markdown]
# ## Frame masking
#
# *Frame masking* (整幀遮罩) hides whole time steps. V1 tried it at 87.5 %, 7 of 8 steps (table 1b), and published no code. Here is what the encoder sees of a clip under all four,
# at 90 % where that is possible.

# %%
schemes = {
    "random": MaskConfig("random", ratio),
    "tube, 4 frames": MaskConfig("tube", ratio, tube_length=4),
    "tube": MaskConfig("tube", ratio),
    "frame": MaskConfig("frame", ratio),
}
strips, shares = {}, []
for name, config in schemes.items():
    mask = make_mask(config, grid, 200, torch.Generator().manual_seed(seed))
    hidden = mask.hidden(grid.num_tokens)  # (200, N)
    strips[name] = masked(example, hidden[:1])[0, :, ::2]  # a frame per time step
    shares.append({"mask": name, "leaking": f"{leaking(hidden):.0f} %"})
viz.film_strips(
    strips,
    "Four rows of eight frames. Random squares, others in every frame; squares that stay for two "
    "time steps; squares at the same positions in all frames; and one whole frame, the rest grey.",
)
viz.table(shares, caption="Hidden tokens whose position is visible at another time step.")

# %% [markdown]
# Under the tube, you look out through a few fixed holes. Through them you see things move; elsewhere you see nothing, ever. The leak is closed.

# %% [markdown]
# ## From masks to indices
#
# The model gets a mask as indices. How many are there? The official code hides int(ratio·196) positions of a frame, at every time step.

# %%
# NBVAL_CHECK_OUTPUT
giant = TokenGrid((16, 224, 224), (2, 14, 14))  # V2's ViT-g: patches of 14 pixels
longer = TokenGrid((32, 224, 224), (2, 16, 16))  # 32 frames: 3136 tokens
sizes = [("tube", r, grid) for r in (0.5, 0.75, 0.9, 0.95)]
sizes += [("random", 0.9, grid), ("frame", 0.875, grid), ("tube", 0.9, giant)]
sizes += [("random", 0.9, longer), ("tube", 0.9, longer)]
counts = []
for name, share, g in sizes:
    mask = make_mask(MaskConfig(name, share), g, 2)
    counts.append(mask.visible.shape[1])
    shape = "x".join(map(str, g.shape))
    print(f"{name:6} {share:5.1%} of {shape:8}: {counts[-1]:4} visible", end=", ")
    print(f"{mask.queries.shape[1]:4} hidden, exactly {mask.queries.shape[1] / g.num_tokens:.1%}")
assert counts == [784, 392, 160, 80, 157, 196, 208, 314, 320]

# %% [markdown]
# You may read that VideoMAE's encoder sees about 157 tokens, or 314 of 3136. That is random masking. With tubes it is 160, 20 positions at 8 steps, or 320.
#
# ### Equal counts in a batch
#
# V1's section 3.3 writes a *Bernoulli* draw (伯努利), a coin for each position. The code draws an exact count. Let's try the coin:

# %%
# NBVAL_CHECK_OUTPUT
coin = torch.rand(1000, n, generator=torch.Generator().manual_seed(seed)) < 0.9  # hidden positions
seen = t * (~coin).sum(1)  # visible tokens of each clip
try:
    torch.stack([(~row).nonzero()[:, 0] for row in coin[:4]])
except RuntimeError as error:
    print("a batch of four:", str(error).split(",")[0])
print(
    f"coin: {seen.min()} to {seen.max()} visible tokens, mean {seen.float().mean():.0f}; ", end=""
)
print(f"exactly 160 in {(seen == 160).sum() / 10:.0f} % of the clips")

# %% [markdown]
# Rows of different lengths make no tensor. With an exact count, every batch has the same shape.
#
# ### Exercise 3 · from a mask to indices
#
# **Difficulty** ●●○ · **about 10 minutes**
#
# The model wants a `Mask` of three index tensors: the tokens that the encoder sees (*visible*, 可見), the positions at which the decoder is queried (*queries*, 查詢位置),
# and which of these count in the loss (*targets*, 目標). In MAE and V1, everything hidden is queried, and all of it counts.
# For the six tokens `1 0 1 1 0 1`, with 1 for hidden: visible 1, 4; queries 0, 2, 3, 5; targets 0, 1, 2, 3.


# %%
def mask_indices(hidden: torch.Tensor) -> Mask:
    """A mask as indices, all ascending.

    hidden   (B, N) bool, the same number of True in each row
    returns  Mask(visible, queries, targets), int64 tensors of shape
             (B, V)  indices of the tokens that are not hidden
             (B, Q)  indices of the hidden tokens
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
# Why a third list, if all queries are targets? In V2 they are not (lesson 08).
#
# ### Exercise 4 · build the generator
#
# **Difficulty** ●●○ · **about 15 minutes**
#
# The official code has a class, `TubeMaskingGenerator(input_size, mask_ratio)`. Build one for all four kinds of mask, out of your functions. From here on,
# your copier works against the masks that it draws.
#
# ```python
# MaskingGenerator(input_size: (t, h, w), mask_type: str, mask_ratio: float, length: int | None = None)
# __call__(batch: int, generator: torch.Generator) -> Mask
# ```
#
# - "random" hides int(mask_ratio·N) of all N = t·h·w tokens, "tube" int(mask_ratio·h·w) positions, "frame" int(mask_ratio·t) whole time steps.
# - `length` counts time steps and concerns tubes only; None means the whole clip.
# - Every call draws new masks, one per clip of the batch; all random numbers come from `generator`.


# %%
class MaskingGenerator:
    """Draws masks for batches of clips."""

    def __init__(
        self, input_size: tuple, mask_type: str, mask_ratio: float, length: int | None = None
    ) -> None:
        ### BEGIN SOLUTION
        self.input_size, self.mask_type = input_size, mask_type
        self.mask_ratio, self.length = mask_ratio, length
        ### END SOLUTION

    def __call__(self, batch: int, generator: torch.Generator) -> Mask:
        ### BEGIN SOLUTION
        t, h, w = self.input_size
        noise = torch.rand(batch, t, h * w, generator=generator)
        if self.mask_type == "tube":
            hidden = short_tubes(noise, self.mask_ratio, self.length or t)
        elif self.mask_type == "frame":
            steps = tube_mask(noise[:, None, :, 0], self.mask_ratio)  # (B, 1, t) -> (B, t)
            hidden = steps.repeat_interleave(h * w, dim=1)  # (B, t) -> (B, t·n)
        else:
            hidden = tube_mask(
                noise.flatten(1)[:, None], self.mask_ratio
            )  # (B, 1, t·n) -> (B, t·n)
        return mask_indices(hidden)
        ### END SOLUTION


MaskingGenerator = check("05.MaskingGenerator", MaskingGenerator)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Draw noise of shape (batch, t, h·w) in every call, make `hidden` from it, and return `mask_indices(hidden)`.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `tube_mask` ranks whatever lies on the last axis of its noise. With one "time step" of all t·n tokens it gives random masks; with one of t numbers, a choice of time steps.
# </details>
#
# <details><summary>Hint 3</summary>
#
# A choice of time steps (B, t) becomes a mask of tokens (B, t·n) with `repeat_interleave(n, dim=1)`: all n tokens of step 0, then all of step 1.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def __init__(self, input_size, mask_type, mask_ratio, length=None):
#     self.input_size, self.mask_type = input_size, mask_type
#     self.mask_ratio, self.length = mask_ratio, length
#
# def __call__(self, batch, generator):
#     t, h, w = self.input_size
#     noise = torch.rand(batch, t, h * w, generator=generator)
#     if self.mask_type == "tube":
#         hidden = short_tubes(noise, self.mask_ratio, self.length or t)
#     elif self.mask_type == "frame":
#         steps = tube_mask(noise[:, None, :, 0], self.mask_ratio)
#         hidden = steps.repeat_interleave(h * w, dim=1)
#     else:
#         hidden = tube_mask(noise.flatten(1)[:, None], self.mask_ratio)
#     return mask_indices(hidden)
# ```
# </details>


# %%
# NBVAL_CHECK_OUTPUT
def draw(name: str, ratio: float, batch: int, seed: int) -> torch.Tensor:
    """Hidden (B, N) bool, by the name of a scheme, from your generator."""
    kind, length = schemes[name].mask_type, 2 if "4 frames" in name else None
    generator = MaskingGenerator(grid.shape, kind, ratio, length)
    return generator(batch, torch.Generator().manual_seed(seed)).hidden(grid.num_tokens)


for name, config in schemes.items():
    yours, package = draw(name, 0.9, 3, seed), make_mask(config.replace(mask_ratio=0.9), grid, 3)
    assert yours.sum(1).tolist() == [package.queries.shape[1]] * 3
    print(f"{name:14} {package.queries.shape[1]} hidden tokens per clip, yours and the package's")

# %% [markdown]
# ## The copying baseline
#
# Now for the opponent. It has learned nothing, and fills each hole from the same position at the nearest visible time step: the *copying baseline* (複製基準). A
# model that does no better has only learned to copy.
#
# One position over eight steps, visible at steps 2 and 6:
#
# | step | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
# |---|---|---|---|---|---|---|---|---|
# | visible | | | yes | | | | yes | |
# | copied from | 2 | 2 | 2 | 2 | 2 | 6 | 6 | 6 |
#
# Step 4 is as far from 2 as from 6, and takes the earlier. A position that is never visible has nothing to copy; it gets the clip's mean visible token.
#
# ### Exercise 5 · copy in time
#
# **Difficulty** ●●● · **about 15 minutes**


# %%
def copy_in_time(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Fill each hidden token from the nearest visible step at its position, the earlier of two.

    tokens   (B, t, n, P) floats
    hidden   (B, t, n) bool
    returns  (B, t, n, P): visible tokens unchanged; positions that are visible at no time get the
             mean over all visible tokens of their clip
    """
    ### BEGIN SOLUTION
    step = torch.arange(tokens.shape[1])
    away = (step[:, None] - step).abs() + 0.1 * (step > step[:, None])  # (t to, t from)
    away = away[None, :, :, None] + 1000 * hidden[:, None]  # (B, t to, t from, n)
    source = away.argmin(dim=2)  # (B, t, n): the step to copy from
    copies = tokens.gather(1, source[..., None].expand_as(tokens))
    seen = ~hidden[..., None]
    mean = (tokens * seen).sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True)
    return torch.where(hidden.all(dim=1)[:, None, :, None], mean, copies)
    ### END SOLUTION


copy_in_time = check("05.copy_in_time", copy_in_time)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Give every pair of steps a distance: how far apart they are, a little more if the source is later, and very much more if it is hidden. Take the nearest.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Let `source` of shape (B, t, n) hold the step to copy from. Then `tokens.gather(1, source[..., None].expand_as(tokens))` copies.
# `hidden.all(dim=1)` finds positions that are never visible. Loops are right, too, only slower.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# step = torch.arange(tokens.shape[1])
# away = (step[:, None] - step).abs() + 0.1 * (step > step[:, None])  # (t to, t from)
# away = away[None, :, :, None] + 1000 * hidden[:, None]  # (B, t to, t from, n)
# source = away.argmin(dim=2)  # (B, t, n): the step to copy from
# copies = tokens.gather(1, source[..., None].expand_as(tokens))
# seen = ~hidden[..., None]
# mean = (tokens * seen).sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True)
# return torch.where(hidden.all(dim=1)[:, None, :, None], mean, copies)
# ```
# </details>
#
# What does it make of the four masks? Its error is relative to that of the mean visible token: 1 means that copying gained nothing.


# %%
def by_time(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The copier on flat tokens: (B, N, P), (B, N) -> (B, N, P)."""
    return copy_in_time(tokens.unflatten(1, (t, n)), hidden.unflatten(1, (t, n))).flatten(1, 2)


def left_over(copy, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """A copier's error, relative to that of the mean visible token: (B,)."""
    mean = mean_visible(tokens, hidden)
    return hidden_error(copy(tokens, hidden), tokens, hidden) / hidden_error(mean, tokens, hidden)


def scene(ratio: float, scheme: str, seed: int, step: int) -> dict[str, torch.Tensor]:
    """One step of the clip, masked and filled by the copier side by side; named by its error."""
    hidden = draw(scheme, ratio, 1, seed)
    pair = masked(example, hidden), unpatchify(by_time(example, hidden), grid)
    both = torch.cat([x[0, :, 2 * step] for x in pair], dim=2)  # two of (C, H, W) -> (C, H, 2·W)
    left = left_over(by_time, example, hidden).item()
    return {f"{scheme}, {hidden.float().mean():.0%}: {left:.2f} left": both}


viz.pictures(
    {k: v for name in schemes for k, v in scene(ratio, name, seed, t // 2).items()},
    "Time step 4 of the clip under four masks, and beside each as the copier fills it, named by the error "
    "left over in the whole clip. Random: a patchwork, half of it in flat colour. Tubes of 4 frames: more "
    "flat colour. Tube: a few sharp squares, all else flat. Frame: one sharp picture.",
    columns=2,
    height=1.5,
)

# %% [markdown]
# With one visible frame, the copier shows the same sharp picture at every step. Under the tube there is nothing to copy: whatever was not seen is flat.
#
# ### Over all ratios
#
# Now for all pieces and several ratios. The second copier looks further, to the nearest *position* that is visible at any time.

# %%
axes_of_grid = [torch.arange(size) for size in grid.shape]
where = torch.stack(torch.meshgrid(*axes_of_grid, indexing="ij"), dim=-1).view(-1, 3)  # (N, 3)
where = where * torch.tensor([0.01, 1, 1])  # any time step is nearer than the next position
apart = torch.cdist(where, where)  # (N, N)


def by_position(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Copies from the nearest visible position, there from the nearest time step."""
    sources = (~hidden).nonzero()[:, 1].view(len(hidden), -1)  # (B·V,) -> (B, V)
    nearest = [index[apart[:, index].argmin(1)] for index in sources]  # B times (N,)
    return torch.stack([x[index] for x, index in zip(tokens, nearest, strict=True)])


copiers = {"same position": by_time, "nearest position": by_position}
curves = {name: {} for name in copiers}
for scheme in schemes:
    tried = tuple(k / t for k in range(4, t)) if scheme == "frame" else ratios
    hidden = [draw(scheme, r, clips, seed) for r in tried]
    percent = [100 * mask.float().mean().item() for mask in hidden]  # really hidden
    for name, copy in copiers.items():
        left = torch.stack([left_over(copy, tokens, mask) for mask in hidden])  # (ratios, B)
        curves[name][scheme] = (percent, left)
viz.spreads(
    {f"error left over, {name}": lines for name, lines in curves.items()},
    "Error left over against the share of hidden tokens, one line per mask, with bars over clips. "
    "Left: the tube lies at 1 for every ratio; tubes of 4 frames, random and frame masking lie "
    "below, in this order, and all rise with the ratio. Right: the order is the same, and the tube "
    "starts below 1 and reaches it.",
    xlabel="hidden, %",
    top=1.4,
)


# %%
def read_off(percent: list[float], left: torch.Tensor, ratio: float) -> str:
    """The curve's mean over clips at the measured ratio that lies nearest."""
    nearest = min(range(len(percent)), key=lambda k: abs(percent[k] / 100 - ratio))
    return f"{left[nearest].mean():.2f}"


viz.table(
    [
        {"mask": scheme}
        | {
            f"{name}, {r:.0%}": read_off(*curves[name][scheme], r)
            for name in copiers
            for r in (0.5, 0.9, 0.95)
        }
        for scheme in schemes
    ],
    caption="Error left over, mean over clips. Frame masking hides 7 of 8 steps for 90 and 95 %.",
)

# %% [markdown]
# At the same position, one visible step of eight is enough for frame masking to leave only about 0.4 of the error. At 90 %, random masking leaves about
# 0.7, tubes of 4 frames almost 0.9, and the full tube exactly 1, at every ratio.
#
# Even under a tube there is something to copy, from beside the hole: at 50 % this leaves about 0.7, at 90 % 0.9, and at 95 % it is worse than the mean.
# So the two measures belong together. The tube closes time, the high ratio closes space. Under random masking, copying leaves only three quarters even at 95 %.
#
# ## The rolling ball
#
# Back to the ball, now in pixels. A square in the middle of a still meadow hides it completely in frames 6 to 9. We compare
# a tube of those four frames with one that hides the square throughout.

# %%
meadow = sources["shot"][0, :, 0] / 255  # (C, H, W): the first frame of the shot
rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
centres = 11 + 6 * torch.arange(frames)[:, None, None]  # 6 pixels per frame
ball = (columns - centres).square() + (rows - 56).square() < 10**2  # (T, H, W)
orange = torch.tensor([0.9, 0.4, 0.0])[:, None, None, None] * torch.ones(3, frames, side, side)
rolling = torch.where(ball, orange, meadow[:, None])[None]  # (1, C, T, H, W)


def pixels_of(hidden: torch.Tensor) -> torch.Tensor:
    """Pixels (T, H, W) of hidden tokens (t, h, w)."""
    return repeat(hidden, "t h w -> (t p_t) (h p_h) (w p_w)", p_t=2, p_h=8, p_w=8)


square = torch.zeros(t, h, w, dtype=torch.bool)
square[3:5, 4:10, 4:10] = True  # 4 frames: time steps 3 and 4
throughout = square.any(0).expand(t, h, w)
holes = {"4 frames": pixels_of(square), "whole clip": pixels_of(throughout)}

# %% [markdown]
# Beside your copier we use an *oracle*, which knows the motion: it shifts each frame so that the ball stands still, lets your copier fill the holes, and shifts back.
# The strips begin at frame 3, so the four hidden frames are their t = 3 to 6.


# %%
def along(clip: torch.Tensor, hidden: torch.Tensor, velocity: int) -> torch.Tensor:
    """Copies along a motion to the right, pixel by pixel: (1, C, T, H, W), (T, H, W) -> the former."""
    moved, unseen = torch.zeros_like(clip[0]), torch.ones_like(hidden)
    for f in range(frames):
        left, width = velocity * f, side - velocity * f  # the rest has left the picture: unseen
        moved[:, f, :, :width], unseen[f, :, :width] = clip[0, :, f, :, left:], hidden[f, :, left:]
    pixels = rearrange(moved, "c t h w -> 1 t (h w) c")
    copies = copy_in_time(pixels, rearrange(unseen, "t h w -> 1 t (h w)"))
    back = rearrange(copies, "1 t (h w) c -> c t h w", h=side)
    filled = clip.clone()
    for f in range(frames):
        left, width = velocity * f, side - velocity * f
        filled[0, :, f, :, left:] = back[:, f, :, :width]
    return torch.where(hidden, filled, clip)


# %%
strips, errors = {}, []
for name, hole in holes.items():
    strips[f"{name} hidden"] = torch.where(hole, 0.74, rolling)[0]
    wrong = {}
    for how, velocity in {"copied": 0, "along the motion": 6}.items():
        filled = along(rolling, hole, velocity)
        strips[f"{name}, {how}"] = filled[0]
        wrong[how] = (filled - rolling).square().mean(1)[0]  # (T, H, W)
    wrong["the better of both, per pixel"] = torch.minimum(*wrong.values())
    parts = {"ball": ball & hole, "meadow": ~ball & hole}
    errors += [
        {"hidden": name, "copier": how} | {k: f"{x[v].mean():.3f}" for k, v in parts.items()}
        for how, x in wrong.items()
    ]
viz.film_strips(
    {name: x[:, 3:13, 28:84] for name, x in strips.items()},  # the middle rows
    "Six rows of six frames. A ball rolls over a meadow; with a square hidden for four frames, copying "
    "restores the meadow and leaves the ball behind, the oracle restores the ball and shifts the meadow; "
    "with the square hidden throughout, copying leaves it flat, the oracle restores the ball only.",
    frames=6,
)
viz.table(errors, caption="Mean squared error on hidden pixels of the ball and of the meadow.")

# %%
drawn = {name: pixels_of(draw(name, ratio, 1, seed).view(t, h, w)) for name in schemes}
rows = []
for name, hole in (holes | drawn).items():
    pixels = torch.stack((ball & ~hole, ball))  # (2, T, H, W)
    seen, of = rearrange(pixels, "k (t f) h w -> k t (f h w)", f=2).sum(-1)  # (t,), (t,)
    shares = (100 * seen / of).round().int().tolist()
    rows.append({"mask": name} | {f"step {i}": share for i, share in enumerate(shares)})
viz.table(rows, caption="Visible pixels of the ball, in percent, by time step.")

# %% [markdown]
# With four frames hidden, copying gets the meadow right and leaves the ball behind, while the oracle gets the ball right and drags the meadow along. Together they
# solve the puzzle: 0.001 is left. With the square hidden throughout, the ball can still be inferred from its motion, but what lies *behind* the square is visible at no time,
# and 0.008 is left. A short tube asks how things move; the published tube asks that, and what is there.
#
# The second table adds the masks drawn at 90 %. Under the tube, you see the ball pass a few fixed holes, and must infer it in between.
#
# ## What copying leaves
#
# Every mask divides the work into three parts: what copying solves, what knowing the motion would solve beyond that, and the rest. The package has four
# copiers to measure them: the *mean* visible pixel; a *blend* of all visible tokens, weighted by inverse squared distance; a *copy* like yours; and an oracle that copies
# along the velocity that suits each clip best.

# %%
grey = torch.nn.functional.avg_pool3d(video.mean(1), (1, 2, 2))  # (B, T, 56, 56)
grey = (40 * grey / grey.std((1, 2, 3), keepdim=True)).numpy()  # clips of one contrast count alike
model = ModelConfig.videomae("tiny", num_frames=frames, img_size=56, tubelet=(2, 4, 4), channels=1)
recipe = train.Recipe.load("cpu").pretrain.replace(model=model)
rows = []
for name, config in schemes.items():
    # velocities from -2 to 2 pixels per frame, in both directions
    e = copier.copying_errors(grey, recipe.replace(mask=config), False, np.arange(-4, 4.1, 2))
    free = min(e["mean"], e["blend"], e["copy"])
    parts = {"copying": e["mean"] - free, "knowing the motion": max(free - e["moving"], 0)}
    parts["left over"] = e["mean"] - sum(parts.values())
    rows.append({"mask": name} | {k: f"{100 * x / e['mean']:.0f} %" for k, x in parts.items()})
viz.table(
    rows, caption="Shares of the error of the mean visible pixel: what removes them, and the rest."
)

# %% [markdown]
# Copying, which includes blending, solves more than half of what frame masks hide and less than a third of what tubes hide. Knowing the motion adds little: the film's scenes seldom move as a whole.
#
# ## What a mask teaches
#
# V1 pre-trained ViT-B for 800 epochs with each mask, then fine-tuned it (table 1b, Something-Something V2 / Kinetics-400):
#
# | mask | top-1 accuracy, % |
# |---|---|
# | frame 87.5 % | 61.5 / 76.5 |
# | random 90 % | 68.3 / 79.5 |
# | tube 75 % | 68.0 / 79.8 |
# | tube 90 % | 69.6 / 80.0 |
#
# At about 90 %, the order is that of our curves: what is easy to copy taught least. But MAE-ST (arXiv 2205.09113), with ViT-L on Kinetics,
# reported random masking at 90 % as best: 84.4, against 83.5 for tubes and 79.1 for frames. Both papers agree on frames; tube against random isn't settled.
#
# Here is our guess, stated as a prediction: *a mask helps when copying fails, and when the answer requires what the label asks.* The film repeats itself, so frame masks should teach little
# there. Where everything drifts, copying fails under any mask. Then frame masks, whose only clue is the motion, should teach best *how* things move, and tubes *what* they are.
#
# The course tests this with small models (`data/experiments/README.md`). On drifting digits, a linear probe after each pre-training names the digit ("what") or the direction of its motion ("how").

# %%
found = {name: results.load(name) for name in table.EXPERIMENTS["masks"].sets}
figures.what_and_how("masks", "digits", found)

# %% [markdown]
# *Left: one point per mask and seed, with lines for random weights. Right: what copying and knowing the motion remove from the error of guessing the mean.*
#
# Masks are compared seed by seed; a claim *holds*, or is *reversed*, only if the 95 % interval of the difference excludes zero.

# %%
for claim in table.EXPERIMENTS["masks"].claims:
    print(verdicts.judgement("masks", claim, found))

# %% [markdown]
# Read these verdicts against the guess. "Inconclusive" means that these models and seeds cannot decide, not that the masks are equal. One seed has no interval, so it decides nothing, however large the difference.
#
# ## The explorer
#
# Move the sliders (with a running kernel): on the left, one time step as the encoder sees it; on the right, what your copier makes of it; above, the error left over in the whole clip.

# %%
from ipywidgets import Dropdown, FloatSlider, IntSlider


def explore(**values) -> None:
    alt = "One time step of the clip, masked, and beside it the copies in time."
    viz.pictures(scene(**values), alt, height=2.4)


viz.explorer(
    explore,
    ratio=FloatSlider(ratio, min=0.3, max=0.95, step=0.05),
    scheme=Dropdown(options=list(schemes), value="tube"),
    seed=IntSlider(seed, min=0, max=20),
    step=IntSlider(t // 2, min=0, max=t - 1),
)

# %% [markdown]
# ## Ratio and cost
#
# The encoder reads visible tokens only, so a high *mask ratio* (遮罩率) also saves work. We count *multiply-adds* (乘加運算, the papers' FLOPs) and measure processor time,
# forward and backward, for a small encoder on the same grid.

# %%
tiny_model = ModelConfig.videomae(
    "tiny",
    num_frames=frames,
    img_size=side,
    tubelet=grid.tubelet,
    embed_dim=192,
    num_heads=3,
    depth=3,
)
torch.manual_seed(seed)
encoder = vit.VisionTransformer(tiny_model)
batch = (video[:2] * 255).byte()


def seconds(visible: torch.Tensor | None) -> float:
    """Of processor time, forward and backward: other programs hardly change it."""
    start = time.process_time()
    encoder.forward_features(batch, visible).square().mean().backward()
    return time.process_time() - start


percent = (0.0, 0.5, 0.75, 0.9, 0.95)
seen, counted = {0.0: None}, {0.0: cost.classifier_multiply_adds(tiny_model)}
for share in percent[1:]:
    seen[share] = MaskingGenerator(grid.shape, "tube", share)(2, torch.Generator()).visible
    stages = cost.pretraining_multiply_adds(tiny_model, MaskConfig("tube", share))
    counted[share] = stages["patch embed"] + stages["encoder"]
threads = torch.get_num_threads()
torch.set_num_threads(1)  # threads that wait for each other would count as work
rounds = [[seconds(seen[share]) for share in percent] for _ in range(1 + timings)]
torch.set_num_threads(threads)
fastest = np.min(rounds[1:], axis=0)  # the first round warms up
measured = dict(zip(percent, fastest, strict=True))

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
    caption="A small encoder, in percent of its cost with nothing hidden. The time is this machine's.",
)

# %% [markdown]
# Multiply-adds fall faster than the number of tokens, because attention compares all pairs. The time roughly follows.
#
# ### Predict · the expensive part
#
# ViT-B's encoder has 12 blocks of width 768, its decoder 4 blocks of width 384. With tubes at 90 %, the encoder reads 160 tokens, the decoder all 1568. Which costs more? Write one of the options in place of `None`.

# %%
### BEGIN SOLUTION
guess = "the decoder"
### INSTEAD
# guess = None
### END SOLUTION
options = "the encoder, at least twice", "the encoder", "the decoder", "the decoder, at least twice"
dearer = predict("At 90 %, more work is done by", guess, options)

# %%
# NBVAL_CHECK_OUTPUT
base = ModelConfig.videomae("B")
everything = cost.classifier_multiply_adds(base) / 1e9
print(f"nothing hidden: encoder {everything:5.1f} G")
for share in (0.5, 0.75, 0.9, 0.95):
    stages = cost.pretraining_multiply_adds(base, MaskConfig("tube", share))
    encoder_g, decoder_g, total = (stages[k] / 1e9 for k in ("encoder", "decoder", "total"))
    print(f"{share:14.0%}: encoder {encoder_g:5.1f} G + decoder {decoder_g:.1f} G", end=", ")
    print(f"in all {total:6.1f} G")
at_90 = cost.pretraining_multiply_adds(base, MaskConfig("tube", 0.9))
times = at_90["decoder"] / at_90["encoder"]
dearer.compare(options[(times > 0.5) + (times > 1) + (times >= 2)])
print(f"with all tokens embedded, as in the official code: {at_90['published'] / 1e9:.1f} G")
assert round(at_90["encoder"] / 1e9, 2) == 14.06 and round(at_90["decoder"] / 1e9, 2) == 18.65

# %% [markdown]
# With nothing hidden, the encoder costs 180.3 G. At 90 % it costs 14.1 G, a thirteenth for a tenth of the tokens. The decoder costs 18.7 G at every ratio, because it reads all 1568 positions;
# at 90 % it is already the larger part, and going to 95 % saves only a fifth of the whole. That is why V2 masks the *decoder*, too: it queries half of the positions, chosen by a
# *running cell* (滾動單元遮罩). Lesson 08 builds this *dual masking* (雙重遮罩).
#
# ## Common misconceptions
#
# | a common misconception | published | where you ran both |
# |---|---|---|
# | V1 masks at random; V2 brought the tube | the tube is V1's; V2 kept it | exercise 1, curves |
# | a tube covers 4 frames, or another length to be chosen | it covers the whole clip | exercise 2, the rolling ball |
# | tubes leave 314 visible tokens of 3136, or 157 of 1568 | 320 and 160; 314 and 157 belong to random masking | from masks to indices |
# | (paper) a coin for each position | (code) an exact count | equal counts in a batch |
# | tubes are better than random masks, and that's settled | V1 found so, MAE-ST did not | what a mask teaches |
#
# ## Published and used here
#
# | published | where | cell | value used here | why different |
# |---|---|---|---|---|
# | tube 90 % | V1 section 3.3 | exercise 1 | 160 visible, 1408 hidden of 8x14x14 | |
# | `TubeMaskingGenerator` | V1 `masking_generator.py` | exercise 4 | one class for four masks, whole batches | to compare them |
# | random 90 %, frame 87.5 % | V1 table 1b | curves; what a mask teaches | copying error; small models | 800 epochs of ViT-B do not fit |
# | ratios | V1 figure 4 | over all ratios | 50 to 95 %, copying error | nothing is trained here |
# | tubelets of 2x16x16 at 224 pixels | V1 code | in time against in space | 2x8x8 at 112, the same grid | the film has 108 rows |
# | Kinetics, stride 4 | V1 scripts | in time against in space | the film, stride 4, 24 frames per second | it ships with the course |
# | cost of ViT-B | V1 code | ratio and cost | counted at full size; timed with width 192, 3 blocks | seconds on two cores |
#
# ## Open questions
#
# **1.** A surveillance camera hangs still over a car park; a head-mounted camera films a walk through a wood. Which mask and which ratio would you choose for each, and how could you find out before training anything?
#
# <details><summary>What a good answer contains</summary>
#
# Measure first: copying error in time and in space, then what the copiers leave under each mask. For the still camera, copying in time is almost perfect, so random and frame masks leak nearly everything; the tube
# and a very high ratio are needed, and even then most positions show asphalt that never changes. For the head camera, everything moves: the same position shows something else a moment later, the tube has
# less to close, and knowing the motion becomes the clue. What the labels ask matters as well: counting cars asks what, recognising a turn asks how. And a copier only tells you what is
# *not* worth learning; which of the remaining work is useful, only training shows.
# </details>
#
# **2.** Since a tube's hidden positions are visible at no time, how can a model ever do better there than the mean? And why might a ratio of 99 % teach less than 90 %, although copying is even harder?
#
# <details><summary>What a good answer contains</summary>
#
# It can use what it learned from other clips: edges continue, grass looks like grass, a rabbit has a second ear; and motion, since whatever passes a visible hole was, or will be, behind a neighbouring one. With 2 of 196 positions
# visible, the answer is often not determined by the input. Then the best prediction under squared error is an average, whatever the encoder understood, and the loss rewards little but knowing that average. A puzzle teaches
# between the two ends: too easy to need understanding, too hard to reward it.
# </details>
#
# ## What you can do now
#
# - Say how redundant a video is, in two numbers, and compare time with space.
# - Draw random, tube and frame masks with exact counts, and turn them into indices.
# - Judge a mask by what a copier, and an oracle that knows the motion, find under it.
# - Say what a mask ratio saves, and what it doesn't.
#
# ## Terms of this lesson
#
# | term | 中文 | meaning |
# |---|---|---|
# | redundancy | 時序冗餘 | neighbouring frames hold nearly the same information |
# | white noise | 白雜訊 | every pixel drawn independently |
# | correlation | 相關係數 | 1: one determines the other; 0: unrelated |
# | tubelet | 時空立方體 | a block of pixels over a few frames, one token |
# | mask, mask ratio | 遮罩、遮罩率 | what is hidden; its share of the tokens |
# | random masking | 隨機遮罩 | every token is drawn independently |
# | tube masking | 管道式遮罩 | the same positions are hidden at all times |
# | tube length | 管道長度 | frames until positions are drawn anew; published: the whole clip |
# | frame masking | 整幀遮罩 | whole time steps are hidden |
# | information leakage | 資訊洩漏 | a hidden position is visible at another time |
# | Bernoulli draw | 伯努利 | a coin for each position |
# | visible, queries, targets | 可見、查詢位置、目標 | what the encoder sees; where the decoder is queried; what counts in the loss |
# | copying baseline | 複製基準 | fills holes by copying, without having learned anything |
# | multiply-add | 乘加運算 | one multiplication and one addition; the papers' FLOP |
# | running cell, dual masking | 滾動單元遮罩、雙重遮罩 | V2's mask of the decoder, lesson 08 |
