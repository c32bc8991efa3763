"""Shared by all sets that the course makes: claim a folder, resume, mark it complete."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmae.support.files import write_text


def begin_set(folder: Path, spec: dict[str, Any]) -> bool:
    """Claim a folder for a set; False if the set is already complete."""
    for name in ("set.json", "set.partial.json"):
        if (folder / name).exists():
            found = json.loads((folder / name).read_text())
            if found != json.loads(json.dumps(spec)):
                differs = ", ".join(
                    f"{k} is {found.get(k)!r} in the folder, but {spec.get(k)!r} was requested"
                    for k in found | spec
                    if found.get(k) != spec.get(k)
                )
                raise FileExistsError(
                    f"{folder} already contains a different dataset ({differs}): choose another "
                    "folder, or delete the existing dataset"
                )
            if name == "set.json":
                return False
    if folder.exists() and any(folder.iterdir()) and not (folder / "set.partial.json").exists():
        raise FileExistsError(f"{folder} already contains other files: choose an empty folder")
    write_text(folder / "set.partial.json", json.dumps(spec, indent=1))
    return True


def finish_set(
    folder: Path,
    spec: dict[str, Any],
    classes: Sequence[str],
    lists: dict[str, list[tuple[str, int]]],
) -> None:
    """Write the class list, the annotation files and finally set.json, which marks the set complete.

    Labels are positions in the class list; names, if some names are numbers, which would be taken for them.
    """
    names = dict(enumerate(classes)) if any(map(str.isdigit, classes)) else {}
    if classes:
        write_text(folder / "classes.txt", "\n".join(classes) + "\n")
    for split, rows in lists.items():
        lines = "".join(f"{name} {names.get(label, label)}\n" for name, label in rows)
        write_text(folder / f"{split}.csv", lines)
    write_text(folder / "set.json", json.dumps(spec, indent=1))
    (folder / "set.partial.json").unlink(missing_ok=True)
