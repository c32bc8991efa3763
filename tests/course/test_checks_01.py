"""Exercises of lesson 01: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from answers import assert_rejected, right_answers, wrong_answers
from einops import einsum, rearrange
from styles_01 import RIGHT, patchify_by_loops, positions_by_columns
from torch import nn

from vmae import layers, vit
from vmae.config import ModelConfig
from vmae.course import viz
from vmae.course.checks import exercises, notebook_01, verdict
from vmae.course.checks.notebook_01 import Attention, Block, TorchAttention, VisionTransformer

EXERCISES = exercises("01")


pytestmark = pytest.mark.usefixtures("drawn")


def test_there_are_answers_for_every_exercise():
    assert set(RIGHT) == set(EXERCISES) == set(WRONG)


@right_answers(RIGHT)
def test_right_answers_pass_in_any_style_and_are_drawn(name, answer, drawn):
    assert verdict(EXERCISES[name], EXERCISES[name].reference) is None
    assert verdict(EXERCISES[name], answer) is None
    assert len(drawn) == 2, "each answer is drawn once"


# ---- wrong answers ---------------------------------------------------------------------------------


def channels_first(images, side):
    b, c, height, width = images.shape
    x = images.reshape(b, c, height // side, side, width // side, side)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * side * side)


def strips(images, side):
    return images.permute(0, 2, 3, 1).reshape(len(images), -1, side * side * images.shape[1])


def one_patch_lost(images, side):
    return patchify_by_loops(images, side)[:, :-1]


def over_queries(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum(-2, keepdim=True)
    return weights @ v, weights


def unscaled(q, k, v):
    weights = F.softmax(einsum(q, k, "b h n d, b h m d -> b h n m"), dim=-1)
    return weights @ v, weights


def only_output(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def square_only(q, k, v):
    q = q * k.shape[-1] ** -0.5
    weights = (q @ k.mT).softmax(-1)[..., : k.shape[2], : q.shape[2]]
    return weights @ v, weights


def unfolded(images, side):
    x = images.unfold(2, side, side).unfold(3, side, side)  # (b, c, h, w, p, q)
    return x.reshape(len(images), -1, side * side * images.shape[1])


def over_images(q, k, v):
    weights = F.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=0)
    return weights @ v, weights


def scaled_by_heads(q, k, v):
    weights = F.softmax(q @ k.mT / q.shape[1] ** 0.5, dim=-1)
    return weights @ v, weights


def scores_returned(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v, scores


class HeadsByReshape(Attention):
    def forward(self, x):
        b, n, width = x.shape
        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.reshape(b, self.num_heads, n, -1) for part in parts)
        return self.proj(F.scaled_dot_product_attention(q, k, v).reshape(b, n, width))


class HeadsByReshapeThenTransposed(Attention):
    def forward(self, x):
        b, n, _ = x.shape
        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.reshape(b, self.num_heads, n, -1) for part in parts)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class HeadsNotTransposed(Attention):
    def forward(self, x):
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).reshape(b, n, width))


class HeadsInterleaved(Attention):
    def forward(self, x):
        q, k, v = rearrange(
            self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        x = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (d h)")
        return self.proj(x)


class TokensAsHeads(Attention):
    def forward(self, x):
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, -1).unbind(2)  # (b, n, heads, d)
        return self.proj(F.scaled_dot_product_attention(q, k, v).reshape(b, n, width))


class NotProjected(Attention):
    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b n (c h d) -> c b h n d", c=3, h=self.num_heads)
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


class ThreeLayers(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(embed_dim, embed_dim) for _ in range(4))


class NoBias(Attention):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)


class Published2017(Block):
    def forward(self, x):
        return self.norm2((y := self.norm1(x + self.attn(x))) + self.mlp(y))


class SecondHalfOf2017(Block):
    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return self.norm2(x + self.mlp(x))


class NoResidual(Block):
    def forward(self, x):
        return self.mlp(self.norm2(self.attn(self.norm1(x))))


class NormKeptOnThePath(Block):
    def forward(self, x):
        x = self.norm1(x)
        x = x + self.attn(x)
        x = self.norm2(x)
        return x + self.mlp(x)


class InPlace(Block):
    def forward(self, x):
        x += self.attn(self.norm1(x))
        x += self.mlp(self.norm2(x))
        return x


class NothingReturned(Block):
    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        x + self.mlp(self.norm2(x))


class AttentionLost(Block):
    def forward(self, x):
        y = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(y))


class NormsSwapped(Block):
    def forward(self, x):
        y = self.attn(self.norm2(x)) + x
        return self.mlp(self.norm1(y)) + y


class OneNorm(Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        del self.norm2

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm1(x))


class OneNormOfAnotherName(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.attn = Attention(embed_dim, num_heads)
        self.mlp = layers.MLP(embed_dim, 4 * embed_dim)


class SequentialMLP(Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        wide = 4 * embed_dim
        self.mlp = nn.Sequential(nn.Linear(embed_dim, wide), nn.GELU(), nn.Linear(wide, embed_dim))


class SmallMLP(Block):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.mlp = layers.MLP(embed_dim, embed_dim)


def halves(n, width):
    table = positions_by_columns(n, width)
    return torch.cat((table[:, 0::2], table[:, 1::2]), dim=1)


def swapped(n, width):
    return positions_by_columns(n, width).unflatten(1, (-1, 2)).flip(-1).flatten(1)


def own_rates(n, width):
    angles = torch.arange(n)[:, None] / 10000 ** (torch.arange(width) / width)
    angles[:, 0::2], angles[:, 1::2] = angles[:, 0::2].sin(), angles[:, 1::2].cos()
    return angles


def doubled_twice(n, width):
    k = torch.arange(0, width, 2)
    angles = torch.arange(n)[:, None] / 10000 ** (2 * k / width)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def doubled_column(n, width):
    table = torch.arange(n)[:, None] / 10000 ** (2 * torch.arange(width) / width)
    table[:, 0::2], table[:, 1::2] = table[:, 0::2].sin(), table[:, 1::2].cos()
    return table


def multiplied(n, width):
    angles = torch.arange(n)[:, None] * 10000 ** (2 * torch.arange(width // 2) / width)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def too_narrow(n, width):
    return positions_by_columns(n, width)[:, : width // 2]


def double(n, width):
    return positions_by_columns(n, width).double()


class PositionsAfter(VisionTransformer):
    def forward(self, images):
        x = torch.cat((self.cls_token.expand(len(images), -1, -1), self.patch_embed(images)), 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x + self.pos_embed)[:, 0])


class MeanOfTokens(VisionTransformer):
    def forward(self, images):
        return self.head(self.norm(self.encode(self.embed(images))).mean(1))


class ClassTokenLastButFirstRead(VisionTransformer):
    def forward(self, images):
        x = torch.cat((self.patch_embed(images), self.cls_token.expand(len(images), -1, -1)), 1)
        return self.head(self.norm(self.encode(x + self.pos_embed))[:, 0])


class ListOfBlocks(VisionTransformer):
    def __init__(self, depth, embed_dim, num_heads, **others):
        super().__init__(depth=depth, embed_dim=embed_dim, num_heads=num_heads, **others)
        del self.blocks
        self.blocks = [Block(embed_dim, num_heads) for _ in range(depth)]


class OneBlock(VisionTransformer):
    def __init__(self, depth, embed_dim, num_heads, **others):
        super().__init__(depth=depth, embed_dim=embed_dim, num_heads=num_heads, **others)
        self.blocks = nn.ModuleList([Block(embed_dim, num_heads)] * depth)


class PlainPositions(VisionTransformer):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        table = self.pos_embed.data
        del self.pos_embed
        self.pos_embed = table


class NoPlaceForTheClassToken(VisionTransformer):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.pos_embed = nn.Parameter(self.pos_embed.data[:, 1:])


class ClassTokenForOneImage(VisionTransformer):
    def forward(self, images):
        return self.head(torch.cat((self.cls_token, self.patch_embed(images)), dim=1))


def looped(body):
    """A training loop with `body` run for each batch, in the words a learner writes."""

    def train(model, batches, optimizer, scheduler):
        model.train()
        losses = []
        space = {"F": F, "torch": torch, "losses": losses, "model": model}
        for x, y in batches:
            space |= {"x": x, "y": y, "optimizer": optimizer, "scheduler": scheduler}
            exec(body, space)
        return losses

    return train


STEP = "loss.backward(); optimizer.step(); scheduler.step(); losses.append(loss.item())"
ZERO = "optimizer.zero_grad(); "
LOSS = "loss = F.cross_entropy(model(x), y); "
GRAPH = "loss.backward(); optimizer.step(); scheduler.step(); losses.append(loss)"


def steps_once(model, batches, optimizer, scheduler):
    body = ZERO + LOSS + STEP.replace("scheduler.step(); ", "")
    losses = looped(body)(model, batches, optimizer, scheduler)
    scheduler.step()
    return losses


def returns_early(model, batches, optimizer, scheduler):
    for x, y in batches:
        return looped(ZERO + LOSS + STEP)(model, [(x, y)], optimizer, scheduler)


def returns_a_tensor(model, batches, optimizer, scheduler):
    return torch.tensor(looped(ZERO + LOSS + STEP)(model, batches, optimizer, scheduler))


def returns_nothing(model, batches, optimizer, scheduler):
    looped(ZERO + LOSS + STEP)(model, batches, optimizer, scheduler)


class Unfixed(nn.Module):
    """Transposed, and told about it: back where it began."""

    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.attend = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def forward(self, x):
        x = x.transpose(0, 1)
        return self.attend(x, x, x)[0].transpose(0, 1)


class TransposedOnce(TorchAttention):
    def forward(self, x):
        x = x.transpose(0, 1)
        return self.attend(x, x, x)[0]


class Tuple(TorchAttention):
    def forward(self, x):
        return self.attend(x, x, x)


class Flattened(TorchAttention):
    def forward(self, x):
        flat = x.reshape(1, -1, x.shape[-1])
        return self.attend(flat, flat, flat)[0].reshape(x.shape)


class Reshaped(TorchAttention):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads)
        self.attend.batch_first = False

    def forward(self, x):
        b, n, width = x.shape
        x = x.reshape(n, b, width)
        return self.attend(x, x, x)[0].reshape(b, n, width)


class FirstToken(TorchAttention):
    def forward(self, x):
        return self.attend(x, x[:, :1], x[:, :1])[0]


class ClassTokenAlone(TorchAttention):
    def forward(self, x):
        return self.attend(x[:, :1], x, x)[0]


WRONG = {
    "01.patchify": [
        (channels_first, "the channel varies slowest within each patch"),
        (strips, "the shape is correct, but"),
        (one_patch_lost, r"the shape is \(2, 23, 432\); expected \(2, 24, 432\)"),
        (lambda images, side: images.view(2, -1, side, side), "the shape is"),
        (unfolded, "each row holds patches of one channel alone"),
    ],
    "01.attention": [
        (unscaled, "the scores are not scaled"),
        (over_queries, "the softmax is taken over the queries"),
        (over_images, "the softmax is taken over the images, dim 0"),
        (scaled_by_heads, "computed from the number of heads"),
        (only_output, "got 1 value; expected 2 values"),
        (scores_returned, "the second result is the scores"),
        (square_only, "it raises RuntimeError"),
    ],
    "01.Attention": [
        (HeadsNotTransposed, "the head axis still before the token axis"),
        (HeadsByReshape, "no axis is moved"),
        (HeadsByReshapeThenTransposed, r"a reshape to \(B, heads, N, d\) mixes the tokens"),
        (HeadsInterleaved, "the heads' outputs are interleaved"),
        (TokensAsHeads, "the heads of a token attend to each other"),
        (NotProjected, "proj is never applied"),
        (ThreeLayers, "`q`, `k` and `v` are not on the card: it has `qkv` instead"),
        (NoBias, "`qkv` has no bias"),
        (Attention(8, 2), "pass the class"),
    ],
    "01.Block": [
        (Published2017, "the block is post-norm"),
        (SecondHalfOf2017, "norm2 is applied to the sum"),
        (NoResidual, "both residual connections are missing"),
        (NormKeptOnThePath, "the residual path itself is normalised"),
        (InPlace, "modified by an inplace operation"),
        (NothingReturned, "is the `return` missing"),
        (NormsSwapped, "norm1 and norm2 are swapped"),
        (AttentionLost, "the attention output is lost"),
        (SequentialMLP, "`mlp.0` must be called `mlp.fc1`"),
        (OneNormOfAnotherName, "`norm` is not on the card: it has `norm1` and `norm2` instead"),
        (OneNorm, "there is no `norm2.weight`"),
        (SmallMLP, r"`mlp.fc1.weight` has shape \(12, 12\); expected \(48, 12\)"),
    ],
    "01.sincos_1d": [
        (halves, "the sines all come before the cosines"),
        (swapped, "sines and cosines are swapped"),
        (own_rates, "every column has its own frequency"),
        (doubled_twice, "k counts pairs"),
        (doubled_column, "the exponent is computed from the column"),
        (multiplied, "the frequencies increase from pair to pair"),
        (too_narrow, r"the shape is \(64, 24\); expected \(64, 48\)"),
        (double, "the dtype is torch.float64; expected torch.float32"),
    ],
    "01.VisionTransformer": [
        (PositionsAfter, "the positions are added after the blocks"),
        (MeanOfTokens, "the head reads the mean of all tokens"),
        (ClassTokenLastButFirstRead, "the head reads the first patch"),
        (ListOfBlocks, "wrap the list in nn.ModuleList"),
        (OneBlock, "is one shared"),
        (PlainPositions, "`pos_embed` is a plain tensor"),
        (NoPlaceForTheClassToken, r"`pos_embed` has shape \(1, 16, 12\); expected \(1, 17, 12\)"),
        (ClassTokenForOneImage, "it raises RuntimeError: Sizes of tensors must match"),
    ],
    "01.train": [
        (looped(LOSS + STEP), "the gradients of all batches add up"),
        (looped(ZERO + LOSS + STEP.replace("optimizer.step(); ", "")), "the weights never change"),
        (
            looped(LOSS + STEP.replace("optimizer.step", "optimizer.zero_grad(); optimizer.step")),
            "the weights never change",
        ),
        (looped(ZERO + LOSS + STEP.replace("scheduler.step(); ", "")), "the learning rate never"),
        (
            looped(
                LOSS + "optimizer.step(); optimizer.zero_grad(); loss.backward(); scheduler.step()"
            ),
            r"optimizer.step\(\) comes between the model's forward pass and loss.backward",
        ),
        (looped("model.eval(); " + ZERO + LOSS + STEP), "the model stays in eval mode"),
        (looped(ZERO + LOSS.replace("model(x)", "model(x).softmax(1)") + STEP), "applied twice"),
        (looped(ZERO + LOSS.replace("model(x), y", "model(x).argmax(1), y") + STEP), "it raises"),
        (looped(ZERO + LOSS.replace("y)", "y, reduction='sum')") + STEP), "the sum over the batch"),
        (looped(ZERO + LOSS + GRAPH), "keeps the graph"),
        (
            looped(ZERO + LOSS.replace("model(x), y", "y, model(x)") + STEP),
            "takes the logits first",
        ),
        (steps_once, r"scheduler.step\(\) is called once"),
        (returns_early, "got 1 value|the loop ends after the first batch"),
        (returns_a_tensor, "the result is of type Tensor; return a list"),
        (returns_nothing, "is the `return` missing"),
    ],
    "01.TorchAttention": [
        (notebook_01.Suspect, "attention still runs over the images"),
        (Unfixed, "attention still runs over the images"),
        (TransposedOnce, r"an output of shape \(7, 4, 12\): transpose it back"),
        (Tuple, "forward returns a tuple"),
        (Flattened, "tokens of several images"),
        (Reshaped, r"a reshape does not swap two axes, transpose\(0, 1\) does"),
        (FirstToken, "every token sees the first token alone"),
        (ClassTokenAlone, r"the shape is \(4, 1, 12\); expected \(4, 7, 12\)"),
    ],
}


@wrong_answers(WRONG)
def test_wrong_answers_in_other_styles_get_the_right_message(name, answer, words):
    assert_rejected(EXERCISES[name], answer, words)


def test_a_list_of_tensors_brings_no_warning_of_the_check_itself(recwarn):
    torch.set_warn_always(True)  # or only the first of a process would be seen
    try:
        found = verdict(EXERCISES["01.train"], looped(ZERO + LOSS + GRAPH))
    finally:
        torch.set_warn_always(False)
    assert "append loss.item()" in found
    assert [str(warning.message) for warning in recwarn] == []


def test_the_references_are_the_packages_layers():
    torch.manual_seed(0)
    x = torch.randn(2, 7, 12)
    attend = layers.Attention(12, num_heads=3, key_bias=True)
    q, k, _ = rearrange(attend.qkv(x), "b n (three h d) -> three b h n d", three=3, h=3)
    assert torch.allclose(notebook_01.attention(q, k, k)[1], attend.weights(x), atol=1e-6)


def test_the_model_is_the_packages_classifier():
    config = ModelConfig.mae("tiny", img_size=8, channels=1, tubelet=(1, 2, 2))
    theirs = vit.VisionTransformer(config, num_classes=10).eval()
    state = theirs.state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
    state["pos_embed"] = F.pad(theirs.pos_embed, (0, 0, 1, 0))
    ours = VisionTransformer(8, 2, 1, config.embed_dim, config.depth, config.num_heads, 10)
    ours.load_state_dict(state)
    images = torch.rand(3, 1, 8, 8)
    standard = vit.normalize_pixels(images[:, 0, :, :, None], 1)[..., 0][:, None]
    assert torch.allclose(ours(standard), theirs(images[:, :, None]), atol=1e-6)


def test_tiles_put_patches_where_they_were_cut():
    image = torch.rand(1, 3, 24, 36, generator=torch.Generator().manual_seed(0))
    laid = viz.tiles(notebook_01.patchify(image, 12)[0], columns=3, channels=3)
    assert laid.shape == (24 + 2, 36 + 2 * 2, 3)
    assert torch.equal(laid[14:26, 28:40].permute(2, 0, 1), image[0, :, 12:24, 24:36])
    assert (laid[12:14] == 1).all() and (laid[:, 12:14] == 1).all()


def test_a_result_that_cannot_be_drawn_leaves_no_figure():
    message = verdict(EXERCISES["01.attention"], lambda *_: [torch.ones(1, 2, 2, 2, 2)] * 2)
    assert "the shape is" in message
    with pytest.raises(TypeError):
        viz.pictures({"odd": torch.ones(2, 2, 7)}, alt="nothing")
    assert plt.get_fignums() == []
