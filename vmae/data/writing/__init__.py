"""Writing video files, and folders that hold a set of them."""

from vmae.data.writing.encode import write_video
