"""Fine-tuning is a run like pre-training; the test counts every video once; bad input is named."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from small_runs import WRONG_OPTIONS, StopAt, assert_names_the_fifth_clip, curve, full_disk

from vmae import cost
from vmae.base_config import ConfigError
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.cost import rates
from vmae.data import DataConfig, Sampling, SetError, Video, VideoSet, require_labels
from vmae.support.files import DiskError
from vmae.train import (
    Evaluation,
    FinetuneConfig,
    OptimConfig,
    Sources,
    evaluate,
    finetune,
    interrupts,
    knn_probe,
    load_classifier,
    open_sources,
    save_classifier,
)
from vmae.train.run_folder import lock
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError

finetuning = import_module("vmae.train.finetune")

MODEL = ModelConfig.videomae("tiny", depth=2, embed_dim=32, decoder_embed_dim=24, decoder_depth=1)


@pytest.fixture(scope="module")
def data(motion_mini, tmp_path_factory) -> DataConfig:
    return DataConfig(path=str(motion_mini), cache_dir=str(tmp_path_factory.mktemp("stores")))


@pytest.fixture
def config(data) -> FinetuneConfig:
    optim = OptimConfig(steps=6, batch_size=8, lr=1e-3)
    return FinetuneConfig(model=MODEL, data=data, optim=optim, save_every=2, log_every=1)


@pytest.fixture(scope="module")
def sources(data) -> Sources:
    return open_sources(FinetuneConfig(model=MODEL, data=data))


# ---- a run ---------------------------------------------------------------------------------------


def test_an_interrupted_run_with_layers_that_drop_resumes_to_the_same_numbers(
    config, sources, tmp_path
):
    config = config.replace(drop_path=0.5, head_drop=0.5)
    whole = finetune(config, sources, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        finetune(config, sources, progress=StopAt(3), folder=tmp_path / "cut")
    torch.rand(7)  # the global generator is where nobody left it
    resumed = finetune(config, sources, folder=tmp_path / "cut", resume=True)
    assert curve(resumed) == curve(whole) == curve(finetune(config, sources))
    assert torch.equal(resumed.test.logits, whole.test.logits)
    assert curve(finetune(config.replace(drop_path=0.0), sources)) != curve(whole)
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "classes.txt", "best.json"):
        assert (tmp_path / "whole" / name).exists(), name
    assert not (tmp_path / "whole/lock.json").exists()
    model, classes, read = load_classifier(tmp_path / "whole")
    assert (classes, read) == (sources.classes, config)
    logits = evaluate(model, sources.test, Sampling(MODEL.num_frames)).logits
    assert torch.equal(logits, whole.test.logits)


def test_parts_and_checkpointing_change_no_number(config, sources):
    whole = curve(finetune(config, sources))
    assert curve(finetune(config.replace(activation_checkpointing=True), sources)) == whole
    parts = finetune(config.replace(grad_accum_steps=4), sources)
    assert curve(parts) == pytest.approx(whole, abs=1e-6)
    with pytest.raises(ConfigError, match="batch_size 8 must be divisible by 1 processes times"):
        finetune(config.replace(grad_accum_steps=3), sources)


def test_a_folder_of_another_run_is_refused_with_the_differences(config, sources, tmp_path):
    run = tmp_path / "run"
    first = finetune(config, sources, folder=run)
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="already contains a run"):
        finetune(config, sources, folder=run)
    other = config.replace(label_smoothing=0.0, log_every=3, test_clips=2)
    with pytest.raises(
        CheckpointError, match="label_smoothing: 0.1 in the folder, but 0.0 was requested"
    ) as error:
        finetune(other, sources, folder=run, resume=True)
    assert "log_every" not in str(error.value)
    assert "test_clips" not in str(error.value)
    with pytest.raises(CheckpointError, match="label_smoothing: 0.1 in the folder"):
        save_classifier(first.model, sources.classes, other, run)
    assert (run / "model.safetensors").read_bytes() == before
    (run / "config.yaml").write_text("mask: {ratio: 0.5}\n")  # as pre-training writes it
    for attempt in (
        lambda: finetune(config, sources, folder=run, resume=True),
        lambda: save_classifier(first.model, sources.classes, config, run),
    ):
        with pytest.raises(
            CheckpointError,
            match="already contains a run whose configuration is not a FinetuneConfig",
        ):
            attempt()


def test_two_runs_in_one_folder_are_refused(config, sources, tmp_path, monkeypatch):
    with lock(tmp_path):
        held = json.loads((tmp_path / "lock.json").read_text())
        (tmp_path / "lock.json").write_text(json.dumps(held | {"host": "elsewhere"}))
        with pytest.raises(CheckpointError, match=f"in use by process {held['pid']} on elsewhere"):
            finetune(config, sources, folder=tmp_path)


def test_a_full_disk_keeps_the_checkpoint_before(config, sources, tmp_path):
    with full_disk(), pytest.raises(DiskError, match="no space left on the disk"):
        finetune(config, sources, folder=tmp_path / "run")
    resumed = finetune(config, sources, folder=tmp_path / "run", resume=True)
    assert curve(resumed) == curve(finetune(config, sources))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DiskError, match="cannot write .*file.*choose another folder"):
        finetune(config, sources, folder=tmp_path / "file")


# ---- bad input -----------------------------------------------------------------------------------


@pytest.fixture
def poisoned(monkeypatch):
    """The fifth clip of step 3 has a NaN loss."""
    micro_batches, now = finetuning.micro_batches, [0]
    forward = VisionTransformer.forward

    def spy(config, run, num_classes, step, batch):
        now[0] = step
        return micro_batches(config, run, num_classes, step, batch)

    def bad(self, clips):
        logits = forward(self, clips)
        scale = torch.ones(len(logits), 1)
        scale[4] = float("nan") if now[0] == 3 else 1.0
        return logits * scale

    monkeypatch.setattr(finetuning, "micro_batches", spy)
    monkeypatch.setattr(VisionTransformer, "forward", bad)


def test_a_nan_loss_names_step_and_clip(config, sources, tmp_path, poisoned):
    with pytest.raises(FloatingPointError, match="nan at step 3: lower the learning rate") as error:
        finetune(config, sources, folder=tmp_path / "run")
    assert "the checkpoint of step 2 is kept" in str(error.value)
    kept = tmp_path / "run/nonfinite-step-00000003-0.safetensors"
    assert_names_the_fifth_clip(str(error.value), kept)
    assert load_file(kept)["labels"].shape == (8,)
    with pytest.raises(FloatingPointError) as error:
        finetune(config, sources)
    assert "kept" not in str(error.value), "there is no checkpoint without a folder"


def test_a_step_with_a_nan_loss_can_be_skipped(config, sources, poisoned):
    config = config.replace(on_nonfinite="skip", log_every=6)
    with pytest.warns(UserWarning, match="the loss at step 3 is nan: skipping this step"):
        result = finetune(config, sources)
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    assert np.isfinite(curve(result)[0])


def test_too_little_memory_names_the_fields_that_help(config, sources, monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(VisionTransformer, "forward", fails)
    with pytest.raises(interrupts.OutOfMemory) as found:
        finetune(config.replace(precision="fp32", repeated_aug=2), sources)
    for words in ("A step of 16 clips should need about", "grad_accum_steps: 2", "activation_checkpointing: true",
                  "precision: bf16", "optim.batch_size: 4"):  # fmt: skip
        assert words in str(found.value)
    need = [float(x) for x in re.findall(r"([\d.e-]+) GB", str(found.value))]
    assert len(need) == 5 and max(need[1:]) < need[0], "each way out takes less, and says how much"


def test_a_run_resumes_from_the_encoder_it_started_from(config, sources, tmp_path):
    encoder, other = (VisionTransformer(config.model) for _ in range(2))
    for name, start in (("scratch", None), ("tuned", encoder)):
        finetune(config, sources, start, folder=tmp_path / name)
        finetune(config, sources, start, folder=tmp_path / name, resume=True)
    for name, start, words in (
        ("tuned", other, "started from an encoder with sha256 .*, not from an encoder"),
        (
            "tuned",
            None,
            "not from scratch: pass that original encoder, or choose another folder",
        ),
        ("scratch", encoder, "started from scratch, not from an encoder"),
    ):
        with pytest.raises(CheckpointError, match=words):
            finetune(config, sources, start, folder=tmp_path / name, resume=True)


def test_mfu_is_flops_over_the_rate_of_the_device(config, sources, monkeypatch):
    monkeypatch.setattr(rates, "matmul_rate", lambda device, dtype: 1e9)
    result = finetune(config.replace(log_mfu=True, repeated_aug=2), sources)
    multiply_adds = cost.classifier_multiply_adds(config.model)
    for record in result.records:
        achieved = record.clips_per_second * 2 * 6 * multiply_adds
        assert record.mfu == pytest.approx(achieved / 1e9)


def test_compiling_gives_the_same_curve_or_says_why_not(config, sources, monkeypatch):
    plain, names = finetune(config, sources), []
    compile_ = torch.compile
    for backend in ("aot_eager", broken):

        def chosen(*arguments, backend=backend, **options):
            names.append(backend)
            return compile_(*arguments, **(options | {"backend": backend}))

        monkeypatch.setattr(torch, "compile", chosen)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result = finetune(config.replace(compile=True), sources)
        assert curve(result) == pytest.approx(curve(plain), rel=1e-5)
        told = any("torch.compile failed (backend" in str(w.message) for w in said)
        assert told is (backend is broken)
    assert names.count("aot_eager") == names.count(broken) == config.model.depth


def broken(*_):
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(
    ("few", "words"), [(10, "10 labels per class"), (1, "1 label per class"), (None, "all labels")]
)
def test_the_number_of_labels_in_words(config, few, words):
    assert config.replace(labels_per_class=few).labels_in_words == words


def test_a_batch_larger_than_the_labels_is_told(config, sources):
    large = config.replace(labels_per_class=1, optim=config.optim.replace(batch_size=9, steps=1))
    with pytest.warns(
        UserWarning, match="batch_size 9 is larger than the number of training videos, 8,"
    ):
        finetune(large, sources)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(config, sources):
    with pytest.raises(ConfigError, match="finds no GPU"):
        finetune(config.replace(device="cuda"), sources)


@pytest.mark.parametrize(
    "changes,words",
    [
        *WRONG_OPTIONS,
        ({"save_every": 0}, "save_every is 0"),
        ({"test_clips": 0}, "test_clips is 0; it must be at least 1"),
        ({"test_crops": -1}, "test_crops is -1"),
    ],
)
def test_wrong_options_name_value_and_limit(config, changes, words):
    with pytest.raises(ConfigError, match=words):
        config.replace(**changes)


def test_one_class_is_too_few_to_fine_tune(tmp_path):
    video = Video(tmp_path / "a.mp4", 0)
    alone = VideoSet(tmp_path, ("run",), (video,), (video,))
    with pytest.raises(
        SetError, match=r"needs at least 2 classes, but the dataset has 1 \('run'\)"
    ):
        require_labels(alone)


# ---- what is published ---------------------------------------------------------------------------


def test_the_head_starts_a_thousandth_of_its_size():
    heads = []
    for scale in (0.001, 1.0):
        torch.manual_seed(0)
        heads.append(VisionTransformer(MODEL, num_classes=50, init_scale=scale).head)
    torch.manual_seed(0)
    default = VisionTransformer(MODEL, num_classes=50).head
    assert torch.equal(default.weight, heads[0].weight)
    torch.testing.assert_close(1000 * heads[0].weight, heads[1].weight)
    assert heads[1].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert default.bias.abs().max() == 0


@dataclass
class Counted:
    """A source that counts how often it is read."""

    source: object
    reads: int = 0

    def __post_init__(self) -> None:
        self.videos = self.source.videos

    def read(self, index, choose):
        self.reads += 1
        return self.source.read(index, choose)


def test_repeated_augmentation_is_one_reading_and_several_views(config, sources, monkeypatch):
    seen = []
    forward = VisionTransformer.forward

    def spy(self, clips):
        seen.append(clips)
        return forward(self, clips)

    counted = Counted(sources.train)
    monkeypatch.setattr(VisionTransformer, "forward", spy)
    one = config.replace(
        repeated_aug=3, crop=True, random_erase_prob=1.0, optim=config.optim.replace(steps=1)
    )
    finetune(one, Sources(sources.classes, counted, sources.test))
    assert counted.reads == 8
    assert len(seen[0]) == 3 * 8
    first, second, third = seen[0][:3]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@dataclass
class InFolders:
    """Two videos of one file name, in two folders: a dark one and a bright one."""

    videos: tuple[Video, ...] = (Video(Path("a/x.mp4"), 0), Video(Path("b/x.mp4"), 1))

    def read(self, index, choose):
        frames = choose(40)
        noise = np.random.default_rng(index).integers(0, 100, (40, 16, 28, 3))
        return (noise + 150 * index)[frames].astype(np.uint8)


def test_views_of_videos_of_one_name_are_averaged_apart():
    torch.manual_seed(0)
    model, sampling = (
        VisionTransformer(MODEL, num_classes=2, init_scale=50.0),
        Sampling(MODEL.num_frames),
    )
    both = evaluate(model, InFolders(), sampling, clips=2, crops=3)
    assert both.labels.tolist() == [0, 1]
    assert not torch.allclose(both.logits[0], both.logits[1])
    source = InFolders()
    for index, video in enumerate(source.videos):
        alone = InFolders((video,))
        alone.read = lambda _, choose, index=index: source.read(index, choose)
        logits = evaluate(model, alone, sampling, clips=2, crops=3).logits
        torch.testing.assert_close(both.logits[index], logits[0])


def test_its_own_test_takes_the_views_of_the_configuration(config, sources):
    many = finetune(config.replace(test_clips=2, test_crops=3), sources)
    again = evaluate(many.model, sources.test, Sampling(MODEL.num_frames), clips=2, crops=3)
    assert torch.equal(many.test.logits, again.logits)
    single = evaluate(many.model, sources.test, Sampling(MODEL.num_frames))
    assert not torch.equal(many.test.logits, single.logits)


def test_accuracy_by_class():
    logits = F.one_hot(torch.tensor([0, 0, 1, 1, 0]), 4).float()
    found = Evaluation(logits, torch.tensor([0, 0, 0, 1, 2])).per_class()
    assert found[:3] == pytest.approx([200 / 3, 100, 0])
    assert np.isnan(found[3]), "no video of the class"


def test_nearest_neighbours_vote_by_cosine_and_weight():
    # One neighbour at distance 0 outweighs three of the other class at right angles.
    train = (np.array([[5.0, 0], [0, 1], [0, 2], [0, 3]]), np.array([0, 1, 1, 1]))
    asked = (np.array([[0.1, 0.0], [0.0, 9.0]]), np.array([0, 1]))
    assert knn_probe(train, asked) == 100
    assert knn_probe(train, asked, temperature=1e6) == 50, "without weights the three win"
    turned = (np.array([[1.0, 0.9]]), np.array([0]))  # near in angle to the first
    assert knn_probe(train, turned, neighbours=1) == 100


def test_the_report_of_evaluate_is_whole(config, sources, tmp_path, capsys):
    config = config.replace(test_clips=2, test_crops=3)
    result = finetune(config, sources, folder=tmp_path / "run")
    command = ["evaluate", str(tmp_path / "run")]
    options = ["--probe", "--knn", "--json", str(tmp_path / "report.json")]
    assert main(command + options) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "report.json").read_text())
    assert np.array_equal(written.pop("confusion"), result.test.confusion())
    assert printed == written
    assert printed["top1"] == round(result.test.accuracy, 2), "with the views of its run"
    assert list(printed["per_class"]) == list(sources.classes)
    assert 0 <= printed["probe"] <= 100
    assert 0 <= printed["knn"] <= 100
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([*command, "--clips", "1", "--crops", "1"]) == 0
    assert "knn" not in json.loads(capsys.readouterr().out)
