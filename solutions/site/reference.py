"""The pages of the site that are made from code: the diagrams, and the API."""

from __future__ import annotations

import importlib
import inspect
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]

#: Page -> its title and modules. The `__init__` of a folder names its public API.
API = {
    "models": (
        "Models",
        (
            "vmae",
            "vmae.config",
            "vmae.grid",
            "vmae.positions",
            "vmae.layers",
            "vmae.vit",
            "vmae.mae",
        ),
    ),
    "masking": ("Masking", ("vmae.masking",)),
    "weights": ("Weights", ("vmae.weights",)),
    "data": ("Data", ("vmae.data", "vmae.course.making")),
    "cost": ("Cost", ("vmae.cost",)),
    "train": ("Training", ("vmae.train",)),
    "predict": ("Prediction", ("vmae.predict", "vmae.inference")),
    "viz": ("Figures", ("vmae.figures", "vmae.course.viz")),
    "diagrams": ("Drawing diagrams", ("vmae.course.diagrams",)),
}


def public(module: ModuleType) -> Iterator[tuple[str, str]]:
    """What a module defines, or, for a folder, what its `__init__` names: "class" or "function", and name."""
    folder = hasattr(module, "__path__") and module.__name__ != "vmae"
    for name, value in vars(module).items():
        home = str(getattr(value, "__module__", None))
        if name.startswith("_") or not (
            home.startswith(module.__name__) if folder else home == module.__name__
        ):
            continue
        if inspect.isclass(value):
            yield "class", name
        elif inspect.isfunction(value):
            yield "function", name


def reference_pages() -> dict[str, str]:
    """The API, by the names of its pages."""
    pages = {}
    for page, (title, modules) in API.items():
        parts = [f"# {title}"]
        for name in modules:
            module = importlib.import_module(name)
            lines = [f".. automodule:: {name}", "   :no-index:", ""]
            for kind, member in public(module):
                lines += [f".. auto{kind}:: {name}.{member}", ""]
            body = "\n".join(lines)
            parts.append(f"## `{name}`\n\n```{{eval-rst}}\n{body}```")
        pages[f"api/{page}"] = "\n\n".join(parts) + "\n"
    return pages


def diagrams_page() -> str:
    """Every diagram with its alt text, which says in words what it shows."""
    gallery = runpy.run_path(str(ROOT / "tests" / "viz" / "gallery.py"))["DIAGRAMS"]
    parts = [
        "# Diagrams",
        "Every diagram of the lessons, for the published models. Each computes its numbers from the object that it draws: "
        '`vmae.course.diagrams` draws it for any configuration, and `.save("mask.svg")` writes the file.',
    ]
    for name, make in gallery.items():
        diagram = make()
        parts.append(
            f'## `{name}`\n\n<div class="cell_output">{diagram.html()}</div>\n\n{diagram.alt}'
        )
    return "\n\n".join(parts) + "\n"
