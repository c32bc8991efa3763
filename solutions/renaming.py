"""Tells whether the code of a lesson changed in names alone.

Names are those of variables, functions, arguments and attributes, and the paths of modules; imports may
come, go and move. Comments and docstrings do not count, all other strings do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from nbformat import NotebookNode


def changed_code(old: Sequence[NotebookNode], new: Sequence[NotebookNode]) -> list[str]:
    """A line with the cells whose code changed in more than names; none where there are none."""
    imported = {name for cell in (*old, *new) for name in imported_names(cell.source)}
    cells = [
        f"[{after.execution_count}]"
        for before, after in zip(old, new, strict=True)
        if nameless(before.source, imported) != nameless(after.source, imported)
    ]
    return [f"more than names changed in the code of {', '.join(cells)}"] if cells else []


def tree_of(source: str) -> ast.AST:
    """The code of a cell; one that is no plain Python, as with a magic, counts as text."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.parse(repr(source))


def imported_names(source: str) -> Iterator[str]:
    """The names that the imports of a cell bind."""
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)


def nameless(source: str, imported: set[str]) -> str:
    """The code of a cell without its imports, and with one name for all names."""
    return ast.dump(_Nameless(imported).visit(tree_of(source)))


class _Nameless(ast.NodeTransformer):
    NAMES = ("id", "attr", "arg", "name", "names", "rest", "kwd_attrs")  # fields of any node

    def __init__(self, imported: set[str]) -> None:
        self.imported = imported

    def visit_Import(self, node: ast.AST) -> None:
        return None

    visit_ImportFrom = visit_Import

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """`package.module.name` is as good as a `name` that was imported from there."""
        root: ast.AST = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id in self.imported:
            return ast.Name("_", node.ctx)
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field_name in self.NAMES:
            name = getattr(node, field_name, None)
            if isinstance(name, str):
                setattr(node, field_name, "_")
            elif isinstance(name, list):
                setattr(node, field_name, ["_" for _ in name])
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            del node.body[0]
        return node
