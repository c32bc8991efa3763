"""What is wrong with a set of videos, and the same set re-encoded."""

from vmae.data.checking.normalize import normalize_set
from vmae.data.checking.scan import Report, scan_set, summary, write_json

__all__ = [
    "Report",
    "normalize_set",
    "scan_set",
    "summary",
    "write_json",
]
