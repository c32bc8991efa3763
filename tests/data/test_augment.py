"""Augmentation, tested against Pillow and plain loops, by its statistics, and in a fine-tuning run."""

from __future__ import annotations

import importlib.util
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

from vmae import ROOT
from vmae.base_config import ConfigError
from vmae.config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from vmae.data import DataConfig, mix, rand_augment, random_erase, random_flip, random_resized_crop
from vmae.data.augment.randaugment import OPS, apply_ops
from vmae.train import FinetuneConfig, OptimConfig, augment, finetune, open_sources

PUBLISHED = {
    "crop": True,
    "crop_area": (0.08, 1.0),
    "flip": True,
    "randaug_num_ops": 4,
    "random_erase_prob": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(batch: int, side: int = 20, frames: int = 3) -> torch.Tensor:
    """uint8 clips (B, 3, T, H, W) with the same picture in every frame of every clip."""
    picture = torch.randint(0, 256, (3, 1, side, side), dtype=torch.uint8, generator=seeded(9))
    return picture.expand(batch, 3, frames, side, side)


def steps(batch: int, side: int = 24, frames: int = 2) -> torch.Tensor:
    """uint8 clips in which every pixel of clip b is b, so that a pixel's origin can be read off."""
    return torch.arange(batch, dtype=torch.uint8).view(-1, 1, 1, 1, 1).expand(
        batch, 3, frames, side, side
    )  # fmt: skip


# ---- RandAugment ---------------------------------------------------------------------------------


def picture(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth picture with some noise that does not use all values: uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 4 + c) + np.cos(y / 5 - c) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 10, (height, width, 3))
    return (120 + 45 * np.stack(waves, -1) + noise).clip(10, 240).astype(np.uint8)


def with_pillow(name: str, level: float, array: np.ndarray, resample: int) -> np.ndarray:
    """The operation as the official code calls it in Pillow, with increasing strength."""
    image, size = Image.fromarray(array), abs(level)

    def moved(*matrix: float) -> Image.Image:
        how = {"resample": resample, "fillcolor": (128, 128, 128)}
        return image.transform(image.size, Image.Transform.AFFINE, matrix, **how)

    factor = 1 + 0.09 * level
    added = [min(255, i + int(11 * size)) if i < 128 else i for i in range(256)]
    done = {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "posterize": lambda: ImageOps.posterize(image, 4 - int(0.4 * size)),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(25.6 * size)),
        "solarize-add": lambda: image.point(added * 3),
        "rotate": lambda: image.rotate(3 * level, resample, fillcolor=(128, 128, 128)),
        "shear-x": lambda: moved(1, 0.03 * level, 0, 0, 1, 0),
        "shear-y": lambda: moved(1, 0, 0, 0.03 * level, 1, 0),
        "translate-x": lambda: moved(1, 0, 0.045 * level * image.width, 0, 1, 0),
        "translate-y": lambda: moved(1, 0, 0, 0, 1, 0.045 * level * image.height),
        "color": lambda: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
    }[name]()
    return np.asarray(done).astype(float)


@pytest.mark.parametrize("name", OPS)
def test_an_operation_does_what_pillow_does(name):
    array = picture()
    levels = torch.tensor([-9.9, -7.3, -2.1, 0.0, 3.3, 6.8, 9.7])
    frames = np.stack([array, array[::-1], 255 - array])  # frames with different statistics
    clips = torch.from_numpy(frames.copy()).permute(3, 0, 1, 2).float().expand(7, -1, -1, -1, -1)
    geometric = name in ("rotate", "shear-x", "shear-y", "translate-x", "translate-y")
    # Pillow truncates where we round; its bicubic kernel differs (see `rand_augment`).
    for mode, resample, most in (("bilinear", Image.BILINEAR, 1), ("bicubic", Image.BICUBIC, 6)):
        got = apply_ops(clips, torch.full((7,), OPS.index(name)), levels, mode)
        assert got.equal(got.round()) and got.min() >= 0 and got.max() <= 255
        for i, level in enumerate(levels.tolist()):
            for t, frame in enumerate(frames):
                want = with_pillow(name, level, frame, resample)
                gap = np.abs(got[i, :, t].permute(1, 2, 0).numpy() - want)
                assert gap.max() <= (most if geometric else name == "autocontrast"), (level, t)
                assert gap.mean() < 1


@pytest.mark.parametrize("select", [True, False])
def test_an_operation_changes_only_the_clips_that_drew_it(select):
    clips = torch.from_numpy(picture()).permute(2, 0, 1)[None, :, None].float()
    clips = clips.expand(len(OPS) + 1, -1, 2, -1, -1)
    level = torch.full((len(clips),), 7.0)
    out = apply_ops(clips, torch.arange(len(clips)), level, select=select)
    assert torch.equal(out[-1], clips[-1]), "an index beyond the operations changes nothing"
    for i in range(len(OPS)):
        alone = apply_ops(clips[:1], torch.tensor([i]), level[:1])
        assert torch.equal(out[i], alone[0]), OPS[i]
        assert not torch.equal(out[i], clips[i]), OPS[i]


def test_randaugment_draws_per_clip_and_not_per_frame():
    clips = still(40)
    out = rand_augment(clips, generator=seeded())
    assert out.dtype == torch.float32
    assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(out, out[:, :, :1].expand_as(out)), "all frames are equal"
    same = [torch.equal((255 * x).round(), y.float()) for x, y in zip(out, clips, strict=True)]
    assert 1 <= sum(same) < 15, "each of 4 operations is applied with probability 1/2"
    assert len({round(float(x.sum()), 3) for x in out}) > 20


def test_float_clips_are_augmented_like_uint8_clips():
    clips = still(8)
    assert torch.equal(
        rand_augment(clips, generator=seeded(1)), rand_augment(clips / 255, generator=seeded(1))
    )


def test_randaugment_never_mirrors():
    """A bright left half stays on the left, at every level and sign of every operation."""
    clips = torch.full((1, 3, 1, 32, 32), 90.0)
    clips[..., :16] = 110
    for op in range(len(OPS)):
        for level in (-10.0, 10.0):
            out = apply_ops(clips, torch.tensor([op]), torch.tensor([level]))[0, 0, 0]
            left, right = out[12:20, 12:15].mean(), out[12:20, 17:20].mean()
            turned_over = OPS[op] in ("invert", "solarize")  # in brightness, not in position
            moved = OPS[op].startswith("translate-x")
            assert moved or (left <= right if turned_over else left >= right), OPS[op]


# ---- crop, flip, erasing -------------------------------------------------------------------------


def test_resized_crops_have_the_published_sizes_and_are_the_same_in_all_frames():
    rows = torch.linspace(0, 1, 56)[:, None].expand(56, 56)
    ramp = torch.stack((rows, rows.T, rows))  # channel 0 encodes the row, channel 1 the column
    clips = ramp[None, :, None].expand(2000, 3, 2, 56, 56)
    out = random_resized_crop(clips, (0.08, 0.5), seeded())
    assert torch.equal(out[:, :, 0], out[:, :, 1])
    tall = out[:, 0, 0, 40, 28] - out[:, 0, 0, 15, 28]  # over 25 pixels, away from the border
    wide = out[:, 1, 0, 28, 40] - out[:, 1, 0, 28, 15]
    tall, wide = (55 * x / 25 for x in (tall, wide))  # shares of the frame's sides
    area, aspect = tall * wide, (wide / tall).log()
    assert area.min() > 0.07 and area.max() < 0.53
    assert area.mean() == pytest.approx(0.29, abs=0.01), "uniform in area"
    assert aspect.abs().max() < np.log(4 / 3) + 0.06, "a side is rounded to whole pixels"
    assert aspect.mean() == pytest.approx(0, abs=0.02)
    centre = out[:, 0, 0, 28, 28]
    assert centre.min() < 0.3 and centre.max() > 0.7


def test_a_resized_crop_is_the_crop_resized():
    clips = torch.rand(1, 3, 2, 20, 20, generator=seeded(1))
    got = random_resized_crop(clips, (0.3, 0.3), seeded(2))
    inner = (..., slice(2, -2), slice(2, -2))  # the border of the crop depends on its neighbours
    found = []
    for tall, wide in product(range(9, 14), repeat=2):
        for top, left in product(range(21 - tall), range(21 - wide)):
            cut = clips[0, ..., top : top + tall, left : left + wide]
            want = F.interpolate(cut, (20, 20), mode="bilinear", align_corners=False)
            if torch.allclose(got[0][inner], want[inner], atol=1e-4):
                found.append(tall * wide)
    assert found == [pytest.approx(0.3 * 400, abs=10)], (
        "exactly one rectangle of whole pixels explains it"
    )


def test_a_whole_frame_crop_changes_nothing():
    clips = torch.rand(4, 3, 2, 16, 16, generator=seeded())
    out = random_resized_crop(clips, (1.0, 1.0), seeded(), aspect=1.0)
    torch.testing.assert_close(out, clips, atol=1e-5, rtol=0)


def test_the_whole_frame_is_kept_if_no_rectangle_fits():
    clips = torch.rand(64, 3, 1, 16, 16, generator=seeded())
    out = random_resized_crop(clips, (1.0, 1.0), seeded(), aspect=9.0)
    same = sum(torch.allclose(a, b, atol=1e-5) for a, b in zip(out, clips, strict=True))
    assert same == 64


def test_flip_mirrors_half_of_the_clips():
    clips = still(400)
    out = random_flip(clips, seeded())
    mirrored = [torch.equal(x, y.flip(-1)) for x, y in zip(out, clips, strict=True)]
    kept = [torch.equal(x, y) for x, y in zip(out, clips, strict=True)]
    assert sum(mirrored) + sum(kept) == 400
    assert 160 < sum(mirrored) < 240


def test_erasing_has_the_published_statistics():
    grey = torch.full((4000, 3, 2, 40, 40), 7.0)
    erased = random_erase(grey, 0.25, seeded()) != 7.0
    assert torch.equal(erased[:, :, :1].expand_as(erased), erased), "one rectangle in all frames"
    mask = erased[:, 0, 0]
    hit = mask.flatten(1).any(1)
    assert hit.float().mean() == pytest.approx(0.25, abs=0.03)
    mask = mask[hit]
    tall, wide = mask.any(2).sum(1), mask.any(1).sum(1)
    assert torch.equal(tall * wide, mask.sum((1, 2))), "a full rectangle"
    assert tall.max() < 40 and wide.max() < 40
    area = tall * wide / 1600
    assert area.min() > 0.015 and area.max() < 0.345
    assert area.mean() == pytest.approx(0.5 * (0.02 + 1 / 3), abs=0.015)
    large = area > 0.1  # rounding to whole pixels hardly changes these
    aspect = (tall / wide).log()[large]
    assert aspect.abs().max() < -np.log(0.3) + 0.15
    assert aspect.mean() == pytest.approx(0, abs=0.1)
    top = mask.any(2).int().argmax(1)
    assert (top == 0).any() and (top + tall == 40).any()


def test_the_noise_is_standard_normal_after_normalisation_and_different_in_every_frame():
    clips = random_erase(torch.full((400, 3, 2, 24, 24), 7.0), 1.0, seeded())
    mean, std = (torch.tensor(x).view(-1, 1, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    for channel in range(3):
        noise = ((clips - mean) / std)[:, channel][clips[:, channel] != 7.0]
        assert noise.mean() == pytest.approx(0, abs=0.02)
        assert noise.std() == pytest.approx(1, abs=0.02)
    first, second = clips[:, :, 0], clips[:, :, 1]
    assert not (first == second)[first != 7.0].any()


# ---- mixing --------------------------------------------------------------------------------------


def one_hot(labels: list[int], classes: int) -> torch.Tensor:
    return F.one_hot(torch.tensor(labels), classes).float()


@pytest.mark.parametrize("each", [False, True])
def test_mixup_mixes_clips_and_targets_alike(each):
    clips, targets = torch.rand(6, 3, 2, 8, 8, generator=seeded()), torch.eye(6)
    mixed, soft = mix(clips, targets, 0.8, 0.0, seeded(3), each)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    shares = soft.diagonal()
    assert len(set(shares.tolist())) == (6 if each else 1)
    for i, share in enumerate(shares):
        assert soft[i, 5 - i] == pytest.approx(1 - share.item(), abs=1e-6)
        want = share * clips[i] + (1 - share) * clips[5 - i]
        torch.testing.assert_close(mixed[i], want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("each", [False, True])
def test_cutmix_weights_are_the_remaining_areas(each):
    cuts = set()
    for seed in range(40):
        mixed, soft = mix(steps(4) / 255, torch.eye(4), 0.0, 1.0, seeded(seed), each)
        own = (255 * mixed).round() == torch.arange(4.0).view(-1, 1, 1, 1, 1)
        assert torch.equal(own, own[:, :1, :1].expand_as(own)), "the same in channels and frames"
        assert torch.equal((255 * mixed).round()[~own], (3 - steps(4)).float()[~own])
        area = own[:, 0, 0].float().mean((1, 2))
        torch.testing.assert_close(soft.diagonal(), area)
        torch.testing.assert_close(soft.sum(1), torch.ones(4))
        for hole in ~own[:, 0, 0]:
            assert hole.any(1).sum() * hole.any(0).sum() == hole.sum(), "a full rectangle"
        cuts.add(len(set(area.tolist())))
    assert max(cuts) > 1 if each else cuts == {1}


def test_cutmix_pastes_the_published_area():
    """Far from the border, the rectangle's sides follow from its weight, up to rounding."""
    own = torch.cat(
        [mix(steps(2, 64, 1), torch.eye(2), 0.0, 1.0, seeded(i))[1][0, :1] for i in range(3000)]
    )
    # The weight is uniform; a rectangle around a uniform centre loses the part outside the frame.
    u, cy, cx = torch.rand(3, 200_000, generator=seeded(1))
    half = (1 - u).sqrt() / 2
    kept = [(c + half).clamp(max=1) - (c - half).clamp(min=0) for c in (cy, cx)]
    assert own.mean() == pytest.approx((1 - kept[0] * kept[1]).mean().item(), abs=0.03)


def test_a_coin_decides_between_mixup_and_cutmix():
    clips, pasted = torch.arange(2.0).view(-1, 1, 1, 1, 1).expand(2, 3, 1, 16, 16), 0
    for seed in range(200):
        mixed, _ = mix(clips, torch.eye(2), 0.8, 1.0, seeded(seed))
        pasted += bool(((mixed == 0) | (mixed == 1)).all())
    assert 70 < pasted < 130


def test_mixup_weights_follow_the_beta_distribution():
    shares = mix(torch.zeros(4000, 3, 1, 1, 1), torch.eye(4000), 0.8, 0.0, seeded(), True)[1]
    shares = shares.diagonal()
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.005)


def test_the_loss_is_the_published_soft_target_loss():
    logits = torch.randn(4, 5, generator=seeded())
    labels, share, smoothing = torch.tensor([0, 3, 3, 1]), 0.3, 0.1
    low, high = smoothing / 5, 1 - smoothing + smoothing / 5
    hard = [torch.where(torch.eye(5)[y] == 1, high, low) for y in (labels, labels.flip(0))]
    published = share * hard[0] + (1 - share) * hard[1]
    want = -(published * logits.log_softmax(1)).sum(1).mean()
    soft = share * torch.eye(5)[labels] + (1 - share) * torch.eye(5)[labels.flip(0)]
    torch.testing.assert_close(F.cross_entropy(logits, soft, label_smoothing=smoothing), want)


def test_nothing_to_mix_is_an_error():
    with pytest.raises(ValueError, match="mixup and cutmix are both 0"):
        mix(steps(2), torch.eye(2), 0.0, 0.0)


# ---- configuration and fine-tuning ---------------------------------------------------------------

MODEL = ModelConfig.videomae("tiny", depth=2, embed_dim=32, decoder_embed_dim=24, decoder_depth=1)


@pytest.fixture
def tuning(motion_mini, tmp_path) -> FinetuneConfig:
    data = DataConfig(path=str(motion_mini), cache_dir=str(tmp_path / "stores"), num_workers=0)
    return FinetuneConfig(
        model=MODEL, data=data, optim=OptimConfig(steps=3, batch_size=8, lr=1e-3), log_every=1
    )


@pytest.mark.parametrize(
    "values,words",
    [
        ({"crop_area": [0.08, 1.0]}, ["crop_area", "set crop to true"]),
        ({"crop": True, "crop_area": [0.5, 0.1]}, ["(0.5, 0.1)", "[0.08, 1.0]"]),
        ({"crop": True, "crop_area": [0.1, 1.5]}, ["(0.1, 1.5)", "at most 1"]),
        ({"crop": True, "crop_area": [0.1]}, ["crop_area is [0.1]", "2 values"]),
        ({"crop": "random"}, ["crop is 'random'", "bool"]),
        ({"randaug_num_ops": -1}, ["randaug_num_ops is -1", "at least 0, where 0 disables it"]),
        ({"randaug_magnitude": 11}, ["randaug_magnitude is 11", "between 0 and 10"]),
        ({"random_erase_prob": 1.5}, ["random_erase_prob is 1.5", "between 0 and 1"]),
        ({"mixup": -0.8}, ["mixup is -0.8"]),
        ({"cutmix": -1}, ["cutmix is -1"]),
        (
            {"random_erase_prob": 0.1, "model": {"channels": 1}},
            ["model.channels is 1", "must be 3"],
        ),
    ],
)
def test_an_invalid_augmentation_is_reported_with_field_and_limit(values, words):
    with pytest.raises(ConfigError) as error:
        FinetuneConfig.from_dict(values)
    for word in words:
        assert word in str(error.value)


def test_the_published_augmentation_survives_yaml_and_old_files_load(tmp_path, tuning):
    config = tuning.replace(**PUBLISHED)
    config.to_yaml(tmp_path / "c.yaml")
    assert FinetuneConfig.from_yaml(tmp_path / "c.yaml") == config
    for crop in ("true", "false"):
        (tmp_path / "old.yaml").write_text(f"crop: {crop}\n")
        old = FinetuneConfig.from_yaml(tmp_path / "old.yaml")
        assert (old.crop, old.crop_area, old.flip) == (crop == "true", None, False)


def test_by_default_clips_are_unchanged(tuning):
    clips = still(4)
    assert augment(clips, tuning) is clips, (
        "flip is off: the motion set's labels depend on left and right"
    )


def test_augmentation_depends_only_on_the_generator(tuning):
    clips = still(6)
    for name, value in PUBLISHED.items():
        if name in ("crop_area", "mixup", "cutmix"):
            continue
        config = tuning.replace(**{name: value})
        first = augment(clips, config, seeded(1))
        torch.manual_seed(5)  # the global generator has no effect
        assert torch.equal(first, augment(clips, config, seeded(1))), name
        assert not torch.equal(first, augment(clips, config, seeded(2))), name
    config = tuning.replace(**PUBLISHED)
    alone = augment(clips, config, seeded(1))
    assert len({round(float(x.sum()), 2) for x in alone}) == 6, "six clips, six views"


def test_finetuning_with_every_augmentation_is_repeatable(tuning, monkeypatch):
    config = tuning.replace(**PUBLISHED, repeated_aug=2, drop_path=0.1)
    sources = open_sources(config)
    seen, loss = [], F.cross_entropy

    def spy(logits, targets, **options):
        seen.append(targets)
        return loss(logits, targets, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", spy)
    first, second = (finetune(config, sources) for _ in range(2))
    assert torch.equal(first.test.logits, second.test.logits)
    assert all(np.isfinite(record.loss) for record in first.records)
    targets = torch.stack(seen[: config.optim.steps])
    assert targets.shape == (3, 2 * 8, 8), "two views of each clip, soft targets"
    torch.testing.assert_close(targets.sum(-1), torch.ones(3, 16))
    seen.clear()
    plain = finetune(tuning, sources)
    assert seen[0].dtype == torch.int64, "without mixing, targets are integer labels"
    assert not torch.equal(plain.test.logits, first.test.logits)


def test_the_picture_shows_every_augmentation():
    spec = importlib.util.spec_from_file_location("figures", ROOT / "solutions" / "figures.py")
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    figure = figures.augmentations()
    shown = [axis.get_title(loc="left").split(":")[0] for axis in figure.axes]
    plt.close(figure)
    assert set(shown) == {
        "original", "multi-scale crop", "resized crop", "flip", "RandAugment", "erasing", "mixup",
        "cutmix",
    }  # fmt: skip
    assert (ROOT / "data" / "pictures" / "augmentations.png").stat().st_size < 300_000


@pytest.fixture
def meta_clips() -> torch.Tensor:
    """Clips without values: anything that needs a value, or a shape that depends on one, raises."""
    return torch.empty(4, 3, 2, 16, 16, dtype=torch.uint8, device="meta")


def test_augmentation_never_waits_for_a_device(tuning, meta_clips):
    assert augment(meta_clips, tuning.replace(**PUBLISHED)).shape == meta_clips.shape
    assert augment(meta_clips, tuning.replace(crop=True)).shape == meta_clips.shape


@pytest.mark.parametrize("each", [False, True])
def test_mixing_never_waits_for_a_device(meta_clips, each):
    try:
        torch._standard_gamma(torch.ones(1, device="meta"))
    except NotImplementedError:
        pytest.skip("this PyTorch cannot draw from a Beta distribution without values")
    mixed, soft = mix(meta_clips, torch.empty(4, 8, device="meta"), each=each)
    assert (mixed.shape, soft.shape) == (meta_clips.shape, (4, 8))
