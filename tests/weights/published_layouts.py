"""Small checkpoints in the published layouts, shared by the tests in this folder.

The layouts are written here by hand from the published code, so that a name that
`vmae.weights.names` gets wrong in both directions is still found.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import torch
from conftest import randomize

from vmae.config import ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.vit import VisionTransformer

#: What official files do not store about the models here.
CLIP = {"num_frames": 8, "img_size": 32, "num_heads": 4}


VIDEO = {**CLIP, "decoder_num_heads": 2}


IMAGE = {"num_heads": 4, "decoder_num_heads": 2, "normalize_targets": True}


KINDS = ["pretrain", "classifier", "encoder", "mae-pretrain", "mae-encoder", "mae-classifier"]


def rand(name: str, *shape: int) -> torch.Tensor:
    """Noise seeded by name, so that swapping any two parameters is noticed."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=generator) * 0.2


def linear(name: str, out: int, into: int, bias: bool = True) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": rand(f"{name}.weight", out, into)} | (
        {f"{name}.bias": rand(f"{name}.bias", out)} if bias else {}
    )


def norm(name: str, width: int) -> dict[str, torch.Tensor]:
    return {
        f"{name}.weight": 1 + rand(f"{name}.weight", width),
        f"{name}.bias": rand(f"{name}.bias", width),
    }


def official_blocks(at: str, width: int, depth: int, hidden: int) -> dict[str, torch.Tensor]:
    """VideoMAE's blocks."""
    state = {}
    for i in range(depth):
        block = f"{at}blocks.{i}"
        state |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        state |= {
            f"{block}.attn.q_bias": rand(f"{block}.q", width),
            f"{block}.attn.v_bias": rand(f"{block}.v", width),
        }
        state |= linear(f"{block}.attn.qkv", 3 * width, width, bias=False)
        state |= linear(f"{block}.attn.proj", width, width)
        state |= linear(f"{block}.mlp.fc1", hidden, width)
        state |= linear(f"{block}.mlp.fc2", width, hidden)
    return state


def patches(name: str, *kernel: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": rand(name, 48, 3, *kernel), f"{name}.bias": rand("bias", 48)}


def official_pretrain() -> dict[str, torch.Tensor]:
    """Parameters as named in VideoMAE/modeling_pretrain.py; no positions."""
    return {
        "mask_token": rand("x", 1, 1, 24),
        **patches("encoder.patch_embed.proj", 2, 8, 8),
        **official_blocks("encoder.", 48, 3, 192),
        **norm("encoder.norm", 48),
        **linear("encoder_to_decoder", 24, 48, bias=False),
        **official_blocks("decoder.", 24, 2, 96),
        **norm("decoder.norm", 24),
        **linear("decoder.head", 2 * 8 * 8 * 3, 24),
    }


def official_finetuned(classes: int = 5) -> dict[str, torch.Tensor]:
    """Parameters as named in VideoMAE/modeling_finetune.py: no norm, no positions."""
    return {
        **patches("patch_embed.proj", 2, 8, 8),
        **official_blocks("", 48, 3, 192),
        **norm("fc_norm", 48),
        **linear("head", classes, 48),
    }


def mae_table(width: int, side: int) -> torch.Tensor:
    """MAE's table, value by value: zeros for the class token, then [sin x, cos x, sin y, cos y]."""
    quarter = width // 4
    rows = [[0.0] * width]
    for y in range(side):
        for x in range(side):
            waves = [[at / 10000 ** (k / quarter) for k in range(quarter)] for at in (x, y)]
            rows.append([f(v) for wave in waves for f in (math.sin, math.cos) for v in wave])
    return torch.tensor(rows)[None]


def official_mae(decoder: bool = True) -> dict[str, torch.Tensor]:
    """Parameters as named in mae/models_mae.py, with the frozen position tables."""
    state = {
        "cls_token": rand("x", 1, 1, 48),
        "pos_embed": mae_table(48, 4),
        **patches("patch_embed.proj", 8, 8),
        **norm("norm", 48),
    }
    parts = [("blocks", 48, 2)]
    if decoder:
        state |= {"mask_token": rand("x", 1, 1, 24), "decoder_pos_embed": mae_table(24, 4)}
        state |= linear("decoder_embed", 24, 48) | norm("decoder_norm", 24)
        state |= linear("decoder_pred", 8 * 8 * 3, 24)
        parts.append(("decoder_blocks", 24, 1))
    for at, width, depth in parts:
        for i in range(depth):
            state |= norm(f"{at}.{i}.norm1", width) | norm(f"{at}.{i}.norm2", width)
            state |= linear(f"{at}.{i}.attn.qkv", 3 * width, width)
            state |= linear(f"{at}.{i}.attn.proj", width, width)
            state |= linear(f"{at}.{i}.mlp.fc1", 4 * width, width)
            state |= linear(f"{at}.{i}.mlp.fc2", width, 4 * width)
    return state


def mmaction2(classes: int = 5) -> dict[str, torch.Tensor]:
    """A fine-tuned VideoMAE under mmaction2's names, with the position table as a buffer."""
    state = {}
    for name, tensor in official_finetuned(classes).items():
        name = name.replace("patch_embed.proj", "patch_embed.projection")
        name = name.replace("mlp.fc1", "mlp.layers.0.0").replace("mlp.fc2", "mlp.layers.1")
        name = name.replace("head.", "cls_head.fc_cls.")
        state[name if name.startswith("cls_head") else f"backbone.{name}"] = tensor
    table = [
        [(math.cos if j % 2 else math.sin)(n / 10000 ** (j // 2 * 2 / 48)) for j in range(48)]
        for n in range(64)
    ]
    return state | {"backbone.pos_embed": torch.tensor(table)[None]}


def pth(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Assert that two state dicts are identical, bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def build(kind: str, tiny: ModelConfig, image: ModelConfig):
    config = image if kind.startswith("mae") else tiny
    if "pretrain" in kind:
        return randomize(MaskedAutoencoder(config)).eval()
    return randomize(VisionTransformer(config, 5 if "classifier" in kind else None)).eval()
