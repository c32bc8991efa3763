"""Reads executed lessons: the rows of numbers, figures and prose of each code cell."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
SOLUTIONS = ROOT / "solutions"
NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Row:
    """A printed line, named by its text, or a row of a table, named by its first column."""

    name: str
    numbers: tuple[float, ...]
    columns: tuple[str, ...] = ()

    def under(self, column: str) -> list[float]:
        """The numbers in the columns whose headings match, ascending."""
        pairs = zip(self.columns, self.numbers, strict=False)
        return sorted(number for head, number in pairs if re.search(column, head, re.I))


@dataclass(frozen=True)
class Cell:
    """A code cell, the prose above it and its outputs in order: (kind, printed or alt text)."""

    code: str
    prose: str
    shown: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.code)

    @property
    def printed(self) -> str:
        return "".join(text for kind, text in self.shown if kind == "text")

    @property
    def figures(self) -> list[str]:
        """Alt texts."""
        return [text for kind, text in self.shown if kind == "figure"]

    @property
    def asserts(self) -> bool:
        """Whether it contains an assert or a call such as torch.testing.assert_close."""
        return bool(re.search(r"^\s*(assert |[\w.]*\bassert_\w+\()", self.code, re.M))


def numbers(text: str) -> tuple[float, ...]:
    """The numbers in a text, except those inside or at the end of a word: 2x16x16 gives 2."""
    return tuple(float(found.replace(",", "")) for found in NUMBER.findall(text))


def _table_rows(page: str) -> Iterator[Row]:
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in re.findall("<tr>.*?</tr>", page)]
    for name, *values in rows[1:]:
        found = tuple(number for value in values for number in numbers(value))
        yield Row(html.unescape(name), found, tuple(html.unescape(head) for head in rows[0][1:]))


@cache
def notebook(lesson: str) -> nbformat.NotebookNode:
    """The executed solution of lesson "NN"."""
    (path,) = SOLUTIONS.glob(f"{lesson}_*.ipynb")
    return nbformat.read(path, as_version=4)


@cache
def cells(*lessons: str) -> list[Cell]:
    """The code cells of one or more lessons."""
    if len(lessons) > 1:
        return [cell for lesson in lessons for cell in cells(lesson)]
    found, prose = [], ""
    for node in notebook(*lessons).cells:
        if node.cell_type != "code":
            prose = node.source
            continue
        shown, rows = [], []
        for output in node.outputs:
            text, data = output.get("text", ""), output.get("data", {})
            rows += [Row(line, numbers(line)) for line in text.splitlines()]
            rows += _table_rows(data.get("text/html", ""))
            image = any(kind.startswith("image/") for kind in data)
            kind = "text" if text else "figure" if image else "other"
            shown.append((kind, text or data.get("text/plain", "")))
        found.append(Cell(node.source, prose, tuple(shown), tuple(rows)))
    assert any(cell.shown for cell in found), (
        f"lesson {lessons[0]} has no outputs; run build.py --execute"
    )
    return found


def measured(lessons: str, *names: str) -> Iterator[tuple[Cell, list[Row]]]:
    """Each cell that has a row for every pattern, with the first matching row of each."""
    for cell in cells(*lessons.split()):
        rows = [[row for row in cell.rows if re.search(name, row.name, re.I)] for name in names]
        if all(rows):
            yield cell, [matching[0] for matching in rows]


def in_one_row(lesson: str, *values: int) -> bool:
    """Whether a row of the lesson's outputs contains all of these numbers."""
    return any(set(values) <= set(row.numbers) for cell in cells(lesson) for row in cell.rows)


def asserted(lesson: str) -> set[object]:
    """The constants in cells with an assert."""
    nodes = (node for cell in cells(lesson) if cell.asserts for node in ast.walk(cell.tree))
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


def names_in(code: str) -> set[str]:
    """The names of variables, functions and classes that a piece of code uses."""
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


@cache
def with_helpers(cell: Cell, *lessons: str) -> str:
    """The code of a cell, plus the functions and classes of the lessons that it uses."""
    bodies = (node for other in cells(*lessons) for node in other.tree.body)
    own = {n.name: ast.unparse(n) for n in bodies if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    code, used = cell.code, set()
    while new := (names_in(code) & own.keys()) - used:
        used |= new
        code = "\n".join([code, *(own[name] for name in sorted(new))])
    return code


def checks(lesson: str) -> Iterator[tuple[Cell, ast.stmt, str]]:
    """The statements that call a check, f("NN.name", ...), with the exercise's name."""
    for cell in cells(lesson):
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.Assign | ast.Expr) and (
                called := re.search(rf"\('({lesson}\.\w+)', ", ast.unparse(node))
            ):
                yield cell, node, called[1]


def exercises(lesson: str) -> dict[str, tuple[Cell, str]]:
    """The functions and classes that a learner writes and checks: name to (cell, exercise's name)."""
    return {
        node.targets[0].id: (cell, name)
        for cell, node, name in checks(lesson)
        if isinstance(node, ast.Assign)
        and re.search(rf"^(def|class) {ast.unparse(node.targets[0])}\b", cell.code, re.M)
    }


def tables(lesson: str) -> Iterator[list[list[str]]]:
    """The tables in the prose, without the lines of dashes."""
    text = "\n\n".join(c.source for c in notebook(lesson).cells if c.cell_type == "markdown")
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.M):
        rows = [[x.strip() for x in line.strip("|").split("|")] for line in block.splitlines()]
        yield [row for row in rows if set("".join(row)) - set(":- ")]
