"""Pre-training: one loop for MAE, VideoMAE V1 and V2, on one device or many processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from vmae.data.reading.loader import Batch, Source, open_set, open_source
from vmae.mae import MaskedAutoencoder, pixel_targets
from vmae.masking import Mask, make_mask
from vmae.support.progress import Bar, Progress, Record
from vmae.train.batches import Steps
from vmae.train.config import PretrainConfig
from vmae.train.loop import FREE_FIELDS as FREE_FIELDS
from vmae.train.loop import Loop, opened
from vmae.weights.tensors import save_weights


@dataclass
class PretrainResult:
    """The trained model, on the CPU; its log; what it cost; the run's folder."""

    model: MaskedAutoencoder
    records: list[Record]
    cost: dict[str, Any]
    folder: Path | None


def pretrain(
    config: PretrainConfig,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    source: Source | None = None,
) -> PretrainResult:
    """Pre-train a masked autoencoder.

    folder    where config.yaml, environment.json, metrics.jsonl, checkpoints and the final weights
              go; None: nowhere. All processes must see it
    resume    go on with the run in `folder`, from its newest checkpoint; start it if there is none
    source    clips to train on; by default the training videos of `config.data.path`

    Step k uses clips, masks and a rate that depend on the seed and k alone, so a resumed run gives
    the numbers of one that was never interrupted, and many processes give those of one. Ctrl-C and
    SIGTERM save a checkpoint first; SIGTERM then raises Stopped. Raises LostPeer where another
    process is gone, OutOfMemory with the fields that help, FloatingPointError at a loss that is no
    number (unless such steps are skipped).
    """
    run = Path(folder) if folder is not None else None
    with opened(config, run) as accelerator:
        training = _Pretraining(config, run, resume, progress or Bar(), source, accelerator)
        training.train()
        return training.result()


class _Pretraining(Loop[PretrainConfig, tuple[torch.Tensor, Mask]]):
    """Clips and masks; the error of the pixels that are asked for."""

    title = "pre-train"
    steps: Steps
    core: MaskedAutoencoder

    def __init__(
        self,
        config: PretrainConfig,
        folder: Path | None,
        resume: bool,
        progress: Progress,
        source: Source | None,
        accelerator: Accelerator,
    ) -> None:
        device = accelerator.device
        if source is None:
            with accelerator.main_process_first():  # one process decodes, the others find the store
                videos = open_set(config.data).train
                source = open_source(
                    config.data, videos, config.model.img_size, config.model.num_frames, device
                )
        rank, world = accelerator.process_index, accelerator.num_processes
        steps = Steps(config, source, device, rank, world)
        # A mask that cannot be is an error before the start.
        make_mask(config.mask, config.model.grid, 1)
        super().__init__(config, steps, folder, resume, progress, accelerator)

    def build(self) -> MaskedAutoencoder:
        return MaskedAutoencoder(self.config.model)

    def parts(self, step: int, batch: Batch) -> list[tuple[torch.Tensor, Mask]]:
        return self.steps.parts(step, batch.clips)

    def inputs(self, part: tuple[torch.Tensor, Mask]) -> tuple[torch.Tensor, Mask]:
        return part

    def loss(self, part: tuple[torch.Tensor, Mask]) -> torch.Tensor:
        return F.mse_loss(self.predict(part), pixel_targets(*part, self.config.model))

    def clip_losses(self, part: tuple[torch.Tensor, Mask]) -> torch.Tensor:
        errors = (self.predict(part) - pixel_targets(*part, self.config.model)).square()
        return errors.flatten(1).mean(1)

    def tensors(self, part: tuple[torch.Tensor, Mask]) -> dict[str, torch.Tensor]:
        clips, mask = part
        return {
            "clips": clips, "visible": mask.visible, "queries": mask.queries,
            "targets": mask.targets,
        }  # fmt: skip

    def result(self) -> PretrainResult:
        """The model as a plain one on the CPU, saved where the run has a folder."""
        model = MaskedAutoencoder(self.config.model)
        paid = self.trained(model)
        if self.folder and self.main:
            save_weights(model, self.folder / "model.safetensors")
        return PretrainResult(model.eval(), self.log.records, paid, self.folder)
