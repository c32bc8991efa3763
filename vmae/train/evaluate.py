"""Evaluation: logits of a whole split, accuracy, confusion, linear probe, nearest neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from vmae.data.augment.batched import view_of
from vmae.data.config import DataConfig
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.sources import Source
from vmae.data.reading.testing import ordered_batches
from vmae.data.reading.workers import named_worker_deaths
from vmae.train.batches import seeded
from vmae.train.devices import inference_autocast
from vmae.vit import VisionTransformer

#: Bytes that a model may take for the clips that it sees at once in a test, roughly.
AT_ONCE = 2 << 30
#: Fewer test videos of a class say next to nothing about it: if all of ten are right, the 95 % interval
#: still begins at 72 %.
FEW_TESTS = 10


def interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, in percent: Wilson's, which holds for few videos too."""
    from scipy.stats import binomtest  # half a second, which few need to wait for

    found = binomtest(right, total).proportion_ci(method="wilson")
    return 100 * found.low, 100 * found.high


@dataclass
class Evaluation:
    """Logits (videos, classes) and labels (videos,) of a split.

    videos   the index of each in the source that was tested: those that could not be read are missing
    """

    logits: torch.Tensor
    labels: torch.Tensor
    videos: Sequence[int] = ()

    @property
    def accuracy(self) -> float:
        """Top-1: share of the videos whose highest logit is that of the label, in percent."""
        return 100 * (self.logits.argmax(1) == self.labels).double().mean().item()

    @property
    def right(self) -> int:
        """How many videos are classified correctly."""
        return int(self.confusion().diagonal().sum())

    def topk(self, k: int) -> float:
        """Share of the videos whose label is among the k highest logits, in percent."""
        best = self.logits.topk(min(k, self.logits.shape[1]), dim=1).indices
        return 100 * (best == self.labels[:, None]).any(1).double().mean().item()

    def confusion(self) -> np.ndarray:
        """(classes, classes): number of videos by true label (rows) and prediction (columns)."""
        classes = self.logits.shape[1]
        flat = self.labels * classes + self.logits.argmax(1)
        return torch.bincount(flat, minlength=classes**2).view(classes, classes).numpy()

    def per_class(self) -> np.ndarray:
        """(classes,): accuracy per class, in percent; NaN for a class without videos."""
        counts = self.confusion()
        total = counts.sum(1)
        return np.where(total > 0, 100 * counts.diagonal() / np.maximum(total, 1), np.nan)


@torch.inference_mode()
@named_worker_deaths()
def evaluate(
    model: VisionTransformer,
    source: Source,
    sampling: Sampling,
    batch_size: int = 256,
    clips: int = 1,
    crops: int = 1,
    view: str = "video",
    device: torch.device | str = "cpu",
    max_unreadable: float = DataConfig.max_unreadable,
    accelerator: Accelerator | None = None,
    num_workers: int = 0,
    progress: Callable[..., Any] = lambda batches, **_: batches,
) -> Evaluation:
    """Test a classifier on every video, `batch_size` views at a time. The model stays on `device`.

    accelerator   for several processes: each tests some of the batches, all get the whole result
    num_workers   processes that read, as in `ordered_batches`
    progress      shows the batches as they are done, such as tqdm

    With several clips and crops per video, its logits are the logarithm of the mean softmax over the
    views, as published (5 clips of 3 crops on Kinetics, 2 of 3 on Something-Something).
    Raises SetError if more than the share `max_unreadable` of the videos cannot be read.
    """
    model = model.to(device).eval()
    rank = accelerator.process_index if accelerator else 0
    world = accelerator.num_processes if accelerator else 1
    gather = gather_object if world > 1 else list
    tested = []
    videos = max(1, batch_size // (clips * crops))
    batches = ordered_batches(
        source, sampling, videos, clips, crops, max_unreadable, rank, world, gather, num_workers
    )
    total = math.ceil(len(source.videos) / videos / world)
    for item in progress(batches, total=total, desc="evaluate", unit="batch"):
        generator = seeded(0, item.number, torch.device(device))
        with inference_autocast(device, accelerator):
            views = view_logits(model, item.clips.to(device), view, clips * crops, generator)
        tested.append((item.number, mean_of_views(views), item.labels, item.videos))
    # Only now does the host wait for the device: while that computed, the next batch was read.
    own = [(number, logits.cpu(), *rest) for number, logits, *rest in tested]
    whole = sorted(gather(own), key=lambda part: part[0])
    logits, labels = (torch.cat([part[i] for part in whole]) for i in (1, 2))
    return Evaluation(logits, labels, [index for part in whole for index in part[3]])


def view_logits(
    model: VisionTransformer,
    clips: torch.Tensor,
    view: str,
    views: int,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Logits (videos, views, classes) of clips (videos·views, C, T, H, W), each seen as `view`.

    They go through the model in as many parts as AT_ONCE asks for.
    """
    parts = view_of(clips, view, generator).split(at_once(model))
    return torch.cat([model(part).float() for part in parts]).unflatten(0, (-1, views))


def at_once(model: VisionTransformer) -> int:
    """How many clips the model sees at once in a test."""
    # A block holds some twelve numbers per token and channel.
    each = 12 * 4 * model.config.grid.num_tokens * model.config.embed_dim
    return max(1, AT_ONCE // each)


def mean_of_views(logits: torch.Tensor) -> torch.Tensor:
    """Logits (videos, views, classes) as the log of the mean probability: (videos, classes).

    Those of a single view stay as they are.
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])


@torch.inference_mode()
@named_worker_deaths()
def pooled_features(
    encoder: VisionTransformer,
    source: Source,
    sampling: Sampling,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    max_unreadable: float = DataConfig.max_unreadable,
    num_workers: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """One feature vector (D,) per video from a frozen encoder, and the labels.

    The clips of a batch go through it in as many parts as AT_ONCE asks for.

    num_workers   processes that read, as in `ordered_batches`
    """
    encoder = encoder.to(device).eval()
    features, labels = [], []
    for item in ordered_batches(
        source, sampling, batch_size, max_unreadable=max_unreadable, num_workers=num_workers
    ):
        with inference_autocast(device):
            parts = item.clips.to(device).split(at_once(encoder))
            features += [encoder.pooled(part).float() for part in parts]
        labels.append(item.labels)
    return torch.cat(features).cpu().numpy(), torch.cat(labels).numpy()


def linear_probe(
    train: Sequence[np.ndarray], test: Sequence[np.ndarray], strength: float = 1.0
) -> float:
    """Test accuracy, in percent, of a logistic regression on frozen, standardised features.

    train, test: features (videos, D) and labels (videos,). `strength` is scikit-learn's C, the
    inverse of the L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression  # seconds, which few need to wait for
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    return 100 * float(probe.fit(*train).score(*test))


def knn_probe(
    train: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    neighbours: int = 20,
    temperature: float = 0.07,
) -> float:
    """Test accuracy, in percent, of a weighted vote of the nearest training features.

    train, test: as in `linear_probe`. A neighbour at cosine distance d has the weight
    exp((1 - d) / temperature). Source: Wu et al. 2018 (arXiv 1805.01978), section 3.4.
    """
    from sklearn.neighbors import KNeighborsClassifier

    probe = KNeighborsClassifier(
        min(neighbours, len(train[0])),
        metric="cosine",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    return 100 * float(probe.fit(*train).score(*test))
