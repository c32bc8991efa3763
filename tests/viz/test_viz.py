"""Figures in notebooks: what is shown, in which order, and how an explorer reacts to its controls."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets import IntSlider
from PIL import Image

from vmae.config import MaskConfig
from vmae.course import viz
from vmae.course.viz.explorer import controlled
from vmae.figures.figure import bundle, style
from vmae.grid import TokenGrid
from vmae.masking import make_mask
from vmae.support.progress import Record


@pytest.fixture
def shell() -> Iterator[None]:
    """An IPython shell, which captures displayed output."""
    InteractiveShell.instance()
    yield
    InteractiveShell.clear_instance()


def draw(k: int) -> None:
    viz.pictures({"k": torch.full((2, 2), float(k))}, f"A square of <{k}>.")
    print(f"k is {k}")
    if k == 3:
        raise ValueError("three is too much")


@pytest.mark.usefixtures("shell")
def test_an_explorer_redraws_when_a_control_changes():
    slider = IntSlider(1, min=0, max=9)
    _, shown = controlled(draw, k=slider).children
    assert slider.description == "k"
    first = shown.value
    assert 'alt="A square of &lt;1&gt;." width="' in first and "<pre>k is 1</pre>" in first
    slider.value = 2
    assert 'alt="A square of &lt;2&gt;."' in shown.value and shown.value != first


@pytest.mark.usefixtures("shell")
def test_an_explorer_prints_the_exception_of_its_function():
    slider = IntSlider(1, min=0, max=9)
    _, shown = controlled(draw, k=slider).children
    slider.value = 3
    assert "ValueError: three is too much" in shown.value


def test_figures_have_two_pixels_per_unit_of_their_size_and_256_colours_at_most():
    with style():
        figure, (left, right) = plt.subplots(1, 2)
        left.imshow(torch.rand(24, 24, 3))
        right.plot([0, 1])
    data, metadata = bundle(figure, "Noise and a line.")
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    shown = metadata["image/png"]
    assert shown["alt"] == data["text/plain"] == "Noise and a line."
    assert abs(picture.width - 2 * shown["width"]) < 2 and picture.mode == "P"
    corner = picture.convert("RGBA").getpixel((0, 0))
    assert corner[3] == 0, "the page shows through"
    assert figure.number not in plt.get_fignums()


def test_without_a_kernel_a_sentence_replaces_the_explorer(capsys):
    viz.explorer(draw, k=IntSlider(1))
    assert "Controls for k appear here" in capsys.readouterr().out


def test_pictures_take_channels_first_or_last_and_any_number_of_rows(drawn):
    image = torch.rand(3, 4, 6)
    items = {"first": image, "last": image.permute(1, 2, 0), "matrix": image[0].numpy()}
    viz.pictures(items, "The same image three times.", columns=2)
    assert drawn == ["The same image three times."]
    with pytest.raises(TypeError):
        viz.pictures({"seven channels": torch.ones(2, 2, 7)}, "nothing")


def test_names_of_neighbouring_pictures_are_apart(monkeypatch):
    boxes = []

    def measure(figure, alt):
        figure.canvas.draw()
        points = 72 / figure.dpi
        extents = [axis.title.get_window_extent() for axis in figure.axes]
        boxes.extend((points * box.x0, points * box.x1) for box in extents)

    # the package has a function of the module's name
    monkeypatch.setattr(sys.modules["vmae.course.viz.pictures"], "show", measure)
    names = ("mask tokens: 1.00", "positions: 0.77", "block 1: 0.53", "block 2: 0.86", "a name")
    viz.pictures({name: torch.ones(3, 8, 8) for name in names}, "Five squares.", height=1.2)
    assert len(boxes) == 5
    assert all(right[0] - left[1] > 4 for left, right in pairwise(boxes))


def test_a_bar_outside_a_notebook_only_iterates(monkeypatch):
    monkeypatch.setattr("vmae.course.viz.progress.display", lambda *_, **__: None)
    assert list(viz.track(iter("abc"), 3, "letters")) == ["a", "b", "c"]


def test_spreads_draw_a_line_per_name_and_keep_values_in_view(drawn):
    values = torch.tensor([[0.1, 0.2, 0.9], [0.3, 0.3, 0.4]])  # 2 distances, 3 clips
    panels = {"error": {"film": ((1, 2), values), "noise": ((1, 2), values.numpy())}}
    viz.spreads(panels, "Two lines with bars over three clips.", "frames apart", top=1.0)
    assert drawn == ["Two lines with bars over three clips."]


@pytest.mark.parametrize(
    ("decoder", "kinds"), [("running-cell", 4), ("all", 2), ("independent", 4)]
)
def test_every_role_of_a_token_has_its_own_picture(decoder, kinds):
    grid = TokenGrid((16, 40, 56), (2, 4, 4))  # 8x10x14
    encoder = "random" if decoder == "independent" else "tube"
    mask = make_mask(MaskConfig(encoder, 0.6, None, decoder, 0.5), grid, 3)
    shown = viz.roles(mask, grid, clip=2)
    side = shown.shape[-1] // 14
    assert shown.shape == (3, 8, 10 * side, 14 * side) and 0 <= shown.min() <= shown.max() <= 1
    tokens = shown.unfold(2, side, side).unfold(3, side, side)  # (3, t, h, w, side, side)
    tokens = tokens.permute(1, 2, 3, 0, 4, 5).reshape(grid.num_tokens, -1)
    assert len(tokens.unique(dim=0)) == kinds
    seen, queried, counted = (
        set(index[2].tolist()) for index in (mask.visible, mask.queries, mask.target_tokens)
    )
    groups = {(x in seen, x in queried, x in counted) for x in range(grid.num_tokens)}
    assert len(groups) == kinds
    for group in groups:
        same = [
            x for x in range(grid.num_tokens) if (x in seen, x in queried, x in counted) == group
        ]
        assert len(tokens[same].unique(dim=0)) == 1


@pytest.mark.usefixtures("shell")
def test_bars_made_of_parts_show_their_sums_and_a_roofline_its_ridge(monkeypatch):
    figures = []
    monkeypatch.setattr(
        "vmae.course.viz.performance.show", lambda figure, alt: figures.append(figure)
    )
    steps = {"slow": {"read": 30.0, "train": 90.0}, "fast": {"read": 1.0, "train": 20.0}}
    kept = {"slow": {"kept": 200.0}, "fast": {"kept": 50.0}}
    viz.stacked({"ms": steps, "MB": kept}, "Bars.", levels={"a level": 100})
    left, right = figures[0].axes
    texts = [[text.get_text().strip() for text in axis.texts] for axis in (left, right)]
    assert texts == [["120", "21", "a level"], ["200", "50", "a level"]]
    assert (left.get_xlabel(), right.get_xlabel()) == ("ms", "MB")
    viz.stacked({"ms": {"step": {f"part {i}": 1.0 for i in range(8)}}}, "More parts than colours.")
    assert len(figures.pop().axes[0].patches) == 8
    viz.roofline({"norm": (1.0, 5e9), "linear": (50.0, 80e9)}, 100e9, 10e9, "A roof.")
    (axis,) = figures[1].axes
    assert [text.get_text() for text in axis.texts] == [" 10 FLOPs per byte"]
    assert [line.get_label() for line in axis.lines][2:] == ["norm", "linear"]
    for figure in figures:
        plt.close(figure)


def test_a_live_curve_shows_nothing_in_a_plain_script(monkeypatch):
    monkeypatch.setattr("vmae.course.viz.progress.display", lambda *_, **__: None)
    curve = viz.LiveCurve()
    curve.start("pre-train", 0, 2)
    curve.update(1, Record(1, 0.5, 1e-3, 10.0, 1.0))
    curve.close()
