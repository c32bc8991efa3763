"""Diagrams: their numbers are the code's, no text overflows or overlaps, each has alt text, no scripts."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
import torch
from gallery import DIAGRAMS, page

from vmae import cost
from vmae.config import MaskConfig, ModelConfig
from vmae.grid import TokenGrid
from vmae.layers import Attention
from vmae.masking import make_mask
from vmae.train import Recipe
from vmae.viz import colours, diagrams
from vmae.viz.diagrams import Diagram
from vmae.viz.diagrams.drawing import DARK, SMALL, WIDTH, text_width
from vmae.viz.figure import INK

SVG = "{http://www.w3.org/2000/svg}"
#: x0, y0, x1, y1
Box = tuple[float, float, float, float]
made = cache(lambda name: DIAGRAMS[name]())


def elements(diagram: Diagram, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(diagram.svg).iter(SVG + tag))


def texts(diagram: Diagram) -> list[str]:
    return [e.text or "" for e in elements(diagram, "text")]


def numbers(diagram: Diagram) -> set[str]:
    return set(re.findall(r"\d[\d,.]*\d|\d", " ".join(texts(diagram))))


def number(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name])


def text_box(e: ElementTree.Element) -> Box:
    """Where a text lies, in the widest font that a browser may choose."""
    x, y, size = (number(e, name) for name in ("x", "y", "font-size"))
    width = text_width(e.text or "", size, "font-weight" in e.attrib)
    left = x - width * {"start": 0, "middle": 0.5, "end": 1}[e.attrib["text-anchor"]]
    return left, y - 0.74 * size, left + width, y + 0.2 * size


def rect_box(e: ElementTree.Element) -> Box:
    x, y, w, h = (number(e, name) for name in ("x", "y", "width", "height"))
    return x, y, x + w, y + h


def cell_boxes(diagram: Diagram) -> list[Box]:
    """The upright cells: tokens, frames, bars."""
    found = []
    for path in elements(diagram, "path"):
        for x, y, w, h in re.findall(
            r"M([-\d.]+) ([-\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+z", path.attrib["d"]
        ):
            found.append((float(x), float(y), float(x) + float(w), float(y) + float(h)))
    return found


def line_boxes(diagram: Diagram) -> list[Box]:
    """The segments of lines and arrows that are level or upright."""
    found = []
    for path in elements(diagram, "path"):
        if path.attrib["fill"] == "none" and re.fullmatch(r"[ML\d. -]+", path.attrib["d"]):
            points = [tuple(map(float, p.split())) for p in re.split("[ML]", path.attrib["d"])[1:]]
            for (x0, y0), (x1, y1) in pairwise(points):
                if x0 == x1 or y0 == y1:
                    found.append((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
    return found


def overlap(a: Box, b: Box, slack: float = 0.5) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def inside(a: Box, b: Box) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def problems(diagram: Diagram) -> list[str]:
    """Texts that leave the picture or a box, or that touch a line or another text."""
    root = ElementTree.fromstring(diagram.svg)
    sheet = (0.0, 0.0, float(WIDTH), number(root, "height"))
    written = [(e.text or "", text_box(e)) for e in elements(diagram, "text")]
    areas = [rect_box(e) for e in elements(diagram, "rect")] + cell_boxes(diagram)
    found = [f"{text!r} leaves the picture" for text, box in written if not inside(box, sheet)]
    for text, box in written:
        for area in areas:
            if overlap(box, area) and not inside(box, area):
                found.append(f"{text!r} crosses the edge of {area}")
        found += [f"{text!r} touches a line" for line in line_boxes(diagram) if overlap(
            box, (line[0] - 1, line[1] - 1, line[2] + 1, line[3] + 1))]  # fmt: skip
    found += [f"{a!r} over {b!r}" for (a, x), (b, y) in combinations(written, 2) if overlap(x, y)]
    return found


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_plain_svg_with_alt_text(name):
    diagram = made(name)
    root = ElementTree.fromstring(diagram.svg)  # raises if it is not well-formed
    used = {e.tag.removeprefix(SVG) for e in root.iter()}
    assert used <= {"svg", "title", "text", "rect", "path", "circle", "image", "g", "animate"}
    assert not [a for e in root.iter() for a in e.attrib if a.startswith("on") or a == "style"]
    assert all(e.attrib["href"].startswith("data:image/jpeg") for e in elements(diagram, "image"))
    assert min(number(e, "font-size") for e in elements(diagram, "text")) >= SMALL
    assert root.find(SVG + "title").text == diagram.alt and len(diagram.alt) > 40
    assert len(diagram.svg) < 150_000


@pytest.mark.parametrize("name", DIAGRAMS)
def test_no_text_overflows_overlaps_or_touches_a_line(name):
    assert not problems(made(name))


OTHERS = {
    "vit-clip": lambda: diagrams.vit(ModelConfig.videomae("H"), 174),
    "vit-tiny": lambda: diagrams.vit(ModelConfig.videomae("tiny"), 8),
    "block-g": lambda: diagrams.block(ModelConfig.videomae("g")),
    "transformers-L": lambda: diagrams.transformers(ModelConfig.mae("H"), ModelConfig.mae("L")),
    "mae-H": lambda: diagrams.mae(ModelConfig.mae("H")),
    "tubelets-tiny": lambda: diagrams.tubelets(ModelConfig.videomae("tiny")),
    "tubelets-1": lambda: diagrams.tubelets(ModelConfig.videomae("L", tubelet=(1, 16, 16))),
    "conv-g": lambda: diagrams.conv_and_linear(ModelConfig.videomae("g")),
    "masks-14": lambda: diagrams.masks(ModelConfig.videomae("B").grid),
    "ball-4": lambda: diagrams.rolling_ball(TokenGrid((8, 64, 64), (2, 16, 16))),
    "videomae-g": lambda: diagrams.videomae(ModelConfig.videomae("g")),
    "asymmetry-L": lambda: diagrams.asymmetry(ModelConfig.videomae("L")),
    "dual-tiny": lambda: diagrams.dual_masking(ModelConfig.videomae("tiny", img_size=32)),
    "fine-g": lambda: diagrams.fine_tuning(Recipe.load("v2-hybrid-g").finetune, 710),
    "path-cpu": lambda: diagrams.data_path(Recipe.load("cpu").pretrain),
    "stages-2": lambda: diagrams.progressive_training(*stages("cpu")),
}  # fmt: skip


def stages(name: str) -> tuple:
    recipe = Recipe.load(name)
    return recipe.pretrain, recipe.finetune


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_fit_too(name):
    assert not problems(OTHERS[name]())


def test_an_overflow_would_be_found():
    canvas = diagrams.drawing.Canvas()
    canvas.rect(100, 10, 40, 30)
    canvas.text(120, 30, "much too long for it")
    canvas.line((0, 60), (100, 60))
    canvas.text(50, 62, "struck")
    assert len(problems(canvas.finish(80, "Two mistakes."))) == 2


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
    assert texts(side).count(f"{config.depth} × {config.embed_dim}") == 2
    assert f"{config.decoder_depth} × {config.decoder_embed_dim}" in texts(side)


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
    for mask in diagrams.videos.MASKS.values():
        v = make_mask(mask, grid, 1).visible.shape[1]
        assert f"{v} visible" in shown
        assert any(text.startswith(f"{grid.num_tokens - v} hidden, ") for text in shown)
    seen = [text for text in texts(diagrams.rolling_ball(grid)) if text.startswith("seen in")]
    assert len(seen) == 4 and all(f"of {grid.shape[0]} steps" in text for text in seen)


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


@pytest.mark.parametrize(("changes", "counts"), [
    ({}, (1568, 160, 1408)), ({"num_frames": 40, "img_size": 160}, (2000, 200, 1800)),
])  # fmt: skip
def test_asymmetry_shows_tokens_and_multiply_adds(changes, counts):
    config = ModelConfig.videomae("B", **changes)
    diagram = diagrams.asymmetry(config)
    assert {str(count) for count in counts} <= numbers(diagram)
    stages = cost.pretraining_multiply_adds(config, MaskConfig("tube", 0.9))
    for stage in ("encoder", "decoder", "total"):
        assert f"{stages[stage] / 1e9:.1f}" in numbers(diagram)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in map(rect_box, elements(diagram, "rect"))]
    assert areas[1] / areas[0] == pytest.approx(counts[1] / counts[0], rel=0.01)
    assert areas[2] / areas[0] == pytest.approx(4 * 384 / (12 * 768), rel=0.01)


def test_dual_masking_shows_published_counts_and_those_of_the_misconceptions():
    short, long = numbers(made("dual_masking")), numbers(made("dual_masking-32"))
    assert {"160", "784", "944", "704", "80"} <= short
    assert {"157", "2979", "2822", "1255"} <= long


@pytest.mark.parametrize(("recipe", "classes"), [("v1-k400-b", 400), ("cpu", 8)])
def test_fine_tuning_shows_the_rates_that_the_optimizer_gets(recipe, classes):
    config = Recipe.load(recipe).finetune
    diagram, depth = diagrams.fine_tuning(config, classes), config.model.depth
    decay = config.optim.layer_decay
    assert f"{decay ** (depth + 1):.3g}" in texts(diagram) and str(classes) in texts(diagram)
    bars = [e for e in elements(diagram, "rect") if e.attrib["stroke"] == "none"]
    assert len(bars) == depth + 2
    assert number(bars[-2], "height") / number(bars[-1], "height") == pytest.approx(decay, rel=0.01)


@pytest.mark.parametrize("recipe", ["v2-hybrid-b", "gpu"])
def test_training_shows_what_the_recipe_says(recipe):
    config = Recipe.load(recipe).pretrain
    shown = numbers(diagrams.data_path(config))
    mask = make_mask(config.mask, config.model.grid, 1)
    span = 15 * config.data.stride + 1
    for value in (config.optim.batch_size, span, mask.visible.shape[1], mask.targets.shape[1]):
        assert str(value) in shown
    stages_ = texts(diagrams.progressive_training(*stages(recipe)))
    assert f"batch of {config.optim.batch_size} videos" in stages_


def test_a_diagram_is_shown_as_an_image_with_alt_text(tmp_path):
    diagram = made("key")
    data = diagram._repr_mimebundle_()
    assert data["text/plain"] == diagram.alt and f'alt="{diagram.alt}"' in data["text/html"]
    assert 'src="data:image/svg+xml;base64,' in data["text/html"]
    diagram.save(tmp_path / "key.svg")
    assert (tmp_path / "key.svg").read_text(encoding="utf-8") == diagram.svg


def test_the_gallery_has_every_diagram_on_both_backgrounds():
    assert page().count("<img ") == 2 * len(DIAGRAMS)


def test_colours_can_be_read_and_are_never_the_only_sign():
    assert min(colours.contrast(INK, page) for page in ("#ffffff", "#111111")) > 4
    signs = [(role.letter, role.hatched) for role in colours.ROLES if role.letter or role.hatched]
    assert len(signs) == len(set(signs)) == 6
    for role in colours.ROLES:
        assert colours.contrast(DARK, role.tint) > 7
        if role.letter:
            assert colours.contrast(DARK, role.colour) > 4.5
    assert colours.mix("#0072B2", 1) == "#0072b2" and colours.mix("#0072B2", 0) == "#ffffff"
