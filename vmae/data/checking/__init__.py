"""Find unusable videos in a set, and re-encode a set so that decord reads it exactly."""

from vmae.data.checking.normalize import normalize_set
from vmae.data.checking.scan import Report, scan_set, summary, write_json
from vmae.data.checking.table import class_table
