"""The first cell on Colab and Kaggle, in a clean environment: `python tests/first_cell.py`, some minutes.

The environment has what such a platform brings and no more: Jupyter, torch and NumPy, and a tqdm that is
too old for the course. The public address is a clone of this checkout, so what is committed is tried.
The learner's lesson 00 is run as a learner would, cell by cell from the top, and first the wrong way:
without a network to clone from, without one to install from, and in a session that has loaded what is
then replaced. Faster parts of this, with a pip that installs nothing: tests/solutions/test_hosted.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "solutions"))

import build  # noqa: E402, they are no package
import lesson  # noqa: E402
import nbformat  # noqa: E402

BROUGHT = ("torch", "numpy", "jupyter", "tqdm==4.65.0")
#: Says where vmae and torch are from; the learner does not type it.
ASIDE = "import vmae, torch; print(vmae.__file__, torch.__version__)"


class Platform:
    """An environment, a folder for notebooks, and an address from which the course is cloned."""

    def __init__(self, place: Path) -> None:
        self.content = place / "content"
        self.content.mkdir()
        public = place / "public"
        subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, public], check=True)
        self.address = public.as_uri()
        venv.create(place / "platform", with_pip=True)
        self.python = place / "platform" / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.pip("install", *BROUGHT)

    def pip(self, *arguments: str) -> str:
        command = [self.python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def run(
        self, cells: int | None, address: str = "", before: str = "", **settings: str
    ) -> tuple[bool, str]:
        """Run the first code cells of lesson 00 in a new kernel: whether all ended well, and what they print."""
        lesson.address = lambda: address or self.address
        path = build.sources()[0]
        notebook = lesson.learner(lesson.read_source(path), path)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        extra = [nbformat.v4.new_code_cell(line) for line in (before,) if line]
        done = [nbformat.v4.new_code_cell(ASIDE)]
        notebook.cells = [*extra, *code[:cells], *done]
        file = self.content / f"{path.stem}.ipynb"
        nbformat.write(notebook, file)
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        command = [
            self.python,
            "-m",
            "nbconvert",
            "--to",
            "notebook",
            "--execute",
            "--inplace",
            file,
        ]
        ran = subprocess.run(
            command, cwd=self.content, capture_output=True, text=True, check=False,
            env=clean | {"COLAB_RELEASE_TAG": "release", "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"} | settings,
        )  # fmt: skip
        outputs = [
            output
            for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]
            for output in cell["outputs"]
        ]
        printed = "".join(part for o in outputs for part in o.get("text", "")) + ran.stderr
        return ran.returncode == 0, printed


def expect(said: str, *words: str) -> None:
    """End the program unless all `words` are in what was said."""
    if missing := [word for word in words if word not in said]:
        raise SystemExit(f"{said}\n\nnot said: {missing}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(Path(folder))
        torch = platform.pip("freeze").split("torch==")[1].split()[0]

        well, said = platform.run(1, address=(Path(folder) / "nowhere").as_uri())
        assert not well, said
        expect(said, "git clone failed", "switch Internet on")
        print("no network to clone from: said so")

        well, said = platform.run(1, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
        assert not well, said
        expect(said, "The installation failed", "Internet must be on")
        print("no network to install from: said so")

        well, said = platform.run(1, before="import tqdm")
        assert not well, said
        expect(said, "tqdm is now", "but this kernel has loaded 4.65.0", "Restart session")
        print("a loaded package was replaced: asked for a restart")

        well, said = platform.run(None)
        assert well, said
        expect(said, str(platform.content / "course"), f" {torch}")
        print("lesson 00 ran from top to bottom, with torch", torch, "of the platform")

        well, said = platform.run(1)
        assert well, said
        assert "installing" not in said, said
        print("a second time: nothing was installed")


if __name__ == "__main__":
    main()
