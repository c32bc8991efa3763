"""What a GPU would stumble over, found without one.

Tensors on the `meta` device have shapes and no values. A watcher sees every operation: one that mixes
devices would fail on a GPU, and one that reads a value would make the host wait for it. A run may wait
where it logs and at the end of an evaluation, nowhere else. The same code compiles as one graph.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vmae.config import MaskConfig, ModelConfig
from vmae.data.augment.batched import draw_flips, mix, multi_scale_crop, take_flips, view_of
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import Mask, make_mask
from vmae.train import FinetuneConfig
from vmae.train.evaluate import mean_of_views, view_logits
from vmae.train.finetune import augment
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
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")


class Watcher(TorchDispatchMode):
    """Fails on an operation that mixes devices, copies to the host, or waits for a value."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_device = any(x.device == META for x in tensors)  # tables may be computed on the host
        assert not (on_device and name.startswith(WAITS)), f"{name} waits for the device"
        devices = {x.device.type for x in tensors if x.ndim}  # a scalar may lie on the host
        assert len(devices) < 2, f"{name} mixes {devices}"
        out = function(*args, **(kwargs or {}))
        if devices == {"meta"}:
            made = {x.device.type for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
            assert made <= {"meta"}, f"{name} copies to {made}"
        return out


def clips(count: int = 4) -> torch.Tensor:
    return torch.zeros(count, 3, *MODEL.grid.clip, dtype=torch.uint8, device=META)


def autoencoder(config: ModelConfig = MODEL) -> MaskedAutoencoder:
    return MaskedAutoencoder(config).to(META)


def pretraining_loss(model: MaskedAutoencoder, pixels: torch.Tensor, mask: Mask) -> torch.Tensor:
    return F.mse_loss(model(pixels, mask).float(), pixel_targets(pixels, mask, model.config))


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_step_of_pretraining_stays_on_the_device(scheme):
    model = autoencoder()
    with Watcher():
        mask = make_mask(SCHEMES[scheme], MODEL.grid, 4, device=META)
        pixels = take_flips(multi_scale_crop(clips()), draw_flips(4, None, META))
        pretraining_loss(model, pixels, mask).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert all(p.grad is not None and p.grad.device == META for p in model.parameters())


def test_a_step_of_fine_tuning_with_every_augmentation_stays_on_the_device():
    config = FinetuneConfig(
        model=MODEL, crop=True, crop_area=(0.08, 1.0), flip=True, randaug_num_ops=2,
        random_erase_prob=0.5, mixup=0.8, cutmix=1.0,
    )  # fmt: skip
    model = VisionTransformer(MODEL, 5, drop_path=0.1).to(META)
    labels = torch.zeros(4, dtype=torch.int64, device=META)
    with Watcher():
        pixels = view_of(augment(clips(), config), "shuffled")
        pixels, soft = mix(pixels, F.one_hot(labels, 5).float(), 0.8, 1.0)
        F.cross_entropy(model(pixels), soft, label_smoothing=0.1).backward()


def test_an_evaluation_waits_only_for_its_result():
    model = VisionTransformer(MODEL, 5).to(META).eval()
    with torch.inference_mode(), Watcher():
        logits = mean_of_views(view_logits(model, clips(6), "single-frame", 3))
    assert logits.shape == (2, 5)
    assert logits.device == META


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_reconstructions_and_features_stay_on_the_device(scheme):
    model = autoencoder(MODEL.replace(normalize_targets=True)).eval()
    with Watcher():
        mask = make_mask(SCHEMES[scheme], MODEL.grid, 4, device=META)
        seen = model.reconstruct(clips(), mask)
        pooled = model.encoder.pooled(clips())
        maps = model.encoder.attention_maps(clips(), 0)
    assert maps.device == META
    assert seen.pasted.device == pooled.device == META


def test_the_watcher_sees_a_mix_of_devices_a_copy_and_a_wait():
    x = torch.zeros(3, device=META)
    with Watcher(), pytest.raises(AssertionError, match="mixes"):
        x + torch.zeros(3)
    with Watcher(), pytest.raises(AssertionError, match="waits"):
        x.nonzero()
    with Watcher(), pytest.raises(AssertionError, match="waits"):
        x.sum().item()


@pytest.mark.parametrize("scheme", ["tube", "V2"])
def test_pretraining_compiles_as_one_graph(scheme):
    torch.manual_seed(0)
    model, mask = MaskedAutoencoder(MODEL), make_mask(SCHEMES[scheme], MODEL.grid, 2)
    pixels = torch.randint(0, 256, (2, 3, *MODEL.grid.clip), dtype=torch.uint8)
    torch._dynamo.reset()
    compiled = torch.compile(pretraining_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(model, pixels, mask), pretraining_loss(model, pixels, mask))


def test_a_classifier_compiles_as_one_graph():
    torch.manual_seed(0)
    model = VisionTransformer(MODEL, 5)
    pixels = torch.randint(0, 256, (2, 3, *MODEL.grid.clip), dtype=torch.uint8)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pixels), model(pixels))
