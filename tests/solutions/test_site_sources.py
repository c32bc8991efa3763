"""What the site is made from, without Sphinx: the modules of the API pages, and links to the README's sections."""

from __future__ import annotations

import importlib
import re
import runpy
import sys

import pytest
from badges import in_readme

from vmae import ROOT

SITE = ROOT / "solutions" / "site"


def test_the_pages_of_the_api_name_modules_that_exist():
    reference = runpy.run_path(str(SITE / "reference.py"))
    for _, modules in reference["API"].values():
        for name in modules:
            importlib.import_module(name)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](README.md#your-own-videos)", "[a](/your-own-videos.md)"),
        ("[a](../README.md#your-own-videos)", "[a](/your-own-videos.md)"),
        ("[a](#your-own-videos)", "[a](/your-own-videos.md)"),
        ("[a](#the-lessons)", "[a](#the-lessons)"),
        ("[a](data/README.md)", "[a](data/README.md)"),
    ],
)
def test_links_to_sections_of_the_readme_lead_to_their_pages(link, expected, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SITE), *sys.path])
    make_site = runpy.run_path(str(SITE / "make_site.py"))
    _, sections = make_site["split_readme"]((ROOT / "README.md").read_text(encoding="utf-8"))
    assert make_site["to_sections"](link, sections) == expected


def test_every_link_to_a_section_of_the_readme_names_one():
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    slugs = {re.sub(r"\W+", "-", heading.lower()).strip("-") for heading in headings}
    folders = (ROOT / name for name in ("vmae", "data", "tests/bench"))
    for path in [*ROOT.glob("*.md"), *(page for top in folders for page in top.rglob("*.md"))]:
        prefix = (
            r"" if path.name == "README.md" and path.parent == ROOT else r"(?:\.\./)*README\.md"
        )
        for name in re.findall(rf"\]\({prefix}#([\w-]+)\)", path.read_text(encoding="utf-8")):
            assert name in slugs, f"{path.relative_to(ROOT)}: README.md has no section {name}"


def test_badges_become_links_in_words(monkeypatch):
    """Once the public address is filled in; a picture of theirs would be fetched from another server."""
    monkeypatch.setattr(sys, "path", [str(SITE), *sys.path])
    linked = runpy.run_path(str(SITE / "make_site.py"))["linked"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = linked(in_readme(readme, "https://github.com/ada/course"), [])
    place = "github.com/ada/course/blob/main/notebooks/00_start_here.ipynb"
    assert f"[Kaggle](https://kaggle.com/kernels/welcome?src=https://{place}) |" in page
    assert page.count("| [Colab](https://colab.research.google.com/github/ada/course/") == 11
    assert "](https://colab.research.google.com/assets" not in page


def test_no_page_is_in_a_hidden_folder(tmp_path, monkeypatch):
    """The action that uploads the site leaves out .github, and of late all names with a dot."""
    monkeypatch.setattr(sys, "path", [str(SITE), *sys.path])
    runpy.run_path(str(SITE / "make_site.py"))["lay_out"](tmp_path, ["00"])
    pages = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.md")]
    assert {"SECURITY.md", "CODE_OF_CONDUCT.md"} <= {page.as_posix() for page in pages}
    assert not [page for page in pages if any(part.startswith(".") for part in page.parts)]
