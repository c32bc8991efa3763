"""Sets without lists, whose folders are the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from vmae.data.sets.finding import walk
from vmae.data.sets.formats import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vmae.data.sets.groups import ucf101_group
from vmae.data.sets.videos import SetError, Video, VideoSet
from vmae.support.files import printable
from vmae.support.text import few

#: Names of folders that hold a split, in lower case.
_SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
#: Folders of the class folders: of BD Sports-10, beside Annotation/, and of UCF101.
_INNER = ("Dataset", "UCF-101", "UCF101")


def from_folders(folder: Path, foreign: bool) -> VideoSet:
    """The set in train/CLASS/ and test/CLASS/, in CLASS/, or unlabelled in the folder itself.

    Raises SetError if a split is missing, or if there are other folders of videos beside the splits.
    """
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
    splits: dict[str, Path] = {}
    others = []
    for path in folders:
        name = _SPLITS.get(path.name.lower())
        if name is None:
            others.append(path)
        elif name in splits:
            raise SetError(
                f"{folder} contains {splits[name].name} and {path.name}: keep one of them"
            )
        else:
            splits[name] = path
    if not splits:
        return _from_classes(folder, foreign)
    named = ", ".join(path.name for path in splits.values())
    suffixes = VIDEO_SUFFIXES + FOREIGN_SUFFIXES
    beside = [p for p in others if any(file.suffix.lower() in suffixes for file in walk(p))]
    if beside:
        raise SetError(
            f"{folder} contains {named} beside other folders of videos, "
            f"{few([printable(path.name) for path in beside])}: if these are classes, move them into "
            f"a train folder; if {named} is a class, rename it"
        )
    for name, words in (("train", "train"), ("test", "test or val")):
        if name not in splits and not (name == "test" and "val" in splits):
            raise SetError(
                f"{folder} contains a {named} folder, but no {words} folder: add a {name} folder, or "
                f"pass the {named} folder itself"
            )
    return _from_splits(folder, splits, foreign)


def _from_splits(folder: Path, splits: dict[str, Path], foreign: bool) -> VideoSet:
    """The set in a folder for each split; without a test folder, the val folder is used for testing."""
    if "test" not in splits:
        splits["test"] = splits.pop("val")
    passed = list(_beside(folder, splits.values()))
    by_split = {n: _class_folders(place, foreign, passed) for n, place in splits.items()}
    classes = tuple(by_split["train"])
    for name, found in by_split.items():
        unknown = sorted(set(found) - set(classes))
        if unknown and classes:
            raise SetError(
                f"{splits[name]}: classes {few(unknown)} are not in {splits['train']}: add training "
                f"videos for these classes, or remove the classes from {splits[name].name}"
            )
    if not classes:
        flat = _unlabelled(splits["train"], foreign)
        passed = [*flat.passed_over, *_beside(folder, [splits["train"]])]
        return replace(flat, folder=folder, passed_over=tuple(passed))
    videos = {
        name: tuple(Video(path, classes.index(c)) for c, paths in found.items() for path in paths)
        for name, found in by_split.items()
    }
    val = videos.get("val", ())
    return VideoSet(
        folder, classes, videos["train"], videos["test"], val=val, passed_over=tuple(passed)
    )


def _from_classes(folder: Path, foreign: bool) -> VideoSet:
    """The set in CLASS/; every fifth video of a class is for testing, or every fifth recording.

    A recording is a group of UCF101, or a sub-folder of a class whose videos are all in sub-folders.
    """
    inner = next((folder / name for name in _INNER if (folder / name).is_dir()), folder)
    passed = list(_beside(folder, [inner])) if inner != folder else []
    by_class = _class_folders(inner, foreign, passed)
    if not by_class:
        return _unlabelled(folder, foreign)
    train: list[Video] = []
    test: list[Video] = []
    nested: list[Path] = []
    for label, paths in enumerate(by_class.values()):
        nested += _nested(inner, paths)
        group_of = _recordings(inner, paths)
        # Formats that only scan and normalize take do not count, so that they and training agree.
        usual = [path for path in paths if path.suffix.lower() not in FOREIGN_SUFFIXES]
        groups = [*dict.fromkeys(group_of[path] for path in usual or paths)]
        if None in groups:
            tested = set(usual[4::5] or paths[4::5])
        else:
            last = set(groups[4::5] or groups[1:][-1:])
            tested = {path for path in paths if group_of[path] in last}
        for path in paths:
            (test if path in tested else train).append(Video(path, label))
    return VideoSet(
        folder,
        tuple(by_class),
        tuple(train),
        tuple(test),
        passed_over=tuple(passed),
        nested=tuple(nested),
    )


def _beside(folder: Path, used: Collection[Path]) -> Iterator[Path]:
    """Every file of a set outside the folders that are used, but for hidden ones."""
    for path in sorted(folder.iterdir()):
        if path not in used and path.name[0] != ".":
            yield from walk(path) if path.is_dir() else [path]


def _recordings(folder: Path, videos: list[Path]) -> dict[Path, str | None]:
    """The recording of each video of a class: its sub-folder if all are in several, else UCF101's group."""
    places = {path: path.relative_to(folder).parts for path in videos}
    if all(len(place) > 2 for place in places.values()):  # CLASS/RECORDING/VIDEO
        found = {path: place[1] for path, place in places.items()}
        if len(set(found.values())) > 1:
            return dict(found)
    return {path: ucf101_group(path) for path in videos}


def _nested(folder: Path, videos: list[Path]) -> list[Path]:
    """The sub-folders of a class if they could be classes, in a folder passed one level too high.

    They could if they hold all its videos, and at least two of them more than one.
    """
    places = [path.relative_to(folder).parts for path in videos]
    if any(len(place) < 3 for place in places):  # CLASS/VIDEO
        return []
    counts = Counter(folder.joinpath(*place[:2]) for place in places)
    return list(counts) if sum(count > 1 for count in counts.values()) > 1 else []


def _unlabelled(folder: Path, foreign: bool) -> VideoSet:
    """The videos in a folder without class folders, for pre-training."""
    suffixes = VIDEO_SUFFIXES + FOREIGN_SUFFIXES * foreign
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    videos = [path for path in files if path.suffix.lower() in suffixes]
    if not videos:
        raise SetError(
            f"{folder}: found no class folders with videos ({', '.join(VIDEO_SUFFIXES)}): use "
            "either one sub-folder per class, or train.csv, test.csv and classes.txt. For "
            "pre-training, put the videos into the folder itself, or pass a list file with a row "
            "`video 0 -1` for each"
        )
    passed = tuple(path for path in files if path not in videos)
    return VideoSet(folder, (), tuple(Video(path, -1) for path in videos), (), passed_over=passed)


def _class_folders(folder: Path, foreign: bool, passed: list[Path]) -> dict[str, list[Path]]:
    """The sub-folders that contain videos, by name, each with its videos in order.

    If a sub-folder has no video files, its own sub-folders of images are its videos.

    foreign   take also videos that decord does not read exactly
    passed    receives every other file, except those whose name begins with a dot

    Raises SetError for a name of a class that its list could not hold.
    """
    suffixes = VIDEO_SUFFIXES + FOREIGN_SUFFIXES * foreign
    found = {}
    for sub in sorted(path for path in folder.iterdir() if path.name[0] != "."):
        if not sub.is_dir():
            passed.append(sub)
            continue
        files = sorted(walk(sub))
        videos = used = [path for path in files if path.suffix.lower() in suffixes]
        if not videos:
            used = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES and p.parent != sub]
            videos = sorted({path.parent for path in used})
        if videos:
            name = printable(sub.name)
            if name.splitlines() != [name]:
                raise SetError(
                    f"{folder}: the folder {name!r} has a line break in its name, and a list of classes "
                    "has one line for each: rename the folder"
                )
            found[name] = videos
        passed += sorted(set(files) - set(used))
    return found
