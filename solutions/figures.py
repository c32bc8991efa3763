"""The pictures of data/README.md, and the moving one and the diagram of README.md: python solutions/figures.py"""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

import vmae
from vmae.config import ModelConfig
from vmae.course import diagrams
from vmae.course.making import FILM, FilmSpec, render, render_film
from vmae.data import (
    ClipDataset,
    MotionSpec,
    Sampling,
    VideoFiles,
    crop_square,
    load_set,
    mix,
    multi_scale_crop,
    rand_augment,
    random_erase,
    random_flip,
    random_resized_crop,
    read_frames,
    resize_frames,
)
from vmae.figures import INK, style, to_frames
from vmae.masking import make_mask
from vmae.train import Recipe

FOLDER = vmae.ROOT / "data"
SIZE = 112
#: Test clips of the film that the moving picture shows.
SHOWN = (20, 25, 35, 65, 15)


def clip(name: str, start: int, stride: int, frames: int = 4) -> torch.Tensor:
    """Frames of a film in this folder as a uint8 clip (1, 3, T, H, W)."""
    index = start + stride * np.arange(frames)
    squares = crop_square(read_frames(FOLDER / name, lambda _: index))
    return torch.from_numpy(resize_frames(squares, SIZE)).permute(3, 0, 1, 2)[None]


def strips(rows: list[tuple[str, str, torch.Tensor]], columns: int = 2) -> Figure:
    """Clips (C, T, H, W) as strips of frames, in columns, each under its name and a remark."""
    tall = -(-len(rows) // columns)
    with style():
        figure, axes = plt.subplots(tall, columns, figsize=(4.5 * columns, 1.3 * tall))
        for axis in axes.flat:
            axis.axis("off")
        for axis, (name, remark, frames) in zip(axes.T.flat, rows, strict=False):
            gap = ((0, 0), (0, 0), (0, 3), (0, 0))
            pictures = np.pad(to_frames(frames), gap, constant_values=0)
            seen = np.pad(np.ones_like(pictures[:, :, :-3, :1]) * 255, gap)  # gaps are see-through
            strip = np.concatenate(np.concatenate((pictures, seen), axis=3), axis=1)[:, :-3]
            axis.imshow(strip, interpolation="antialiased")
            axis.set_title(f"{name}: {remark}", fontsize=9, loc="left", pad=3)
        figure.subplots_adjust(wspace=0.04, hspace=0.2)
    return figure


def save(figure: Figure, name: str) -> None:
    """Write pictures/NAME.png in 256 colours: small, and see-through around the frames.

    240 colours, dithered, are for what is opaque; 16 levels of ink are for the rim of letters.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.02, dpi=110)
    plt.close(figure)
    rgba = np.asarray(Image.open(buffer).convert("RGBA"))
    small = Image.fromarray(rgba[..., :3].copy()).quantize(240, Image.Quantize.MEDIANCUT)
    palette = np.full((256, 3), list(bytes.fromhex(INK[1:])), np.uint8)
    colours = np.reshape(small.getpalette(), (-1, 3))[:240]
    palette[: len(colours)] = colours
    alpha = rgba[..., 3]
    index = np.where(alpha == 255, np.asarray(small), 240 + alpha // 16).astype(np.uint8)
    picture = Image.fromarray(index).convert("P")
    picture.putpalette(palette.tobytes())
    path = FOLDER / "pictures" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    picture.save(path, optimize=True, transparency=bytes([255] * 240 + list(range(0, 256, 17))))
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def augmentations() -> Figure:
    """What fine-tuning can do to a clip; each seed was chosen to show its operation well."""
    bunny = clip("big_buck_bunny_shot.mp4", 20, 26)
    other = clip("big_buck_bunny_192x108.mp4", 5200, 8)
    pair, labels = torch.cat((bunny, other)), torch.eye(2)

    def draws(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def mixed(name: str, mixup: float, cutmix: float, seed: int) -> tuple[str, str, torch.Tensor]:
        clips, targets = mix(pair, labels, mixup, cutmix, draws(seed))
        return (
            name,
            f"label {100 * targets[0, 0]:.0f} % this, {100 * targets[0, 1]:.0f} % another",
            clips[0],
        )

    def alone(
        name: str, remark: str, change: Callable[..., torch.Tensor], seed: int
    ) -> tuple[str, str, torch.Tensor]:
        return name, remark, change(bunny, generator=draws(seed))[0]

    def erased(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return random_erase(clips, 1.0, generator)

    return strips(
        [
            ("original", "four frames of a clip", bunny[0]),
            alone("multi-scale crop", "one of 10 sizes, 13 places", multi_scale_crop, 3),
            alone("resized crop", "8 to 100 % of the frame", random_resized_crop, 10),
            alone("flip", "off where left and right matter", random_flip, 0),
            alone("RandAugment", "up to four operations", rand_augment, 20),
            alone("erasing", "one rectangle, noise", erased, 0),
            mixed("mixup", 0.8, 0.0, 0),
            mixed("cutmix", 0.0, 1.0, 3),
        ]
    )


def levels() -> Figure:
    """One class of each pair of the level "scenes", below one of each level before it."""

    def row(level: str, index: int, remark: str) -> tuple[str, str, torch.Tensor]:
        spec = MotionSpec(level=level, size=SIZE)
        frames, label = render(spec, "train", index)
        name = f"{level}, {spec.classes[label]}"
        return name, remark, torch.from_numpy(frames[::2]).permute(3, 0, 1, 2)

    return strips(
        [
            row("digits", 1, "the tile drifts"),
            row("textures", 8, "a photo drifts"),
            row("scenes", 18 * 3 + 1, "everything moves"),
            row("scenes", 18 * 5 + 3, "everything moves"),
            row("scenes", 18 * 1 + 5, "everything turns"),
            row("scenes", 18 * 1 + 7, "the object moves"),
            row("scenes", 18 * 1 + 9, "the ground moves, against it"),
            row("scenes", 10, "the object turns"),
            row("scenes", 12, "it goes round"),
            row("scenes", 18 * 2 + 15, "a row moves"),
            row("scenes", 18 * 3 + 16, "from rest to full pace"),
            row("scenes", 18 * 4 + 17, "from full pace to rest"),
        ]
    )


def reconstructions(tile: int = 112) -> list[Image.Image]:
    """Clips of shots that the film model never saw, a frame a picture: original, masked, predicted."""
    model = vmae.load(FOLDER / "weights" / "film").eval()
    config = Recipe.load("film").pretrain
    data = render_film(vmae.at_root(config.data.path), FILM, FilmSpec(frames=32, overlap=16))
    sampling = Sampling.of(config.data, model.config.num_frames)
    clips = ClipDataset(VideoFiles(load_set(data).test, model.config.img_size), sampling, seed=0)
    batch = torch.cat([clips.test_clips(number) for number in SHOWN])  # (B, C, T, H, W)
    generator = torch.Generator().manual_seed(0)
    mask = make_mask(config.mask, model.config.grid, len(batch), generator)
    with torch.inference_mode():
        done = model.reconstruct(batch, mask)
    rows = {"video": batch, "visible": done.masked, "predicted": done.pasted}
    names = [Image.new("RGBA", (90, tile)) for _ in rows]
    font = ImageFont.load_default(17)
    for name, picture in zip(rows, names, strict=True):
        ink = (*bytes.fromhex(INK[1:]), 255)
        ImageDraw.Draw(picture).text((80, tile // 2), name, ink, font, anchor="rm")
    pictures = []
    for t in range(model.config.num_frames):
        page = Image.new("RGBA", (90 + len(batch) * (tile + 6), len(rows) * (tile + 6)))
        for row, (part, name) in enumerate(zip(rows.values(), names, strict=True)):
            page.paste(name, (0, row * (tile + 6)))
            for column, frames in enumerate(part):
                frame = Image.fromarray(to_frames(frames)[t])
                page.paste(frame, (90 + column * (tile + 6), row * (tile + 6)))
        pictures.append(page)
    return pictures


def save_moving(pictures: list[Image.Image], name: str) -> None:
    """Write pictures/NAME.webp that plays: for ever, with a rest on the last frame."""
    path = FOLDER / "pictures" / f"{name}.webp"
    times = [120] * (len(pictures) - 1) + [900]
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=times, loop=0, quality=82
    )
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    for picture in (levels, augmentations):
        save(picture(), picture.__name__)
    save_moving(reconstructions(), "reconstructions")
    videomae = diagrams.videomae(ModelConfig.videomae("B"))
    videomae.save(FOLDER / "pictures" / "videomae.svg")
    print(f"videomae.svg: {videomae.alt}")


if __name__ == "__main__":
    main()
