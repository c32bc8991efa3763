"""Badges that open a learner's notebook on Colab or Kaggle, once there is a public address on GitHub."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

#: What opens a notebook of a repository on GitHub: name -> picture, and the start of the link.
PLATFORMS = {
    "Colab": (
        "https://colab.research.google.com/assets/colab-badge.svg",
        "https://colab.research.google.com/github/",
    ),
    "Kaggle": (
        "https://kaggle.com/static/images/open-in-kaggle.svg",
        "https://kaggle.com/kernels/welcome?src=https://github.com/",
    ),
}
#: The start of a row of the table: number, learner's notebook, badges if any; then the solution.
ROW = re.compile(
    r"^(\| \d\d \| \[[^]]+\]\((notebooks/\w+\.ipynb)\) \|)(?: \[!.*?\) \|)?(?= \[)", re.M
)
HEAD = re.compile(r"^(\| \| notebook \|)(?: one click \|)?(.*\n)(?:\|---)+\|$", re.M)


def badges(notebook: str, address: str | None) -> list[str]:
    """One badge per platform, in Markdown, for a notebook by its path; none unless the address is on GitHub."""
    parts = urlsplit(address or "")
    if parts.netloc != "github.com":  # neither platform opens notebooks from elsewhere
        return []
    place = f"{parts.path.strip('/').removesuffix('.git')}/blob/main/{notebook}"
    return [
        f"[![Open in {name}]({picture})]({start}{place})"
        for name, (picture, start) in PLATFORMS.items()
    ]


def in_readme(text: str, address: str | None) -> str:
    """The README with the column of badges that the address calls for, or without."""

    def row(found: re.Match[str]) -> str:
        here = badges(found[2], address)
        return found[1] + (f" {' '.join(here)} |" if here else "")

    def head(found: re.Match[str]) -> str:
        line = found[1] + (" one click |" if badges("", address) else "") + found[2]
        return line + "|---" * (line.count("|") - 1) + "|"

    return HEAD.sub(head, ROW.sub(row, text))
