"""What a lesson takes from the package: few enough names to keep in mind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vmae import ROOT

LESSONS = sorted((ROOT / "solutions").glob("[0-9][0-9]_*.py"))
STATEMENTS, NAMES = 8, 25


def taken(lesson: Path) -> list[list[str]]:
    """The names that each import statement takes from `vmae`, wherever in the lesson it stands."""
    found = []
    for node in ast.walk(ast.parse(lesson.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vmae":
            found.append([f"{node.module}.{alias.name}" for alias in node.names])
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found.append([name for name in names if name.split(".")[0] == "vmae"])
    return [names for names in found if names]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem[:2])
def test_a_lesson_takes_few_names_from_the_package(lesson):
    statements = taken(lesson)
    names = [name for statement in statements for name in statement]
    assert 1 <= len(statements) <= STATEMENTS, f"{len(statements)} statements: {statements}"
    assert len(names) <= NAMES, f"{len(names)} names: {names}"
