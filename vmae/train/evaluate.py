"""Testing: logits for a whole split, accuracy, confusion, linear probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vmae.data.augment import view_of
from vmae.data.loader import Source, ordered_batches
from vmae.train.runtime import seeded
from vmae.vit import VisionTransformer


@dataclass
class Evaluation:
    """Logits (videos, classes) and labels (videos,) of a split."""

    logits: torch.Tensor
    labels: torch.Tensor

    @property
    def accuracy(self) -> float:
        """Share of the videos whose highest logit is the label's, in percent."""
        return 100 * (self.logits.argmax(1) == self.labels).double().mean().item()

    def topk(self, k: int) -> float:
        """Share of the videos whose label is among the k highest logits, in percent."""
        best = self.logits.topk(min(k, self.logits.shape[1]), dim=1).indices
        return 100 * (best == self.labels[:, None]).any(1).double().mean().item()

    def confusion(self) -> np.ndarray:
        """(classes, classes): counts, true label by row, prediction by column."""
        classes = self.logits.shape[1]
        flat = self.labels * classes + self.logits.argmax(1)
        return torch.bincount(flat, minlength=classes**2).view(classes, classes).numpy()


@torch.inference_mode()
def evaluate(
    model: VisionTransformer,
    source: Source,
    stride: int = 1,
    batch: int = 256,
    view: str = "video",
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Run a classifier on the centre clip of every video. The model stays on `device`."""
    model = model.to(device).eval()
    logits, labels = [], []
    for step, item in enumerate(ordered_batches(source, model.config.frames, stride, batch)):
        generator = seeded(0, step, torch.device(device))
        clips = view_of(item.clips.to(device), view, generator)
        logits.append(model(clips).float().cpu())
        labels.append(item.labels)
    return Evaluation(torch.cat(logits), torch.cat(labels))


@torch.inference_mode()
def pooled_features(
    encoder: VisionTransformer,
    source: Source,
    stride: int = 1,
    batch: int = 256,
    device: torch.device | str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """One feature vector (D,) a video from a frozen encoder, and the labels."""
    encoder = encoder.to(device).eval()
    features, labels = [], []
    for item in ordered_batches(source, encoder.config.frames, stride, batch):
        features.append(encoder.pooled(item.clips.to(device)).float().cpu())
        labels.append(item.labels)
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def linear_probe(
    train: Sequence[np.ndarray], test: Sequence[np.ndarray], strength: float = 1.0
) -> float:
    """Test accuracy, in percent, of a logistic regression on frozen, standardised features.

    train, test: features (videos, D) and labels (videos,). `strength` is scikit-learn's C, the
    inverse of the L2 penalty.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    return 100 * float(probe.fit(*train).score(*test))
