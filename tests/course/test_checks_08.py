"""The checks of notebook 08: right answers pass in any style, wrong ones are diagnosed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from answers import assert_rejected, right_answers, wrong_answers
from conftest import random_clips, randomize
from einops import repeat

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


def asked_of(mask: Mask, tokens: int) -> torch.Tensor:
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
    ours = right.dual_mask(package.hidden(1568), asked_of(package, 1568))
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


# ---- right answers in other styles ---------------------------------------------------------------


def cell_by_loop(shape, ratio, start):
    t, h, w = shape
    out = torch.zeros(t, h, w, dtype=torch.bool)
    off = int(4 * ratio)
    for step in range(t):
        for row in range(h):
            for column in range(w):
                place = 2 * (row % 2) + column % 2
                out[step, row, column] = (place + start + 1 + step) % 4 >= off
    return out


def cell_by_einops(shape, ratio, start):
    t, h, w = shape
    queue = [False] * int(4 * ratio) + [True] * (4 - int(4 * ratio))
    cells = []
    for _ in range(start):
        queue = queue[1:] + queue[:1]
    for _ in range(t):
        queue = queue[1:] + queue[:1]
        cells.append(torch.tensor(queue).reshape(2, 2))
    return repeat(torch.stack(cells), "t p q -> t (h p) (w q)", h=h // 2, w=w // 2)


def mask_by_list(hidden, asked):
    def rows(pick):
        return torch.tensor([[i for i, x in enumerate(row) if x] for row in pick.tolist()])

    queries = rows(asked)
    lists = [[k for k, q in enumerate(row) if hidden[b, q]] for b, row in enumerate(queries)]
    return Mask(rows(~hidden), queries, torch.tensor(lists))


def mask_by_sorting(hidden, asked):
    def first(flags, count):
        return flags.byte().argsort(dim=1, descending=True, stable=True)[:, :count]

    queries = first(asked, int(asked[0].sum()))
    counts = torch.take_along_dim(hidden, queries, 1)
    visible = first(~hidden, int((~hidden)[0].sum()))
    return Mask(visible, queries, first(counts, int(counts[0].sum())))


def loss_by_boolean(predictions, goals, hidden, queries):
    predicted, expected = [], []
    for b, row in enumerate(queries):
        counts = hidden[b][row]
        predicted.append(predictions[b][counts])
        expected.append(goals[b][row[counts]])
    return F.mse_loss(torch.cat(predicted), torch.cat(expected))


def loss_by_rows(predictions, goals, hidden, queries):
    rows = torch.arange(len(queries))[:, None]
    weight = hidden[rows, queries].double()
    error = ((predictions - goals[rows, queries]) ** 2).mean(dim=2).double()
    return ((weight * error).sum() / weight.sum()).float()


def parameters_on_meta(c, classes):
    with torch.device("meta"):
        return sum(p.numel() for p in VisionTransformer(c, classes).parameters())


@right_answers(
    {
        "running_cell": [cell_by_loop, cell_by_einops],
        "dual_mask": [mask_by_list, mask_by_sorting],
        "dual_loss": [loss_by_boolean, loss_by_rows],
        "classifier_parameters": [parameters_on_meta],
    }
)
def test_right_answers_in_other_styles_pass(name, answer):
    assert verdict(ALL[f"08.{name}"], answer) is None


# ---- wrong answers, as a learner would write them ------------------------------------------------------


def cell_of_zeros(shape, ratio, start):
    t, h, w = shape
    queue = torch.tensor([1] * int(4 * ratio) + [0] * (4 - int(4 * ratio)))
    cells = [torch.roll(queue, -(start + 1 + step)).reshape(2, 2) for step in range(t)]
    return torch.stack([torch.tile(cell, (h // 2, w // 2)) for cell in cells]).bool()


def cell_as_numbers(shape, ratio, start):
    return cell_by_loop(shape, ratio, start).long()


def one_period(shape, ratio, start):
    return cell_by_loop((4, *shape[1:]), ratio, start)


def cell_from_the_first_step(shape, ratio, start):
    t, h, w = shape
    queue, out = torch.arange(4) >= int(4 * ratio), []
    for step in range(t):
        out.append(queue.roll(-(start + step)).view(2, 2).repeat(h // 2, w // 2))
    return torch.stack(out)


def misconceived(hidden, asked):
    """Takes tokens away from the encoder if the decoder is not queried for them."""
    mask = mask_by_list(hidden, asked)
    return Mask(mask_by_list(hidden | ~asked, asked).visible, mask.queries, mask.targets)


def without_overlap(hidden, asked):
    mask = mask_by_list(hidden, asked & hidden)
    return Mask(
        mask.visible, mask.queries, torch.arange(mask.queries.shape[1]).expand_as(mask.queries)
    )


def loss_of_all(predictions, goals, hidden, queries):
    return F.mse_loss(predictions, right.gather_tokens(goals, queries))


def loss_of_the_paper(predictions, goals, hidden, queries):
    rows = torch.arange(len(queries))[:, None]
    return (((predictions - goals[rows, queries]) ** 2).mean(-1) * hidden[rows, queries]).mean()


def with_key_bias(c, classes):
    return parameters_on_meta(c, classes) + c.depth * c.embed_dim


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
        ],
        "dual_mask": [
            (misconceived, "does not reduce the encoder's input"),
            (without_overlap, "exclude them only from the loss"),
            (lambda h, a: mask_by_list(~h, a), "visible and hidden tokens are swapped"),
            (lambda h, a: mask_by_list(h, ~a), "the queries are taken where `asked` is False"),
            (lambda h, a: mask_by_list(h, a).visible, "expected"),
        ],
        "dual_loss": [
            (loss_of_all, "averaged over all queries"),
            (loss_of_the_paper, "divided by the total number of queries"),
            (lambda *case: loss_by_rows(*case) * 24, "summed over pixels"),
            (lambda *case: loss_by_rows(*case).sqrt(), "do not take the square root"),
        ],
        "classifier_parameters": [
            (with_key_bias, "VideoMAE has no key bias"),
            (of_the_encoder, "the head is missing"),
            (lambda c, n: c.depth * 12 * c.embed_dim**2, "got .*; expected"),
        ],
    }
)
def test_wrong_answers_get_the_right_message(name, answer, words):
    assert_rejected(ALL[f"08.{name}"], answer, words)
