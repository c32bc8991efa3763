"""Colab and Kaggle: the first cell clones the course, installs what is missing and keeps the platform's torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hosted
import lesson
import pytest

from vmae import ROOT

#: A kernel without vmae and without some packages, whatever is installed here.
BEFORE = """\
import sys, importlib.metadata as m
real = m.version
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "vmae" and not any(p.endswith("course") for p in sys.path):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
def version(name):
    if name in ABSENT and not LOG.exists():
        raise m.PackageNotFoundError(name)
    return OTHER.get(name) or (NEW.get(name) if LOG.exists() else None) or real(name)
m.version = version
"""
PIP = """\
import os, pathlib, sys
arguments = sys.argv[1:]
constraints = pathlib.Path(arguments[arguments.index("--constraint") + 1]).read_text().split()
print(arguments, constraints, file=open(os.environ["LOG"], "a"))
sys.exit(os.environ.get("PIP_SAYS"))
"""


@pytest.fixture
def platform(tmp_path, monkeypatch):
    """Runs the first cell, twice if asked, with versions of our choice and a pip that installs nothing."""
    course = tmp_path / "public"
    (course / "solutions").mkdir(parents=True)
    (course / "vmae").mkdir()
    (course / "vmae" / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", course)
    shutil.copy(ROOT / "solutions" / "hosted.py", course / "solutions")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a", "-C", str(course)]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "path" / "pip").mkdir(parents=True)
    (tmp_path / "path" / "pip" / "__init__.py").touch()
    (tmp_path / "path" / "pip" / "__main__.py").write_text(PIP)
    (tmp_path / "content").mkdir()
    log = tmp_path / "log"

    def run(code="", absent=(), other=None, new=None, address=None, says=None):
        monkeypatch.setattr(lesson, "address", lambda: address or course.as_posix())
        names = f"import pathlib; LOG = pathlib.Path({str(log)!r}); ABSENT = {absent}; OTHER = {other or {}}; NEW = {new or {}}\n"
        extra = {
            "LOG": str(log),
            "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
            "PYTHONPATH": str(tmp_path / "path"),
        }
        if says:
            extra["PIP_SAYS"] = says
        done = subprocess.run(
            [sys.executable, "-c", names + BEFORE + code + lesson.guard() + "\nimport vmae; print(vmae.__file__)"],
            capture_output=True, text=True, check=False, cwd=tmp_path / "content", env=os.environ | extra,
        )  # fmt: skip
        asked = log.read_text().splitlines() if log.exists() else []
        return done, asked

    return run


def test_only_what_is_missing_is_installed_and_torch_stays(platform):
    done, asked = platform(absent=("decord", "decord2", "accelerate"))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).parts[-3:] == ("course", "vmae", "__init__.py")
    packages, itself = asked
    assert re.search(r"'decord2?>=", packages) and "'accelerate>=1.7'" in packages
    assert "'torch" not in packages.split("] [")[0]
    assert f"torch=={hosted.installed('torch')}" in packages and "ipython==" in packages
    assert "'--no-deps', '--editable'" in itself
    again, asked = platform(absent=("decord", "decord2", "accelerate"))
    assert again.returncode == 0 and len(asked) == 3, "not cloned and installed again"


def test_what_belongs_to_the_platform_stays_and_is_named(platform):
    done, asked = platform(other={"torch": "2.6.0+cu124", "ipython": "7.34.0"})
    assert done.returncode == 0, done.stderr
    assert "torch 2.6.0+cu124 of the platform stays; tested: torch>=2.9" in done.stdout
    assert "ipython 7.34.0 of the platform stays" in done.stdout
    assert len(asked) == 1 and "torch==2.6.0+cu124" in asked[0]


def test_a_loaded_package_that_was_replaced_needs_a_restart(platform):
    done, _ = platform("import numpy\n", absent=("accelerate",), new={"numpy": "2.99"})
    assert done.returncode and "Traceback" not in done.stderr
    assert "numpy is now 2.99, but this kernel has loaded" in done.stderr
    assert "Runtime, Restart session" in done.stderr and "clear cell outputs" in done.stderr


def test_without_internet_the_cell_says_what_to_switch_on(platform, tmp_path):
    done, _ = platform(address=(tmp_path / "nowhere").as_posix())
    assert done.returncode and "switch Internet on" in done.stderr
    assert "Traceback" not in done.stderr
    done, _ = platform(absent=("accelerate",), says="no matching distribution")
    assert done.returncode and "Traceback" not in done.stderr
    assert "no matching distribution" in done.stderr and "Internet must be on" in done.stderr


def test_an_old_python_is_named_before_anything_is_imported_that_it_lacks(platform):
    done, asked = platform(
        "import sys; sys.version_info, sys.version = (3, 10, 12), '3.10.12 (main)'\n"
        "sys.modules['tomllib'] = None\n"
    )
    assert done.returncode and not asked and "Traceback" not in done.stderr
    assert "needs Python 3.11 or newer, and this session has 3.10.12: choose" in done.stderr


def test_all_that_lessons_import_is_installed():
    """Of the packages that are pinned; the standard library and torch come with the platform."""
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "solutions").glob("[0-9]*.py"))
    names = (
        set(re.findall(r"^(?:import|from) (\w+)", code, re.M)) - sys.stdlib_module_names - {"vmae"}
    )
    known = hosted.packages_distributions()
    needed = {need.name.lower() for need in hosted.needs()}
    missing = {name for name in names if not {x.lower() for x in known[name]} & needed}
    assert not missing
