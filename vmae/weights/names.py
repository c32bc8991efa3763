"""Map parameter names of every published layout to ours and back.

These functions take and return state dicts; files are read and written elsewhere in `vmae.weights`.
In between, every model has the names of our MaskedAutoencoder: `encoder.*`, `decoder.*`, `mask_token`,
`encoder_to_decoder.*`; a classifier has `fc_norm.*` and `head.*` beside `encoder.*`.

Layouts: VideoMAE (`modeling_pretrain.py`, `modeling_finetune.py`), MAE (`models_mae.py`,
`models_vit.py`), mmaction2 (`vit_mae.py`), Hugging Face VideoMAE, ViTMAE and ViT of transformers 4
and 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from vmae.config import ModelConfig
from vmae.positions import build_pos_embed

State = dict[str, torch.Tensor]

#: Parts of a name that come from wrappers: DataParallel, torch.compile, DeepSpeed and Fabric, FSDP,
#: activation checkpointing.
_WRAPPERS = {
    "module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"
}  # fmt: skip

# One table reads all layouts: no two of them use the same name for different things.
_READ = [
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"^((backbone|model|net|network|videomae|vit)\.)+", ""),
        (r"^(cls_head\.fc_cls|classifier)\.", "head."),
        # Hugging Face
        (r"^embeddings\.patch_embeddings\.projection\.", "encoder.patch_embed.proj."),
        (r"^embeddings\.cls_token$", "encoder.cls_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^(encoder\.layer|layers)\.", "encoder.blocks."),
        (r"^layernorm\.", "encoder.norm."),
        # the second is how save_pretrained of 5.23 renames ViTMAE's decoder_layers
        (r"^decoder\.(decoder_layers|decoder_encoder\.layer)\.", "decoder.blocks."),
        (r"^decoder\.(mask_token|decoder_pos_embed)$", r"\1"),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.attention\.([qv])_bias$", r".attn.\1.bias"),
        (r"\.attention\.attention\.(q|k|v)(uery|ey|alue)\.", r".attn.\1."),
        (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        # MAE; Hugging Face keeps its names, with the prefix "decoder."
        (r"^decoder_blocks\.", "decoder.blocks."),
        (r"^(decoder\.)?decoder_embed\.", "encoder_to_decoder."),
        (r"^(decoder\.)?decoder_norm\.", "decoder.norm."),
        (r"^(decoder\.)?decoder_pred\.", "decoder.head."),
        # mmaction2
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"\.mlp\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.mlp\.layers\.1\.", ".mlp.fc2."),
        # with or without "encoder."
        (r"^(encoder\.)*(patch_embed|blocks|norm|cls_token)(?=\.|$)", r"encoder.\2"),
        (r"^(encoder\.)+(pos_embed|fc_norm|head)(?=\.|$)", r"\2"),
    )
]

#: Position tables that some layouts store; here they are computed, unless they are learned.
TABLES = ("pos_embed", "decoder_pos_embed")


def our_name(name: str) -> str:
    """Our name for a parameter of any layout; unknown names are returned unchanged."""
    name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    for pattern, ours in _READ:
        name = pattern.sub(ours, name)
    return name


def from_any(state: Mapping[str, torch.Tensor]) -> tuple[State, dict[str, str]]:
    """Rename a state dict of any layout to our names; also returns the original name of each.

    Separate query, key and value layers are fused (3·D, D), and a Conv2d kernel (D, C, p_h, p_w)
    becomes a Conv3d kernel (D, C, 1, p_h, p_w). Raises ValueError if two parameters map to the same
    name.
    """
    ours: State = {}
    names: dict[str, str] = {}
    for name, tensor in state.items():
        own = our_name(name)
        if own in ours:
            raise ValueError(
                f"{names[own]} and {name} both map to {own}: save each model in a separate file"
            )
        ours[own], names[own] = tensor, name
    for name in [name for name in ours if name.endswith(".attn.q.weight")]:
        _join(ours, names, name.removesuffix("q.weight"))
    kernel = ours.get("encoder.patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4:
        ours["encoder.patch_embed.proj.weight"] = kernel.unsqueeze(2)
    _fold_batch_norm(ours, names)
    return ours, names


def _fold_batch_norm(state: State, names: dict[str, str]) -> None:
    """Merge the batch norm without parameters before the head of MAE's linear probes into the head.

    At inference both are linear. Its epsilon is 1e-6 (main_linprobe.py).
    """
    probe = [f"head.{part}" for part in ("0.running_mean", "0.running_var", "1.weight", "1.bias")]
    if not all(name in state for name in probe) or "head.0.weight" in state:
        return
    mean, var, weight, bias = (state.pop(name).double() for name in probe)
    weight = weight / (var + 1e-6).sqrt()
    state |= {"head.weight": weight.float(), "head.bias": (bias - weight @ mean).float()}
    names |= {"head.weight": names[probe[2]], "head.bias": names[probe[3]]}


def _join(state: State, names: dict[str, str], at: str) -> None:
    """Fuse separate q, k, v layers under the prefix `at`; incomplete ones are left unchanged."""
    for kind in ("weight", "bias"):
        parts = [f"{at}{part}.{kind}" for part in "qkv"]
        if all(part in state for part in parts):
            state[f"{at}qkv.{kind}"] = torch.cat([state.pop(part) for part in parts])
            names[f"{at}qkv.{kind}"] = names[parts[0]]
        elif kind == "bias":  # VideoMAE's keys have no bias
            for part in "qv":
                if f"{at}{part}.bias" in state:
                    state[f"{at}{part}_bias"] = state.pop(f"{at}{part}.bias")
                    names[f"{at}{part}_bias"] = names[f"{at}{part}.bias"]


def table_of(config: ModelConfig, name: str) -> torch.Tensor:
    """A position table as files store it: (1, N, D); MAE's (1, 1 + N, D), class token (0) first."""
    width = config.embed_dim if name == "pos_embed" else config.decoder_embed_dim
    table = build_pos_embed(config, width)
    if config.family == "mae":
        table = torch.cat((torch.zeros(1, width), table))
    return table[None]


def to_official(state: State, config: ModelConfig) -> State:
    """Rename ours to the official names; for MAE, with its Conv2d kernel and position tables."""
    _check_published(config)
    if config.family == "videomae":  # once fine-tuned, the encoder's names have no prefix
        bare = "fc_norm.weight" in state
        return {n.removeprefix("encoder.") if bare else n: tensor for n, tensor in state.items()}
    official = {}
    for name, tensor in state.items():
        for ours, theirs in (
            (r"^encoder\.", ""),
            (r"^encoder_to_decoder\.", "decoder_embed."),
            (r"^decoder\.(blocks|norm)\.", r"decoder_\1."),
            (r"^decoder\.head\.", "decoder_pred."),
        ):
            name = re.sub(ours, theirs, name)
        official[name] = tensor
    official["patch_embed.proj.weight"] = _flat_kernel(official["patch_embed.proj.weight"], config)
    official["pos_embed"] = _encoder_table(state, config)
    if "mask_token" in state:
        official["decoder_pos_embed"] = table_of(config, "decoder_pos_embed")
    return official


def _encoder_table(state: State, config: ModelConfig) -> torch.Tensor:
    """MAE's table (1, 1 + N, D), fixed or learned; the class token's row is zero."""
    learned = state.get("encoder.pos_embed")
    return table_of(config, "pos_embed") if learned is None else F.pad(learned, (0, 0, 1, 0))


def _check_published(config: ModelConfig) -> None:
    if config.family == "videomae" and config.pos_embed_from is not None:
        frames, size = config.pos_embed_from
        raise ValueError(
            f"the positions are interpolated from {frames} frames of {size} pixels, but neither the "
            "official layout nor transformers stores VideoMAE's: they would be computed for the "
            "new size, with other outputs. Load the weights without interpolate=True to export "
            'them with computed positions, or save with to="vmae"'
        )
    if config.family == "videomae" and config.learned_pos_embed:
        raise ValueError(
            "the positions are learned, but the official code and transformers build VideoMAE with "
            'fixed ones: save with to="vmae"'
        )
    if config.attention != "joint":
        raise ValueError(
            f"attention is {config.attention!r}, which neither the official code nor transformers "
            'supports: save with to="vmae"'
        )


def _flat_kernel(kernel: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    if config.num_frames != 1 or kernel.shape[2] != 1:
        raise ValueError(
            f"this layout supports MAE for images only, but num_frames is {config.num_frames} and "
            f'the tubelet is {config.tubelet}: use 1 frame for both, or save with to="vmae"'
        )
    return kernel.squeeze(2)


def to_hf(state: State, config: ModelConfig) -> State:
    """Rename ours to the names of transformers 4, which version 5 reads as well."""
    _check_published(config)
    mae = config.family == "mae"
    if mae and "encoder.norm.weight" not in state:
        what = "the encoder has no final norm, but transformers' ViTMAEModel does"
        if "head.weight" in state:
            what = "the classifier averages tokens, and transformers' ViT predicts from the class token"
        raise ValueError(f'{what}: save with to="vmae" or to="official"')
    base = ("vit." if mae else "videomae.") if {"mask_token", "head.weight"} & set(state) else ""
    theirs: State = {}
    for name, tensor in state.items():
        for pattern, replacement in (
            (r"^encoder\.patch_embed\.proj\.", f"{base}embeddings.patch_embeddings.projection."),
            (r"^encoder\.cls_token$", f"{base}embeddings.cls_token"),
            (r"^encoder\.norm\.", f"{base}layernorm."),
            (r"^encoder\.blocks\.", f"{base}encoder.layer."),
            (r"^decoder\.blocks\.", "decoder.decoder_layers."),
            (r"^head\.", "classifier."),
            (r"\.norm1\.", ".layernorm_before."),
            (r"\.norm2\.", ".layernorm_after."),
            (r"\.attn\.proj\.", ".attention.output.dense."),
            (r"\.attn\.([qv]_bias|qkv\.(weight|bias))$", r".attention.attention.\1"),
            (r"\.mlp\.fc1\.", ".intermediate.dense."),
            (r"\.mlp\.fc2\.", ".output.dense."),
        ):
            name = re.sub(pattern, replacement, name)
        if mae:
            for pattern, replacement in (
                (r"^mask_token$", "decoder.mask_token"),
                (r"^encoder_to_decoder\.", "decoder.decoder_embed."),
                (r"^decoder\.norm\.", "decoder.decoder_norm."),
                (r"^decoder\.head\.", "decoder.decoder_pred."),
            ):
                name = re.sub(pattern, replacement, name)
        if ".qkv." in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                theirs[name.replace("qkv", part)] = third
        else:
            theirs[name] = tensor
    if mae:
        kernel = f"{base}embeddings.patch_embeddings.projection.weight"
        theirs[kernel] = _flat_kernel(theirs[kernel], config)
        theirs.pop("encoder.pos_embed", None)
        theirs[f"{base}embeddings.position_embeddings"] = _encoder_table(state, config)
        if "mask_token" in state:
            theirs["decoder.decoder_pos_embed"] = table_of(config, "decoder_pos_embed")
    return theirs
