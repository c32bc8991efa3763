"""The site: alt text, links, search and both colour schemes; skipped where Sphinx is not installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import nbformat
import pytest

from vmae import ROOT

pytest.importorskip("sphinx")
pytest.importorskip("myst_nb")
pytest.importorskip("sphinx_book_theme")

SITE = ROOT / "solutions" / "site"


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """A site of lessons 00 and 05, without the API; every warning of Sphinx is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, SITE / "make_site.py", folder, "--only", "00", "05"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def images(page: str) -> list[dict[str, str]]:
    tags = re.findall(r"<img\b[^>]*>", page.split("<article")[1].split("</article>")[0])
    return [{k: unescape(v) for k, v in re.findall(r'([\w-]+)="([^"]*)"', tag)} for tag in tags]


@pytest.mark.slow
def test_figures_keep_their_alt_text(html):
    page = (html / "solutions" / "05_masking_video.html").read_text(encoding="utf-8")
    outputs = [
        output
        for cell in nbformat.read(ROOT / "solutions" / "05_masking_video.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    expected = [output.metadata["image/png"]["alt"] for output in outputs]
    found = [image["alt"] for image in images(page) if image["src"].endswith(".png")]
    assert found == expected and len(found) > 3
    assert all(len(image["alt"]) > 20 for image in images(page)), "of diagrams too"


@pytest.mark.slow
def test_every_picture_of_the_site_has_alt_text_and_no_page_needs_another_server(html):
    for path in html.rglob("*.html"):
        if "_static" not in path.parts and "<article" in (page := path.read_text(encoding="utf-8")):
            assert all(image.get("alt") for image in images(page)), path.name
            needed = re.findall(r'<(?:script|img|iframe)\b[^>]*src="(https?://[^"]+)"', page)
            assert not needed + re.findall(
                r'<link\b[^>]*"stylesheet"[^>]*href="(https?://[^"]+)"', page
            )


@pytest.mark.slow
def test_search_knows_the_lesson_and_the_page_has_both_colour_schemes(html):
    index = (html / "searchindex.js").read_text(encoding="utf-8")
    names = json.loads(index[index.index("(") + 1 : index.rindex(")")])["docnames"]
    assert {"index", "solutions/00_start_here", "diagrams", "data/README"} <= set(names)
    page = (html / "index.html").read_text(encoding="utf-8")
    assert "theme-switch-button" in page and "search-button" in page


@pytest.mark.slow
def test_a_lesson_is_shown_without_what_only_a_kernel_or_a_test_needs(html):
    page = (html / "solutions" / "00_start_here.html").read_text(encoding="utf-8")
    assert "This kernel has no vmae" not in page and "NBVAL" not in page
    assert "widget-view" not in page and "require.js" not in page


def test_a_link_that_leads_nowhere_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SITE)
    from links import broken_links

    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">1</a> <a href="https://x.org/">2</a><img src="c%20d.png">'
    )
    (tmp_path / "b.html").write_text(
        '<p id="there"><a href="#here">3</a><a href="e.html">4</a></p>'
    )
    (tmp_path / "c d.png").touch()
    found = broken_links(tmp_path)
    assert [line.split(" leads")[0] for line in found] == ["b.html: #here", "b.html: e.html"]
