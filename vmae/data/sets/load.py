"""Loading a set: its classes, and its videos for training and testing with their labels.

`load_set` recognises these layouts, in this order:

- a list file   given directly instead of a folder: a pre-training list, every video unlabelled (-1)
- public sets   UCF101, HMDB51, Something-Something V2, Kinetics, as published: see public_sets.py
- lists         train.csv and test.csv (or val.csv, or both), in the format of VideoMAE V1 and V2, and
                classes.txt (one name per line); without it, classes are named by their numbers
- split         train/CLASS/*.mp4 and test/CLASS/*.mp4 (or val/, validation/, or both)
- classes       CLASS/*.mp4; every fifth video of a class is used for testing, and of names like
                UCF101's, or of sub-folders, every fifth group
- unlabelled    *.mp4, for pre-training

A missing video is not an error here; it is reported when it is read.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vmae import at_root
from vmae.data.sets.folders import from_folders
from vmae.data.sets.formats import FOREIGN_SUFFIXES, VIDEO_SUFFIXES
from vmae.data.sets.groups import look_alike
from vmae.data.sets.lists import from_lists, from_pretraining_list
from vmae.data.sets.motion_specs import spec_named
from vmae.data.sets.public_sets import load_public
from vmae.data.sets.videos import SetError, Video, VideoSet
from vmae.support.files import printable
from vmae.support.near import not_found
from vmae.support.text import few

#: The set in the recipes for one's own videos, which nobody has to have.
PLACEHOLDER = "my-videos"
#: Names that `vmae render film` gives its sets.
_FILM = re.compile(r"film(-speed)?(-\d+)?")


def load_set(
    folder: str | Path,
    split: int | None = None,
    root: str | Path | None = None,
    foreign: bool = False,
) -> VideoSet:
    """Load a set in any of the layouts above.

    folder    a folder or a list; a relative path that is not in the working folder is one in `vmae.ROOT`
    split     for UCF101 and HMDB51, which have three splits: 1 (the default), 2 or 3
    root      the folder of the videos, if they are not beside the lists
    foreign   take from class folders also videos that decord does not read exactly, such as .mts:
              `vmae scan` reports them, and `vmae normalize` converts them. Both list the files
              that are not part of the set, so there is no warning about those

    Raises SetError if there is no set, if lines are invalid (all are listed), or if a class occurs
    only in the test list. Warns about videos in both train and test, also if they only seem to be cut
    from the same recordings, about classes without videos, about recordings that could be classes,
    and about files in class folders that are not part of the set. The videos themselves are not opened.
    """
    given, folder = folder, at_root(folder)
    require_no_video(folder)
    if folder.is_file():
        return from_pretraining_list(folder, root)
    if not folder.is_dir():
        name = folder.name
        what = "motion" if spec_named(name) else "film" if _FILM.fullmatch(name) else None
        way = f"Run `vmae render {what}` to create it" if what else "Correct the path"
        raise SetError(f"{not_found(given, 'folder or list file')}. {way}")
    if (folder / "set.partial.json").exists():
        raise SetError(
            f"{folder}: this dataset is incomplete because its creation was interrupted: to finish "
            "it, run the same `vmae render` or `vmae normalize` command again"
        )
    found = load_public(folder, split, Path(root) if root is not None else None)
    if found is None:
        several = (folder / "train2.csv").exists()  # UCF101 or HMDB51, normalised
        if split is not None and not several:
            raise SetError(f"{folder}: split={split} applies only to UCF101 and HMDB51; omit split")
        if (folder / "train.csv").exists():
            found = from_lists(folder, root, str(split) if split and split > 1 else "")
        elif root is not None:
            raise SetError(
                f"{folder}: root={str(root)!r} applies only to list files, but the folder has no "
                "train.csv; omit root"
            )
        else:
            found = from_folders(folder, foreign)
    _check(found)
    for text in _doubts(found, foreign):
        warnings.warn(f"{found.folder}: {text}", stacklevel=2)
    return found


def require_no_video(path: Path) -> None:
    """Raise SetError if the path of a set is that of a single video."""
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES + FOREIGN_SUFFIXES:
        raise SetError(f"{printable(path)} is one video: pass its folder, or a list file")


def require_chosen(path: str) -> None:
    """Raise SetError if the set of a configuration is still a recipe's placeholder, and not there."""
    if path == PLACEHOLDER and not at_root(path).exists():
        raise SetError(
            f"{not_found(path, 'folder or list file')}. {PLACEHOLDER} is the recipe's placeholder: "
            "pass `--set data.path=FOLDER`"
        )


def require_labels(videos: VideoSet) -> VideoSet:
    """The set itself if it can be used to train and test a classifier; otherwise raises SetError.

    That takes labels, two classes and test videos. Pre-training needs none of these.
    """
    missing = sum(video.label < 0 for video in videos.train + videos.test)
    if missing or not videos.classes:
        raise SetError(
            f"{videos.folder}: {missing} videos have no label (-1) and {len(videos.test)} are "
            "test videos: this set can be used only for pre-training. To fine-tune, "
            "pass a folder with train.csv, test.csv and classes.txt, or with one sub-folder per "
            "class"
        )
    if len(videos.classes) < 2:
        raise SetError(
            f"{videos.folder}: a classifier needs at least 2 classes, but the dataset has "
            f"{len(videos.classes)} ({few(videos.classes)}): use one sub-folder per class, or "
            "train.csv, test.csv and classes.txt"
        )
    if not videos.test:
        raise SetError(
            f"{videos.folder}: every class has fewer than 5 videos, so no test split "
            "can be made: add more videos"
        )
    return videos


def labelled(videos: VideoSet, split: str, classes: Sequence[str]) -> tuple[Video, ...]:
    """The videos of a split, or of "all", with the labels that a classifier of `classes` gives them.

    The set may lack some of the classes. Raises SetError if it has no labels, other classes, or no
    videos in the split.
    """
    parts = videos.splits.values() if split == "all" else [videos.split(split)]
    chosen = dict.fromkeys(video for part in parts for video in part)
    if not chosen:
        raise SetError(
            f"{videos.folder} has no {split} videos: choose from {', '.join(videos.splits)} or all"
        )
    if missing := sum(video.label < 0 for video in chosen):
        raise SetError(
            f"{videos.folder}: {missing} of {len(chosen)} videos have no label, so there is nothing to "
            "compare predictions with: pass a folder with one sub-folder per class, or a labelled "
            "list. `vmae predict` gives the classes of videos without labels"
        )
    names = [videos.classes[label] for label in sorted({video.label for video in chosen})]
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise SetError(
            f"{videos.folder} has the classes {few(unknown)}, but the model was trained on "
            f"{few(classes)}: remove them, or give them the model's names"
        )
    return tuple(replace(v, label=classes.index(videos.classes[v.label])) for v in chosen)


def _check(videos: VideoSet) -> None:
    """Raise SetError for a set without training videos, or for a class that only the test split has."""
    if not videos.train:
        raise SetError(f"{videos.folder}: the dataset has no training videos: add some")
    unseen = {v.label for v in (*videos.val, *videos.test)} - {v.label for v in videos.train}
    if unseen:
        names = few([videos.classes[label] for label in sorted(unseen)])
        raise SetError(
            f"{videos.folder}: classes {names} appear only in the test list: add training videos for "
            "these classes, or remove the classes from the test list"
        )


def _doubts(videos: VideoSet, foreign: bool) -> Iterator[str]:
    """What is likely to be wrong with a set that can be used all the same."""
    used = {video.label for video in videos.train}
    empty = [name for label, name in enumerate(videos.classes) if label not in used]
    if empty:
        first = (
            "" if 0 in used else ". Labels start at 0: if yours start at 1, subtract 1 from each"
        )
        yield f"{len(empty)} of {len(videos.classes)} classes have no videos: {few(empty)}{first}"
    trained = {(str(video.path), video.first) for video in videos.train}
    held_out = (*videos.val, *videos.test)
    leaked = [str(v.path) for v in held_out if (str(v.path), v.first) in trained]
    if leaked:
        yield (
            f"train and test share {len(leaked)} video{'s' * (len(leaked) != 1)}, so test results will "
            f"be too optimistic: {few(leaked)}"
        )
    labels: dict[tuple[str, int], set[int]] = {}
    for video in (*videos.train, *held_out):
        labels.setdefault((str(video.path), video.first), set()).add(video.label)
    if torn := [printable(path) for (path, _), each in labels.items() if len(each) > 1]:
        yield (
            f"{len(torn)} video{'s have' if len(torn) > 1 else ' has'} several labels: {few(torn)}. "
            "Keep one row for each"
        )
    if alike := look_alike(videos.train, videos.test):
        yield (
            f"by their names, {len(alike)} of {len(videos.test)} test videos are cut from the same "
            "recordings as training videos, so test results will be too optimistic: "
            f"{few([printable(video.path.name) for video in alike])}. Put all clips of a recording "
            "into one split, in train/CLASS and test/CLASS, or train.csv and test.csv"
        )
    if nested := videos.nested_by_class:
        outer, *others = nested
        same = few([printable(other.name) for other in others])
        yield (
            f"{printable(outer.name)!r} holds videos only in sub-folders ({few(nested[outer])}): they "
            f"count as recordings of one class; if they are the classes, pass {printable(outer)}"
            f"{f'. The same holds for {same}' * bool(others)}"
        )
    if (paths := videos.passed_over) and not foreign:
        counts = Counter(path.suffix or "without suffix" for path in paths)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(10))
        names = few([printable(path.relative_to(videos.folder)) for path in paths])
        yield (
            f"files that are not part of the set: {len(paths)} ({kinds}): {names}. "
            "`vmae scan` lists them all; `vmae normalize` converts formats such as .mts"
        )
