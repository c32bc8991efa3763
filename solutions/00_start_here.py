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
# # 00 · Start here
#
# This course builds a machine that learns from video without labels. It hides most of a video and learns to paint what is missing.
# That is a *masked autoencoder* (遮罩自編碼器). You write its parts yourself, in eleven notebooks.
#
# Here you check your computer, see such a model at work, solve two small exercises to learn how they go,
# and get the map, the letters and the words of the course.
#
# Measured on 2 shared CPU cores, the whole solution: 0.3 minutes, 0.5 GB of memory at the peak. No GPU is needed.

# %% tags=["parameters"]
checkpoint = "data/tiny"  # a trained masked autoencoder: a folder that solutions/ship.py wrote
film = "data/big_buck_bunny_shot.mp4"  # any video of 64 frames or more
ratio = 0.75  # share of the places that is hidden
seed = 0

# %% [markdown]
# ## Set-up
#
# Each notebook begins so. It works from any folder of the checkout, and as often as you like.

# %%
import json
import os
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from IPython.display import Markdown, display

import vmae
from vmae import cli, data, train, viz
from vmae.config import MaskConfig, ModelConfig
from vmae.course import making
from vmae.course.checks import check
from vmae.grid import TokenGrid, gather_tokens, patchify
from vmae.masking import make_mask
from vmae.vit import to_unit

started = time.perf_counter()
os.chdir(vmae.ROOT)

# %% [markdown]
# ## Is this computer ready?
#
# One row a question. `[OK]` is good. `[FAIL]` must be mended, and the line below it says how. `[--]` is worth knowing, and no problem.
# A computer without GPU is fine.

# %% tags=["timing"]
from vmae.course.check_env import check_env, disk_row, report

rows = check_env()
print(report(rows))

# %% [markdown]
# On a terminal the same is `vmae check-env`. When you ask for help, put its output into your question.
#
# What does trouble look like? We ask for a disk of a million gigabytes.

# %% tags=["timing"]
print(report([disk_row(needed=10**15)]))

# %% [markdown]
# ## Where this leads
#
# At the end of the course you will be able to
#
# - write a vision transformer, MAE, and both VideoMAEs, and say why each part is there;
# - pre-train on your own videos, fine-tune with few labels, and test it honestly, beside scratch and chance;
# - load the published checkpoints and export your own;
# - read the papers' tables and know which numbers you have seen yourself.
#
# What you should know already:
#
# - **Python**: functions, classes, dictionaries, list comprehensions.
# - **PyTorch**: tensors and their shapes, `nn.Module`, what a training loop does. No more.
# - **Mathematics**: matrix product, mean, variance, the idea of a gradient.
# - Not needed: transformers, video formats, a GPU.
#
# ## A first look: most of a clip is hidden
#
# A *checkpoint* (檢查點) holds the weights of a trained model. A tiny one ships with the course. Its *stamp* says where it comes from.

# %%
model = vmae.load(checkpoint)
size, decoder = model.config, model.config.decoder_embed_dim
stamp = json.loads((Path(checkpoint) / "stamp.json").read_text())
print(f"{sum(p.numel() for p in model.parameters()):,} weights in {checkpoint}")
print(
    f"clips of {size.num_frames} frames, {size.img_size}x{size.img_size} pixels, tubelets {size.tubelet}"
)
print(
    f"encoder: {size.depth} blocks of {size.embed_dim}; decoder: {size.decoder_depth} of {decoder}"
)
print(f"trained by the recipe {stamp['recipe']!r} on {stamp['data']}: {stamp['steps']:,} steps")

# %% [markdown]
# The weights have seen thousands of short clips, and not one label. That is *self-supervised* (自監督) *pre-training* (預訓練).
#
# We need clips that the model has never seen. The first kind is drawn now, by the renderer of the model's training data; its test
# pictures are never used in training. The second kind is cut from a film, with four frames from one to the next, and shrunk to the model's size.
# A *clip* (影片片段) is an array (C, T, H, W): colour, time, rows, columns.


# %%
# NBVAL_CHECK_OUTPUT
def to_clip(frames: np.ndarray) -> torch.Tensor:
    """Frames (T, H, W, 3) as a clip (C, T, side, side) of the model's size."""
    small = data.crop_square(data.resize_frames(frames, size.img_size))  # (T, side, side, 3)
    return torch.from_numpy(small.copy()).permute(3, 0, 1, 2)  # (C, T, side, side)


spec = data.spec_named(Path(stamp["data"]).name)  # the set that the model was trained on
rendered = torch.stack([to_clip(making.render(spec, "test", i)[0]) for i in range(64)])
starts = range(0, 96, 4)
step = 4 * np.arange(size.num_frames)
cut = torch.stack([to_clip(data.read_frames(film, lambda n, s=s: s + step)) for s in starts])
clips = {"rendered": rendered, "film": cut}
print({name: tuple(batch.shape) for name, batch in clips.items()})

# %% [markdown]
# The model cuts a clip into *tubelets* (時空立方體), small blocks of pixels over two frames. Each becomes one *token* (詞元).
# Then a *mask* (遮罩) hides three quarters of the places, the same ones in all frames: *tube masking* (管道式遮罩).

# %%
# NBVAL_CHECK_OUTPUT
grid = size.grid
tubes = MaskConfig("tube", ratio)
masks = {
    name: make_mask(tubes, grid, len(batch), torch.Generator().manual_seed(seed))
    for name, batch in clips.items()
}
seen, hidden = masks["film"].visible.shape[1], masks["film"].targets.shape[1]
t, h, w = grid.shape
print(f"{t} x {h} x {w} = {grid.num_tokens} tokens: {seen} seen, {hidden} hidden")
assert seen + hidden == grid.num_tokens

# %% [markdown]
# The *encoder* (編碼器) gets the visible tokens alone. The *decoder* (解碼器) is asked for the pixels of all the others.
# `reconstruct` does both, and paints what is hidden grey for us.

# %%
with torch.inference_mode():
    results = {name: model.reconstruct(clips[name], masks[name]) for name in clips}
for name, index in {"rendered": 1, "film": 12}.items():
    strips = {
        "original": clips[name][index],
        "the model sees": results[name].masked[index],
        "its answer": results[name].pasted[index],
    }
    viz.film_strips(
        strips,
        grid=size.tubelet[1],
        alt=f"A {name} clip in three rows of frames: the original; what the model sees, three quarters "
        "of the squares grey; and the same with the grey squares painted by the model.",
    )

# %% [markdown]
# The lines mark the tubelets. Four places of sixteen are real; the model painted the rest.
# The pictures are coarse, since the model is tiny: 16x16 pixels. The same clip, playing:

# %%
viz.player(strips, height=224, alt="The film clip playing: original, masked, painted by the model.")

# %% [markdown]
# ### Is that good?
#
# A picture is not a number. We take the mean squared error over hidden pixels, in [0, 1], and compare with a guess
# that knows nothing: the mean colour of what is visible in the clip.

# %%
rows = []
for name, batch in clips.items():
    pixels = to_unit(patchify(batch, grid))  # (B, C, T, H, W) -> (B, N, P)
    answers = patchify(results[name].predicted, grid)  # the same
    target = gather_tokens(pixels, masks[name].target_tokens)  # (B, N, P) -> (B, M, P)
    answer = gather_tokens(answers, masks[name].target_tokens)
    visible = gather_tokens(pixels, masks[name].visible).unflatten(2, (-1, 3))
    # (B, 1, P): one colour a clip
    mean = visible.mean((1, 2)).repeat(1, grid.token_dim // 3)[:, None]
    errors = {"the model": answer, "mean colour": mean}
    rows.append({"clips": f"{len(batch)} {name}"})
    rows[-1] |= {k: f"{(x - target).square().mean():.4f}" for k, x in errors.items()}
viz.table(rows, caption="Mean squared error on hidden pixels; less is better")

# %% [markdown]
# The first row shows what the model has learned, the second what is left of it where things move in other ways.
# Compare each with the guess beside it: a model this small gains most on the kind of clip that it was trained on. In lesson 10 you train one like it yourself.
#
# Why paint at all? To paint what is hidden, a model must find out what moves, and how. Later a few labels are enough
# to name it: that is *fine-tuning* (微調), and lesson 10 measures what it gains.
#
# ## The letters
#
# The same letters stand in the prose, in comments and in docstrings of all lessons.
#
# | letter | meaning |
# |---|---|
# | B | clips in a batch |
# | C | channels: 3 colours |
# | T | frames of a clip |
# | H, W | rows and columns of pixels |
# | p_t, p_h, p_w | frames, rows and columns of a tubelet |
# | t, h, w | tubelets in time, in rows, in columns: t = T / p_t, h = H / p_h, w = W / p_w |
# | N | tokens of a clip: t·h·w |
# | P | values in a token: p_t·p_h·p_w·C |
# | V | visible tokens, which the encoder sees |
# | Q | queries: places that the decoder is asked for |
# | M | targets: queries whose answer counts in the loss |
# | D, E | width of the encoder, of the decoder |
#
# Clips are (B, C, T, H, W). Tokens run time first, then rows, then columns. The cell fills in the letters for the tiny
# model and for the published VideoMAE.

# %%
# NBVAL_CHECK_OUTPUT
table = {}
for name, config, share in (
    ("tiny", size, ratio),
    ("VideoMAE ViT-B", ModelConfig.videomae("B"), 0.9),
):
    sides, mask = config.grid, make_mask(MaskConfig("tube", share), config.grid, batch=1)
    (T, H, W), (t, h, w) = sides.clip, sides.shape
    table[name] = {"T, H, W": (T, H, W), "tubelet": sides.tubelet, "t, h, w": (t, h, w)}
    table[name] |= {"N": sides.num_tokens, "P": sides.token_dim, "V": mask.visible.shape[1]}
    table[name] |= {
        "M": mask.targets.shape[1],
        "D, E": (config.embed_dim, config.decoder_embed_dim),
    }
for letter in table["tiny"]:
    print(f"{letter:8}", *(f"{column[letter]!s:16}" for column in table.values()))
assert table["VideoMAE ViT-B"]["N"] == 1568 and table["VideoMAE ViT-B"]["V"] == 160

# %% [markdown]
# 160 of 1568 tokens is all that the encoder of the published model sees. That makes it cheap, and the task hard.
#
# ## How exercises work
#
# An exercise has a card (how hard, how long), a function without its body, and a check. You write the body in place of
# `raise NotImplementedError` and run the cell. The check runs your function on fresh inputs, *draws* what it gave, and then judges it.
#
# Three things can happen. Here is one of each, for the exercise that follows.
# `patch.dict` is only there since tests of this course make a wrong answer an error; you will never need it.


# %%
def untouched(frames, height, width, tubelet):
    raise NotImplementedError


def hasty(frames, height, width, tubelet):
    return frames * (height // tubelet[1]) * (width // tubelet[2])


with patch.dict(os.environ, {"VMAE_STRICT": ""}):
    first = check("00.token_count", untouched)
    second = check("00.token_count", hasty)

# %% [markdown]
# `·` was not attempted. `✗` is wrong: the picture shows a count of four steps in time where the clip has two, and the line below says why.
# Both times the check returned the package's function in place of the wrong one. So the notebook goes on, and you are never stuck:
# skip what you like, and come back.
#
# A right answer passes, and the check returns it.

# %%
# NBVAL_CHECK_OUTPUT
print("the package's function instead:", first is second, first.__name__)
print(
    first(4, 32, 48, (2, 16, 16)), "tokens are right;", hasty(4, 32, 48, (2, 16, 16)), "was hasty"
)
assert first is second

# %%
with patch.dict(os.environ, {"VMAE_STRICT": "1"}):  # so that this pass is not noted as yours
    third = check("00.token_count", first)
assert third is first

# %% [markdown]
# ### Exercise 1 · count the tokens
#
# **Difficulty** ●○○ · **about 3 minutes**
#
# A clip of T x H x W is cut into tubelets of p_t x p_h x p_w, without overlap. How many are there?


# %%
def token_count(frames: int, height: int, width: int, tubelet: tuple[int, int, int]) -> int:
    """N, the number of tubelets in a clip.

    frames, height, width   T, H, W        tubelet   (p_t, p_h, p_w); each divides its side
    """
    ### BEGIN SOLUTION
    p_t, p_h, p_w = tubelet
    return (frames // p_t) * (height // p_h) * (width // p_w)
    ### END SOLUTION


token_count = check("00.token_count", token_count)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# How many tubelets lie side by side along one side of the clip?
# </details>
#
# <details><summary>Hint 2</summary>
#
# t = T / p_t, h = H / p_h, w = W / p_w. `//` divides whole numbers.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# p_t, p_h, p_w = tubelet
# return (frames // p_t) * (height // p_h) * (width // p_w)
# ```
# </details>
#
# These are the counts that you will meet most.

# %%
# NBVAL_CHECK_OUTPUT
famous = {
    "MAE, an image": (1, 224, 224, (1, 16, 16)),
    "VideoMAE, 16 frames": (16, 224, 224, (2, 16, 16)),
    "16 frames, flat patches": (16, 224, 224, (1, 16, 16)),
    "32 frames": (32, 224, 224, (2, 16, 16)),
    "the tiny model": (size.num_frames, size.img_size, size.img_size, size.tubelet),
}
for name, (T, H, W, tubelet) in famous.items():
    count = token_count(T, H, W, tubelet)
    assert count == TokenGrid((T, H, W), tubelet).num_tokens
    print(f"{name:24} {T:3} x {H} x {W} by {tubelet} → {count}")

# %% [markdown]
# Both 16 frames of flat patches and 32 frames of tubelets give 3136. Notes often mix the two; lesson 04 takes them apart.
#
# ### Exercise 2 · paint what is hidden
#
# **Difficulty** ●●○ · **about 6 minutes**
#
# The grey squares above were painted by the package. Now you paint them, on one frame.


# %%
def hide(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """A copy of a picture with its hidden patches grey.

    picture   (C, H, W), values in [0, 1]; it must stay as it is
    hidden    (h, w) bool, True where a patch of patch x patch pixels is hidden

    Returns (C, H, W), 0.5 in all channels of hidden patches.
    """
    ### BEGIN SOLUTION
    pixels = hidden.repeat_interleave(patch, 0).repeat_interleave(patch, 1)  # (h, w) -> (H, W)
    return torch.where(pixels, 0.5, picture)
    ### END SOLUTION


hide = check("00.hide", hide)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two ways lead there: a loop over the hidden patches that paints a slice each, or a mask of pixels made from the mask of patches.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Loop: `picture.clone()`, and `hidden.nonzero()` lists (row, column) of each hidden patch.
# Mask: `repeat_interleave(patch, 0)` repeats each row `patch` times; `torch.where(mask, a, b)` takes a where the mask is True.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# pixels = hidden.repeat_interleave(patch, 0).repeat_interleave(patch, 1)
# return torch.where(pixels, 0.5, picture)
# ```
# </details>
#
# What you write must equal what the package does. The cell hides a whole clip with your function, frame by frame.
# The mask is one for all frames: that is what makes it a tube.

# %%
# NBVAL_CHECK_OUTPUT
t, h, w = grid.shape
places = masks["film"].hidden(grid.num_tokens)[12].view(t, h, w)  # (N) -> (t, h, w)
same_in_time = bool((places == places[0]).all())
unit = clips["film"][12] / 255  # (C, T, H, W)
ours = torch.stack([hide(frame, places[0], size.tubelet[1]) for frame in unit.unbind(1)], dim=1)
print("hidden places alike in all steps:", same_in_time, "·", int(places[0].sum()), "of", h * w)
print("equal to the package's:", torch.allclose(ours, results["film"].masked[12], atol=1e-6))
assert same_in_time and torch.allclose(ours, results["film"].masked[12], atol=1e-6)

# %% [markdown]
# ### What is solved
#
# Passed exercises are noted in your checkout. On a terminal the list is `vmae progress`.

# %%
_ = cli.main(["progress"])

# %% [markdown]
# - Write your answers in `notebooks/`. `git restore notebooks/02_mae.ipynb` brings a fresh copy back.
# - `solutions/` has the same notebooks solved and executed. Look there when hints are not enough, or to compare pictures.
# - A message that begins `it raises` shows your own line. Mend it, run the cell again.
# - Strange names or old values? *Restart the kernel and run all cells* puts everything in order.
# - Still stuck? Open an issue with the output of `vmae check-env`, the lesson, and the check's message.
#
# ## The map
#
# The table is made from the files that are there. Minutes are those of the executed solution on 2 CPU cores.

# %% tags=["timing"]
course = {
    "00": "the computer, the exercises, the map",
    "01": "the vision transformer from its parts, trained on digits",
    "02": "a masked autoencoder on one picture, every shape of it",
    "03": "the same trained on pictures, and what it is worth",
    "04": "from a video file to tokens: sampling, tubelets, positions",
    "05": "why video needs tubes: redundancy, masks, copying",
    "06": "VideoMAE V1: the asymmetric model, pre-trained on video",
    "07": "fine-tuning, tests over views, few labels",
    "08": "VideoMAE V2: dual masking, cost, the large models",
    "09": "speed and size: precision, many GPUs, measurements",
    "10": "the whole run: data, pre-training, fine-tuning, report",
}
hardware = {"10": "2 CPU cores, or a GPU"}
lines = ["| | lesson | solved | what you do | hardware | minutes |", "|---|---|---|---|---|---|"]
for number, what in course.items():
    built = next(Path("solutions").glob(f"{number}_*.ipynb"), None)
    if built is None:
        lines.append(f"| {number} | *being written* | | {what} | | |")
        continue
    notebook = json.loads(built.read_text(encoding="utf-8"))
    title = notebook["cells"][0]["source"][0].strip().removeprefix(f"# {number} · ")
    minutes = notebook["metadata"].get("vmae", {}).get("minutes", "not executed")
    links = f"[{title}](../notebooks/{built.name}) | [executed](../solutions/{built.name})"
    needs = hardware.get(number, "2 CPU cores")
    lines.append(f"| {number} | {links} | {what} | {needs} | {minutes} |")
display(Markdown("\n".join(lines)))

# %% [markdown]
# Take them in order; each uses what the one before built. 01 to 03 are about pictures, 04 to 08 about video, 09 about large machines.
# An evening for each is a good pace. In a hurry: 00, 02, 04, 10.
#
# ## What was published, what was run here
#
# | published | where | cell | value used here | why smaller |
# |---|---|---|---|---|
# | tubelets of 2x16x16, 1568 tokens | V1, section 3.3 | the letters, exercise 1 | 2x4x4, 64 tokens | clips of 16x16 pixels |
# | tubes hide 90 %: 160 tokens seen | V1, section 3.3; official `masking_generator.py` | most of a clip is hidden | 75 %: 16 seen of 64 | 90 % of 16 places would leave two |
# | encoder of 12 blocks of 768, decoder of 4 of 384 | V1, ViT-B | the checkpoint | 4 of 64, 2 of 48 | ships in 1.1 MB |
# | targets are normalised pixels | V1, official code | the answers | plain pixels | the answer is a picture as it is |
# | half of the places are asked for | V2, dual masking | the checkpoint, in training | all hidden ones are asked here | to see the whole picture |
#
# ## What you can do now
#
# - Tell whether a computer is ready, and mend it.
# - Load a masked autoencoder and look at what it paints, and judge it by a number beside a guess.
# - Count the tokens of any clip, and read the shapes of this course.
# - Solve an exercise, read what a check says, and never be stuck.
#
# ## Glossary
#
# English terms are used throughout. Each lesson gives the Chinese name at first use; here are all.
#
# | term | 中文 | meaning |
# |---|---|---|
# | activation checkpointing | 啟動值重算 | a block keeps its input, and computes the rest again |
# | arithmetic intensity | 運算強度 | FLOPs for each byte moved |
# | asymmetric | 非對稱 | a large encoder, a small decoder |
# | attention | 注意力 | a weighted mean of values, by how well keys fit a query |
# | attention map | 注意力圖 | how much a token takes from each other |
# | autocast | 自動混合精度 | matrix products in bf16, the rest in fp32 |
# | autoencoder | 自編碼器 | learns to reproduce its input |
# | Bernoulli draw | 伯努利 | a coin for each position |
# | bf16 | 腦浮點數 | 16 bits: range of fp32, 7 bits of mantissa |
# | block | 區塊 | attention and MLP, each with norm and residual connection |
# | causal mask | 因果遮罩 | no access to later words |
# | checkpoint | 檢查點 | the weights of a model on disk |
# | class token | 分類詞元 | an extra token that stands for no patch |
# | classifier | 分類器 | the encoder with a head that names the class |
# | clip | 影片片段 | the frames that enter the model together, (C, T, H, W) |
# | CNN | 卷積神經網路 | the same small kernel at every position; a network of such layers |
# | contrastive learning | 對比學習 | learns which views belong to the same image |
# | convolution | 卷積 | the same small kernel at every position; a network of such layers |
# | copying baseline | 複製基準 | fills holes by copying, without having learned anything |
# | correlation | 相關係數 | 1: one determines the other; 0: unrelated |
# | cosine decay | 餘弦衰減 | the rate falls along half a cosine |
# | cross-attention | 交叉注意力 | queries from one sequence, keys and values from another |
# | cross-entropy | 交叉熵 | minus the log-probability of the right class |
# | cube embedding | 立方體嵌入 | the linear layer from a tubelet's pixels to a token |
# | data | 資料 | the videos, and where there are any, the labels |
# | data parallel | 資料平行 | each process has the model and a share of the batch |
# | decoder | 解碼器 | what writes: it paints the hidden part |
# | denoising autoencoder | 去噪自編碼器 | reproduces the clean input from a damaged one |
# | dense sampling | 密集取樣 | equal steps from a random start |
# | divided attention | 分離式時空注意力 | over time, then over space |
# | drop path | 隨機深度 | leaves out a block's branch for some clips in training |
# | dual masking | 雙重遮罩 | one mask for the encoder, another for the decoder |
# | encoder | 編碼器 | what reads: it gets the visible part |
# | exponent | 指數 | the bits that give a number its range |
# | fine-tuning | 微調 | training on labels, from pre-trained weights |
# | floor | 隨機權重基準 | what a probe finds in random weights |
# | frame masking | 整幀遮罩 | whole time steps are hidden |
# | from scratch | 從頭訓練 | training from random weights |
# | FSDP | 全分片資料平行 | weights, gradients and moments shared out among processes |
# | fused kernel | 融合核心 | one program for several operations, which keeps nothing between them |
# | GELU | 高斯誤差線性單元 | two linear layers, and the smooth gate between them |
# | gradient accumulation | 梯度累積 | a batch in parts, gradients added up |
# | head | 多頭 | one of several attentions side by side |
# | head (of a classifier) | 分類頭 | the last layer, and its outputs before the softmax |
# | head (of attention) | 多頭 | one of several attentions side by side |
# | inductive bias | 歸納偏置 | what a model assumes before it sees data |
# | information leakage | 資訊洩漏 | a hidden position is visible at another time |
# | interpolation | 內插 | values between known ones |
# | joint | 聯合 | attention of every token to every token, over space and time |
# | joint attention | 聯合時空注意力 | every token looks at every other |
# | key | 鍵 | what a token offers to be found by |
# | key frame | 關鍵影格 | a frame stored whole, from which decoding can start |
# | label smoothing | 標籤平滑 | the right class gives a little to all |
# | latent representation | 潛在表示 | the encoder's output for a patch |
# | layer decay | 逐層學習率衰減 | early layers learn more slowly |
# | layer normalisation | 層正規化 | each token to mean 0, variance 1 |
# | leak | 資料洩漏 | the test tells something to the training |
# | leakage | 資料洩漏 | test data that influence the training |
# | learning rate | 學習率 | how far a step goes |
# | linear probe | 線性探測 | one linear layer on frozen features |
# | linear scaling rule | 線性縮放規則 | the learning rate grows with the batch |
# | locality | 局部性 | outputs depend on nearby pixels; they move with the image |
# | logits | 未歸一化分數 | the last layer, and its outputs before the softmax |
# | mantissa | 尾數 | the bits that give a number its digits |
# | mask | 遮罩 | which patches are hidden |
# | mask ratio | 遮罩率 | share of the tokens that is hidden |
# | mask token | 遮罩詞元 | one learned vector, used for every hidden patch |
# | masked autoencoder | 遮罩自編碼器 | hides part of its input and learns to predict it |
# | masked self-attention | 遮罩自注意力 | attention under a causal mask |
# | mean pooling | 平均池化 | the mean of all tokens stands for the clip |
# | mean squared error | 均方誤差 | the loss |
# | median | 中位數 | half of the values lie below it |
# | memorise | 記憶 | learn the training picture, and nothing about others |
# | memory bandwidth | 記憶體頻寬 | bytes a second to and from memory |
# | mixup | 混合增強 | clips and targets are blended with a partner's |
# | MLP | 多層感知器 | two linear layers with a bend between |
# | multi-view test | 多視角測試 | averaging over several clips and crops of a video |
# | multi-view testing | 多視角測試 | averaging over several clips and crops of a video |
# | multiply-add | 乘加運算 | one multiplication and one addition; the papers' FLOP |
# | normalised pixels | 像素正規化 | each patch with its mean and deviation taken out |
# | patch | 圖塊 | a square of pixels that becomes one token |
# | position | 位置編碼 | a vector that tells a token where it is |
# | position embedding | 位置編碼 | a vector that depends only on where a token is |
# | positions | 位置編碼 | vectors that tell tokens where they are |
# | post-pre-training | 後預訓練 | V2's stage with many labels, between pre-training and the target |
# | pre-norm | 前置正規化 | normalise before the branch |
# | pre-training | 預訓練 | training without labels, before the task |
# | progressive training | 漸進式訓練 | V2: without labels, then with many, then on the target |
# | projection | 線性投影 | from P pixel values to width D |
# | queries | 查詢位置 | places that the decoder is asked for |
# | query | 查詢 | what a token asks for |
# | random masking | 隨機遮罩 | every token is drawn independently |
# | reconstructed pixels | 重建像素 | what the model predicts at hidden positions |
# | redundancy | 時序冗餘 | neighbouring frames hold nearly the same information |
# | residual connection | 殘差連接 | a branch is added to its input |
# | roofline | 屋頂線 | the speed that bandwidth and arithmetic allow |
# | running cell | 滾動單元遮罩 | V2's mask of the decoder: half of the places, moving on over time |
# | score | 分數 | dot product of a query and a key |
# | self-attention | 自注意力 | queries, keys and values from the same tokens |
# | self-supervised | 自監督 | the data itself is the answer |
# | separable | 時空可分離 | made of a part for time and a part for space |
# | store | 解碼後的影格庫 | decoded frames on disk, read without decoding |
# | stride | 取樣間隔 | frames from one chosen frame to the next |
# | symmetric | 對稱 | encoder and decoder of the same size, both on all tokens |
# | targets | 目標 | queries whose answer counts in the loss |
# | token | 詞元 | one vector of the sequence |
# | translation equivariance | 平移等變性 | outputs depend on nearby pixels; they move with the image |
# | TSN sampling | 分段取樣 | one frame from each of T segments |
# | tube length | 管道長度 | frames until positions are drawn anew; published: the whole clip |
# | tube masking | 管道式遮罩 | the same positions are hidden at all times |
# | tubelet | 時空立方體 | a block of pixels over a few frames, one token |
# | tubelet embedding | 時空立方體嵌入 | the projection of a tubelet to D values, plus its position |
# | tubelet, cube | 時空立方體 | a block of pixels over a few frames, one token |
# | unbiased variance | 不偏變異數 | sum of squares divided by P - 1 |
# | unshuffle | 還原順序 | restore the original order of tokens |
# | utilisation | 利用率 | achieved FLOP/s over the measured rate |
# | value | 值 | what attention averages |
# | visible | 可見 | what the encoder sees |
# | vision transformer | 視覺轉換器 | a transformer whose tokens are image patches |
# | warm-up | 預熱 | the steps in which the rate rises |
# | weight decay | 權重衰減 | weights are pulled towards 0 |
# | white noise | 白雜訊 | every pixel drawn independently |

# %% tags=["timing"]
memory = train.peak_memory(torch.device("cpu")) / 1e9
print(f"this run: {time.perf_counter() - started:.0f} seconds, at most {memory:.1f} GB of memory")
