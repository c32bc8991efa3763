"""Figures in notebooks: what is shown, in which order, and what an explorer does when its controls move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from ipywidgets import IntSlider

from vmae import viz
from vmae.viz.explorer import controlled


@pytest.fixture
def shell() -> Iterator[None]:
    """IPython, which collects what is displayed."""
    InteractiveShell.instance()
    yield
    InteractiveShell.clear_instance()


def draw(k: int) -> None:
    viz.pictures({"k": torch.full((2, 2), float(k))}, f"A square of <{k}>.")
    print(f"k is {k}")
    if k == 3:
        raise ValueError("three is too much")


@pytest.mark.usefixtures("shell")
def test_an_explorer_draws_again_when_a_control_moves():
    slider = IntSlider(1, min=0, max=9)
    _, shown = controlled(draw, k=slider).children
    assert slider.description == "k"
    first = shown.value
    assert 'alt="A square of &lt;1&gt;."' in first and "<pre>k is 1</pre>" in first
    slider.value = 2
    assert 'alt="A square of &lt;2&gt;."' in shown.value and shown.value != first


@pytest.mark.usefixtures("shell")
def test_an_explorer_says_what_a_function_raised():
    slider = IntSlider(1, min=0, max=9)
    _, shown = controlled(draw, k=slider).children
    slider.value = 3
    assert "ValueError: three is too much" in shown.value


def test_without_a_kernel_a_sentence_stands_for_an_explorer(capsys):
    viz.explorer(draw, k=IntSlider(1))
    assert "Controls for k appear here" in capsys.readouterr().out


def test_pictures_take_channels_first_or_last_and_any_number_of_rows(drawn):
    image = torch.rand(3, 4, 6)
    items = {"first": image, "last": image.permute(1, 2, 0), "matrix": image[0].numpy()}
    viz.pictures(items, "Three pictures of one.", columns=2)
    assert drawn == ["Three pictures of one."]
    with pytest.raises(TypeError):
        viz.pictures({"seven channels": torch.ones(2, 2, 7)}, "nothing")
