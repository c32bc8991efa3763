"""Position tables stored in a file: fixed ones are checked, learned ones become parameters."""

from __future__ import annotations

import torch

from vmae.config import ModelConfig
from vmae.positions import interpolate_pos_embed
from vmae.weights.errors import CheckpointError, warn
from vmae.weights.files import WeightFile
from vmae.weights.names import table_of


def settle_tables(file: WeightFile, config: ModelConfig) -> ModelConfig:
    """Check a file's tables; if the encoder's is learned, move it to the weights.

    A table is learned if it differs from the fixed one of the model's clip size. Returns `config`,
    with `learned_pos_embed` if so. Raises CheckpointError.
    """
    for name, stored in list(file.tables.items()):
        where, ours = f"{file.path}: {file.names[name]}", table_of(config, name)
        learned = config.learned_pos_embed and name == "pos_embed"
        bare = learned and stored.numel() == config.grid.num_tokens * config.embed_dim
        if stored.numel() != ours.numel() and not bare:  # ours have no row for the class token
            raise CheckpointError(
                f"{where} has shape {tuple(stored.shape)}, but the model's table has shape "
                f"{tuple(ours.shape)}: pass the num_frames= and img_size= used in training, or "
                "interpolate=True for another clip size"
            )
        if not stored.any():
            raise CheckpointError(
                f"{where} is all zeros: transformers leaves ViTMAE's positions at zero when it "
                "builds a model from scratch, so this model was trained without position "
                "embeddings and cannot be loaded"
            )
        if stored.isnan().any():
            raise CheckpointError(f"{where} contains NaN: the model was saved after it diverged")
        if not learned:
            off = (stored.reshape(ours.shape).float() - ours).abs().max().item()
            if off <= (1e-5 if stored.dtype == torch.float32 else 1e-2):
                continue
            if name != "pos_embed":
                raise CheckpointError(
                    f"{where} differs from the fixed sin-cos table by up to {off:.2g}: vmae supports "
                    "learned positions in the encoder, not in the decoder. Use load_encoder to load "
                    "only the encoder"
                )
            if "mask_token" in file.state:
                warn(
                    f"{where} differs from the fixed sin-cos table by up to {off:.2g}, although the "
                    "published pre-training does not train it; loading it as a learned table"
                )
            config = config.replace(learned_pos_embed=True)
        del file.tables[name]
        table = stored.float().reshape(1, -1, config.embed_dim)
        if table.shape[1] > config.grid.num_tokens:
            # the class token and its position only ever occur as a sum
            position, table = table[:, :1], table[:, 1:]
            file.state["encoder.cls_token"] = file.state["encoder.cls_token"].float() + position
        file.state["encoder.pos_embed"] = table
        file.names.setdefault("encoder.pos_embed", file.names[name])
    return config


def interpolate_learned(file: WeightFile, trained: ModelConfig, config: ModelConfig) -> None:
    """Resize a learned table of the weights from the clip size of training to another."""
    table = file.state.get("encoder.pos_embed")
    if table is not None and trained.grid != config.grid:
        resized = interpolate_pos_embed(table[0], trained.grid, config.grid)
        file.state["encoder.pos_embed"] = resized[None]
