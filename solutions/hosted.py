"""Colab and Kaggle: the first cell of a notebook clones the course, then runs this in its kernel.

What the platform brings stays wherever it can. Its torch is built for its GPUs, and IPython and ipywidgets
belong to its page, so these three are never replaced, whatever their version. Everything else is
installed only where it is missing or outside the range in pyproject.toml. If that replaces a package
which this kernel has loaded already, the session must be restarted, and the learner is told how.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info < (3, 11):  # noqa: UP036, tomllib below is what would be missing first
    raise SystemExit(
        f"The course needs Python 3.11 or newer, and this session has {sys.version.split()[0]}: choose the "
        "latest environment of the platform, and run this cell again."
    )
import tomllib

ROOT = Path(__file__).resolve().parents[1]
#: Never replaced, only installed where missing.
KEPT = ("torch", "ipython", "ipywidgets")
RESTART = (
    "Restart the session, then run the notebook from the top. On Colab: Runtime, Restart session; on "
    "Kaggle: Run, Restart & clear cell outputs."
)


def needs() -> list[Requirement]:
    """What the lessons need, on this system: the package's own dependencies, and the sliders'."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["lessons"]
    requirements = [Requirement(line) for line in lines]
    return [need for need in requirements if need.marker is None or need.marker.evaluate()]


def installed(name: str) -> str | None:
    """The version of a package that is installed; None if it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def fits(need: Requirement) -> bool:
    """Whether what is installed will do."""
    found = installed(need.name)
    return found is not None and need.specifier.contains(found, prereleases=True)


def loaded() -> dict[str, str | None]:
    """The version of every package of which this kernel has loaded a module."""
    known = packages_distributions()
    tops = {name.partition(".")[0] for name in list(sys.modules)}
    return {package: installed(package) for top in tops for package in known.get(top, ())}


def install(lines: Iterable[str]) -> None:
    """Install packages, and none that would replace one of KEPT; SystemExit with what to do."""
    pins = [f"{name}=={installed(name)}" for name in KEPT if installed(name)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(pins))
        done = subprocess.run(
            [*pip, "--constraint", constraints, *lines], capture_output=True, text=True
        )
    if done.returncode:
        raise SystemExit(
            f"{done.stderr.strip()[-1500:]}\n\nThe installation failed, with {', '.join(pins)} of the platform "
            "kept. On Kaggle, Internet must be on (in the settings of the session); otherwise choose the "
            "latest environment of the platform, and run this cell again."
        )


def main() -> None:
    """Install what is missing, and make `import vmae` work in this kernel; SystemExit if it must restart."""
    wanted = needs()
    for need in wanted:
        if need.name in KEPT and installed(need.name) and not fits(need):
            print(f"{need.name} {installed(need.name)} of the platform stays; tested: {need}")
    missing = [n for n in wanted if not (fits(n) or (n.name in KEPT and installed(n.name)))]
    before = loaded()
    if missing:
        print("installing", ", ".join(need.name for need in missing), flush=True)
        install(f"{need.name}{need.specifier}" for need in missing)
    install(["--no-deps", "--editable", str(ROOT)])  # for processes that lessons start, and `vmae`
    importlib.invalidate_caches()
    changed = [
        f"{name} is now {installed(name)}, but this kernel has loaded {old}"
        for name, old in sorted(before.items())
        if installed(name) != old
    ]
    if changed:
        raise SystemExit("\n".join([*changed, RESTART]))
    sys.path.insert(0, str(ROOT))  # a kernel finds what was installed after its start only there
    importlib.import_module("vmae")
    print(f"vmae is ready, with torch {installed('torch')} of the platform")
