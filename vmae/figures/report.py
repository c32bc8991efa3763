"""The report of a classifier: accuracy with its uncertainty, classes, confusions, confident mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vmae.data.reading.loader import ClipDataset
from vmae.data.reading.reader import VideoError
from vmae.data.reading.sampling import Sampling
from vmae.data.reading.sources import VideoFiles
from vmae.data.sets.videos import Video
from vmae.figures.charts import confusion, table
from vmae.figures.figure import paragraph
from vmae.figures.strips import film_strips
from vmae.support.files import printable
from vmae.train.evaluate import FEW_TESTS, Evaluation, interval

#: The largest number of classes whose confusion matrix is drawn; of more, the commonest confusions.
DRAWN = 40
#: Confident mistakes that are shown; and pixels of their frames, at least.
MISTAKES, PIXELS = 6, 112


def results(
    test: Evaluation, videos: Sequence[Video], classes: Sequence[str], sampling: Sampling
) -> None:
    """Show the test of a classifier: in words, by class, what was confused, the confident mistakes.

    videos     those of the source that was tested; their files are read again for the mistakes
    sampling   the clip to show of each
    """
    _headline(test, classes)
    paragraph("By class", "h2")
    table(_by_class(test, classes))
    counts = test.confusion().sum(1)
    small = [name for name, n in zip(classes, counts, strict=True) if 0 < n < FEW_TESTS]
    if small:
        paragraph(
            f"{len(small)} of {len(classes)} classes have fewer than {FEW_TESTS} test videos: their "
            "accuracies are hardly more than anecdotes, as the intervals show."
        )
    paragraph("Confusions", "h2")
    _confusions(test, classes)
    paragraph("Most confident mistakes", "h2")
    _mistakes(test, videos, classes, sampling)


def _headline(test: Evaluation, classes: Sequence[str]) -> None:
    """The accuracy in words, beside what guessing would give, and how far to trust it."""
    matrix = test.confusion()
    total, right = int(matrix.sum()), int(matrix.diagonal().sum())
    low, high = interval(right, total)
    counts = matrix.sum(1)
    mean = float(np.nanmean(test.per_class()))
    paragraph(
        f"{right:,} of {total:,} test videos are classified correctly: {test.accuracy:.1f} % "
        f"(95 % interval {low:.1f} to {high:.1f} %). The mean over the classes is {mean:.1f} %."
    )
    rows = [
        {"answer": "this classifier", "accuracy, %": test.accuracy},
        {"answer": "a class drawn at random", "accuracy, %": 100 / len(classes)},
        {
            "answer": f"always {classes[int(counts.argmax())]!r}",
            "accuracy, %": 100 * counts.max() / total,
        },
    ]
    if len(classes) > 10:
        rows.insert(1, {"answer": "among its five best", "accuracy, %": test.topk(5)})
    table(rows)
    if high - low > 10:
        paragraph(
            "The test set is small: the accuracy on all videos of this kind may well be anything "
            f"from {low:.0f} to {high:.0f} %, so a change of a few points between two runs means "
            "nothing. More test videos narrow the interval: four times as many halve it."
        )
    if low <= 100 * counts.max() / total:
        paragraph(
            "This test does not show that the classifier is better than always giving the same answer."
        )


def _by_class(test: Evaluation, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each class: videos, how many are right, the interval, what it is mostly taken for."""
    rows = []
    for name, counts, label in zip(classes, test.confusion(), range(len(classes)), strict=True):
        total, right = int(counts.sum()), int(counts[label])
        others = np.where(np.arange(len(counts)) == label, 0, counts)
        taken = f"{classes[int(others.argmax())]} ({others.max()})" if others.any() else ""
        low, high = interval(right, total) if total else (np.nan, np.nan)
        rows.append(
            {
                "class": name,
                "videos": total,
                "right": right,
                "accuracy, %": f"{100 * right / total:.0f}" if total else "no test videos",
                "95 % interval": f"{low:.0f} to {high:.0f}" if total else "",
                "mostly taken for": taken,
            }
        )
    return rows


def _confusions(test: Evaluation, classes: Sequence[str]) -> None:
    """The matrix with its counts or, of many classes, the commonest confusions."""
    matrix = test.confusion()
    off = matrix - np.diag(matrix.diagonal())
    if not off.any():
        paragraph("None.")
    elif len(classes) <= DRAWN:
        confusion(
            matrix,
            classes,
            alt=f"Confusion matrix of {len(classes)} classes in numbers of videos: "
            f"{matrix.diagonal().sum()} of {matrix.sum()} lie on the diagonal.",
            counts=True,
        )
        paragraph(
            "Rows are the true classes, columns the predictions; numbers are videos, and the "
            "colour is the share of the row."
        )
    else:
        pairs = np.argsort(-off, axis=None, kind="stable")[:20]
        rows, columns = np.unravel_index(pairs, off.shape)
        found = [
            {"true": classes[r], "predicted": classes[c], "videos": int(off[r, c])}
            for r, c in zip(rows, columns, strict=True)
            if off[r, c]
        ]
        table(found, caption="The commonest confusions.")


def _mistakes(
    test: Evaluation, videos: Sequence[Video], classes: Sequence[str], sampling: Sampling
) -> None:
    """Film strips of the wrong predictions with the highest probability."""
    best = test.logits.softmax(-1).max(1)
    order = best.values.argsort(descending=True).tolist()
    predicted, labels = best.indices.tolist(), test.labels.tolist()
    wrong = [row for row in order if predicted[row] != labels[row]][:MISTAKES]
    shown: list[tuple[str, torch.Tensor]] = []
    for row in wrong:
        video = videos[test.videos[row]]
        words = (
            printable(video.path.name),
            f"{classes[labels[row]]}, but",
            f"{classes[predicted[row]]}, {100 * float(best.values[row]):.0f} %",
        )
        try:
            views = ClipDataset(VideoFiles([video], PIXELS), sampling, seed=0).views(0)
        except VideoError as error:
            paragraph(f"{printable(video.path)}: {error}")
            continue
        clip = torch.from_numpy(views[0]).permute(3, 0, 1, 2)
        shown.append(("\n".join(map(_short, words)), clip))
    if not wrong:
        paragraph("None.")
    if shown:
        film_strips(
            shown,
            alt="Film strips of the wrong predictions with the highest probability, each with its "
            "file, true class and prediction: "
            + "; ".join(name.replace("\n", " ") for name, _ in shown),
            frames=6,
        )
        paragraph(
            "Look at the labels first: wrong ones are often among these. Where the label is right, ask "
            "whether the clip shows the action at all: it may be too short, or cropped away."
        )


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-most // 2 :]}"
