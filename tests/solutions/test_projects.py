"""Lesson 10's project on masks: the lines that it prints work with the recipe, as it says."""

from __future__ import annotations

import re

import build
import pytest
import torch
from lesson import read_source

from vmae import config
from vmae.masking import MaskError, encoder_masks, make_mask
from vmae.train import Recipe


@pytest.fixture
def block(monkeypatch):
    """The mask of the project, registered for one test."""
    monkeypatch.setattr(encoder_masks, "_SCHEMES", dict(encoder_masks._SCHEMES))
    names = config.MASK_TYPES.copy()
    for module in (config, encoder_masks):
        monkeypatch.setattr(module, "MASK_TYPES", names)
    text = "\n".join(
        cell.source
        for cell in read_source(build.SOLUTIONS / "10_full_run.py").cells
        if cell.cell_type == "markdown"
    )
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", text, re.S) if "register_mask" in c)
    exec(code, {})


def test_the_printed_mask_pre_trains_with_the_stated_fields(block):
    recipe = Recipe.load("cpu").changed(
        pretrain={"mask.mask_type": "block", "mask.decoder_mask_type": "random"}
    )
    grid = recipe.pretrain.model.grid
    mask = make_mask(recipe.pretrain.mask, grid, 8, torch.Generator().manual_seed(0))
    t, h, w = grid.shape
    assert mask.visible.shape == (8, t * h * w // 4)  # 75 % is met exactly on 4x4 positions
    seen = torch.zeros(8, grid.num_tokens).scatter(1, mask.visible, 1.0).view(8, t, h, w)
    assert (seen == seen[:, :1]).all()
    assert (seen.amax((1, 3)).sum(1) == 2).all() and (seen.amax((1, 2)).sum(1) == 2).all()
    assert len({tuple(clip.flatten().tolist()) for clip in seen}) > 1


def test_running_cells_need_tubes_as_the_project_says(block):
    with pytest.raises(MaskError, match="requires tubes"):
        Recipe.load("cpu").changed(pretrain={"mask.mask_type": "block"})
