"""The gallery of failures of lesson 06: training runs on one clip, most of them with one bug."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from vmae.config import MaskConfig, ModelConfig
from vmae.figures.figure import INK, PALETTE, show, style
from vmae.grid import gather_tokens, patchify
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import Mask, make_mask
from vmae.vit import to_unit

Targets = Callable[[torch.Tensor, Mask, ModelConfig], torch.Tensor]

#: Masks of every run, unless they are the bug.
TUBES = MaskConfig("tube", 0.75)
#: A small model of clips of 32 pixels: 4x4x4 tokens.
MODEL = ModelConfig.videomae(
    "tiny", num_frames=8, img_size=32, tubelet=(2, 8, 8), embed_dim=96, num_heads=3,
    decoder_embed_dim=64, decoder_num_heads=2,
)  # fmt: skip


def joint_targets(clips: torch.Tensor, mask: Mask, config: ModelConfig) -> torch.Tensor:
    """Targets standardised over all channels together, as in MAE: (B, M, P)."""
    pixels = to_unit(gather_tokens(patchify(clips, config.grid), mask.target_tokens))
    return (pixels - pixels.mean(-1, keepdim=True)) / (pixels.std(-1, keepdim=True) + 1e-6)


class NoPositions(MaskedAutoencoder):
    """The decoder gets no positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.decoder_pos_embed.zero_()


class WrongOrder(MaskedAutoencoder):
    """Mask tokens come first, but predictions are still read from the end."""

    def forward(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        x = self.encoder_to_decoder(self.encoder.forward_features(clips, mask.visible))
        known = x + self.decoder_pos_embed[mask.visible]
        asked = self.mask_token + self.decoder_pos_embed[mask.queries]
        return self.decoder(torch.cat((asked, known), dim=1), mask.queries.shape[1], mask.targets)


@dataclass(frozen=True)
class Patient:
    """A run and what is wrong with it; line is the code at fault, cure what it should be."""

    bug: str
    line: str = ""
    cure: str = ""
    model: type[MaskedAutoencoder] = MaskedAutoencoder
    targets: Targets = pixel_targets
    scheme: MaskConfig = TUBES
    lr: float = 4e-3
    same_masks: bool = False


#: In an order that gives nothing away.
PATIENTS = {
    "A": Patient(
        "wrong order",
        "x = torch.cat((asked, known), dim=1)",
        "x = torch.cat((known, asked), dim=1)",
        model=WrongOrder,
    ),
    "B": Patient(
        "joint targets", "mean, std = x.mean(-1), x.std(-1)  # of (B, M, P)",
        "mean, std = x.mean(-2), x.std(-2)  # of (B, M, P / 3, 3)", targets=joint_targets,
    ),
    "C": Patient("same masks", "a line of the training loop", "exercise 6", same_masks=True),
    "D": Patient(
        "no positions",
        "asked = mask_token.expand(B, Q, -1)",
        "asked = mask_token + positions[mask.queries]",
        model=NoPositions,
    ),
    "E": Patient(
        "random masks", 'scheme = MaskConfig("random", 0.75)', 'scheme = MaskConfig("tube", 0.75)',
        scheme=MaskConfig("random", 0.75),
    ),
    "F": Patient("learning rate", "lr = 4e-2", "lr = 4e-3", lr=4e-2),
    "G": Patient(
        "loss on all tokens", "loss = mse_loss(predictions, targets)  # (B, N, P)",
        "loss = mse_loss(predictions, targets)  # (B, Q, P)",
        scheme=MaskConfig("tube", 0.75, None, "every"),
    ),
}  # fmt: skip
#: What to choose from.
BUGS = tuple(sorted(patient.bug for patient in PATIENTS.values()))
RIGHT = Patient("right")


@dataclass(frozen=True)
class Record:
    """What a run left.

    losses   of every step, in the unit of its own targets
    nothing  what predicting 0 everywhere would cost, in that unit
    right    V1's loss on the clip, under 32 masks that are new
    picture  the first frame of the clip with its hidden part predicted, (C, H, W) in [0, 1]
    """

    losses: list[float]
    nothing: float
    right: float
    picture: torch.Tensor


def examine(patient: Patient, clip: torch.Tensor, steps: int, seed: int = 0) -> Record:
    """Train on one clip (1, C, T, H, W), uint8 or in [0, 1], under two masks per step."""
    torch.manual_seed(seed)
    model, generator = patient.model(MODEL), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=patient.lr, betas=(0.9, 0.95))
    losses, batch = [], clip.expand(2, -1, -1, -1, -1)
    for _ in range(steps):
        if patient.same_masks:
            generator.manual_seed(seed)
        mask = make_mask(patient.scheme, MODEL.grid, len(batch), generator)
        loss = F.mse_loss(model(batch, mask), patient.targets(batch, mask, MODEL))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return _record(patient, model.eval(), clip, losses, seed)


@torch.no_grad()
def _record(
    patient: Patient,
    model: MaskedAutoencoder,
    clip: torch.Tensor,
    losses: list[float],
    seed: int,
) -> Record:
    many = clip.expand(32, -1, -1, -1, -1)
    fresh = make_mask(TUBES, MODEL.grid, 32, torch.Generator().manual_seed(seed + 1000))
    own = make_mask(patient.scheme, MODEL.grid, 32, torch.Generator().manual_seed(seed))
    right = F.mse_loss(model(many, fresh), pixel_targets(many, fresh, MODEL)).item()
    one = Mask(fresh.visible[:1], fresh.queries[:1], fresh.targets[:1])
    picture = model.reconstruct(clip, one).pasted[0, :, 0]
    nothing = patient.targets(many, own, MODEL).square().mean().item()
    return Record(losses, nothing, right, picture)


def curves(records: Mapping[str, Record]) -> None:
    """The losses of all runs, one panel each, beside those of the first."""
    window = np.ones(10) / 10
    smooth = {name: np.convolve(r.losses, window, "valid") for name, r in records.items()}
    reference, *_ = smooth
    with style():
        figure, axes = plt.subplots(
            2, 4, figsize=(8.6, 3.9), sharex=True, sharey=True, layout="constrained"
        )
        for axis, (name, losses) in zip(axes.flat, smooth.items(), strict=True):
            axis.plot(smooth[reference], color=INK, lw=1, label=f"run “{reference}”")
            axis.plot(losses, color=PALETTE[0], lw=1.6, label="this run")
            axis.axhline(records[name].nothing, color=INK, ls="--", lw=1, label="predicting 0")
            axis.set_title(name, fontsize=10)
            axis.set_yscale("log")
        figure.supxlabel("step", fontsize=10, color=INK)
        figure.supylabel("loss, own unit", fontsize=10, color=INK)
        handles = axes.flat[-1].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=3, fontsize=9)
    said = (f"{name} from {x[0]:.2f} to {x[-1]:.3f}" for name, x in smooth.items())
    show(figure, f"Loss over steps, mean of ten, one panel per run: {'; '.join(said)}.")
