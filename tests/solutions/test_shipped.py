"""The models that ship: trained, measured beside copiers and written, with tiny settings."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shipped
import torch
from safetensors.torch import load_file
from ship import LARGEST, ship

import vmae
from vmae.course.making import FilmSpec
from vmae.data import ClipDataset, Sampling, VideoFiles, load_set
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask
from vmae.train import Recipe

SMALL = {
    "model.img_size": 32, "model.embed_dim": 16, "model.num_heads": 2, "model.depth": 1,
    "model.decoder_embed_dim": 16, "model.decoder_num_heads": 2, "model.decoder_depth": 1,
}  # fmt: skip
RUN = {"optim.steps": 2, "optim.batch_size": 4, "save_every": 1, "log_every": 1}


def test_the_film_model_continues_from_one_time_step(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FILM_SPEC", FilmSpec(frames=32, overlap=16, most_clips=80))
    data = {"data.path": str(tmp_path / "set"), "data.cache_dir": str(tmp_path / "stores")}
    recipe = Recipe.load("film").changed(
        both=SMALL | data | {"data.num_workers": 1},
        pretrain=RUN | {"optim.lr": 1e-30, "compile": False},
    )
    first = shipped.FIRST_STAGE["pretrain"]
    monkeypatch.setitem(shipped.FIRST_STAGE, "pretrain", first | RUN | {"optim.lr": 1e-2})
    run = tmp_path / "film"
    shipped.train_film(recipe, run, {})
    started, ended = (
        load_file(tmp_path / name / "model.safetensors") for name in ("film-first-stage", "film")
    )
    assert all(torch.equal(ended[name], value) for name, value in started.items())
    result = shipped.measured("film", recipe.pretrain, run, shipped.unseen_clips(recipe.pretrain))
    assert set(result["errors"]) == {
        "tube 0.75", "tube 0.9", "random 0.75", "random 0.9", "frame 0.75",
    }  # fmt: skip
    for errors in result["errors"].values():
        assert set(errors) == {"model", "mean", "blend", "copy"}
        assert 0 < errors["mean"] < 0.1 < errors["model"]
    frame = result["errors"]["frame 0.75"]
    assert frame["copy"] < 0.3 * frame["blend"], "neighbouring frames of a film are alike"
    assert [clips for clips, *_ in result["curve"]] == [4, 8]
    assert result["curve"][-1][2] == result["errors"]["tube 0.75"]["model"]


def test_a_single_time_step_is_seen_as_the_model_of_whole_clips_sees_it():
    recipe = Recipe.load("film").changed(both=SMALL)
    whole = MaskedAutoencoder(recipe.pretrain.model).eval()
    one = recipe.changed(**shipped.FIRST_STAGE).pretrain.model
    single = shipped.OneTimeStep(one, whole.config).eval()
    single.load_state_dict(whole.state_dict())
    clips = torch.randint(256, (2, 3, 16, 32, 32), dtype=torch.uint8)
    mask = make_mask(recipe.pretrain.mask, one.grid, 2, torch.Generator().manual_seed(0))
    seen = set()
    for seed in range(20):
        step = int(torch.randint(8, (1,), generator=torch.Generator().manual_seed(seed)))
        torch.manual_seed(seed)
        predicted = single(clips[:, :, 2 * step : 2 * step + 2], mask)
        first = step * one.grid.num_tokens
        of_clip = Mask(mask.visible + first, mask.queries + first, mask.targets)
        torch.testing.assert_close(predicted, whole(clips, of_clip))
        seen.add(step)
    assert len(seen) > 4
    assert set(single.state_dict()) == set(whole.state_dict())


def test_the_image_model_is_written_with_the_names_of_its_authors(tmp_path):
    small = {name.removeprefix("model."): value for name, value in SMALL.items()}
    config = shipped.IMAGE.replace(
        model=shipped.IMAGE.model.replace(**small | {"tubelet": (1, 8, 8)}),
        optim=shipped.IMAGE.optim.replace(steps=2, batch_size=4), save_every=1, log_every=1,
    )  # fmt: skip
    run = tmp_path / "image"
    shipped.train(config, run, source=shipped.Crops(8, 32))
    result = shipped.measured("image", config, run, shipped.unseen_pictures(32))
    assert set(result["errors"]["random 0.75"]) == {"model", "mean", "blend", "copy"}
    folder = ship(run, tmp_path / "shipped", half=True, official=True)
    state = load_file(folder / "model.safetensors")
    assert {"cls_token", "blocks.0.attn.qkv.weight", "decoder_blocks.0.mlp.fc2.bias"} <= set(state)
    tables = {"pos_embed", "decoder_pos_embed"}  # computed, not learned
    halves = {name for name, tensor in state.items() if tensor.dtype == torch.float16}
    assert halves == set(state) - tables
    assert json.loads((folder / "stamp.json").read_text())["steps"] == 2
    again = vmae.load(folder)
    assert isinstance(again, MaskedAutoencoder) and again.config == config.model
    trained = vmae.load(run)
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value.float(), trained.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_no_crop_shows_the_cat():
    crops = shipped.Crops(4, 32)
    photos, frames = shipped.pictures.pictures("train")
    assert len(crops.pools[0]) == len(photos) - 1 and crops.pools[1] is frames
    cat = shipped.unseen_pictures(32)[0, 0]
    assert cat.shape == (32, 32, 3) and cat.std() > 30
    first = crops.read(0, np.arange)
    assert first.shape == (1, 32, 32, 3) and np.array_equal(
        first, shipped.Crops(4, 32).read(0, np.arange)
    )


def test_an_error_counts_hidden_pixels_alone():
    """A model that predicts zeros is wrong by the square of the hidden pixels."""
    config = Recipe.load("film").changed(both=SMALL | {"model.num_frames": 2}).pretrain.model
    model = MaskedAutoencoder(config).eval()
    with torch.no_grad():
        model.decoder.head.weight.zero_()
        model.decoder.head.bias.zero_()
    pixels = np.full((2, 2, 32, 32, 3), 255, np.uint8)
    pixels[1] = 51
    visible, queries = torch.arange(4).expand(2, 4), torch.arange(4, 16).expand(2, 12)
    mask = Mask(visible, queries, torch.arange(12).expand(2, 12))
    assert shipped.error_of(model, pixels, mask) == pytest.approx((1 + 0.04) / 2, abs=1e-4)


def test_the_image_model_that_ships_is_as_good_as_its_evidence_says():
    model = vmae.load(vmae.ROOT / "data" / "weights" / "image").float().eval()
    assert isinstance(model, MaskedAutoencoder) and model.config == shipped.IMAGE.model
    stamp = json.loads((vmae.ROOT / "data" / "weights" / "image" / "stamp.json").read_text())
    assert stamp["steps"] == shipped.IMAGE.optim.steps
    weights = vmae.ROOT / "data" / "weights" / "image" / "model.safetensors"
    assert weights.stat().st_size <= LARGEST["image"]
    evidence = json.loads((vmae.ROOT / "data" / "evidence" / "image.json").read_text())["errors"]
    pixels = shipped.unseen_pictures()
    for key, _, mask in shipped.masks("image", shipped.IMAGE, len(pixels)):
        assert shipped.error_of(model, pixels, mask) == pytest.approx(
            evidence[key]["model"], rel=0.01
        )
        assert evidence[key]["model"] < evidence[key]["blend"] < evidence[key]["mean"]


def test_the_film_model_that_ships_is_as_good_as_its_evidence_says(tmp_path):
    config = Recipe.load("film").pretrain
    model = vmae.load(vmae.ROOT / "data" / "weights" / "film").float().eval()
    assert isinstance(model, MaskedAutoencoder)
    assert model.config == config.model
    weights = vmae.ROOT / "data" / "weights" / "film" / "model.safetensors"
    assert weights.stat().st_size <= LARGEST["film"]
    found = json.loads((vmae.ROOT / "data" / "evidence" / "film.json").read_text())
    tube = found["errors"]["tube 0.75"]
    assert tube["model"] < tube["blend"] < tube["mean"], "it has learned more than to copy"
    assert found["curve"][-1][2] == tube["model"]
    assert set(found["minutes"]) == {"time steps", "clips"}
    took = f"trained for {sum(found['minutes'].values()):.0f} minutes"
    for page in ("README.md", "data/README.md", "solutions/06_videomae_v1.py"):
        assert took in (vmae.ROOT / page).read_text(encoding="utf-8"), f"{page} says otherwise"
    clips = shipped.render_film(tmp_path / "film", shipped.FILM, shipped.FILM_SPEC, 1)
    pixels = np.concatenate(
        [
            ClipDataset(
                VideoFiles(load_set(clips).test, 112), Sampling.of(config.data, 16), 0
            ).views(i)
            for i in (20, 65)
        ]
    )
    mask = make_mask(config.mask, config.model.grid, 2, torch.Generator().manual_seed(0))
    assert shipped.error_of(model, pixels, mask) < 0.03
