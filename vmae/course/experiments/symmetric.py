"""What VideoMAE avoids: an encoder that sees mask tokens."""

from __future__ import annotations

import torch
from torch import nn

from vmae.config import ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.masking import Mask


class SymmetricAutoencoder(MaskedAutoencoder):
    """A masked autoencoder whose encoder reads all tokens, with mask tokens at the hidden positions.

    MAE's "encoder w/ [M]" (table 1c). With a decoder as large as the encoder, both halves are alike.
    The encoder starts from the same weights as that of `MaskedAutoencoder` with the same seed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))  # D wide, not E
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        """Predict the targets of clips (B, C, T, H, W): (B, M, P)."""
        mask_tokens = self.mask_token + self.encoder.pos_embed[0][mask.queries]  # (B, Q, D)
        x = torch.cat((self.encoder.embed(clips, mask.visible), mask_tokens), dim=1)
        for block in self.encoder.blocks:
            x = block(x)
        x = self.encoder_to_decoder(self.encoder.norm(x))  # (B, V + Q, E)
        x = x + self.decoder_pos_embed[torch.cat((mask.visible, mask.queries), dim=1)]
        return self.decoder(x, mask.queries.shape[1], mask.targets)
