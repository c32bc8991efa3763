"""The public address: stated in pyproject.toml alone; nothing points at one before it is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from urllib.parse import urlsplit

import badges
import build
import lesson
import pytest

from vmae import ROOT

ADDRESS = "https://github.com/ada/course"
#: Where a document leads to this repository: a clone command, a badge, a hosted notebook, a citation.
LEADS = re.compile(
    r"git clone \S+|repository-code: \S+"
    r"|https://(?:img\.shields\.io|colab\.research\.google\.com/(?!assets/)|(?:www\.)?kaggle\.com/kernels|mybinder\.org)\S+"
    r"|https://\S+/badge\.svg\S*"
)
HOSTS = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")


@pytest.fixture(params=[None, ADDRESS], ids=["none yet", "filled in"])
def address(request, tmp_path, monkeypatch) -> str | None:
    """The address that pyproject.toml states: none, as it came, or the commented line put to use."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pyproject = tmp_path / "pyproject.toml"
    line = f'Repository = "{request.param}"' if request.param else '# Repository = "https://..."'
    text, count = re.subn(r"^(# )?Repository = .*$", line, text, flags=re.M)
    assert count == 1
    pyproject.write_text(text, encoding="utf-8")
    monkeypatch.setattr(lesson, "PYPROJECT", pyproject)
    return request.param


@pytest.mark.parametrize("hidden", [False, True])
def test_where_vmae_is_not_installed_the_first_cell_says_what_to_type(address, hidden, tmp_path):
    notebook = lesson.read_source(build.sources()[0])
    first = next(cell for cell in notebook.cells if cell.cell_type == "code").source
    before = "import sys; sys.modules['vmae'] = None\n" if hidden else ""
    done = subprocess.run(
        [sys.executable, "-c", before + first], capture_output=True, text=True, check=False,
        cwd=tmp_path, env={k: v for k, v in os.environ.items() if k not in HOSTS},
    )  # fmt: skip
    assert bool(done.returncode) is hidden
    assert ("python -m pip install -r requirements.txt -e ." in done.stderr) is hidden
    assert "Traceback" not in done.stderr
    clone = f"A checkout comes from: git clone {address}\n"
    assert (clone in done.stderr) is (hidden and address is not None)
    assert ("clone" in done.stderr) is (hidden and address is not None), "no command without one"


def test_another_address_keeps_the_outputs(address):
    path = build.sources()[0]
    solution = build.builds(path)[path.with_suffix(".ipynb")]
    assert solution.metadata["vmae"]["code"] == lesson.code_hash(solution)
    assert any(cell.get("outputs") for cell in solution.cells)


def test_badges_are_under_the_title_of_a_learners_notebook_and_in_the_readme(address):
    path = build.sources()[2]
    built = build.builds(path)
    title = built[build.NOTEBOOKS / "02_mae.ipynb"].cells[0].source
    lines = title.splitlines()
    place = "ada/course/blob/main/notebooks/02_mae.ipynb"
    assert title.count(place) == (2 if address else 0)
    assert all(f"[![Open in {x}](" in lines[2] for x in ("Colab", "Kaggle")) is bool(address)
    assert next(line for line in lines[1:] if line and "Open in" not in line).startswith("A *mask")
    assert "Open in" not in built[path.with_suffix(".ipynb")].cells[0].source

    readme = build.README.read_text(encoding="utf-8")
    filled = badges.in_readme(readme, address)
    rows = re.findall(r"^\| \d\d \| .*notebooks/.*$", filled, re.M)
    assert sum("Open in Colab" in row and "Open in Kaggle" in row for row in rows) == (
        len(build.sources()) if address else 0
    )
    table = filled.split("## The lessons\n\n")[1].split("\n\n")[0].splitlines()
    assert len({line.count(" |") for line in table if "---" not in line}) == 1
    assert table[1].count("|") == table[0].count("|")
    assert badges.in_readme(filled, address) == filled
    assert badges.in_readme(filled, None) == badges.in_readme(readme, None)


def test_there_are_no_badges_for_what_the_platforms_cannot_open():
    for address in (None, "/srv/course", "https://gitlab.com/ada/course"):
        assert badges.badges("notebooks/02_mae.ipynb", address) == []
    (colab, _) = badges.badges("notebooks/02_mae.ipynb", f"{ADDRESS}.git/")
    assert colab.endswith("/github/ada/course/blob/main/notebooks/02_mae.ipynb)")


def strays(text: str, address: str | None) -> list[str]:
    """The leads of a document that do not lead to the address; all of them while there is none."""
    place = urlsplit(address).path.strip("/").removesuffix(".git") if address else None
    return [lead for lead in LEADS.findall(text) if place is None or place not in lead]


def test_no_document_leads_elsewhere():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("*.cff"), *ROOT.glob("solutions/[0-9]*.py")]
    documents += [path for path in (ROOT / ".github").rglob("*") if path.is_file()]
    found = {path.name: strays(path.read_text("utf-8"), lesson.address()) for path in documents}
    assert not any(found.values()), found


def test_leads_are_found():
    badge = "![tests](https://github.com/ada/course/actions/workflows/ci.yml/badge.svg)"
    colab = "https://colab.research.google.com/github/ada/course/blob/main/notebooks/02_mae.ipynb"
    for lead in (badge, colab, f"git clone {ADDRESS}.git", f"repository-code: {ADDRESS}"):
        assert strays(lead, None) != []
        assert strays(lead, ADDRESS) == []
        assert strays(lead, "https://github.com/bob/course") != []
