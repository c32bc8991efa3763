"""Clips cut from one recording, by their names: they look alike, so they belong in one split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from vmae.data.sets.videos import Video

#: UCF101's names, v_Class_g01_c02.avi: all clips of a group are of one person in one place.
_UCF101 = re.compile(r"(.*_g\d+)_c\d+(?!\d)")
#: Other names that end in the number of a clip, after that of a recording: match12_003.mp4.
_NUMBERED = re.compile(r"(.*\d.*?)[ _-]+(?:clip|part|seg|shot|scene|c|p|s)?[ _-]*\d{1,4}", re.I)


def ucf101_group(path: Path) -> str | None:
    """The group in a name of UCF101, such as "v_Class_g01"; None for other names."""
    match = _UCF101.match(path.name)
    return match[1] if match else None


def look_alike(train: Sequence[Video], test: Sequence[Video]) -> list[Video]:
    """The test videos that seem to be cut from the recordings of training videos.

    Names count only if more than half of them are numbered in this way, and if some class has several
    recordings: otherwise the first number may be that of a class.
    """
    recordings = {}
    by_class = defaultdict(set)
    for video in (*train, *test):
        match = _NUMBERED.fullmatch(video.path.name.split(".")[0])
        if name := ucf101_group(video.path) or (match and match[1]):
            recordings[video] = name
            by_class[video.label].add(name)
    several = any(len(names) > 1 for names in by_class.values())
    if not several or 2 * len(recordings) <= len(train) + len(test):
        return []
    trained = {recordings.get(video) for video in train} - {None}
    return [video for video in test if recordings.get(video) in trained]
