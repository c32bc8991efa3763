"""`vmae check-env`: every problem gives a row with a fix, and never a traceback."""

from __future__ import annotations

import builtins
import os
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from vmae import ROOT
from vmae.cli.main import main
from vmae.course import check_env
from vmae.course.check_env import (
    Row,
    clip_row,
    disk_row,
    kernel_row,
    package_rows,
    python_row,
    report,
)

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def versions(monkeypatch) -> dict[str, str | None]:
    """The installed version of each package: the tested ones. None stands for a missing package."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = (line.split(";")[0].split("==") for line in lines if not line.startswith("#"))
    found: dict[str, str | None] = dict(pins)
    monkeypatch.setattr(check_env, "_version", found.get)
    return found


def without(monkeypatch, name: str) -> None:
    """Make every import of `name` fail from now on."""
    real = builtins.__import__

    def fail(module, *arguments, **options):
        if module == name:
            raise ImportError(f"libav.so.58: no such file, for {module}", name=module)
        return real(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fail)


def test_a_computer_that_is_ready(capsys):
    """This one: it runs the tests."""
    status = main(["check-env"])
    printed = capsys.readouterr().out
    assert status == 0, printed
    for what in ("Python", "packages", "decord", "GPU", "disk", "kernel"):
        assert f" {what} " in printed
    assert "132 frames of 456x256" in printed
    assert str(ROOT) not in printed  # a notebook shows this


def test_the_minimum_python_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, check_env.PYTHON))


def test_an_old_python_is_the_only_row(monkeypatch):
    old = python_row((3, 10, 2))
    assert old.status == "FAIL" and "3.10.2; 3.11 or newer" in old.found and "3.11" in old.fix
    monkeypatch.setattr(check_env, "python_row", lambda: old)
    assert check_env.check_env() == [old]


@pytest.mark.parametrize(
    ("name", "found", "status", "text"),
    [
        ("torch", None, "FAIL", "not installed"),
        ("torch", "2.8.1", "FAIL", "2.8.1; >=2.9 is required"),
        ("torch", "2.9.0+cu126", "--", "2.9.0+cu126; tested with 2."),
        ("mypy", None, "--", "runs without it"),
        ("nbval", "0.1", "--", "0.1; tested with 0."),
    ],
)
def test_a_package_in_another_version(versions, name, found, status, text):
    versions[name] = found
    all_rows, row = package_rows()
    assert (row.status, row.what) == (status, name)
    assert text in row.found
    assert row.fix.startswith(f"python -m pip install {name}==")
    as_tested, of = (int(word) for word in all_rows.found.split() if word.isdigit())
    assert all_rows.status == "OK" and as_tested == of - 1


def test_a_failing_package_sets_the_exit_status(versions, capsys):
    versions["einops"] = None
    assert main(["check-env"]) == 1
    printed = capsys.readouterr().out
    assert "[FAIL] einops" in printed and "→ python -m pip install einops==" in printed


def test_a_local_build_of_the_tested_version_counts_as_tested(versions):
    versions["torch"] = f"{versions['torch']}+cu130"
    assert [row.status for row in package_rows()] == ["OK"]


def test_a_package_outside_its_checkout(tmp_path):
    (row,) = package_rows(tmp_path / "requirements.txt")
    assert row.status == "FAIL" and "requirements.txt not found" in row.found and "clone" in row.fix


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "the file does not exist"),
        (b"", "the file is empty"),
        (b"version https://git-lfs", "the file could not be opened as a video"),
    ],
)
def test_a_clip_that_cannot_be_read(tmp_path, content, text):
    path = tmp_path / "shot.mp4"
    if content is not None:
        path.write_bytes(content)
    row = clip_row(path)
    assert row.status == "FAIL" and text in row.found
    assert row.fix.endswith("git checkout -- data/shot.mp4")


def test_a_library_that_cannot_be_imported(monkeypatch):
    without(monkeypatch, "vmae.data.reading.reader")  # as if decord, which it imports, were broken
    row = clip_row()
    assert row.status == "FAIL" and "libav.so.58" in row.found and "pip install" in row.fix
    without(monkeypatch, "torch")
    assert check_env.gpu_row().status == "FAIL"


def test_no_gpu_is_fine_and_an_invisible_one_has_a_fix(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert check_env.gpu_row() == Row(
        "--", "GPU", "none found, but none is needed: all lessons run on the CPU"
    )
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert check_env.gpu_row().status == "--" and "not used" in check_env.gpu_row().found
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/nvidia-smi")
    row = check_env.gpu_row()
    assert row.status == "--" and "sees no GPU" in row.found and "pytorch.org" in row.fix


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**11, 10**11, 3 * 10**7))
    row = disk_row()
    assert row.status == "FAIL" and "0.03 GB free; the lessons need 1 GB" in row.found
    assert "you can delete data/motion*, data/film* and data/stores" in row.fix


def kernel_of(monkeypatch, program: str | None) -> Row:
    def spec(_, name):
        if program is None:
            raise NoSuchKernel(name)
        return KernelSpec(argv=[program, "-m", "ipykernel_launcher"])

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", spec)
    return kernel_row()


def test_the_kernel_is_this_python(monkeypatch, versions, tmp_path):
    beside = str(Path(sys.executable).parent / "python3.99")
    for program in ("python", beside):
        assert kernel_of(monkeypatch, program).status == "OK"
    other = os.path.join(tmp_path, "bin", "python")
    for program, text in ((other, "starts a different Python"), (None, "has no kernel")):
        row = kernel_of(monkeypatch, program)
        assert row.status == "FAIL" and text in row.found and "ipykernel install" in row.fix
    versions["jupyterlab"] = None
    row = kernel_of(monkeypatch, "python")
    assert row.status == "--" and "JupyterLab is not installed" in row.found and row.fix


def test_no_kernel_at_all(monkeypatch):
    without(monkeypatch, "ipykernel")
    row = kernel_row()
    assert row.status == "FAIL" and "ipykernel is not installed" in row.found


def test_the_fix_is_printed_below_its_row():
    rows = [Row("OK", "disk", "76 GB free"), Row("FAIL", "torch", "2.5", "pip install torch")]
    first, second, fix = report(rows).splitlines()
    assert first.startswith("[OK]   disk") and second.startswith("[FAIL] torch")
    assert fix.strip() == "→ pip install torch"
