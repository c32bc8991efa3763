"""Parts of the training videos: those held out for validation, or a few of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vmae.data.sets.groups import recordings
from vmae.data.sets.videos import SetError, Video, VideoSet


def hold_out(
    videos: VideoSet, share: float | None, seed: int = 0
) -> tuple[tuple[Video, ...], tuple[Video, ...], str]:
    """The videos to train on, those to validate on, and how they were chosen, in words.

    share   of the training videos of each class to hold out; None: none, and no validation

    A validation split of the set itself is taken as it is. Otherwise whole recordings are held out if
    names or folders show them, else single videos, drawn by the seed. Of a class with several, at
    least one is held out, and never all.
    """
    if share is None:
        return videos.train, (), "none"
    if videos.val:
        return videos.train, videos.val, "the set's own split"
    groups, by = _groups(videos.train)
    held = _drawn(videos.train, groups, share, np.random.default_rng((seed, 29)))
    train = tuple(v for v, group in zip(videos.train, groups, strict=True) if group not in held)
    val = tuple(v for v, group in zip(videos.train, groups, strict=True) if group in held)
    return train, val, by


def _groups(train: Sequence[Video]) -> tuple[list[str], str]:
    """A group for each video, and by what they were found."""
    found = recordings(train)
    if found:
        each = [found.get(video, str(video.path)) for video in train]
        return each, "whole recordings, by the names of their clips"
    several = Counter(label for label, _ in {(v.label, v.path.parent) for v in train})
    if several and max(several.values()) > 1:
        return [str(v.path.parent) for v in train], "whole folders inside those of the classes"
    each = [f"{video.path}:{video.first}" for video in train]
    return each, (
        "single videos of each class, as neither names nor folders show which are cut from one "
        "recording. If some are, validation and test are too optimistic: make train, val and test folders"
    )


def _drawn(
    train: Sequence[Video], groups: Sequence[str], share: float, rng: np.random.Generator
) -> set[str]:
    """The groups to hold out: of each class about `share` of its videos."""
    sizes: dict[int, Counter[str]] = {}
    for video, group in zip(train, groups, strict=True):
        sizes.setdefault(video.label, Counter())[group] += 1
    held: set[str] = set()
    for label in sorted(sizes, key=lambda label: (len(sizes[label]), label)):  # rare classes first
        own = sizes[label]
        wanted = share * own.total()
        for group in rng.permutation(sorted(own)).tolist():
            if own[group] > max(2 * wanted, min(own.values())):
                continue
            taken = sum(own[name] for name in held & own.keys())
            if taken and taken + own[group] / 2 > wanted:
                break
            # A recording may show several classes; each needs something to train on.
            if all(counts.keys() - held - {group} for counts in sizes.values() if group in counts):
                held.add(group)
    return held


def few_labels(
    videos: Sequence[Video], per_class: int | None, classes: Sequence[str], seed: int
) -> list[int]:
    """Indices of `per_class` videos of each class, drawn with the seed; None: of all videos.

    Raises SetError if a class has fewer.
    """
    if per_class is None:
        return list(range(len(videos)))
    rng = np.random.default_rng((seed, 17))
    chosen: list[int] = []
    for label, name in enumerate(classes):
        pool = [i for i, video in enumerate(videos) if video.label == label]
        if len(pool) < per_class:
            raise SetError(
                f"class {name!r} has {len(pool)} training videos, fewer than labels_per_class, {per_class}: "
                f"set labels_per_class to {len(pool)} or less, or to null in the recipe for all labels"
            )
        chosen += [pool[i] for i in rng.permutation(len(pool))[:per_class]]
    return chosen
