"""The set-up: what `make` does when, and that uv installs what pip would, or leaves it to pip."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import install as program
import pytest

from vmae import ROOT

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs scripts with a first line")

#: What pip and uv are asked for goes to a log; what they answer stands in the environment.
PIP = """\
import json, os, sys
asked = sys.argv[1:]
print("pip", *asked, file=open(os.environ["LOG"], "a"))
if asked[0] == "config":
    print(os.environ["PIP_SAYS"])
if "--report" in asked:
    print(json.dumps({"install": [{"metadata": {"version": os.environ["PIP_TORCH"]}}]}))
if "--only-binary" in asked:
    sys.exit("no matching distribution")
"""
UV = """\
import os, pathlib, sys
told = {k: v for k, v in os.environ.items() if k.startswith("UV_") or k == "SSL_CERT_FILE"}
print("uv", *sys.argv[1:], sorted(told.items()), file=open(os.environ["LOG"], "a"))
half = pathlib.Path(sys.argv[sys.argv.index("--python") + 1]).parents[1] / ".half-made"
print("half-made:", half.exists(), file=open(os.environ["LOG"], "a"))
if sys.argv[2] == "compile":
    print("numpy==2.4.6\\ntorch==" + os.environ["UVS_TORCH"])
elif "UV_STOPS" in os.environ:
    sys.exit("disk full")
"""


@pytest.fixture
def course(tmp_path) -> Path:
    """A checkout with a .venv, a pip that installs nothing, and a uv that installs nothing."""
    folder = tmp_path / "the course"
    (folder / "solutions").mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / "install.py", folder / "solutions")
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    (tmp_path / "pip" / "__main__.py").write_text(PIP)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(f"#!{sys.executable}\n{UV}")
    (tmp_path / "bin" / "uv").chmod(0o755)
    return folder


def installed(course: Path, *arguments: str, **answers: str) -> tuple[str, list[str], int]:
    """What the program prints, whom it asks for what, and its exit status."""
    home = course.parent
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "PIP_", "PYTHON"))}
    told = {"LOG": str(home / "log"), "PYTHONPATH": str(home), "PATH": str(home / "bin")}
    answers = {"PIP_SAYS": "", "PIP_TORCH": "2.13.0+cpu", "UVS_TORCH": "2.13.0+cpu"} | answers
    done = subprocess.run(
        [course / ".venv" / "bin" / "python", course / "solutions" / "install.py", *arguments],
        env=plain | told | answers, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    log = (home / "log").read_text().splitlines() if (home / "log").exists() else []
    return done.stdout + done.stderr, log, done.returncode


def by_pip(log: list[str]) -> list[str]:
    """The installations by pip."""
    return [line for line in log if line.startswith("pip install --disable-pip-version-check")]


CONFIGURED = """\
:env:.find-links='/wheels'
:env:.disable-pip-version-check='1'
freeze.timeout='3'
global.cert='/certificates.pem'
global.constraint='/limits.txt'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.find-links='/overridden'
global.index-url='https://ada:secret@index.example/simple'
install.timeout='180'
"""


@posix
def test_uv_installs_with_the_settings_of_pip(course):
    out, log, status = installed(course, PIP_SAYS=CONFIGURED)
    assert status == 0 and out == "installing with uv, from where pip would install\n"
    assert not by_pip(log)
    installs = [line for line in log if line.startswith("uv pip install")]
    assert ["-r requirements.txt" in installs[0], "--no-deps -e ." in installs[1]] == [True, True]
    for line in (line for line in log if line.startswith("uv")):
        for setting in (
            ("SSL_CERT_FILE", "/certificates.pem"),
            ("UV_CONSTRAINT", "/limits.txt"),
            ("UV_EXTRA_INDEX_URL", "https://one.example/simple https://two.example/simple"),
            ("UV_FIND_LINKS", "/wheels"),
            ("UV_HTTP_TIMEOUT", "180"),
            ("UV_INDEX_STRATEGY", "unsafe-best-match"),
            ("UV_INDEX_URL", "https://ada:secret@index.example/simple"),
        ):
            assert str(setting) in line
        assert "secret" not in line.split("[(")[0], "everyone on the machine reads arguments"


@posix
@pytest.mark.parametrize("where", ["pip", "environment"])
def test_another_build_of_torch_is_left_to_pip(course, where):
    says = {"PIP_SAYS": CONFIGURED} if where == "pip" else {"UV_TORCH_BACKEND": "cu128"}
    out, log, status = installed(course, UVS_TORCH="2.13.0", **says)
    assert status == 0 and "uv would install torch 2.13.0, and pip 2.13.0+cpu" in out
    assert [line.split()[-2:] for line in by_pip(log)] == [["-r", "requirements.txt"], ["-e", "."]]
    assert not any(line.startswith("uv pip install") for line in log)


@posix
def test_pip_is_not_asked_for_torch_where_there_is_one_build(course):
    """An old pip would download it, to tell its version."""
    _, log, _ = installed(course, UVS_TORCH="2.13.0")
    assert not any("--report" in line for line in log) and not by_pip(log)


@posix
def test_pip_installs_what_uv_cannot_be_told(course):
    out, log, status = installed(course, PIP_SAYS="global.no-binary='numpy'\nglobal.pre='1'")
    assert status == 0 and "pip is configured with no-binary, pre" in out and len(by_pip(log)) == 2


@posix
def test_pip_installs_where_uv_is_not_to_be_had_or_not_wanted(course):
    (course.parent / "bin" / "uv").unlink()
    out, log, status = installed(course)
    assert status == 0 and "no matching distribution" in out and len(by_pip(log)) == 2
    (course.parent / "log").unlink()
    out, log, status = installed(course, "pip")
    assert status == 0 and log == by_pip(log) and len(log) == 2
    out, log, status = installed(course, "conda")
    assert status == 1 and "INSTALLER is 'conda': uv or pip" in out


@posix
def test_a_venv_that_uv_has_not_finished_is_marked(course):
    """uv takes the packages in it for whole ones."""
    mark = course / ".venv" / ".half-made"
    _, log, status = installed(course, UV_STOPS="1", UVS_TORCH="2.13.0+cpu")
    assert status == 1 and mark.exists()
    assert [line for line in log if "half" in line] == ["half-made: False", "half-made: True"]
    _, _, status = installed(course)
    assert status == 0 and not mark.exists()


def wheel(folder: Path, version: str) -> None:
    """A torch without content."""
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as file:
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


@pytest.mark.skipif(
    not (shutil.which("uv") or importlib.util.find_spec("uv")), reason="uv is not installed"
)
def test_uv_itself_takes_the_build_that_pip_takes(tmp_path, monkeypatch):
    """An index has the CUDA build, a folder the CPU build: the order in which pip looks is nobody's."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    index, folder = tmp_path / "index" / "torch", tmp_path / "wheels"
    index.mkdir(parents=True)
    folder.mkdir()
    wheel(index, "2.13.0")
    wheel(folder, "2.13.0+cpu")
    (index / "index.html").write_text('<a href="torch-2.13.0-py3-none-any.whl">torch</a>')
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    (tmp_path / "none.txt").touch()
    configuration, address = tmp_path / "pip.conf", index.parent.as_uri()
    common = f"[global]\nindex-url = {address}\nextra-index-url = {address}\n"
    common += f"constraint = {tmp_path / 'none.txt'}\n"
    configuration.write_text(f"{common}find-links = {folder}\n")
    monkeypatch.setattr(program, "ROOT", tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    uv, environment = program.checked_uv()
    plan = program.output([*uv, "pip", "compile", "-q", "requirements.txt"], environment)
    assert "torch==2.13.0+cpu" in plan.splitlines()
    assert program.torch_of_pip() == "2.13.0+cpu"
    configuration.write_text(f"{common}find-links = {tmp_path / 'empty'}\n")
    (tmp_path / "empty").mkdir()
    program.checked_uv()
    assert program.torch_of_pip() == "2.13.0"


def test_settings_are_read_as_pip_prints_them():
    settings = program.pip_settings(CONFIGURED)
    assert settings["find-links"] == "/wheels" and settings["timeout"] == "180"
    assert program.uv_settings({"find-links": "~/a /b"})["UV_FIND_LINKS"] == ",".join(
        [os.path.expanduser("~/a"), "/b"]
    )


# ---- make ----------------------------------------------------------------------------------------


def planned(course: Path, *arguments: str) -> list[str]:
    """The commands that make would run."""
    ours = ("MAKE", "MFLAGS", "PYTHON", "INSTALLER", "PARAMS")  # of the make that runs the tests
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        ["make", "--dry-run", *arguments],
        cwd=course,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@posix
@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_sets_up_once_again_for_other_pins_and_anew_after_a_stop(course):
    def set_up(*arguments: str) -> list[str]:
        lines = planned(course, *arguments, "test")
        assert lines[-1] == ".venv/bin/python -m pytest -n 2 --maxschedchunk 1"
        return [line for line in lines if "-m venv" in line or "install.py" in line]

    first = ["python3 -m venv .venv", ".venv/bin/python solutions/install.py uv"]
    assert set_up() == first
    assert set_up("PYTHON=python3.12", "INSTALLER=pip") == [
        "python3.12 -m venv .venv",
        ".venv/bin/python solutions/install.py pip",
    ]
    (course / ".venv" / ".ready").touch()
    assert set_up() == []
    os.utime(course / ".venv" / ".ready", (1e9, 1e9))
    assert set_up() == first
    (course / ".venv" / ".half-made").touch()
    assert set_up() == ["python3 -m venv --clear .venv", first[1]]


@posix
@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_make_run_passes_parameters_on(course):
    (course / ".venv" / ".ready").touch()
    first, *rest = planned(course, "run", "PARAMS=-p recipe gpu")
    assert first == ".venv/bin/python solutions/run.py -p recipe gpu"
    assert any("nbconvert" in line for line in rest) and any(" trust " in line for line in rest)
