"""Installs the pins and the package into the Python that runs it: with uv where that is safe, else with pip.

    .venv/bin/python solutions/install.py         as `make` does
    .venv/bin/python solutions/install.py pip     always with pip; `make INSTALLER=pip ...`

uv is several times as fast, but reads none of pip's configuration: where pip takes PyTorch's CPU
build from a folder or an index of its own, uv would take the far larger CUDA build from PyPI. So it
is given pip's settings. pip does the work where a setting has no counterpart in uv, where the two
would install different builds of PyTorch, and where uv is not to be had. Standard library only:
nothing is installed yet.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip"]
#: Settings of pip that say where packages come from.
SOURCES = {"index-url", "extra-index-url", "find-links"}
#: pip's setting -> the variable that uv reads, and what separates its values. Not arguments of a
#: command, which everyone on the machine could read: an index's address may hold a password.
COUNTERPARTS = {
    "index-url": ("UV_INDEX_URL", " "),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
}
#: Settings of pip that change nothing about what is installed.
HARMLESS = {
    "break-system-packages", "cache-dir", "config-file", "disable-pip-version-check", "log", "no-cache-dir",
    "no-color", "no-input", "no-python-version-warning", "no-warn-script-location",
    "progress-bar", "quiet", "require-virtualenv", "retries", "root-user-action", "verbose",
}  # fmt: skip


class NotWithUv(Exception):
    """Why pip does the work."""


def pip_settings(listed: str) -> dict[str, str]:
    """What `pip config list` prints, as pip install takes it: the environment overrides files."""
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.([\w-]+)=(.+)$", listed, re.M):
            found[name] = str(ast.literal_eval(value))
    return found


def uv_settings(settings: dict[str, str]) -> dict[str, str]:
    """The variables that give uv pip's settings; NotWithUv where it has no counterpart for one."""
    if unknown := sorted(settings.keys() - COUNTERPARTS.keys() - HARMLESS):
        raise NotWithUv(f"pip is configured with {', '.join(unknown)}")
    # pip takes the newest version of all its indexes; uv by default that of the first which has any.
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_NO_CONFIG": "1"}
    for name in settings.keys() & COUNTERPARTS.keys():
        variable, separator = COUNTERPARTS[name]
        found[variable] = separator.join(map(os.path.expanduser, settings[name].split()))
    return found


def output(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a command prints; NotWithUv with the last line of its errors where it fails."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1].strip()
        raise NotWithUv(f"`{' '.join(command[:4])} ...` fails: {reason}")
    return done.stdout


def find_uv() -> list[str]:
    """The command that starts uv, installed beside pip where there is none yet."""
    if installed := shutil.which("uv"):
        return [installed]
    if importlib.util.find_spec("uv") is None:  # only a wheel: building uv takes a Rust compiler
        output([*PIP, "install", "--quiet", "--only-binary", ":all:", "uv"])
    return [sys.executable, "-m", "uv"]


def torch_of_pip() -> str:
    """The version of PyTorch that pip would install, with the name of its build: 2.13.0+cpu."""
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pin = next(line for line in pins if line.startswith("torch=="))
    flags = ("--quiet", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-")
    report = json.loads(output([*PIP, "install", *flags, pin]))
    return str(report["install"][0]["metadata"]["version"])


def checked_uv() -> tuple[list[str], dict[str, str]]:
    """uv's command and environment, once it is known to install the same PyTorch as pip."""
    settings = pip_settings(output([*PIP, "config", "list"]))
    environment = os.environ | uv_settings(settings)
    uv = find_uv()
    plain = ("--quiet", "--no-header", "--no-annotate", "--python", sys.executable)
    plan = output([*uv, "pip", "compile", *plain, "requirements.txt"], environment)
    # With PyPI alone there is one build, and an old pip would download it only to name it.
    if settings.keys() & SOURCES or any(name.startswith("UV_") for name in os.environ):
        by_uv = next((x[7:] for x in plan.splitlines() if x.startswith("torch==")), "none")
        if by_uv != (by_pip := torch_of_pip()):
            raise NotWithUv(f"uv would install torch {by_uv}, and pip {by_pip}")
    return uv, environment


def install(command: list[str], environment: dict[str, str] | None = None) -> None:
    """The pins, then the package without its ranges; an error of the installer ends the program."""
    for what in (["-r", "requirements.txt"], ["--no-deps", "-e", "."]):
        done = subprocess.run([*command, "--quiet", *what], cwd=ROOT, env=environment)
        if done.returncode:
            sys.exit("the installation failed; `make INSTALLER=pip ...` leaves uv out")


def main(installer: str = "uv") -> None:
    """Install with uv, or with pip and say why."""
    if installer not in ("uv", "pip"):
        sys.exit(f"INSTALLER is {installer!r}: uv or pip")
    try:
        if installer == "pip":
            raise NotWithUv("INSTALLER=pip")
        uv, environment = checked_uv()
    except NotWithUv as reason:
        print(f"installing with pip ({reason})", flush=True)
        install([*PIP, "install", "--disable-pip-version-check"])
        return
    print("installing with uv, from where pip would install", flush=True)
    # uv takes a package that it was stopped in the middle of for a whole one; pip does not.
    half_made = Path(sys.prefix) / ".half-made"  # the Makefile empties .venv where it finds this
    half_made.touch()
    install([*uv, "pip", "install", "--python", sys.executable], environment)
    half_made.unlink()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
