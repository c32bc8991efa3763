"""What the first edition wrote still loads, resumes and predicts; its field names are understood.

`first_edition/` holds a run that was stopped after step 2 of 4, a classifier and an export, written
by version 0.1.0.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import vmae
from vmae.base_config import FIRST_EDITION, ConfigError, current_names
from vmae.config import MaskConfig, ModelConfig
from vmae.data import DataConfig
from vmae.train import (
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    Recipe,
    Record,
    Silent,
    load_classifier,
    pretrain,
    run_folder,
)
from vmae.weights import CheckpointError

OLD = Path(__file__).with_name("first_edition")
CLASSES = {
    "ModelConfig": ModelConfig, "MaskConfig": MaskConfig, "DataConfig": DataConfig,
    "OptimConfig": OptimConfig, "RunConfig": FinetuneConfig, "Record": Record,
}  # fmt: skip


def test_a_run_of_the_first_edition_resumes_to_the_numbers_it_would_have_reached(
    motion_mini, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # its configuration says `path: motion`
    shutil.copytree(motion_mini, "motion")
    shutil.copytree(OLD / "run", "run")
    Path("stores").mkdir()  # its cache_dir; a relative path that does not exist means the checkout
    config = PretrainConfig.from_yaml("run/config.yaml")
    assert (config.model.embed_dim, config.mask.decoder_mask_type) == (16, "running-cell")
    result = pretrain(config, "run", resume=True, progress=Silent())
    assert [record.step for record in result.records] == [1, 2, 3, 4]
    assert [record.loss for record in result.records] == pytest.approx(
        [0.2999100387096405, 0.25621339678764343, 0.2657078206539154, 0.2582181692123413], rel=1e-6
    )
    assert all(record.mfu for record in result.records)
    written = yaml.safe_load(Path("run/config.yaml").read_text())
    assert "embed_dim" in written["model"] and "width" not in written["model"]


@pytest.mark.parametrize(
    "part,name,value",
    [("optim", "epochs", 2), ("data", "short", "repeat"), ("model", "family", "mae")],
)
def test_a_run_that_would_continue_with_other_numbers_is_refused(tmp_path, part, name, value):
    shutil.copytree(OLD / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    values = yaml.safe_load(path.read_text())
    values[part][name] = value
    path.write_text(yaml.safe_dump(values))
    kept = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    config = PretrainConfig.from_yaml(path)
    words = f"a run of vmae 0.1.0, .*{part}.{name}.* finish the run with that version"
    with pytest.raises(CheckpointError, match=words):
        run_folder.check_folder(tmp_path / "run", config, resume=True)
    assert {p: p.read_bytes() for p in kept} == kept


def test_its_models_load():
    export = vmae.load(OLD / "export")
    assert export.config.img_size == 16
    model, classes, config = load_classifier(OLD / "classifier")
    assert len(classes) == 8 and config.optim.warmup_ratio == 0.1
    assert model(torch.zeros(1, 3, 8, 16, 16, dtype=torch.uint8)).shape == (1, 8)


@pytest.mark.parametrize("kind", FIRST_EDITION)
def test_every_old_name_is_that_of_a_field_and_is_none_today(kind):
    fields = set(CLASSES[kind].__dataclass_fields__)
    for old, new in FIRST_EDITION[kind].items():
        assert new in fields
        assert old not in fields
        assert current_names(CLASSES[kind], {old: 1}) == {new: 1}


def test_a_field_under_both_names_is_an_error_that_names_the_old_one():
    with pytest.raises(ConfigError, match=r"ModelConfig has no field width"):
        ModelConfig.from_dict({"width": 32, "embed_dim": 32})
    with pytest.raises(ConfigError, match=r"MaskConfig has no field pretrain.mask.ratio"):
        Recipe.load("cpu").changed(pretrain={"mask.ratio": 0.5})
