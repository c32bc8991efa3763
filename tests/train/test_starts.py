"""What is wrong with a start is found before anything is decoded, and it leaves the folder free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import MODEL, curve, pretraining, run

from vmae.base_config import ConfigError
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import DataConfig, SetError
from vmae.mae import MaskedAutoencoder
from vmae.train import FinetuneConfig, Recipe, finetune, open_sources
from vmae.train.run_folder import claim_start, start_kind
from vmae.train.starting import check_source, load_start
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, save


@pytest.fixture
def data(motion_mini, tmp_path) -> DataConfig:
    return DataConfig(path=str(motion_mini), cache_dir=str(tmp_path / "stores"), num_workers=1)


def decoded(data: DataConfig) -> bool:
    return Path(data.cache_dir).exists()


def test_an_occupied_folder_is_refused_before_decoding(data, tmp_path, capsys):
    config = pretraining(data)
    run(config.replace(data=data.replace(cache_dir=str(tmp_path / "other"))), tmp_path / "run")
    for kind in (config, FinetuneConfig(model=MODEL, data=data)):
        kind.to_yaml(tmp_path / "config.yaml")
        command = "finetune" if isinstance(kind, FinetuneConfig) else "pretrain"
        out = ["--out", str(tmp_path / "run")]
        assert main([command, str(tmp_path / "config.yaml"), *out]) == 1
        assert "already contains a run: add --resume to continue it" in capsys.readouterr().err
    assert not decoded(data)


def test_a_place_that_no_run_can_have_is_refused_before_decoding(data, tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    for config in (pretraining(data), FinetuneConfig(model=MODEL, data=data)):
        config.to_yaml(tmp_path / "config.yaml")
        command = "finetune" if isinstance(config, FinetuneConfig) else "pretrain"
        for out, words in (
            (tmp_path / "notes.txt", "it is a file: choose another folder"),
            (tmp_path / "notes.txt" / "run", "notes.txt is a file: choose another folder"),
            (data.path, "is the folder of the videos (data.path): choose another folder"),
        ):
            assert main([command, str(tmp_path / "config.yaml"), "--out", str(out)]) == 1
            assert words in capsys.readouterr().err, out
    assert not decoded(data)
    assert not (Path(data.path) / "lock.json").exists()


def test_too_few_clips_of_a_class_are_found_before_decoding(data):
    with pytest.raises(
        SetError, match="has 6 training videos, fewer than labels_per_class, 7: set"
    ):
        open_sources(FinetuneConfig(model=MODEL, data=data, labels_per_class=7))
    assert not decoded(data)


def test_weights_of_another_size_name_the_recipe_before_decoding(data, tmp_path, capsys):
    save(MaskedAutoencoder(MODEL), tmp_path / "small")
    config = FinetuneConfig(model=MODEL.replace(embed_dim=64), data=data)
    config.to_yaml(tmp_path / "config.yaml")
    command = ["finetune", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]
    assert main([*command, "--encoder", str(tmp_path / "small")]) == 1
    words = "these weights are ViT-32 (embed_dim 32, not 64), but the run's model is ViT-64"
    assert words in capsys.readouterr().err
    assert not decoded(data) and not (tmp_path / "run").exists()

    weights = VisionTransformer(ModelConfig.videomae("S", depth=1))
    weights.config = ModelConfig.videomae("S")
    words = (
        r"these weights are ViT-S \(embed_dim 384, not 768, num_heads 6, not 12\), but the run's "
        r"model is ViT-B: use a recipe of that size \(own, own-cpu, v1-k400-s, v1-ssv2-s\)"
    )
    with pytest.raises(ConfigError, match=words):
        check_source(weights, Recipe.load("v1-k400-b").finetune)
    check_source(weights, Recipe.load("v1-k400-s").finetune)


def test_the_entry_of_the_weights_to_start_from(data, tmp_path, capsys):
    model = MODEL.replace(num_heads=1)  # as files of this width are read
    first, second = (VisionTransformer(model).state_dict() for _ in range(2))
    torch.save({"model": first, "model_ema": second}, tmp_path / "both.pth")
    config = FinetuneConfig(model=model, data=data, start_from=str(tmp_path / "both.pth"))
    name = "blocks.0.mlp.fc1.weight"
    with pytest.warns(UserWarning, match="pass state_key='model_ema'"):
        assert torch.equal(load_start(config)[1].state_dict()[name], first[name])
    source = load_start(config.replace(state_key="model_ema"))[1]
    assert torch.equal(source.state_dict()[name], second[name])

    config.replace(start_from=None).to_yaml(tmp_path / "config.yaml")
    command = ["finetune", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]
    assert main([*command, "--encoder", config.start_from, "--state-key", "model_emma"]) == 1
    assert "model_emma" in capsys.readouterr().err
    assert main([*command, "--state-key", "model_ema"]) == 1
    words = "state_key is 'model_ema', an entry of the weights to start from, but this run starts from scratch"
    assert words in capsys.readouterr().err
    assert not decoded(data) and not (tmp_path / "run").exists()


def test_a_start_that_failed_leaves_the_folder_free(data, tmp_path, monkeypatch):
    config, folder = pretraining(data), tmp_path / "run"

    def fails(*_):
        raise RuntimeError("out of luck")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedAutoencoder, "forward", fails)
        with pytest.raises(RuntimeError, match="out of luck"):
            run(config, folder)
    other = config.replace(optim=config.optim.replace(lr=2e-3))
    assert curve(run(other, folder)) == curve(run(other))
    with pytest.raises(CheckpointError, match="already contains a run"):
        run(other, folder)


def test_a_start_from_other_weights_after_one_that_failed(data, tmp_path):
    config = FinetuneConfig(model=MODEL, data=data, optim=pretraining(data).optim, log_every=1)
    sources = open_sources(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.functional.cross_entropy", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finetune(config, sources, VisionTransformer(MODEL), folder=tmp_path / "run")
    finetune(config, sources, folder=tmp_path / "run")
    assert (tmp_path / "run" / "start.txt").read_text() == "scratch\n"


def test_a_start_that_was_noted_by_its_hash_alone_is_the_same_start(tmp_path, monkeypatch):
    monkeypatch.setattr("vmae.train.run_folder.holds_run", lambda folder: True)
    encoder, noted = VisionTransformer(MODEL), tmp_path / "start.txt"
    claim_start(tmp_path, encoder)
    start, kind = noted.read_text().split(" (")
    assert kind == "pre-trained only)\n"
    noted.write_text(f"{start}\n")
    assert start_kind(tmp_path) == "", "as earlier versions noted it"
    claim_start(tmp_path, encoder)
    assert start_kind(tmp_path) == "pre-trained only"
    with pytest.raises(CheckpointError, match=f"a run that started from {start}, not from scratch"):
        claim_start(tmp_path, None)
