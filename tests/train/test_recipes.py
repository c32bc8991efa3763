"""The published recipes, each against its row in the papers' and the official scripts' tables."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, PartialState

from vmae import ROOT
from vmae.base_config import ConfigError
from vmae.config import ModelConfig
from vmae.data import spec_named
from vmae.masking import make_mask
from vmae.train import (
    RECIPES,
    OptimConfig,
    Recipe,
    Silent,
    accelerator_for,
    finetune,
    learning_rate,
    open_sources,
    pretrain,
)
from vmae.train.run_folder import differences

#: Recipes of this course's own, which have no row.
OWN = {"cpu", "evening", "film", "gpu", "gpu-small", "own", "own-cpu", "ucf101-1gpu"}
#: So many videos a set is pretended to have; any number will do.
VIDEOS = 20_000


class Pre(NamedTuple):
    """Pre-training: `lr` is for 256 videos; `rate` what the published batch makes of it."""

    size: str
    decoder_depth: int
    path: str
    lr: float
    gpus: int
    each: int
    rate: float
    epochs: int
    warmup: int
    ratio: float
    stride: int
    repeat: int = 1
    clip_grad: float | None = None


class Fine(NamedTuple):
    """Fine-tuning, likewise; what is not given is the command line's default."""

    path: str
    sampling: str
    lr: float
    gpus: int
    each: int
    repeat: int
    epochs: int
    rate: float
    warmup: int = 5
    min_lr: float = 1e-6
    layer_decay: float = 0.75
    drop_path: float = 0.1
    head_drop: float = 0.0
    weight_decay: float = 0.05
    clip_grad: float | None = None
    stride: int = 4
    test: tuple[int, int] = (5, 3)


UCF, HMDB, SSV2, K400, K710, HYBRID = (
    "data/ucf101", "data/hmdb51", "data/ssv2", "data/k400", "data/k710", "data/hybrid.csv"
)  # fmt: skip
KIN, TSN = "kinetics", "tsn"
HYBRID_B = Pre("B", 4, HYBRID, 1e-3, 32, 32, 4e-3, 200, 20, 0.9, 4, 4)
HYBRID_G = Pre("g", 4, HYBRID, 6e-4, 64, 32, 4.8e-3, 300, 30, 0.9, 4, 4, 0.02)

TABLE: dict[str, tuple[Pre, Fine]] = {
    "v1-ucf101-b": (
        Pre("B", 4, UCF, 3e-4, 8, 24, 2.25e-4, 3200, 40, 0.75, 4),
        Fine(UCF, KIN, 5e-4, 8, 16, 2, 100, 2.5e-4, 5, 1e-5, 0.7, 0.2, 0.5),
    ),
    "v1-hmdb51-b": (
        Pre("B", 4, HMDB, 3e-4, 8, 24, 2.25e-4, 4800, 40, 0.75, 2),
        Fine(HMDB, KIN, 1e-3, 8, 16, 2, 50, 5e-4, 5, 1e-5, 0.7, 0.2, 0.5, stride=2, test=(10, 3)),
    ),
    "v1-ssv2-s": (
        Pre("S", 4, SSV2, 1.5e-4, 64, 32, 1.2e-3, 2400, 40, 0.9, 2),
        Fine(SSV2, TSN, 1e-3, 32, 12, 2, 40, 1.5e-3, layer_decay=0.7, test=(2, 3)),
    ),
    "v1-ssv2-b": (
        Pre("B", 4, SSV2, 1.5e-4, 64, 32, 1.2e-3, 800, 40, 0.9, 2),
        Fine(SSV2, TSN, 5e-4, 64, 8, 1, 50, 1e-3, test=(2, 3)),
    ),
    "v1-ssv2-b-2400": (
        Pre("B", 4, SSV2, 1.5e-4, 64, 32, 1.2e-3, 2400, 40, 0.9, 2),
        Fine(SSV2, TSN, 5e-4, 64, 6, 2, 30, 7.5e-4, test=(2, 3)),
    ),
    "v1-k400-s": (
        Pre("S", 4, K400, 1.5e-4, 32, 32, 6e-4, 1600, 40, 0.9, 4),
        Fine(K400, KIN, 5e-4, 32, 12, 2, 150, 7.5e-4),
    ),
    "v1-k400-b": (
        Pre("B", 4, K400, 1.5e-4, 64, 32, 1.2e-3, 800, 40, 0.9, 4),
        Fine(K400, KIN, 1e-3, 64, 8, 1, 100, 2e-3),
    ),
    "v1-k400-b-1600": (
        Pre("B", 4, K400, 1.5e-4, 64, 32, 1.2e-3, 1600, 40, 0.9, 4),
        Fine(K400, KIN, 5e-4, 64, 6, 2, 75, 7.5e-4),
    ),
    "v1-k400-l": (
        Pre("L", 12, K400, 1.5e-4, 64, 8, 3e-4, 1600, 40, 0.9, 4),
        Fine(K400, KIN, 2e-3, 64, 2, 2, 35, 1e-3),
    ),
    "v1-k400-h": (
        Pre("H", 12, K400, 1.5e-4, 64, 16, 6e-4, 1600, 40, 0.9, 4),
        Fine(K400, KIN, 1e-3, 64, 8, 2, 50, 2e-3, 5, 1e-5, 0.75, 0.2, 0.5),
    ),
    "v2-hybrid-b": (HYBRID_B, Fine(K400, KIN, 7e-4, 32, 16, 2, 90, 1.4e-3)),
    "v2-hybrid-b-ssv2": (
        HYBRID_B,
        Fine(SSV2, TSN, 2e-3, 32, 16, 2, 25, 4e-3, layer_decay=0.65, test=(2, 3)),
    ),
    "v2-hybrid-l": (
        Pre("L", 4, HYBRID, 1e-3, 48, 32, 6e-3, 300, 30, 0.9, 4, 4),
        Fine(K400, KIN, 2e-3, 64, 2, 2, 35, 1e-3),
    ),
    "v2-hybrid-h": (
        Pre("H", 4, HYBRID, 1e-3, 64, 32, 8e-3, 300, 30, 0.9, 4, 4),
        Fine(K400, KIN, 1e-3, 64, 8, 2, 50, 2e-3, 5, 1e-5, 0.75, 0.2, 0.5),
    ),
    "v2-hybrid-g": (
        HYBRID_G,
        Fine(K710, KIN, 1e-3, 32, 3, 2, 35, 3.75e-4, 5, 1e-6, 0.9, 0.3, 0.0, 0.1, 5.0),
    ),
    "v2-hybrid-g-k400": (
        HYBRID_G,
        Fine(K400, KIN, 1e-5, 32, 3, 2, 3, 3.75e-6, 1, 1e-6, 0.9, 0.25, 0.0, 0.1),
    ),
    "v2-hybrid-g-ssv2": (
        HYBRID_G,
        Fine(SSV2, TSN, 3e-4, 32, 3, 2, 20, 1.125e-4, layer_decay=0.9, drop_path=0.25, test=(2, 3)),
    ),
    "v2-hybrid-g-ucf101": (
        HYBRID_G,
        Fine(UCF, KIN, 1e-3, 8, 3, 2, 50, 9.375e-5, 5, 1e-6, 0.9, 0.35, 0.5),
    ),
    "v2-hybrid-g-hmdb51": (
        HYBRID_G,
        Fine(HMDB, KIN, 5e-4, 8, 3, 2, 15, 4.6875e-5, 5, 1e-6, 0.9, 0.35, 0.5, stride=2),
    ),
}
#: Clips that a mask leaves visible and asks for, by grid and ratio.
COUNTS = {
    ("v1", 0.75): (392, 1176, 1176),
    ("v1", 0.9): (160, 1408, 1408),
    ("v2", 0.9): (160, 784, 704),
}
PUBLISHED = pytest.mark.parametrize("name", TABLE)


def text_of(name: str) -> str:
    return (RECIPES / f"{name}.yaml").read_text()


def schedule(optim: OptimConfig, row: Pre | Fine, min_lr: float) -> None:
    """The batch, the rates and the warm-up of a row, in the file and in the steps that come of it."""
    batch = row.gpus * row.each
    assert (optim.batch_size, optim.epochs, optim.base_batch_size) == (batch, row.epochs, 256)
    assert (optim.lr, optim.min_lr) == (row.lr, min_lr)
    assert optim.clip_grad == row.clip_grad
    absolute = optim.resolved(VIDEOS)
    assert absolute.steps == row.epochs * (VIDEOS // batch)
    rates = [learning_rate(step, absolute) for step in range(absolute.steps)]
    peak = row.warmup * (VIDEOS // batch)
    assert rates[peak - 1] == pytest.approx(row.rate, rel=1e-12)
    assert max(rates) == pytest.approx(row.rate, rel=1e-12)
    assert rates[0] == pytest.approx(row.rate / peak)
    assert rates[-1] == pytest.approx(min_lr * batch / 256, rel=0.01)


def test_no_recipe_is_without_a_row():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == OWN | set(TABLE)


@PUBLISHED
def test_pretraining_is_as_published(name):
    row, version = TABLE[name][0], int(name[1])
    config = Recipe.load(name).pretrain
    assert config.model == ModelConfig.videomae(row.size, version)
    assert config.model.decoder_depth == row.decoder_depth
    dual = ("running-cell", 0.5) if version == 2 else ("all", 0.0)
    mask = config.mask
    assert (mask.mask_type, mask.mask_ratio, mask.tube_length) == ("tube", row.ratio, None)
    assert (mask.decoder_mask_type, mask.decoder_mask_ratio) == dual
    data = config.data
    assert (data.path, data.sampling, data.stride) == (row.path, "dense", row.stride)
    assert data.short == "repeat"
    assert (config.optim.betas, config.optim.weight_decay) == ((0.9, 0.95), 0.05)
    assert config.optim.layer_decay == 1
    assert (config.repeated_aug, config.crop, config.device) == (row.repeat, True, "cuda")
    schedule(config.optim, row, 1e-5)


@PUBLISHED
def test_finetuning_is_as_published(name):
    row = TABLE[name][1]
    config = Recipe.load(name).finetune
    data, optim = config.data, config.optim
    assert (data.path, data.sampling, data.short) == (row.path, row.sampling, "repeat")
    if row.sampling == KIN:  # one frame of each segment has no stride
        assert data.stride == row.stride
    assert (optim.betas, optim.weight_decay) == ((0.9, 0.999), row.weight_decay)
    assert (optim.layer_decay, config.drop_path) == (row.layer_decay, row.drop_path)
    assert (config.head_drop, config.repeated_aug) == (row.head_drop, row.repeat)
    assert config.flip == (row.path != SSV2)
    assert (config.crop, config.crop_area) == (True, (0.08, 1.0))
    assert (config.randaug_num_ops, config.randaug_magnitude, config.random_erase_prob) == (
        4,
        7,
        0.25,
    )
    assert (config.mixup, config.cutmix, config.label_smoothing) == (0.8, 1.0, 0.1)
    assert (config.labels_per_class, config.view, config.mix_each) == (None, "video", False)
    assert (config.test_clips, config.test_crops) == row.test
    assert config.device == "cuda"
    schedule(optim, row, row.min_lr)


@PUBLISHED
def test_masks_fit_the_grid(name):
    config = Recipe.load(name).pretrain
    mask = make_mask(config.mask, config.model.grid, 2)
    found = tuple(index.shape[1] for index in (mask.visible, mask.queries, mask.targets))
    giant = (208, 1024, 920)  # of 2048 tokens
    assert found == (
        giant if config.model.embed_dim == 1408 else COUNTS[name[:2], config.mask.mask_ratio]
    )


def test_the_table_of_the_readme_is_that_of_the_recipes():
    rows: dict[str, list[str]] = {}
    for line in (RECIPES / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1:]
    assert list(rows) == list(TABLE)
    above = ""
    for name, (_, before, _, after) in rows.items():
        above = above if before == "as above" else before
        recipe = Recipe.load(name)
        for text, optim in ((above, recipe.pretrain.optim), (after, recipe.finetune.optim)):
            rate = optim.resolved(VIDEOS).lr
            stated = [float(number) for number in text.split(",")]
            assert stated == pytest.approx([optim.batch_size, optim.epochs, rate], rel=1e-9), name


@PUBLISHED
def test_a_recipe_names_its_source(name):
    head = [line for line in text_of(name).splitlines() if line.startswith("# ")]
    assert any(line.startswith("# Source: ") and len(line) > 30 for line in head)


@PUBLISHED
def test_a_recipe_holds_no_field_twice(name):
    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[str, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Strict.add_constructor("tag:yaml.org,2002:map", mapping)
    yaml.load(text_of(name), Strict)


@pytest.mark.parametrize("part", ["pretrain", "finetune"])
def test_the_rates_follow_a_smaller_batch(part):
    recipe = Recipe.load("v1-k400-b")
    smaller = recipe.changed({"optim.batch_size": 64})
    whole, quarter = (getattr(r, part).optim for r in (recipe, smaller))
    ratio = whole.batch_size / 64
    videos = 10 * whole.batch_size  # whole batches in an epoch of either
    before, after = whole.resolved(videos), quarter.resolved(videos)
    assert after.lr == pytest.approx(before.lr / ratio, rel=1e-12)
    assert after.min_lr == pytest.approx(before.min_lr / ratio, rel=1e-12)
    assert after.steps == before.steps * ratio
    assert after.warmup_ratio == before.warmup_ratio  # a share of the steps, so the same epochs


def changed_fields(name: str, of: str) -> set[str]:
    """Where a recipe differs from another, by dotted name."""
    recipes = (Recipe.load(x).to_dict() for x in (of, name))
    return {line.split(":")[0] for line in differences(*recipes)}


def differing(config: ModelConfig, other: ModelConfig) -> list[str]:
    """The names of the fields in which two models differ."""
    return [f.name for f in fields(config) if getattr(config, f.name) != getattr(other, f.name)]


def test_gpu_small_is_the_recipe_gpu_in_less_memory():
    assert changed_fields("gpu-small", of="gpu") == {
        f"{part}.{field}"
        for part in ("pretrain", "finetune")
        for field in ("data.cache_on_device", "data.num_workers", "grad_accum_steps")
    }


def test_ucf101_on_one_gpu_has_the_published_steps_clips_and_rates():
    published, adapted = Recipe.load("v1-ucf101-b"), Recipe.load("ucf101-1gpu")
    same = {"grad_accum_steps", "compile", "data.num_workers"}  # these change no result
    before = {f"optim.{name}" for name in ("epochs", "batch_size", "base_batch_size")}
    assert changed_fields("ucf101-1gpu", of="v1-ucf101-b") == {
        *(f"pretrain.{name}" for name in same | before | {"repeated_aug"}),
        *(f"finetune.{name}" for name in same),
    }
    one, eight = (recipe.pretrain for recipe in (adapted, published))
    count = one.optim.batch_size * one.repeated_aug
    assert count == eight.optim.batch_size
    assert one.optim.epochs * one.repeated_aug == eight.optim.epochs
    a, b = (config.optim.resolved(9_537) for config in (one, eight))
    assert (a.lr, a.min_lr) == (b.lr, b.min_lr)
    assert a.steps == pytest.approx(b.steps, rel=0.02)


GPU_RECIPES = pytest.mark.parametrize("name", ["gpu", "gpu-small"])


@GPU_RECIPES
def test_the_full_run_is_a_small_vit_on_moving_scenes_and_keeps_the_device_busy(name):
    recipe, small = Recipe.load(name), ModelConfig.videomae("S")
    for config in (recipe.pretrain, recipe.finetune):
        model, data = config.model, config.data
        assert (model.embed_dim, model.depth, model.num_heads) == (384, 12, 6)
        assert {field: getattr(model, field) for field in differing(model, small)} == {
            "img_size": 112, "tubelet": (2, 8, 8)
        }  # fmt: skip
        assert (model.grid.clip, model.grid.shape) == ((16, 112, 112), small.grid.shape)
        assert model.normalize_targets
        assert spec_named(Path(data.path).name).level == "scenes"
        assert data.cache and data.cache_on_device == (name == "gpu")
        assert (config.device, config.precision) == ("cuda", "auto")
        assert config.grad_accum_steps == (
            1 if name == "gpu" else (4, 2)[config is recipe.finetune]
        )
    mask, optim = recipe.pretrain.mask, recipe.pretrain.optim
    assert recipe.pretrain.compile
    assert (mask.mask_type, mask.mask_ratio) == ("tube", 0.9)
    assert (mask.decoder_mask_type, mask.decoder_mask_ratio) == ("running-cell", 0.5)
    assert (optim.batch_size, optim.base_batch_size, optim.steps) == (256, 256, 1200)
    assert (recipe.finetune.labels_per_class, recipe.finetune.optim.layer_decay) == (10, 0.75)


@GPU_RECIPES
def test_the_baseline_of_the_full_run_has_no_layer_decay_and_searches_its_rate_too(name):
    """Read out of lesson 10, which makes the baseline from the recipe."""
    lesson = ast.parse((ROOT / "solutions" / "10_full_run.py").read_text(encoding="utf-8"))
    few = Recipe.load(name).finetune.replace(frozen_layers=2)
    known = {"few": few, "autoencoder": SimpleNamespace(encoder="its encoder")}
    for node in ast.walk(lesson):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("starts", "rates"):
            exec(ast.unparse(node), known)
    starts: dict[str, Any] = known["starts"]
    assert starts["pre-trained"] == (few, "its encoder")
    baseline, encoder = starts["from scratch"]
    assert encoder is None
    assert (baseline.optim.layer_decay, baseline.frozen_layers) == (1.0, 0)
    same = baseline.replace(optim=few.optim, frozen_layers=2)
    assert same == few and baseline.optim.replace(layer_decay=0.75) == few.optim
    assert known["rates"] == (0.25, 1.0, 4.0)
    loops = [ast.unparse(x) for x in ast.walk(lesson) if isinstance(x, ast.For)]
    assert any("in starts.items()" in loop and "tried(rates, " in loop for loop in loops)


def test_ucf101_on_one_gpu_is_v1_with_a_base_vit_in_micro_batches():
    recipe = Recipe.load("ucf101-1gpu")
    for config, clips in ((recipe.pretrain, 192), (recipe.finetune, 256)):
        assert config.model == ModelConfig.videomae("B")
        assert (config.model.grid.clip, config.data.path) == ((16, 224, 224), "data/ucf101")
        assert (config.device, config.precision, config.compile) == ("cuda", "auto", True)
        assert config.optim.batch_size * config.repeated_aug == clips
    assert (recipe.pretrain.grad_accum_steps, recipe.finetune.grad_accum_steps) == (8, 16)
    assert (recipe.pretrain.mask.mask_type, recipe.pretrain.mask.mask_ratio) == ("tube", 0.75)


CARDS = [("T4", False, "fp16"), ("L4", True, "bf16")]


@pytest.mark.parametrize(("card", "native", "chosen"), CARDS)
@pytest.mark.parametrize("name", ["gpu", "gpu-small", "ucf101-1gpu"])
def test_a_card_without_bf16_units_trains_in_fp16_with_a_loss_scaler(
    monkeypatch, name, card, native, chosen
):
    """As far as a machine without a GPU can tell: it is PyTorch that says which units a card has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: (
        native or including_emulation
    ))  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: card)
    monkeypatch.setattr(PartialState, "set_device", lambda self: setattr(
        self, "device", torch.device("cuda", 0)
    ))  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        recipe = Recipe.load(name)
        for config in (recipe.pretrain, recipe.finetune):
            accelerator = accelerator_for(config.precision, config.device, config.grad_accum_steps)
            assert accelerator.device.type == "cuda"
            assert accelerator.mixed_precision == chosen
            assert isinstance(accelerator.scaler, torch.amp.GradScaler) == (chosen == "fp16")
        if not native:
            with pytest.raises(ConfigError, match="T4 can only emulate"):
                accelerator_for("bf16", "cuda")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_rates_are_absolute_without_lr_batch():
    optim = OptimConfig(batch_size=64, lr=1e-3, min_lr=1e-5)
    assert optim.resolved(VIDEOS) == optim
    per_256 = optim.replace(base_batch_size=256)
    absolute = per_256.resolved(VIDEOS)
    assert (absolute.lr, absolute.min_lr) == (2.5e-4, 2.5e-6)
    assert absolute.resolved(VIDEOS) == absolute  # never scaled twice
    with pytest.raises(ConfigError, match="base_batch_size is 0; it must be at least 1"):
        OptimConfig(base_batch_size=0)


@pytest.mark.parametrize("optim,videos,words", [
    ({"epochs": 10.0}, 22, "20 steps of 8 videos: 10 epochs of 2 steps, the whole batches in 22 videos; "
     "each video is read 7.27 times on average"),
    ({"epochs": 10.0}, 24, "30 steps of 8 videos: 10 epochs"),
    ({"epochs": 2.0}, 12, "2 steps of 8 videos: 2 epochs of 1 step, the whole batches in 12 videos; each "
     "video is read 1.33 times on average"),
    ({"epochs": 10.0}, 6, "8 steps of 8 videos: 10.7 epochs"),
    ({"steps": 6}, 31, "6 steps of 8 videos: 1.55 epochs"),
    ({"steps": 1}, 32, "1 step of 8 videos: 0.25 epochs"),
])  # fmt: skip
def test_how_long_a_run_trains_in_words(optim, videos, words):
    """Epochs count whole batches, and steps take videos in turn: the passes are not the epochs."""
    assert OptimConfig(batch_size=8, **optim).in_words(videos) == words


def test_runs_train_at_the_scaled_rate(motion_mini, tmp_path):
    data = {"data.path": str(motion_mini), "data.cache_dir": str(tmp_path), "data.num_workers": 1}
    optim = {
        "optim.steps": 2,
        "optim.batch_size": 8,
        "optim.base_batch_size": 4,
        "optim.warmup_ratio": 1.0,
    }
    fields = {**data, **optim, "optim.lr": 1e-3, "log_every": 1}
    recipe = Recipe.load("cpu").changed(fields, finetune={"labels_per_class": 2})
    first = pretrain(recipe.pretrain, progress=Silent()).records
    second = finetune(recipe.finetune, open_sources(recipe.finetune)).records
    for records in (first, second):
        assert [record.lr for record in records] == pytest.approx([1e-3, 2e-3])
