"""The table of a scan: a row for each class."""

from __future__ import annotations

from collections.abc import Sequence

from vmae.data.checking.scan import Report
from vmae.support.text import aligned

#: Classes in the table.
MOST = 50


def class_table(reports: Sequence[Report]) -> str:
    """Classes with the number of videos in each split, their seconds, sizes and frames per second."""
    files = [report for report in reports if report.splits]
    classes = list(dict.fromkeys(report.label for report in files))
    splits = [s for s in ("train", "val", "test") if any(s in report.splits for report in files)]
    rows = [["class", *splits, "seconds", "sizes", "fps"]]
    for label in classes[:MOST]:
        own = [report for report in files if report.label == label]
        counts = [str(sum(split in report.splits for report in own)) for split in splits]
        seconds = _range([r.seconds for r in own], "{:.1f}")
        sizes = sorted(
            {(r.width * r.height, r.width, r.height) for r in own if r.width and r.height}
        )
        size = _ends([f"{width}x{height}" for _, width, height in sizes])
        rows.append([label, *counts, seconds, size, _range([r.rate for r in own], "{:.4g}")])
    lines = aligned(rows)
    if len(classes) > MOST:
        lines.append(f"and {len(classes) - MOST} more classes (--json FILE lists all files)")
    return "\n".join(lines)


def _range(values: Sequence[float | None], form: str) -> str:
    """The smallest and the largest of the known values."""
    return _ends([form.format(value) for value in sorted(x for x in values if x is not None)])


def _ends(texts: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys([*texts[:1], *texts[-1:]])) or "-"
