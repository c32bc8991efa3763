"""What a GPU would stumble over, found without one.

Tensors on the `meta` device have shapes and no values. A watcher sees every operation: one that mixes
devices would fail on a GPU, and one that reads a value would make the host wait for it. The loops of
pre-training, fine-tuning and evaluation run as they are, with `meta` in place of a GPU. They may wait
where they log and at the end of an evaluation, nowhere else. The same code compiles as one graph.
"""

import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vmae.config import MaskConfig, ModelConfig
from vmae.data import DataConfig, Sampling, Video
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.train import (
    FinetuneConfig,
    OptimConfig,
    PretrainConfig,
    Silent,
    Sources,
    accelerator_for,
    evaluate,
    finetune,
    pooled_features,
    pretrain,
)
from vmae.train import run as engine
from vmae.train.evaluate import mean_of_views, view_logits
from vmae.vit import VisionTransformer

META = torch.device("meta")
MODEL = ModelConfig.videomae("tiny", num_frames=8, img_size=32)
SCHEMES = {
    "tube": MaskConfig("tube", 0.75),
    "tube of 4": MaskConfig("tube", 0.75, 4),
    "random": MaskConfig("random", 0.75),
    "frame": MaskConfig("frame", 0.5),
    "V2": MaskConfig("tube", 0.75, None, "running-cell", 0.5),
}
#: Operations that make the host wait for a value of the device.
WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique")
#: Copies; in inference mode the second is not yet resolved into the first.
COPIES = ("_to_copy", "to")


#: Functions that may wait, because they log.
LOGGING = {"end_step", "add", "pending"}
PACKAGE = str(Path(engine.__file__).parents[1])


class Watcher(TorchDispatchMode):
    """Fails on an operation that mixes devices, copies to the host, or waits for a value.

    permitted   names of functions of the package that may copy and wait, and get zeros
    waits       those that have done so, in order
    """

    def __init__(self, *permitted: str) -> None:
        super().__init__()
        self.permitted, self.waits = permitted, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_device = any(x.device == META for x in tensors)  # tables may be computed on the host
        targets = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.device)]
        to_host = name in COPIES and any(target != META for target in targets)
        if on_device and (to_host or name.startswith(WAITS)):
            return self._wait(name, args[0], kwargs)
        devices = {x.device.type for x in tensors if x.ndim}  # a scalar may lie on the host
        assert len(devices) < 2, f"{name} mixes {devices}"
        out = function(*args, **kwargs)
        if devices == {"meta"}:
            made = {x.device.type for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
            assert made <= {"meta"}, f"{name} copies to {made}"
        return out

    def _wait(self, name, tensor, kwargs):
        frame = sys._getframe(2)
        while frame and not _is_function(frame.f_code):
            frame = frame.f_back
        where = frame.f_code.co_name if frame else "a test"
        assert where in self.permitted, f"{name} waits for the device, in {where}"
        self.waits.append(where)
        if name in ("_local_scalar_dense", "item"):
            return 0
        assert name in COPIES, name
        return torch.zeros(tensor.shape, dtype=kwargs.get("dtype") or tensor.dtype)


def _is_function(code) -> bool:
    """Whether code is that of a named function of the package."""
    return code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<")


def clips(count: int = 4) -> torch.Tensor:
    return torch.zeros(count, 3, *MODEL.grid.clip, dtype=torch.uint8, device=META)


def autoencoder(config: ModelConfig = MODEL) -> MaskedAutoencoder:
    return MaskedAutoencoder(config).to(META)


class Black:
    """Sixteen black videos of five classes, read on the host like any others."""

    videos = tuple(Video(Path(f"{i}.mp4"), i % 5) for i in range(16))

    def __init__(self, tested_by: Watcher | None = None) -> None:
        self.watcher = tested_by

    def read(self, index, choose):
        assert not self.watcher or not self.watcher.waits, "waits before the last video is read"
        return np.zeros((len(choose(20)), 32, 32, 3), np.uint8)


class Until(Silent):
    """Ends a run after a step, as Ctrl-C does; counts the waits of each step before."""

    def __init__(self, step: int, watcher: Watcher) -> None:
        self.last, self.watcher, self.waits = step, watcher, Counter()

    def update(self, step, record):
        self.waits[step] = len(self.watcher.waits) - self.waits.total()
        if step == self.last:
            raise KeyboardInterrupt


@pytest.fixture
def gpu(monkeypatch):
    """Runs take `meta` for their GPU. It has no generators, so draws come from the global one."""

    def on_meta(precision, device, accumulate, *_):
        accelerator = accelerator_for("fp32", "cpu", accumulate)
        accelerator.state.device = META
        return accelerator

    monkeypatch.setattr(engine, "accelerator_for", on_meta)
    for name in ("pretrain", "finetune", "evaluate"):
        monkeypatch.setattr(import_module(f"vmae.train.{name}"), "seeded", lambda *_: None)
    fused = [*optimizer._get_fused_kernels_supported_devices(), "meta"]
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: fused)
    # Otherwise the parameters that go to `meta` would be new ones, unknown to the optimizer.
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(swaps)
    AcceleratorState._reset_state(reset_partial_state=True)


#: Of either kind of run: steps to accumulate over, a record after every third.
RUN = {
    "model": MODEL, "data": DataConfig(num_workers=0), "crop": True, "flip": True,
    "optim": OptimConfig(steps=50, batch_size=4, clip_grad=1.0),
    "repeated_aug": 2, "grad_accum_steps": 2, "log_every": 3, "on_nonfinite": "skip",
}  # fmt: skip


def assert_waits_where_it_logs(train) -> None:
    """`train(progress)` runs for five steps, and only the third, which has a record, waits."""
    with Watcher(*LOGGING) as watcher:
        progress = Until(5, watcher)
        with pytest.raises(KeyboardInterrupt):
            train(progress)
    assert progress.waits[3] > 0
    assert progress.waits == Counter({1: 0, 2: 0, 3: progress.waits[3], 4: 0, 5: 0})


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_pretraining_stays_on_the_device(scheme, gpu):
    config = PretrainConfig(mask=SCHEMES[scheme], **RUN)
    assert_waits_where_it_logs(lambda shown: pretrain(config, progress=shown, source=Black()))


def test_fine_tuning_with_every_augmentation_stays_on_the_device(gpu):
    config = FinetuneConfig(
        crop_area=(0.08, 1.0), randaug_num_ops=2, random_erase_prob=0.5, mixup=0.8, cutmix=1.0,
        drop_path=0.1, head_drop=0.1, label_smoothing=0.1, view="shuffled", **RUN,
    )  # fmt: skip
    sources = Sources(tuple("abcde"), Black(), Black())
    assert_waits_where_it_logs(lambda shown: finetune(config, sources, progress=shown))


@pytest.mark.parametrize("view", ["video", "single-frame", "shuffled"])
def test_an_evaluation_waits_only_for_its_result(view, gpu):
    model = VisionTransformer(MODEL, 5).to(META)
    with Watcher("evaluate") as watcher:
        black = Black(tested_by=watcher)
        result = evaluate(
            model, black, Sampling(8), batch_size=12, clips=2, crops=2, view=view, device=META
        )
    assert result.logits.shape == (16, 5)
    assert watcher.waits == ["evaluate"] * 6, "the results of its batches"


def test_features_for_a_probe_wait_only_for_their_result(gpu):
    encoder = VisionTransformer(MODEL).to(META)
    with Watcher("pooled_features") as watcher:
        black = Black(tested_by=watcher)
        features, _ = pooled_features(encoder, black, Sampling(8), batch_size=5, device=META)
    assert features.shape == (16, MODEL.embed_dim)
    assert watcher.waits == ["pooled_features"]


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_reconstructions_stay_on_the_device(scheme):
    model = autoencoder(MODEL.replace(normalize_targets=True)).eval()
    with Watcher():
        mask = make_mask(SCHEMES[scheme], MODEL.grid, 4, device=META)
        seen = model.reconstruct(clips(), mask)
    assert seen.pasted.device == seen.masked.device == seen.predicted.device == META


def test_reconstructions_of_clips_on_the_host_are_computed_where_the_model_is():
    mask = make_mask(SCHEMES["tube"], MODEL.grid, 4)
    with Watcher():
        seen = autoencoder().reconstruct(torch.zeros(clips().shape, dtype=torch.uint8), mask)
    assert seen.pasted.device == META


def test_attention_maps_and_features_stay_on_the_device():
    encoder = autoencoder().encoder
    with Watcher():
        pooled = encoder.pooled(clips())
        maps = encoder.attention_maps(clips(), -1)
    assert maps.device == pooled.device == META


def test_the_watcher_sees_a_mix_of_devices_a_copy_and_a_wait():
    x = torch.zeros(3, device=META)
    with Watcher(), pytest.raises(AssertionError, match="mixes"):
        x + torch.zeros(3)
    with Watcher(), pytest.raises(AssertionError, match="waits"):
        x.nonzero()
    with Watcher(), pytest.raises(AssertionError, match="waits"):
        x.sum().item()
    with (
        Watcher("evaluate"),
        pytest.raises(AssertionError, match="waits for the device, in a test"),
    ):
        x.cpu()


# ---- one graph -----------------------------------------------------------------------------------


def assert_one_graph(function, *inputs) -> None:
    """What `function` computes as one graph, and that it is the same."""
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    results = []
    for f in (compiled, function):
        torch.manual_seed(1)  # dropped layers are drawn from the global generator
        results.append(f(*inputs))
    torch.testing.assert_close(*results)


def noise(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *MODEL.grid.clip), dtype=torch.uint8)


@pytest.mark.parametrize("scheme", ["tube", "V2"])
def test_pretraining_compiles_as_one_graph(scheme):
    torch.manual_seed(0)
    model, mask = MaskedAutoencoder(MODEL), make_mask(SCHEMES[scheme], MODEL.grid, 2)
    assert_one_graph(model.loss, noise(2), mask)


def test_fine_tuning_compiles_as_one_graph():
    torch.manual_seed(0)
    model = VisionTransformer(MODEL, 5, drop_path=0.5, head_drop=0.5, init_scale=1.0)

    def loss(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(pixels).float(), labels, label_smoothing=0.1)

    assert_one_graph(loss, noise(4), torch.arange(4))
    assert_one_graph(loss, noise(4), torch.rand(4, 5).softmax(1))  # of mixed clips


@pytest.mark.parametrize("view", ["video", "single-frame", "shuffled"])
def test_an_evaluation_compiles_as_one_graph(view):
    torch.manual_seed(0)
    model = VisionTransformer(MODEL, 5, drop_path=0.5, init_scale=1.0).eval()

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        return mean_of_views(view_logits(model, pixels, view, 3))

    with torch.no_grad():
        assert_one_graph(logits, noise(6))
