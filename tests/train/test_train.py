"""Training: schedules, learning at all, exact resume, bad input."""

from __future__ import annotations

import json
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise

import pytest
import torch
from small_runs import MODEL, StopAt, curve, pretraining, run

from vmae.base_config import ConfigError
from vmae.config import ModelConfig
from vmae.data import DataConfig, Sampling, VideoFiles, load_set
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.train import (
    Evaluation,
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    Recipe,
    evaluate,
    finetune,
    free_folder,
    layer_of,
    learning_rate,
    linear_probe,
    load_classifier,
    open_sources,
    parameter_groups,
    pooled_features,
    save_classifier,
)
from vmae.train.run_folder import check_folder
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, load_weights, save_weights


@pytest.fixture
def data(motion_mini, tmp_path) -> DataConfig:
    return DataConfig(path=str(motion_mini), cache_dir=str(tmp_path / "stores"), num_workers=1)


@pytest.fixture
def config(data) -> PretrainConfig:
    return pretraining(data)


# ---- schedules -----------------------------------------------------------------------------------


def test_the_rate_warms_up_and_falls_to_its_minimum():
    optim = OptimConfig(steps=100, lr=1.0, min_lr=0.1, warmup_ratio=0.1)
    rates = [learning_rate(step, optim) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert rates[55] == pytest.approx(0.55)


def test_epochs_become_steps():
    assert OptimConfig(epochs=3, batch_size=8).resolved(100).steps == 36, "12 whole batches each"
    ucf101 = Recipe.load("v1-ucf101-b").pretrain.optim
    assert ucf101.resolved(9537).steps == 156_800, "the published run's"
    assert OptimConfig(epochs=3, batch_size=8).resolved(4).steps == 2, "no whole batch in an epoch"
    assert OptimConfig(steps=7).resolved(100).steps == 7


def test_layers_decay_from_the_head_down_and_vectors_have_no_weight_decay():
    model = VisionTransformer(MODEL, num_classes=3)
    groups = parameter_groups(model, OptimConfig(layer_decay=0.5, weight_decay=0.05), depth=2)
    found = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == len(list(model.parameters()))
    scale = {"patch_embed": 0.125, "blocks.0": 0.25, "blocks.1": 0.5, "fc_norm": 1.0, "head": 1.0}
    for name, parameter in model.named_parameters():
        lr_scale, decay = found[id(parameter)]
        assert lr_scale == next(v for k, v in scale.items() if name.startswith(k)), name
        assert decay == (0.05 if parameter.ndim > 1 else 0), name
    assert layer_of("encoder_to_decoder.weight", 2) == 3


def not_decayed(model: torch.nn.Module) -> set[str]:
    """Names of the tokens and matrices without weight decay."""
    groups = parameter_groups(model, OptimConfig())
    found = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    return {name for name, p in model.named_parameters() if p.ndim > 1 and not found[id(p)]}


def test_weight_decay_of_tokens_is_that_of_each_published_program():
    image = ModelConfig.mae("tiny", img_size=32, tubelet=(1, 8, 8))
    assert not_decayed(MaskedAutoencoder(MODEL)) == {"mask_token"}
    # timm 0.3.2's add_weight_decay, which MAE's pre-training calls, only skips vectors
    assert not_decayed(MaskedAutoencoder(image)) == set()
    assert not_decayed(VisionTransformer(image, 3)) == {"cls_token"}


# ---- pre-training --------------------------------------------------------------------------------


def test_pretraining_learns_and_writes_its_run(config, tmp_path):
    config = config.replace(optim=config.optim.replace(steps=60), save_every=30)
    result = run(config, tmp_path / "run")
    losses = curve(result)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert PretrainConfig.from_yaml(tmp_path / "run/config.yaml") == config
    again = MaskedAutoencoder(MODEL)
    load_weights(again, tmp_path / "run/model.safetensors")
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            again.state_dict().values(), result.model.state_dict().values(), strict=True
        )
    )
    assert result.cost["clips_per_second"] > 0


def test_an_interrupted_run_resumes_to_the_same_numbers(config, tmp_path):
    whole = run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", progress=StopAt(5))
    resumed = run(config, tmp_path / "cut", resume=True)
    assert [(r.step, r.loss) for r in resumed.records] == [(r.step, r.loss) for r in whole.records]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    finished = run(config, tmp_path / "cut", resume=True)
    assert len(finished.records) == 6, "a finished run is not run again"
    names = sorted(p.name for p in (tmp_path / "cut/checkpoints").iterdir())
    assert names == ["step-00000005", "step-00000006"], "the last two are kept"


def test_a_damaged_newest_checkpoint_falls_back(config, tmp_path):
    whole = run(config, tmp_path / "run")
    state = tmp_path / "run/checkpoints/step-00000006/state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.warns(UserWarning, match="step-00000006 is corrupt"):
        resumed = run(config, tmp_path / "run", resume=True)
    assert curve(resumed) == curve(whole)


def test_a_run_is_not_overwritten_nor_continued_as_another(config, tmp_path):
    run(config, tmp_path / "run")
    with pytest.raises(CheckpointError, match="already contains a run"):
        run(config, tmp_path / "run")
    other = config.replace(optim=config.optim.replace(lr=2e-3), log_every=5)
    with pytest.raises(
        CheckpointError, match=r"optim.lr: 0.001 in the folder, but 0.002 was requested"
    ) as error:
        run(other, tmp_path / "run", resume=True)
    assert "log_every" not in str(error.value)
    moved = config.replace(data=config.data.replace(path="another/set"))
    with pytest.raises(CheckpointError, match=r"data.path: .* 'another/set' was requested"):
        check_folder(tmp_path / "run", moved, resume=True)


def test_a_nan_loss_stops_the_run(config, monkeypatch):
    monkeypatch.setattr(
        import_module("vmae.train.pretrain"),
        "pixel_targets",
        lambda *args: pixel_targets(*args) * float("nan"),
    )
    with pytest.raises(FloatingPointError, match="step 1: lower the learning rate"):
        run(config)


def test_reading_files_each_time_gives_the_losses_of_the_store(config):
    config = config.replace(optim=config.optim.replace(steps=3))
    stored = run(config)
    files = VideoFiles(load_set(config.data.path).train, MODEL.img_size)
    config = config.replace(data=config.data.replace(num_workers=0))
    read = run(config, source=files)
    assert curve(read) == curve(stored)


def test_repeated_augmentation_gives_several_views_of_one_reading(config, monkeypatch):
    seen = []
    forward = MaskedAutoencoder.forward

    def spy(self, clips, mask):
        seen.append((clips, mask.visible))
        return forward(self, clips, mask)

    monkeypatch.setattr(MaskedAutoencoder, "forward", spy)
    run(config.replace(repeated_aug=3, optim=config.optim.replace(steps=1)))
    clips, visible = seen[0]
    assert len(clips) == 3 * 8
    assert torch.equal(clips[0], clips[2])
    assert len({tuple(row.tolist()) for row in visible[:3]}) > 1, "each view has a mask of its own"
    with pytest.raises(ConfigError, match="repeated_aug is 0"):
        config.replace(repeated_aug=0)


# ---- fine-tuning and testing ---------------------------------------------------------------------


@pytest.fixture
def tuning(data) -> FinetuneConfig:
    return FinetuneConfig(
        model=MODEL,
        data=data,
        optim=OptimConfig(steps=4, batch_size=8, lr=1e-3),
        labels_per_class=2,
    )


def test_finetuning_starts_from_the_encoder_and_is_repeatable(tuning, tmp_path):
    sources = open_sources(tuning)
    encoder = VisionTransformer(MODEL)
    first, second = (finetune(tuning, sources, encoder) for _ in range(2))
    scratch = finetune(tuning, sources)
    assert torch.equal(first.test.logits, second.test.logits)
    assert not torch.equal(first.test.logits, scratch.test.logits)
    save_classifier(first.model, sources.classes, tuning, tmp_path / "classifier")
    model, classes, config = load_classifier(tmp_path / "classifier")
    assert (classes, config) == (sources.classes, tuning)
    assert torch.equal(
        evaluate(model, sources.test, Sampling(MODEL.num_frames)).logits, first.test.logits
    )


def test_a_classifier_that_was_tuned_otherwise_keeps_its_folder(tuning, tmp_path):
    model, folder = VisionTransformer(MODEL, 2), tmp_path / "classifier"
    configs = [tuning.replace(labels_per_class=labels) for labels in (1, 2, 3)]
    for config, name in zip(configs, ("classifier", "classifier-2", "classifier-3"), strict=True):
        place = free_folder(folder, config)
        assert place.name == name
        save_classifier(model, ("a", "b"), config, place)
    assert [free_folder(folder, config).name for config in configs][1] == "classifier-2"
    assert load_classifier(folder)[2] == configs[0]


def test_the_encoder_passes_on_everything_but_its_norm():
    encoder, classifier = VisionTransformer(MODEL), VisionTransformer(MODEL, num_classes=3)
    classifier.load_encoder(encoder)
    for name, tensor in classifier.state_dict().items():
        if not name.startswith(("fc_norm", "head")):
            assert torch.equal(tensor, encoder.state_dict()[name]), name
    with pytest.raises(ValueError, match="blocks.2.attn.* is missing"):
        VisionTransformer(MODEL.replace(depth=3), num_classes=3).load_encoder(encoder)
    with pytest.raises(ValueError, match=r"proj.bias has shape \(32,\), not \(48,\)"):
        VisionTransformer(MODEL.replace(embed_dim=48), num_classes=3).load_encoder(encoder)


def test_baselines_see_no_motion(tuning):
    sources = open_sources(tuning)
    for view in ("single-frame", "shuffled"):
        result = finetune(tuning.replace(view=view), sources)
        assert 0 <= result.test.accuracy <= 100
    with pytest.raises(ConfigError, match="view is 'sound'"):
        tuning.replace(view="sound")


def test_testing_with_several_views_averages_them(data):
    sources = open_sources(FinetuneConfig(model=MODEL, data=data))
    torch.manual_seed(0)
    model = VisionTransformer(MODEL, num_classes=8, init_scale=1.0)
    sampling = Sampling(MODEL.num_frames)
    single = evaluate(model, sources.test, sampling, batch_size=6)
    views = evaluate(model, sources.test, sampling, batch_size=6, clips=2, crops=3)
    assert views.logits.shape == single.logits.shape
    assert torch.equal(views.labels, single.labels)
    starts = sampling.test(16, 2)  # square videos: the three crops are one
    clips = torch.stack([torch.from_numpy(sources.test.read(4, lambda _, i=i: i)) for i in starts])
    expected = model(clips.permute(0, 4, 1, 2, 3)).softmax(-1).mean(0)
    torch.testing.assert_close(views.logits[4].exp(), expected)


def test_accuracy_topk_and_confusion():
    logits = torch.tensor([[3.0, 2, 1], [1, 3, 2], [3, 1, 2], [0, 1, 2]])
    result = Evaluation(logits, torch.tensor([0, 1, 2, 0]))
    assert result.accuracy == 50
    assert result.topk(2) == 75
    assert result.topk(9) == 100
    assert result.confusion().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_linear_probe_reads_the_features(data):
    sources = open_sources(FinetuneConfig(model=MODEL, data=data))
    encoder = VisionTransformer(MODEL)
    features = [
        pooled_features(encoder, s, Sampling(MODEL.num_frames))
        for s in (sources.train, sources.test)
    ]
    assert [f.shape for f, _ in features] == [(48, 32), (24, 32)]
    assert linear_probe(*features) < 100
    told = [(f + 100 * (y[:, None] == range(32)), y) for f, y in features]
    assert linear_probe(*told) == 100, "a feature that is the label is found"


def test_features_come_in_parts_that_fit_in_memory_under_autocast(data, monkeypatch):
    source = open_sources(FinetuneConfig(model=MODEL, data=data)).test
    encoder, sampling = VisionTransformer(MODEL), Sampling(MODEL.num_frames)
    whole, labels = pooled_features(encoder, source, sampling)
    sizes, pooled, inside = [], encoder.pooled, []

    @contextmanager
    def autocast(device, accelerator=None):
        inside.append(device)
        yield
        inside.pop()

    def counted(clips):
        assert inside == ["cpu"]
        sizes.append(len(clips))
        return pooled(clips)

    monkeypatch.setattr(encoder, "pooled", counted)
    testing = import_module("vmae.train.evaluate")
    monkeypatch.setattr(testing, "inference_autocast", autocast)
    each = 12 * 4 * MODEL.grid.num_tokens * MODEL.embed_dim
    monkeypatch.setattr(testing, "AT_ONCE", 10 * each)
    parts, again = pooled_features(encoder, source, sampling)
    assert sizes == [10, 10, 4]
    assert parts == pytest.approx(whole, abs=1e-6) and (again == labels).all()


# ---- weights and configurations ------------------------------------------------------------------


def test_weights_of_another_shape_are_listed_in_full(tmp_path):
    save_weights(VisionTransformer(MODEL), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_weights(
            VisionTransformer(MODEL.replace(embed_dim=48, depth=3), num_classes=2),
            tmp_path / "a.safetensors",
        )
    for words in ("missing: blocks.2.attn.qkv.weight", "missing: head.bias", "not in this model: norm.weight",
                  "blocks.0.attn.proj.bias: (32,) in the file, (48,) in the model"):  # fmt: skip
        assert words in str(error.value)
    (tmp_path / "a.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="corrupt"):
        load_weights(VisionTransformer(MODEL), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="the file does not exist"):
        load_weights(VisionTransformer(MODEL), tmp_path / "b.safetensors")


def test_a_configuration_survives_yaml(tmp_path, config):
    config.to_yaml(tmp_path / "c.yaml")
    assert PretrainConfig.from_yaml(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    "values,words",
    [
        ({"optim": {"lrr": 1}}, ["optim.lrr", "weight_decay"]),
        ({"optim": {"steps": "many"}}, ["optim.steps", "'many'", "int"]),
        ({"optim": {"batch_size": 0}}, ["batch_size is 0"]),
        ({"model": {"img_size": 100}}, ["height 100", "96 or 112"]),
        ({"model": {"num_frames": 15}}, ["clip length 15", "14 or 16"]),
        ({"model": {"num_heads": 7}}, ["embed_dim=768", "num_heads=7"]),
        ({"precision": "fp8"}, ["fp8", "bf16"]),
        ({"mask": "tube"}, ["mask must map field names to values", "'tube'"]),
    ],
)  # fmt: skip
def test_a_wrong_configuration_names_field_and_limit(values, words):
    with pytest.raises(ValueError) as error:
        PretrainConfig.from_dict(values)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_recipes_load_and_their_masks_fit(name):
    from vmae.masking import make_mask

    recipe = Recipe.load(name)
    make_mask(recipe.pretrain.mask, recipe.pretrain.model.grid, 2)
    changed = recipe.changed({"seed": 3}, pretrain={"optim.steps": 5, "optim.lr": None})
    assert (changed.pretrain.seed, changed.finetune.seed, changed.pretrain.optim.steps) == (3, 3, 5)
    assert changed.pretrain.optim.lr == recipe.pretrain.optim.lr


def test_an_unknown_recipe_lists_those_there_are(tmp_path):
    words = r"choose from these, or pass a YAML file:\n  cpu, evening, film, gpu"
    with pytest.raises(ConfigError, match=words):
        Recipe.load("tpu")
    (tmp_path / "mine.yaml").write_text("pretrain: {optim: {steps: [}}")
    with pytest.raises(ConfigError, match="mine.yaml: the file is not valid YAML"):
        Recipe.load(tmp_path / "mine.yaml")
