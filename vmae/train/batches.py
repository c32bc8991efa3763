"""Which clips step k of a run trains on: a function of the seed and k alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch

from vmae.base_config import ConfigError
from vmae.data.reading.loader import Batch, ClipDataset, Source, StepBatches, train_loader
from vmae.data.reading.sampling import Sampling
from vmae.train.config import RunConfig


class Batches:
    """The batches of a run, for process `rank` of `world_size`.

    Raises ConfigError if the batch does not divide into processes and micro-batches; warns if it is
    larger than the set.
    """

    def __init__(
        self,
        config: RunConfig,
        source: Source,
        device: torch.device,
        rank: int,
        world_size: int,
    ) -> None:
        self.data, self.seed = config.data, config.seed
        self.device, self.rank, self.world_size = device, rank, world_size
        self.clip = (config.model.channels, *config.model.grid.clip)
        self.optim = config.optim.resolved(len(source.videos))
        batch, videos = self.optim.batch_size, len(source.videos)
        parts = world_size * config.grad_accum_steps
        if batch % parts:
            raise ConfigError(
                f"optim.batch_size {batch} must be divisible by {world_size} processes times "
                f"grad_accum_steps {config.grad_accum_steps}: use a multiple of {parts}, such as "
                f"{max(parts, batch // parts * parts)}"
            )
        if batch > videos and rank == 0:
            warnings.warn(
                f"optim.batch_size {batch} is larger than the number of training videos, {videos}, "
                f"so each batch contains several clips of the same video. Use at most {videos}, or a "
                "larger dataset",
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

    def reread(self, step: int) -> tuple[list[str], Batch]:
        """The paths of the videos of a step on this process, and its batch, read again."""
        keys = next(iter(self._keys(step - 1, step)))
        videos = [str(self.dataset.source.videos[index].path) for _, index in keys]
        return videos, self.dataset.__getitems__(keys)

    def black(self) -> Batch:
        """A batch of this process in black, of the shape of every other."""
        size = self.optim.batch_size // self.world_size
        clips = torch.zeros((size, *self.clip), dtype=torch.uint8)
        return Batch(clips, torch.zeros(size, dtype=torch.int64), [])


def seeded(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one step: what it draws depends on nothing that came before."""
    return torch.Generator(device=device).manual_seed(step_seed(seed, step))


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, of 64 bits."""
    # A CPU generator reads the lower 32 bits only, so both numbers must show there.
    return (seed << 32) + (step + seed * 0x9E3779B1) % (1 << 32)
