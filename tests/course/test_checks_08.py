"""The checks of notebook 08: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from answers import assert_rejected, right_answers, wrong_answers
from conftest import random_clips, randomize
from styles_08 import (
    RIGHT,
    ModelOnAllPlaces,
    cell_by_loop,
    loss_by_rows,
    mask_by_list,
    parameters_on_meta,
)

from vmae.config import MaskConfig, ModelConfig
from vmae.cost import parameters
from vmae.course.checks import exercises, verdict
from vmae.course.checks import notebook_08 as right
from vmae.grid import TokenGrid
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import Mask, make_mask, running_cell_maps
from vmae.vit import VisionTransformer

ALL = exercises("08")
B16 = TokenGrid((16, 224, 224), (2, 16, 16))
V2 = MaskConfig("tube", 0.9, None, "running-cell", 0.5)

pytestmark = pytest.mark.usefixtures("drawn")


def queried_of(mask: Mask, tokens: int) -> torch.Tensor:
    return torch.zeros(len(mask.queries), tokens, dtype=torch.bool).scatter(1, mask.queries, True)


# ---- the exercises themselves --------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_package_queries_the_same_positions(ratio):
    for start, queries in enumerate(running_cell_maps(B16, ratio)):
        ours = right.running_cell(B16.shape, ratio, start)
        assert torch.equal(ours.flatten().nonzero()[:, 0], queries)


@pytest.mark.parametrize(
    ("decoder", "share", "counts"),
    [
        ("running-cell", 0.5, (160, 784, 704)),
        ("running-cell", 0.25, (160, 1176, 1056)),
        ("running-cell", 0.75, (160, 392, 352)),
        ("frame", 0.5, (160, 784, 704)),
        ("all", 0.0, (160, 1408, 1408)),
    ],
)
def test_the_package_has_the_same_indices(decoder, share, counts):
    package = make_mask(MaskConfig("tube", 0.9, None, decoder, share), B16, 3)
    ours = right.dual_mask(package.hidden(1568), queried_of(package, 1568))
    for name, count in zip(("visible", "queries", "targets"), counts, strict=True):
        assert torch.equal(getattr(ours, name), getattr(package, name))
        assert getattr(ours, name).shape == (3, count)


def test_the_package_has_the_same_loss(tiny):
    model = randomize(MaskedAutoencoder(tiny)).eval()
    clips, n = random_clips(tiny, 3), tiny.grid.num_tokens
    mask = make_mask(V2.replace(mask_ratio=0.75), tiny.grid, 3)
    tokens = torch.arange(n).expand(3, -1)
    answer_all = Mask(mask.visible, mask.queries, torch.arange(n // 2).expand(3, -1))
    with torch.no_grad():
        goals = pixel_targets(clips, Mask(mask.visible, tokens, tokens), model.config)
        ours = right.dual_loss(model(clips, answer_all), goals, mask.hidden(n), mask.queries)
        torch.testing.assert_close(ours, model.loss(clips, mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "S", "B", "L", "H", "g"])
def test_the_package_has_the_same_number_of_parameters(name):
    c = ModelConfig.videomae(name)
    with torch.device("meta"):
        assert right.classifier_parameters(c, 400) == parameters(VisionTransformer(c, 400))


@right_answers(RIGHT)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[name], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def cell_of_zeros(shape, ratio, start):
    t, h, w = shape
    queue = torch.tensor([1] * int(4 * ratio) + [0] * (4 - int(4 * ratio)))
    cells = [torch.roll(queue, -(start + 1 + step)).reshape(2, 2) for step in range(t)]
    return torch.stack([torch.tile(cell, (h // 2, w // 2)) for cell in cells]).bool()


def cell_as_numbers(shape, ratio, start):
    return cell_by_loop(shape, ratio, start).long()


def cell_rolled_again(shape, ratio, start):
    t, h, w = shape
    queue, out = torch.arange(4) >= int(4 * ratio), []
    for step in range(t):
        queue = queue.roll(-(start + 1 + step))
        out.append(queue.view(2, 2).repeat(h // 2, w // 2))
    return torch.stack(out)


def one_period(shape, ratio, start):
    return cell_by_loop((4, *shape[1:]), ratio, start)


def cell_from_the_first_step(shape, ratio, start):
    t, h, w = shape
    queue, out = torch.arange(4) >= int(4 * ratio), []
    for step in range(t):
        out.append(queue.roll(-(start + step)).view(2, 2).repeat(h // 2, w // 2))
    return torch.stack(out)


class AllQueries(MaskedAutoencoder):
    def forward(self, clips, mask):
        every = torch.arange(mask.queries.shape[1]).expand_as(mask.queries)
        return super().forward(clips, Mask(mask.visible, mask.queries, every))


class OfTheMask(MaskedAutoencoder):
    """Another forward for a changed mask."""

    def forward(self, clips, mask):
        return super().forward(clips, self.changed(mask))


class NoQueriesOnVisible(OfTheMask):
    def changed(self, mask):
        count = mask.targets.shape[1]
        return Mask(mask.visible, mask.target_tokens, torch.arange(count).expand_as(mask.targets))


class SeesAll(OfTheMask):
    def changed(self, mask):
        every = torch.arange(self.grid.num_tokens).expand(len(mask.visible), -1)
        return Mask(every, mask.queries, mask.targets)


class LastTokens(AllQueries):
    def forward(self, clips, mask):
        return super().forward(clips, mask)[:, -mask.targets.shape[1] :]


class WithoutOffset(MaskedAutoencoder):
    def forward(self, clips, mask):
        x = self.encoder_to_decoder(self.encoder.forward_features(clips, mask.visible))
        x = x + self.decoder_pos_embed[mask.visible]
        x = torch.cat((x, self.mask_token + self.decoder_pos_embed[mask.queries]), dim=1)
        for block in self.decoder.blocks:
            x = block(x)
        return self.decoder.head(self.decoder.norm(right.take(x, mask.targets)))


class WithoutPositions(ModelOnAllPlaces):
    def forward(self, clips, mask):
        first = mask.visible.shape[1]
        x = self.encoder.forward_features(clips, mask.visible)
        x = self.encoder_to_decoder(x) + self.decoder_pos_embed[mask.visible]
        x = torch.cat([x, self.mask_token.expand(*mask.queries.shape, -1)], dim=1)
        for block in self.decoder.blocks:
            x = block(x)
        return self.decoder.head(self.decoder.norm(right.take(x, first + mask.targets)))


class TokensAsIndices(MaskedAutoencoder):
    def forward(self, clips, mask):
        return super().forward(clips, Mask(mask.visible, mask.queries, mask.target_tokens))


class Renamed(MaskedAutoencoder):
    def __init__(self, config):
        super().__init__(config)
        self.projection = self.encoder_to_decoder
        del self.encoder_to_decoder


def misconceived(hidden, queried):
    """Takes tokens away from the encoder if the decoder is not queried for them."""
    mask = mask_by_list(hidden, queried)
    return Mask(mask_by_list(hidden | ~queried, queried).visible, mask.queries, mask.targets)


def without_overlap(hidden, queried):
    mask = mask_by_list(hidden, queried & hidden)
    return Mask(
        mask.visible, mask.queries, torch.arange(mask.queries.shape[1]).expand_as(mask.queries)
    )


def planted_bug(predictions, goals, hidden, queries):
    error = (predictions - right.take(goals, queries)).square().mean(-1)
    counts = hidden[:, : queries.shape[1]]
    return (error * counts).sum() / counts.sum()


def loss_of_the_last_tokens(predictions, goals, hidden, queries):
    error = (predictions - right.take(goals, queries)).square().mean(-1)
    counts = hidden[:, -queries.shape[1] :]
    return (error * counts).sum() / counts.sum()


def loss_of_all(predictions, goals, hidden, queries):
    return F.mse_loss(predictions, right.take(goals, queries))


def loss_of_the_paper(predictions, goals, hidden, queries):
    rows = torch.arange(len(queries))[:, None]
    return (((predictions - goals[rows, queries]) ** 2).mean(-1) * hidden[rows, queries]).mean()


def with_key_bias(c, classes):
    return parameters_on_meta(c, classes) + c.depth * c.embed_dim


def counted(c, classes, attention=3, mlp=True, norms=4):
    d, inner = c.embed_dim, int(c.embed_dim * c.mlp_ratio)
    block = 4 * d * d + attention * d + 2 * d * inner + mlp * (inner + d) + norms * d
    return c.grid.token_dim * d + d + c.depth * block + 2 * d + d * classes + classes


def of_the_encoder(c, classes):
    with torch.device("meta"):
        return sum(p.numel() for p in VisionTransformer(c).parameters())


@wrong_answers(
    {
        "running_cell": [
            (cell_of_zeros, "the map is inverted"),
            (cell_as_numbers, "the dtype is torch.int64; expected torch.bool"),
            (one_period, r"the shape is \(4, 4, 6\); expected \(8, 4, 6\)"),
            (cell_from_the_first_step, "one step behind"),
            (lambda s, r, k: cell_by_loop(s, 1 - r, k), "it is the fraction not queried"),
            (lambda s, _, k: cell_by_loop(s, 0.5, k), "`ratio` is ignored"),
            (cell_rolled_again, "the rolls add up"),
        ],
        "dual_mask": [
            (misconceived, "does not reduce the encoder's input"),
            (without_overlap, "exclude them only from the loss"),
            (lambda h, a: mask_by_list(~h, a), "visible and hidden tokens are swapped"),
            (lambda h, a: mask_by_list(h, ~a), "the queries are taken where `queried` is False"),
            (lambda h, a: mask_by_list(h, a).visible, "expected"),
            (
                lambda h, a: Mask(
                    right._columns(h), *(mask_by_list(h, a).queries, mask_by_list(h, a).targets)
                ),
                "`visible` lists the hidden tokens",
            ),
        ],
        "DualMasked": [
            (AllQueries, r"all queries are returned: keep the targets only"),
            (NoQueriesOnVisible, "queries on visible tokens stay in the sequence"),
            (WithoutOffset, "add V to mask.targets"),
            (WithoutPositions, "the mask tokens have no positions"),
            (SeesAll, "the encoder sees all tokens"),
            (LastTokens, "the last M tokens are returned"),
            (TokensAsIndices, "it raises .*out of bounds|index"),
            (Renamed, "`projection` must be called `encoder_to_decoder`|encoder_to_decoder"),
        ],
        "dual_loss": [
            (planted_bug, "the right number of queries counts, but not the right ones"),
            (loss_of_the_last_tokens, "the right number of queries counts, but not the right ones"),
            (loss_of_all, "averaged over all queries"),
            (loss_of_the_paper, "divided by the total number of queries"),
            (lambda *case: loss_by_rows(*case) * 24, "summed over pixels"),
            (lambda *case: loss_by_rows(*case).sqrt(), "do not take the square root"),
        ],
        "classifier_parameters": [
            (with_key_bias, "VideoMAE has no key bias"),
            (of_the_encoder, "the head is missing"),
            (lambda c, n: c.depth * 12 * c.embed_dim**2, "got .*; expected"),
            (lambda c, n: counted(c, n, norms=2), "half of the norms'"),
            (lambda c, n: counted(c, n, attention=1), "of queries and values"),
            (lambda c, n: counted(c, n, attention=0), "the attention has no biases"),
            (lambda c, n: counted(c, n, mlp=False), "the MLP has no biases"),
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"08.{name}"], answer, words)
