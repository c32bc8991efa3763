"""`--set` and the limits of a configuration: the right value, or one message with the nearest name."""

from __future__ import annotations

import argparse

import pytest

from vmae.base_config import ConfigError
from vmae.cli.commands import _recipe
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.train import PretrainConfig, Recipe, pretrain


def recipe(command: str, config: str, *changes: str) -> Recipe:
    return _recipe(argparse.Namespace(command=command, config=config, set=changes))


def test_null_is_none():
    assert recipe("finetune", "cpu").finetune.labels_per_class == 10
    assert recipe("finetune", "cpu", "labels_per_class=null").finetune.labels_per_class is None
    assert recipe("pretrain", "cpu", "optim.clip_grad=null").pretrain.optim.clip_grad is None


def test_steps_replace_the_epochs_of_a_recipe():
    optim = recipe("pretrain", "v1-ucf101-b", "optim.steps=3").pretrain.optim
    assert optim.resolved(videos=9537).steps == 3
    optim = recipe("pretrain", "v1-ucf101-b", "optim.epochs=2").pretrain.optim
    assert optim.resolved(videos=9537).steps == 98
    changed = Recipe.load("v1-ucf101-b").changed(finetune={"optim.steps": 3})
    assert (changed.finetune.optim.epochs, changed.pretrain.optim.epochs) == (None, 3200)


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_model_and_data_change_in_both_parts_and_the_rest_in_one(command):
    found = recipe(command, "cpu", "model.depth=2", "data.path=x", "seed=5")
    for part in (found.pretrain, found.finetune):
        assert (part.model.depth, part.data.path) == (2, "x")
    assert {found.pretrain.seed, found.finetune.seed} == {0, 5}


@pytest.mark.parametrize(
    "command,config,change",
    [
        ("pretrain", "own-cpu", "model.depth=4"),  # of which own-cpu would freeze 8 to fine-tune
        ("finetune", "gpu", "model.num_frames=12"),  # in which gpu could not mask the decoder
    ],
)
def test_what_the_other_part_could_not_do_is_no_obstacle(command, config, change):
    name, value = change.removeprefix("model.").split("=")
    changed = recipe(command, config, change)
    assert str(getattr(getattr(changed, command).model, name)) == value
    with pytest.raises(ValueError, match="frozen_layers is 8|running-cell masking repeats"):
        recipe("plan", config, change)


@pytest.mark.parametrize(
    "change,words",
    [
        ("optim.stepz=3", "no field optim.stepz (did you mean steps?)"),
        ("optimm.steps=3", "no field optimm (did you mean optim?)"),
        ("lr=1", "no field lr (did you mean optim.lr?)"),
        ("model.img_sise=32", "no field model.img_sise (did you mean img_size?)"),
        ("optim.lr.x=3", "optim.lr.x: lr is a single value, so it has no field 'x'"),
        ("optim=3", "optim must map field names to values; it is 3"),
        ("optim.steps=[1", "'[1' is not a value that YAML knows"),
        ("optim.steps=many", "optim.steps is 'many'; it must be of type int"),
        ("optim.steps=null", "optim.steps is None; it must be of type int"),
        ("optim.betas=0.9", "optim.betas is 0.9; it must be a list of 2 values"),
        ("model.img_size=[224, 160]", "it must be a single value of type int"),
        ("model.channels=1", "model.channels is 1; it must be 3"),
        ("model.depth=0", "depth is 0; it must be at least 1"),
        ("model.num_frames=7", "clip length 7 is not divisible by tubelet size 2: use 6 or 8"),
        ("mask.mask_ratio=0.01", "nothing"),
        ("optim.lr=-1", "lr is -1.0; it must be at least 0"),
        ("optim.lr=.nan", "lr is nan; it must be at least 0"),
        ("optim.epochs=.inf", "optim.epochs is inf; it must be finite"),
        ("data.clip_seconds=1e999", "data.clip_seconds is inf; it must be finite"),
        ("=3", "--set '=3' must have the form NAME=VALUE, e.g. optim.steps=100"),
        ("optim.betas=[0.9, 1.5]", "betas is (0.9, 1.5); it must be between 0 and 1"),
        ("data.num_workers=-1", "num_workers is -1; it must be at least 0"),
    ],
)
def test_a_wrong_field_is_one_message_before_anything_starts(change, words, tmp_path, capsys):
    assert main(["pretrain", "cpu", "--out", str(tmp_path / "run"), "--set", change]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("vmae: ") and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_misspelt_recipe_is_named_with_the_nearest(tmp_path):
    with pytest.raises(
        ConfigError, match=r"'v1-ucf101' \(did you mean v1-ucf101-b\?\): choose from these, or pass"
    ):
        Recipe.load("v1-ucf101")


def test_frames_are_square_in_python_too():
    with pytest.raises(ConfigError, match=r"img_size is \(224, 160\); frames are square"):
        ModelConfig(img_size=(224, 160))  # type: ignore[arg-type]
    config = PretrainConfig(model=ModelConfig(channels=4))  # for a source of one's own
    with pytest.raises(ConfigError, match="channels is 4; it must be 3"):
        pretrain(config)
