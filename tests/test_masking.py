"""Counts and invariants of every mask: MAE, VideoMAE V1 and V2, and the common misconceptions."""

from __future__ import annotations

import pytest
import torch

from vmae.base_config import ConfigError
from vmae.config import MASK_TYPES, MaskConfig
from vmae.grid import TokenGrid
from vmae.masking import MaskError, frame_maps, make_mask, register_mask, running_cell_maps

B16 = TokenGrid((16, 224, 224), (2, 16, 16))  # 8x14x14 = 1568 tokens
B32 = TokenGrid((32, 224, 224), (2, 16, 16))  # 3136
GIANT = TokenGrid((16, 224, 224), (2, 14, 14))  # 8x16x16 = 2048
IMAGE = TokenGrid((1, 224, 224), (1, 16, 16))  # 196
SINGLE = TokenGrid((16, 224, 224), (1, 16, 16))  # 3136 tokens of one frame each

CASES = {
    "MAE": (IMAGE, MaskConfig("random", 0.75), (49, 147, 147)),
    # MAE keeps int(L * (1 - ratio)) tokens; VideoMAE hides int(ratio * L)
    "MAE at 90 %": (IMAGE, MaskConfig("random", 0.9), (19, 177, 177)),
    "MAE, 49 tokens": (
        TokenGrid((1, 112, 112), (1, 16, 16)),
        MaskConfig("random", 0.75),
        (12, 37, 37),
    ),
    "V1": (B16, MaskConfig("tube", 0.9), (160, 1408, 1408)),
    "V1 at 75 %": (B16, MaskConfig("tube", 0.75), (392, 1176, 1176)),
    "V1 at 95 %": (B16, MaskConfig("tube", 0.95), (80, 1488, 1488)),
    "V1 at 50 %": (B16, MaskConfig("tube", 0.5), (784, 784, 784)),
    "random": (B16, MaskConfig("random", 0.9), (157, 1411, 1411)),
    "frame": (B16, MaskConfig("frame", 0.875), (196, 1372, 1372)),
    "giant": (GIANT, MaskConfig("tube", 0.9), (208, 1840, 1840)),
    "V2": (B16, MaskConfig("tube", 0.9, None, "running-cell", 0.5), (160, 784, 704)),
    "V2 at 25 %": (B16, MaskConfig("tube", 0.9, None, "running-cell", 0.25), (160, 1176, 1056)),
    "V2 at 75 %": (B16, MaskConfig("tube", 0.9, None, "running-cell", 0.75), (160, 392, 352)),
    "V2 frame": (B16, MaskConfig("tube", 0.9, None, "frame", 0.5), (160, 784, 704)),
    "V2 random": (B16, MaskConfig("tube", 0.9, None, "random", 0.5), (160, 784, 704)),
    "V2 with decoder ratio 0": (
        B16,
        MaskConfig("tube", 0.9, None, "running-cell", 0.0),
        (160, 1408, 1408),
    ),
    "misconception: random V1": (SINGLE, MaskConfig("random", 0.9), (314, 2822, 2822)),
    "misconception: tube of 4 frames": (B16, MaskConfig("tube", 0.9, 4), (160, 1408, 1408)),
    "misconception: dual": (
        B32,
        MaskConfig("random", 0.9, None, "drop-visible", 0.5),
        (157, 2979, 2822),
    ),
}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("case", CASES)
def test_counts_and_invariants(case, generator):
    grid, config, counts = CASES[case]
    mask = make_mask(config, grid, 6, generator)
    assert (mask.visible.shape[1], mask.queries.shape[1], mask.targets.shape[1]) == counts
    for index in (mask.visible, mask.queries, mask.targets):
        assert (index.diff(dim=1) > 0).all(), "ascending, no duplicates"
        assert index.min() >= 0
    assert mask.visible.max() < grid.num_tokens
    assert mask.queries.max() < grid.num_tokens
    assert mask.targets.max() < mask.queries.shape[1]
    hidden = mask.hidden(grid.num_tokens)
    assert hidden.gather(1, mask.target_tokens).all(), "no loss on what the encoder sees"
    assert len({tuple(row.tolist()) for row in mask.visible}) > 1, "each clip has its own mask"


@pytest.mark.parametrize(
    "case", ["MAE", "V1", "random", "frame", "giant", "misconception: tube of 4 frames"]
)
def test_without_a_decoder_mask_queries_are_the_complement(case, generator):
    grid, config, _ = CASES[case]
    mask = make_mask(config, grid, 4, generator)
    both = torch.cat((mask.visible, mask.queries), dim=1).sort(dim=1).values
    assert (both == torch.arange(grid.num_tokens)).all()


def test_a_loss_on_every_token_queries_all_and_keeps_the_visible_ones(generator):
    hidden_only, every = (
        make_mask(MaskConfig("tube", 0.9, None, decoder), B16, 3, generator.manual_seed(1))
        for decoder in ("all", "every")
    )
    assert torch.equal(every.visible, hidden_only.visible)
    assert torch.equal(every.queries, torch.arange(1568).expand(3, -1))
    assert torch.equal(every.target_tokens, every.queries)


@pytest.mark.parametrize("length,steps", [(None, 8), (4, 2), (8, 4), (2, 1)])
def test_tubes_are_constant_over_their_length_and_change_after(length, steps, generator):
    hidden = make_mask(MaskConfig("tube", 0.9, length), B16, 8, generator).hidden(1568)
    tubes = hidden.view(8, 8 // steps, steps, 196)
    assert (tubes == tubes[:, :, :1]).all()
    if steps < 8:
        assert (tubes[:, 1:, 0] != tubes[:, :-1, 0]).any(-1).all()


@pytest.mark.parametrize("ratio,kept", [(0.25, 1176), (0.5, 784), (0.75, 392)])
def test_running_cell_is_the_published_one(ratio, kept):
    """Against the official generator's rule, step by step: the pointer moves and the queue rolls."""
    maps = running_cell_maps(B16, ratio)
    assert maps.shape == (4, kept)
    assert len({tuple(row.tolist()) for row in maps}) == 4
    off = int(4 * ratio)
    for start in range(4):
        queried = torch.zeros(1568, dtype=torch.bool)
        queried[maps[start]] = True
        frames = queried.view(8, 14, 14)
        queue = [1] * off + [0] * (4 - off)  # 1: dropped
        for step in range(8):
            pointer = (start + step + 1) % 4
            rolled = queue[pointer:] + queue[:pointer]
            for row in range(14):
                for column in range(14):
                    assert frames[step, row, column].item() == (
                        rolled[row % 2 * 2 + column % 2] == 0
                    )
        assert torch.equal(frames[:4], frames[4:]), "period 4"
        assert (frames.sum(0) == kept // 196).all(), "every position is queried equally often"


def test_running_cell_half_has_the_known_cells():
    queried = torch.zeros(1568, dtype=torch.bool)
    queried[running_cell_maps(B16, 0.5)[0]] = True
    cells = (~queried).view(8, 14, 14)[:4, :2, :2].int().tolist()  # 1: dropped
    assert cells == [[[1, 0], [0, 1]], [[0, 0], [1, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]]]


def test_dual_masking_overlaps_in_exactly_80_queries(generator):
    mask = make_mask(CASES["V2"][1], B16, 64, generator)
    seen = ~mask.hidden(1568)
    assert (seen.gather(1, mask.queries).sum(1) == 80).all()


def test_independent_targets_include_visible_tokens(generator):
    """The misconception with two ratios: 40 % visible, 90 % targets, drawn without regard to each other."""
    mask = make_mask(MaskConfig("random", 0.6, None, "independent", 0.1), B32, 200, generator)
    assert (mask.visible.shape[1], mask.queries.shape[1]) == (1255, 2822)
    assert torch.equal(mask.target_tokens, mask.queries) and (mask.queries.diff(dim=1) > 0).all()
    seen = (~mask.hidden(3136)).gather(1, mask.queries).sum(1).double()
    assert seen.mean().item() == pytest.approx(1255 * 0.9, abs=3) and seen.std() > 0


def test_frame_maps_query_whole_time_steps():
    for row in frame_maps(B16, 0.5):
        steps = row.view(4, 196) // 196
        assert (steps == steps[:, :1]).all()
        assert len(steps[:, 0].unique()) == 4


def test_every_token_is_visible_equally_often(generator):
    """At 75 %, each position is visible with probability 1/4, to within 5 standard deviations."""
    grid = TokenGrid((8, 16, 16), (2, 4, 4))
    visible = ~make_mask(MaskConfig("tube", 0.75), grid, 4000, generator).hidden(64)
    share = visible.double().mean(0)
    assert ((share - 0.25).abs() < 5 * (0.25 * 0.75 / 4000) ** 0.5).all()


def test_the_same_generator_gives_the_same_mask():
    masks = [make_mask(CASES["V2"][1], B16, 3, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(masks[0].visible, masks[1].visible)
    assert torch.equal(masks[0].queries, masks[1].queries)


@pytest.mark.parametrize(
    "grid,config,words",
    [
        (TokenGrid((2, 4, 4), (2, 4, 4)), MaskConfig("random", 0.9), ["0.9 with 1 tokens", "nothing visible", "smaller tubelets"]),
        (TokenGrid((8, 8, 8), (2, 4, 4)), MaskConfig("tube", 0.1), ["nothing to predict", "0.25", "0.75"]),
        (TokenGrid((8, 112, 112), (2, 16, 16)), CASES["V2"][1], ["7x7", "even", "decoder_mask_type to 'all'"]),
        (TokenGrid((4, 32, 32), (2, 8, 8)), MaskConfig("tube", 0.75, None, "running-cell", 0.5), ["repeats every 4 time steps", "multiple of 8 frames"]),
        (B16, MaskConfig("tube", 0.9, None, "running-cell", 0.4), ["0.4", "0.25, 0.5 or 0.75"]),
        (B16, MaskConfig("random", 0.9, None, "running-cell", 0.5), ["running-cell", "mask_type to 'tube'"]),
        (B16, MaskConfig("tube", 0.9, 3), ["tube_length 3", "multiple"]),
    ],
)  # fmt: skip
def test_impossible_masks_say_why(grid, config, words):
    with pytest.raises(MaskError) as error:
        make_mask(config, grid, 2)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.5, -0.1])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(ConfigError, match=str(ratio)):
        MaskConfig("tube", ratio)


def checkerboard(grid, ratio, batch, generator, device):
    """Every second position of a frame, the same ones throughout; the coin of a clip decides which."""
    row, column = torch.meshgrid(*(torch.arange(n) for n in grid.shape[1:]), indexing="ij")
    coin = torch.randint(2, (batch, 1), generator=generator, device=device)
    odd = ((row + column) % 2).flatten().repeat(grid.shape[0]).to(device)
    return (odd == coin).nonzero()[:, 1].view(batch, -1)


def test_a_mask_of_ones_own_is_plugged_in_by_name():
    grid = TokenGrid((4, 16, 16), (2, 4, 4))
    with pytest.raises(ConfigError, match="checkers.*tube, random, frame.*register_mask"):
        MaskConfig("checkers", 0.5)
    register_mask("checkers", checkerboard)
    try:
        mask = make_mask(MaskConfig("checkers", 0.5), grid, 3, torch.Generator().manual_seed(0))
        assert mask.visible.shape == mask.targets.shape == (3, 16)
        register_mask("checkers", lambda *_: torch.zeros(3, 32, dtype=torch.int64))
        with pytest.raises(MaskError, match=r"'checkers' returned torch.int64 of shape \(3, 32\)"):
            make_mask(MaskConfig("checkers", 0.5), grid, 3)
        for row in ([1, 0], [1, 1], [30, 32]):  # falling, twice, beyond the last of 32
            register_mask("checkers", lambda *_, row=row: torch.tensor([row]))
            with pytest.raises(MaskError, match="each row must rise"):
                make_mask(MaskConfig("checkers", 0.5), grid, 1)
    finally:
        MASK_TYPES.remove("checkers")
    with pytest.raises(ValueError, match="'tube' is one of the package's own"):
        register_mask("tube", checkerboard)
