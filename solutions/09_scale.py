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
# # 09 · Speed and size
#
# The model is right; now it has to be fast, and to fit. This lesson takes a training step apart, makes its parts cheaper one by one, and measures each change here.
# Then it finds what limits the rest, starts two processes, and counts what a machine with eight GPUs needs.
#
# Measured: the solution run takes about a minute on two quiet CPU cores, and 2.2 GB.
# There are five exercises, about 40 minutes in all.

# %% tags=["parameters"]
device = "auto"  # a GPU where there is one, else the CPU
film_files = 48  # mp4 files to cut out of the film
batch = 4  # clips of a step
rounds = 5  # of every comparison; the median counts
lengths = [196, 784, 1568]  # tokens, for attention
steps = 40  # of the two loss curves in fp32 and bf16
try_compile = True  # half a minute of compiling on two cores
process_steps = 16  # of the run by one process and by two
seed = 0

# %% [markdown]
# ## Set-up

# %%
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

import vmae
from vmae import cost, data, train, vit, viz
from vmae.config import MaskConfig, ModelConfig
from vmae.course.checks import check
from vmae.grid import gather_tokens, patchify
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import Mask, make_mask
from vmae.positions import build_pos_embed

os.chdir(vmae.ROOT)
started = time.perf_counter()
if device == "auto":
    device = "cuda" if torch.cuda.is_available() else "cpu"
device = torch.device(device)
print(train.device_name(device))

# %% [markdown]
# ## How to compare
#
# A single time proves nothing: other programs run too, and the first call sets things up. So the variants run in turn, several rounds, and the *median* (中位數) counts.
# The verdict is strict: a variant is faster only if it was faster in every round. On a GPU a call returns before the work is done, so the stop-watch waits for the device.


# %%
def now() -> float:
    """Seconds, when the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def compare(variants: dict[str, Callable[[], object]], caption: str) -> dict[str, float]:
    """Median seconds of each variant, run in turn; a table with the ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            begin = now()
            run()
            if number:  # the first round warms up
                times[name].append(now() - begin)
    first, rows = next(iter(times.values())), []
    for name, own in times.items():
        wins = sum(b < a for a, b in zip(first, own, strict=True))
        told = {rounds: "faster", 0: "slower"}.get(wins, "cannot be told")
        rows.append(
            {
                "variant": name, "ms": f"{1e3 * np.median(own):.2f}",
                "speed": f"{np.median(first) / np.median(own):.2f} x",
                "verdict": told if own is not first else "",
            }
        )  # fmt: skip
    viz.table(rows, caption)
    return {name: float(np.median(own)) for name, own in times.items()}


# %% [markdown]
# ## What a step consists of
#
# The clips come from the film that ships, cut into mp4 files. The model is a small VideoMAE V1 on 8 frames of 96x96 pixels.

# %%
# NBVAL_CHECK_OUTPUT
work = ModelConfig(
    num_frames=8, img_size=96, tubelet=(2, 8, 8), embed_dim=256, depth=6, num_heads=4,
    decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=2,
)  # fmt: skip
tubes = MaskConfig("tube", 0.9)
mask = make_mask(tubes, work.grid, batch, torch.Generator().manual_seed(seed))
print(work.grid.num_tokens, "tokens,", mask.visible.shape[1], "visible")
assert (work.grid.num_tokens, mask.visible.shape[1]) == (576, 60)

# %% tags=["timing"]
folder = f"data/film-32-{film_files}"
data.render_film(
    folder, data.FILM, data.FilmSpec(frames=32, most_clips=film_files), progress=viz.track
)
videos = data.load_set(folder).train
sampling = data.Sampling(num_frames=work.num_frames, stride=2)
files = data.VideoFiles(videos, work.img_size)
torch.manual_seed(seed)
model = MaskedAutoencoder(work).to(device)
optimizer = train.adamw(model, train.OptimConfig(lr=1e-4))


def stages(source: data.Source, number: int) -> dict[str, float]:
    """Seconds of each stage of one training step."""
    g = torch.Generator(device=device).manual_seed(number)
    keys = [(number, (number * batch + i) % len(videos)) for i in range(batch)]
    marks = [("start", now())]
    clips = data.ClipDataset(source, sampling, seed).__getitems__(keys).clips
    marks.append(("read", now()))
    clips = data.multi_scale_crop(clips.to(device), g)  # (B, C, T, H, W)
    marks.append(("copy, crop", now()))
    drawn = make_mask(tubes, work.grid, batch, g, device)
    marks.append(("mask", now()))
    loss = model.loss(clips, drawn)
    marks.append(("forward", now()))
    optimizer.zero_grad()
    loss.backward()
    marks.append(("backward", now()))
    optimizer.step()
    marks.append(("optimiser", now()))
    return {name: b - a for (_, a), (name, b) in pairwise(marks)}


def typical(sources: dict[str, data.Source]) -> dict[str, dict[str, float]]:
    """The median of each stage over some steps of each source in turn, the first left out."""
    turns = [{n: stages(s, number) for n, s in sources.items()} for number in range(rounds + 1)]
    parts = turns[0][next(iter(sources))]
    return {
        n: {part: float(np.median([turn[n][part] for turn in turns[1:]])) for part in parts}
        for n in sources
    }


def stacked(steps_by_name: dict[str, dict[str, float]], alt: str) -> None:
    with viz.style():
        figure, axis = plt.subplots(figsize=(8, 0.9 + 0.5 * len(steps_by_name)))
        left = np.zeros(len(steps_by_name))
        for stage in next(iter(steps_by_name.values())):
            wide = np.array([1e3 * parts[stage] for parts in steps_by_name.values()])
            axis.barh(list(steps_by_name), wide, left=left, label=stage, height=0.6)
            left += wide
        axis.invert_yaxis()
        axis.set_xlabel("milliseconds of a step")
        axis.legend(ncols=6, loc="lower center", bbox_to_anchor=(0.45, 1), fontsize=8)
    viz.show(figure, alt)


stacked(
    typical({"mp4 files": files}),
    "A bar of one step from mp4 files: read, copy and crop, mask, forward, backward, optimiser.",
)

# %% [markdown]
# *Read* opens each file, decodes up to the frames that it needs, and shrinks them. It happens again in every epoch, for the same frames.
# The larger the machine, the worse: a GPU makes the other parts short, and waits. "GPU at 0 %" is one of the most frequent questions in the official repositories.
#
# ## Decode once
#
# A *store* (解碼後的影格庫) decodes every video once into one file of raw frames, and maps that file into memory. Reading is then a copy.

# %% tags=["timing"]
scratch = tempfile.TemporaryDirectory()
begin = time.perf_counter()
store = data.build_store(scratch.name, videos, work.img_size, workers=0, progress=viz.track)
print(f"made once in {time.perf_counter() - begin:.1f} s, {store.nbytes / 1e6:.0f} MB for {len(store)} videos,",
      f"{store.nbytes / sum(v.path.stat().st_size for v in videos):.0f} times the files")  # fmt: skip
keys = [(0, i) for i in range(16)]
read = compare(
    {
        "mp4 files": lambda: data.ClipDataset(files, sampling, seed).__getitems__(keys),
        "store": lambda kept=store: data.ClipDataset(kept, sampling, seed).__getitems__(keys),
    },
    "16 clips read.",
)
print({name: f"{16 / seconds:.0f} clips a second" for name, seconds in read.items()})
same = [data.ClipDataset(source, sampling, seed).read(0, 3) for source in (files, store)]
assert np.array_equal(*same)

# %% tags=["timing"]
stacked(
    typical({"mp4 files": files, "store": store}),
    "Two bars of a step, from mp4 files and from the store: with the store, reading nearly vanishes.",
)

# %% [markdown]
# The clips are the same, to the bit. The price is disk: raw frames are much larger than the files. Where the disk is too small, worker processes (`data.num_workers`) decode ahead instead.
# What remains is arithmetic. We go through it from the front.
#
# ## Embed what is visible
#
# The official code projects all 1568 tubelets and then drops nine in ten of the results. A projection looks at one token only, so the order can be turned.
#
# ### Exercise 1 · embed the visible tokens only
#
# **Difficulty** ●○○ · **about 6 minutes**


# %%
def embed_visible(
    tokens: torch.Tensor,
    visible: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Project the visible tokens only, and add the positions of their places.

    tokens   (B, N, P)      visible    (B, V), indices into the N places
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
#
# Now at the size of ViT-B: 1568 tokens of 1536 values, 160 of them visible.

# %%
# NBVAL_CHECK_OUTPUT
base = ModelConfig.videomae("B")
g = torch.Generator().manual_seed(seed)
tokens = torch.rand(2, 1568, 1536, generator=g).to(device)
seen = make_mask(tubes, base.grid, 2, g).visible.to(device)
weight = (torch.randn(768, 1536, generator=g) / 40).to(device).requires_grad_()
bias = torch.randn(768, generator=g).to(device).requires_grad_()
positions = build_pos_embed(base, 768).to(device)


def embed_all() -> torch.Tensor:
    return gather_tokens(F.linear(tokens, weight, bias) + positions, seen)


def embed_few() -> torch.Tensor:
    return embed_visible(tokens, seen, weight, bias, positions)


torch.testing.assert_close(embed_few(), embed_all(), rtol=1e-3, atol=1e-3)
for name, run in {"all, then drop": embed_all, "visible only": embed_few}.items():
    with FlopCounterMode(display=False) as counter:
        run()
    print(f"{name:15} {counter.get_total_flops() / 2e9 / 2:.2f} G multiply-adds a clip")

# %% tags=["timing"]
_ = compare(
    {
        "all, then drop": lambda: embed_all().sum().backward(),
        "visible only": lambda: embed_few().sum().backward(),
    },
    "Patch embedding of two clips, forward and backward.",
)

# %% [markdown]
# The package's encoder does the same, so it must agree with yours. Its weights lie in a convolution, and pixels are normalised first.

# %%
with torch.no_grad():
    clips = torch.randint(0, 256, (batch, 3, *work.grid.clip), dtype=torch.uint8, device=device)
    mask = make_mask(tubes, work.grid, batch, torch.Generator(device).manual_seed(seed), device)
    part = model.encoder.patch_embed
    flat = part.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)  # (D, C, p_t, p_h, p_w) -> (D, P)
    raw = vit.normalize_pixels(patchify(clips, work.grid))  # (B, C, T, H, W) -> (B, N, P)
    ours = embed_visible(raw, mask.visible, flat, part.proj.bias, model.encoder.pos_embed[0])
    torch.testing.assert_close(ours, model.encoder.embed(clips, mask.visible), rtol=1e-3, atol=1e-3)
print("equal to the package's embedding")

# %% [markdown]
# ## Attention without its matrix
#
# Plain attention writes down N x N weights for every *head* (多頭), and keeps them for the way back. A *fused kernel* (融合核心) works in blocks and never writes them.
# PyTorch's is `F.scaled_dot_product_attention`, SDPA for short. Write the plain one, to have something to compare.
#
# ### Exercise 2 · plain attention
#
# **Difficulty** ●●○ · **about 8 minutes**


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
#
# What is kept for the backward pass can be counted: PyTorch calls a hook for each tensor that it saves. Several saved tensors may share one piece of memory; it counts once.


# %%
def kept(run: Callable[[], object], own: tuple[torch.Tensor, ...] = ()) -> int:
    """Bytes that autograd keeps for the backward pass of `run`, those of `own` left out."""
    ours = {x.untyped_storage().data_ptr() for x in own}
    found: dict[int, torch.UntypedStorage] = {}

    def save(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in ours:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(save, lambda x: x):
        result = run()
    del result
    return sum(storage.nbytes() for storage in found.values())


# %% tags=["timing"]
for n, dtype in [(n, torch.float32) for n in lengths] + [(lengths[-1], torch.bfloat16)]:
    draws = (torch.randn(1, 6, n, 64, device=device) for _ in range(3))
    q, k, v = (x.to(dtype).requires_grad_() for x in draws)  # (B, heads, N, d)
    ways = {
        "plain": lambda q=q, k=k, v=v: attention(q, k, v),
        "SDPA": lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v),
    }
    close = 2e-2 if dtype == torch.bfloat16 else 1e-3  # bf16 rounds at 2**-8, fp32 far below
    torch.testing.assert_close(ways["plain"](), ways["SDPA"](), rtol=close, atol=close)
    memory = {name: f"{kept(run) / 1e6:.1f} MB" for name, run in ways.items()}
    _ = compare(
        {name: lambda run=run: run().sum().backward() for name, run in ways.items()},
        f"{n} tokens, 6 heads of 64, {dtype}, forward and backward. Kept: {memory}",
    )

# %% [markdown]
# The answers are equal. The memory of the plain form grows with N², that of SDPA with N. The time depends on the machine; the table says.
# The last table is in bf16, the precision of a later section. When the package was measured on a CPU, the fused kernel in bf16 was the slower one (`tests/bench/attention.py`, `data/bench/cpu.json`).
# So `vmae.layers.is_fused` says no to that one case, and the model multiplies plainly, a few hundred queries at a time: what a block makes fits in memory that is used again. New memory has a price of its own, which is measured further down.
# This is why V2's dual masking saves more time in the paper than FLOPs: the official code writes the matrix down.
#
# ## bf16
#
# *bf16* (腦浮點數) has the 8 bits of *exponent* (指數) that float32 has, and 7 of *mantissa* (尾數) instead of 23. fp16 spends its bits the other way: 5 and 10.

# %%
# NBVAL_CHECK_OUTPUT
kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
numbers = {"1/3": 1 / 3, "1 + 1/1000": 1.001, "257": 257.0, "70000": 7e4, "1e-9": 1e-9}
for name, number in numbers.items():
    cast = {kind: torch.tensor(number).to(t).item() for kind, t in kinds.items()}
    print(f"{name:11}", "  ".join(f"{kind} {x:<12.7g}" for kind, x in cast.items()))
small = torch.tensor(1.0, dtype=torch.bfloat16)
for _ in range(1000):
    small += 0.001
print("1 + 1000 times 0.001 in bf16:", small.item())
assert small.item() == 1.0

# %% [markdown]
# bf16 keeps the range and loses digits: two to three remain. fp16 loses the range: 70000 is infinite, and small gradients vanish. So fp16 needs a loss scaler, and bf16 does not.
# The last line is the trap: small updates of a bf16 weight are lost. Hence weights, moments and norms stay in float32. *Autocast* (自動混合精度) lowers only the inputs of matrix products.
#
# Two runs of the tiny model, the same clips and masks:


# %%
def losses_in(low: bool) -> list[train.Record]:
    """The losses of the tiny model on clips of the film, in fp32 or with autocast."""
    tiny = ModelConfig.videomae("tiny", normalize_targets=False)
    torch.manual_seed(seed)
    learner = MaskedAutoencoder(tiny).to(device)
    optim, records = train.adamw(learner, train.OptimConfig(lr=2e-3)), []
    for group in optim.param_groups:
        group["lr"] = 2e-3
    for number in range(1, steps + 1):
        g = torch.Generator(device=device).manual_seed(number)
        chosen = make_mask(MaskConfig("tube", 0.75), tiny.grid, len(film), g, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            loss = F.mse_loss(learner(film, chosen).float(), pixel_targets(film, chosen, tiny))
        optim.zero_grad()
        loss.backward()
        optim.step()
        records.append(train.Record(number, loss.item(), 2e-3, 0.0, 0.0))
    return records


read_all = data.ClipDataset(store, data.Sampling(num_frames=8, stride=2), seed).__getitems__(
    [(0, i) for i in range(32)]
)
film = F.interpolate(read_all.clips.flatten(1, 2).float(), 16, mode="area")  # (B, C·T, 16, 16)
film = film.unflatten(1, (3, 8)).round().to(torch.uint8).to(device)  # -> (B, C, T, 16, 16)
curves = {"fp32": losses_in(False), "bf16": losses_in(True)}
viz.curves(curves, "Loss over steps in fp32 and in bf16: the two curves lie on one another.")
apart = [abs(a.loss - b.loss) / a.loss for a, b in zip(*curves.values(), strict=True)]
print(f"the losses differ by at most {max(apart):.1%} of their value")

# %% [markdown]
# Each step differs a little; the way down is the same. Now the time, on the larger model.


# %% tags=["timing"]
def train_step(low: bool = False, saved: bool = False, learner: MaskedAutoencoder = model) -> None:
    """Forward and backward of one batch."""
    with (
        train.checkpointed(learner, saved),
        torch.autocast(device.type, torch.bfloat16, enabled=low),
    ):
        loss = F.mse_loss(learner(clips, mask).float(), pixel_targets(clips, mask, work))
    with train.checkpointed(learner, saved):
        loss.backward()
    learner.zero_grad()


_ = compare(
    {"fp32": train_step, "bf16": lambda: train_step(low=True)},
    "Forward and backward in fp32 and bf16.",
)

# %% [markdown]
# A GPU has units for bf16. A CPU gains where it has them too (AMX, AVX512-BF16) and the products are large; else it converts back and forth, and loses. The table gives the verdict for this machine.
# That is why the package's `precision: auto` means bf16 on a GPU and fp32 on a CPU.
#
# ## Activation checkpointing
#
# The backward pass needs what the forward pass computed. *Activation checkpointing* (啟動值重算) keeps only the input of each block, and computes the rest again on the way back.
# `vmae.cost.clip_activations` predicts the bytes from the configuration; the hook counts them. The count is the difference of two batches, so that what all clips share drops out.


# %% tags=["timing"]
def kept_a_clip(low: bool, saved: bool) -> float:
    """MB that a clip keeps, counted."""

    def forward(count: int) -> int:
        few = Mask(mask.visible[:count], mask.queries[:count], mask.targets[:count])

        def run() -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                said = model(clips[:count], few)
            return F.mse_loss(said.float(), pixel_targets(clips[:count], few, work))

        with train.checkpointed(model, saved):
            return kept(run, (*model.parameters(), *model.buffers()))

    return (forward(batch) - forward(1)) / (batch - 1) / 1e6


rows = []
for low in (False, True):
    for saved in (False, True):
        config = train.PretrainConfig(model=work, mask=tubes, activation_checkpointing=saved)
        rows.append(
            {
                "precision": "bf16" if low else "fp32", "checkpointing": saved,
                "predicted, MB": f"{cost.clip_activations(config, low) / 1e6:.1f}",
                "counted, MB": f"{kept_a_clip(low, saved):.1f}",
            }
        )  # fmt: skip
viz.table(rows, caption="Memory that one clip keeps for the backward pass.")
_ = compare(
    {"keep all": train_step, "checkpointing": lambda: train_step(saved=True)},
    "Forward and backward, with and without checkpointing.",
)

# %% [markdown]
# With checkpointing the prediction is higher than the count, and rightly: it adds the one block that lives in full while its gradient is computed. The hook sees the forward pass only.
# The price is a second forward pass through the blocks, about a third more arithmetic. Take it when memory is what limits the batch; it makes nothing faster by itself.
#
# ## torch.compile
#
# Between matrix products lie many small operations: norms, additions, GELU. `torch.compile` joins them into fewer programs. It needs a C++ compiler, on a GPU Triton.
# `compile_blocks` tries it; where it fails, it says why and the run goes on without.

# %% tags=["timing"]
if try_compile:
    torch.manual_seed(seed)
    compiled = MaskedAutoencoder(work).to(device)
    begin = now()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train.compile_blocks(compiled, clips, mask)
    failed = [str(w.message)[:300] for w in said if "torch.compile fails" in str(w.message)]
    print(*failed or [f"compiled in {now() - begin:.0f} s"])
    variants = {"as it is": train_step, "compiled": lambda: train_step(learner=compiled)}
    _ = compare(variants, "Forward and backward, with and without compiling.")

# %% [markdown]
# Compiling costs its time once a start. A verdict "slower" or "cannot be told" on a CPU is no bug: there the matrix products take most of the time.
#
# ## What is the limit?
#
# A device has two speeds: arithmetic, in FLOP/s, and *memory bandwidth* (記憶體頻寬), in bytes a second. An operation has one number that decides between them: its *arithmetic intensity* (運算強度), FLOPs per byte that it reads or writes.
#
# ### Exercise 3 · the intensity of a linear layer
#
# **Difficulty** ●●○ · **about 8 minutes**


# %%
def linear_intensity(rows: int, wide_in: int, wide_out: int, size: int) -> float:
    """FLOPs a byte of the matrix product (rows, wide_in) x (wide_in, wide_out).

    A multiply-add is two FLOPs. Input and weights are read once, the output is written once.

    size   bytes of a number: 4 in fp32, 2 in bf16
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
for rows_ in (1, 16, 160, 1568, 32 * 160):
    print(
        f"{rows_:5} rows of ViT-B's MLP in bf16: {linear_intensity(rows_, 768, 3072, 2):6.1f} FLOPs a byte"
    )

# %% [markdown]
# One row reads all weights for two FLOPs each: hopeless. More rows use the weights again. This is what a batch is for.
#
# The *roofline* (屋頂線) draws both speeds: to the left memory limits, to the right arithmetic. First this machine's two numbers, measured.

# %% tags=["timing"]
peak = cost.matmul_rate(device, torch.float32)
big = torch.zeros(2**26, device=device)  # larger than any cache
other = torch.empty_like(big)


def seconds_of(run: Callable[[], object]) -> float:
    """Median seconds, after a first call."""
    times = []
    for _ in range(rounds + 1):
        begin = now()
        run()
        times.append(now() - begin)
    return float(np.median(times[1:]))


bandwidth = 2 * big.nbytes / seconds_of(lambda: other.copy_(big))
ridge = peak / bandwidth
print(
    f"{peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s: they meet at {ridge:.1f} FLOPs a byte"
)
part = big[: big.numel() // 4]
fresh = 2 * part.nbytes / seconds_of(part.clone)
print(f"into memory that is new at every call: {fresh / 1e9:.1f} GB/s")

# %% [markdown]
# The last line is a cost that no count of bytes shows. On a CPU, C's allocator hands a large piece back to the system when it is freed (`man mallopt`, M_MMAP_THRESHOLD). The next one comes page by page, zeroed first.
# On a GPU PyTorch keeps what is freed for the next tensor (its notes on CUDA semantics: the caching allocator).
#
# Now parts of the step, each with its FLOPs, its bytes and its time. Bytes are those that it must move at least once, in fp32.


# %%
def linear_part(rows: int, wide_in: int, wide_out: int) -> tuple[float, float, float]:
    """Intensity, FLOPs and seconds of a linear layer."""
    x, w = torch.randn(rows, wide_in, device=device), torch.randn(wide_out, wide_in, device=device)
    with torch.no_grad():
        return (
            linear_intensity(rows, wide_in, wide_out, 4),
            2.0 * rows * wide_in * wide_out,
            seconds_of(lambda: F.linear(x, w)),
        )


seen_rows, all_rows = batch * mask.visible.shape[1], batch * work.grid.num_tokens
places = {
    "embedding": linear_part(seen_rows, work.grid.token_dim, work.embed_dim),
    "encoder MLP": linear_part(seen_rows, work.embed_dim, 4 * work.embed_dim),
    "decoder MLP": linear_part(all_rows, work.decoder_embed_dim, 4 * work.decoder_embed_dim),
    "one token, ViT-B": linear_part(1, 768, 3072),
}
x = torch.randn(4 * all_rows, 768, device=device)
norm = torch.nn.LayerNorm(768, device=device)
with torch.no_grad():  # about 8 FLOPs a number; read and written once
    time_of_norm = seconds_of(lambda: norm(x))
places["LayerNorm, ViT-B"] = (8 / 8, 8.0 * x.numel(), time_of_norm)
p = torch.nn.Parameter(torch.randn(2**24, device=device))
p.grad = torch.randn_like(p)
adam = torch.optim.AdamW([p], lr=1e-4, fused=True)
# About 12 FLOPs a weight; weight, gradient, two moments are read, all but the gradient written.
places["AdamW"] = (12 / 28, 12.0 * p.numel(), seconds_of(adam.step))

# %% tags=["timing"]
with viz.style():
    figure, axis = plt.subplots(figsize=(7.5, 3.6))
    line = np.logspace(-1, 3, 100)
    axis.loglog(line, np.minimum(peak, line * bandwidth) / 1e9, lw=2, label="roof")
    axis.axvline(ridge, ls=":", lw=1)
    for (name, (intensity, work_done, seconds)), mark in zip(places.items(), "osD^vP", strict=True):
        axis.loglog(intensity, work_done / seconds / 1e9, mark, ms=8, label=name)
    axis.set_xlabel("FLOPs a byte")
    axis.set_ylabel("GFLOP/s")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
viz.show(
    figure,
    "A roofline on logarithmic axes: a slope of memory bandwidth, then a flat roof of arithmetic. Norm, "
    "optimiser and the product of one token lie left of where they meet, the linear layers to the right.",
)
viz.table(
    [
        {
            "part": name, "FLOPs a byte": f"{i:.1f}", "GFLOP/s": f"{w / s / 1e9:.1f}",
            "limited by": "memory" if i < ridge else "arithmetic",
            "of its roof": f"{w / s / min(peak, i * bandwidth):.0%}",
        }
        for name, (i, w, s) in places.items()
    ],
    caption="Above 100 %: the numbers were in a cache, which is faster than the memory that was measured.",
)  # fmt: skip

# %% [markdown]
# Left of the dotted line a faster multiplier changes nothing: only fewer bytes help, by joining operations (fused AdamW, SDPA, compile) or by smaller numbers (bf16).
# Right of it only fewer FLOPs help: masks, visible-only embedding.
# A part above its roof read from a cache, or other programs took their share while the roof was measured: run the two cells again when the machine is quiet.
#
# *Utilisation* (利用率) is the whole step's achieved FLOP/s over the measured rate. The backward pass counts as two forward ones.

# %% tags=["timing"]
macs = cost.pretraining_multiply_adds(work, tubes)["total"]
seconds = seconds_of(train_step)
rate = 3 * 2 * macs * batch / seconds
print(
    f"{3 * 2 * macs * batch / 1e9:.1f} GFLOP a step in {1e3 * seconds:.0f} ms: utilisation {rate / peak:.0%}"
)

# %% [markdown]
# The package logs this number too (`log_mfu: true`). No real step reaches 100 %: norms, softmax and the optimiser do little arithmetic and take time.
#
# ## A large batch in parts
#
# A batch that does not fit is computed in parts, and the gradients are added up: *gradient accumulation* (梯度累積).
#
# ### Exercise 4 · accumulate
#
# **Difficulty** ●●○ · **about 8 minutes**


# %%
def accumulated_gradient(
    weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor, parts: int
) -> torch.Tensor:
    """The gradient of F.mse_loss(x @ weight, y) by `weight`, one part of the rows after the other.

    weight   (P, D)         x  (B, P), y (B, D); B is a multiple of `parts`
    returns  (P, D), that of the whole batch; only B / parts rows are in use at a time
    """
    ### BEGIN SOLUTION
    weight = weight.detach().clone().requires_grad_()
    for rows, wanted in zip(x.chunk(parts), y.chunk(parts), strict=True):
        loss = F.mse_loss(rows @ weight, wanted) / parts
        loss.backward()  # adds to weight.grad
    return weight.grad
    ### END SOLUTION


accumulated_gradient = check("09.accumulated_gradient", accumulated_gradient)

# %% [markdown]
# <details><summary>Hint 1</summary>`backward()` adds to `.grad`. Work on `weight.detach().clone().requires_grad_()`.</details>
# <details><summary>Hint 2</summary>The mean of a batch is the mean of its parts' means: divide each part's loss by `parts`.</details>
# <details><summary>Solution</summary>
#
# ```python
# weight = weight.detach().clone().requires_grad_()
# for rows, wanted in zip(x.chunk(parts), y.chunk(parts), strict=True):
#     loss = F.mse_loss(rows @ weight, wanted) / parts
#     loss.backward()
# return weight.grad
# ```
#
# </details>
#
# The same with the whole model, the same masks: one batch, or one clip at a time.


# %%
def gradient(parts: int) -> tuple[torch.Tensor, int]:
    """The gradient of the whole model as one vector, and the most that a part kept."""
    model.zero_grad()
    most, size = 0, batch // parts
    weights = (*model.parameters(), *model.buffers())
    for first in range(0, batch, size):
        rows = slice(first, first + size)
        own = Mask(mask.visible[rows], mask.queries[rows], mask.targets[rows])
        most = max(most, kept(lambda rows=rows, own=own: model.loss(clips[rows], own), weights))
        (model.loss(clips[rows], own) / parts).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]), most


(together, much), (in_parts, little) = gradient(1), gradient(batch)
gap = (together - in_parts).norm() / together.norm()
print(f"kept at once: {much / 1e6:.0f} MB and {little / 1e6:.0f} MB; gradients differ by {gap:.0e}")
assert gap < 1e-3

# %% [markdown]
# It works because all masks have the same counts, so all parts weigh the same.
# `grad_accum_steps` in the configuration does this. It makes nothing faster: it makes a batch possible.
#
# ## Batch and rate
#
# More processes make a larger batch, and a larger batch wants a larger *learning rate* (學習率). The published rule is linear: lr = base · batch / 256.
# Its traps:
#
# - `batch` is that of all GPUs together, in videos. V2 makes 4 views of each (`num_sample`); the rule does not count them, the memory does.
# - The base is 1.5e-4 in V1, 3e-4 on UCF101, 1e-3 for V2-B, 6e-4 for V2-g.
# - The scripts of V1-B use 64 GPUs of 32, 2048 in all; the paper's table 9 says 1024. The authors: both work (issue 64 of MCG-NJU/VideoMAE).
# - `--warmup_lr` is read and never used: the warm-up starts at 0.
#
# ### Exercise 5 · plan a run
#
# **Difficulty** ●●○ · **about 8 minutes**


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

    batch        videos a step, of all processes together
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
    print(f"{name:30} lr {lr:.2e}, {clips_each:3} clips a pass, warm-up {warm:,} steps")

# %% [markdown]
# In a recipe, `base_batch_size: 256` makes the package apply the rule. Eight GPUs with `grad_accum_steps: 4` give the published run, in more time.
#
# ## Two processes
#
# *Data parallel* (資料平行) training: every process has the model and a share of the batch; gradients are averaged after each backward pass. PyTorch's is DDP.
# Here it is on the CPU, from the notebook: Accelerate's launcher starts two processes of the command `vmae pretrain`. First the same run by one process.

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
# One run, in the same numbers: step k draws its clips and masks from the seed and from k for the whole batch, and each process takes its share. So a run can go on with another number of processes.
#
# ## Memory by size
#
# AdamW needs 16 bytes a parameter: weight, gradient, two moments, 4 each. DDP keeps all of it on every GPU. *FSDP* (全分片資料平行) gives each GPU a share, and fetches a block's weights when it is their turn.

# %%
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
    return {"fixed": fixed / 1e9, "activations": m.activations / 1e9}


table = []
for name in sizes:
    one, saved = needs(name, 33), needs(name, 33, True)
    each = (one["activations"] - needs(name, 1)["activations"]) / 32
    less = (saved["activations"] - needs(name, 1, True)["activations"]) / 32
    table.append(
        {
            "model": name, "parameters": f"{one['fixed'] / 16 * 1e3:,.0f} M",
            "weights, gradients, moments": f"{one['fixed']:.1f} GB",
            "the same, FSDP on 8": f"{needs(name, 1, processes=8)['fixed']:.2f} GB",
            "a clip": f"{each:.2f} GB", "a clip, checkpointing": f"{less:.2f} GB",
            "sent a step, DDP on 8": f"{one['fixed'] / 4 * 2 * 7 / 8:.1f} GB",
        }
    )  # fmt: skip
viz.table(
    table, caption="Expected in bf16, 16 frames of 224x224, 90 % masked; g with dual masking."
)

# %% [markdown]
# The last column is what a ring of 8 GPUs sends and receives of gradients: each 2·7/8 of 4 bytes a parameter. Within a machine that takes milliseconds. Between machines it asks for a fast network, or for accumulation: the package sends once a step, whatever the number of parts is.
# A rule: take DDP as long as the first sum fits; FSDP where it does not.
#
# The explorer asks what fits. It needs a running kernel.

# %%
from ipywidgets import Checkbox, Dropdown, IntSlider


def explore(size: str, clips: int, checkpointing: bool, processes: int) -> None:
    parts = needs(size, clips, checkpointing, processes)
    total = sum(parts.values())
    with viz.style():
        figure, axis = plt.subplots(figsize=(7, 1.4))
        left = 0.0
        for name, gigabytes in parts.items():
            axis.barh(["one GPU"], [gigabytes], left=left, label=f"{name} {gigabytes:.1f} GB")
            left += gigabytes
        for card in (24, 80):
            axis.axvline(card, ls="--", lw=1)
        axis.set_xlim(0, max(85, 1.05 * total))
        axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8)
    viz.show(figure, f"A bar of {total:.1f} GB, beside marks at 24 and 80 GB.")


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
# The same command, behind a launcher. `--resume` also starts a run that is not there yet.
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
# - **a batch that divides** by processes times `grad_accum_steps`; the rate follows it, by `base_batch_size`;
# - **readers that keep up**: a store, or `data.num_workers` of every process; compare *read* with the rest, as above;
# - **a run that may be stopped**: on SIGTERM it saves and ends, and `--resume` goes on. `vmae/train/README.md` has the SLURM script;
# - **the same pins everywhere**: `vmae check-env` on each machine.
#
# Which switch first? Reading, if the device waits for it. Then bf16 on a GPU. Then compile. Checkpointing and accumulation when the batch does not fit. FSDP last.
#
# ## Ledger
#
# | published | cell | value here | why smaller |
# |---|---|---|---|
# | V1, V2: all 1568 tubelets are embedded (official code) | exercise 1 | 160 of 1568, ViT-B | as published, without the waste |
# | V1, V2: attention written out (official code) | exercise 2 | up to 1568 tokens, 6 heads | as published, one layer |
# | V1, V2: fp16 with a loss scaler (DeepSpeed, GradScaler) | bf16 | bf16, no scaler | bf16 keeps the range |
# | lr = base · batch / 256 (official scripts) | exercise 5 | the published numbers | as published |
# | V1-B: 64 GPUs of 32 videos (official scripts) | two processes | 2 processes of 4, tiny model | two cores |
#
# ## What you can do now
#
# - take a step apart, and say what to make faster first;
# - compare two variants so that the answer can be trusted;
# - say for any layer whether memory or arithmetic limits it;
# - plan batch, rate and warm-up for any number of GPUs, and what memory they need;
# - start the same run on two processes, eight GPUs, or several machines.
#
# ## Glossary
#
# | term | 中文 | meaning |
# |---|---|---|
# | activation checkpointing | 啟動值重算 | a block keeps its input, and computes the rest again |
# | arithmetic intensity | 運算強度 | FLOPs for each byte moved |
# | autocast | 自動混合精度 | matrix products in bf16, the rest in fp32 |
# | bf16 | 腦浮點數 | 16 bits: range of fp32, 7 bits of mantissa |
# | data parallel | 資料平行 | each process has the model and a share of the batch |
# | exponent | 指數 | the bits that give a number its range |
# | FSDP | 全分片資料平行 | weights, gradients and moments shared out among processes |
# | fused kernel | 融合核心 | one program for several operations |
# | gradient accumulation | 梯度累積 | a batch in parts, gradients added up |
# | learning rate | 學習率 | how far a step goes |
# | mantissa | 尾數 | the bits that give a number its digits |
# | median | 中位數 | half of the values lie below it |
# | memory bandwidth | 記憶體頻寬 | bytes a second to and from memory |
# | roofline | 屋頂線 | the speed that bandwidth and arithmetic allow |
# | store | 解碼後的影格庫 | decoded frames on disk, read without decoding |
# | utilisation | 利用率 | achieved FLOP/s over the measured rate |

# %%
del store, source  # Windows removes no file that is mapped
scratch.cleanup()
memory = train.peak_memory(torch.device("cpu")) / 1e9
print(f"this run: {time.perf_counter() - started:.0f} seconds, at most {memory:.1f} GB of memory")
