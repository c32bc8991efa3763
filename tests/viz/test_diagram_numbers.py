"""Diagrams: their numbers are those of the configuration, the mask or the model that they draw."""

from __future__ import annotations

import re

import pytest
import torch
from svg import cell_boxes, elements, made, number, numbers, rect_box, stages, texts

from vmae import cost
from vmae.config import MaskConfig, ModelConfig
from vmae.course import diagrams
from vmae.course.diagrams import Diagram
from vmae.course.diagrams.drawing import HEADING
from vmae.figures import colours
from vmae.grid import TokenGrid
from vmae.layers import Attention
from vmae.masking import make_mask
from vmae.train import Recipe


@pytest.mark.parametrize("config", [ModelConfig.mae("B"), ModelConfig.videomae("L", num_frames=32)])
def test_architecture_shows_the_numbers_of_the_model(config):
    n = config.grid.num_tokens + (config.family == "mae")
    vit = diagrams.vit(config, 123)
    assert f"({n}, {config.embed_dim})" in texts(vit) and "(123)" in texts(vit)
    assert f"({config.grid.num_tokens}, {config.grid.token_dim})" in texts(vit)
    with torch.device("meta"):
        block = diagrams.architecture.Block(
            config.embed_dim, config.num_heads, key_bias=config.family == "mae"
        )
    assert f"{cost.parameters(block.mlp):,}" in texts(diagrams.block(config))
    assert f"{cost.parameters(block):,}" in diagrams.block(config).alt
    side = diagrams.transformers(config, config)
    assert texts(side).count(f"{config.depth} blocks") >= 2
    assert texts(side).count(f"{config.embed_dim} wide") >= 2
    small = f"{config.decoder_depth} × {config.decoder_embed_dim}"
    spelt = {f"{config.decoder_depth} blocks", f"{config.decoder_embed_dim} wide"}
    assert small in texts(side) or spelt <= set(texts(side))


@pytest.mark.parametrize(("tokens", "width"), [(4, 4), (3, 2)])
def test_attention_shows_what_the_layer_computes(tokens, width):
    generator = torch.Generator().manual_seed(tokens)
    layer, x = Attention(width, 2), torch.randn(tokens, width, generator=generator)
    shown = texts(diagrams.attention(layer, x, head=1))
    with torch.no_grad():
        q, k, v = (part[0, 1] for part in layer._project(x[None]))
        output = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    for matrix in (x, q, k, v, layer.weights(x[None])[0, 1], output):
        for value in matrix.flatten().tolist():
            assert f"{value + 0.0:.2f}".replace("-", "−") in shown
    with pytest.raises(ValueError, match="at most 5"):
        diagrams.attention(layer, torch.zeros(6, width))


@pytest.mark.parametrize(("name", "ratio"), [("B", 0.75), ("H", 0.5)])
def test_mae_shows_the_counts_of_its_mask(name, ratio):
    config, mask = ModelConfig.mae(name), MaskConfig("random", ratio)
    n, v = config.grid.num_tokens, make_mask(mask, config.grid, 1).visible.shape[1]
    shown = texts(diagrams.mae(config, mask))
    assert f"{n - v} hidden, {v} visible" in shown
    assert f"({v + 1}, {config.embed_dim})" in shown and f"({v}, {config.grid.token_dim})" in shown
    assert f"({n + 1}, {config.decoder_embed_dim})" in shown
    assert (
        f"{n - v} times," in shown and f"{v + 1} dropped" in shown and f"{v} + class token" in shown
    )
    assert f"({n - v}, {config.grid.token_dim})" in shown and "mean squared error" in shown
    assert shown.count("+ positions") == 3  # encoder, decoder, mask tokens
    assert f"linear {config.embed_dim} → {config.decoder_embed_dim}" in shown
    assert (
        f"{v} visible patches: none" in shown
        and f"of {n - v} × {config.grid.token_dim} values" in shown
    )


def test_mae_draws_the_reconstruction_of_a_model(image):
    model = diagrams.images.MaskedAutoencoder(image)
    drawn = diagrams.mae(image, MaskConfig("random", 0.75), model=model)
    assert "reconstruction" in texts(drawn) and drawn.svg != diagrams.mae(image).svg


@pytest.mark.parametrize("config", [ModelConfig.videomae("B"), ModelConfig.videomae("g")])
def test_clips_show_the_numbers_of_the_grid(config):
    grid, (t, h, w) = config.grid, config.grid.shape
    shown = texts(diagrams.tubelets(config))
    assert f"{t} × {h} × {w} = {grid.num_tokens} tubelets" in shown
    assert " × ".join(map(str, (*grid.tubelet, 3))) + f" = {grid.token_dim} values" in shown
    shown = texts(diagrams.conv_and_linear(config))
    assert f"weight ({config.embed_dim}, 3, {', '.join(map(str, grid.tubelet))})" in shown
    with torch.device("meta"):
        count = cost.parameters(diagrams.architecture.VisionTransformer(config).patch_embed)
    assert any(f"{count:,} parameters" in text for text in shown)


@pytest.mark.parametrize("shape", [(16, 96, 96), (8, 64, 128)])
def test_masks_show_as_many_cubes_and_counts_as_are_drawn(shape):
    grid = TokenGrid(shape, (2, 16, 16))
    shown = texts(diagrams.masks(grid))
    for mask in diagrams.leakage.MASKS.values():
        v = make_mask(mask, grid, 1).visible.shape[1]
        assert f"{v} visible" in shown
        assert any(text.startswith(f"{grid.num_tokens - v} hidden, ") for text in shown)
    seen = [text for text in texts(diagrams.rolling_ball(grid)) if text.startswith("seen in")]
    assert len(seen) == 4 and all(f"of {grid.shape[0]} steps" in text for text in seen)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("shape", [(16, 96, 96), (8, 64, 128)])
def test_masks_show_how_many_tokens_could_be_copied_from_another_step(shape, seed):
    grid = TokenGrid(shape, (2, 16, 16))
    diagram, leaks = diagrams.masks(grid, seed=seed), {}
    for name, mask in diagrams.leakage.MASKS.items():
        drawn = make_mask(mask, grid, 1, torch.Generator().manual_seed(seed))
        steps = [set() for _ in range(grid.shape[0])]  # visible positions of each
        for token in drawn.visible[0].tolist():
            steps[token // grid.tokens_per_frame].add(token % grid.tokens_per_frame)
        anywhere = set().union(*steps)
        leaks[name] = sum(len(anywhere - here) for here in steps)
        q = grid.num_tokens - drawn.visible.shape[1]
        share = f"{leaks[name]} of {q} hidden tokens ({100 * leaks[name] / q:.0f} %)"
        assert sum(text.startswith(share) for text in texts(diagram)) == 1 and share in diagram.alt
    assert leaks["tube"] == 0 and leaks["frame"] == q > leaks["random"] > 0
    shown = " ".join(texts(diagram))
    assert shown.count("information leakage") == 2 and shown.count("must be inferred") == 1
    assert "one time step is 2 frames" in shown and "VideoMAE hides 90 %" in shown


def test_printed_weights_add_up_or_the_diagram_says_that_they_are_rounded():
    assert any(text.endswith("sums to 1") for text in texts(made("attention")))
    layer, x = Attention(3, 1), torch.eye(3)
    with torch.no_grad():
        layer.qkv.weight.zero_()  # each weight is 1/3: 0.33 + 0.33 + 0.33
    assert any(text.endswith("before rounding") for text in texts(diagrams.attention(layer, x)))
    assert "scores QKᵀ / √3" in texts(diagrams.attention(layer, x))


def test_progressive_training_shows_which_head_a_stage_starts_from():
    shown = texts(made("progressive_training"))
    assert {"new head", "of stage 2", "decoder"} <= set(shown)
    assert any("stage 3 keeps a part of the head" in text for text in shown)
    assert {"UnlabeledHybrid, no labels", "Kinetics-710, labels", "Kinetics-400, labels"} <= set(
        shown
    )
    plain = texts(diagrams.progressive_training(*stages("cpu")))
    assert any("or head is dropped" in text for text in plain) and "of stage 1" not in plain


def test_the_key_names_every_role_and_what_else_the_figures_use():
    shown = set(texts(made("key")))
    assert {role.name for role in colours.ROLES} <= shown
    assert {"head", "all other steps", "dropped", "more, not drawn"} <= shown


def test_tubelets_name_their_axes_and_the_channels():
    shown = texts(made("tubelets"))
    assert {"height", "width", "time", "3 channels each", "2 frames of 16 × 16 pixels,"} <= set(
        shown
    )
    assert "(3, 16, 224, 224): channels, time, height, width" in shown


def test_a_copy_comes_from_the_nearest_visible_step():
    hidden = [bool(int(x)) for x in "11011110"]
    assert diagrams.leakage.copies(hidden) == [(1, 0), (2, 1), (2, 3), (3, 4), (6, 5), (7, 6)]
    assert diagrams.leakage.copies([True] * 4) == []
    # a ball in column 1 is hidden at step 1 and seen at step 2; in column 2, seen at neither
    assert diagrams.leakage.ball_copies([True, True, False, True, True], [0, 1, 1, 2, 2]) == [
        (2, 1)
    ]


def test_the_same_number_of_balls_is_seen_behind_each_mask_but_only_the_tube_leaks_none():
    shown = texts(made("rolling_ball"))
    assert shown.count("seen in 2 of 8 steps") == 4 and "redrawn every 2 steps" in shown
    copied = [text.split()[0] for text in shown if "hidden balls can be copied" in text]
    assert copied == ["2", "2", "0", "2"] and all(
        x + " of 6" in made("rolling_ball").alt for x in copied
    )
    arrows = [
        e for e in elements(made("rolling_ball"), "path")
        if e.attrib["fill"] == "none" and e.attrib.get("stroke") == colours.PREDICTED.colour
    ]  # fmt: skip
    assert len(arrows) == 2 + 2 + 0 + 2 + 1  # the last is in the legend


def test_the_ball_is_animated_without_scripts():
    animated = elements(made("rolling_ball"), "animate")
    assert {e.attrib["attributeName"] for e in animated} == {"cx", "opacity"}


def test_videomae_shows_every_shape_of_both_clips():
    long, short = ModelConfig.videomae("B", num_frames=32), ModelConfig.videomae("B")
    expected = {
        "tube": "(3136, 1536) (320, 768) (3136, 384) (2816, 1536) (1568, 1536) (160, 768) (1408, 1536)",
        "random": "(3136, 1536) (314, 768) (3136, 384) (2822, 1536) (157, 768) (1411, 1536)",
    }
    for kind, shapes in expected.items():
        shown = texts(diagrams.videomae(long, short, mask=MaskConfig(kind, 0.9)))
        assert not set(re.findall(r"\(.*?\)", shapes)) - set(shown)
    tube = texts(diagrams.videomae(long, short))
    assert {"20 of 196 × 16", "20 of 196 × 8", "320 dropped", "160 dropped", "90 % hidden"} <= set(
        tube
    )
    assert any("no class token" in text for text in tube)


@pytest.mark.parametrize(("changes", "counts"), [
    ({}, (1568, 160, 1408)), ({"num_frames": 40, "img_size": 160}, (2000, 200, 1800)),
])  # fmt: skip
def test_asymmetry_shows_tokens_and_multiply_adds(changes, counts):
    config = ModelConfig.videomae("B", **changes)
    diagram = diagrams.asymmetry(config)
    assert {str(count) for count in counts} <= numbers(diagram)
    stages = cost.pretraining_multiply_adds(config, MaskConfig("tube", 0.9))
    summed = next(text for text in texts(diagram) if text.startswith("encoder ") and "=" in text)
    parts = [float(part) for part in re.findall(r"[\d.]+", summed)]
    assert sum(parts[:3]) == pytest.approx(parts[3], abs=1e-9)  # as printed
    others = stages["total"] - stages["encoder"] - stages["decoder"]
    for part, true in zip(
        parts, (stages["encoder"], stages["decoder"], others, stages["total"]), strict=True
    ):
        assert part == pytest.approx(true / 1e9, abs=0.05)
    ratio = f"the decoder now costs {stages['decoder'] / stages['encoder']:.1f} times the encoder"
    assert any(ratio in text for text in texts(diagram)) and ratio in diagram.alt
    assert any("per clip" in text for text in texts(diagram))
    bars = [x1 - x0 for x0, y0, x1, y1 in cell_boxes(diagram) if y1 - y0 == 26]
    assert bars[1] / bars[2] == pytest.approx(stages["encoder"] / stages["decoder"], rel=0.01)
    areas = [
        (x1 - x0) * (y1 - y0)
        for x0, y0, x1, y1 in (rect_box(e) for e in elements(diagram, "rect") if e.attrib["stroke"] != "none")
    ]  # fmt: skip
    assert areas[1] / areas[0] == pytest.approx(counts[1] / counts[0], rel=0.01)
    assert areas[2] / areas[0] == pytest.approx(4 * 384 / (12 * 768), rel=0.01)


def test_parts_are_rounded_so_that_they_add_up():
    assert diagrams.masked.adding_up([1.04, 2.04], 3.08) == ["1.04", "2.04", "3.08"]
    assert diagrams.masked.adding_up([1.01, 2.01], 3.02) == ["1.0", "2.0", "3.0"]


def cells_of(diagram: Diagram, role: colours.Role, side: float) -> int:
    """How many square cells of a role a diagram has."""
    found = 0
    for path in elements(diagram, "path"):
        if path.attrib["fill"] == role.colour.lower():
            found += path.attrib["d"].count(f"h{side:.1f}v{side:.1f}")
    return found


def test_dual_masking_shows_which_visible_positions_are_queried():
    config, side = ModelConfig.videomae("B"), 116 / 14
    diagram, shown = diagrams.dual_masking(config, seed=3), texts(made("dual_masking"))
    source = torch.Generator().manual_seed(3)
    masks = [make_mask(case, config.grid, 1, source) for case in (
        MaskConfig("tube", 0.9), MaskConfig("tube", 0.9, None, "running-cell", 0.5),
        MaskConfig("random", 0.9, None, "drop-visible", 0.5))]  # fmt: skip
    wide = make_mask(MaskConfig("random", 0.6), config.grid, 1, source)
    many = make_mask(MaskConfig("random", 0.9), config.grid, 1, source)

    def first(index: torch.Tensor) -> set[int]:
        return {token for token in index[0].tolist() if token < config.grid.tokens_per_frame}

    dots = sum(len(first(mask.visible)) for mask in (*masks, wide))
    assert len(elements(diagram, "circle")) == dots + 1  # one in the legend
    without_loss = sum(len(first(mask.queries) - first(mask.target_tokens)) for mask in masks)
    assert without_loss > 0 and cells_of(diagram, colours.MASK_TOKEN, side) == without_loss
    targets = sum(len(first(mask.target_tokens)) for mask in masks) + len(first(many.queries))
    assert cells_of(diagram, colours.TARGET, side) == targets
    cell = [len({q for q in masks[1].queries[0].tolist() if q // 196 == step and q % 196 in (0, 1, 14, 15)})
            for step in range(4)]  # fmt: skip
    assert (
        cell == [2] * 4 and cells_of(diagram, colours.TARGET, 11) == 0
    )  # whole numbers are shorter
    assert sum(p.attrib["d"].count("h11v11") for p in elements(diagram, "path")) == sum(cell)
    for text in (
        "encoder reads 160: a tube, 20 of 196 positions × 8 time steps",
        "decoder reads 160 + 784 = 944: 50 % of all positions, drawn independently",
        "loss at 704 of the 784; 80 queries fall on visible positions: no loss",
        "encoder reads 79 of 157: random, 1568 − 1411 = 157",
        "decoder reads 628 + 1411 = 2039, more than the clip has (1568)",
    ):
        assert text in shown
    assert any("running cell" in text for text in shown)


def test_dual_masking_shows_published_counts_and_those_of_the_misconceptions():
    short, long = numbers(made("dual_masking")), numbers(made("dual_masking-32"))
    assert {"160", "784", "944", "704", "80"} <= short
    assert {"157", "2979", "2822", "1255"} <= long


@pytest.mark.parametrize(("recipe", "classes"), [("v1-k400-b", 400), ("cpu", 8)])
def test_fine_tuning_shows_the_rates_that_the_optimizer_gets(recipe, classes):
    config = Recipe.load(recipe).finetune
    diagram, depth = diagrams.fine_tuning(config, classes), config.model.depth
    decay = config.optim.layer_decay
    assert f"{decay ** (depth + 1):.3g}" in texts(diagram) and f"({classes})" in texts(diagram)
    mean = f"mean of {config.model.grid.num_tokens} tokens: ({config.model.embed_dim}),"
    rate = config.optim.resolved(videos=100_000).lr
    assert mean in texts(diagram) and f"1 means {rate:.3g}," in texts(diagram)
    filled = [e for e in elements(diagram, "rect") if e.attrib["stroke"] == "none"]
    bars = [e for e in filled if e.attrib["fill"] != HEADING]
    assert len(bars) == depth + 2
    assert number(bars[-2], "height") / number(bars[-1], "height") == pytest.approx(decay, rel=0.01)


@pytest.mark.parametrize("recipe", ["v2-hybrid-b", "gpu"])
def test_training_shows_what_the_recipe_says(recipe):
    config = Recipe.load(recipe).pretrain
    shown = numbers(diagrams.data_path(config))
    mask = make_mask(config.mask, config.model.grid, 1)
    span = 15 * config.data.stride + 1
    v, q, m = (index.shape[1] for index in (mask.visible, mask.queries, mask.targets))
    for value in (config.optim.batch_size, span, v, q, m):
        assert str(value) in shown
    path = texts(diagrams.data_path(config))
    assert f"{v} + {q}" in path and f"→ ({m}, {config.model.grid.token_dim})" in path
    assert f"{config.model.num_frames} of {span}" in path and ("store" in path) == config.data.cache
    title = next(text for text in path if text.startswith("pre-training on"))
    assert f"tube {100 * config.mask.mask_ratio:g} %" in title
    assert ("running-cell" in title) == (config.mask.decoder_mask_type == "running-cell")
    stages_ = texts(diagrams.progressive_training(*stages(recipe)))
    assert f"batch of {config.optim.batch_size} videos" in stages_
