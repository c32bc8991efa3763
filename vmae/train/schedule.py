"""Learning rates: warm-up and cosine decay over steps, layer decay; weight decay for matrices only."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from vmae.train.config import OptimConfig
from vmae.vit import VisionTransformer


def learning_rate(step: int, config: OptimConfig) -> float:
    """The learning rate at `step` (from 0): linear warm-up from 0, then a cosine down to `min_lr`.

    `config` must be resolved. The official warm-up starts with a learning rate of 0, a step that
    changes no weight, and reaches `lr` at the same step as this one.

    >>> config = OptimConfig(steps=100, lr=1.0, warmup_ratio=0.1)
    >>> [round(learning_rate(step, config), 2) for step in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    warmup = round(config.warmup_ratio * config.steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def layer_of(name: str, depth: int) -> int:
    """The layer number of a VisionTransformer's parameter, for layer decay.

    0: patch embedding and tokens; i + 1: block i; depth + 1: final norm and head.

    >>> [layer_of(name, 12) for name in ("patch_embed.proj.weight", "blocks.3.norm1.bias", "head.bias")]
    [0, 4, 13]
    """
    if name.startswith(("patch_embed", "pos_embed", "cls_token", "mask_token")):
        return 0
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1


def freeze(model: VisionTransformer, layers: int) -> None:
    """Train neither the first `layers` blocks nor what comes before them; 0: train everything."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not layers or layer_of(name, model.config.depth) > layers


def parameter_groups(model: nn.Module, config: OptimConfig, depth: int = 0) -> list[dict[str, Any]]:
    """AdamW's groups, without frozen parameters: no weight decay on vectors and on what the model
    exempts; rates per layer.

    `lr_scale` is layer_decay^(depth + 1 - layer).
    """
    exempt: set[str] = getattr(model, "no_weight_decay", set)()
    groups: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = parameter.ndim > 1 and name not in exempt
        layer = layer_of(name, depth) if config.layer_decay != 1 else depth + 1
        group = groups.setdefault(
            (decay, layer),
            {
                "params": [],
                "weight_decay": config.weight_decay if decay else 0.0,
                "lr_scale": config.layer_decay ** (depth + 1 - layer),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def adamw(model: nn.Module, config: OptimConfig, depth: int = 0) -> torch.optim.AdamW:
    """AdamW, fused, over the groups of `model`."""
    groups = parameter_groups(model, config, depth)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate: `lr` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
