"""The repository is consistent: one list of pins, clean code, licences, current tables."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vmae
from vmae import ROOT
from vmae.data.sets.motion_specs import LEVELS, set_name, spec_named

#: Endings of what needs no licence beside that of the code.
TEXT = (".md", ".json", ".yaml")


def pins() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def test_requirements_are_exact_pins_each_named_once():
    names = [canonicalize_name(pin.name) for pin in pins()]
    assert len(names) == len(set(names))
    for pin in pins():
        assert [s.operator for s in pin.specifier] == ["=="], pin


def test_environment_yml_reads_the_same_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.txt", "-e ."]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_every_dependency_of_the_package_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    by_name = {canonicalize_name(pin.name): pin for pin in pins()}
    for text in project["dependencies"]:
        need = Requirement(text)
        name = canonicalize_name(need.name)
        if name == "ipython":  # comes with JupyterLab's kernel
            continue
        pin = by_name[name]
        version = next(iter(pin.specifier)).version
        assert need.specifier.contains(version), f"{need} against the pin {version}"
        assert str(need.marker) == str(pin.marker), name


def test_decord_and_decord2_are_never_both_installed():
    markers = {pin.name: pin.marker for pin in pins() if pin.name.startswith("decord")}
    for system in ("linux", "darwin", "win32"):
        for machine in ("x86_64", "arm64", "aarch64", "AMD64"):
            where = {"sys_platform": system, "platform_machine": machine}
            chosen = [name for name, marker in markers.items() if marker.evaluate(where)]
            assert len(chosen) == 1, (system, machine, chosen)


def test_every_folder_of_the_package_is_installed():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setuptools["packages"]["find"]["include"] == ["vmae", "vmae.*"]
    folders = {module.parent for module in (ROOT / "vmae").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders), "find skips such folders"
    assert setuptools["package-data"]["vmae"] == ["train/recipes/*.yaml"]


def test_without_a_checkout_everything_is_in_the_working_folder(tmp_path):
    """As after a non-editable installation; a repository around it is not ours."""
    installed, project = tmp_path / "site-packages", tmp_path / "project"
    shutil.copytree(ROOT / "vmae", installed / "vmae", ignore=shutil.ignore_patterns("__pycache__"))
    project.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a", "-C", str(project)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=theirs"], check=True)
    code = (
        "import vmae, torch, pathlib, pkgutil, importlib\n"
        "for module in pkgutil.walk_packages(vmae.__path__, 'vmae.'):\n"
        "    'main' in module.name or importlib.import_module(module.name)\n"
        "from vmae.train.run_folder import environment\n"
        "assert vmae.ROOT == pathlib.Path.cwd() != pathlib.Path(vmae.__file__).parents[1]\n"
        "assert vmae.at_root('data/motion-small') == pathlib.Path.cwd() / 'data' / 'motion-small'\n"
        "assert environment(torch.device('cpu'))['commit'] is None\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )


def assert_passes(*tool: str) -> None:
    """`python -m` the tool, in the repository, has nothing to report."""
    done = subprocess.run(
        [sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_code_is_formatted_and_clean():
    assert_passes("ruff", "check", ".")
    assert_passes("ruff", "format", "--check", ".")


@pytest.mark.slow
def test_the_types_are_right():
    assert_passes("mypy")


def test_the_spelling_is_right():
    read = [
        *ROOT.glob("*.md"),
        ROOT / "CITATION.cff",
        *ROOT.glob("solutions/*.py"),
        *ROOT.glob("data/*.md"),
    ]
    folders = [ROOT / name for name in ("vmae", "tests", ".github")]
    assert_passes("codespell_lib", *map(str, read + folders))


def test_one_version_everywhere():
    newest = re.search(r"^## (\S+), (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest[1] == citation["version"] == vmae.__version__
    released = str(citation.get("date-released", "not released yet"))
    assert newest[2] == released, "the date of the release, in CHANGELOG.md and CITATION.cff"


def test_classifiers_name_the_tested_versions_of_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert named == ci["jobs"]["pins"]["strategy"]["matrix"]["python"]


def test_the_dev_container_is_set_up_as_make_does():
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    target = settings["postCreateCommand"].removeprefix("make ")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}: \$\(READY\)$", makefile, re.M)


def test_committed_media_have_a_licence():
    """By their names, or by those of their folder or pattern."""
    data = ROOT / "data"
    text = (data / "LICENCES.md").read_text(encoding="utf-8")
    folders = (
        "bench",
        "experiments",
        "photos",
        "pictures",
        "tiny",
        "weights",
    )  # not what is rendered
    files = [*data.iterdir(), *(path for name in folders for path in (data / name).rglob("*"))]
    media = [path for path in files if path.is_file() and path.suffix not in TEXT]
    assert len(media) > 20
    for path in (path.relative_to(data) for path in media):
        names = {
            path.as_posix(),
            f"{path.parent.as_posix()}/",
            f"{path.parent.as_posix()}/*{path.suffix}",
        }
        assert any(f"`{name}`" in text for name in names), f"{path} is not in data/LICENCES.md"
    named = re.findall(r"`((?:pictures|photos)/[^`]+|[^`/]+\.mp4)`", text)
    for name in named:
        assert (data / name).is_file(), f"data/LICENCES.md names {name}, which is not there"


def test_shipped_weights_have_a_stamp():
    for path in (ROOT / "data").rglob("model.safetensors"):
        stamp = json.loads((path.parent / "stamp.json").read_text(encoding="utf-8"))
        assert {"data", "steps", "starts"} <= stamp.keys(), path.parent.name
        assert all(re.fullmatch("[0-9a-f]{40}", start["commit"]) for start in stamp["starts"])


def test_the_size_full_is_described_as_it_is():
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for level in LEVELS:
        spec = spec_named(set_name(level, "full"))
        counts = f"{spec.train:,} + {spec.test:,} videos of {spec.frames} frames"
        assert f"`full` ({counts}, {spec.size}x{spec.size}" in text


def test_the_table_of_levels_is_what_was_measured():
    bench = runpy.run_path(str(ROOT / "tests" / "bench" / "levels.py"))
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    table = text.split("<!-- levels -->")[1].split("<!-- /levels -->")[0]
    assert table.strip() == bench["table"]().strip(), "paste `python tests/bench/levels.py --table`"


def test_the_minutes_in_the_readme_are_those_of_the_executed_notebooks():
    rows = re.findall(
        r"\]\((solutions/\d\d\S+\.ipynb)\).*\| ([\d.]+) \|$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.M,
    )
    assert len(rows) == len(list((ROOT / "solutions").glob("[0-9][0-9]_*.ipynb")))
    for path, minutes in rows:
        stamp = json.loads((ROOT / path).read_text(encoding="utf-8"))["metadata"]["vmae"]
        assert float(minutes) == stamp["minutes"], path


def test_what_is_said_of_the_full_run_is_what_lesson_10_printed():
    """In README.md, and in the page of the recipes."""
    lesson = json.loads((ROOT / "solutions" / "10_full_run.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in lesson["cells"] for output in cell.get("outputs", [])]
    shown = ["".join(output.get("data", {}).get("text/plain", [])) for output in outputs]
    said = "".join(part for output in outputs for part in output.get("text", []))
    (costs,) = (text for text in shown if "peak memory, GB" in text)
    memory = max(re.findall(r"[\d.]+$", costs, re.M), key=float)
    labels = "10 labels per class ([\\d.]+);"
    means = re.search(
        rf"dot per draw: pre-trained, {labels} from scratch, {labels}", "".join(shown)
    )
    lead = re.search(r"ahead by \+(\S+) points, 95 % interval \+(\S+) to \+(\S+), 3 draws", said)
    expected = (
        f"right on {float(means[1]):.0f} % of the test videos, the one from scratch on {float(means[2]):.0f} % ",
        f" {float(lead[1]):.0f} points ",
        f"(95 % interval {lead[2]} to {lead[3]})",
        f"The run took {lesson['metadata']['vmae']['minutes']} minutes and {memory} GB of memory",
    )
    for page in ("README.md", "vmae/train/recipes/README.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert [words for words in expected if words not in text] == [], page


def times() -> str:
    """The table in TEACHING.md: exercises and minutes per lesson, from cards and stamps."""
    lines = ["| lesson | exercises | minutes for them | minutes to run |", "|---|---|---|---|"]
    total, minutes = 0, 0
    for path in sorted((ROOT / "solutions").glob("*.py")):
        if not path.stem[:2].isdigit():
            continue
        text = path.read_text(encoding="utf-8")
        cards = [
            int(n) for n in re.findall(r"^# \*\*Difficulty\*\* .*about (\d+) minutes", text, re.M)
        ]
        title = re.search(r"^# # (.+)$", text, re.M)[1]
        stamp = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))["metadata"][
            "vmae"
        ]
        lines.append(f"| {title} | {len(cards)} | {sum(cards)} | {stamp['minutes']} |")
        total, minutes = total + len(cards), minutes + sum(cards)
    return "\n".join([*lines, f"| all | {total} | {minutes} | |"])


def test_the_times_for_teachers_are_those_of_cards_and_stamps():
    text = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
    assert text.split("<!-- times -->")[1].split("<!-- /times -->")[0].strip() == times()
