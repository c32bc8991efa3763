"""The models that ship, trained, measured and written: python solutions/shipped.py film|image [--run FOLDER]

film    VideoMAE V1 on Big Buck Bunny, by the recipe `film`; one shot in five is never seen. It starts from
        the same model trained on single time steps, a fifteenth of the cost: how a picture goes on beside
        what is visible is learned there, and how it moves afterwards
image   MAE on the photos and the film's frames, but neither on the cat nor on the test pictures

Training resumes where it was stopped: the film on a GPU where there is one, else on one thread. A
finished run is measured on what it has never seen, beside baselines that have learned nothing, and written to
data/weights/NAME in half precision; the errors go to data/evidence/NAME.json. The image model is
written with MAE's own parameter names, since lesson 02 loads it into a learner's class.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from ship import ship

import vmae
from vmae.config import MaskConfig, ModelConfig
from vmae.course.experiments.copier import copying_errors, hidden_pixels
from vmae.course.making import FILM, FilmSpec, pictures, render_film
from vmae.data import Video
from vmae.data.config import DataConfig
from vmae.data.reading.loader import ClipDataset, open_set
from vmae.data.reading.reader import FrameSelector
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.store import build_store
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask, make_mask
from vmae.positions import build_pos_embed
from vmae.support.files import write_text
from vmae.train import PretrainConfig, Recipe, accelerator_for, environment, pretrain
from vmae.train.config import OptimConfig
from vmae.weights import load_weights

#: Masks under which a model is measured, whatever it was trained with.
MASKS = {
    "film": [("tube", 0.75), ("tube", 0.9), ("random", 0.75), ("random", 0.9), ("frame", 0.75)],
    "image": [("random", 0.5), ("random", 0.75), ("random", 0.9)],
}
#: As `vmae render film --frames 32 --overlap 16`, the set of the recipe `film`.
FILM_SPEC = FilmSpec(frames=32, overlap=16)
#: What differs in the film's first stage.
FIRST_STAGE: dict[str, dict[str, Any]] = {
    "both": {"model.num_frames": 2, "data.stride": 1},
    "pretrain": {"optim.steps": 1200, "optim.batch_size": 256, "save_every": 1200},
}  # fmt: skip
#: For one CPU core: `film --short`.
SHORT: dict[str, dict[str, Any]] = {
    "first": {"optim.steps": 1800, "optim.batch_size": 48, "save_every": 300, "compile": False},
    "film": {
        "optim.steps": 1000, "optim.batch_size": 12, "optim.lr": 8e-4,
        "save_every": 100, "log_every": 10, "compile": False,
    },
}  # fmt: skip
IMAGE = PretrainConfig(
    model=ModelConfig.mae(
        "tiny", embed_dim=160, depth=4, num_heads=5,
        decoder_embed_dim=96, decoder_depth=3, decoder_num_heads=3, normalize_targets=False,
    ),
    mask=MaskConfig("random", 0.75),
    data=DataConfig(path="data/photos"),
    optim=OptimConfig(steps=4000, batch_size=64, lr=1.5e-3, warmup_ratio=0.05),
    device="cpu", precision="fp32", save_every=200, log_every=20, keep_checkpoints=20,
)  # fmt: skip


class OneTimeStep(MaskedAutoencoder):
    """A masked autoencoder of one time step that learns the positions of all steps of longer clips.

    The tokens of each batch are given the positions of a time step drawn at random, so that the
    weights also fit `whole`, the model of the longer clips.
    """

    encoder_steps: torch.Tensor
    decoder_steps: torch.Tensor

    def __init__(self, config: ModelConfig, whole: ModelConfig) -> None:
        super().__init__(config)
        widths, steps = (whole.embed_dim, whole.decoder_embed_dim), whole.grid.shape[0]
        tables = (build_pos_embed(whole, width).unflatten(0, (steps, -1)) for width in widths)
        for name, table in zip(("encoder_steps", "decoder_steps"), tables, strict=True):
            self.register_buffer(name, table, persistent=False)  # (t, h·w, D) and (t, h·w, E)

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Predict the targets of clips (B, C, T, H, W), as the model of longer clips would: (B, M, P)."""
        step = torch.randint(len(self.encoder_steps), (1,), device=clips.device)
        self.encoder.pos_embed.copy_(self.encoder_steps[step])
        self.decoder_pos_embed.copy_(self.decoder_steps[step][0])
        return super().forward(clips, mask)


class Crops:
    """Random crops of the training pictures but the cat, as videos of one frame; always the same ones."""

    def __init__(self, count: int = 100_000, size: int = 224) -> None:
        photos, frames = pictures.pictures("train")
        cat = np.asarray(Image.open(pictures.PHOTOS / "cat.jpg").convert("RGB"))
        self.pools = [photo for photo in photos if not np.array_equal(photo, cat)], frames
        self.size = size
        self.videos = [Video(Path(f"crop-{index}"), 0) for index in range(count)]

    def read(self, index: int, choose: FrameSelector) -> np.ndarray:
        """The frame (1, S, S, 3) of a crop."""
        crop = pictures.crop_of(np.random.default_rng((7, index)), self.pools, self.size)
        return crop[None][choose(1)]


def unseen_pictures(size: int = 224) -> np.ndarray:
    """The cat, the test photos and frames of the test shots, as squares (N, 1, S, S, 3) uint8."""
    photos, frames = pictures.pictures("test")
    cat = np.asarray(Image.open(pictures.PHOTOS / "cat.jpg").convert("RGB"))
    squares = []
    for picture in [cat, *photos, *frames]:
        side = min(picture.shape[:2])
        top, left = ((length - side) // 2 for length in picture.shape[:2])
        whole = Image.fromarray(picture[top : top + side, left : left + side])
        squares.append(np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(squares)[:, None]


def unseen_clips(config: PretrainConfig) -> np.ndarray:
    """The middle of every clip of the film's test shots, (N, T, S, S, 3) uint8."""
    store = build_store(
        vmae.at_root(config.data.cache_dir), open_set(config.data).test, config.model.img_size, 1
    )
    sampling = Sampling.of(config.data, config.model.num_frames)
    clips = ClipDataset(store, sampling, seed=0)
    return np.concatenate([clips.views(index) for index in range(len(clips))])


@torch.inference_mode()
def error_of(model: MaskedAutoencoder, pixels: np.ndarray, mask: Mask) -> float:
    """Mean squared error of hidden pixels in [0, 1], of clips (N, T, H, W, C) uint8."""
    device = model.mask_token.device
    clips = torch.from_numpy(pixels).permute(0, 4, 1, 2, 3)  # (N, C, T, H, W)
    hidden = torch.from_numpy(hidden_pixels(mask, model.config.grid))[:, None]  # (N, 1, T, H, W)
    total = 0.0
    for rows in torch.arange(len(clips)).split(16):
        part = Mask(*(x[rows].to(device) for x in (mask.visible, mask.queries, mask.targets)))
        done = model.reconstruct(clips[rows].to(device), part).pasted.cpu()
        total += (done - clips[rows] / 255).square().mul(hidden[rows]).sum().item()
    return round(total / (hidden.sum().item() * clips.shape[1]), 5)


def masks(
    name: str, config: PretrainConfig, count: int
) -> Iterable[tuple[str, PretrainConfig, Mask]]:
    """The masks of MASKS for `count` clips: the same ones as in `copying_errors`."""
    for kind, ratio in MASKS[name]:
        chosen = config.replace(mask=MaskConfig(kind, ratio))
        generator = torch.Generator().manual_seed(0)
        mask = make_mask(chosen.mask, config.model.grid, count, generator)
        yield f"{kind} {ratio:g}", chosen, mask


def measured(name: str, config: PretrainConfig, run: Path, pixels: np.ndarray) -> dict:
    """Errors on unseen clips: by mask beside those of copiers, and over the clips trained on.

    curve   [clips trained on, loss, error under the mask of the training], for each checkpoint
    """
    device = accelerator_for("fp32", config.device).device
    model = vmae.load(run).eval()
    assert isinstance(model, MaskedAutoencoder)
    model.to(device)
    errors = {}
    for key, chosen, mask in masks(name, config, len(pixels)):
        copied = copying_errors(pixels, chosen, wraps=False, velocities=())
        errors[key] = {"model": error_of(model, pixels, mask)} | copied
        print(key, errors[key], flush=True)
    generator = torch.Generator().manual_seed(0)
    trained_with = make_mask(config.mask, config.model.grid, len(pixels), generator)
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = []
    for folder in sorted((run / "checkpoints").glob("step-*")):
        step = int(folder.name.removeprefix("step-"))
        load_weights(model, folder / "model.safetensors")
        loss = next(record["loss"] for record in losses if record["step"] >= step)
        error = error_of(model, pixels, trained_with)
        curve.append([step * config.optim.batch_size, round(loss, 5), error])
    return {"errors": errors, "curve": curve, "made": environment(device)}


def minutes(run: Path) -> float:
    """What a run took."""
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    return round(json.loads(last)["seconds"] / 60, 1)


def train(config: PretrainConfig, run: Path, **options: Any) -> None:
    """Pre-train, or resume, or leave a finished run as it is."""
    if not (run / "model.safetensors").exists():
        pretrain(config, run, resume=True, **options)


def first_stage(run: Path) -> Path:
    """The folder of the run on single time steps, beside that on clips."""
    return run.with_name(f"{run.name}-first-stage")


def train_film(recipe: Recipe, run: Path, first_steps: dict[str, Any]) -> None:
    """Both stages; the first, of `first_steps`, in a folder beside `run`."""
    data = recipe.pretrain.data
    render_film(vmae.at_root(data.path), FILM, FILM_SPEC, workers=data.num_workers)
    first = first_stage(run)
    first_config = recipe.changed(**FIRST_STAGE).changed(pretrain=first_steps).pretrain
    train(first_config, first, build=partial(OneTimeStep, whole=recipe.pretrain.model))

    def started(model: ModelConfig) -> MaskedAutoencoder:
        autoencoder = MaskedAutoencoder(model)
        load_weights(autoencoder, first / "model.safetensors")
        return autoencoder

    train(recipe.pretrain, run, build=started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", choices=("film", "image"))
    parser.add_argument("--short", action="store_true", help="film: two hours of one CPU core")
    parser.add_argument("--run", type=Path, help="folder of the run (default: runs/NAME)")
    arguments = parser.parse_args()
    name = arguments.model
    run = arguments.run or vmae.ROOT / "runs" / name
    torch.set_num_threads(1)
    if name == "film":
        recipe = Recipe.load("film")
        if arguments.short:
            recipe = recipe.changed(pretrain=SHORT["film"])
        config = recipe.pretrain
        train_film(recipe, run, SHORT["first"] if arguments.short else {})
        pixels = unseen_clips(config)
    else:
        config = IMAGE
        train(config, run, source=Crops())
        pixels = unseen_pictures()
    stages = {"time steps": first_stage(run), "clips": run} if name == "film" else {"crops": run}
    result = measured(name, config, run, pixels)
    result["minutes"] = {stage: minutes(folder) for stage, folder in stages.items()}
    text = json.dumps(result, indent=1)
    write_text(vmae.ROOT / "data" / "evidence" / f"{name}.json", text + "\n")
    print(ship(run, vmae.ROOT / "data" / "weights" / name, half=True, official=name == "image"))


if __name__ == "__main__":
    main()
