"""What step k of a run trains on: a function of the seed and k, whoever computes it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

from vmae.config import ConfigError
from vmae.data.augment.batched import draw_crops, take_crops
from vmae.data.reading.loader import Batch, ClipDataset, Source, StepBatches, train_loader
from vmae.data.reading.sampling import Sampling
from vmae.masking import Mask, make_mask
from vmae.train.config import FinetuneConfig, PretrainConfig


class Batches:
    """Batches of clips of a run, for process `rank` of `world`.

    Raises ConfigError where the batch does not divide into processes and parts; warns where it is
    larger than the set.
    """

    def __init__(
        self,
        config: PretrainConfig | FinetuneConfig,
        source: Source,
        device: torch.device,
        rank: int,
        world_size: int,
    ) -> None:
        self.data, self.seed = config.data, config.seed
        self.device, self.rank, self.world_size = device, rank, world_size
        self.clip = (config.model.channels, *config.model.grid.clip)
        self.optim = config.optim.resolved(len(source.videos))
        batch, parts, videos = (
            self.optim.batch_size,
            world_size * config.grad_accum_steps,
            len(source.videos),
        )
        if batch % parts:
            raise ConfigError(
                f"optim.batch_size {batch} does not divide into {world_size} processes times "
                f"grad_accum_steps {config.grad_accum_steps}: use a multiple of {parts}, such as "
                f"{max(parts, batch // parts * parts)}"
            )
        if batch > videos and rank == 0:
            warnings.warn(
                f"optim.batch_size {batch} is larger than the set of {videos} videos: a batch then "
                f"holds several clips of one video. Use {videos} or fewer, or a larger set",
                stacklevel=5,
            )
        sampling = Sampling.of(config.data, config.model.num_frames)
        self.dataset = ClipDataset(source, sampling, config.seed)

    def loader(self, start: int) -> Iterator[Batch]:
        """The batches of the steps after `start`."""
        keys = self._keys(start, self.optim.steps)
        pin = self.device.type == "cuda"
        return train_loader(self.dataset, keys, self.data.num_workers, pin)

    def _keys(self, start: int, end: int) -> StepBatches:
        batch, total = self.optim.batch_size, len(self.dataset)
        return StepBatches(total, batch, end, self.seed, start, self.rank, self.world_size)

    def again(self, step: int) -> tuple[list[str], Batch]:
        """The paths of the videos of a step on this process, and its batch, read once more."""
        keys = next(iter(self._keys(step - 1, step)))
        videos = [str(self.dataset.source.videos[index].path) for _, index in keys]
        return videos, self.dataset.__getitems__(keys)

    def black(self) -> Batch:
        """A batch of this process of black clips: for its shape."""
        size = self.optim.batch_size // self.world_size
        clips = torch.zeros((size, *self.clip), dtype=torch.uint8)
        return Batch(clips, torch.zeros(size, dtype=torch.int64), [])


class Steps(Batches):
    """Batches of pre-training, cropped and masked."""

    def __init__(
        self,
        config: PretrainConfig,
        source: Source,
        device: torch.device,
        rank: int,
        world_size: int,
    ) -> None:
        super().__init__(config, source, device, rank, world_size)
        self.config = config

    def parts(self, step: int, clips: torch.Tensor) -> list[tuple[torch.Tensor, Mask]]:
        """The clips of a step on this process, cropped, with their masks, in `grad_accum_steps` parts.

        Every process draws the crops and masks of the whole batch and takes its own, so they depend
        on the clip's place in the batch alone.
        """
        config = self.config
        clips = clips.to(self.device, non_blocking=True)
        if config.repeated_aug > 1:
            clips = clips.repeat_interleave(config.repeated_aug, dim=0)
        count, generator = len(clips), seeded(config.seed, step, self.device)
        total, own = self.world_size * count, slice(self.rank * count, (self.rank + 1) * count)
        if config.crop:
            sides, centres = draw_crops(total, generator, self.device)
            clips = take_crops(clips, (sides[own], centres[own]))
        whole = make_mask(config.mask, config.model.grid, total, generator, self.device)
        each = count // config.grad_accum_steps
        indices = (whole.visible, whole.queries, whole.targets)
        masks = (Mask(*part) for part in zip(*(x[own].split(each) for x in indices), strict=True))
        return list(zip(clips.split(each), masks, strict=True))


def seeded(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one step: what it draws depends on nothing that came before."""
    return torch.Generator(device=device).manual_seed(step_seed(seed, step))


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, of 64 bits."""
    # A CPU generator reads the lower 32 bits only, so both numbers must show there.
    return (seed << 32) + (step + seed * 0x9E3779B1) % (1 << 32)
