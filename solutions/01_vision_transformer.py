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
# # 01 · The vision transformer
#
# A *vision transformer* (ViT, 視覺轉換器) cuts an image into patches and lets every patch look at every other.
# In this lesson you write one from scratch, with the parameter names of the official models. Then you write its training loop,
# and your model learns to read handwritten digits.
# Lesson 02 builds a masked autoencoder from your `Attention` and your `Block`.
#
# The executed solution took 0.8 minutes on 2 CPU cores and less than 1 GB of memory; the last cell measures your run.
# There are eight exercises and two predictions, about an hour and a half in all.

# %% tags=["parameters"]
seed = 0
seeds = 2  # models trained per variant
epochs = 20  # passes over the training digits
width = 48  # D
depth = 2  # blocks
heads = 4

# %% [markdown]
# ## Set-up
#
# Paths are relative to the checkout, wherever Jupyter was started.
# The tensors here are so small that a second thread would only slow the first one down.

# %%
import math
import os
import time

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import vmae
from vmae import cost, grid, layers, positions, vit
from vmae.config import ModelConfig
from vmae.course.checks.notebook_01 import Suspect, cat
from vmae.course.lessons import check, diagrams, predict, viz
from vmae.train import Record, peak_memory

os.chdir(vmae.ROOT)
torch.set_num_threads(1)
started = time.perf_counter()

# %% [markdown]
# Scikit-learn ships 1797 handwritten digits of 8x8 grey pixels: small enough to train on a CPU. A photo of a cat stands in for images of the published size.

# %%
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

digits = load_digits()
images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)  # (1797, 1, 8, 8)
labels = torch.tensor(digits.target)
train_x, test_x, train_y, test_y = train_test_split(
    images, labels, test_size=0.25, random_state=0, stratify=labels
)
photo = cat(224, 224)  # (3, 224, 224)
print(f"{len(train_x)} digits to train on, {len(test_x)} to test on")
shown = {str(label): images[labels == label][0, 0] for label in range(10)}
viz.pictures(shown, "One 8x8 image of each digit, 0 to 9.", height=0.9, cmap="gray")

# %% [markdown]
# ## 1. The whole model
#
# Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words" (arXiv 2010.11929), figure 1 and equations 1 to 4, in one drawing.
# Letters in this course: B images, C channels, N patches of P values each, D the width of the model.

# %%
diagrams.vit(ModelConfig.mae("B", learned_pos_embed=True))

# %% [markdown]
# 1. **Patches** (圖塊): the image is cut into squares, and each is written as one row of numbers.
# 2. **Projection** (線性投影): one linear layer turns every row into a *token* (詞元), a vector of width D.
# 3. **Class token** (分類詞元): an extra, learned token that will collect what is needed for the answer.
# 4. **Positions** (位置編碼): a vector is added to each token that tells where in the image it comes from.
# 5. **Blocks** (區塊): attention between the tokens, then a small network applied to each, many times over.
# 6. **Head** (分類頭): a linear layer reads the class token and outputs one number per class, the *logits* (未歸一化分數).
#
# Here is the whole of it for digits, with dummies in place of what you are going to write.

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(seed)
to_tokens = nn.Conv2d(1, width, kernel_size=2, stride=2)  # patches and projection: sections 2, 3
blocks = nn.Identity()  # dummy: sections 4, 5
dummy_head = nn.Linear(width, 10)

x = to_tokens(test_x[:5]).flatten(2).transpose(1, 2)  # (5, D, 4, 4) -> (5, 16, D)
print("tokens", tuple(x.shape))
x = blocks(x).mean(1)  # dummy: no positions (section 6), and no class token (section 7)
print("logits", tuple(dummy_head(x).shape))

# %% [markdown]
# The shapes are right, but this model only knows the average patch. Now to replace the dummies, one at a time.
#
# ## 2. Patches
#
# Cutting an image up is a change of shape, and so are half the steps of this course.
# We write them with *einops*: a pattern names the axes before and after the arrow, and parentheses join several axes into one.
# In `(a b)`, a varies slowly and b fast, like the tens and the units of a number.

# %%
# NBVAL_CHECK_OUTPUT
x = torch.arange(6)
print(rearrange(x, "(a b) -> a b", b=3).tolist(), "split: each row holds neighbours")
print(rearrange(x, "(a b) -> b a", b=3).tolist(), "split and swapped")
print(rearrange(x, "(a b) -> (b a)", b=3).tolist(), "split, swapped and joined again")

# %% [markdown]
# ### Exercise 1 · Cut images into patches
#
# **Difficulty** ●●○ · **about 10 minutes** · write a function
#
# In an image of 4x4 pixels, numbered 0 to 15, the first 2x2 patch must hold 0, 1, 4, 5.
# Patches are ordered row by row, and so are the pixels within a patch.
# The channel varies fastest, so that the three colours of a pixel stay together.
# Use `rearrange`, or `reshape` and `permute`, or loops.


# %%
def patchify(images: torch.Tensor, side: int) -> torch.Tensor:
    """Cut images into square patches.

    images: (B, C, H, W), H and W divisible by `side`
    returns (B, N, P) with N = (H / side)·(W / side) and P = side·side·C
    """
    ### BEGIN SOLUTION
    # (B, C, H, W) -> (B, N, P): the grid is the slow part of an axis, the pixel the fast one
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=side, q=side)
    ### END SOLUTION


patchify = check("01.patchify", patchify)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# H pixels are h patches of p pixels: split the axis into `(h p)`, the patch first. Do the same with W.
# </details>
#
# <details><summary>Hint 2</summary>
#
# You now have six axes: b, c, h, p, w, q. The patches are `(h w)`. Inside one, the order is `(p q c)`.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=side, q=side)
# ```
# </details>

# %%
# NBVAL_CHECK_OUTPUT
numbered = torch.arange(16.0).view(1, 1, 4, 4)  # (B, C, H, W)
print(numbered[0, 0].int(), patchify(numbered, 2)[0].int(), sep="\n")
cat_patches, digit_patches = patchify(photo[None], 16), patchify(train_x, 2)
print("the cat", tuple(cat_patches.shape), "the digits", tuple(digit_patches.shape))
one_frame = grid.TokenGrid(clip=(1, 224, 224), tubelet=(1, 16, 16))  # an image: a clip of one frame
assert torch.allclose(cat_patches, grid.patchify(photo[None, :, None], one_frame))

# %%
viz.pictures(
    {
        "14x14 patches": viz.tiles(cat_patches[0], columns=14, channels=3),
        "4x4 patches": viz.tiles(digit_patches[0], columns=4, channels=1),
    },
    "A cat cut into 14 by 14 square patches with gaps between, and a digit cut into 4 by 4.",
    height=2.4,
)

# %% [markdown]
# The cat becomes 196 patches of 768 values, a digit 16 patches of 4.
# That 16·16·3 = 768 is also the width of ViT-B is a coincidence: the projection can go to any width.
#
# ## 3. Projection
#
# One linear layer, the same for every patch, maps P values to D.
# Published code writes it as a convolution (卷積) whose stride equals its kernel, so that the kernel never straddles two patches. The two are the same sum of products:

# %%
torch.manual_seed(seed)
convolution = nn.Conv2d(3, 768, kernel_size=16, stride=16)
by_convolution = convolution(photo[None]).flatten(2).mT  # (1, 768, 14, 14) -> (1, 196, 768)
weight = rearrange(convolution.weight, "d c p q -> d (p q c)")  # in the order of `patchify`
by_linear = F.linear(cat_patches, weight, convolution.bias)
assert torch.allclose(by_convolution, by_linear, atol=1e-5)
print(f"largest difference {(by_convolution - by_linear).abs().max():.0e}")

# %% [markdown]
# Only rounding is left. So your model can *store* a `Conv2d`, under the official name `patch_embed.proj`, and published weights will load into it.
# And it can *compute* a linear layer on patches, so that patches which are not needed can be skipped. MAE will skip three quarters of them.


# %%
class PatchEmbed(nn.Module):
    """Patches of images (B, C, H, W), projected to tokens (B, N, D)."""

    def __init__(self, patch_size: int, channels: int, embed_dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(channels, embed_dim, patch_size, patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = rearrange(self.proj.weight, "d c p q -> d (p q c)")
        return F.linear(patchify(images, self.patch_size), weight, self.proj.bias)


# %% [markdown]
# ## 4. Attention
#
# *Attention* (注意力) is a soft lookup. In a Python dictionary, a query either equals a key or it does not.
# Here a *query* (查詢) matches each *key* (鍵) to some degree, and the result is a weighted mean of all the *values* (值).

# %%
# NBVAL_CHECK_OUTPUT
keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # three tokens, d = 2
values = torch.tensor([[10.0], [20.0], [30.0]])
query = torch.tensor([[4.0, 0.0]])
scores = query @ keys.T  # (1, 3)
weights = scores.softmax(-1)
print("scores ", scores.tolist())
print("weights", [[round(w, 2) for w in row] for row in weights.tolist()])
print("output ", round((weights @ values).item(), 1))

# %% [markdown]
# The *score* (分數) of a pair is the dot product of query and key. The *softmax* makes the scores of one query positive, with sum 1.
# This query fits the first and the third key equally well, so the output is close to the mean of 10 and 30.
# Put 60 in place of 20: the mean of all three rises to 33.3, the output only to 20.4.
#
# In *self-attention* (自注意力), every token has a query, a key and a value, all computed from the token itself by one linear layer.
# Follow the outlined row, the second of four tokens, through all the steps.

# %%
torch.manual_seed(2)
small = layers.Attention(4, num_heads=2, key_bias=True)
nn.init.normal_(small.qkv.weight)
tokens = torch.randn(4, 4)  # N = 4 tokens, D = 4
diagrams.attention(small, tokens, head=0, follow=1)

# %% [markdown]
# Why divide by √d? A dot product is a sum of d products, and the longer the sum, the larger it gets.

# %%
torch.manual_seed(seed)
for d in (4, 64, 768):
    q, k = torch.randn(2000, d), torch.randn(2000, d)
    scores = (q * k).sum(-1)
    largest = torch.stack((scores, scores / d**0.5)).view(2, -1, 10).softmax(-1).amax(-1).mean(1)
    print(
        f"d {d:3}: spread of the scores {scores.std():5.1f}; largest of ten weights "
        f"{largest[0]:.2f}, scaled {largest[1]:.2f}"
    )

# %% [markdown]
# The spread is about √d. Without the scale, a single weight takes nearly everything, and a softmax that is so certain passes on hardly any gradient.
# Divided by √d, the weights hardly depend on d (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1).
#
# ### Exercise 2 · Attention
#
# **Difficulty** ●●○ · **about 10 minutes** · write a function
#
# $$\mathrm{attention}(q, k, v) = \mathrm{softmax}(q\,k^\top / \sqrt{d})\; v$$
#
# The tensors have leading axes for images and for heads (several attentions side by side, explained below), which `@` and `transpose(-2, -1)` leave alone.
# N and M may differ. Return the weights too: you will look at them.
#
# The check lets the patches of the cat attend to each other in three heads, which compare colours, positions, or positions and brightness.
# Patches to which the framed one attends are bright.


# %%
def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention.

    q: (B, heads, N, d) queries
    k, v: (B, heads, M, d) keys and values
    returns the output (B, heads, N, d) and the weights (B, heads, N, M)
    """
    ### BEGIN SOLUTION
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B, heads, N, M)
    weights = scores.softmax(dim=-1)  # over the keys: each row sums to 1
    return weights @ v, weights
    ### END SOLUTION


attention = check("01.attention", attention)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Three lines: scores, weights, output. The scores have one row per query and one column per key.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `q @ k.transpose(-2, -1)`, divided by the square root of `q.shape[-1]`. Each row must sum to 1: which `dim` is that?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
# weights = scores.softmax(dim=-1)
# return weights @ v, weights
# ```
# </details>

# %%
with torch.no_grad():
    columns = small.qkv(tokens)  # (4, 12): 4 columns of queries, 4 of keys, 4 of values
    first_head = (columns[None, None, :, start : start + 2] for start in (0, 4, 8))  # (1, 1, 4, 2)
    output, weights = attention(*first_head)
    print("the second token's weights", [round(w, 2) for w in weights[0, 0, 1].tolist()])
    print("the second token's output ", [round(y, 2) for y in output[0, 0, 1].tolist()])
    assert torch.allclose(weights[0, 0], small.weights(tokens[None])[0, 0], atol=1e-5)

# %% [markdown]
# These are the outlined rows of the diagram, now computed by your function. It used columns 0 and 1 of each group of four: the first *head* (多頭), which has nothing to do with the head of step 6.
#
# One set of weights can ask one question. Several heads ask several at once: the D columns are split into heads of d = D / heads columns,
# each head attends independently, and the results are concatenated. A last linear layer, `proj`, mixes what the heads have found.
#
# ### Exercise 3 · The attention layer
#
# **Difficulty** ●●● · **about 15 minutes** · build a module
#
# A module with exactly these parameters, so that published weights load:
#
# - `qkv`: linear, D to 3D, with bias. Its columns are D of queries, D of keys, D of values; inside each D, head 0's d columns come first, then head 1's, and so on;
# - `proj`: linear, D to D, with bias.
#
# `forward` computes qkv, splits it, calls your `attention`, puts the heads back side by side in the same order, and applies `proj`.


# %%
class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, embed_dim: int, num_heads: int):
        """embed_dim: D, divisible by num_heads"""
        super().__init__()
        ### BEGIN SOLUTION
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, N, D); returns (B, N, D)"""
        ### BEGIN SOLUTION
        # (B, N, 3D) -> three of (B, heads, N, d)
        q, k, v = rearrange(
            self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, heads=self.num_heads
        )
        output, _ = attention(q, k, v)
        # (B, heads, N, d) -> (B, N, D)
        return self.proj(rearrange(output, "b heads n d -> b n (heads d)"))
        ### END SOLUTION


Attention = check("01.Attention", Attention)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `attention` works on the last two axes, so the heads must come before the tokens: (B, heads, N, d).
# </details>
#
# <details><summary>Hint 2</summary>
#
# The last axis of `self.qkv(x)` splits into `(three heads d)`. On the way out, the tokens move in front of the heads before heads and d are joined.
# </details>
#
# <details><summary>Solution</summary>
#
# In `__init__`:
#
# ```python
# self.num_heads = num_heads
# self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
# self.proj = nn.Linear(embed_dim, embed_dim)
# ```
#
# In `forward`:
#
# ```python
# q, k, v = rearrange(
#     self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, heads=self.num_heads
# )
# output, _ = attention(q, k, v)
# return self.proj(rearrange(output, "b heads n d -> b n (heads d)"))
# ```
# </details>

# %% [markdown]
# Does a key need a bias? It would add q·b to all the scores of one query, and a softmax ignores what all its inputs share.
# The cell first checks your layer against the package's, then changes the bias of the keys, and then that of the queries.

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(seed)
mine, packages = Attention(width, heads), layers.Attention(width, heads, key_bias=True)
mine.load_state_dict(packages.state_dict())
x = torch.randn(2, 17, width)
assert torch.allclose(mine(x), packages(x), atol=1e-5)
for name, columns in (("keys", slice(width, 2 * width)), ("queries", slice(0, width))):
    with torch.no_grad():
        mine.qkv.bias[columns] += torch.randn(width)
    changed = not torch.allclose(mine(x), packages(x), atol=1e-5)
    print(f"another bias of the {name} changes the output: {changed}")

# %% [markdown]
# ViT and MAE have a bias for keys all the same; VideoMAE drops it (`modeling_finetune.py`, class `Attention`).
#
# ## 5. The block
#
# A *block* (區塊) does two things in turn: attention lets tokens exchange information, then an *MLP* (多層感知器) processes each token independently.

# %%
diagrams.block(ModelConfig.mae("B"))


# %% [markdown]
# The MLP is two linear layers, four times as wide in the middle, with a *GELU* (高斯誤差線性單元) between them: x·Φ(x), where Φ(x) is the share of a standard normal distribution that lies below x (Hendrycks and Gimpel 2016, arXiv 1606.08415).


# %%
# NBVAL_CHECK_OUTPUT
class MLP(nn.Module):
    """Two linear layers with a GELU between: (B, N, D) -> (B, N, D)."""

    def __init__(self, embed_dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


x = torch.tensor([-3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0])
for name, y in (("x", x), ("ReLU", x.relu()), ("GELU", F.gelu(x))):
    print(f"{name:4}", "  ".join(f"{value:5.2f}" for value in y.tolist()))
mlp = MLP(width, 4 * width)
without_gelu = mlp.fc2.weight @ mlp.fc1.weight  # (D, 4D) @ (4D, D)
print("without it, the two layers are a single linear one, of shape", tuple(without_gelu.shape))

# %% [markdown]
# Like a ReLU, GELU passes large inputs and blocks very negative ones, but it bends smoothly. Without it, the wide middle would be pointless: a product of two matrices is a matrix.
#
# Two more ideas make blocks stackable. Each branch is *added* to its input, the *residual connection* (殘差連接; He et al. 2015, arXiv 1512.03385).
# And each branch first normalises what it reads, which is called *pre-norm* (前置正規化). *Layer normalisation* (層正規化) brings each token to mean 0 and variance 1, then applies a learned scale and shift.
#
# $$x' = x + \mathrm{attn}(\mathrm{norm}_1(x)) \qquad y = x' + \mathrm{mlp}(\mathrm{norm}_2(x'))$$
#
# These are equations 2 and 3 of the ViT paper. Nothing but additions lies on the path from input to output, the residual stream of the drawing.
#
# ### Exercise 4 · The block
#
# **Difficulty** ●○○ · **about 10 minutes** · build a module
#
# A module with these four parts, named as in the official code: `norm1` and `norm2`, each `nn.LayerNorm(embed_dim, eps=1e-6)`;
# `attn`, your `Attention`; `mlp`, an `MLP` that is 4·D wide inside.


# %%
class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        ### BEGIN SOLUTION
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, 4 * embed_dim)
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, N, D); returns (B, N, D)"""
        ### BEGIN SOLUTION
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
        ### END SOLUTION


Block = check("01.Block", Block)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `forward` is two lines, one per branch. The second reads what the first has made.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The norm belongs inside the branch. What you add to is x itself, not its normalised copy.
# </details>
#
# <details><summary>Solution</summary>
#
# In `__init__`:
#
# ```python
# self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
# self.attn = Attention(embed_dim, num_heads)
# self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
# self.mlp = MLP(embed_dim, 4 * embed_dim)
# ```
#
# In `forward`:
#
# ```python
# x = x + self.attn(self.norm1(x))
# return x + self.mlp(self.norm2(x))
# ```
# </details>

# %% [markdown]
# What do the residual connections buy? The cell sends 17 different tokens through twelve fresh blocks, with the additions and without.

# %%
torch.manual_seed(seed)
stack = [Block(width, heads) for _ in range(12)]
for residual in (True, False):
    x = start = torch.randn(1, 17, width, requires_grad=True)
    for block in stack:
        x = block(x) if residual else block.mlp(block.norm2(block.attn(block.norm1(x))))
    (gradient,) = torch.autograd.grad((x * torch.randn(x.shape)).sum(), start)
    unit = F.normalize(x[0], dim=1)  # (17, D)
    print(
        f"{'with' if residual else 'without'} additions: similarity of the least similar tokens "
        f"{(unit @ unit.T).min():.2f}, gradient at the input {gradient.norm():.1f}"
    )
mine, packages = Block(width, heads), layers.Block(width, heads, key_bias=True)
mine.load_state_dict(packages.state_dict())
assert torch.allclose(mine(x), packages(x), atol=1e-4)

# %% [markdown]
# Without the additions, all tokens end as one and the same vector, and little of the gradient returns: its norm at the output is about √(17·48) = 29. (For stacks of attention alone, Dong et al. 2021, arXiv 2103.03404, prove that tokens must become alike.)
# The Transformer of 2017 put its norms on the path itself, after each sum. Such a network needs a careful learning-rate warm-up; pre-norm trains without (Xiong et al. 2020, arXiv 2002.04745).
#
# ## 6. Positions
#
# Shuffle the patches of a digit, and run them through a block. Does anything but the order of the tokens change?

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(seed)
block, embed = Block(width, heads), PatchEmbed(2, 1, width)
order = torch.randperm(16)
shuffled = rearrange(
    patchify(test_x[:3], 2)[:, order], "b (h w) (p q) -> b 1 (h p) (w q)", h=4, p=2
)  # (3, 16, 4) -> (3, 1, 8, 8)
same = torch.allclose(block(embed(shuffled)), block(embed(test_x[:3]))[:, order], atol=1e-4)
print("the same tokens, in another order:", same)

# %%
pairs = {}
for i in range(3):
    pairs |= {f"digit {i + 1}": test_x[i, 0], f"shuffled {i + 1}": shuffled[i, 0]}
viz.pictures(
    pairs,
    "Three digits, each beside itself with its patches shuffled beyond recognition.",
    height=1.1,
    cmap="gray",
)

# %% [markdown]
# To a transformer, an image is a bag of patches. So, in step 4 of the list, a vector that depends on the position is added to each token, once, before the first block.
# ViT *learns* these vectors, one per position. VideoMAE *computes* them from sines and cosines (正弦餘弦位置編碼), as the Transformer did:
#
# $$\mathrm{table}[n, 2k] = \sin(n / 10000^{2k/D}) \qquad \mathrm{table}[n, 2k+1] = \cos(n / 10000^{2k/D})$$
#
# Here n is the position, and k = 0 … D/2 − 1 numbers the pairs of columns (Vaswani et al., section 3.5). Think of a clock with D/2 hands, each slower than the one before.
#
# ### Exercise 5 · Sine-cosine positions
#
# **Difficulty** ●●○ · **about 10 minutes** · write a function
#
# One row per position, counted from 0; sines in the even columns, cosines in the odd ones.


# %%
def sincos_1d(n: int, width: int) -> torch.Tensor:
    """A table of positions.

    n: number of positions
    width: D, even
    returns (n, D) float32
    """
    ### BEGIN SOLUTION
    pairs = torch.arange(width // 2, dtype=torch.float64)
    angles = torch.arange(n)[:, None] / 10000 ** (2 * pairs / width)  # (n, D / 2)
    table = torch.stack((angles.sin(), angles.cos()), dim=-1)  # (n, D / 2, 2)
    return table.flatten(1).float()  # (n, D / 2, 2) -> (n, D): sin, cos, sin, cos, ...
    ### END SOLUTION


sincos_1d = check("01.sincos_1d", sincos_1d)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First the angles, (n, D / 2): a column of positions divided by a row of wavelengths. Then the sine and the cosine of the same angle.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `table = torch.zeros(n, width)`, then fill `table[:, 0::2]` with the sines and `table[:, 1::2]` with the cosines.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# pairs = torch.arange(width // 2, dtype=torch.float64)
# angles = torch.arange(n)[:, None] / 10000 ** (2 * pairs / width)
# table = torch.stack((angles.sin(), angles.cos()), dim=-1)
# return table.flatten(1).float()
# ```
# </details>

# %%
table = sincos_1d(196, 768)
assert torch.allclose(table, positions.sincos_1d(196, 768), atol=1e-4)
similarity = F.normalize(table, dim=1) @ F.normalize(table, dim=1).T  # (196, 196), cosines
viz.pictures(
    {
        "all 196 positions, with all": similarity,
        "position 100, with the 14x14 others": similarity[100].view(14, 14),
    },
    "Two maps of cosine similarity of positions. In the first, a bright diagonal fades to both sides. "
    "In the second, the row of position 100 is bright near it, and the rows above and below are dimmer.",
    height=2.4,
)

# %% [markdown]
# Neighbours in the count are similar. The patches above and below are 14 positions away, and to this table they are no nearer than that.
# Lesson 02 uses MAE's table, which has rows and columns; lesson 04 returns to both.
#
# ## 7. The model
#
# ### Exercise 6 · The vision transformer
#
# **Difficulty** ●●● · **about 20 minutes** · build a module
#
# All parts exist. Put them together under the official names:
#
# - `patch_embed`: a `PatchEmbed`;
# - `cls_token`: a parameter of shape (1, 1, D), and `pos_embed`: one of shape (1, 1 + N, D). ViT starts them near zero; zeros will do;
# - `blocks`: `depth` different blocks in an `nn.ModuleList`;
# - `norm`: a layer norm like those of the block, after the last one;
# - `head`: linear, from D to the number of classes.
#
# `forward` puts the class token *before* the patches, adds all 1 + N positions, and applies the head to the class token alone.


# %%
class VisionTransformer(nn.Module):
    """A classic ViT for square images."""

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        channels: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        num_classes: int,
    ):
        """img_size: H = W in pixels, divisible by patch_size"""
        super().__init__()
        ### BEGIN SOLUTION
        tokens = (img_size // patch_size) ** 2  # N
        self.patch_embed = PatchEmbed(patch_size, channels, embed_dim)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + tokens, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)
        ### END SOLUTION

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images: (B, C, H, W); returns logits (B, num_classes)"""
        ### BEGIN SOLUTION
        x = self.patch_embed(images)  # (B, N, D)
        first = self.cls_token.expand(len(x), -1, -1)  # (1, 1, D) -> (B, 1, D)
        x = torch.cat((first, x), dim=1) + self.pos_embed  # (B, 1 + N, D)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])  # (B, 1 + N, D) -> (B, D) -> (B, num_classes)
        ### END SOLUTION


VisionTransformer = check("01.VisionTransformer", VisionTransformer)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# There is one class token, but B images: `self.cls_token.expand(len(x), -1, -1)` repeats it without a copy.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `torch.cat((first, x), dim=1)` joins along the tokens. Each block's output is the next one's input: `x = block(x)`.
# </details>
#
# <details><summary>Solution</summary>
#
# In `__init__`:
#
# ```python
# tokens = (img_size // patch_size) ** 2
# self.patch_embed = PatchEmbed(patch_size, channels, embed_dim)
# self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, embed_dim))
# self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + tokens, embed_dim))
# self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
# self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
# self.head = nn.Linear(embed_dim, num_classes)
# ```
#
# In `forward`:
#
# ```python
# x = self.patch_embed(images)
# first = self.cls_token.expand(len(x), -1, -1)
# x = torch.cat((first, x), dim=1) + self.pos_embed
# for block in self.blocks:
#     x = block(x)
# return self.head(self.norm(x)[:, 0])
# ```
# </details>

# %% [markdown]
# Is it a ViT? At the published size it must have the published number of parameters. On the `meta` device, tensors have shapes but no memory.
# And the package's encoder, the one in all later lessons, must give the same logits once your model has its weights.

# %%
# NBVAL_CHECK_OUTPUT
with torch.device("meta"):
    vit_b = VisionTransformer(224, 16, 3, 768, 12, 12, 1000)
print(f"ViT-B/16 with 1000 classes: {cost.parameters(vit_b):,} parameters")
assert cost.parameters(vit_b) == 86_567_656

torch.manual_seed(seed)
config = ModelConfig.mae("tiny", img_size=8, channels=1, tubelet=(1, 2, 2))
packages = vit.VisionTransformer(config, num_classes=10).eval()
with torch.no_grad():
    for parameter in packages.parameters():
        parameter += 0.1 * torch.randn_like(parameter)  # also the biases, which start at zero
state = packages.state_dict()
state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].squeeze(2)  # Conv3d to Conv2d
state["pos_embed"] = F.pad(packages.pos_embed, (0, 0, 1, 0))  # zeros for the class token
mine = VisionTransformer(8, 2, 1, config.embed_dim, config.depth, config.num_heads, 10)
mine.load_state_dict(state)
standard = vit.normalize_pixels(test_x[:5], channels=1)  # the package normalises inside
same = torch.allclose(mine(standard), packages(test_x[:5, :, None]), atol=3e-3)
print("the same logits as the package's:", same)
assert same

# %% [markdown]
# The first number is the one that torchvision documents for `vit_b_16`.
#
# The paper has *two* heads: in pre-training an MLP with one hidden layer (section 3.1; tanh in the published code), and for fine-tuning
# a linear layer in its place that starts at zero (section 3.2). Yours is the second kind.

# %%
# NBVAL_CHECK_OUTPUT
pre_training = nn.Sequential(nn.Linear(768, 768), nn.Tanh(), nn.Linear(768, 1000))
fine_tuning = nn.Linear(768, 1000)
for name, head in (("pre-training", pre_training), ("fine-tuning", fine_tuning)):
    print(f"head for {name}: {cost.parameters(head):,} parameters for 1000 classes")

# %% [markdown]
# ## 8. Training
#
# The loss is *cross-entropy* (交叉熵): minus the logarithm of the probability that the model gives to the right class.
#
# ### Prediction 1 · The first loss
#
# Your model has seen nothing yet, and there are ten classes. What is its loss, roughly? Write a number in place of None; nothing is judged.

# %%
### BEGIN SOLUTION
guess = 2.3
### INSTEAD
# guess = None
### END SOLUTION
first_loss = predict("the loss before the first step", guess)


# %%
def new_model(number: int = seed) -> nn.Module:
    """A ViT for digits, with random weights."""
    torch.manual_seed(number)
    return VisionTransformer(
        img_size=8, patch_size=2, channels=1,
        embed_dim=width, depth=depth, num_heads=heads, num_classes=10,
    )  # fmt: skip


model = new_model()
with torch.no_grad():
    first_loss.compare(F.cross_entropy(model(train_x), train_y).item())
    nn.init.zeros_(model.head.weight), nn.init.zeros_(model.head.bias)
    print(f"with a head of zeros: {F.cross_entropy(model(train_x), train_y):.4f}")
    print(f"ln 10:                {math.log(10):.4f}")

# %% [markdown]
# If every class gets probability 1/10, the loss is ln 10 = 2.303. A random head costs slightly more, because it prefers some classes for no reason.
# Remember the number: a loss that *stays* near ln 10 means that nothing is being learned.
#
# ### Exercise 7 · The training loop
#
# **Difficulty** ●●○ · **about 10 minutes** · build the loop
#
# One step per batch: logits, cross-entropy, gradients, a step of the optimiser, then one of the learning-rate schedule.
# Put the model in training mode first. Return one plain number per batch.


# %%
def train(
    model: nn.Module,
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> list[float]:
    """Train a classifier, one step per batch.

    batches: pairs of images (B, C, H, W) and labels (B,) int64
    returns the loss of each batch, as measured before its step
    """
    ### BEGIN SOLUTION
    model.train()
    losses = []
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses
    ### END SOLUTION


train = check("01.train", train)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# PyTorch *adds* new gradients to the old ones, which may look like faster learning at first. `optimizer.zero_grad()` clears them; `loss.backward()` computes them; `optimizer.step()` uses them.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `F.cross_entropy` takes logits, not probabilities, and integer labels. `loss.item()` is a number; `loss` is a tensor that keeps the whole graph of its step alive.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# model.train()
# losses = []
# for images, labels in batches:
#     loss = F.cross_entropy(model(images), labels)
#     optimizer.zero_grad()
#     loss.backward()
#     optimizer.step()
#     scheduler.step()
#     losses.append(loss.item())
# return losses
# ```
# </details>

# %% [markdown]
# Around it go the usual choices: shuffled batches of 64, the AdamW optimiser, a learning rate that warms up and then decays.


# %%
def fit(model: nn.Module, number: int = seed, passes: int = epochs) -> list[Record]:
    """Train on the digits; returns the mean loss of each pass."""
    torch.manual_seed(number)
    orders = [torch.randperm(len(train_x)).split(64)[:-1] for _ in range(passes)]
    batches = [(train_x[batch], train_y[batch]) for order in orders for batch in order]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=len(batches), pct_start=0.1
    )
    losses = torch.tensor(train(model, batches, optimizer, scheduler)).view(passes, -1)
    steps = losses.shape[1]
    return [Record((i + 1) * steps, x.mean().item(), 0, 0, 0) for i, x in enumerate(losses)]


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor = test_x) -> float:
    """Percentage of the test digits whose largest logit is the right one."""
    return 100 * (model.eval()(images).argmax(1) == test_y).double().mean().item()


# %% [markdown]
# ### Prediction 2 · No positions
#
# Three variants will be trained: learned positions, as in ViT; your fixed sine-cosine table; and none at all, the bag of patches.
# Chance is 10 %. What accuracy, in percent, will the bag of patches reach?

# %%
### BEGIN SOLUTION
guess = 50
### INSTEAD
# guess = None
### END SOLUTION
bag = predict("test accuracy without positions", guess)

# %%
tables = {"learned positions": None, "sine-cosine positions": sincos_1d(16, width)}
tables["no positions"] = torch.zeros(16, width)
models, curves, results = {}, {}, {}
for name, table in tables.items():
    models[name], results[name] = [], []
    for number in range(seed, seed + seeds):
        model = new_model(number)
        if table is not None:
            model.pos_embed.requires_grad_(False)  # fixed
            model.pos_embed[0, 0], model.pos_embed[0, 1:] = 0, table
        curves[name] = fit(model, number)
        models[name].append(model)
        results[name].append(accuracy(model))
    print(f"{name:22} test accuracy", "  ".join(f"{a:.1f} %" for a in results[name]))
bag.compare(sum(results["no positions"]) / seeds, unit="%")

# %%
viz.curves(
    curves,
    "Training loss over steps for the three variants: those with positions fall to a few hundredths, "
    "the bag of patches stays ten times higher.",
    "training loss",
)
viz.bars(
    results,
    "Test accuracy in percent: "
    + "; ".join(f"{k} {sum(v) / len(v):.1f}" for k, v in results.items())
    + "; chance 10.",
    chance=10,
)

# %% [markdown]
# Your model reads digits. The bag of patches gets surprisingly far by knowing which patches there are; knowing where they are is worth the rest.
# How the positions are made matters far less: two seeds of one variant differ about as much as learned and fixed positions do.
#
# Where does the class token look? A hook, which PyTorch calls after a module's forward pass, catches what the last block's attention reads, and your `attention` returns the weights.

# %%
model = models["learned positions"][0]
which = (0, 2, 4, 7, 8)
some = test_x[[(test_y == label).nonzero()[0, 0].item() for label in which]]
last, caught = model.blocks[-1], []
hook = last.norm1.register_forward_hook(lambda *call: caught.append(call[-1]))
with torch.no_grad():
    model(some)
    qkv = last.attn.qkv(caught[0])  # (5, 17, 3D)
hook.remove()
q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=heads)
_, weights = attention(q, k, v)  # (5, heads, 17, 17)
looks = weights.mean(1)[:, 0, 1:].view(5, 4, 4)  # the class token's row: (5, 16) -> (5, 4, 4)

# %%
pairs = {}
for label, digit, look in zip(which, some, looks, strict=True):
    pairs |= {f"a {label}": digit[0], f"look at {label}": look}
viz.pictures(
    pairs,
    "Five test digits, 0, 2, 4, 7 and 8, each beside a 4x4 map of the class token's attention, mean of "
    "the heads; bright patches get the largest weights.",
    height=1.0,
    cmap="gray",
)

# %% [markdown]
# Patches with part of a stroke get most of the weight.
#
# ## 9. A model that does not learn
#
# Somebody replaces your `Attention` by PyTorch's own `nn.MultiheadAttention`, to save code. The program runs, and all shapes are right. Then they plot the loss.


# %%
def with_attention(kind: type[nn.Module]) -> nn.Module:
    """A fresh ViT whose attention layers are of another kind."""
    model = new_model()
    for block in model.blocks:
        block.attn = kind(width, heads)
    return model


short = max(1, epochs // 2)
suspect = with_attention(Suspect)
trials = {"your Attention": fit(new_model(), passes=short), "theirs": fit(suspect, passes=short)}
viz.curves(
    trials,
    "Training loss over steps: with the learner's attention it falls, with the other it stays near 2.3.",
    "training loss",
)
with torch.no_grad():
    logits = suspect(test_x)  # (450, 10)
print(f"their last loss {trials['theirs'][-1].loss:.3f}, test accuracy {accuracy(suspect):.1f} %")
print(f"logits of two digits differ by at most {(logits - logits[:1]).abs().max():.0e}")

# %% [markdown]
# The loss sits at ln 10, and every digit gets the same logits: the class token never learns which image it belongs to.
#
# ### Exercise 8 · Find the bug
#
# **Difficulty** ●●○ · **about 10 minutes** · find the bug
#
# Here is the layer. Any fix will do, as long as it maps (B, N, D) to (B, N, D) and each token attends to all tokens of its own image, and to no others.
# The check draws what depends on what: a row for each output, a column for each input, yellow where changing the input changes the output.


# %%
class TorchAttention(nn.Module):
    """Self-attention by PyTorch's own layer: (B, N, D) -> (B, N, D)."""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        ### BEGIN SOLUTION
        self.attend = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
        ### INSTEAD
        # self.attend = nn.MultiheadAttention(embed_dim, num_heads)
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.attend(x, x, x)
        return output


TorchAttention = check("01.TorchAttention", TorchAttention)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Look at the check's figure: on which images does the output of one image depend? Then run `help(nn.MultiheadAttention)`, and look for the order of the axes that it expects.
# </details>
#
# <details><summary>Hint 2</summary>
#
# By default the layer expects (N, B, D). Given (B, N, D), it takes images for tokens and tokens for images. All class tokens of a batch start identical, and attend only to each other.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# self.attend = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
# ```
#
# Transposing the input, and the output back, is as good.
# </details>

# %%
fixed = with_attention(TorchAttention)
trials["theirs, fixed"] = fit(fixed, passes=short)
for name, records in trials.items():
    print(f"{name:15} last loss {records[-1].loss:.3f}")
print(f"theirs, fixed: test accuracy {accuracy(fixed):.1f} %")

# %% [markdown]
# It learns, as yours does, from other initial weights. No shape gave the bug away, since B and N are both just numbers.
# A test would have: change one image of a batch, and the outputs of the others must stay the same.
#
# ## 10. Inductive bias
#
# What a model assumes before it has seen any data is its *inductive bias* (歸納偏置).
# A convolutional network (CNN, 卷積神經網路) assumes *locality* (局部性): an output depends on nearby pixels only. How many of the 64 pixels does one output see? Gradients tell: a pixel counts if the output's gradient there is not zero.


# %%
# NBVAL_CHECK_OUTPUT
def pixels_seen(function, image: torch.Tensor) -> int:
    """The number of pixels of an image (1, 1, 8, 8) that the output of a function depends on."""
    image = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(image).square().sum(), image)
    return (gradient != 0).sum().item()


torch.manual_seed(seed)
noise, untrained = torch.rand(1, 1, 8, 8), new_model()
convolutions = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)])
for count in (1, 2, 3):
    seen = pixels_seen(lambda x, n=count: convolutions[:n](x)[..., 4, 4], noise)
    print(f"CNN, after layer {count}: {seen} of 64 pixels")
seen = pixels_seen(lambda x: untrained.blocks[0](untrained.patch_embed(x))[:, 5], noise)
print(f"ViT, after one block: {seen} of 64 pixels")
assert seen == 64

# %% [markdown]
# It also assumes *translation equivariance* (平移等變性): what it computes for a digit, it computes one pixel further for a digit moved by one pixel, because the same kernel runs everywhere.
# A ViT has to learn this from data. So train a CNN of the same size with your loop, and move the test digits.


# %%
def new_cnn(number: int) -> nn.Module:
    """Three convolutions, then the mean over the image, then a linear head."""
    torch.manual_seed(number)
    stages = []
    for inputs, outputs in ((1, 32), (32, 64), (64, 64)):
        stages += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.GELU()]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


models["CNN"] = [new_cnn(number) for number in range(seed, seed + seeds)]
for number, model in enumerate(models["CNN"], seed):
    fit(model, number)
moved = {f"moved by {d}": F.pad(test_x, (d, -d)) for d in (0, 1, 2)}  # right, zeros at the left
rows = []
for name in ("learned positions", "no positions", "CNN"):
    row = {"model": name, "parameters": f"{cost.parameters(models[name][0]):,}"}
    for move, digits_moved in moved.items():
        row[move] = sum(accuracy(model, digits_moved) for model in models[name]) / seeds
    rows.append(row)
viz.table(rows, caption="Test accuracy in percent; digits moved to the right by 0, 1 and 2 pixels.")

# %% [markdown]
# One pixel costs the ViT more than half of its accuracy, and the CNN, trained on the same digits, far less. What it loses, it loses at the border, where its kernels read zeros: trained and tested with a margin of four pixels, it loses nothing.
# At two pixels part of the digit has left the image, and both suffer. Yet the bag of patches recovers: two pixels are exactly one patch, so its patches are nearly the same, and it never knew where they were.
#
# The paper puts it this way (section 3.1): in a ViT, only the MLPs are local and translation-equivariant; attention is global, and neighbourhood must be learned from scratch.
# More data makes up for it. Trained on ImageNet alone, large ViTs fall behind ResNets, which are CNNs; with 303 million images they overtake them (section 4.3).
# Self-supervised pre-training, the subject of this course, is another answer to the same lack.
#
# ## Published and used here
#
# | published | where | cells | here | why smaller |
# |---|---|---|---|---|
# | patches of 16x16, N = HW/P² = 196 | ViT, section 3.1 | exercise 1 | the same on the cat; 2x2 and 16 on digits | 8x8 pixels |
# | class token, learned positions | ViT, equation 1 | exercise 6 | the same | |
# | pre-norm block | ViT, equations 2 and 3 | exercise 4 | the same | |
# | ViT-B: 12 blocks of 768, 12 heads, 86 M | ViT, table 1 | section 7 | counted; trained: 2 blocks of 48, 4 heads | minutes on 2 cores |
# | MLP head in pre-training, linear head of zeros in fine-tuning | ViT, sections 3.1 and 3.2 | section 7 | linear head, random start | one stage of training |
# | scaled dot-product attention, heads | Transformer, section 3.2 | exercises 2 and 3 | the same | |
# | sine-cosine positions | Transformer, section 3.5 | exercise 5 | the same | |
# | trained on 1.3 to 303 million images | ViT, section 4.1 | section 8 | 1347 digits, 20 epochs | minutes on 2 cores |
#
# ## Open questions
#
# 1. Halve the patch size of ViT-B/16 to 8x8 pixels, at the same 224x224. What changes in the number of tokens, in the parameters, in the cost of attention and of the MLPs?
#
# <details><summary>What a good answer contains</summary>
#
# Four times as many tokens: 784 instead of 196. The projection gets four times *fewer* weights (8·8·3 = 192 inputs), the position table four times more rows, and the blocks none: they do not know N.
# The MLPs and the linear layers cost four times as much, the matrices of scores and weights sixteen times, in computation and, unless a fused kernel avoids storing them, in memory.
# So attention's share grows with N². Extra marks for `cost`, which counts all this.
# </details>

# %% [markdown]
# 2. The class token is one design; the mean of all patch tokens is another. What speaks for each, and how would you find out on digits which is better?
#
# <details><summary>What a good answer contains</summary>
#
# The class token can choose, through its attention weights, what to collect; the mean treats all patches alike, but gives each of them a direct gradient, and needs no extra token.
# A fair test changes nothing else: the same seeds, several of them, and a learning rate tuned for each, since the ViT paper found that an apparent failure of the mean was a matter of the learning rate (appendix D.3).
# With two seeds per variant, a gap smaller than the spread between seeds decides nothing. VideoMAE takes the mean, as lesson 07 will show.
# </details>

# %% [markdown]
# ## What you can do now
#
# - Cut an image into tokens, and say what each column holds.
# - Write attention, heads, a block and a whole ViT, with names that published weights fit.
# - Write a training loop, and recognise a loss that means nothing was learned.
# - Say what a ViT loses without positions, and what a CNN knows that a ViT must learn.
#
# Lesson 02 takes `Attention` and `Block` as they are, leaves out most of the tokens, and lets a second stack of blocks reconstruct what was hidden.
#
# ## Terms of this lesson
#
# | term | 中文 | meaning |
# |---|---|---|
# | vision transformer | 視覺轉換器 | a transformer whose tokens are image patches |
# | patch | 圖塊 | a square of pixels |
# | token | 詞元 | one vector of the sequence |
# | projection | 線性投影 | from P pixel values to width D |
# | convolution, CNN | 卷積、卷積神經網路 | the same small kernel at every position; a network of such layers |
# | attention | 注意力 | a weighted mean of values, by how well keys fit a query |
# | query, key, value | 查詢、鍵、值 | what attention compares and averages |
# | score | 分數 | dot product of a query and a key |
# | self-attention | 自注意力 | queries, keys and values from the same tokens |
# | head (of attention) | 多頭 | one of several attentions side by side |
# | block | 區塊 | attention and MLP, each with norm and residual connection |
# | MLP, GELU | 多層感知器、高斯誤差線性單元 | two linear layers, and the smooth gate between them |
# | residual connection | 殘差連接 | a branch is added to its input |
# | layer normalisation, pre-norm | 層正規化、前置正規化 | each token to mean 0, variance 1; at the start of each branch |
# | position embedding | 位置編碼 | a vector for each position, learned or computed |
# | class token | 分類詞元 | an extra token that collects the answer |
# | head (of a classifier), logits | 分類頭、未歸一化分數 | the last layer, and its outputs before the softmax |
# | cross-entropy | 交叉熵 | minus the log-probability of the right class |
# | inductive bias | 歸納偏置 | what a model assumes before it sees data |
# | locality, translation equivariance | 局部性、平移等變性 | outputs depend on nearby pixels; they move with the image |

# %% tags=["timing"]
minutes = (time.perf_counter() - started) / 60
memory = peak_memory(torch.device("cpu")) / 1e9
print(f"this run: {minutes:.1f} minutes, at most {memory:.1f} GB of memory")
