"""Sphinx's settings for the site of the course; make_site.py lays out what it reads."""

from __future__ import annotations

import sys
from pathlib import Path

SITE = Path(__file__).resolve().parent
sys.path[:0] = [str(SITE), str(SITE.parent), str(SITE.parents[1])]

from lesson import address

import vmae

project = "Video masked autoencoders, by building them"
author = "The vmae course authors"
copyright = f"2026, {author}. Code: MIT. Media: see the licences"
release = version = vmae.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "page_fixes"]
exclude_patterns = ["notebooks/*"]  # for download; only executed lessons are pages

nb_execution_mode = "off"
nb_output_stderr = "remove"  # progress bars
nb_merge_streams = True
nb_render_markdown_format = "myst"  # of outputs, whose links then lead to pages
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]

autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
default_role = "literal"  # `name` in docstrings
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = "Video masked autoencoders"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the system; a button changes it
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the search of the sidebar is enough
    "show_toc_level": 2,
    "home_page_in_toc": True,
    **({"repository_url": address(), "use_repository_button": True} if address() else {}),
}
