"""The videos of a set and their labels: class folders, lists, and public sets as published."""

from vmae.data.sets.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vmae.data.sets.load import load_set, require_labels
from vmae.data.sets.motion_specs import SIZES, MotionSpec, set_name, spec_named, with_sizes
from vmae.data.sets.subsets import few_labels
from vmae.data.sets.videos import SetError, Video, VideoSet
