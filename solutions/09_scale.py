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
# # 09 · Scale: a slow step made fast
#
# The model is right. Now it must be fast, and fit in memory. You write a training step, give it a wasteful model and a slow reader, and remove one waste after another. Each change is measured: the result is a ladder. Then you find out what limits the step, what a run will cost before it starts, and what changes with two processes or eight GPUs.
#
# Measured on 2 shared CPU cores, the whole solution: under 5 minutes, 3.1 GB of memory at most. Allow about 90 minutes with the exercises.

# %% tags=["parameters"]
device = "auto"  # a GPU where there is one, else the CPU
film_files = 48  # mp4 files to cut out of the film
batch = 4  # clips per step
rounds = 5  # of every comparison; the median counts
lengths = [196, 784, 1568]  # tokens, for attention
steps = 40  # of the two loss curves in fp32 and bf16
try_compile = True  # seconds to a minute of compiling, depending on the compiler's cache
process_steps = 16  # of the run by one process and by two
seed = 0

# %% [markdown]
# ## Set-up

# %%
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

import vmae
from vmae import cost, data, train, vit
from vmae.config import MaskConfig, ModelConfig
from vmae.course.lessons import check, diagrams, making, predict, viz
from vmae.grid import gather_tokens, patchify
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask

os.chdir(vmae.ROOT)
started = time.perf_counter()
if device == "auto":
    device = "cuda" if torch.cuda.is_available() else "cpu"
device = torch.device(device)
print(train.device_name(device))

# %% [markdown]
# ## The slow step
#
# A step begins with compressed files and ends with new weights. Here is the package's path, for its recipe `gpu`:

# %%
diagrams.data_path(train.Recipe.load("gpu").pretrain)

# %% [markdown]
# *Figure: from file to step. Above, what the CPU does; below, what the device does. Every box can be the slowest.*
#
# Our model has the published grid, 8x14x14, on frames of 112 pixels, and an encoder small enough for a CPU.

# %%
# NBVAL_CHECK_OUTPUT
work = ModelConfig(
    num_frames=16, img_size=112, tubelet=(2, 8, 8), embed_dim=256, depth=6, num_heads=4,
    decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=2,
)  # fmt: skip
tubes = MaskConfig("tube", 0.9)
mask = make_mask(tubes, work.grid, batch, torch.Generator().manual_seed(seed))
print(work.grid.num_tokens, "tokens,", mask.visible.shape[1], "visible")
assert (work.grid.num_tokens, mask.visible.shape[1]) == (1568, 160)

# %% [markdown]
# ### Exercise 1 · the step
#
# **Difficulty** ●●● · **about 15 minutes** · build a training step
#
# All of this lesson runs through your step, so give it one feature from the start. A batch that does not fit in memory is computed in *parts*, and the gradients are added up: *gradient accumulation*
# (梯度累積). `model.loss(clips, mask)` is the mean over a batch, a scalar tensor.


# %%
def train_step(
    model: MaskedAutoencoder,
    optimizer: torch.optim.Optimizer,
    clips: torch.Tensor,
    mask: Mask,
    parts: int = 1,
) -> float:
    """One step of training, with the gradient of the whole batch.

    clips    (B, C, T, H, W)
    mask     its visible, queries and targets have B rows each
    parts    divides B; only B / parts clips go through the model at a time
    returns  the mean loss of the batch, a number without a graph
    """
    ### BEGIN SOLUTION
    optimizer.zero_grad()
    total = 0.0
    for rows in torch.arange(len(clips)).chunk(parts):
        part = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
        loss = model.loss(clips[rows], part) / parts
        loss.backward()  # adds to the gradients
        total += loss.item()
    optimizer.step()
    return total
    ### END SOLUTION


train_step = check("09.train_step", train_step)

# %% [markdown]
# <details><summary>Hint 1</summary>`backward()` adds to `.grad`. So: zero once, a loss and a backward pass per part, one step of the optimiser.</details>
# <details><summary>Hint 2</summary>`torch.arange(len(clips)).chunk(parts)` gives the rows of each part. The mean of a batch is the mean of its parts' means.</details>
# <details><summary>Solution</summary>
#
# ```python
# optimizer.zero_grad()
# total = 0.0
# for rows in torch.arange(len(clips)).chunk(parts):
#     part = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
#     loss = model.loss(clips[rows], part) / parts
#     loss.backward()
#     total += loss.item()
# optimizer.step()
# return total
# ```
#
# </details>
#
# Now the waste. Like the official code, this model turns the whole clip into floats, embeds all 1568 tubelets and drops nine in ten of the results, and computes the targets of all tokens, from pixels that it must first de-normalise.


# %%
class Slow(MaskedAutoencoder):
    def embed(self, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Tokens (B, N, P), embedded, with positions; then the visible ones: (B, V, D)."""
        proj = self.encoder.patch_embed.proj
        weight = proj.weight.permute(0, 2, 3, 4, 1).flatten(1)  # (D, C, p_t, p_h, p_w) -> (D, P)
        x = F.linear(tokens, weight, proj.bias) + self.encoder.pos_embed[0]  # (B, N, D)
        return gather_tokens(x, visible)

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Predictions (B, M, P) for normalised float clips."""
        x = self.embed(patchify(clips, self.grid), mask.visible)
        for block in self.encoder.blocks:
            x = block(x)
        x = self.encoder_to_decoder(self.encoder.norm(x)) + self.decoder_pos_embed[mask.visible]
        mask_tokens = self.mask_token + self.decoder_pos_embed[mask.queries]  # (B, Q, E)
        x = torch.cat((x, mask_tokens), dim=1)  # (B, V + Q, E)
        return self.decoder(x, mask.queries.shape[1], mask.targets)

    def loss(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        pixels = vit.denormalize_pixels(patchify(clips, self.grid))  # (B, N, P)
        groups = pixels.unflatten(-1, (-1, 3))  # (B, N, P) -> (B, N, P / 3, 3)
        var, mean = torch.var_mean(groups, dim=-2, keepdim=True)
        targets = ((groups - mean) / (var.sqrt() + 1e-6)).flatten(-2)  # (B, N, P)
        return F.mse_loss(self(clips, mask), gather_tokens(targets, mask.target_tokens))


def normalized(clips: torch.Tensor) -> torch.Tensor:
    """Clips (B, C, T, H, W) uint8 as normalised floats: four times the bytes."""
    mean, std = (x.view(3, 1, 1, 1) for x in vit.channel_statistics(3, clips.device))
    return (clips / 255 - mean) / std


# %% [markdown]
# The reader decodes an mp4 file for each clip, anew in every epoch. The files are cut from the shipped film.

# %% tags=["timing"]
folder = f"data/film-32-{film_files}"
making.render_film(
    folder, making.FILM, making.FilmSpec(frames=32, most_clips=film_files), progress=viz.track
)
videos = data.load_set(folder).train
sampling = data.Sampling(num_frames=work.num_frames, stride=2)
files = data.VideoFiles(videos, work.img_size)


def read(source: data.Source, count: int, number: int = 0) -> torch.Tensor:
    """`count` clips (B, C, T, H, W) uint8; another number, other clips."""
    keys = [(number, (number * count + i) % len(videos)) for i in range(count)]
    return data.ClipDataset(source, sampling, seed).__getitems__(keys).clips


viz.film_strips(
    dict(zip("ab", read(files, 2, number=20), strict=True)),
    "Two rows of eight frames, from two clips of the film Big Buck Bunny.",
)

# %% [markdown]
# ## Timing
#
# A single timing proves nothing: other programs run too, and a first call sets things up. So variants take turns for several rounds, and the *median* (中位數) counts. A variant is called faster only if it was faster in every round. On a GPU a call returns before the work is done, so the stopwatch waits for the device.


# %%
def now() -> float:
    """Seconds, when the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_turn(variants: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each variant in every round; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            begin = now()
            run()
            if number:
                times[name].append(now() - begin)
    return times


def verdict(before: list[float], after: list[float]) -> str:
    wins = sum(b < a for a, b in zip(before, after, strict=True))
    word = {len(before): "faster", 0: "slower"}.get(wins, "inconclusive")
    return f"{word}, {np.median(before) / np.median(after):.2f} times the speed"


# %% [markdown]
# Memory can be counted exactly. The backward pass needs much of what the forward pass computed, and PyTorch calls a hook for each tensor that it saves. `cost.saved_tensors` adds up those alive; tensors that share memory count once.


# %%
def kept(run: Callable[[], object], model: torch.nn.Module | None = None) -> float:
    """MB that `run` keeps for the backward pass, at the most; weights don't count."""
    own = [*model.parameters(), *model.buffers()] if model else []
    with cost.saved_tensors(own) as saved:
        run()
    return saved.peak / 1e6


x = torch.ones(250_000, requires_grad=True)  # one MB
print(f"exp keeps {kept(lambda: x.exp()):.0f} MB, x + x keeps {kept(lambda: x + x):.0f}")

# %% [markdown]
# The derivative of exp is its output, so that is kept; a sum needs nothing. Now a *rung* of the ladder: a model, a source of clips, and switches.


# %%
class Rung(NamedTuple):
    model: MaskedAutoencoder
    source: data.Source
    written_out: bool = False  # attention through the function of exercise 2
    checkpointing: bool = False

    def step(self, number: int = 0) -> dict[str, float]:
        """Run one step; ms of its stages, and MB kept."""
        marks = [now()]
        clips = read(self.source, batch, number)
        marks.append(now())
        if isinstance(self.model, Slow):
            clips = normalized(clips)  # on the CPU, as it is often done
        clips = clips.to(device)
        drawn = make_mask(tubes, work.grid, batch, torch.Generator(device), device)
        marks.append(now())
        with self.switched():
            train_step(self.model, optimizers[self.model], clips, drawn)
        marks.append(now())
        stages = ("read", "prepare", "train")
        return {n: 1e3 * (b - a) for n, (a, b) in zip(stages, pairwise(marks), strict=True)}

    @contextmanager
    def switched(self) -> Iterator[None]:
        """Attention written out or not, and checkpointing or not, wherever the model runs inside."""
        attend = attention if self.written_out else F.scaled_dot_product_attention
        with (
            patch.object(F, "scaled_dot_product_attention", attend),
            train.checkpointed(self.model, self.checkpointing),
        ):
            yield


optimizers: dict[MaskedAutoencoder, torch.optim.Optimizer] = {}


def fresh(kind: type[MaskedAutoencoder]) -> MaskedAutoencoder:
    """A model of this lesson's size, always with the same weights, and its optimiser."""
    torch.manual_seed(seed)
    model = kind(work).to(device)
    optimizers[model] = train.adamw(model, train.OptimConfig(lr=1e-4))
    return model


# %% [markdown]
# The slow model also computes its attention step by step, without a fused kernel. You write that part.
#
# ### Exercise 2 · attention, written out
#
# **Difficulty** ●●○ · **about 8 minutes** · write a function


# %%
def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(QKᵀ / √d) V, written out.

    q, k, v  (B, heads, N, d), d the width of a head
    returns  (B, heads, N, d)
    """
    ### BEGIN SOLUTION
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B, heads, N, N)
    return scores.softmax(-1) @ v  # (B, heads, N, d)
    ### END SOLUTION


attention = check("09.attention", attention)

# %% [markdown]
# <details><summary>Hint 1</summary>A score for each pair: `q @ k.transpose(-2, -1)` is (B, heads, N, N).</details>
# <details><summary>Hint 2</summary>Divide the scores by the root of d, then softmax over the keys, the last axis, then `@ v`.</details>
# <details><summary>Solution</summary>
#
# ```python
# scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
# return scores.softmax(-1) @ v
# ```
#
# </details>

# %% tags=["timing"]
ladder = {"slow": Rung(fresh(Slow), files, written_out=True)}


def climb(name: str, rung: Rung) -> None:
    """Add a rung, and compare its step with that of the rung below, in turn."""
    before, below = list(ladder.items())[-1]
    ladder[name] = rung
    times = in_turn({before: below.step, name: rung.step})
    memory = {n: kept(ladder[n].step, ladder[n].model) for n in times}
    for n, seconds in times.items():
        print(f"{n:16} {1e3 * np.median(seconds):6.0f} ms, {memory[n]:6.1f} MB kept")
    print(f"{name}: {verdict(*times.values())}")


slow = ladder["slow"].step()
print({stage: f"{ms:.0f} ms" for stage, ms in slow.items()})

# %% [markdown]
# ### Predict · the largest saving
#
# Seven changes follow: embed only what is visible, attention without its matrix (SDPA), pixels as bytes (uint8), decode once (store), products in 16 bits (bf16), recompute activations (checkpointing), compile. Which of them will save the most *time* on your machine, each measured on top of the earlier ones? Write its name in place of `None`.

# %%
changes = ("visible only", "SDPA", "uint8", "store", "bf16", "checkpointing", "compile")
### BEGIN SOLUTION
guess = "SDPA"
### INSTEAD
# guess = None
### END SOLUTION
winner = predict("The change that saves the most time", guess, changes)

# %% [markdown]
# ## Embed what is visible
#
# A projection looks at one token at a time, so the order can be swapped: select first, then project.
#
# ### Exercise 3 · embed the visible tokens only
#
# **Difficulty** ●○○ · **about 6 minutes** · write a function


# %%
def embed_visible(
    tokens: torch.Tensor,
    visible: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Project the visible tokens only, and add their position embeddings.

    tokens   (B, N, P)      visible    (B, V), indices into the N positions
    weight   (D, P)         positions  (N, D)
    bias     (D,)           returns    (B, V, D)
    """
    ### BEGIN SOLUTION
    seen = gather_tokens(tokens, visible)  # (B, V, P)
    return F.linear(seen, weight, bias) + positions[visible]  # (B, V, D)
    ### END SOLUTION


embed_visible = check("09.embed_visible", embed_visible)

# %% [markdown]
# <details><summary>Hint 1</summary>`gather_tokens(x, index)` takes the rows `index` (B, V) of x (B, N, P).</details>
# <details><summary>Hint 2</summary>`F.linear(x, weight, bias)` projects; `positions[visible]` is (B, V, D).</details>
# <details><summary>Solution</summary>
#
# ```python
# seen = gather_tokens(tokens, visible)
# return F.linear(seen, weight, bias) + positions[visible]
# ```
#
# </details>


# %% tags=["timing"]
class VisibleOnly(Slow):
    def embed(self, tokens: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        proj = self.encoder.patch_embed.proj
        weight = proj.weight.permute(0, 2, 3, 4, 1).flatten(1)  # (D, C, p_t, p_h, p_w) -> (D, P)
        return embed_visible(tokens, visible, weight, proj.bias, self.encoder.pos_embed[0])


climb("visible only", Rung(fresh(VisibleOnly), files, written_out=True))

# %% [markdown]
# In multiply-adds, the projection becomes ten times cheaper, but it is a small part of this step. In ViT-B it weighs more:

# %%
# NBVAL_CHECK_OUTPUT
published = cost.pretraining_multiply_adds(ModelConfig.videomae("B"), tubes)
share = published["skipped"] / published["published"]
print(
    f"ViT-B: {published['skipped'] / 1e9:.1f} G of {published['published'] / 1e9:.1f} G,", end=" "
)
print(f"{share:.0%} of the published forward pass, embeds tokens that are then dropped")

# %% [markdown]
# ## Attention without its matrix
#
# Written-out attention stores N·N weights for every *head* (多頭) and keeps them for the backward pass. A *fused kernel* (融合核心) works in blocks and never stores them.
# PyTorch's is `F.scaled_dot_product_attention`, SDPA for short.

# %% tags=["timing"]
rows = []
for n in lengths:
    q, k, v = (torch.randn(1, 2, n, 64, device=device, requires_grad=True) for _ in range(3))
    ways = {"written out": attention, "SDPA": F.scaled_dot_product_attention}
    torch.testing.assert_close(attention(q, k, v), ways["SDPA"](q, k, v), rtol=1e-3, atol=1e-3)
    times = in_turn({w: lambda f=f, x=(q, k, v): f(*x).sum().backward() for w, f in ways.items()})
    memory = {w: kept(lambda f=f, x=(q, k, v): f(*x)) for w, f in ways.items()}
    rows += [
        {"tokens": n, "attention": w, "ms": f"{1e3 * np.median(times[w]):.1f}",
         "MB kept": f"{memory[w]:.1f}"}
        for w in ways
    ]  # fmt: skip
viz.table(rows, caption="One clip, 2 heads of 64, fp32, forward and backward.")
climb("SDPA", Rung(ladder["visible only"].model, files))

# %% [markdown]
# What is kept grows with N² when written out, and with N in the fused kernel. The gain comes from the decoder, with its 1568 tokens.
#
# ## Bytes instead of floats
#
# Pixels are bytes. The slow step turns them into floats on the CPU and copies four times the data to the device. The package keeps clips in *uint8* (8 位元整數), gathers bytes, and converts only what it needs: visible tokens for the encoder, target tokens for the loss. This rung is the package's own class.

# %% tags=["timing"]
climb("uint8", Rung(fresh(MaskedAutoencoder), files))

# %%
clips = read(files, batch).to(device)
mask = make_mask(tubes, work.grid, batch, torch.Generator(device).manual_seed(seed), device)
with torch.no_grad():
    expected = fresh(MaskedAutoencoder).loss(clips, mask)
    for kind in (Slow, VisibleOnly):
        torch.testing.assert_close(
            fresh(kind).loss(normalized(clips), mask), expected, rtol=1e-3, atol=1e-3
        )
print(f"the same loss on every rung: {expected:.2f}")

# %% [markdown]
# Always check that: a faster step that computes something else is no gain.
#
# ## Decode once
#
# A *store* (解碼後的影格庫) decodes every video once into a file of raw frames and maps that file into memory. Reading is then a copy.

# %% tags=["timing"]
scratch = tempfile.TemporaryDirectory()
begin = time.perf_counter()
store = data.build_store(scratch.name, videos, work.img_size, workers=0, progress=viz.track)
print(f"made once in {time.perf_counter() - begin:.1f} s, {store.nbytes / 1e6:.0f} MB,", end=" ")
print(
    f"{store.nbytes / sum(v.path.stat().st_size for v in videos):.0f} times the size of the files"
)
assert torch.equal(read(store, 4), read(files, 4))
climb("store", Rung(ladder["uint8"].model, store))

# %% [markdown]
# The clips are identical; the price is disk space. Where that is short, worker processes (`data.num_workers`) decode ahead. On a GPU this rung matters most: training takes less time there, decoding doesn't.
#
# ## bf16
#
# *bf16* (腦浮點數) has the 8 bits of *exponent* (指數), for the range, that float32 has, and 7 of *mantissa* (尾數), for the digits, instead of 23. fp16 spends its bits the other way: 5 and 10.

# %%
# NBVAL_CHECK_OUTPUT
kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
numbers = {"1/3": 1 / 3, "257": 257.0, "70000": 7e4, "1e-9": 1e-9}
for name, number in numbers.items():
    cast = {kind: torch.tensor(number).to(t).item() for kind, t in kinds.items()}
    print(f"{name:7}", "  ".join(f"{kind} {x:<12.7g}" for kind, x in cast.items()))

# %% [markdown]
# bf16 keeps the range and loses digits: two to three remain. fp16 loses the range: 70000 becomes infinite, and small gradients vanish. So fp16 needs a loss scaler, which multiplies the loss by a large number and divides the gradients by it; bf16 does not.
#
# ### Predict · a sum in bf16
#
# A bf16 weight is 1. A thousand updates each add 0.001. What is it then? Write a number in place of `None`.

# %%
### BEGIN SOLUTION
guess = 1.0
### INSTEAD
# guess = None
### END SOLUTION
total = predict("1 + 1000 times 0.001 in bf16", guess)

# %%
# NBVAL_CHECK_OUTPUT
weight = torch.tensor(1.0, dtype=torch.bfloat16)
for _ in range(1000):
    weight += 0.001
total.compare(weight.item())
assert weight.item() == 1.0

# %% [markdown]
# The next bf16 number after 1 is 1.0078, so each update is rounded away. Hence weights, moments and norms stay in float32, and *autocast* (自動混合精度) lowers only the inputs of matrix products.


# %% tags=["timing"]
class Low(MaskedAutoencoder):
    """The package's model, with matrix products in bf16."""

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        with torch.autocast(clips.device.type, torch.bfloat16):
            return super().forward(clips, mask)


climb("bf16", Rung(fresh(Low), store))

# %% [markdown]
# A GPU has units for bf16. A CPU gains where it has them too (AMX, AVX512-BF16) and the products are large; otherwise it loses time in converting back and forth. That is why `precision: auto` means bf16 on a GPU and fp32 on a CPU.
# (In bf16 on a CPU, the package computes attention by plain products, which were faster than the fused kernel in `tests/bench/attention.py`. They keep the attention matrix, so here memory *rises*.)
#
# Does it learn as well? Your step, on both models, with the same clips and masks:


# %%
def losses_of(kind: type[MaskedAutoencoder]) -> list[train.Record]:
    model, records = fresh(kind), []
    for group in optimizers[model].param_groups:
        group["lr"] = 1e-3
    for number in range(1, steps + 1):
        g = torch.Generator(device).manual_seed(number)
        chosen = make_mask(tubes, work.grid, batch, g, device)
        loss = train_step(model, optimizers[model], clips, chosen)
        records.append(train.Record(number, loss, 1e-3, 0.0, 0.0))
    return records


curves = {"fp32": losses_of(MaskedAutoencoder), "bf16": losses_of(Low)}
viz.curves(curves, "Loss over steps in fp32 and in bf16: the two curves stay close together.")
apart = [abs(a.loss - b.loss) / a.loss for a, b in zip(*curves.values(), strict=True)]
print(f"the losses differ by at most {max(apart):.1%} of their value")

# %% [markdown]
# ## Activation checkpointing
#
# *Activation checkpointing* (啟動值重算) keeps only the input of each block and recomputes the rest in the backward pass. `cost.clip_activations` predicts the bytes from the configuration; the hook counts them.

# %% tags=["timing"]
climb("checkpointing", Rung(ladder["bf16"].model, store, checkpointing=True))

# %%
for saved in (False, True):
    config = train.PretrainConfig(
        model=work, mask=tubes, activation_checkpointing=saved, device=device.type
    )
    name = "with" if saved else "without"
    print(
        f"{name} checkpointing, predicted: {cost.clip_activations(config, True) / 1e6:.1f} MB per clip"
    )

# %% [markdown]
# The hook counted four clips: per clip, 57.6 MB without checkpointing and 8.5 with it. Without, the prediction is 12 % low, probably because plain attention keeps its matrix. With it, the prediction is higher, and rightly so: while a block's gradient is computed, everything inside that block is kept again, which the hook doesn't see.
# The price is a second forward pass through the blocks, about a third more arithmetic. So use it only when memory limits the batch.
#
# ## torch.compile
#
# `torch.compile` joins the small operations between matrix products (norms, additions, GELU) into fewer programs. It needs a C++ compiler, or Triton on a GPU. `compile_blocks` tries it; if that fails, it warns, and training continues without.

# %% tags=["timing"]
if try_compile:
    model = fresh(Low)
    begin = now()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train.compile_blocks(model, clips, mask)
    failed = [str(w.message)[:300] for w in said if "torch.compile failed" in str(w.message)]
    print(*failed or [f"compiled in {now() - begin:.0f} s"])
    climb("compile", Rung(model, store, checkpointing=True))

# %% [markdown]
# Compiling takes time at every start. "Slower" or "inconclusive" on a CPU is no bug: matrix products take most of the time there.
#
# ## The ladder
#
# All rungs once more, in turn:

# %% tags=["timing"]
timed = {name: [] for name in ladder}
for number in range(rounds):
    for name, rung in ladder.items():
        timed[name].append(rung.step(number))
median = {
    name: {stage: float(np.median([r[stage] for r in runs])) for stage in runs[0]}
    for name, runs in timed.items()
}
memory = {name: {"kept": kept(rung.step, rung.model)} for name, rung in ladder.items()}
viz.stacked(
    {"ms per step": median, "MB kept for the backward pass": memory},
    "Two panels of bars, a row per rung from slow to the last: milliseconds per step, made of reading, preparing and "
    "training, and megabytes kept. Time falls most at SDPA, memory at SDPA and at checkpointing.",
)
whole = {name: sum(parts.values()) for name, parts in median.items()}
saved = {b: whole[a] - whole[b] for a, b in pairwise(whole)}
winner.compare(max(saved, key=saved.get))
print(f"the fastest rung is {min(whole, key=whole.get)}:", end=" ")
print(f"{whole['slow'] / min(whole.values()):.1f} times the speed of the slow step")

# %% [markdown]
# What saves time here needn't do so elsewhere, and saved memory may be worth more: it allows a larger batch.
#
# ### On a GPU
#
# Measured (`data/bench/cuda.json`): pre-training of ViT-B in bf16 with this package, with Hugging Face's model, and with the published algorithm.

# %%
# NBVAL_CHECK_OUTPUT
gpu = json.loads(Path("data/bench/cuda.json").read_text())
bench = gpu["pre-train, B"]
rates = {name: row["clips per second"] for name, row in bench["rows"]["bf16"].items()}
rows = [
    {
        "program": name,
        "clips per second": f"{r:.0f}",
        "of published": f"{r / rates['published']:.2f}",
    }
    for name, r in sorted(rates.items(), key=lambda item: item[1])
]
viz.table(rows, caption=f"ViT-B, batches of {bench['batch']}, on one {bench['made']['device']}.")
rows = []
for where in ("encoder", "V2 decoder", "V1 decoder", "fine-tuning"):
    entry = gpu[f"attention, {where}, bf16"]
    rows.append({"attention in": where, "tokens": entry["shape"][1],
                 **{f"{k}, ms": str(v) for k, v in entry["milliseconds"].items()}})  # fmt: skip
viz.table(
    rows, caption="The same card: one attention layer of ViT-S, 2 clips, forward and backward."
)

# %% [markdown]
# In the second table, two clips are too small a load for this card: with ten times the tokens, the fused and the plain kernel take hardly longer, probably limited by launches. "In blocks" computes plain products for a few hundred queries at a time; its time grows with the number of blocks.
#
# ## A leak
#
# ### Exercise 4 · the bug
#
# **Difficulty** ●●○ · **about 8 minutes** · find the bug
#
# A run trains for an hour, then stops in its first evaluation, out of memory, although the batches are no larger than in training. With few test batches it survives. Here is the evaluation. The check draws the
# memory held before each batch. Fix it.


# %%
def evaluation_loss(model: MaskedAutoencoder, batches: list[tuple[torch.Tensor, Mask]]) -> float:
    """The mean loss over batches (clips, mask) of equal size, as a number."""
    ### BEGIN SOLUTION
    total = 0.0
    with torch.no_grad():
        for clips, mask in batches:
            total += model.loss(clips, mask).item()
    return total / len(batches)
    ### INSTEAD
    # total = 0.0
    # for clips, mask in batches:
    #     total = total + model.loss(clips, mask)
    # return total / len(batches)
    ### END SOLUTION


evaluation_loss = check("09.evaluation_loss", evaluation_loss)

# %% [markdown]
# <details><summary>Hint 1</summary>In training, `backward()` frees what was kept. What frees it here?</details>
# <details><summary>Hint 2</summary>`total` is a tensor. Which tensors does its graph hold?</details>
# <details><summary>Solution</summary>
#
# ```python
# with torch.no_grad():
#     for clips, mask in batches:
#         total += model.loss(clips, mask).item()
# ```
#
# `.item()` alone stops the leak; `torch.no_grad()` also keeps nothing in the first place.
#
# </details>

# %%
model = ladder["uint8"].model
for count in (1, 2, 3):
    held = kept(lambda n=count: evaluation_loss(model, [(clips, mask)] * n), model)
    print(f"{count} batches: {held:.0f} MB kept")
with torch.no_grad():
    right = model.loss(clips, mask).item()
assert math.isclose(evaluation_loss(model, [(clips, mask)] * 2), right, rel_tol=1e-3)

# %% [markdown]
# ## The roofline
#
# A device has two speeds: arithmetic, in FLOP/s, and *memory bandwidth* (記憶體頻寬), in bytes per second. One property of an operation decides which of them limits it: its *arithmetic intensity* (運算強度), FLOPs per byte read or written.
#
# ### Exercise 5 · the intensity of a linear layer
#
# **Difficulty** ●●○ · **about 8 minutes** · write a function


# %%
def linear_intensity(rows: int, wide_in: int, wide_out: int, size: int) -> float:
    """FLOPs per byte of the matrix product (rows, wide_in) x (wide_in, wide_out).

    A multiply-add is two FLOPs. Input and weights are read once, the output is written once.

    size   bytes per number: 4 in fp32, 2 in bf16
    """
    ### BEGIN SOLUTION
    numbers = rows * wide_in + wide_in * wide_out + rows * wide_out
    return 2 * rows * wide_in * wide_out / (size * numbers)
    ### END SOLUTION


linear_intensity = check("09.linear_intensity", linear_intensity)

# %% [markdown]
# <details><summary>Hint 1</summary>Each of the rows · wide_out outputs is a sum of wide_in products.</details>
# <details><summary>Hint 2</summary>Three matrices move: rows · wide_in, wide_in · wide_out, rows · wide_out numbers of `size` bytes.</details>
# <details><summary>Solution</summary>
#
# ```python
# numbers = rows * wide_in + wide_in * wide_out + rows * wide_out
# return 2 * rows * wide_in * wide_out / (size * numbers)
# ```
#
# </details>

# %%
# NBVAL_CHECK_OUTPUT
for count in (1, 16, 160, 1568, 32 * 160):
    print(
        f"{count:5} rows of ViT-B's MLP in bf16: {linear_intensity(count, 768, 3072, 2):6.1f} FLOPs per byte"
    )

# %% [markdown]
# One row reads all weights for two FLOPs each. More rows use the weights again: that is what a batch is for.
#
# The *roofline* (屋頂線) draws both speeds. First come this machine's, measured; then parts of a step, each with its FLOPs, its bytes and its time.


# %% tags=["timing"]
def seconds_of(run: Callable[[], object]) -> float:
    return float(np.median(in_turn({"": run})[""]))


peak = cost.matmul_rate(device, torch.float32)
big = torch.zeros(2**26, device=device)  # larger than any cache
other = torch.empty_like(big)
bandwidth = 2 * big.nbytes / seconds_of(lambda: other.copy_(big))
part = big[: big.numel() // 4]
new = 2 * part.nbytes / seconds_of(part.clone)
print(
    f"{peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s: they meet at {peak / bandwidth:.1f} FLOPs per byte"
)
print(f"into memory that is new at every call: {new / 1e9:.1f} GB/s")

# %% [markdown]
# The last line shows a cost that no count of bytes does: C's allocator returns large blocks to the system (`man mallopt`), and the next one comes page by page, zeroed first. On a GPU, PyTorch keeps what is freed for the next tensor.


# %% tags=["timing"]
def linear_part(rows: int, wide_in: int, wide_out: int) -> tuple[float, float]:
    """Intensity, and FLOP/s achieved by a linear layer."""
    x, w = torch.randn(rows, wide_in, device=device), torch.randn(wide_out, wide_in, device=device)
    seconds = seconds_of(lambda: F.linear(x, w))
    return linear_intensity(rows, wide_in, wide_out, 4), 2 * rows * wide_in * wide_out / seconds


seen_rows, all_rows = batch * 160, batch * work.grid.num_tokens
places = {
    "encoder MLP": linear_part(seen_rows, work.embed_dim, 4 * work.embed_dim),
    "decoder MLP": linear_part(all_rows, work.decoder_embed_dim, 4 * work.decoder_embed_dim),
    "one token, ViT-B": linear_part(1, 768, 3072),
}
x, norm = torch.randn(all_rows, 768, device=device), torch.nn.LayerNorm(768, device=device)
# About 8 FLOPs per number, which is read and written once: 8 bytes.
places["LayerNorm, ViT-B"] = 8 / 8, 8 * x.numel() / seconds_of(lambda: norm(x))
p = torch.nn.Parameter(torch.randn(2**24, device=device))
p.grad = torch.randn_like(p)
adam = torch.optim.AdamW([p], lr=1e-4, fused=True)
# About 12 FLOPs per weight; weight, gradient, two moments are read, all but the gradient written.
places["AdamW"] = 12 / 28, 12 * p.numel() / seconds_of(adam.step)
viz.roofline(
    places,
    peak,
    bandwidth,
    "A roofline on logarithmic axes: a slope of memory bandwidth, then a flat roof of arithmetic. Norm, optimiser "
    "and the product of one token lie left of where they meet, the linear layers to the right.",
)

# %% [markdown]
# Left of the dotted line faster arithmetic changes nothing: only fewer bytes help, by joining operations (fused AdamW, SDPA, compile) or by smaller numbers (bf16). Right of it only fewer FLOPs help: masks, visible-only embedding.
# A point above a line means that the line was measured too low: the machine was busy, or the copy that measured it moves bytes that we don't count. On the slope, a small operation may also read from a cache. So trust the side of the dotted line, not the last 30 %.
#
# *Utilisation* (利用率) is the whole step's FLOP/s over the measured rate, the backward pass counted as two forward ones. Recipes log it with `log_mfu: true` (MFU: model FLOPs utilisation).

# %% tags=["timing"]
macs = cost.pretraining_multiply_adds(work, tubes)["total"]
for name in ("slow", "store"):
    rate = 3 * 2 * macs * batch / (whole[name] / 1e3)
    print(f"{name}: {rate / 1e9:.0f} GFLOP/s, utilisation {rate / peak:.0%}")
print(
    f"ViT-B, compiled, on the GPU above: {bench['rows']['bf16']['ours, compiled']['of the matmul rate']:.0%}"
)

# %% [markdown]
# ## The plan
#
# `vmae plan` predicts a run before it starts: steps, clips, time, memory, and what limits it. The time of a step is that of its matrix products, plus that of moving what the backward pass needs, plus launches. For our step, beside the rung "store":

# %% tags=["timing"]
config = train.PretrainConfig(
    model=work, mask=tubes, data=data.DataConfig(path=folder, stride=2, cache=True),
    optim=train.OptimConfig(steps=100, batch_size=batch), device="cpu", precision="fp32",
)  # fmt: skip
expected = train.planned(config, train.hardware("cpu"), train.clips_of(config))
print({part: f"{1e3 * seconds:.0f} ms" for part, seconds in expected.parts.items()})
print(f"planned for this CPU: {1e3 * expected.seconds / expected.steps:.0f} ms;", end=" ")
print(f"measured on {device.type}: {whole['store']:.0f} ms")

# %% [markdown]
# How far can it be trusted? `tests/bench/plan.py` plans four recipes and runs each for a few steps, on one thread. One recipe was also run on a GPU.

# %%
# NBVAL_CHECK_OUTPUT
cpu = json.loads(Path("data/bench/cpu.json").read_text())
rows = []
for name in ("cpu", "film", "gpu", "v1-k400-s"):
    run = cpu[f"plan, {name}"]
    rows.append(
        {"recipe": name, "device": "a CPU core", "s per step, planned": f"{run['planned seconds']:.3f}",
         "measured": f"{run['measured seconds']:.3f}", "GB, planned": f"{run['planned gigabytes']:.2f}",
         "GB, measured": f"{run['measured gigabytes']:.2f}"}
    )  # fmt: skip
recipe, run = train.Recipe.load("gpu"), gpu["recipe gpu, 60 steps of pre-training"]
h200 = train.planned(recipe.pretrain, train.hardware("h200"), train.clips_of(recipe.pretrain))
rows.append(
    {"recipe": "gpu", "device": run["made"]["device"],
     "s per step, planned": f"{h200.seconds / h200.steps:.3f}",
     "measured": f"{run['batch'] / run['clips per second']:.3f}",
     "GB, planned": f"{h200.memory / 1e9:.1f}", "GB, measured": f"{run['peak memory, GB']:.1f}"}
)  # fmt: skip
viz.table(rows, caption="Planned and measured: pre-training of recipes.")

# %% [markdown]
# On a CPU core, these plans are off by at most 11 % in time and 13 % in memory. On the GPU, the step took 1.4 times the planned time and 1.2 times the planned memory: leave room. All further figures for GPUs come from the plan alone:

# %%
# NBVAL_CHECK_OUTPUT
rows = []
for name in ("v1-k400-b", "v2-hybrid-b"):
    config = train.Recipe.load(name).pretrain
    one_pass = config.replace(optim=config.optim.replace(batch_size=64), grad_accum_steps=1)
    for card in ("h100", "a100", "l4", "t4"):
        device_of = train.hardware(card)
        p = train.planned(one_pass, device_of, train.Clips(240_000, 400, None, None))
        rows.append(
            {"recipe": name, "card": device_of.name, "precision": train.precision_on(one_pass, device_of),
             "clips per second": f"{p.clips / p.seconds:,.0f}", "limited by": p.limit,
             "GB for 64 videos": f"{p.memory / 1e9:.0f}"}
        )  # fmt: skip
viz.table(rows, caption="Expected by `vmae plan`, not measured: 64 videos per step, one card.")

# %% [markdown]
# ## The feed
#
# `tests/bench/feed.py` measured what one CPU core delivers, for 16 frames of 224 pixels from videos of ten seconds.

# %%
# NBVAL_CHECK_OUTPUT
feed = cpu["feed"]["clips per second of a core"]
print(
    f"a core delivers {feed['files']:.0f} clips per second from files, {feed['store']:.0f} from a store"
)
for name in ("ours, compiled", "ours, V2, compiled"):
    cores = {path: math.ceil(1.5 * rates[name] / feed[path]) for path in ("files", "store")}
    print(
        f"{name}: {rates[name]:.0f} clips per second need {cores['files']} cores or {cores['store']}"
    )

# %% [markdown]
# With a margin of one half, one such card keeps 70 to 84 cores busy decoding. Three ways out: a store; the store in the GPU's memory (`cache_on_device`), where it fits; and V2's *repeated augmentation* (重複增強), which makes several clips out of each decoded video.
#
# ## Large batches
#
# Your step can accumulate. Same clips, same masks, all at once or one clip at a time:

# %%
gradients = {}
for parts in (1, batch):
    model = fresh(MaskedAutoencoder)
    memory_of = kept(lambda n=parts, m=model: train_step(m, optimizers[m], clips, mask, n), model)
    gradients[parts] = torch.cat([p.grad.flatten() for p in model.parameters()])
    print(f"{parts} parts: {memory_of:.0f} MB kept at the most")
gap = (gradients[1] - gradients[batch]).norm() / gradients[1].norm()
print(f"the gradients differ by {gap:.0e} of their length")
assert gap < 1e-3

# %% [markdown]
# All masks have equal counts, so all parts weigh the same. In a configuration this is `grad_accum_steps`.
#
# A larger batch needs a larger *learning rate* (學習率). The published rule is linear: lr = base · batch / 256. Four details:
#
# - `batch` counts videos, on all GPUs together. V2 makes 4 views of each (`num_sample`); they count for memory, not for the rule.
# - The base is 1.5e-4 in V1, 3e-4 on UCF101, 1e-3 for V2-B, 6e-4 for V2-g.
# - V1-B's scripts use 64 GPUs of 32 videos, 2048 in all; the paper's table 9 says 1024. Both work, say the authors (issue 64 of MCG-NJU/VideoMAE).
# - `--warmup_lr` is read but never used: the warm-up starts at 0.
#
# ### Exercise 6 · plan a run
#
# **Difficulty** ●●○ · **about 8 minutes** · write a function


# %%
def plan(
    base_lr: float,
    batch: int,
    repeat: int,
    processes: int,
    accumulate: int,
    videos: int,
    warmup_epochs: int,
) -> tuple[float, int, int]:
    """(learning rate, clips of one forward pass of one process, warm-up steps).

    batch        videos per step, of all processes together
    repeat       views of each video, each a clip in the model
    accumulate   parts that each process computes its share in
    videos       of the training set; an epoch has videos // batch steps: the incomplete last batch is dropped
    """
    ### BEGIN SOLUTION
    clips = batch * repeat // (processes * accumulate)
    return base_lr * batch / 256, clips, warmup_epochs * (videos // batch)
    ### END SOLUTION


plan = check("09.plan", plan)

# %% [markdown]
# <details><summary>Hint 1</summary>The rate needs base_lr and batch, nothing else.</details>
# <details><summary>Hint 2</summary>All clips of a step, batch · repeat, are shared among the processes, and each takes its share in parts.</details>
# <details><summary>Solution</summary>
#
# ```python
# clips = batch * repeat // (processes * accumulate)
# return base_lr * batch / 256, clips, warmup_epochs * (videos // batch)
# ```
#
# </details>

# %%
# NBVAL_CHECK_OUTPUT
kinetics = 240_000  # videos, about
runs = {
    "V1-B, published, 64 GPUs": (1.5e-4, 2048, 1, 64, 1, kinetics, 40),
    "V1-B, 8 GPUs, the same batch": (1.5e-4, 2048, 1, 8, 4, kinetics, 40),
    "V1-B, 8 GPUs, a smaller batch": (1.5e-4, 256, 1, 8, 1, kinetics, 40),
    "V2-B, published, 32 GPUs": (1e-3, 1024, 4, 32, 1, 1_350_000, 20),
}
for name, given in runs.items():
    lr, clips_each, warm = plan(*given)
    optim = train.OptimConfig(
        lr=given[0], base_batch_size=256, batch_size=given[1], epochs=800, warmup_ratio=40 / 800
    )
    assert optim.resolved(given[5]).lr == lr
    print(f"{name:30} lr {lr:.2e}, {clips_each:3} clips per pass, warm-up {warm:,} steps")

# %% [markdown]
# In a recipe, `base_batch_size: 256` makes the package apply the rule. Eight GPUs with `grad_accum_steps: 4` reproduce the published run, in more time.
#
# ## Two processes
#
# *Data parallel* (資料平行) training: every process has the model and a share of the batch; gradients are averaged after each backward pass. PyTorch's is DDP.
# Here it runs on the CPU: the launcher of Hugging Face's library Accelerate starts two processes of `vmae pretrain`. First comes the same run with one process.

# %%
config = train.PretrainConfig(
    model=ModelConfig.videomae("tiny", normalize_targets=False), mask=MaskConfig("tube", 0.75),
    data=data.DataConfig(path=folder, num_workers=0, stride=2),
    optim=train.OptimConfig(steps=process_steps, batch_size=8, lr=2e-3),
    device="cpu", precision="fp32", log_every=2, seed=seed,
)  # fmt: skip
source = data.open_source(config.data, videos, 16, 8, progress=viz.track)  # made before two want it
alone = train.pretrain(
    config, progress=viz.LiveCurve("The loss of one process falls."), source=source
)

# %%
with tempfile.TemporaryDirectory() as there:
    config.to_yaml(f"{there}/config.yaml")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
              "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
              "--main_process_port", "0"]  # fmt: skip
    command = ["-m", "vmae", "pretrain", f"{there}/config.yaml", "--out", f"{there}/run"]
    # No GPU is shown to them: then `--multi_gpu` starts processes on the CPU.
    alike = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "USE_LIBUV": "0"}
    begin = time.perf_counter()
    done = subprocess.run(launch + command, capture_output=True, text=True, env=os.environ | alike)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = Path(there, "run/metrics.jsonl").read_text().splitlines()
    environment = json.loads(Path(there, "run/environment.json").read_text())
pair = [train.Record(**json.loads(line)) for line in lines]
print(
    f"{environment[0]['processes']} processes, {time.perf_counter() - begin:.0f} s with their start"
)

# %%
viz.curves(
    {"one process": alone.records, "two processes": pair},
    "Loss over steps of one process and of two: one line covers the other.",
)
gap = max(abs(a.loss - b.loss) for a, b in zip(alone.records, pair, strict=True))
print(f"the losses differ by at most {gap:.0e}")
assert gap < 1e-5 and environment[0]["processes"] == 2

# %% [markdown]
# Both runs give the same losses, because the clips and masks of step k are drawn from the seed and k for the whole batch, and each process takes its share. So a run can resume with another number of processes.
#
# ## Memory by size
#
# AdamW needs 16 bytes per parameter: weight, gradient and two moments, 4 each. DDP keeps all of it on every GPU. *FSDP* (全分片資料平行) gives each GPU a share and fetches a block's weights when they are needed.

# %%
# NBVAL_CHECK_OUTPUT
sizes = {}
for name in ("S", "B", "L", "H", "g"):
    scheme = MaskConfig("tube", 0.9, None, "running-cell", 0.5) if name == "g" else tubes
    shape = ModelConfig.videomae(name)
    sizes[name] = train.PretrainConfig(model=shape, mask=scheme, precision="bf16", device="cuda")


def needs(
    name: str, clips: int, checkpointing: bool = False, processes: int = 1
) -> dict[str, float]:
    """GB of one GPU, by what they are for."""
    m = cost.training_memory(
        sizes[name].replace(activation_checkpointing=checkpointing), clips, processes
    )
    fixed = m.weights + m.gradients + m.optimizer
    return {"weights, gradients, moments": fixed / 1e9, "activations": m.activations / 1e9}


rows = []
for name in sizes:
    fixed = needs(name, 1)["weights, gradients, moments"]
    each = [
        (needs(name, 33, c)["activations"] - needs(name, 1, c)["activations"]) / 32
        for c in (False, True)
    ]
    rows.append(
        {
            "model": name, "parameters": f"{fixed / 16 * 1e3:,.0f} M", "DDP": f"{fixed:.1f} GB",
            "FSDP on 8": f"{fixed / 8:.2f} GB", "per clip": f"{each[0]:.2f} GB",
            "per clip, checkpointing": f"{each[1]:.2f} GB",
            "sent per step, DDP on 8": f"{fixed / 4 * 2 * 7 / 8:.1f} GB",
        }
    )  # fmt: skip
viz.table(
    rows, caption="Computed, not measured: bf16, 16 frames of 224x224, V1's masks; g with V2's."
)

# %% [markdown]
# The last column is what each of 8 GPUs sends to average the gradients, 4 bytes per parameter: in a ring, seven eighths of them twice, to add up and to share the sums. Within a machine that takes milliseconds; between machines it needs a fast network, or accumulation, since the package sends once per step. As a rule: DDP as long as the third column fits, else FSDP.
#
# With a running kernel, ask what fits:

# %%
from ipywidgets import Checkbox, Dropdown, IntSlider


def explore(size: str, clips: int, checkpointing: bool, processes: int) -> None:
    parts = needs(size, clips, checkpointing, processes)
    viz.stacked(
        {"GB": {"one GPU": parts}},
        f"A bar of {sum(parts.values()):.1f} GB, beside marks at 24 and 80 GB.",
        levels={"24 GB": 24, "80 GB": 80},
    )


viz.explorer(
    explore,
    size=Dropdown(options=list(sizes), value="B"),
    clips=IntSlider(32, min=1, max=256),
    checkpointing=Checkbox(False),
    processes=IntSlider(1, min=1, max=64),
)

# %% [markdown]
# ## Eight GPUs, and several machines
#
# The same command, behind a launcher. `--resume` also starts a run that doesn't exist yet.
#
# ```bash
# accelerate launch --multi_gpu --num_processes 8 -m vmae pretrain config.yaml --out runs/mine --resume   # DDP
# accelerate launch --use_fsdp  --num_processes 8 -m vmae pretrain config.yaml --out runs/mine --resume   # FSDP2
# ```
#
# Several machines: on each of them
#
# ```bash
# accelerate launch --multi_gpu --num_machines 4 --num_processes 32 --machine_rank $RANK \
#   --main_process_ip $FIRST_MACHINE --main_process_port 29500 -m vmae pretrain config.yaml --out runs/mine --resume
# ```
#
# What they need:
#
# - **a disk that all machines see**, for the run's folder, the set and the stores;
# - **a batch divisible** by processes times `grad_accum_steps`; with `base_batch_size`, the learning rate follows it;
# - **readers that keep up**: a store, or `data.num_workers` in every process; compare *read* with the rest;
# - **a run that may be stopped**: on SIGTERM it saves and ends; `--resume` continues it. `vmae/train/README.md` has the SLURM script;
# - **the same versions of all packages**: `vmae check-env` on each machine.
#
# What comes first? Reading, if the device waits for it; then bf16 on a GPU; then compile; checkpointing and accumulation if the batch does not fit; FSDP last.
#
# ## Published and used here
#
# | published | where | cell | value used here | why different |
# |---|---|---|---|---|
# | all 1568 tubelets are embedded | V1 and V2 code | exercise 3 | 160 of 1568 | the same result without the waste |
# | attention written out | V1 and V2 code | exercise 2 | 1568 tokens, 2 heads in the decoder | as published, a small model |
# | targets of all tokens, from restored pixels | V1 `engine_for_pretraining.py` | bytes instead of floats | target tokens only, from bytes | the same result without the waste |
# | fp16 with a loss scaler | V1 and V2 code | bf16 | bf16, no scaler | bf16 keeps the range |
# | lr = base · batch / 256 | official scripts | exercise 6 | the published numbers | as published |
# | V1-B: 64 GPUs of 32 videos | official scripts | two processes | 2 processes of 4, tiny model | two cores |
#
# ## Open questions
#
# **1.** You have one GPU with 24 GB, 16 CPU cores, 200 GB of disk and 20,000 videos of your own, ten seconds each. You want to pre-train ViT-B on them in three days. Which rungs do you take, in which order, and what do you measure before you start?
#
# <details><summary>What a good answer contains</summary>
#
# First the feed: cores times clips per core from files, against the clips per second that `vmae plan` expects from the card; then the size of a store at 224 pixels (frames · 3 · 224², per video) against the disk, and if it doesn't fit, fewer frames per video, workers, or repeated augmentation.
# Then memory: what the weights take, what a clip takes, hence the largest batch; accumulation or checkpointing only if the published batch is wanted, and the learning rate scaled with whatever batch results. Then clips per second · three days = clips, in epochs, compared with the paper's. A measurement of a few steps
# before the start, of every stage separately, and the plan's known error on a GPU (see above) as a margin.
# </details>
#
# **2.** A colleague reports that a change makes training "12 % faster". Which questions do you ask before you believe it, and before you adopt it?
#
# <details><summary>What a good answer contains</summary>
#
# Believe: measured in turn with the old one, how many rounds, which spread; warm-up and compilation left out or in; did the stopwatch wait for the GPU; the same batch, precision, input size and machine; the whole step or a part of it (12 % of a part that takes a tenth is one per cent). Adopt: same loss on the same
# weights, same curve over many steps, peak memory, cost at every start, and whether the limit of *your* run lies there at all: a faster encoder doesn't help where reading is the limit.
# </details>
#
# ## What you can do now
#
# - Take a step apart, and say what to make faster first.
# - Compare two variants reliably, and check that both compute the same.
# - Say whether memory or arithmetic limits a layer.
# - Plan a run's time, memory, batch, learning rate and feed, and know how far off the plan may be.
# - Start the same run on two processes, eight GPUs, or several machines.
#
# ## Terms of this lesson
#
# | term | 中文 | meaning |
# |---|---|---|
# | activation checkpointing | 啟動值重算 | a block keeps its input, and computes the rest again |
# | arithmetic intensity | 運算強度 | FLOPs per byte moved |
# | autocast | 自動混合精度 | matrix products in bf16, the rest in fp32 |
# | bf16 | 腦浮點數 | 16 bits: range of fp32, 7 bits of mantissa |
# | data parallel | 資料平行 | each process has the model and a share of the batch |
# | exponent | 指數 | the bits that give a number its range |
# | FSDP | 全分片資料平行 | weights, gradients and moments shared out among processes |
# | fused kernel | 融合核心 | one program for several operations |
# | gradient accumulation | 梯度累積 | a batch in parts, gradients added up |
# | head (of attention) | 多頭 | one of several attentions side by side in a layer |
# | learning rate | 學習率 | how far a step goes |
# | mantissa | 尾數 | the bits that give a number its digits |
# | median | 中位數 | half of the values lie below it |
# | memory bandwidth | 記憶體頻寬 | bytes per second to and from memory |
# | repeated augmentation | 重複增強 | several clips from one decoded video |
# | roofline | 屋頂線 | the speed that bandwidth and arithmetic allow |
# | store | 解碼後的影格庫 | decoded frames on disk, read without decoding |
# | uint8 | 8 位元整數 | a byte: whole numbers from 0 to 255 |
# | utilisation | 利用率 | achieved FLOP/s over the measured rate |

# %%
ladder.clear()
del store, source, rung  # Windows removes no file that is mapped
scratch.cleanup()
memory = train.peak_memory(torch.device("cpu")) / 1e9
print(f"this run: {time.perf_counter() - started:.0f} seconds, at most {memory:.1f} GB of memory")
