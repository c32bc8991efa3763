"""Rules for every lesson: its length, a ledger, asserted parity, checks that draw and never block, no network."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

import pytest
from executed import ROOT, SOLUTIONS, cells, checks, exercises, names_in, tables, with_helpers
from lesson import read_source

LESSONS = [f"{number:02d}" for number in range(11)]
TAUGHT = LESSONS[1:10]  # 00 shows how the course works, 10 has no exercises
WORDS = 2200  # of prose in a lesson
DISPUTED = ["02", "05", "06", "07", "08"]  # a common misconception differs from the papers


@pytest.mark.parametrize("lesson", LESSONS[1:])
def test_a_ledger_maps_papers_to_values(lesson: str):
    heads = r"paper|publish|source|official", r"here|value|used", r"why|differ|reason"
    ledgers = [
        rows
        for head, *rows in tables(lesson)
        if all(re.search(words, " ".join(head), re.I) for words in heads)
    ]
    whole = any(len(rows) >= 3 and all(all(row[:-1]) for row in rows) for rows in ledgers)
    assert whole, "no table maps the paper to a cell, the value used, and why it is smaller"


@pytest.mark.parametrize("lesson", DISPUTED)
def test_misconceptions_are_listed_beside_what_is_published(lesson: str):
    heads = r"told|notes|popular|misconception|common|often", r"publish|paper"
    lists = [
        rows
        for head, *rows in tables(lesson)
        if all(re.search(words, " ".join(head), re.I) for words in heads)
    ]
    whole = any(len(rows) >= 3 and all(len(r) >= 3 and all(r) for r in rows) for rows in lists)
    assert whole, "no table lists misconceptions, what is published, and where both were run"


@pytest.mark.parametrize("lesson", TAUGHT)
def test_what_the_learner_writes_is_compared_with_the_package(lesson: str):
    written = exercises(lesson)
    uses = [names_in(with_helpers(cell, lesson)) for cell in cells(lesson) if cell.asserts]
    compared = [name for name in written if any(name in used for used in uses)]
    assert len(written) >= 3 and len(compared) > len(written) / 2, (
        f"only {compared} of {[*written]} are compared"
    )


@pytest.mark.parametrize("lesson", LESSONS[:10])
def test_a_check_draws_before_it_judges(lesson: str):
    written = exercises(lesson)
    assert written
    for cell, name in written.values():
        judged = [i for i, (kind, text) in enumerate(cell.shown) if kind == "text" and name in text]
        assert judged, f"{name}: the check prints nothing"
        drawn = [kind for kind, _ in cell.shown[: judged[0]]]
        assert "figure" in drawn, f"{name} is judged before it is drawn"


@pytest.mark.parametrize("lesson", LESSONS[:10])
def test_a_check_never_blocks(lesson: str, monkeypatch):
    """Neither a stub nor a wrong answer raises; the lesson continues with what the check returns."""
    monkeypatch.delenv("VMAE_STRICT", raising=False)

    def stub(*_):
        raise NotImplementedError

    def wrong(*_):
        return None

    imports, found = {}, list(checks(lesson))
    for node in (node for cell in cells(lesson) for node in cell.tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), lesson, "exec"), imports)
    assert found
    for _, node, name in found:
        assert isinstance(node, ast.Assign), f"{name}: the result of the check is not used"
        check = eval(ast.unparse(node.value.func), imports)
        for answer in (stub, wrong):
            instead = check(name, answer)
            assert callable(instead) and instead is not answer


def prose(markdown: str) -> str:
    """A cell without what hangs beside the prose: folds, exercise cards, captions, tables, code."""
    text = re.sub(r"<details.*?</details>", "", markdown, flags=re.S)
    text = re.sub(r"^### (Exercise|Predict).*?(?=^#|\Z)", "", text, flags=re.S | re.M)
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    text = re.sub(r"^\|.*$", "", text, flags=re.M)
    paragraphs = re.split(r"\n\s*\n", text)
    captions = [x for x in paragraphs if re.fullmatch(r"\*[^*\s].*[^*]\*", x.strip(), re.S)]
    return "\n\n".join(x for x in paragraphs if x not in captions)


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_can_be_read_in_one_sitting(lesson: str):
    (path,) = SOLUTIONS.glob(f"{lesson}_*.py")
    markdown = [cell.source for cell in read_source(path).cells if cell.cell_type == "markdown"]
    words = [word for text in markdown for word in prose(text).split() if re.search(r"\w", word)]
    assert len(words) <= WORDS, f"{len(words)} words of prose; at most {WORDS:,}"


def test_what_hangs_beside_the_prose_is_not_counted():
    card = "### Exercise 1 · x\n\nA card.\n\n## Next\n\nProse.\n\n*A caption of *two*\nlines.*\n\n"
    rest = "*Fine-tuning* is prose, and so is *this*.\n\n| a | b |\n\n<details>a\nfold</details>"
    assert prose(card + rest).split() == ["##", "Next", "Prose.", *rest.split("\n")[0].split()]


OFFLINE = """
import socket

connect, look_up = socket.socket.connect, socket.getaddrinfo


def refuse(host):
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        raise OSError(f"no network in this test: {host}")


def connect_here(self, address):
    if isinstance(address, tuple):  # else the path of a local socket
        refuse(address[0])
    return connect(self, address)


def look_up_here(host, *arguments, **options):
    refuse(host)
    return look_up(host, *arguments, **options)


socket.socket.connect, socket.getaddrinfo = connect_here, look_up_here
"""


def test_a_lesson_runs_offline():
    """Importing the package and lesson 02 up to its first check: photos, masks, figures."""
    first = next(cells("02").index(cell) for cell, _, _ in checks("02"))
    program = OFFLINE + "\n".join(cell.code for cell in cells("02")[: first + 1])
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-"], input=program, cwd=ROOT, capture_output=True,
        encoding="utf-8", check=False, env=os.environ | {"VMAE_STRICT": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "passed" in done.stdout


@pytest.mark.parametrize("lesson", LESSONS)
def test_no_lesson_imports_a_network_client(lesson: str):
    clients = {"ftplib", "gdown", "http", "httpx", "huggingface_hub", "requests", "urllib", "wget"}
    nodes = [node for cell in cells(lesson) for node in ast.walk(cell.tree)]
    modules = {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    modules |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    assert not {module for module in modules if module and module.split(".")[0] in clients}
