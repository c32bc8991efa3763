"""Which videos, with which labels: class folders, lists, and the public sets as they are published."""

from vmae.data.sets.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vmae.data.sets.load import load_set, require_labels
from vmae.data.sets.videos import SetError, Video, VideoSet

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "SetError",
    "Video",
    "VideoSet",
    "load_set",
    "require_labels",
]
