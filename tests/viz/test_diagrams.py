"""Diagrams: no text overflows or overlaps, each has alt text, no scripts; the colours can be read."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from gallery import DIAGRAMS, page
from svg import SVG, elements, made, number, problems, stages

from vmae.config import ModelConfig
from vmae.course import diagrams
from vmae.course.diagrams.drawing import DARK, SMALL
from vmae.figures import colours
from vmae.figures.figure import INK
from vmae.grid import TokenGrid
from vmae.train import Recipe


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


def test_a_diagram_is_shown_as_an_image_with_alt_text(tmp_path):
    diagram = made("key")
    data = diagram._repr_mimebundle_()
    assert data["text/plain"] == diagram.alt and f'alt="{diagram.alt}"' in data["text/html"]
    assert 'src="data:image/svg+xml;base64,' in data["text/html"]
    diagram.save(tmp_path / "key.svg")
    assert (tmp_path / "key.svg").read_text(encoding="utf-8") == diagram.svg


def test_the_gallery_has_every_diagram_on_both_backgrounds():
    assert page().count("<img ") == 2 * len(DIAGRAMS)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 to 21 (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_and_are_never_the_only_sign():
    assert min(contrast(INK, page) for page in ("#ffffff", "#111111")) > 4
    signs = [(role.letter, role.hatched) for role in colours.ROLES if role.letter or role.hatched]
    assert len(signs) == len(set(signs)) == 6
    for role in colours.ROLES:
        assert contrast(DARK, role.tint) > 7
        if role.letter:
            assert contrast(DARK, role.colour) > 4.5
    assert colours.mix("#0072B2", 1) == "#0072b2" and colours.mix("#0072B2", 0) == "#ffffff"
