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
# A *vision transformer* (ViT, 視覺轉換器) cuts an image into patches, and lets each look at all the others.
# Here you build one, part by part, train it on handwritten digits, and find that it is the encoder of MAE and VideoMAE.
# The last part sets it beside the classic encoder-decoder Transformer of 2017.
#
# The executed solution took less than a minute on 2 CPU cores and less than 1 GB of memory; the last cell measures your run.
# There are five exercises, about an hour in all.

# %% tags=["parameters"]
seed = 0
seeds = 2  # each model of the comparison is trained so many times
epochs = 20  # passes over the training digits
width = 48  # D
depth = 2  # blocks
heads = 4

# %% [markdown]
# ## Set-up
#
# Paths are relative to the checkout, wherever Jupyter was started.
# One thread is enough: the tensors are so small that two would wait for each other.

# %%
import os
import time

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import vmae
from vmae import cost, grid, layers, masking, positions, viz
from vmae.config import MaskConfig, ModelConfig
from vmae.course.checks import check
from vmae.course.checks.notebook_01 import cat

os.chdir(vmae.ROOT)
torch.set_num_threads(1)
started = time.perf_counter()

# %% [markdown]
# ## The way of an image
#
# 1. **Patches** (圖塊): cut the image into squares, and write each as one row of numbers.
# 2. **Projection** (線性投影): one linear layer turns each row into a *token* (詞元) of width D.
# 3. **Class token** (分類詞元): one more token, learned, that will collect the answer.
# 4. **Positions** (位置編碼): add to each token a vector that says where it lies.
# 5. **Blocks** (區塊): attention between the tokens, then a small network for each token; many times.
# 6. **Head** (分類頭): one linear layer on the class token.
#
# This is Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words" (arXiv 2010.11929), section 3.1 and equations 1 to 4.
# Letters: B images, C channels, N patches of P values, D width.
#
# It is trained on the digits that come with scikit-learn: 8x8 grey pixels, ten classes. The cat stands for the published sizes.

# %%
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

digits = load_digits()
images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)  # (1797, 1, 8, 8)
labels = torch.tensor(digits.target)
train_x, test_x, train_y, test_y = train_test_split(
    images, labels, test_size=0.25, random_state=0, stratify=labels
)
print(
    f"{len(train_x)} digits to train on, {len(test_x)} to test on, each {tuple(images.shape[1:])}"
)
photo = cat(224, 224)  # (3, 224, 224)
shown = {str(label): images[labels == label][0, 0] for label in range(10)}
viz.pictures(shown, "One 8x8 image of each digit, 0 to 9.", height=0.9, cmap="gray")
viz.pictures({"the cat, 224x224": photo}, "A photo of a cat, squeezed into a square.")

# %% [markdown]
# ## 1. Patches
#
# A small example first: a picture of 4x4 pixels, numbered 0 to 15, and patches of 2x2.
# The first patch must hold 0, 1, 4, 5: two neighbours of the first row, and the two below them.
#
# ### Exercise 1 · cut images into patches
#
# **Difficulty** ●●○ · **about 10 minutes**
#
# Cut images into squares. The patches run row by row, and so do the pixels inside a patch.
# The channel is the last thing to run, so that the three colours of a pixel stay together.
# Use `einops.rearrange`, or `reshape` and `permute`, or loops.


# %%
def patchify(images: torch.Tensor, side: int) -> torch.Tensor:
    """Cut images into patches.

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
# You now have six axes: b, c, h, p, w, q. The tokens are `(h w)`. What lies inside one is `(p q c)`.
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
cat_patches = patchify(photo[None], 16)
digit_patches = patchify(train_x, 2)
print("the cat:   ", tuple(cat_patches.shape))
print("the digits:", tuple(digit_patches.shape))
assert cat_patches.shape == (1, 196, 16 * 16 * 3) and digit_patches.shape[1:] == (16, 4)
one_frame = grid.TokenGrid(
    clip=(1, 224, 224), tubelet=(1, 16, 16)
)  # an image is a clip of one frame
assert torch.equal(cat_patches, grid.patchify(photo[None, :, None], one_frame))

# %% [markdown]
# The cat gives 196 patches of 768 values, a digit 16 patches of 4. The package's `grid.patchify` gives the same.
# That 16·16·3 = 768 is also the width of ViT-B is a coincidence: the projection could go to any width.

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
# ## 2. Projection
#
# One linear layer, the same for all patches, turns P values into D.
# Published code writes it as a convolution whose stride is its kernel. Both are the same sum of products.

# %%
torch.manual_seed(seed)
convolution = nn.Conv2d(3, 768, kernel_size=16, stride=16)
by_convolution = (
    convolution(photo[None]).flatten(2).transpose(1, 2)
)  # (1, 768, 14, 14) -> (1, 196, 768)
weight = rearrange(convolution.weight, "d c p q -> d (p q c)")  # in the order of `patchify`
by_linear = F.linear(cat_patches, weight, convolution.bias)
assert torch.allclose(by_convolution, by_linear, atol=1e-5)
print(f"largest difference {(by_convolution - by_linear).abs().max():.0e}")

# %% [markdown]
# What is left is rounding. So no patch sees the pixels of another, and masked patches need not be computed at all.
# MAE lives on that, in lesson 02.
#
# ## 3. The whole model, with dummies
#
# The whole comes first. Two parts are still dummies: the positions are zeros, and there are no blocks.
# You put them in one after the other.


# %%
# NBVAL_CHECK_OUTPUT
class ViT(nn.Module):
    """A classic ViT: square images (B, C, size, size) -> logits (B, classes)."""

    def __init__(self, size, side, channels, width, classes, blocks=(), positions=None):
        super().__init__()
        tokens = (size // side) ** 2  # N
        self.side = side
        self.patch_embed = nn.Linear(side * side * channels, width)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = torch.zeros(1, 1 + tokens, width) if positions is None else positions
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(patchify(images, self.side))  # (B, N, P) -> (B, N, D)
        first = self.cls_token.expand(len(x), -1, -1)  # (1, 1, D) -> (B, 1, D)
        x = torch.cat((first, x), dim=1) + self.positions  # (B, 1 + N, D)
        return self.norm(self.blocks(x))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.forward_features(images)
        return self.head(x[:, 0])  # the class token alone: (B, 1 + N, D) -> (B, D)


torch.manual_seed(seed)
dummy = ViT(size=8, side=2, channels=1, width=width, classes=10)
logits = dummy(test_x[:5])
print("tokens", tuple(dummy.forward_features(test_x[:5]).shape), "logits", tuple(logits.shape))
print("the same answer for every image:", torch.equal(logits, logits[:1].expand(5, -1)))

# %% [markdown]
# The class token has not looked at anything. Something must carry news from token to token.
# That is attention, and nothing else in a ViT does it.
#
# ## 4. Attention
#
# *Attention* (注意力) is a lookup with soft answers. Each token sends out a *query* (查詢), and offers a *key* (鍵) and a *value* (值).
# The dot product of a query and a key is a *score*: how well they fit.
# A softmax turns one query's scores into weights that sum to 1. The output is the weighted mean of the values.

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
# The query fits the first and the third key equally well. The output is close to the mean of 10 and 30.
#
# Why are the scores scaled? A dot product is a sum of d products. The longer the sum, the larger it gets.

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
# The spread is about √d. Without the scale, one weight takes nearly everything, and the softmax passes hardly any gradient.
# Divided by √d, the weights hardly depend on d (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1).
#
# ### Exercise 2 · attention
#
# **Difficulty** ●●○ · **about 10 minutes**
#
# $$\mathrm{attention}(q, k, v) = \mathrm{softmax}(q\,k^\top / \sqrt{d})\; v$$
#
# The tensors have leading axes for images and heads; `@` and `transpose(-2, -1)` leave them alone.
# N and M may differ. Return the weights too: you will look at them.


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
# Three lines: scores, weights, output. The scores have a row for each query and a column for each key.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `q @ k.transpose(-2, -1)`, divided by the root of `q.shape[-1]`. Each row must sum to 1: which `dim` is that?
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
#
# ## 5. Heads
#
# One set of weights can ask one question. *Heads* (多頭) ask several at once: the width D is split into `heads` parts of d = D / heads,
# each part does attention alone, and the results lie side by side again.
# One linear layer makes queries, keys and values together: (B, N, D) -> (B, N, 3D).
#
# ### Exercise 3 · several heads
#
# **Difficulty** ●●● · **about 15 minutes**
#
# The columns of `qkv` are: D of queries, then D of keys, then D of values. Inside each D: head 0's d columns, then head 1's, and so on.
# Split, call `attention`, and put the heads back in the same order.


# %%
def multi_head(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention in each head.

    qkv: (B, N, 3D) queries, keys and values of all heads
    returns (B, N, D), the outputs of the heads side by side
    """
    ### BEGIN SOLUTION
    # (B, N, 3D) -> three of (B, heads, N, d)
    q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=heads)
    output, _ = attention(q, k, v)
    return rearrange(output, "b heads n d -> b n (heads d)")  # (B, heads, N, d) -> (B, N, D)
    ### END SOLUTION


multi_head = check("01.multi_head", multi_head)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `attention` works on the last two axes. So the heads must come before the tokens: (B, heads, N, d).
# </details>
#
# <details><summary>Hint 2</summary>
#
# The last axis of `qkv` splits into `(three heads d)`. On the way back, the tokens move in front of the heads before these are merged.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=heads)
# output, _ = attention(q, k, v)
# return rearrange(output, "b heads n d -> b n (heads d)")
# ```
# </details>
#
# Around it go two linear layers. *Self*-attention (自注意力) means that queries, keys and values all come from the same tokens.
# The package has this layer with the same names; it runs PyTorch's fused kernel, which never writes the weights down.


# %%
class Attention(nn.Module):
    """Multi-head self-attention over all tokens: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)  # lets the heads' results meet

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(multi_head(self.qkv(x), self.heads))


torch.manual_seed(seed)
theirs, ours = layers.Attention(width, heads, key_bias=True), Attention(width, heads)
ours.load_state_dict(theirs.state_dict())
x = torch.randn(2, 17, width)
assert torch.allclose(ours(x), theirs(x), atol=1e-6)
print(f"largest difference {(ours(x) - theirs(x)).abs().max():.0e}")

# %% [markdown]
# Does a key need a bias? It adds q·b to all scores of one query, and a softmax does not care for what all its inputs share.
# VideoMAE leaves it out (`modeling_finetune.py`, class `Attention`). The cell changes the bias of the keys, and then that of the queries.

# %%
# NBVAL_CHECK_OUTPUT
before = theirs(x)
for name, columns in (("keys", slice(width, 2 * width)), ("queries", slice(0, width))):
    with torch.no_grad():
        theirs.qkv.bias[columns] += torch.randn(width)
    changed = not torch.allclose(before, theirs(x), atol=1e-5)
    print(f"another bias of the {name} changes the output: {changed}")

# %% [markdown]
# ## 6. The block
#
# A *block* (區塊) has two branches: attention, where tokens exchange news, and an *MLP* (多層感知器), where each token thinks alone.
# Each branch is added to its input; that is the *residual connection* (殘差連接).
# Each branch first normalises what it reads; that is *pre-norm* (前置正規化), with *layer normalisation* (層正規化): each token gets mean 0 and variance 1.
#
# $$x' = x + \mathrm{attention}(\mathrm{norm}_1(x)) \qquad y = x' + \mathrm{mlp}(\mathrm{norm}_2(x'))$$
#
# These are equations 2 and 3 of the ViT paper. Between input and output there is a path that nothing touches but additions.
#
# ### Exercise 4 · the block
#
# **Difficulty** ●○○ · **about 5 minutes**

# %%
from collections.abc import Callable

Branch = Callable[[torch.Tensor], torch.Tensor]


def pre_norm(
    x: torch.Tensor, norm1: Branch, attend: Branch, norm2: Branch, mlp: Branch
) -> torch.Tensor:
    """One pre-norm block.

    x: (B, N, D) tokens; norm1, attend, norm2 and mlp take and return (B, N, D)
    returns (B, N, D)
    """
    ### BEGIN SOLUTION
    x = x + attend(norm1(x))
    return x + mlp(norm2(x))
    ### END SOLUTION


pre_norm = check("01.pre_norm", pre_norm)

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two lines, one a branch. The second reads what the first has made.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The norm stands inside the branch. What is added to is x itself, not its normalised copy.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# x = x + attend(norm1(x))
# return x + mlp(norm2(x))
# ```
# </details>


# %%
class Block(nn.Module):
    """Attention, then an MLP that is four times as wide inside: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), layers.MLP(width, 4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pre_norm(x, self.norm1, self.attn, self.norm2, self.mlp)


theirs, ours = layers.Block(width, heads, key_bias=True), Block(width, heads)
ours.load_state_dict(theirs.state_dict())
assert torch.allclose(ours(x), theirs(x), atol=1e-5)

# %% [markdown]
# The Transformer of 2017 had the norm after the sum, on the path itself. Such a network needs a careful warm-up;
# with pre-norm it trains without (Xiong et al. 2020, arXiv 2002.04745).
#
# ## 7. Positions
#
# Shuffle the patches of a digit. What does a model without positions say?

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(seed)
blind = ViT(8, 2, 1, width, 10, [Block(width, heads) for _ in range(depth)])
order = torch.randperm(16)
tokens = patchify(test_x[:3], 2)[:, order]  # (3, 16, 4), shuffled
shuffled = rearrange(tokens, "b (h w) (p q) -> b 1 (h p) (w q)", h=4, p=2)
same = torch.allclose(blind(test_x[:3]), blind(shuffled), atol=1e-5)
print("the same logits for shuffled patches:", same)

# %%
pairs = {}
for i in range(3):
    pairs |= {f"digit {i}": test_x[i, 0], f"shuffled {i}": shuffled[i, 0]}
viz.pictures(
    pairs,
    "Three digits, each beside itself with its patches shuffled beyond recognition.",
    height=1.1,
    cmap="gray",
)

# %% [markdown]
# To attention, an image is a bag of patches. So each token is given a vector of its place, added once, before the first block.
# The classic ViT *learns* these vectors. VideoMAE computes them, with sines and cosines (正弦餘弦位置編碼) as in 2017:
#
# $$\mathrm{table}[n, 2k] = \sin(n / 10000^{2k/D}) \qquad \mathrm{table}[n, 2k+1] = \cos(n / 10000^{2k/D})$$
#
# Here n counts the positions, and k = 0 … D/2 − 1 counts pairs of columns (Vaswani et al., section 3.5).
#
# ### Exercise 5 · sine-cosine positions
#
# **Difficulty** ●●○ · **about 10 minutes**


# %%
def sincos_1d(n: int, width: int) -> torch.Tensor:
    """A table of positions, sines at even columns and cosines at odd.

    n: positions, counted from 0; width: D, even
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
# First the angles, (n, D / 2): a column of positions, divided by a row of rates. Then sines and cosines of the same angles.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `table = torch.zeros(n, width)`, then `table[:, 0::2]` for the sines and `table[:, 1::2]` for the cosines.
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
assert torch.allclose(table, positions.sincos_1d(196, 768), atol=1e-5)
likeness = F.normalize(table, dim=1) @ F.normalize(table, dim=1).T  # (196, 196), cosines
viz.pictures(
    {
        "all 196 by all 196": likeness,
        "position 100, on a 14x14 grid": likeness[100].view(14, 14),
    },
    "Two maps of cosine similarity of positions. In the first, a bright diagonal fades to both sides. "
    "In the second, the row of position 100 is bright near it, and the rows above and below are dimmer.",
    height=2.4,
)

# %% [markdown]
# Neighbours in the count are alike. Neighbours above and below are 14 places away, and look no nearer than that.
# That is VideoMAE's table: one count over all tokens (`get_sinusoid_encoding_table`). MAE has a table with rows and columns; lesson 04 shows both.
#
# ## 8. The whole model, without dummies
#
# Is it the package's encoder? Its family "mae" has a class token and fixed positions. The cell takes over random weights, and compares logits.

# %%
# NBVAL_CHECK_OUTPUT
from vmae.vit import VisionTransformer, normalize_pixels


def classic(seed: int) -> ViT:
    """Learned positions, class token."""
    torch.manual_seed(seed)
    learned = nn.Parameter(0.02 * torch.randn(1, 1 + 16, width))
    return ViT(8, 2, 1, width, 10, [Block(width, heads) for _ in range(depth)], learned)


model = classic(seed)
moved = torch.equal(model(test_x[:3]), model(shuffled))
print(
    "tokens",
    tuple(model.forward_features(test_x[:5]).shape),
    "logits",
    tuple(model(test_x[:5]).shape),
)
print("the same logits for shuffled patches:", moved)

torch.manual_seed(seed)
config = ModelConfig.mae("tiny", img_size=8, channels=1, tubelet=(1, 2, 2))
theirs = VisionTransformer(config, num_classes=10).eval()
with torch.no_grad():
    for parameter in theirs.parameters():
        parameter += 0.1 * torch.randn_like(parameter)  # also the biases, which start at zero
state = theirs.state_dict()
weight = state.pop("patch_embed.proj.weight")  # (D, C, 1, 2, 2), of a convolution
state["patch_embed.weight"] = weight.permute(0, 2, 3, 4, 1).flatten(1)  # (D, P)
state["patch_embed.bias"] = state.pop("patch_embed.proj.bias")
places = F.pad(theirs.pos_embed, (0, 0, 1, 0))  # (1, 16, D) -> (1, 17, D): zero for the class token
blocks = [Block(config.embed_dim, config.num_heads) for _ in range(config.depth)]
ours = ViT(8, 2, 1, config.embed_dim, 10, blocks, places)
ours.load_state_dict(state)
standard = normalize_pixels(test_x[:5], channels=1)  # the package normalises inside
same = torch.allclose(ours(standard), theirs(test_x[:5, :, None]), atol=1e-4)
print("the same logits as the package's:", same)
assert same

# %% [markdown]
# What you wrote is what the rest of the course uses.
#
# ## 9. Training
#
# Cross-entropy, AdamW, a learning rate that rises and falls. Nothing here is special to ViT.

# %%
from vmae.train import Record, peak_memory


def train(model: ViT, seed: int) -> list[Record]:
    """Train on the digits; returns the mean loss of each epoch."""
    torch.manual_seed(seed)
    steps = epochs * (len(train_x) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    records, start = [], time.perf_counter()
    for epoch in range(epochs):
        batches = torch.randperm(len(train_x)).split(64)[: steps // epochs]  # 64 images each
        losses = []
        for batch in batches:
            loss = F.cross_entropy(model(train_x[batch]), train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            losses.append(loss.item())
        gone, seen = time.perf_counter() - start, (epoch + 1) * len(batches)
        lr = rate.get_last_lr()[0]
        records.append(Record(seen, sum(losses) / len(losses), lr, 64 * seen / gone, gone))
    return records


@torch.no_grad()
def accuracy(model: ViT) -> float:
    """Percent of the test digits."""
    return 100 * (model(test_x).argmax(1) == test_y).double().mean().item()


# %% [markdown]
# Three models, alike but for one part:
#
# - **classic**: class token, learned positions;
# - **VideoMAE's way**: no class token; sin-cos positions; the mean of the tokens, then the norm, then the head;
# - **no positions**: the bag of patches.


# %%
class MeanViT(ViT):
    """Pooling as VideoMAE's classifier does it: norm(mean of the tokens)."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.cls_token = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(patchify(images, self.side)) + self.positions  # (B, N, D)
        return self.head(self.norm(self.blocks(x).mean(1)))  # (B, N, D) -> (B, D) -> (B, classes)


def videomae_way(seed: int) -> ViT:
    torch.manual_seed(seed)
    blocks = [Block(width, heads) for _ in range(depth)]
    return MeanViT(8, 2, 1, width, 10, blocks, sincos_1d(16, width)[None])


def no_positions(seed: int) -> ViT:
    torch.manual_seed(seed)
    return ViT(8, 2, 1, width, 10, [Block(width, heads) for _ in range(depth)])


# %%
kinds = {"classic ViT": classic, "VideoMAE's way": videomae_way, "no positions": no_positions}
curves, results, trained = {}, {}, {}
for name, build in kinds.items():
    for number in range(seeds):
        trained[name] = model = build(seed + number)
        curves[name] = train(model, seed + number)
        results.setdefault(name, []).append(accuracy(model))
    seconds = curves[name][-1].seconds
    print(
        f"{name:15} {seconds:5.1f} s a run, test accuracy",
        "  ".join(f"{a:.1f} %" for a in results[name]),
    )
viz.curves(
    curves,
    "Training loss over steps: one line for each of the three models.",
)
viz.bars(
    results,
    "Test accuracy in percent: "
    + "; ".join(f"{k} {sum(v) / len(v):.1f}" for k, v in results.items())
    + "; chance 10.",
    chance=10,
)

# %% [markdown]
# Two ViTs read the digits. The bag of patches does better than chance, and far worse than they do: position is most of what a digit is.
# Two seeds of one model differ as well, so do not read much into the small gap between the first two.
#
# Where does the class token look? Its row of attention weights in the last block, the mean of the heads, one square a patch.

# %%
model = trained["classic ViT"]
which = (0, 2, 4, 7, 8)
some = test_x[[(test_y == label).nonzero()[0, 0].item() for label in which]]
with torch.no_grad():
    x = model.patch_embed(patchify(some, 2))  # (5, 16, D)
    x = torch.cat((model.cls_token.expand(5, -1, -1), x), 1) + model.positions  # (5, 17, D)
    x = model.blocks[:-1](x)
    last = model.blocks[-1]
    qkv = last.attn.qkv(last.norm1(x))
    q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=heads)
    _, weights = attention(q, k, v)  # (5, heads, 17, 17)
looks = weights.mean(1)[:, 0, 1:].view(5, 4, 4)  # (5, 16) -> (5, 4, 4): the class token's row
digit_row = {f"a {label}": digit[0] for label, digit in zip(which, some, strict=True)}
look_row = {f"look at {label}": look for label, look in zip(which, looks, strict=True)}
viz.pictures(digit_row, "Five test digits: 0, 2, 4, 7, 8.", height=1.1, cmap="gray")
viz.pictures(
    look_row, "For each of these digits a 4x4 map of the class token's attention.", height=1.1
)

# %% [markdown]
# ## 10. The classic ViT beside VideoMAE's
#
# The same parts at the published size. `meta` tensors have shapes and no memory, so 86 million parameters cost nothing.

# %%
# NBVAL_CHECK_OUTPUT
with torch.device("meta"):
    learned = nn.Parameter(torch.empty(1, 1 + 196, 768))
    vit_b = ViT(224, 16, 3, 768, 1000, [Block(768, 12) for _ in range(12)], learned)
    vit_b_tokens = vit_b.forward_features(torch.empty(1, 3, 224, 224))  # (1, 197, 768)
    videomae_b = VisionTransformer(ModelConfig.videomae("B"), num_classes=400).to("meta")
    videomae_tokens = videomae_b.forward_features(torch.empty(1, 3, 16, 224, 224))  # (1, 1568, 768)
for name, model, tokens in (
    ("ViT-B/16, 1000 classes", vit_b, vit_b_tokens),
    ("VideoMAE-B, 400 classes", videomae_b, videomae_tokens),
):
    print(f"{name:23} tokens {tuple(tokens.shape[1:])}, {cost.parameters(model):,} parameters")
assert vit_b_tokens.shape == (1, 197, 768) and cost.parameters(vit_b) == 86_567_656
assert videomae_tokens.shape == (1, 1568, 768) and cost.parameters(videomae_b) == 86_534_800

# %% [markdown]
# The first number is the one that torchvision documents for `vit_b_16`; the second is in the log of issue 38 of OpenGVLab/VideoMAEv2.
# Nearly the same network, fed with eight times the tokens. What differs:
#
# | | classic ViT-B/16 | VideoMAE's ViT-B |
# |---|---|---|
# | input | one image, 3x224x224 | 16 frames, 3x16x224x224 |
# | a token is | a patch (圖塊) of 16x16, 768 values | a *tubelet* (時空立方體) of 2x16x16, 1536 values |
# | tokens | 196 + class token = 197 | 8·14·14 = 1568 |
# | tokens in pre-training | (supervised: all of them) | the visible ones only: 160 of 1568 |
# | class token | yes | none |
# | positions | learned, 197 x 768 | fixed sin-cos over the flat index, 1568 x 768; in no checkpoint |
# | biases of attention | queries, keys, values | queries and values; the key's is a constant zero |
# | blocks | 12, pre-norm, 12 heads, MLP 4x | the same |
# | classification | norm, then class token, then head | mean of the tokens, then `fc_norm`, then head |
# | trained by | labels | pixels of hidden tubelets, then labels |
#
# Sources: ViT, section 3.1 and table 1; VideoMAE, `modeling_finetune.py` and `modeling_pretrain.py`.
# One more difference: popular accounts say that VideoMAE's positions have parts for space and for time. The published code has one flat count.
#
# ## 11. The classic Transformer beside both
#
# The Transformer of 2017 translates. Its *encoder* (編碼器) reads a whole sentence. Its *decoder* (解碼器) writes another, word by word.
# Each decoder layer has three parts:
#
# - *masked self-attention* (遮罩自注意力): a word sees itself and the words before it, never those after. That is the *causal mask* (因果遮罩);
# - *cross-attention* (交叉注意力): queries from the decoder, keys and values from the encoder's output;
# - an MLP.
#
# MAE and VideoMAE say encoder and decoder too, and mean something else. The cell does not draw what should be so. It measures it:
# output i sees input j if the gradient of i with respect to j is not zero.
#
# First the Transformer, tiny, with PyTorch's own layers: six words in, five words out. Its inputs are eleven embedded words.


# %%
# NBVAL_CHECK_OUTPUT
def who_sees(function: Callable, inputs: torch.Tensor) -> torch.Tensor:
    """(outputs, N) bool for inputs (1, N, K): True where an output depends on an input."""
    inputs = inputs.clone().requires_grad_()
    rows = []
    for output in function(inputs)[0]:  # (width of the output,)
        probe = output @ torch.randn(len(output))
        (gradient,) = torch.autograd.grad(probe, inputs, retain_graph=True)
        rows.append(gradient[0].abs().sum(-1) > 0)  # (N,)
    return torch.stack(rows)


torch.manual_seed(seed)
translator = nn.Transformer(32, 4, 2, 2, 64, dropout=0.0, batch_first=True)
causal = nn.Transformer.generate_square_subsequent_mask(5)  # (5, 5)


def translate(words: torch.Tensor) -> torch.Tensor:
    encoded = translator.encoder(words[:, :6])
    decoded = translator.decoder(words[:, 6:], encoded, tgt_mask=causal)
    return torch.cat((encoded, decoded), dim=1)  # (1, 6 + 5, 32)


sees = {"Transformer, 2017": who_sees(translate, torch.randn(1, 11, 32))}
encoder_rows, decoder_rows = sees["Transformer, 2017"].split((6, 5))
print("encoder, of its own 6 words:    ", encoder_rows[:, :6].sum().item(), "of", 6 * 6)
print("decoder, of the encoder's words:", decoder_rows[:, :6].sum().item(), "of", 5 * 6)
print("decoder, of its own 5 words:    ", decoder_rows[:, 6:].sum().item(), "of", 5 * 5)
assert decoder_rows[:, :6].all() and torch.equal(
    decoder_rows[:, 6:], torch.ones(5, 5).tril().bool()
)
assert encoder_rows[:, :6].all() and not encoder_rows[:, 6:].any()

# %% [markdown]
# Then your ViT, and the package's masked autoencoder with 12 of 16 patches hidden. Both get the pixels of 16 patches.

# %%
# NBVAL_CHECK_OUTPUT
from vmae.mae import MaskedAutoencoder

config = ModelConfig.videomae("tiny", num_frames=1, img_size=8, channels=1, tubelet=(1, 2, 2))
torch.manual_seed(seed)
autoencoder = MaskedAutoencoder(config)
mask = masking.make_mask(
    MaskConfig("random", 0.75), config.grid, 1, torch.Generator().manual_seed(seed)
)
patches = torch.rand(1, 16, 4)


def reconstruct(patches: torch.Tensor) -> torch.Tensor:
    clips = grid.unpatchify(patches, config.grid)
    latents = autoencoder.encoder.forward_features(clips, mask.visible)  # (1, 4, 64)
    predicted = autoencoder(clips, mask)  # (1, 12, 4)
    predicted = F.pad(predicted, (0, latents.shape[2] - 4))  # (1, 12, 4) -> (1, 12, 64)
    return torch.cat((latents, predicted), dim=1)  # (1, 4 + 12, 64)


sees["ViT"] = who_sees(
    lambda p: classic(seed).forward_features(grid.unpatchify(p, config.grid)[:, :, 0]), patches
)
sees["MAE, VideoMAE"] = who_sees(reconstruct, patches)
for name, matrix in sees.items():
    print(f"{name:17} {tuple(matrix.shape)}: {matrix.sum().item()} of {matrix.numel()} pairs")
assert sees["ViT"].all()
assert sees["MAE, VideoMAE"][:, mask.visible[0]].all() and sees["MAE, VideoMAE"].sum() == 16 * 4

# %%
colours = {name: matrix.float() for name, matrix in sees.items()}
colours["Transformer, 2017"][6:] *= 0.6  # the decoder's rows
colours["MAE, VideoMAE"][4:] *= 0.6
viz.pictures(
    colours,
    "Three matrices, a row for each output and a column for each input, coloured where the output "
    "sees the input. Transformer: the encoder's rows see the encoder's columns; the decoder's rows "
    "see these too, and a triangle of their own. ViT: everything. MAE: four full columns, those of "
    "the visible patches, and nothing else.",
    height=2.4,
    limits=(0, 1),
)

# %% [markdown]
# Rows are outputs, columns inputs. Yellow: an output of an encoder sees this input. Green: one of a decoder does.
#
# - **Transformer**: the upper rows are the encoder, the lower ones the decoder. The triangle at the lower right is the causal mask;
#   the block beside it is cross-attention.
# - **ViT**: all outputs (the class token first) see all patches. There is no decoder.
# - **MAE**: only the columns of the 4 visible patches are lit, for all rows. The decoder's 12 answers see no hidden pixel, so it cannot copy.
#
# Inside, MAE's decoder is made of the same blocks as a ViT. It has no causal mask and no cross-attention.
# Visible latents and *mask tokens* (遮罩詞元) lie in one row, and self-attention runs over all of them. The cell looks for the parts.

# %%
# NBVAL_CHECK_OUTPUT
with torch.device("meta"):
    transformer = nn.Transformer(512, 8, 6, 6, 2048, batch_first=True)
    mae_l = MaskedAutoencoder(ModelConfig.mae("L"))
    videomae_v1 = MaskedAutoencoder(ModelConfig.videomae("B"))
parts = {
    "Transformer, base": (transformer, transformer.encoder.layers, transformer.decoder.layers),
    "MAE, ViT-L": (mae_l, mae_l.encoder.blocks, mae_l.decoder.blocks),
    "VideoMAE V1, ViT-B": (videomae_v1, videomae_v1.encoder.blocks, videomae_v1.decoder.blocks),
}
rows = []
for name, (model, reading, writing) in parts.items():
    encoder, decoder = (cost.parameters(half) / 1e6 for half in (model.encoder, model.decoder))
    rows.append(
        {
            "model": name,
            "encoder": f"{len(reading)} layers, {encoder:.1f} M",
            "decoder": f"{len(writing)} layers, {decoder:.1f} M",
            "decoder's share": f"{100 * decoder / (encoder + decoder):.0f} %",
            "cross-attention": "yes" if hasattr(writing[0], "multihead_attn") else "none",
        }
    )
viz.table(rows, caption="Parameters in millions, without word embeddings.")
assert [row["decoder's share"] for row in rows] == ["57 %", "8 %", "8 %"]

# %% [markdown]
# | | Transformer, 2017 | MAE, VideoMAE |
# |---|---|---|
# | the encoder sees | the whole input sentence | the visible patches only: 25 % (MAE), 10 % (VideoMAE) |
# | the decoder reads | the words written so far | the encoder's output and mask tokens, all at once |
# | it meets the encoder by | cross-attention in every layer | one linear layer, then both lie in one sequence |
# | its self-attention | causal | over everything |
# | it writes | one word after another | all hidden pixels in one pass |
# | norm | after the sum (section 3.1) | before the branch |
# | sizes | alike: 6 and 6 layers of 512 | *asymmetric* (非對稱): deep and wide, then shallow and narrow |
# | after training | both are used | the decoder is thrown away |
#
# Popular accounts compare MAE with "the symmetric ViT". A ViT has no decoder, so there is nothing that it could be symmetric to.
# What is symmetric is the translator.
#
# ## What was published, what was run here
#
# | published | where | cells | here | why smaller |
# |---|---|---|---|---|
# | patches of 16x16, N = HW/P² = 196 | ViT, section 3.1 | exercise 1 | the same on the cat; 2x2 and 16 on digits | 8x8 pixels |
# | class token, learned positions | ViT, equation 1 | parts 3 and 8 | the same | |
# | pre-norm block | ViT, equations 2 and 3 | exercise 4 | the same | |
# | ViT-B: 12 blocks of 768, 12 heads, 86 M | ViT, table 1 | part 10 | counted; trained: 2 blocks of 48, 4 heads | a minute on 2 cores |
# | scaled dot-product attention, heads | Transformer, section 3.2 | exercises 2 and 3 | the same | |
# | sin-cos positions | Transformer, section 3.5 | exercise 5 | the same | |
# | pre-trained on 1.3 to 303 million images | ViT, section 4.1 | part 9 | 1347 digits, 20 epochs | a minute on 2 cores |
# | base Transformer: 6 + 6 layers of 512, MLP 2048 | Transformer, table 3 | part 11 | counted; run: 2 + 2 layers of 32 | only the pattern matters |
#
# ## What you can do now
#
# - Cut an image into tokens and say what lies in which column.
# - Write attention, heads and a block from memory, and know the usual slips.
# - Say what a ViT loses without positions, and show it.
# - Read the encoder of MAE or VideoMAE and name its four differences from the classic ViT.
# - Tell MAE's decoder from the Transformer's.
#
# ## Terms
#
# | term | 中文 | meaning |
# |---|---|---|
# | patch | 圖塊 | a square of pixels |
# | token | 詞元 | one vector of the sequence |
# | projection | 線性投影 | from P pixel values to width D |
# | position embedding | 位置編碼 | a vector for each place, learned or computed |
# | class token | 分類詞元 | an extra token that collects the answer |
# | query, key, value | 查詢、鍵、值 | what attention compares and averages |
# | self-attention | 自注意力 | all three from the same tokens |
# | cross-attention | 交叉注意力 | queries from one sequence, keys and values from another |
# | causal mask | 因果遮罩 | no look at what comes later |
# | head | 多頭 | one of several attentions side by side |
# | residual connection | 殘差連接 | a branch is added to its input |
# | layer normalisation, pre-norm | 層正規化、前置正規化 | each token to mean 0, variance 1; before the branch |
# | MLP | 多層感知器 | two linear layers with a bend between |
# | encoder, decoder | 編碼器、解碼器 | what reads, and what writes |
# | mask token | 遮罩詞元 | a learned vector in place of what is hidden |
# | tubelet | 時空立方體 | a patch with a length in time |

# %% tags=["timing"]
minutes = (time.perf_counter() - started) / 60
memory = peak_memory(torch.device("cpu")) / 1e9
print(f"this run: {minutes:.1f} minutes, at most {memory:.1f} GB of memory")
