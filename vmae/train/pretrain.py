"""Pre-training: one loop for MAE, VideoMAE V1 and V2, on one device or many processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from vmae.config import PretrainConfig
from vmae.data.augment import multi_scale_crop
from vmae.data.loader import (
    ClipDataset,
    Source,
    StepBatches,
    open_set,
    open_source,
    report_failed,
    train_loader,
)
from vmae.data.sampling import Sampling
from vmae.mae import MaskedAutoencoder
from vmae.masking import make_mask
from vmae.train.checkpoint import claim_run, load_state, save_state, save_weights
from vmae.train.runtime import (
    Bar,
    Log,
    Progress,
    Record,
    Silent,
    accelerator_for,
    check_finite,
    cost,
    seeded,
    take_step,
)
from vmae.train.schedule import adamw, learning_rate

#: Fields of a run's configuration that may differ when it is resumed.
FREE_FIELDS = (
    "save_every",
    "log_every",
    "keep",
    "data.workers",
    "data.stores",
    "data.store",
)


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

    folder    where config.yaml, metrics.jsonl, checkpoints and the final weights go; None: nowhere
    resume    go on with the run in `folder`, from its newest checkpoint
    source    clips to train on; by default the training videos of `config.data.path`

    Step k uses clips, masks and a rate that depend on the seed and k alone, so a resumed run gives
    the numbers of one that was never interrupted. Ctrl-C saves a checkpoint first.
    """
    accelerator = accelerator_for(config.precision)
    main, device = accelerator.is_main_process, accelerator.device
    if source is None:
        with accelerator.main_process_first():  # one process decodes, the others find the store
            videos = open_set(config.data).train
            source = open_source(config.data, videos, config.model.size, config.model.frames)
    optim = config.optim.resolved(len(source.videos))
    run = Path(folder) if folder is not None else None
    if run and main:
        claim_run(run, config, resume, FREE_FIELDS)
    accelerator.wait_for_everyone()

    torch.manual_seed(config.seed)
    model: torch.nn.Module = MaskedAutoencoder(config.model)
    optimizer: torch.optim.Optimizer = adamw(model, optim)
    # A mask that cannot be is an error before the start.
    make_mask(config.mask, config.model.grid, 1)
    start = load_state(run / "checkpoints", model, optimizer) if run and resume else 0
    model, optimizer = accelerator.prepare(model, optimizer)
    core: MaskedAutoencoder = accelerator.unwrap_model(model)

    dataset = ClipDataset(source, Sampling.of(config.data, config.model.frames), config.seed)
    rank, world = accelerator.process_index, accelerator.num_processes
    keys = StepBatches(len(dataset), optim.batch_size, optim.steps, config.seed, start, rank, world)
    loader = train_loader(dataset, keys, config.data.workers, pin=device.type == "cuda")
    log = Log(
        config.log_every,
        optim.batch_size,
        optim.steps,
        run / "metrics.jsonl" if run and main else None,
    )
    log.resume(start)
    shown: Progress = (progress or Bar()) if main else Silent()
    failed: dict[str, str] = {}
    step = start
    shown.start("pre-train", start, optim.steps)
    model.train()
    try:
        for step, batch in enumerate(loader, start + 1):
            new = dict(batch.failed).keys() - failed.keys()
            if new:  # each is reported once
                failed.update(batch.failed)
                report_failed(list(failed.items()), len(dataset), config.data.max_bad)
            clips = batch.clips.to(device, non_blocking=True)
            generator = seeded(config.seed, step * world + rank, device)
            if config.repeat > 1:
                clips = clips.repeat_interleave(config.repeat, dim=0)
            if config.crop:
                clips = multi_scale_crop(clips, generator)
            mask = make_mask(config.mask, core.grid, len(clips), generator, device)
            rate = learning_rate(step - 1, optim)
            loss = F.mse_loss(model(clips, mask).float(), core.targets(clips, mask))
            take_step(accelerator, model, optimizer, loss, rate, optim.clip_grad)
            record = log.add(step, loss.detach(), rate)
            check_finite(record)
            shown.update(step, record)
            if run and main and (step % config.save_every == 0 or step == optim.steps):
                save_state(run / "checkpoints", step, core, optimizer, config.keep)
    except KeyboardInterrupt:
        if run and main and step > start:
            # The step under way may be half done: the optimizer counts the whole ones.
            done = step if optimizer_steps(optimizer) == step else step - 1
            save_state(run / "checkpoints", done, core, optimizer, config.keep)
        raise
    finally:
        shown.close()
    result = PretrainResult(core.cpu().eval(), log.records, cost(log.records, device), run)
    if run and main:
        save_weights(core, run / "model.safetensors")
    return result


def optimizer_steps(optimizer: torch.optim.Optimizer) -> int:
    """Steps that the optimizer has taken since it was made, by its own count."""
    states = optimizer.state.values()
    return int(next((state["step"].item() for state in states if "step" in state), 0))
