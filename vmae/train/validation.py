"""Validation during fine-tuning: the accuracy after every epoch, and the weights of the best one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from vmae.support.files import write_text
from vmae.train.checkpoint import full_state
from vmae.train.evaluate import Evaluation
from vmae.train.run import Run
from vmae.vit import VisionTransformer
from vmae.weights.tensors import load_weights, save_weights


class Validation:
    """Test a run's weights after every epoch, and keep the best: the first of the highest accuracy.

    test     of a model on the validation videos
    model    a classifier of the run's kind, which receives the weights to test

    Of several epochs with that accuracy, the lowest loss counts. The folder's validation.jsonl has a
    row for each epoch, and its model.safetensors the best weights so far. A run resumes from the
    rows up to its checkpoint, and repeats what came after them, to the same numbers.
    """

    def __init__(
        self, run: Run, model: VisionTransformer, test: Callable[[VisionTransformer], Evaluation]
    ) -> None:
        self.run, self.model, self.test = run, model, test
        optim = run.batches.optim
        self.every = max(1, len(run.batches.dataset) // optim.batch_size)
        self.last = optim.steps
        self.log = run.folder / "validation.jsonl" if run.folder else None
        self.weights = run.folder / "model.safetensors" if run.folder else None
        self.rows = [row for row in read_validation(self.log) if row["step"] <= run.start]
        run.best_by_loss = False
        self.best: dict[str, torch.Tensor] = {}
        if self.rows and self.weights:
            load_weights(model, self.weights)
            self._keep()

    def after(self, step: int) -> None:
        """Validate if an epoch ends with this step. All processes must call it, before `end_step`."""
        if step % self.every and step != self.last:
            return
        began = time.perf_counter()
        self.model.load_state_dict(full_state(self.run.model))
        result = self.test(self.model)
        loss = F.cross_entropy(result.logits, result.labels).item()
        videos = len(result.labels)
        row = {"step": step, "videos": videos, "accuracy": result.accuracy, "loss": loss}
        self.rows.append(row)
        if best_row(self.rows)["step"] == step:
            self._keep()
            if self.weights and self.run.main:
                save_weights(self.model, self.weights)
        if self.log and self.run.main:
            write_text(self.log, "".join(json.dumps(row) + "\n" for row in self.rows))
        self.run.log.leave_out(time.perf_counter() - began)

    def _keep(self) -> None:
        self.best = {n: x.detach().cpu().clone() for n, x in self.model.state_dict().items()}


def best_row(rows: list[dict[str, float]]) -> dict[str, float]:
    """The row with the highest accuracy, then the lowest loss; the first of equals."""
    return max(rows, key=lambda row: (row["accuracy"], -row["loss"]))


def read_validation(path: Path | None) -> list[dict[str, float]]:
    """The rows of a run's validation.jsonl, if any: step, videos, accuracy in percent, loss."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
