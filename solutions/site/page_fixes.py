"""A small Sphinx extension: figures of notebooks keep their alt text, and docstrings are read as written."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx

_render_image = NbElementRenderer.render_image


def render_image(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
    """An output as an image with the alt text of its metadata; without, Sphinx writes the file's name."""
    made = _render_image(self, data)
    alt = data.output_metadata.get(data.mime_type, {}).get("alt")
    for node in made:
        if alt and isinstance(node, nodes.image):
            node["alt"] = alt
    return made


#: A line of a docstring's list of arguments: the name, two spaces at least, the text.
ARGUMENT = re.compile(r"(?!>>>|\.\.\.)(\S+(?: \S+)*?) {2,}(\S.*)")


def lists_of_arguments(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Turn the columns of names and texts in a docstring into definition lists of reStructuredText."""
    made: list[str] = []
    inside = example = False
    for line in lines:
        example = line.startswith(">>>") or (example and bool(line))
        found = None if example else ARGUMENT.fullmatch(line)
        if found:
            made += ["", f"``{found[1]}``", f"    {found[2]}"]
        elif inside and line.startswith("  "):
            made.append(f"    {line.strip()}")
        else:
            made += [""] * inside + [line]
        inside = bool(found) or (inside and line.startswith("  "))
    lines[:] = made


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", lists_of_arguments)
    NbElementRenderer.render_image = render_image
    return {"parallel_read_safe": True, "parallel_write_safe": True}
