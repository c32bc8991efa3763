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
# # 02 · MAE: a cat from a quarter of its patches
#
# A *masked autoencoder* (MAE, 遮罩自編碼器; He et al. 2021, arXiv 2111.06377) hides most of a picture and learns to predict the rest.
# It needs no labels: the picture is its own answer.
# In this lesson you build one. Yours then takes the weights that ship with the course and reconstructs a cat that they have never seen.
#
# Measured on two CPU cores: about 1 minute, 0.7 GB of memory at the peak. With the exercises, allow about two hours.

# %% tags=["parameters"]
photo = "data/photos/cat.jpg"  # any picture; its central square is used
ratio = 0.75  # share of the patches that the encoder does not see
draws = 10  # masks over which errors are averaged
overfit_steps = 400  # of the test at the end: one picture, again and again
seed = 0

# %% [markdown]
# ## Set-up

# %%
import os

import torch
from einops import rearrange
from PIL import Image, ImageOps
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from torch import nn

import vmae
from vmae import cost, grid, masking, positions
from vmae.config import IMAGENET_MEAN, IMAGENET_STD, MaskConfig, ModelConfig
from vmae.course.lessons import check, diagrams, predict, viz
from vmae.init import init_linears
from vmae.layers import NORM_EPS, Block

os.chdir(vmae.ROOT)

# %% [markdown]
# ## The cat
#
# One picture runs through this lesson: 224 rows, 224 columns, 3 colours.
# The model reads it as lesson 01's ViT does, channels first, with ImageNet's mean and deviation taken out.


# %%
# NBVAL_CHECK_OUTPUT
def read(path: str) -> torch.Tensor:
    """The central square of a photo, (1, 3, 224, 224) in [0, 1]."""
    image = ImageOps.fit(Image.open(path).convert("RGB"), (224, 224))
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(1, 224, 224, 3).permute(0, 3, 1, 2) / 255


cat = read(photo)
mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
cat_in = (cat - mean) / std  # what models read
print(tuple(cat.shape), f"bytes from 0 to 255, here from {cat.min():.2f} to {cat.max():.2f}")

# %% [markdown]
# ## From autoencoders to masks
#
# An *autoencoder* (自編碼器) learns to reproduce its input. Its *encoder* (編碼器) turns the input into a *latent representation* (潛在表示), its *decoder*
# (解碼器) turns that back. Copying is no achievement, so something must stand in the way. The oldest obstacle is a bottleneck. Principal components make the best linear one: here each patch of 768 values must pass through 8 numbers, or through 768.

# %%
patches = rearrange(cat[0], "c (h p) (w q) -> (h w) (p q c)", p=16, q=16)  # (196, 768)
centre = patches.mean(0)
_, _, directions = torch.linalg.svd(patches - centre, full_matrices=True)  # rows: components
copies = {}
for size in (8, 768):
    latents = (patches - centre) @ directions[:size].T  # encoder: (196, 768) -> (196, size)
    back = latents @ directions[:size] + centre  # decoder: (196, size) -> (196, 768)
    error = (back - patches).square().mean().item()
    picture = rearrange(back, "(h w) (p q c) -> c (h p) (w q)", h=14, p=16, q=16)
    copies[f"{size}: error {error:.4f}"] = picture
viz.pictures(
    copies,
    "The cat, blurred, as it comes back from 8 numbers per patch; and exact, as it comes back from 768.",
    height=1.3,
)

# %% [markdown]
# Through 768 numbers the error is zero, and nothing was learned: the identity would do. Without a bottleneck, the input itself must be damaged.
#
# | method | what the encoder reads | what must be predicted |
# |---|---|---|
# | autoencoder | the whole input | the input, through a bottleneck |
# | denoising autoencoder (去噪自編碼器; Vincent et al. 2008) | the input with noise, or with values set to zero | the clean input |
# | BERT (Devlin et al. 2018) | a sentence; 15 % of its tokens are selected, most of them replaced by `[MASK]` | the selected tokens |
# | T5 (Raffel et al. 2020) | a text in which a placeholder stands for each hidden span | the spans, written one word after another |
# | BART (Lewis et al. 2020) | a text with spans replaced by one mask each, sentences shuffled | the whole text, one word after another |
# | **MAE** | the 25 % of the patches that are left | the pixels of the other 75 % |
# | contrastive learning (對比學習; SimCLR, MoCo) | two crops of each image, with altered colours | which crops belong together |
#
# MAE is BERT's idea for pixels: fill in the gaps. Contrastive learning never reconstructs, and what it learns to ignore depends on alterations chosen by hand, *augmentations* (資料增強); MAE needs only random crops.
#
# Why 75 % and not 15 %? A missing word is hard to guess from its neighbours. A missing patch mostly continues them, so a few holes could be filled by interpolation, as you will measure.
#
# ## The whole, with dummies
#
# Here is every step of an MAE, with the cheapest possible parts: an encoder that does nothing, and a decoder that predicts the mean visible patch everywhere.

# %%
# NBVAL_CHECK_OUTPUT
order = torch.randperm(196, generator=torch.Generator().manual_seed(seed))
visible, hidden = order[:49], order[49:]  # 1. hide 75 %
latents = patches[visible]  # 2. dummy encoder: (49, 768) -> (49, D), here with D = 768
predicted = latents.mean(0).expand(196, -1)  # 3. dummy decoder: (49, D) -> (196, 768)
error = (predicted - patches)[hidden].square().mean()  # 4. loss, on hidden patches only
pasted = patches.clone()
pasted[hidden] = predicted[hidden]
assert latents.shape == (49, 768) and predicted.shape == (196, 768) and len(hidden) == 147
shown = {"picture": patches, "visible": latents, "predicted": predicted, "hidden": pasted[hidden]}
for name, x in shown.items():
    print(f"{name:10} {tuple(x.shape)}")

# %%
seen = torch.full_like(patches, 0.6)
seen[visible] = patches[visible]
pictures = {"49 of 196 patches": seen, "the dummy's answer": pasted}
viz.pictures(
    {
        name: rearrange(x, "(h w) (p q c) -> c (h p) (w q)", h=14, p=16, q=16)
        for name, x in pictures.items()
    },
    "A tabby cat with three quarters of its patches grey; the same with these patches filled by one "
    "brownish mean patch.",
    height=1.5,
)

# %% [markdown]
# The rest of the lesson replaces the dummies, one by one. Here is the whole, after the paper's figure 1, with the sizes of the published ViT-B.

# %%
diagrams.mae(ModelConfig.mae("B"))

# %% [markdown]
# *Figure: a picture through MAE. The encoder (blue) reads 49 visible patches and a class token. Mask tokens join only before the decoder (orange), and
# the loss is taken on the 147 hidden patches.*
#
# The number 768 occurs twice by coincidence. A patch holds P = 16·16·3 = 768 values. ViT-B's width is D = 768; ViT-L's is 1024, with the same patches.
#
# ## Random masks
#
# MAE draws one random number per patch, sorts, and keeps the patches with the smallest (section 3). Sorting gives an exact count, so a batch of different masks is still one tensor. Eight patches, of which two stay:

# %%
# NBVAL_CHECK_OUTPUT
noise = torch.tensor([[0.55, 0.86, 0.12, 0.60, 0.93, 0.04, 0.71, 0.38]])
ids_shuffle = noise.argsort(dim=1)  # which patch comes first, second, ...
ids_restore = ids_shuffle.argsort(dim=1)  # where each patch went
print("shuffle", ids_shuffle[0].tolist())
print("restore", ids_restore[0].tolist())
print("kept   ", ids_shuffle[0, :2].tolist())

# %% [markdown]
# Patch 5 has the smallest number, so `ids_shuffle` begins with 5; patch 2 is next. `ids_restore` is the inverse permutation: patch 5 went to index 0, patch 2 to index 1. The argsort of a permutation is its inverse.
#
# ### Exercise 1 · a mask per image
#
# **Difficulty** ●●○ · **about 10 minutes** · write a function
#
# Do the same for a batch, in which each image gets its own mask.


# %%
def random_masking(
    noise: torch.Tensor, ratio: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keep int(N·(1 - ratio)) patches of each image: those with the smallest noise.

    noise    (B, N) float, random numbers
    returns  ids_keep (B, V) int64: the visible patches, in order of their noise
             ids_restore (B, N) int64: the index of each patch in that order
             hidden (B, N) bool: True where the encoder does not see the patch
    """
    ### BEGIN SOLUTION
    ids_shuffle = noise.argsort(dim=1)
    ids_restore = ids_shuffle.argsort(dim=1)
    keep = int(noise.shape[1] * (1 - ratio))
    return ids_shuffle[:, :keep], ids_restore, ids_restore >= keep
    ### END SOLUTION


random_masking = check("02.random_masking", random_masking)

# %% [markdown]
# <details><summary>Hint 1</summary>The cell above does all of it for one image. `argsort(dim=1)` sorts each row separately; apply it twice.</details>
# <details><summary>Hint 2</summary>A patch is visible if its index in the order, `ids_restore`, is below the number of visible patches.</details>
# <details><summary>Solution</summary>
#
# ```python
# ids_shuffle = noise.argsort(dim=1)
# ids_restore = ids_shuffle.argsort(dim=1)
# keep = int(noise.shape[1] * (1 - ratio))
# return ids_shuffle[:, :keep], ids_restore, ids_restore >= keep
# ```
#
# </details>
#
# At the published sizes, 49 patches stay and 147 go. The package's `Mask` calls `ids_keep` `visible`.

# %%
# NBVAL_CHECK_OUTPUT
noise = torch.rand(2, 196, generator=torch.Generator().manual_seed(seed))
ids_keep, ids_restore, hidden = random_masking(-noise, 0.75)  # the package keeps the largest
mask = masking.make_mask(
    MaskConfig("random", 0.75), ModelConfig.mae("B").grid, 2, torch.Generator().manual_seed(seed)
)
assert torch.equal(mask.visible, ids_keep.sort(dim=1).values)
assert torch.equal(mask.hidden(196), hidden) and hidden.sum(dim=1).tolist() == [147, 147]
print(f"{ids_keep.shape[1]} visible, {int(hidden[0].sum())} hidden, mask {tuple(hidden[0].shape)}")
print("the two masks of the batch differ:", not torch.equal(hidden[0], hidden[1]))

# %% [markdown]
# ### 313 or 314 visible tokens
#
# Texts on VideoMAE give 313 visible tokens of 3136 in one place and 314 in another. Both are 10 %: official MAE rounds the number of *visible* tokens
# down, official VideoMAE the number of *hidden* ones. The package follows each for its own family.

# %%
# NBVAL_CHECK_OUTPUT
for total, share in ((196, 0.75), (196, 0.9), (3136, 0.9)):
    visible_down = int(total * (1 - share))  # models_mae.py
    hidden_down = total - int(share * total)  # masking_generator.py
    print(f"{share:.0%} of {total}: {visible_down} visible in MAE, {hidden_down} in VideoMAE")

# %% [markdown]
# ## The parts of an MAE
#
# Positions first; then a class that holds the parameters under the names of the official `models_mae.py`, so that its checkpoints load. `Block` is the one you wrote in lesson 01; the package's has the same parameters.


# %%
def fixed_positions(h: int, w: int, width: int) -> nn.Parameter:
    """Lesson 01's table, (1, 1 + h·w, width), with a first row of zeros for the class token."""
    table = nn.functional.pad(positions.sincos_2d(h, w, width), (0, 0, 1, 0))
    return nn.Parameter(table[None], requires_grad=False)  # saved, but not trained


# %%
class MAEParts(nn.Module):
    """The parameters of an MAE, and how images are cut into patches."""

    def __init__(
        self, img_size: int = 224, patch_size: int = 16,
        embed_dim: int = 768, depth: int = 12, num_heads: int = 12,  # D
        decoder_embed_dim: int = 512, decoder_depth: int = 8, decoder_num_heads: int = 16,  # E
        norm_pix_loss: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        p, d, e = patch_size, embed_dim, decoder_embed_dim
        self.grid = grid.TokenGrid((1, img_size, img_size), (1, p, p))  # an image is one frame
        _, h, w = self.grid.shape
        self.norm_pix_loss = norm_pix_loss
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, d, p, p)})
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, d))
        self.pos_embed = fixed_positions(h, w, d)  # (1, 1 + N, D)
        self.blocks = nn.ModuleList(Block(d, num_heads, key_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(d, e)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, e))
        self.decoder_pos_embed = fixed_positions(h, w, e)  # (1, 1 + N, E)
        self.decoder_blocks = nn.ModuleList(
            Block(e, decoder_num_heads, key_bias=True) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(e, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(e, p * p * 3)
        init_linears(self)  # Xavier, as published; the convolution is a linear layer, too
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.data.flatten(1))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed.proj(images)  # (B, D, h, w)
        return rearrange(x, "b d h w -> b (h w) d")  # (B, N, D), without positions

    def patchify(self, images: torch.Tensor) -> torch.Tensor:
        return grid.patchify(images[:, :, None], self.grid)  # (B, 3, H, W) -> (B, N, P)

    def unpatchify(self, patches: torch.Tensor) -> torch.Tensor:
        return grid.unpatchify(patches, self.grid)[:, :, 0]  # (B, N, P) -> (B, 3, H, W)


# %% [markdown]
# ## The encoder
#
# The encoder is lesson 01's vision transformer with one change: hidden patches are *left out*. It is a common misconception that each is replaced by a
# special token here; that happens only before the decoder. Leaving them out is what makes MAE cheap. How cheap? Attention compares all pairs of tokens, the
# MLPs treat each separately.

# %%
### BEGIN SOLUTION
guess = 0.25
### INSTEAD
# guess = None  # a share between 0 and 1
### END SOLUTION
share = predict("ViT-B's encoder on 49 patches, multiply-adds as a share of those on 196", guess)

# %%
published = ModelConfig.mae("B")
stages = cost.pretraining_multiply_adds(published, MaskConfig("random", 0.75))
everything = cost.classifier_multiply_adds(published)  # the encoder on all 196 patches
share.compare(stages["encoder"] / everything)
rest = stages["total"] - stages["encoder"]
more = (everything + rest) / stages["total"]
print(f"{stages['encoder'] / 1e9:.1f} G instead of {everything / 1e9:.1f} G multiply-adds")
print(f"with mask tokens in the encoder, the whole model would cost {more:.1f} times as much")

# %% [markdown]
# Not 1/16, as the pairs alone would suggest: with 196 tokens, linear layers do nearly all the work. For ViT-L, whose encoder dwarfs the same decoder, the paper reports 3.3
# times. Mask tokens in the encoder also lead to worse features, it reports, since no real picture contains such tokens.
#
# ### Exercise 2 · the encoder
#
# **Difficulty** ●●○ · **about 15 minutes** · build a module
#
# Add `forward_encoder(images, noise, ratio)` to the parts above. The steps:
#
# 1. embed the patches with `self.embed`, and add the positions of the patches, `self.pos_embed[:, 1:]`;
# 2. mask with `random_masking`, and keep the visible patches; `take` below picks them;
# 3. prepend the class token (分類詞元) with its own position, `self.pos_embed[:, :1]`;
# 4. apply all `self.blocks`, then `self.norm`;
# 5. return latents, `hidden` and `ids_restore`, in this order. (`random_masking` returns the last two the other way round.)


# %%
def take(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows `index` (B, K) of tokens (B, N, D): (B, K, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class MAEEncoder(MAEParts):
    def forward_encoder(
        self, images: torch.Tensor, noise: torch.Tensor, ratio: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encode the visible patches.

        images   (B, 3, H, W) normalised; noise (B, N)
        returns  latents (B, 1 + V, D): the class token, then the visible patches
                 hidden (B, N) bool and ids_restore (B, N), both from random_masking
        """
        ### BEGIN SOLUTION
        x = self.embed(images) + self.pos_embed[:, 1:]  # (B, N, D)
        ids_keep, ids_restore, hidden = random_masking(noise, ratio)
        x = take(x, ids_keep)  # (B, V, D): the hidden patches go
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat((class_token, x), dim=1)  # (B, 1 + V, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x), hidden, ids_restore
        ### END SOLUTION


MAEEncoder = check("02.MAEEncoder", MAEEncoder)

# %% [markdown]
# <details><summary>Hint 1</summary>Add positions before masking: a patch keeps the position it was cut from, whichever patches are kept.</details>
# <details><summary>Hint 2</summary>`self.cls_token` is (1, 1, D). `expand(B, -1, -1)` repeats it for each image, and `torch.cat((..., x), dim=1)` puts it first.</details>
# <details><summary>Solution</summary>
#
# ```python
# x = self.embed(images) + self.pos_embed[:, 1:]  # (B, N, D)
# ids_keep, ids_restore, hidden = random_masking(noise, ratio)
# x = take(x, ids_keep)  # (B, V, D): the hidden patches go
# class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
# x = torch.cat((class_token, x), dim=1)  # (B, 1 + V, D)
# for block in self.blocks:
#     x = block(x)
# return self.norm(x), hidden, ids_restore
# ```
#
# </details>
#
# ## The mask token
#
# The decoder must answer for every patch, so it needs a token for each. Hidden ones get the *mask token* (遮罩詞元): one learned vector, shared by all. Then the tokens are *unshuffled* (還原順序) with `ids_restore`. Four patches, of which 2 and 0 are visible, in this order:

# %%
# NBVAL_CHECK_OUTPUT
shuffled = ["latent of 2", "latent of 0", "mask token", "mask token"]
for patch, index in enumerate([1, 2, 0, 3]):  # ids_restore
    print(f"patch {patch} comes from index {index}: {shuffled[index]}")

# %% [markdown]
# ### Exercise 3 · the original order
#
# **Difficulty** ●●○ · **about 10 minutes** · write a function
#
# Append mask tokens to the latents, then restore the order.


# %%
def unshuffle(
    latents: torch.Tensor, mask_token: torch.Tensor, ids_restore: torch.Tensor
) -> torch.Tensor:
    """One token per patch, in the original order.

    latents      (B, V, E) float, of the visible patches, in the order of ids_keep
    mask_token   (1, 1, E)
    ids_restore  (B, N) int64
    returns      (B, N, E)
    """
    ### BEGIN SOLUTION
    batch, patches = ids_restore.shape
    missing = mask_token.expand(batch, patches - latents.shape[1], -1)
    x = torch.cat((latents, missing), dim=1)  # (B, N, E), still shuffled
    return take(x, ids_restore)
    ### END SOLUTION


unshuffle = check("02.unshuffle", unshuffle)

# %% [markdown]
# <details><summary>Hint 1</summary>`mask_token.expand(B, N - V, -1)` makes the missing tokens. Concatenate them after the latents.</details>
# <details><summary>Hint 2</summary>`take(x, ids_restore)` reads, for patch i, the token at index ids_restore[i].</details>
# <details><summary>Solution</summary>
#
# ```python
# batch, patches = ids_restore.shape
# missing = mask_token.expand(batch, patches - latents.shape[1], -1)
# x = torch.cat((latents, missing), dim=1)  # (B, N, E), still shuffled
# return take(x, ids_restore)
# ```
#
# </details>
#
# ## The decoder
#
# The decoder is a second, smaller transformer of the same blocks, thrown away after pre-training. All mask tokens are equal; only their
# *position embeddings* (位置編碼) tell them which patch to predict.
#
# ### Exercise 4 · the decoder
#
# **Difficulty** ●●○ · **about 15 minutes** · build a module
#
# Add `forward_decoder(latents, ids_restore)`:
#
# 1. bring the latents to the decoder's width with `self.decoder_embed`;
# 2. unshuffle the patches. The class token stands for none, so set it aside and put it back in front;
# 3. add `self.decoder_pos_embed`, and apply all `self.decoder_blocks`, then `self.decoder_norm`;
# 4. predict pixels with `self.decoder_pred`, and drop the class token. (The figure drops the visible patches, too. Here they stay, and the loss will leave them out.)
#
# The check runs your decoder with the trained weights.


# %%
class MAEDecoder(MAEEncoder):
    def forward_decoder(self, latents: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        """Predict all patches.

        latents      (B, 1 + V, D), the class token first
        ids_restore  (B, N) int64
        returns      (B, N, P)
        """
        ### BEGIN SOLUTION
        x = self.decoder_embed(latents)  # (B, 1 + V, E)
        full = unshuffle(x[:, 1:], self.mask_token, ids_restore)  # (B, N, E)
        x = torch.cat((x[:, :1], full), dim=1) + self.decoder_pos_embed  # (B, 1 + N, E)
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]  # (B, N, P)
        ### END SOLUTION


MAEDecoder = check("02.MAEDecoder", MAEDecoder)

# %% [markdown]
# <details><summary>Hint 1</summary>`x[:, :1]` is the class token, `x[:, 1:]` are the visible patches.</details>
# <details><summary>Hint 2</summary>Positions come after the order is restored: before it, index 7 is not patch 7.</details>
# <details><summary>Solution</summary>
#
# ```python
# x = self.decoder_embed(latents)  # (B, 1 + V, E)
# full = unshuffle(x[:, 1:], self.mask_token, ids_restore)  # (B, N, E)
# x = torch.cat((x[:, :1], full), dim=1) + self.decoder_pos_embed  # (B, 1 + N, E)
# for block in self.decoder_blocks:
#     x = block(x)
# return self.decoder_pred(self.decoder_norm(x))[:, 1:]  # (B, N, P)
# ```
#
# </details>
#
# ## The target
#
# What should be predicted? Either the pixels, as they enter the model, or *normalised pixels* (像素正規化), in which each patch
# has its own mean and deviation taken out. The paper reports slightly better features with the latter: the model spends nothing on brightness and contrast.
#
# ### Exercise 5 · normalised targets
#
# **Difficulty** ●○○ · **about 8 minutes** · write a function
#
# MAE normalises all values of a patch together, with the *unbiased* variance (不偏變異數), and adds 10⁻⁶ to the variance. (VideoMAE will do it for each channel.)


# %%
def standardize(patches: torch.Tensor) -> torch.Tensor:
    """Each patch with mean 0 and variance 1: (x - mean) / sqrt(var + 1e-6).

    patches  (B, N, P) float; mean and unbiased variance are taken over the P values of a patch
    returns  (B, N, P)
    """
    ### BEGIN SOLUTION
    mean = patches.mean(dim=-1, keepdim=True)
    return (patches - mean) / (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    ### END SOLUTION


standardize = check("02.standardize", standardize)

# %% [markdown]
# <details><summary>Hint 1</summary>`keepdim=True` keeps the last axis as 1, so that subtracting the mean broadcasts.</details>
# <details><summary>Hint 2</summary>`torch.var` is unbiased by default: it divides by P - 1.</details>
# <details><summary>Solution</summary>
#
# ```python
# mean = patches.mean(dim=-1, keepdim=True)
# return (patches - mean) / (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
# ```
#
# </details>

# %%
geometry = MAEParts(embed_dim=4, num_heads=1, decoder_embed_dim=4, decoder_num_heads=1)
pixels = geometry.patchify(cat_in)  # (1, 196, 768)
target = standardize(pixels)


def to_picture(patches: torch.Tensor) -> torch.Tensor:
    """The first of the patches (B, 196, 768) that a model predicts, as a picture in [0, 1]."""
    return (geometry.unpatchify(patches) * std + mean)[0].clamp(0, 1)


mosaic = pixels.mean(-1, keepdim=True).expand_as(pixels)  # what is taken out
viz.pictures(
    {
        "the means": to_picture(mosaic),
        "normalised target": geometry.unpatchify(target)[0] / 5 + 0.5,
    },
    "A grey mosaic of the mean brightness of the cat's patches; and the normalised target, in "
    "which each patch has the same mean and contrast, so that fur is as strong as the eyes.",
    height=1.5,
)

# %% [markdown]
# Remember the mosaic on the left: no model made it. When a model of normalised pixels is shown, mean and contrast are restored *from the original*. So even a model that has learned nothing shows this mosaic, and it resembles a cat. (It is grey since the mean is taken over all three channels.)
#
# ## The loss
#
# The loss is the mean squared error (均方誤差) over the hidden patches. Visible ones could simply be copied.
#
# ### Exercise 6 · the loss
#
# **Difficulty** ●○○ · **about 8 minutes** · write a function


# %%
def masked_loss(
    predicted: torch.Tensor, target: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over the hidden patches, a scalar tensor.

    predicted, target  (B, N, P) float
    hidden             (B, N) bool, True where the error counts
    """
    ### BEGIN SOLUTION
    error = (predicted - target).square().mean(dim=-1)  # (B, N): one number per patch
    return (error * hidden).sum() / hidden.sum()
    ### END SOLUTION


masked_loss = check("02.masked_loss", masked_loss)

# %% [markdown]
# <details><summary>Hint 1</summary>Compute one error per patch first, (B, N). Then count only some of them.</details>
# <details><summary>Hint 2</summary>Multiply by `hidden`, sum, and divide by the number of hidden patches.</details>
# <details><summary>Solution</summary>
#
# ```python
# error = (predicted - target).square().mean(dim=-1)  # (B, N): one number per patch
# return (error * hidden).sum() / hidden.sum()
# ```
#
# </details>
#
# ### Exercise 7 · the whole model
#
# **Difficulty** ●●○ · **about 12 minutes** · build a module
#
# Put everything together. `forward_loss(images, predicted, hidden)` compares with `self.patchify(images)`, standardised if `self.norm_pix_loss`.
# `forward(images, noise, ratio)` calls encoder, decoder and loss.


# %%
class MAE(MAEDecoder):
    def forward_loss(
        self, images: torch.Tensor, predicted: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        """The loss, a scalar tensor, of predicted (B, N, P) for images (B, 3, H, W)."""
        ### BEGIN SOLUTION
        target = self.patchify(images)  # (B, N, P)
        if self.norm_pix_loss:
            target = standardize(target)
        return masked_loss(predicted, target, hidden)
        ### END SOLUTION

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor, ratio: float = 0.75
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss, predicted (B, N, P) and hidden (B, N) bool."""
        ### BEGIN SOLUTION
        latents, hidden, ids_restore = self.forward_encoder(images, noise, ratio)
        predicted = self.forward_decoder(latents, ids_restore)
        return self.forward_loss(images, predicted, hidden), predicted, hidden
        ### END SOLUTION


MAE = check("02.MAE", MAE)

# %% [markdown]
# <details><summary>Hint 1</summary>`forward_loss` is `masked_loss` with the right target. `forward` is three calls and a return.</details>
# <details><summary>Hint 2</summary>`forward_encoder` returns latents, hidden and ids_restore, in this order. Pass `ratio` on.</details>
# <details><summary>Solution</summary>
#
# ```python
# # forward_loss
# target = self.patchify(images)  # (B, N, P)
# if self.norm_pix_loss:
#     target = standardize(target)
# return masked_loss(predicted, target, hidden)
#
# # forward
# latents, hidden, ids_restore = self.forward_encoder(images, noise, ratio)
# predicted = self.forward_decoder(latents, ids_restore)
# return self.forward_loss(images, predicted, hidden), predicted, hidden
# ```
#
# </details>
#
# ### A loss of 1.0
#
# A model that has learned nothing may output zero everywhere. On a normalised target, zero is the mean of each patch, so the error is the patch's variance: 1 by construction, or precisely 767/768, because the error divides by P and the unbiased variance by P - 1. On raw pixels, predicting each patch's mean costs a different amount for every picture.

# %%
# NBVAL_CHECK_OUTPUT
photos = {
    name: read(f"data/photos/{name}.jpg") for name in ("cat", "flower", "astronaut", "gravel")
}
for name, image in photos.items():
    x = geometry.patchify((image - mean) / std)  # (1, 196, 768)
    nothing = masked_loss(torch.zeros_like(x), standardize(x), hidden[:1])
    means = masked_loss(x.mean(-1, keepdim=True).expand_as(x), x, hidden[:1])
    print(f"{name:10} normalised {nothing:.3f}, raw pixels {means:.3f}")
print(f"767 / 768 = {767 / 768:.4f}")

# %% [markdown]
# So with normalised targets, a loss near 1.0 means that nothing was learned. Nor does a loss below 1 prove understanding: the cat is brown all over, and its colour is still in the target, since one mean is taken over all three channels. Predicting the best single colour everywhere costs:

# %%
by_channel = target.unflatten(-1, (-1, 3))  # (1, 196, 768) -> (1, 196, 256, 3)
one_colour = by_channel.mean((1, 2), keepdim=True).expand_as(by_channel).flatten(-2)
brown = masked_loss(one_colour, target, hidden[:1]).item()
print(f"one colour everywhere: {brown:.2f}")

# %% [markdown]
# ## Trained weights in your model
#
# `data/weights/image` holds the weights of a small MAE, saved under the official names. It was trained on six other photos of `data/photos` and on frames of the film Big Buck Bunny, with
# raw pixels as targets and random masks of 75 %. It has never seen this cat. Your class takes these weights as they are; the package's model, from the same file, must agree.

# %%
# NBVAL_CHECK_OUTPUT
sizes = {"embed_dim": 160, "depth": 4, "num_heads": 5}
sizes |= {"decoder_embed_dim": 96, "decoder_depth": 3, "decoder_num_heads": 3}
model = MAE(**sizes).eval()
print(model.load_state_dict(load_file("data/weights/image/model.safetensors")))
package = vmae.load("data/weights/image")
mask = masking.all_hidden(
    ids_keep.sort(dim=1).values, package.grid
)  # 147 queries, all of them targets
both = torch.cat((cat, cat.flip(-1)))  # (2, 3, 224, 224): the cat and its mirror image
both_in = (both - mean) / std
with torch.no_grad():
    loss, predicted, hidden = model(both_in, -noise, 0.75)
    theirs = package(both[:, :, None], mask)  # (2, 147, 768): hidden patches only
torch.testing.assert_close(take(predicted, mask.target_tokens), theirs, rtol=1e-2, atol=2e-2)
torch.testing.assert_close(loss, package.loss(both[:, :, None], mask), rtol=1e-2, atol=1e-2)
print("predicted", tuple(predicted.shape), "and the package's", tuple(theirs.shape), "agree")

# %%
baseline = pixels[:, ~hidden[0]].unflatten(-1, (-1, 3)).mean((1, 2))  # (1, 3): mean visible colour
flat = baseline.repeat(1, 256)[:, None].expand_as(pixels)
shown = {
    "49 patches": torch.where(hidden[:1, :, None], 0.3, pixels),
    "your MAE": torch.where(hidden[:1, :, None], predicted[:1], pixels),
    "your MAE, every patch": predicted[:1],
}
viz.pictures(
    {name: to_picture(x) for name, x in shown.items()},
    "49 patches of the cat; the same with hidden patches predicted by the model, soft but of matching "
    "colours; and the prediction for all patches, where the visible ones are worst.",
    height=1.5,
)
error = masked_loss(predicted[:1], pixels, hidden[:1])
print(f"{cost.parameters(model):,} parameters")
print(
    f"error {error:.3f}; with the mean visible colour {masked_loss(flat, pixels, hidden[:1]):.3f}"
)

# %% [markdown]
# What does this show, honestly? Colours and the coarse layout are right. Whiskers are missing, and edges between patches show. Mean squared error rewards the average of all plausible answers, and the average of many sharp pictures is a blurred one. The published models blur too, with 60 times as many parameters and far longer training. In the last picture, *visible* patches come out badly, since the loss never included them.
#
# ### Exercise 8 · the bug
#
# **Difficulty** ●●○ · **about 10 minutes** · find the bug
#
# A colleague reasons: attention treats its tokens as a set, and each carries its position. So why restore the order before the decoder? Restore it afterwards.
# The reasoning is right: the package never restores it. Yet the cat comes out wrong, although every shape fits. Run the cell: on the left are the hidden patches
# as this program predicts them, on the right as they should be. Find out why, and fix it.


# %%
def decode_any_order(
    model: nn.Module, latents: torch.Tensor, ids_restore: torch.Tensor
) -> torch.Tensor:
    """What `forward_decoder` predicts, (B, N, P), with tokens left in shuffled order."""
    x = model.decoder_embed(latents)  # (B, 1 + V, E)
    missing = model.mask_token.expand(len(x), 1 + ids_restore.shape[1] - x.shape[1], -1)
    ### BEGIN SOLUTION
    x = torch.cat((x, missing), dim=1)  # (B, 1 + N, E): class token, visible, mask tokens
    ids_shuffle = ids_restore.argsort(dim=1)
    table = model.decoder_pos_embed.expand(len(x), -1, -1)
    shuffled = take(table[:, 1:], ids_shuffle)  # each token gets the position of its own patch
    x = x + torch.cat((table[:, :1], shuffled), dim=1)
    ### INSTEAD
    # x = torch.cat((x, missing), dim=1)  # (B, 1 + N, E): class token, visible, mask tokens
    # x = x + model.decoder_pos_embed
    ### END SOLUTION
    for block in model.decoder_blocks:
        x = block(x)
    x = model.decoder_pred(model.decoder_norm(x))[:, 1:]  # (B, N, P)
    return take(x, ids_restore)


decode_any_order = check("02.decode_any_order", decode_any_order)

# %% [markdown]
# <details><summary>Hint 1</summary>After the concatenation, which patch does the token at index 1 stand for? And which position is added to it?</details>
# <details><summary>Hint 2</summary>The k-th token is patch `ids_shuffle[k]`, and `ids_shuffle` is the inverse of `ids_restore`.</details>
# <details><summary>Solution</summary>
#
# ```python
# x = torch.cat((x, missing), dim=1)  # (B, 1 + N, E): class token, visible, mask tokens
# ids_shuffle = ids_restore.argsort(dim=1)
# table = model.decoder_pos_embed.expand(len(x), -1, -1)
# shuffled = take(table[:, 1:], ids_shuffle)  # each token gets the position of its own patch
# x = x + torch.cat((table[:, :1], shuffled), dim=1)
# ```
#
# Restoring the order first is as good a fix.
#
# </details>
#
# With its own position on every token, the order in which the tokens are processed makes no difference to the 147 predictions:

# %%
# NBVAL_CHECK_OUTPUT
with torch.no_grad():
    latents, hidden, ids_restore = model.forward_encoder(both_in, -noise, 0.75)
    shuffled = decode_any_order(model, latents, ids_restore)
torch.testing.assert_close(shuffled, predicted, rtol=1e-3, atol=1e-3)
print("restored before or after:", tuple(shuffled[0][hidden[0]].shape), "values agree")

# %% [markdown]
# ### Other ratios
#
# The model was trained at 75 %. How does it fare when more is hidden, or less? Two baselines that have learned nothing compete: the mean visible colour, and an interpolation, where each hidden pixel is an average of the visible patches' colours, weighted by inverse cubed distance.

# %%
### BEGIN SOLUTION
guess = "interpolation"
### INSTEAD
# guess = None  # "your MAE", "interpolation" or "mean colour"
### END SOLUTION
names = ("your MAE", "interpolation", "mean colour")
winner = predict("the smallest error on the cat with 95 % hidden", guess, names)


# %%
def filled(pixels: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches (1, 196, 768) interpolated between visible patches, and of their mean colour."""
    (ids,) = (~hidden[0]).nonzero(as_tuple=True)
    centres = torch.stack((ids // 14, ids % 14), dim=1) * 16 + 7.5  # (V, 2)
    colours = pixels[0, ids].unflatten(-1, (-1, 3)).mean(1)  # (V, 3)
    points = torch.cartesian_prod(torch.arange(224.0), torch.arange(224.0))  # (224·224, 2)
    weights = 1 / (torch.cdist(points, centres) + 1) ** 3
    smooth = (weights / weights.sum(1, keepdim=True)) @ colours  # (224·224, 3)
    smooth = geometry.patchify(smooth.T.reshape(1, 3, 224, 224))
    return smooth, colours.mean(0).repeat(256).expand_as(pixels)


ratios = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
errors = {name: [] for name in names}
for r in ratios:
    found = torch.zeros(3)
    for k in range(draws):
        drawn = torch.rand(1, 196, generator=torch.Generator().manual_seed(k))
        with torch.no_grad():
            loss, _, hidden = model(cat_in, drawn, r)
        guesses = filled(pixels, hidden)
        found += torch.stack((loss, *(masked_loss(x, pixels, hidden) for x in guesses))) / draws
    for name, value in zip(names, found.tolist(), strict=True):
        errors[name].append(value)
best = min(names, key=lambda name: errors[name][-1])
winner.compare(best)

# %%
viz.lines(
    [100 * r for r in ratios],
    errors,
    f"Error on hidden pixels of the cat by share of hidden patches, mean of {draws} masks: the model, "
    "interpolation, and the mean visible colour.",
    xlabel="hidden patches, %",
    ylabel="mean squared error",
)

# %% [markdown]
# This is "see a part, infer the whole" as a measurement. As long as every hole has visible neighbours, interpolation saves a third of the flat colour's error; with almost nothing left to interpolate between, it saves nothing. That is why MAE hides so much: at a low ratio, smoothing alone solves much of the task. Your model
# beats both up to the 75 % that it was trained at. At 95 %, with nine patches, it is the worst of the three.
#
# The next cell needs a running kernel. It adds the two other masks that the paper tried: a *block*, and a *grid* that keeps one patch of every 2x2. In each, `random_masking` does the
# work on noise that is not uniform. The grid hides 75 %, whatever the slider says. Of the four photos, only the astronaut was in the training set.

# %%
row, column = (x.flatten() for x in torch.meshgrid(*[torch.arange(14)] * 2, indexing="ij"))


def drawn_noise(scheme: str, seed: int) -> torch.Tensor:
    """Noise (1, 196) whose smallest values are the patches that stay."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 196, generator=g)
    if scheme == "grid":
        return noise + (row % 2 + column % 2 > 0)
    if scheme == "block":  # hides those nearest to a random centre
        y, x = torch.randint(3, 11, (2,), generator=g)
        return 0.9 * noise - torch.maximum((row - y).abs(), (column - x).abs())
    return noise


# %%
from ipywidgets import Dropdown, FloatSlider, IntSlider


@torch.no_grad()
def explore(scheme: str, ratio: float, photo: str, seed: int) -> None:
    x = (photos[photo] - mean) / std
    loss, predicted, hidden = model(
        x, drawn_noise(scheme, seed), 0.75 if scheme == "grid" else ratio
    )
    patches = geometry.patchify(x)
    masked, pasted = (
        torch.where(hidden[..., None], y, patches) for y in (torch.tensor(0.3), predicted)
    )
    viz.pictures(
        {f"{scheme}": to_picture(masked), f"error {loss:.3f}": to_picture(pasted)},
        f"The {photo} under a {scheme} mask, and with the hidden patches predicted by the model.",
        height=2,
    )


viz.explorer(
    explore,
    scheme=Dropdown(options=["random", "block", "grid"]),
    ratio=FloatSlider(ratio, min=0.1, max=0.95, step=0.05),
    photo=Dropdown(options=list(photos)),
    seed=IntSlider(seed, min=0, max=20),
)

# %% [markdown]
# A still picture of the same, at 75 %, with the error in each title.

# %%
shown = {}
for scheme in ("random", "block", "grid"):
    with torch.no_grad():
        loss, predicted, hidden = model(cat_in, drawn_noise(scheme, 3), 0.75)
    pasted = torch.where(hidden[..., None], predicted, pixels)
    shown[f"{scheme}: {loss:.3f}"] = to_picture(pasted)
viz.pictures(
    shown,
    "The cat with three quarters of its patches predicted, under random, block and grid masks: the "
    "block, which leaves no neighbours, comes out as a smear.",
    height=1.3,
)

# %% [markdown]
# ## Latent representations
#
# The encoder's output for a patch is its *latent representation*: what the model has made of these pixels *in this picture*. After pre-training it is the only thing that is kept.
# To look at it, encode the whole cat (nothing hidden), and show the three strongest principal components of the 196 latents as red, green and blue. Then take one patch, and ask
# which others have a similar latent (cosine similarity), beside the same question asked of the pixels.

# %%
with torch.no_grad():
    latents, _, ids_restore = model.forward_encoder(cat_in, torch.rand(1, 196), 0.0)
latents = take(latents[:, 1:], ids_restore)[0]  # (196, D), in the original order
components = torch.tensor(PCA(3).fit_transform(latents.numpy()))
low, high = (components.quantile(q, dim=0) for q in (0.02, 0.98))
colours = ((components - low) / (high - low)).clamp(0, 1).view(14, 14, 3)


def similar(x: torch.Tensor, patch: int) -> torch.Tensor:
    """Cosine similarity (14, 14) of each row of x (196, K) to row `patch`, means taken out."""
    x = nn.functional.normalize(x - x.mean(0), dim=1)
    return (x @ x[patch]).view(14, 14)


eye = 5 * 14 + 4
marked = pixels.clone()
frame = marked[0, eye].view(16, 16, 3)
frame[[0, 1, -2, -1]] = frame[:, [0, 1, -2, -1]] = pixels.max()  # a white border
viz.pictures(
    {
        "one patch, framed": to_picture(marked),
        "latents, PCA": colours,
        "similar latents": similar(latents, eye),
        "similar pixels": similar(pixels[0], eye),
    },
    "The cat with one patch of an eye framed; its 196 latents as colours, which differ between fur, stripes "
    "and eyes; and two maps of similarity to the framed patch, of latents and of pixels.",
    height=1.5,
)

# %% [markdown]
# Colours follow where patches lie (top and bottom differ) as much as what they contain, such as the dark band from the eye to the nose. Pixels like these are found all over the cat, since the comparison runs value by value; similar latents are rarer. None of this is a concept such as "ear". Whether latents are useful is measured by using them: lesson 03 trains classifiers on them.
#
# ## The mask token at work
#
# Watch the 147 mask tokens on their way through the decoder. They start as copies of one vector, so their mean cosine similarity is 1.


# %%
def alike(x: torch.Tensor) -> float:
    """Mean cosine similarity of different rows of x (K, E)."""
    x = nn.functional.normalize(x, dim=1)
    return ((x @ x.T).sum() - len(x)).item() / (len(x) * (len(x) - 1))


noise = torch.rand(1, 196, generator=torch.Generator().manual_seed(seed))
with torch.no_grad():
    latents, hidden, ids_restore = model.forward_encoder(cat_in, noise, 0.75)
    x = model.decoder_embed(latents)
    x = torch.cat((x[:, :1], unshuffle(x[:, 1:], model.mask_token, ids_restore)), dim=1)
    stages = {"mask tokens": x, "positions": x + model.decoder_pos_embed}
    x = stages["positions"]
    for number, block in enumerate(model.decoder_blocks, 1):
        x = block(x)
        stages[f"block {number}"] = x
    answers = {name: model.decoder_pred(model.decoder_norm(x))[:, 1:] for name, x in stages.items()}
assert abs(alike(stages["mask tokens"][0, 1:][hidden[0]]) - 1) < 1e-4
viz.pictures(
    {
        f"{name}: {alike(stages[name][0, 1:][hidden[0]]):.2f}": to_picture(
            torch.where(hidden[..., None], y, 0.3)
        )
        for name, y in answers.items()
    },
    "The hidden patches of the cat, predicted from the decoder's tokens after each stage: the same "
    "patch everywhere, then a pattern of positions, then more and more of the cat. Visible patches are grey.",
    columns=5,
    height=1.2,
)

# %% [markdown]
# Each picture shows what the decoder's last two layers would make of the tokens after that stage; each title gives the similarity. The mask token alone predicts the same patch everywhere. Positions make the copies different, yet know nothing of the cat. Only attention brings in the picture, block by block. The tokens end more alike than they were after block 1 because
# this cat is brown all over: with the gravel the similarity ends at 0.99, with the more varied astronaut at 0.50. Lesson 03 watches the mask token while it learns, and
# measures what a deeper decoder buys, against a deeper encoder of equal cost.
#
# ## A test of correctness: one picture, overfitted
#
# Before any long training, check that the program can learn at all: a small model, one picture, a new mask at every step. It can only *memorise* (記憶), so this tests the
# code and nothing else. The targets are normalised. What will the loss be before the first step, when the model outputs noise of its own?

# %%
### BEGIN SOLUTION
guess = 1.25
### INSTEAD
# guess = None  # a number
### END SOLUTION
first_loss = predict("the loss of an untrained model, normalised targets", guess)

# %%
torch.manual_seed(seed)
small = {"embed_dim": 128, "depth": 4, "num_heads": 4}
small |= {"decoder_embed_dim": 96, "decoder_depth": 2, "decoder_num_heads": 3}
learner = MAE(**small, norm_pix_loss=True)
optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3, betas=(0.9, 0.95))
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, 2e-3, total_steps=overfit_steps, pct_start=0.1
)
batch = cat_in.expand(4, -1, -1, -1)  # (4, 3, 224, 224): four masks of one cat
losses = []
for _ in viz.track(range(overfit_steps), overfit_steps, "steps"):
    loss, _, _ = learner(batch, torch.rand(4, 196), ratio)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
first_loss.compare(losses[0])
print(f"{cost.parameters(learner):,} parameters, loss {losses[0]:.2f} -> {losses[-1]:.2f}")

# %%
viz.lines(
    range(overfit_steps),
    {"loss": losses},
    "The loss over steps: it falls from above 1 to the level of one colour, then further down.",
    xlabel="step",
    ylabel="loss, normalised pixels",
    levels={"zero everywhere: nothing learned": 1, "one colour everywhere": brown},
)

# %% [markdown]
# An untrained model does *worse* than 1: to the target's variance of 1 it adds the variance of its own random output. The curve drops to the level of one colour, pauses, and falls
# again when the model finds out what goes where. Below, it gets a new mask, and a flower it was not trained on. The *mosaic* is what a model that learned nothing would show.

# %%
shown = {}
noise = torch.rand(1, 196, generator=torch.Generator().manual_seed(seed + 1000))
for name in ("cat", "flower"):
    x = (photos[name] - mean) / std
    with torch.no_grad():
        loss, predicted, hidden = learner.eval()(x, noise, ratio)
    patches = geometry.patchify(x)
    middle, deviation = patches.mean(-1, keepdim=True), patches.std(-1, keepdim=True)
    nothing = torch.where(hidden[..., None], middle, patches)
    pasted = torch.where(hidden[..., None], predicted * deviation + middle, patches)
    shown |= {
        f"{name}, mosaic": to_picture(nothing),
        f"overfitted: {loss:.2f}": to_picture(pasted),
    }
viz.pictures(
    shown,
    "Cat and flower, each with its holes filled with the mean brightness of each patch, the mosaic that "
    "needs no model, and filled by the overfitted model. It reconstructs the cat; on the flower it fails.",
    height=1.3,
)

# %% [markdown]
# The cat returns, even where nothing was visible. The flower does not; it even gets the cat's eye. The test is passed, and nothing general was learned. Lesson 03 pre-trains your MAE on many pictures.
#
# ## ViT, MAE and VideoMAE
#
# The classic ViT is an encoder alone, trained with labels on all its patches. MAE keeps that encoder and adds a decoder for pre-training; VideoMAE does the same with clips.
# `meta` tensors have shapes but no memory, so models of published size cost nothing here.

# %%
# NBVAL_CHECK_OUTPUT
from vmae.mae import MaskedAutoencoder

with torch.device("meta"):
    yours = MAE().to("meta")  # the published ViT-B
    official = MaskedAutoencoder(published)
    videomae = MaskedAutoencoder(ModelConfig.videomae("B")).to("meta")
    tokens = videomae.encoder.forward_features(torch.empty(1, 3, 16, 224, 224))
assert cost.parameters(yours) == cost.parameters(official)
assert cost.parameters(yours) == 111_655_680 and tokens.shape == (1, 1568, 768)
assert yours.pos_embed.shape == (1, 1 + 196, 768) and ids_keep.shape == (2, 49)
print(f"your MAE, ViT-B: {cost.parameters(yours):,} parameters, as the package's")
print(
    f"VideoMAE, ViT-B: {cost.parameters(videomae):,} parameters, {tokens.shape[1]} tokens per clip"
)

# %% [markdown]
# | | classic ViT-B/16 | MAE | VideoMAE |
# |---|---|---|---|
# | a token is | a patch (圖塊) of 16x16, 768 values | the same | a *tubelet* (時空立方體) of 2x16x16, 1536 values |
# | tokens of an input | 196 + class token | 196 + class token | 8·14·14 = 1568 |
# | the encoder sees, in pre-training | all of them | 25 % | 10 % |
# | class token | yes | yes, in both halves; no loss on it | none |
# | positions | learned | fixed sin-cos, rows and columns | fixed sin-cos, one flat index |
# | trained by | labels | pixels of hidden patches, then labels | pixels of hidden tubelets, then labels |
#
# ## The Transformer of 2017
#
# The first Transformer translates. Its encoder reads a whole sentence; its decoder writes another, word by word, and has two kinds of attention: *masked
# self-attention* (遮罩自注意力) on the words written so far, under a *causal mask* (因果遮罩), and *cross-attention* (交叉注意力) to the encoder's output. T5 and BART
# keep this design, with halves of equal depth. In MAE, *encoder* and *decoder* mean something else.

# %%
diagrams.transformers(ModelConfig.mae("L"), ModelConfig.mae("L"))

# %% [markdown]
# *Figure: three transformers to scale, ViT and MAE in size L. MAE's decoder (orange) is shallower and narrower than its encoder (blue), and is thrown away.*
#
# Check it: output i depends on input j exactly if its gradient with respect to j is not zero. Here are a tiny Transformer from six words to five, and your MAE with 12 of 16 patches hidden.


# %%
# NBVAL_CHECK_OUTPUT
def depends(outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """(O, I) bool: whether each of outputs (1, O, K) depends on each of inputs (1, I, ...)."""
    rows = []
    for output in outputs[0]:
        probe = output @ torch.randn(len(output))
        (gradient,) = torch.autograd.grad(probe, inputs, retain_graph=True)
        rows.append(gradient[0].flatten(1).abs().sum(1) > 0)  # (I,)
    return torch.stack(rows)


torch.manual_seed(seed)
translator = nn.Transformer(32, 4, 2, 2, 64, dropout=0.0, batch_first=True)
causal = nn.Transformer.generate_square_subsequent_mask(5)  # (5, 5)
words = torch.randn(1, 6 + 5, 32, requires_grad=True)
read_words = translator.encoder(words[:, :6])
written = translator.decoder(words[:, 6:], read_words, tgt_mask=causal)
transformer = depends(torch.cat((read_words, written), dim=1), words)  # (11, 11)

tiny = MAE(img_size=8, patch_size=2, embed_dim=32, depth=2, num_heads=4,
           decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=4)  # fmt: skip
patches = torch.randn(1, 16, 12, requires_grad=True)
images = tiny.unpatchify(patches)  # (1, 3, 8, 8)
order = torch.arange(16)[None] / 16  # no shuffle: keeps the first patches
everything, _, _ = tiny.forward_encoder(images, order, 0.0)
latents, hidden, ids_restore = tiny.forward_encoder(images, order, 0.75)
predicted = tiny.forward_decoder(latents, ids_restore)
vit = depends(everything, patches)  # (17, 16)
mae = torch.cat((depends(latents, patches), depends(predicted, patches)))  # (5 + 16, 16)

counts = {
    "Transformer, decoder on its own words": transformer[6:, 6:],
    "ViT, all tokens on all patches": vit,
    "MAE, all tokens on all patches": mae,
}
for name, matrix in counts.items():
    print(f"{name}: {matrix.sum().item()} of {matrix.numel()} pairs")
assert transformer[6:, :6].all() and torch.equal(transformer[6:, 6:], torch.ones(5, 5).tril() > 0)
assert transformer[:6, :6].all() and not transformer[:6, 6:].any()
assert vit.all() and mae[:, :4].all() and not mae[:, 4:].any()

# %%
viz.dependence(
    {"Transformer, 2017": (transformer, 6), "ViT": (vit, 17), "MAE": (mae, 5)},
    "Three matrices, outputs down and inputs across. Transformer: the encoder's rows depend on the "
    "encoder's six words, the decoder's on these and, in a triangle, on their own. ViT: every row on "
    "every patch. MAE: every row, of encoder and decoder, on the four visible patches alone.",
)

# %% [markdown]
# The triangle is the causal mask, the block to its left cross-attention. MAE has neither: its decoder is made of encoder blocks, and latents and mask tokens share one sequence. No output depends
# on a hidden patch, so none can copy the answer.
#
# | | Transformer, T5, BART | MAE, VideoMAE |
# |---|---|---|
# | the encoder sees | the whole input | the visible patches only |
# | the decoder reads | the words written so far | the latents and all mask tokens at once |
# | they meet | by cross-attention in every layer | by one linear layer and one sequence |
# | attention in the decoder | causal | over everything |
# | output | one word after another | all hidden pixels in one pass |
# | sizes | alike (2017: 6 and 6 layers of 512) | *asymmetric* (非對稱): large, then small |
# | after training | both halves are used | the decoder is thrown away |
#
# A ViT is sometimes called "symmetric" by contrast. It has no decoder to be symmetric to; what is symmetric is the translator.
#
# ## Open questions
#
# **1.** MAE reconstructs pixels, BERT predicts words. What makes a good target, and what would you expect if MAE had to predict the *mean colour* of each hidden patch?
#
# <details><summary>What a good answer contains</summary>
#
# A word is already a meaningful unit, chosen among some thirty thousand; a pixel is not. Predicting the mean colour keeps the layout and drops texture: interpolation does it almost
# as well as the model above, so there is less to learn from. An experiment that would decide: train twice, with the same budget, and compare a classifier on both encoders (as lesson 03 does), not the
# losses, whose targets differ.
#
# </details>
#
# **2.** The encoder never meets a mask token. What would change, in cost and in what it learns, if it did? And what happens when the trained encoder is used on whole pictures?
#
# <details><summary>What a good answer contains</summary>
#
# Cost: you measured it above. Learning: part of every layer would handle tokens that carry no picture, and that disappear when the encoder is used, a mismatch between pre-training and use
# (BERT has it, and keeps some of the selected words unmasked for that reason). MAE has another mismatch: it is trained on 49 patches and used on 196. Attention takes any number of tokens, so this works, and the paper's results show that it works well.
#
# </details>
#
# ## Misconceptions
#
# | a common misconception | published | where you ran it |
# |---|---|---|
# | hidden patches are filled with a mask token | only before the decoder; the encoder gets 49 patches | "The encoder" |
# | the output is compared with the whole original | on hidden patches only | "The loss" |
# | 313 or 314 visible at 90 % of 3136 | MAE's rounding gives 313, VideoMAE's 314 | "313 or 314 visible tokens" |
# | pixels from 0 to 255 are predicted | ImageNet-normalised pixels, standardised per patch if asked | "The target" |
# | the decoder needs all 196 in order | MAE restores the order; VideoMAE does not, with the same result | exercise 8 |
#
# ## Published and used here
#
# | paper | where | cell | value here | why smaller |
# |---|---|---|---|---|
# | random sampling, 75 % | MAE, section 3 | exercise 1 | 147 of 196 | as published |
# | encoder without mask tokens | MAE, section 3 | "The encoder" | counted for ViT-B | counted, not trained |
# | ViT-B; decoder of 8 blocks, width 512 | MAE, section 3 | "ViT, MAE and VideoMAE" | counted; run: 4 blocks of 160, 3 of 96 | 3.7 MB of weights |
# | normalised pixels | MAE, section 3 | exercise 5 | unbiased variance, 10⁻⁶ | as published |
# | loss on hidden patches | MAE, section 3 | exercise 6 | 147 patches | as published |
# | random, block, grid | MAE, figure 6 | "Other ratios" | errors on one picture | no ImageNet |
# | 800 epochs of ImageNet | MAE, section 4 | "Trained weights in your model" | six photos and a film | hours on two cores |
# | 6 + 6 layers of 512, causal mask | Transformer, section 3 | "The Transformer of 2017" | 2 + 2 layers of 32 | only the pattern matters |
#
# ## What you can do now
#
# - follow a picture through an MAE and name every shape on the way;
# - build the published model, load weights into it, and test it on one picture before training it on many;
# - say what a loss of 1.0 means, and what a pretty mosaic does not;
# - tell MAE's decoder from a translator's.
#
# ## Terms of this lesson
#
# | term | 中文 | meaning |
# |---|---|---|
# | autoencoder | 自編碼器 | learns to reproduce its input |
# | denoising autoencoder | 去噪自編碼器 | reproduces the clean input from a damaged one |
# | masked autoencoder | 遮罩自編碼器 | hides part of its input and learns to predict it |
# | contrastive learning | 對比學習 | learns which views belong to the same image |
# | augmentation | 資料增強 | a random change to the input, such as a crop |
# | encoder, decoder | 編碼器、解碼器 | from the input to latents; from latents to pixels |
# | latent representation | 潛在表示 | the encoder's output for a patch |
# | patch | 圖塊 | a square of pixels that becomes one token |
# | mask | 遮罩 | which patches are hidden |
# | class token | 分類詞元 | an extra token that stands for no patch |
# | mask token | 遮罩詞元 | one learned vector, used for every hidden patch |
# | unshuffle | 還原順序 | restore the original order of tokens |
# | position embedding | 位置編碼 | a vector that tells a token where it is |
# | normalised pixels | 像素正規化 | each patch with its mean and deviation taken out |
# | unbiased variance | 不偏變異數 | sum of squares divided by P - 1 |
# | mean squared error | 均方誤差 | the loss |
# | memorise | 記憶 | learn the training picture, and nothing about others |
# | causal mask | 因果遮罩 | no access to later words |
# | masked self-attention | 遮罩自注意力 | attention under a causal mask |
# | cross-attention | 交叉注意力 | queries from one sequence, keys and values from another |
# | asymmetric | 非對稱 | a large encoder, a small decoder |
# | tubelet | 時空立方體 | a patch with a length in time |
