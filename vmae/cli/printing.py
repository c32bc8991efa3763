"""Reports as JSON on the console: few decimals, and letters as they are where it has them."""

from __future__ import annotations

import json
import sys
from typing import Any


def rounded(value: Any, decimals: int = 2) -> Any:
    """The same with all floating-point numbers in it rounded."""
    if isinstance(value, dict):
        return {name: rounded(one, decimals) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one, decimals) for one in value]
    return round(value, decimals) if isinstance(value, float) else value


def as_json(report: dict[str, Any]) -> str:
    """A report as indented JSON; if the console lacks one of its letters, with those escaped."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(report, indent=1)
    return text
