"""The course as a site: `make site`, or `python solutions/site/make_site.py [FOLDER] [--only 02 ...]`.

Executed lessons, diagrams, the pages of the guide and the API become static HTML in FOLDER/html, by
default runs/site/html. Nothing is executed: lessons are shown with their committed outputs.

Sphinx reads a copy of the documents, laid out as in the checkout, so that relative links hold: one to a
document leads to its page, one to any other file, such as a learner's notebook, downloads it. README.md
gives the front page and, after the table of lessons, a page per section. Every warning of Sphinx is an
error, and so is a link inside the site that leads nowhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]
sys.path.insert(0, str(SITE.parent))  # the builder's modules

from build import sources
from lesson import lesson_code
from links import broken_links
from reference import diagrams_page, reference_pages

#: What is copied: documents, and the files that these show or link to.
COPIED = (
    "*.md", "LICENSE", "data/**/*.md", "data/**/*.svg", "data/**/*.png", "data/**/*.webp", "solutions/pictures/*",
    "notebooks/*.ipynb", "vmae/**/*.md", "tests/bench/*.md", "vmae/train/recipes/*.yaml", ".github/*.md",
)  # fmt: skip
#: Left out of a lesson's page: what only a kernel can show.
LIVE = "application/vnd.jupyter.widget-view+json"
#: The pages beside the README's sections, by the heading of the sidebar that they stand under.
GUIDE = (
    "vmae/OWN_VIDEOS", "vmae/README", "data/README", "vmae/train/README", "vmae/train/recipes/README",
    "data/experiments/README", "tests/bench/README", "vmae/TROUBLESHOOTING",
)  # fmt: skip
PROJECT = (
    "TEACHING",
    "CONTRIBUTING",
    "CHANGELOG",
    "data/LICENCES",
    "SECURITY",
    "CODE_OF_CONDUCT",
)


def toctree(caption: str, pages: list[str]) -> str:
    """An entry of the sidebar, in MyST."""
    body = "\n".join(pages)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{body}\n```\n"


def split_readme(text: str) -> tuple[str, dict[str, str]]:
    """The front page, and the other sections of the README by the names of their pages."""
    head, *sections = re.split(r"^(?=## )", text, flags=re.M)
    last = next(i for i, section in enumerate(sections) if "(solutions/00_" in section)
    pages = {}
    for section in sections[last + 1 :]:
        title, _, body = section.partition("\n")
        name = re.sub(r"\W+", "-", title.lower()).strip("-")
        pages[name] = f"# {title[3:]}\n" + re.sub(r"^##(#+ )", r"#\1", body, flags=re.M)
    return head + "".join(sections[: last + 1]), pages


def to_sections(text: str, sections: Iterable[str]) -> str:
    """A document whose links to sections of the README lead to the pages that these have become."""
    names = "|".join(map(re.escape, sections))
    return re.sub(rf"\]\((?:(?:\.\./)*README\.md)?#({names})\)", r"](/\1.md)", text)


def linked(text: str, absent: list[str]) -> str:
    """A document whose links to learners' notebooks download, and those to absent lessons are plain text.

    Badges become links in words: their pictures lie on other servers, which no page of the site asks.
    """
    text = re.sub(r"\[!\[Open in (\w+)\]\([^)]*\)\]", r"[\1]", text)
    text = re.sub(r"\[([^]]+)\]\(((?:\.\./)*notebooks/\w+\.ipynb)\)", r"{download}`\1 <\2>`", text)
    names = "|".join(absent) or "none"
    return re.sub(rf"\[([^]]+)\]\((?:[^)]*/)?(?:{names})\.ipynb\)", r"\1", text)


def lesson_page(path: Path, absent: list[str]) -> nbformat.NotebookNode:
    """An executed lesson without its first cell, the guard, marks of tests, and what needs a kernel."""
    notebook = nbformat.read(path, as_version=4)
    code = lesson_code(notebook)
    notebook.cells = [
        c for c in notebook.cells if c.cell_type != "code" or any(c is x for x in code)
    ]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, absent)
    for cell in code:
        cell.source = cell.source.removeprefix("# NBVAL_CHECK_OUTPUT\n")
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(LIVE, None)
            if "text/markdown" in data:
                data["text/markdown"] = linked(data["text/markdown"], absent)
    return notebook


def lay_out(source: Path, only: list[str]) -> None:
    """Write the documents of the site; with `only`, of the lessons these alone, and no API."""
    shutil.rmtree(source, ignore_errors=True)
    for pattern in COPIED:
        for path in ROOT.glob(pattern):
            hidden = path.parent.name == ".github"  # which actions/upload-pages-artifact leaves out
            target = source / (path.name if hidden else path.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    lessons = sorted((ROOT / "solutions").glob("[0-9][0-9]_*.ipynb"))
    shown = [path for path in lessons if not only or path.stem[:2] in only]
    absent = [path.stem for path in lessons if path not in shown]
    for path in shown:
        nbformat.write(lesson_page(path, absent), source / "solutions" / path.name)
    front, sections = split_readme((source / "README.md").read_text(encoding="utf-8"))
    (source / "README.md").unlink()
    pages = {"diagrams": diagrams_page()} | ({} if only else reference_pages())
    trees = {
        "Lessons": [f"solutions/{path.stem}" for path in shown],
        "Guide": [*sections, *GUIDE],
        "Reference": list(pages),
        "The course": list(PROJECT),
    }
    front += "".join(toctree(caption, names) for caption, names in trees.items())
    for name, text in ({"index": front} | sections | pages).items():
        target = source / f"{name}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for path in source.rglob("*.md"):
        text = to_sections(path.read_text(encoding="utf-8"), sections)
        path.write_text(linked(text, absent), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "runs" / "site")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NN", help="of the lessons, these alone"
    )
    arguments = parser.parse_args()
    if importlib.util.find_spec("sphinx_book_theme") is None:
        parser.error("Sphinx is missing: `make site`, or `python -m pip install -e '.[site]'`")
    numbers = [path.stem[:2] for path in sources()]
    if unknown := sorted(set(arguments.only) - set(numbers)):
        parser.error(f"no lesson {', '.join(unknown)}: choose from {', '.join(numbers)}")
    source, html = arguments.folder / "source", arguments.folder / "html"
    lay_out(source, arguments.only)
    for made in (html, arguments.folder / "doctrees"):  # Sphinx does not notice changed docstrings
        shutil.rmtree(made, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--conf-dir", SITE, "--fail-on-warning", "--keep-going", "--quiet",
         "--doctree-dir", arguments.folder / "doctrees", source, html],
    )  # fmt: skip
    if done.returncode:
        return done.returncode
    broken = broken_links(html)
    print("\n".join(broken) or html / "index.html")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
