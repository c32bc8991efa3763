"""Diagrams of training: fine-tuning with layer decay, progressive training, the path of a clip."""

from __future__ import annotations

from pathlib import Path

import torch

from vmae.course.diagrams.drawing import Canvas, Diagram, shape
from vmae.course.diagrams.masked import counts
from vmae.figures.colours import DECODER, ENCODER, NEUTRAL, PREDICTED
from vmae.masking import make_mask
from vmae.train.config import FinetuneConfig, OptimConfig, PretrainConfig, RunConfig
from vmae.train.schedule import layer_of, parameter_groups
from vmae.vit import VisionTransformer

#: What the recipes' sets are called in the papers.
SETS = {
    "hybrid": "UnlabeledHybrid",
    "k710": "Kinetics-710",
    "k400": "Kinetics-400",
    "ssv2": "Something-Something V2",
}


def peak_rate(optim: OptimConfig) -> float:
    """The learning rate after warm-up, for the batch size of the run."""
    return optim.lr * optim.batch_size / (optim.base_batch_size or optim.batch_size)


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
        role, h = (PREDICTED, 84) if i == len(scales) - 1 else (ENCODER, 64)
        draw.rect(x + 2, 86 - h / 2, pitch - 4, h, role.tint, role.colour, 1.5, radius=3)
        high = 120 * scales[i]
        draw.rect(x + 2, floor - high, pitch - 4, high, role.colour, "none")
    draw.line((left - 6, floor), (right + 6, floor))
    last = right - pitch / 2
    draw.heading((left + right - pitch) / 2, 28, "pre-trained")
    draw.heading(min(last, 684), 28, "new")
    averaged = model.family == "videomae" or model.global_pool
    one = f"mean of {model.grid.num_tokens} tokens" if averaged else "the class token"
    draw.text(left, 140, "patch embedding", anchor="start")
    draw.text((left + right - pitch) / 2, 140, f"{model.depth} blocks")
    draw.lines(
        right,
        150,
        [f"{one}: {shape(model.embed_dim)},", "then norm and linear layer"],
        anchor="end",
    )
    draw.arrow((right, 86), (right + 34, 86))
    draw.box(right + 38, 58, 116, 56, ["logits", shape(num_classes)], PREDICTED)
    draw.text(right + 96, 134, "one per class")
    draw.box(right + 38, 160, 116, 56, ["decoder", "dropped"], DECODER, dashed=True)
    decay, rate = config.optim.layer_decay, peak_rate(config.optim)
    draw.lines(16, floor - 106, ["learning rate", "of each layer,", "as a share of", "the head's:"],
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
    draw.lines(right + 96, floor - 40, [f"1 means {rate:.3g},", "the head's own"])
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
        rate = peak_rate(optim)
        tuning = "fine-tuning" if i == len(stages) - 1 else "post-pre-training"
        name = "pre-training" if masked else tuning
        length = f"{optim.epochs:g} epochs" if optim.epochs else f"{optim.steps} steps"
        source = Path(stage.data.path).stem
        rows = [
            f"{SETS.get(source, source)}, {'no labels' if masked else 'labels'}",
            f"{length}, {stage.repeated_aug} clips per video",
            f"batch of {optim.batch_size} videos",
            f"learning rate {rate:.3g}".replace("e-0", "e-"),
            f"layer decay {optim.layer_decay:g}" if not masked else "all layers alike",
        ]
        draw.heading(x + wide / 2, 26, f"{i + 1}  {name}", 14)
        encoder = wide * 0.54
        size = f"{stage.model.depth} × {stage.model.embed_dim}"
        draw.box(x, 48, encoder, 92, ["encoder", size], ENCODER)
        part, role = (["decoder"], DECODER) if masked else (["new head"], PREDICTED)
        if isinstance(stage, FinetuneConfig) and stage.head_rows:
            part = ["head", f"of stage {i}"]
        draw.box(x + 0.64 * wide, 66, 0.36 * wide, 56, part, role)
        draw.arrow((x + encoder, 94), (x + 0.64 * wide, 94))
        draw.lines(x + wide / 2, 184, rows)
        if i + 1 < len(stages):
            turn = x + wide + gap / 2
            draw.arrow((x + encoder / 2, 140), (x + encoder / 2, 156), (turn, 156), (turn, 94),
                       (x + wide + gap, 94))  # fmt: skip
        said.append(f"{i + 1}, {name}: {', '.join(rows)}")
    kept = [i + 1 for i, x in enumerate(stages) if isinstance(x, FinetuneConfig) and x.head_rows]
    note = "each stage starts from the encoder of the one before; the decoder"
    note += (
        f" is dropped, stage {kept[0]} keeps a part of the head" if kept else " or head is dropped"
    )
    draw.text(430, 288, note, 13, bold=True)
    alt = f"Training in {len(stages)} stages of one encoder. {'; '.join(said)}."
    return draw.finish(306, alt)


def ordinal(number: int) -> str:
    """2nd, 3rd, 4th: for the small numbers of a stride."""
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number, 'th') }"


def data_path(config: PretrainConfig) -> Diagram:
    """The path of a clip from the file to the training step: who does what, with shapes and bytes."""
    model, data, optim, draw = config.model, config.data, config.optim, Canvas()
    mask = make_mask(config.mask, model.grid, 1, torch.Generator())
    clips = optim.batch_size * config.repeated_aug
    c, side, t = model.channels, model.img_size, model.num_frames
    span = (t - 1) * data.stride + 1
    megabytes = optim.batch_size * c * t * side * side / 1e6
    (v, q, m), p = counts(mask), model.grid.token_dim
    name, mask_config = Path(data.path).stem, config.mask
    top = [
        (["files", "compressed video", name], NEUTRAL),
        (["decode", f"in {data.num_workers} workers", "once" if data.cache else "again each epoch"], NEUTRAL),
        (["sample", f"every {ordinal(data.stride)} frame" if data.stride > 1 else "frames in a row",
          f"{t} of {span}"], NEUTRAL),
        ([f"batch of {optim.batch_size}", shape(c, t, side, side), f"uint8, {megabytes:.0f} MB"], NEUTRAL),
    ]  # fmt: skip
    if data.cache:
        top.insert(2, (["store", f"frames of {side}", "on disk"], NEUTRAL))
    crop = ["repeat, crop"] if config.crop else ["repeat"]
    low = [
        ([*crop, f"{config.repeated_aug} per video", f"{clips} clips"], NEUTRAL),
        (["mask", f"{v} visible", f"{q} queries"], NEUTRAL),
        (["encoder", shape(v, p), f"→ {shape(v, model.embed_dim)}"], ENCODER),
        (["decoder", f"{v} + {q}", f"→ {shape(m, p)}"], DECODER),
        (["loss", "squared error", f"of {m} targets"], NEUTRAL),
        (["step", "AdamW"], NEUTRAL),
    ]
    if config.grad_accum_steps > 1:
        low[-1][0].append(f"{config.grad_accum_steps} micro-batches")
    for row, y, device in ((top, 62, "CPU"), (low, 212, "device")):
        draw.heading(16, y - 18, device, 13, "start")
        pitch = (828 + 24) / len(row)
        for i, (lines, role) in enumerate(row):
            x = 16 + i * pitch
            draw.box(x, y, pitch - 24, 74, lines, role)
            if i:
                draw.arrow((x - 24, y + 37), (x, y + 37))
    first = 16 + (828 + 24) / len(low) / 2 - 12
    draw.arrow((774, 136), (774, 162), (first + 40, 162), (first + 40, 212))
    draw.text(500, 154, f"copied as uint8: {megabytes:.0f} MB per step, over all processes")
    masking = f"{mask_config.mask_type} {100 * mask_config.mask_ratio:g} %"
    if mask_config.decoder_mask_ratio:
        masking += f", {mask_config.decoder_mask_type} {100 * mask_config.decoder_mask_ratio:g} %"
    title = f"pre-training on {SETS.get(name, name)}, {masking}"
    draw.text(844, 44, title, 13, "end", bold=True)
    draw.text(430, 318, f"step k depends only on the seed ({config.seed}) and k", 13, bold=True)
    alt = (
        f"From file to step: {title}. On the CPU: files, decoded in {data.num_workers} workers, "
        f"{'once, and stored' if data.cache else 'again each epoch'}; {t} of {span} frames; a batch of "
        f"{optim.batch_size} clips {shape(c, t, side, side)}, uint8, {megabytes:.0f} MB. On the device: "
        f"{clips} clips{' after crops' if config.crop else ''}; masks with {v} visible tokens, {q} "
        f"queries and {m} targets; predictions {shape(m, p)}; squared error; an AdamW step."
    )
    return draw.finish(334, alt)
