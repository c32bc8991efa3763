"""Clips cut from one recording, by their names: they look alike, so they belong in one split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from vmae.data.sets.videos import Video

#: UCF101's names, v_Class_g01_c02.avi: all clips of a group are of one person in one place.
_UCF101 = re.compile(r"(.*_g\d+)_c\d+(?!\d)")
#: Kinetics' names, ID_000010_000020.mp4: seconds of one recording, which other versions cut elsewhere.
_KINETICS = re.compile(r"(.+)_\d{6}_\d{6}")
#: Other names that end in the number of a clip, after that of a recording: match12_003.mp4.
_NUMBERED = re.compile(r"(.*\d.*?)[ _-]+(?:clip|part|seg|shot|scene|c|p|s)?[ _-]*\d{1,4}", re.I)


def ucf101_group(path: Path) -> str | None:
    """The group in a name of UCF101, such as "v_Class_g01"; None for other names."""
    match = _UCF101.match(path.name)
    return match[1] if match else None


def recordings(videos: Sequence[Video]) -> dict[Video, str]:
    """The recording that each video seems to be cut from, by its name; empty if the names show none.

    Names count only if more than half of them are numbered in this way, and if some class has several
    recordings: otherwise the first number may be that of a class.
    """
    found = {}
    by_class = defaultdict(set)
    for video in videos:
        stem = video.path.name.split(".")[0]
        match = _KINETICS.fullmatch(stem) or _NUMBERED.fullmatch(stem)
        if name := ucf101_group(video.path) or (match and match[1]):
            found[video] = name
            by_class[video.label].add(name)
    several = any(len(names) > 1 for names in by_class.values())
    return found if several and 2 * len(found) > len(videos) else {}


def look_alike(train: Sequence[Video], test: Sequence[Video]) -> list[Video]:
    """The test videos that seem to be cut from the recordings of training videos.

    None of Something-Something's, whose names are plain numbers: `vmae scan` compares their frames.
    """
    found = recordings((*train, *test))
    trained = {found.get(video) for video in train} - {None}
    return [video for video in test if found.get(video) in trained]
