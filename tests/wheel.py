"""The wheel by itself: `python tests/wheel.py` builds it, installs it in a clean environment and uses it.

It is built from a clone, so it holds what is committed, and nothing that an earlier build left. The
environment has the latest packages that pyproject.toml allows. The commands run in an empty folder, far
from the checkout: two trainings of a few steps, a test, a conversion and a prediction.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
SHORT = "--set optim.steps=2 --set optim.batch_size=8 --set data.num_workers=0 --set device=cpu"
COMMANDS = f"""\
render motion --size mini --out videos
scan videos
plan own-cpu --device l4 --set data.path=videos
pretrain cpu --out run --set data.path=videos {SHORT}
finetune cpu --out run/classifier --encoder run/model.safetensors --set data.path=videos {SHORT} --set labels_per_class=4
evaluate run/classifier
report run/classifier
convert run/model.safetensors converted --to hf
predict run/classifier videos/videos --csv predictions.csv
"""


def run(*command: str | Path, where: Path) -> str:
    """What a command prints; its errors go to the terminal, and one of them ends the program."""
    print("$", *(getattr(part, "name", part) for part in command), flush=True)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=where, env=clean, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run("git", "clone", "--quiet", ROOT, place / "checkout", where=place)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(*pip, "wheel", "--no-deps", "--wheel-dir", ".", place / "checkout", where=place)
        (wheel,) = place.glob("*.whl")
        venv.create(place / "clean", with_pip=True)
        programs = place / "clean" / ("Scripts" if os.name == "nt" else "bin")
        run(programs / "python", *pip[1:], "install", wheel, where=place)
        (place / "empty").mkdir()
        _, version, _, _ = parse_wheel_filename(wheel.name)
        assert run(programs / "vmae", "--version", where=place / "empty").strip() == str(version)
        for line in COMMANDS.splitlines():
            run(programs / "vmae", *line.split(), where=place / "empty")
        assert (place / "empty" / "predictions.csv").stat().st_size > 100
        print(f"{wheel.name} works")


if __name__ == "__main__":
    main()
