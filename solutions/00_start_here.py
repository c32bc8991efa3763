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
# Hide three quarters of a video from a neural network and ask it to fill in the rest. To do that well, it must find out what things look like and
# how they move, and nobody has to label a single frame. A network trained this way is a *masked autoencoder* (遮罩自編碼器). In eleven
# notebooks you build one from its parts, train it, and put what it has learned to use. The course follows three papers: MAE, for images (He et al. 2021, arXiv 2111.06377), and
# VideoMAE in its two versions, V1 (Tong et al. 2022, arXiv 2203.12602) and V2 (Wang et al. 2023, arXiv 2303.16727).
#
# ![Five short clips of an animated film playing in three rows: the video; what is visible of it, a quarter, at the same positions in every frame; and the video as the network predicts it: colours, layout and shapes are right, details are missing](../data/pictures/reconstructions.webp)
#
# *Shots of "Big Buck Bunny" that this network never saw in training. It gets the middle row and predicts the bottom one. It was trained for 98
# minutes on one CPU core. Colours, layout and shapes are right; details are missing.*
#
# You need Python, a little PyTorch and no GPU. Allow about 30 minutes. Measured on 2 shared CPU cores, the whole solution: under half a minute, 0.9 GB of memory at most.

# %% tags=["parameters"]
checkpoint = "data/weights/film"  # the trained network that ships with the course
film = "data/big_buck_bunny_192x108.mp4"
ratio = 0.75  # share of the positions that is hidden
seed = 0

# %% [markdown]
# ## Set-up
#
# Click on a cell and press Shift+Enter to run it. Should the next one fail, type `vmae check-env` in a terminal: it says what is wrong and how to fix it.

# %%
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import vmae
from vmae import cli, data, train
from vmae.config import MaskConfig, ModelConfig
from vmae.course.lessons import check, diagrams, making, predict, viz
from vmae.masking import make_mask

started = time.perf_counter()
os.chdir(vmae.ROOT)  # paths are relative to the checkout, wherever Jupyter was started

# %% [markdown]
# ## A first exercise
#
# The network does not look at single pixels. It cuts a clip into small blocks, *tubelets* (時空立方體), and reads each one as a *token* (詞元), much as
# a language model reads words. So how many tokens are there in a clip?
#
# ### Exercise 1 · Count the tokens
#
# **Difficulty** ●○○ · **about 3 minutes**
#
# A clip of T frames of H x W pixels is cut into tubelets of p_t frames, p_h rows and p_w columns. They fill the clip and do not overlap. Return their
# number: your code goes in place of `raise NotImplementedError`.
#
# Run the cell three times, to see all that can happen:
#
# 1. *as it is*. The check says `·`, not attempted yet, and the notebook carries on;
# 2. *with a mistake*: type `return frames * (height // tubelet[1]) * (width // tubelet[2])`. The check draws one blue square per token that you counted,
#    twice too many, and then says what probably went wrong;
# 3. *with your own answer*. `✓` means that it passed.


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
# The mistake in step 2 gets this answer:
#
# ```text
# ✗ 00.token_count: not right yet: every frame is counted as a time step: a tubelet spans
#   p_t frames, so divide T by p_t
#   The notebook continues with the package's `token_count`.
# ```
#
# The last line is a promise. Until your function passes, `check` returns the one from `vmae`, the small package behind this course, and every later cell
# works. You can't get stuck: skip what you like and come back to it.
#
# That is how all exercises work. Hints and the solution are folded below the cell, in the order in which you should want them. The check runs your
# code on inputs of its own, so an answer that fits only the numbers in the text won't pass. The cells between exercises put your functions to use: run them all, and read
# as much of them as you like.
#
# Here is what you have counted, for the network above. Its clips have 16 frames of 112x112 pixels.

# %%
model = vmae.load(checkpoint).eval()
size = model.config
diagrams.tubelets(size)

# %% [markdown]
# *A clip is cut into tubelets; each is flattened to a list of its pixel values, and a linear layer turns the list into a token. Its v means visible: nothing is hidden yet.*
#
# Your function, on the sizes that you will meet most often:

# %%
# NBVAL_CHECK_OUTPUT
famous = {
    "MAE, an image": (1, 224, 224, (1, 16, 16)),
    "VideoMAE, 16 frames": (16, 224, 224, (2, 16, 16)),
    "the network above": (*size.grid.clip, size.tubelet),
    "16 frames, flat patches": (16, 224, 224, (1, 16, 16)),
    "32 frames": (32, 224, 224, (2, 16, 16)),
}
for name, (T, H, W, tubelet) in famous.items():
    print(f"{name:24} {T:3} x {H} x {W} by {tubelet} → {token_count(T, H, W, tubelet)}")
assert token_count(*famous["the network above"]) == size.grid.num_tokens

# %% [markdown]
# Our network's clips have as many tokens as those of the published VideoMAE, 1568, from frames with half as many pixels on each side. And two quite different clips give
# 3136; explanations of VideoMAE often mix them up. Lesson 04 takes them apart.
#
# ## Hiding
#
# Now for the mask (遮罩). In the animation at the top, the same squares are grey in every frame of a clip. This is *tube masking* (管道式遮罩): a square
# that is hidden stays hidden, so the network cannot simply wait for it to reappear.
#
# ### Exercise 2 · Hide the patches
#
# **Difficulty** ●●○ · **about 6 minutes**
#
# One frame first. Turn its hidden patches grey, and leave the original as it is: whoever calls your function may still need it.


# %%
def hide(picture: torch.Tensor, hidden: torch.Tensor, patch: int) -> torch.Tensor:
    """A copy of a picture with its hidden patches grey.

    picture   (C, H, W), values in [0, 1]
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
# There are two ways: loop over the hidden patches and fill one slice each, or enlarge the mask of patches to a mask of pixels.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Loop: start from `picture.clone()`; `hidden.nonzero()` lists (row, column) of each hidden patch.
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
# ## The network at work
#
# What ships with the course is a *checkpoint* (檢查點): the weights of a trained model. During training, every fifth shot of the film was set aside.
# Shots are cut into overlapping pieces of 32 frames, and of a dozen pieces from the shots set aside we read every second frame. A *clip* (影片片段) is an array (C, T, H, W): colour channels, time, rows, columns.


# %%
# NBVAL_CHECK_OUTPUT
def read(start: int) -> torch.Tensor:
    """Every second frame from `start` on, as a clip (C, T, H, W) of the network's size."""
    index = start + 2 * np.arange(size.num_frames)
    frames = data.crop_square(data.read_frames(film, lambda _: index))  # (T, H, W, 3)
    small = torch.from_numpy(data.resize_frames(frames, size.img_size))
    return small.permute(3, 0, 1, 2)  # (T, H, W, C) -> (C, T, H, W)


pieces = making.choose_clips(making.FilmSpec(frames=32, overlap=16), Path(film))
unseen = [start for split, start, _ in pieces if split == "test"]
clips = torch.stack([read(start) for start in unseen[4::6]])  # (B, C, T, H, W)
print(f"{len(pieces)} pieces of the film, {len(unseen)} from shots set aside")
print(f"{len(clips)} clips of those:", tuple(clips.shape))

# %% [markdown]
# Each clip gets a mask of its own, drawn at random. Then your function hides one of the clips, frame by frame.

# %%
# NBVAL_CHECK_OUTPUT
dice = torch.Generator().manual_seed(seed)
mask = make_mask(MaskConfig("tube", ratio), size.grid, len(clips), dice)
t, h, w = size.grid.shape
hidden = mask.hidden(size.grid.num_tokens).view(-1, t, h, w)  # (B, N) -> (B, t, h, w)
clip, squares = clips[-1] / 255, hidden[-1, 0]  # (C, T, H, W), (h, w)
masked = torch.stack([hide(frame, squares, size.tubelet[1]) for frame in clip.unbind(1)], dim=1)
print(f"{t} x {h} x {w} = {size.grid.num_tokens} tokens: {mask.visible.shape[1]} visible,", end=" ")
print(mask.targets.shape[1], "hidden")
assert all(torch.equal(step, squares) for step in hidden[-1]), "the same at all times: tubes"

# %% [markdown]
# Inside, the *encoder* (編碼器) reads the visible tokens alone. The *decoder* (解碼器) gets what the encoder made of them, and predicts the pixels of
# all the others. `reconstruct` calls both.

# %%
with torch.inference_mode():
    result = model.reconstruct(clips, mask)
torch.testing.assert_close(masked, result.masked[-1], rtol=0, atol=1e-4)  # it hides as you do
shown = {"video": clip, "visible": masked, "predicted": result.pasted[-1]}
viz.player(
    shown,
    height=224,
    alt="A clip of a rabbit and a butterfly playing three times: the video; three quarters of its squares grey; "
    "and with the grey squares filled in by the network.",
)

# %%
viz.pictures(
    {f"{name}, t = {at}": x[:, at] for name, x in shown.items() for at in (0, 8, 15)},
    "Three frames of the clip in three rows: the video; three quarters of the squares grey; and the grey "
    "squares filled in by the network, with meadow, trees and the rabbit's body where they belong.",
    columns=3,
    height=1.8,
)

# %% [markdown]
# Nothing of the grey area reached the network, and it never saw this shot in training. Yet grass continues as grass, trees as trees, and the rabbit's
# white body is filled in where it belongs. What it cannot know stays soft: trained on mean squared error, a network does best by predicting the average of everything that
# could be there, and averages are blurred. The squares still show, because the pixels of each token are predicted separately.
#
# ### Predict · Is that good?
#
# A picture persuades too easily, so we want a number beside a *baseline*, a method that has learned nothing. Ours fills every hole with the mean colour of what is
# visible in the clip. How large is the network's error on hidden pixels, in percent of the baseline's? 100 would mean that it has learned nothing;
# 0, that it is perfect. Write your guess in place of `None`. Nothing is judged here: a guess, right or wrong, makes you look harder at the answer.

# %%
### BEGIN SOLUTION
guess = 40
### INSTEAD
# guess = None
### END SOLUTION
share = predict("the network's error, in percent of the mean colour's", guess)

# %%
truth = clips / 255  # (B, C, T, H, W)
# (B, 1, t, h, w) -> (B, 1, T, H, W): True where a pixel is hidden, in all colours
where = F.interpolate(hidden[:, None].float(), clips.shape[2:]).bool()
counted = (~where).sum((2, 3, 4), keepdim=True)
mean = (truth * ~where).sum((2, 3, 4), keepdim=True) / counted  # (B, C, 1, 1, 1)
guesses = {"mean colour": torch.where(where, mean, truth), "the network": result.pasted}
errors = {
    name: ((x - truth).square().sum() / (3 * where.sum())).item() for name, x in guesses.items()
}
viz.table([{k: f"{x:.4f}" for k, x in errors.items()}], caption="Mean squared error, hidden pixels")
share.compare(100 * errors["the network"] / errors["mean colour"], close=0.2, unit="%")
assert errors["the network"] < errors["mean colour"]

# %% [markdown]
# Well below half: much better than knowing nothing, and far from perfect. This is *self-supervised* (自監督) *pre-training* (預訓練), in which the video is both the question and the answer.
# In the end the reconstructions are thrown away, and so is the decoder. What we keep is an encoder that had to learn what its world looks like. With
# it, a few labels go a long way: that is *fine-tuning* (微調). Lesson 07 shows how, and lesson 10 measures the gain.
#
# ## The letters
#
# Shapes are half of this course. The same letters stand for the same sizes everywhere, in prose, in comments and in docstrings.
#
# | letter | meaning |
# |---|---|
# | B | clips in a batch |
# | C | channels: 3 colours |
# | T | frames of a clip |
# | H, W | rows and columns of pixels |
# | p_t, p_h, p_w | frames, rows and columns of a tubelet |
# | t, h, w | tubelets along time, rows, columns: t = T / p_t, h = H / p_h, w = W / p_w |
# | N | tokens of a clip: t·h·w |
# | P | pixel values in a tubelet, of which one token is made: p_t·p_h·p_w·C |
# | V | visible tokens, which the encoder reads |
# | Q | queries: positions that the decoder predicts |
# | M | targets: queries that count in the loss |
# | D, E | embedding dimension of the encoder, of the decoder |
#
# Clips are (B, C, T, H, W). Tokens are ordered by time, then by row, then by column. Until lesson 08 every hidden token is a query and a target: Q = M = N - V. Here are the letters of our network, and of the published VideoMAE.

# %%
# NBVAL_CHECK_OUTPUT
columns = {"our network": (size, ratio), "VideoMAE ViT-B": (ModelConfig.videomae("B"), 0.9)}
rows = [
    {"": letter} for letter in ("T, H, W", "p_t, p_h, p_w", "t, h, w", "N", "P", "V", "M", "D, E")
]
for name, (config, hidden_share) in columns.items():
    grid = config.grid
    drawn = make_mask(MaskConfig("tube", hidden_share), grid, batch=1)
    values = [grid.clip, config.tubelet, grid.shape, grid.num_tokens, grid.token_dim]
    values += [drawn.visible.shape[1], drawn.targets.shape[1]]
    values += [(config.embed_dim, config.decoder_embed_dim)]
    for row, value in zip(rows, values, strict=True):
        row[name] = str(value)
viz.table(rows, caption="Sizes of two models")
assert (rows[3]["VideoMAE ViT-B"], rows[5]["VideoMAE ViT-B"]) == ("1568", "160")

# %% [markdown]
# The encoder of the published model reads 160 tokens of 1568. That makes it cheap, and its task hard.
#
# ## Is this computer ready?
#
# If you got this far, almost certainly. The table makes sure of the rest, one row per question: `[OK]` is good; `[FAIL]` has to be fixed, and the line below it says how;
# `[--]` is worth knowing and no problem. A computer without a GPU is fine.

# %% tags=["timing"]
from vmae.course.check_env import check_env, disk_row, report

print(report(check_env()))

# %% [markdown]
# `vmae check-env` prints the same in a terminal. What does trouble look like? We ask for a disk of a million gigabytes:

# %% tags=["timing"]
print(report([disk_row(needed=10**15)]))

# %% [markdown]
# ### Getting on, and getting help
#
# Exercises that pass in your notebook are noted in your checkout. `vmae progress` lists them in a terminal, or here (in the executed solution all boxes stay empty):

# %%
_ = cli.main(["progress"])

# %% [markdown]
# - Write your answers in `notebooks/`. `git restore notebooks/02_mae.ipynb` brings back a fresh copy of a lesson.
# - `solutions/` holds the same notebooks, solved and executed. Look there when the hints are not enough, or to compare pictures.
# - A message that begins with `it raises` quotes the line of your code that failed. Fix it and run the cell again.
# - Names that do not exist, values from an hour ago? *Kernel → Restart Kernel and Run All Cells* puts things in order.
# - Still stuck? Open an issue with the output of `vmae check-env`, the number of the lesson and the message of the check.
#
# ## The map
#
# Before lesson 01 you should know
#
# - **Python**: functions, classes, dictionaries, list comprehensions;
# - **PyTorch**: tensors and their shapes, `nn.Module`, what a training loop does;
# - **mathematics**: the matrix product, mean and variance, the idea of a gradient.
#
# Transformers, video formats and GPUs are explained where they come up. Afterwards you can
#
# - write a vision transformer, MAE and both VideoMAEs, and say why each part is there;
# - pre-train on your own videos, fine-tune with few labels, and test the result honestly, beside training from scratch and beside chance;
# - load the published checkpoints and export your own;
# - read the papers' tables, and know which of their claims you have seen with your own eyes.
#
# The minutes are those of the executed solution on 2 CPU cores; you will want longer.

# %% tags=["timing"]
import json

from IPython.display import Markdown, display

course = {
    "00": "a trained network at work, two exercises, the map",
    "01": "attention, block, model and training loop: your ViT reads digits",
    "02": "your MAE, every shape of it; it reconstructs a cat that it has never seen",
    "03": "your MAE pre-trained on images, and what that is worth with few labels",
    "04": "from a video file to tokens: sampling, tubelets, positions",
    "05": "why video needs tubes: redundancy, masks, a copier to beat",
    "06": "VideoMAE V1: your model, pre-trained on video; what goes wrong and how it looks",
    "07": "fine-tuning, tests over several views, few labels",
    "08": "VideoMAE V2: dual masking, its cost, the large models",
    "09": "a slow training step made fast: precision, memory, many GPUs",
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
    if number == "00":
        minutes = "–"  # known only after this run
    links = f"[{title}](../notebooks/{built.name}) | [executed](../solutions/{built.name})"
    needs = hardware.get(number, "2 CPU cores")
    lines.append(f"| {number} | {links} | {what} | {needs} | {minutes} |")
display(Markdown("\n".join(lines)))

# %% [markdown]
# Take them in order, since each uses what the one before it built. 01 to 03 are about images, 04 to 08 about video, 09 about speed and size, and 10 puts it all to work. An evening for each is a
# good pace. In a hurry? 00, 02, 04 and 10.
#
# From lesson 01 on there are four kinds of exercise. You *write* functions, as above; you *build* modules and training loops out of them, which are
# then trained; you *predict* what a cell will measure before you run it; and you *find the bug* in a program that runs and is wrong. Each lesson ends with one or two
# open questions that nothing checks.
#
# ## Published, and run here
#
# Every lesson ends with such a table: what a paper did, what you ran instead, and why.
#
# | published | where | cell | value used here | why smaller |
# |---|---|---|---|---|
# | tubelets of 2x16x16, 1568 tokens | V1, section 3.3 | exercise 1, the letters | 2x8x8, 1568 tokens | frames of 112x112 pixels |
# | tubes hide 90 %: 160 tokens visible | V1, section 3.3; official `masking_generator.py` | hiding | 75 %: 392 of 1568 visible | a small network; 75 % leaves more to look at in the picture (which ratio teaches more is not measured yet) |
# | encoder of 12 blocks of 768, decoder of 4 of 384 | V1, ViT-B | the letters | 6 of 192, 4 of 128 | it ships in 7 MB |
# | targets are normalised pixels | V1, official code | the network at work | plain pixels | the prediction is a picture as it is |
# | half of the positions are predicted | V2, dual masking | the network at work | all hidden positions | to see the whole picture |
#
# ## Summary
#
# - A masked autoencoder hides most of a clip and learns to predict it. You have hidden a clip yourself and measured a trained network beside a baseline.
# - You can count the tokens of any clip and read the shapes of this course.
# - You can solve an exercise, read what a check says, and never get stuck.
# - Your computer is ready. Next: [lesson 01](01_vision_transformer.ipynb), where a picture becomes tokens and attention gets to work.
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
# | attention map | 注意力圖 | how much weight a token gives to each other |
# | augmentation | 資料增強 | a random change to the input, such as a crop |
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
# | CNN | 卷積神經網路 | a network of convolutions |
# | contrastive learning | 對比學習 | learns which views belong to the same image |
# | convolution | 卷積 | the same small kernel at every position |
# | copying baseline | 複製基準 | fills holes by copying, without having learned anything |
# | correlation | 相關係數 | 1: one determines the other; 0: unrelated |
# | cosine decay | 餘弦衰減 | the learning rate falls along half a cosine |
# | cross-attention | 交叉注意力 | queries from one sequence, keys and values from another |
# | cross-entropy | 交叉熵 | minus the log-probability of the right class |
# | cube embedding | 立方體嵌入 | the linear layer from a tubelet's pixels to a token |
# | data | 資料 | the videos, and where there are any, the labels |
# | data parallel | 資料平行 | each process has the model and a share of the batch |
# | decoder | 解碼器 | predicts the hidden part |
# | denoising autoencoder | 去噪自編碼器 | reproduces the clean input from a damaged one |
# | dense sampling | 密集取樣 | equal steps from a random start |
# | divided attention | 分離式時空注意力 | over time, then over space |
# | drop path | 隨機深度 | leaves out a block's branch for some clips in training |
# | dual masking | 雙重遮罩 | one mask for the encoder, another for the decoder |
# | encoder | 編碼器 | reads the visible part |
# | exponent | 指數 | the bits that give a number its range |
# | fine-tuning | 微調 | training on labels, from pre-trained weights |
# | floor | 隨機權重基準 | what a probe finds in random weights |
# | frame masking | 整幀遮罩 | whole time steps are hidden |
# | from scratch | 從頭訓練 | training from random weights |
# | FSDP | 全分片資料平行 | weights, gradients and moments shared out among processes |
# | fused kernel | 融合核心 | one program for several operations, which keeps nothing between them |
# | GELU | 高斯誤差線性單元 | a smooth nonlinearity, between the MLP's two layers |
# | gradient accumulation | 梯度累積 | a batch in parts, gradients added up |
# | head (of a classifier) | 分類頭 | the last layer, from features to logits |
# | head (of attention) | 多頭 | one of several attentions side by side |
# | inductive bias | 歸納偏置 | what a model assumes before it sees data |
# | information leakage | 資訊洩漏 | a hidden position is visible at another time |
# | interpolation | 內插 | values between known ones |
# | joint attention | 聯合時空注意力 | every token looks at every other |
# | k-NN | 最近鄰 | the nearest labelled clips vote |
# | key | 鍵 | what a token offers to be found by |
# | key frame | 關鍵影格 | a frame stored whole, from which decoding can start |
# | label smoothing | 標籤平滑 | the right class gives a little of its probability to all |
# | latent representation | 潛在表示 | the encoder's output for a patch |
# | layer decay | 逐層學習率衰減 | early layers learn more slowly |
# | layer normalisation | 層正規化 | each token to mean 0, variance 1 |
# | leakage | 資料洩漏 | test data that influence the training |
# | learning rate | 學習率 | how far a step goes |
# | linear probe | 線性探測 | one linear layer on frozen features |
# | linear scaling rule | 線性縮放規則 | the learning rate grows with the batch |
# | locality | 局部性 | outputs depend on nearby pixels alone |
# | logits | 未歸一化分數 | a classifier's outputs before the softmax |
# | mantissa | 尾數 | the bits that give a number its digits |
# | mask | 遮罩 | which patches are hidden |
# | mask ratio | 遮罩率 | share of the tokens that is hidden |
# | mask token | 遮罩詞元 | one learned vector, used for every hidden patch |
# | masked autoencoder | 遮罩自編碼器 | hides part of its input and learns to predict it |
# | masked self-attention | 遮罩自注意力 | attention under a causal mask |
# | mean pooling | 平均池化 | the mean of all tokens stands for the clip |
# | mean squared error | 均方誤差 | the mean of squared differences; the loss |
# | median | 中位數 | half of the values lie below it |
# | memorise | 記憶 | learn the training picture, and nothing about others |
# | memory bandwidth | 記憶體頻寬 | bytes per second to and from memory |
# | mixup | 混合增強 | clips and targets are blended with a partner's |
# | MLP | 多層感知器 | two linear layers with a nonlinearity between them |
# | multi-view test | 多視角測試 | averaging over several clips and crops of a video |
# | multiply-add | 乘加運算 | one multiplication and one addition; the papers' FLOP |
# | normalised pixels | 像素正規化 | each patch with its mean and deviation taken out |
# | patch | 圖塊 | a square of pixels that becomes one token |
# | PCA | 主成分分析 | the directions in which vectors vary most |
# | plateau | 平台期 | where more steps no longer help |
# | position embedding | 位置編碼 | a vector that depends only on where a token is |
# | post-pre-training | 後預訓練 | V2's stage with many labels, between pre-training and the target |
# | pre-norm | 前置正規化 | normalise before the branch |
# | pre-training | 預訓練 | training without labels, before the task |
# | progressive training | 漸進式訓練 | V2: without labels, then with many, then on the target |
# | projection | 線性投影 | from P pixel values to width D |
# | queries | 查詢位置 | positions that the decoder predicts |
# | query | 查詢 | what a token asks for |
# | random masking | 隨機遮罩 | every token is drawn independently |
# | reconstructed pixels | 重建像素 | what the model predicts at hidden positions |
# | redundancy | 時序冗餘 | neighbouring frames hold nearly the same information |
# | repeated augmentation | 重複增強 | several clips from one decoded video |
# | residual connection | 殘差連接 | a branch is added to its input |
# | roofline | 屋頂線 | the speed that bandwidth and arithmetic allow |
# | running cell | 滾動單元遮罩 | V2's mask of the decoder: half of the positions, moving over time |
# | score | 分數 | dot product of a query and a key |
# | self-attention | 自注意力 | queries, keys and values from the same tokens |
# | self-supervised | 自監督 | the data itself is the answer |
# | separable | 時空可分離 | made of a part for time and a part for space |
# | store | 解碼後的影格庫 | decoded frames on disk, read without decoding |
# | stride | 取樣間隔 | frames from one chosen frame to the next |
# | symmetric | 對稱 | encoder and decoder of the same size, both on all tokens |
# | targets | 目標 | queries whose answer counts in the loss |
# | token | 詞元 | one vector of the sequence |
# | translation equivariance | 平移等變性 | when the image moves, the outputs move with it |
# | TSN sampling | 分段取樣 | one frame from each of T segments |
# | tube length | 管道長度 | frames until positions are drawn anew; published: the whole clip |
# | tube masking | 管道式遮罩 | the same positions are hidden at all times |
# | tubelet | 時空立方體 | a block of pixels over a few frames, one token |
# | tubelet embedding | 時空立方體嵌入 | the projection of a tubelet to D values, plus its position |
# | uint8 | 8 位元整數 | a byte: whole numbers from 0 to 255 |
# | unbiased variance | 不偏變異數 | sum of squares divided by P - 1 |
# | unshuffle | 還原順序 | restore the original order of tokens |
# | utilisation | 利用率 | achieved FLOP/s over the measured rate |
# | validation | 驗證 | chooses the epoch, apart from training and test |
# | value | 值 | what attention averages |
# | visible | 可見 | what the encoder sees |
# | vision transformer | 視覺轉換器 | a transformer whose tokens are image patches |
# | warm-up | 預熱 | the first steps, during which the learning rate rises |
# | weight decay | 權重衰減 | weights are pulled towards 0 |
# | white noise | 白雜訊 | every pixel drawn independently |

# %% tags=["timing"]
memory = train.peak_memory(torch.device("cpu")) / 1e9
print(f"this run: {time.perf_counter() - started:.0f} seconds, at most {memory:.1f} GB of memory")
