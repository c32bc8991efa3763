"""Which videos, with which labels: a set's class list and its train and test lists.

`load_set` tells the layout from what lies in the folder, in this order:

- a list file   given itself, not its folder: a pre-training list, every video unlabelled (-1)
- public sets   UCF101, HMDB51, Something-Something V2, Kinetics, as published: see public.py
- lists         train.csv and test.csv (or val.csv), as VideoMAE V1 and V2 write them, and
                classes.txt (one name a line); without it classes are called by their numbers
- split         train/CLASS/*.mp4 and test/CLASS/*.mp4 (or val/, validation/)
- classes       CLASS/*.mp4; every fifth video of a class is for testing

A video that is not there is no error here: whoever reads it names it.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from vmae.data.sets.folders import from_classes, from_split
from vmae.data.sets.formats import (
    few,
)
from vmae.data.sets.lists import from_lists, from_pretraining_list
from vmae.data.sets.public import load_public
from vmae.data.sets.videos import SetError, VideoSet


def load_set(
    folder: str | Path, split: int | None = None, root: str | Path | None = None
) -> VideoSet:
    """Read a set in any of the layouts above.

    split   of UCF101 and HMDB51, which have three: 1 (the default), 2 or 3
    root    where the videos lie, if not beside the lists

    Raises SetError where there is no set, with every line that is wrong, or where a class is in the
    test list only. Warns of videos that are both in training and in testing. Whether the videos can
    be read is found out when they are read.
    """
    folder = Path(folder)
    if folder.is_file():
        return from_pretraining_list(folder, root)
    if not folder.is_dir():
        raise SetError(
            f"{folder}: there is no such folder or list: `vmae render` makes the sets motion and "
            "film; data/README.md says how sets of other videos are laid out"
        )
    if (folder / "set.partial.json").exists():
        raise SetError(
            f"{folder}: making this set was interrupted; run the same `vmae render` or "
            "`vmae normalize` again"
        )
    found = load_public(folder, split, Path(root) if root is not None else None)
    if found is None:
        if split is not None:
            raise SetError(f"{folder}: split={split} is for UCF101 and HMDB51; leave it out here")
        if (folder / "train.csv").exists():
            found = from_lists(folder, root)
        elif root is not None:
            raise SetError(f"{folder}: root={str(root)!r} is for lists, and there is no train.csv")
        else:
            found = from_split(folder) if (folder / "train").is_dir() else from_classes(folder)
    _check(found)
    return found


def require_labels(videos: VideoSet) -> VideoSet:
    """The set itself, where it can be trained on and tested with labels; else raises SetError.

    It takes two classes and videos to test on: pre-training is content without.
    """
    missing = sum(video.label < 0 for video in videos.train + videos.test)
    if missing or not videos.classes:
        raise SetError(
            f"{videos.folder}: {missing} videos have no label (-1), {len(videos.test)} are for "
            "testing: a pre-training list serves pre-training only; to fine-tune give a folder with "
            "train.csv, test.csv and classes.txt, or with one sub-folder a class"
        )
    if len(videos.classes) < 2:
        raise SetError(
            f"{videos.folder}: the set has {len(videos.classes)} classes ({few(videos.classes)}); "
            "a classifier needs 2 or more: one sub-folder a class, or train.csv, test.csv and "
            "classes.txt"
        )
    if not videos.test:
        raise SetError(
            f"{videos.folder}: no class has 5 videos, so none is left for testing: add videos"
        )
    return videos


def _check(videos: VideoSet) -> None:
    """What no layout may have: a class of testing only (an error), a leak (a warning)."""
    if not videos.train:
        raise SetError(f"{videos.folder}: no video is for training")
    unseen = sorted({v.label for v in videos.test} - {v.label for v in videos.train})
    if unseen:
        raise SetError(
            f"{videos.folder}: classes {few([videos.classes[i] for i in unseen])} are in the test "
            "list only: add training videos of them, or take them out of the test list"
        )
    trained = {(str(video.path), video.first) for video in videos.train}
    leaked = [str(v.path) for v in videos.test if (str(v.path), v.first) in trained]
    if leaked:
        warnings.warn(
            f"{videos.folder}: {len(leaked)} videos are both for training and for testing, so the "
            f"test will look better than it is: {few(leaked)}",
            stacklevel=3,
        )
