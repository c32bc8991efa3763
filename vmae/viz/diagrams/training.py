"""Diagrams of training: fine-tuning with layer decay, progressive training, the path of a clip."""

from __future__ import annotations

from pathlib import Path

import torch

from vmae.masking import make_mask
from vmae.train.config import FinetuneConfig, PretrainConfig, RunConfig
from vmae.train.schedule import layer_of, parameter_groups
from vmae.vit import VisionTransformer
from vmae.viz.colours import DECODER, ENCODER, NEUTRAL, TARGET, VISIBLE
from vmae.viz.diagrams.drawing import Canvas, Diagram, shape


def layer_scales(config: FinetuneConfig, num_classes: int) -> list[float]:
    """The factor on the learning rate of each layer: patch embedding, blocks, head."""
    with torch.device("meta"):
        model = VisionTransformer(config.model, num_classes)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    depth, scales = config.model.depth, {}
    for group in parameter_groups(model, config.optim, depth):
        for parameter in group["params"]:
            scales[layer_of(names[id(parameter)], depth)] = group["lr_scale"]
    return [scales[layer] for layer in sorted(scales)]


def fine_tuning(config: FinetuneConfig, num_classes: int = 400) -> Diagram:
    """What fine-tuning keeps, adds and drops, above the learning rate of each layer, to scale."""
    model, scales, draw, floor = config.model, layer_scales(config, num_classes), Canvas(), 318.0
    left, right = 150.0, 690.0
    pitch = (right - left) / len(scales)
    draw.box(16, 54, 108, 64, ["clip", f"{model.grid.num_tokens} tokens"])
    draw.arrow((124, 86), (left, 86))
    for i in range(len(scales)):
        x = left + i * pitch
        role, h = (TARGET, 84) if i == len(scales) - 1 else (ENCODER, 64)
        draw.rect(x + 2, 86 - h / 2, pitch - 4, h, role.tint, role.colour, 1.5, radius=3)
        high = 120 * scales[i]
        draw.rect(x + 2, floor - high, pitch - 4, high, role.colour, "none")
    draw.line((left - 6, floor), (right + 6, floor))
    last = right - pitch / 2
    draw.text((left + right - pitch) / 2, 32, f"pre-trained: patch embedding, {model.depth} blocks", 13,
              bold=True)  # fmt: skip
    draw.text(min(last, 684), 32, "new norm, head", 13, bold=True)
    draw.arrow((right, 86), (right + 34, 86))
    draw.box(right + 38, 58, 116, 56, ["classes", str(num_classes)], TARGET)
    draw.box(right + 38, 150, 116, 56, ["decoder", "dropped"], DECODER, dashed=True)
    decay, lr = config.optim.layer_decay, config.optim.lr
    draw.lines(16, floor - 106, ["learning rate", "of each layer,", "as a share of", "the head's"],
               anchor="start")  # fmt: skip
    middle, depth = len(scales) // 2, model.depth
    for i in (0, middle, len(scales) - 1):
        x = left + (i + 0.5) * pitch
        draw.text(x, floor - 120 * scales[i] - 8, f"{scales[i]:.3g}", 12, bold=True)
    draw.text(left + pitch / 2, floor + 20, "embedding")
    draw.text(left + (middle + 0.5) * pitch, floor + 20, f"block {middle} of {depth}")
    draw.text(last, floor + 20, "head")
    said = f"layer decay {decay:g}: each layer learns at {decay:g} times the rate of the next"
    draw.text(430, floor + 50, said, 13, bold=True)
    draw.lines(right + 96, floor - 40, [f"lr {lr:g}", f"× {decay:g} per layer"])
    alt = (
        f"Fine-tuning: the pre-trained patch embedding and {model.depth} blocks are kept, the decoder is "
        f"dropped, a head for {num_classes} classes is new. Learning rates as shares of the head's: "
        f"{scales[0]:.3g} for the patch embedding, {scales[middle]:.3g} for block {middle}, "
        f"{scales[-1]:.3g} for the head; {said}."
    )
    return draw.finish(floor + 66, alt)


def progressive_training(*stages: RunConfig) -> Diagram:
    """The stages of a training in order, each with the set, clips and rates of its configuration."""
    draw, said = Canvas(), []
    gap = 46.0
    wide = (828 - gap * (len(stages) - 1)) / len(stages)
    for i, stage in enumerate(stages):
        optim, x, masked = stage.optim, 16 + i * (wide + gap), isinstance(stage, PretrainConfig)
        rate = optim.lr * optim.batch_size / (optim.base_batch_size or optim.batch_size)
        tuning = "fine-tuning" if i == len(stages) - 1 else "post-pre-training"
        name = "pre-training" if masked else tuning
        length = f"{optim.epochs:g} epochs" if optim.epochs else f"{optim.steps} steps"
        rows = [
            f"on {Path(stage.data.path).stem}, {'no labels' if masked else 'with labels'}",
            f"{length}, {stage.repeated_aug} clips per video",
            f"batch of {optim.batch_size} videos",
            f"learning rate {rate:.3g}".replace("e-0", "e-"),
            f"layer decay {optim.layer_decay:g}" if not masked else "all layers alike",
        ]
        draw.text(x + wide / 2, 26, f"{i + 1}  {name}", 14, bold=True)
        encoder = wide * 0.6
        size = f"{stage.model.depth} × {stage.model.embed_dim}"
        draw.box(x, 48, encoder, 92, ["encoder", size], ENCODER)
        part, role = ("decoder", DECODER) if masked else ("new head", TARGET)
        draw.box(x + 0.66 * wide, 66, 0.34 * wide, 56, [part], role)
        draw.lines(x + wide / 2, 184, rows)
        if i + 1 < len(stages):
            turn = x + wide + gap / 2
            draw.arrow((x + encoder / 2, 140), (x + encoder / 2, 156), (turn, 156), (turn, 94),
                       (x + wide + gap, 94))  # fmt: skip
        said.append(f"{i + 1}, {name}: {', '.join(rows)}")
    draw.text(430, 288, "each stage starts from the encoder of the one before", 13, bold=True)
    alt = f"Training in {len(stages)} stages of one encoder. {'; '.join(said)}."
    return draw.finish(306, alt)


def data_path(config: PretrainConfig) -> Diagram:
    """The path of a clip from the file to the training step: who does what, with shapes and bytes."""
    model, data, optim, draw = config.model, config.data, config.optim, Canvas()
    mask = make_mask(config.mask, model.grid, 1, torch.Generator())
    clips = optim.batch_size * config.repeated_aug
    c, side, t = model.channels, model.img_size, model.num_frames
    span = (t - 1) * data.stride + 1
    megabytes = optim.batch_size * c * t * side * side / 1e6
    v, m, p = mask.visible.shape[1], mask.targets.shape[1], model.grid.token_dim
    store = (
        ["store", f"frames of {side}", "decoded once"] if data.cache else
        ["no store", "decoded again", "each epoch"]
    )  # fmt: skip
    top = [
        (["files", "compressed video", Path(data.path).stem], NEUTRAL),
        (["decode", "to RGB frames", f"{data.num_workers} workers"], NEUTRAL),
        (store, NEUTRAL),
        (["sample", f"{t} frames, stride {data.stride}", f"of a span of {span}"], NEUTRAL),
        ([f"batch of {optim.batch_size}", shape(c, t, side, side), f"uint8, {megabytes:.0f} MB"], VISIBLE),
    ]  # fmt: skip
    low = [
        (["repeat, crop", f"{config.repeated_aug} per video", f"{clips} clips"], NEUTRAL),
        (["mask", f"{v} visible", f"{m} targets"], NEUTRAL),
        (["model", f"predicts {shape(m, p)}", "float pixels"], ENCODER),
        (["loss", "squared error", f"{clips} × {m} tokens"], TARGET),
        (["step", "AdamW", f"micro-batches: {config.grad_accum_steps}"], NEUTRAL),
    ]
    for row, y, name in ((top, 52, "CPU"), (low, 196, "device")):
        draw.text(16, y - 18, name, 14, "start", bold=True)
        for i, (lines, role) in enumerate(row):
            x = 16 + i * 170
            draw.box(x, y, 146, 74, lines, role)
            if i:
                draw.arrow((x - 24, y + 37), (x, y + 37))
    draw.arrow((769, 126), (769, 152), (89, 152), (89, 196))
    draw.text(430, 144, f"copied as uint8: {megabytes:.0f} MB per step, over all processes")
    draw.text(430, 302, f"step k depends only on the seed ({config.seed}) and k", 13, bold=True)
    alt = (
        f"From file to step. On the CPU: files, decoding in {data.num_workers} workers, "
        f"{' '.join(store)}, {t} frames with stride {data.stride} (a span of {span}), a batch of "
        f"{optim.batch_size} clips {shape(c, t, side, side)}, uint8, {megabytes:.0f} MB. On the device: "
        f"crops, {clips} clips; masks with {v} visible tokens and {m} targets; predictions "
        f"{shape(m, p)}; squared error; an AdamW step."
    )
    return draw.finish(318, alt)
