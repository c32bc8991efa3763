"""From the videos that people bring to predictions and a report: three sets, each through all commands."""

from __future__ import annotations

import csv
import json
import re
from html import unescape
from pathlib import Path

import brought_sets
import pytest
from brought_sets import CLASSES

from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.mae import MaskedAutoencoder
from vmae.weights import save

#: Of each set: the numbers of training and test videos of each class, once it can be trained on.
COUNTS = {
    "own_folder": {CLASSES[0]: (9, 2), CLASSES[1]: (9, 2)},
    "ucf101": {"ApplyLipstick": (6, 2), "Archery": (6, 2)},
    "ssv2": {
        "Pushing something up": (5, 1), "Moving something, or part of it": (5, 1),
        "Turning something": (5, 1),
    },
}  # fmt: skip


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command in this process and an empty folder; returns its status and both texts."""
    (tmp_path / "data" / "stores").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        workers = ["--num-workers", "1"] if arguments[0] in ("scan", "normalize", "predict") else []
        status = main([*map(str, arguments), *workers]) or 0
        return status, *capsys.readouterr()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_from_a_folder_of_videos_to_the_report(name, run, tmp_path):
    folder = getattr(brought_sets, name)(tmp_path / "brought")
    counts = COUNTS[name]
    files = [path for path in folder.rglob("*") if path.suffix not in (".txt", ".json", "")]
    if name == "own_folder":
        folder = normalized(run, folder, tmp_path / "new")
        files = list((folder / "videos").rglob("*.mp4"))
    assert len(files) == sum(map(sum, counts.values()))
    scanned(run, folder, counts)

    weights = tmp_path / "weights.pth"
    model = ModelConfig.videomae(
        "S", depth=1, embed_dim=64, num_heads=1, num_frames=16, img_size=224
    )
    save(MaskedAutoencoder(model), weights, to="official")
    small = ("data.num_workers=0", "model.img_size=48", "frozen_layers=0", "optim.steps=3")
    changes = [word for one in small for word in ("--set", one)]
    status, out, _ = run("plan", "own-cpu", "--data", folder, *changes)
    assert status == 0 and re.search(r"steps +3\b", out), out

    train, test = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    command = ("finetune", "own-cpu", "--out", "run", "--encoder", weights, *changes)
    status, out, err = run(*command, "--set", f"data.path={folder}")
    assert status == 0, err
    tuned, err = json.loads(out), " ".join(err.split())
    split = re.search(r"(\d+) to train on, (\d+) to validate on, (\d+) to test on", err)
    assert split, err
    fitted, validated, tested = map(int, split.groups())
    assert (fitted + validated, tested) == (train, test) and validated >= len(counts)
    assert tuned["unreadable_videos"] == 0

    status, out, err = run("evaluate", "run", "--json", "test.json")
    report = json.loads(out)
    assert (status, report["videos"], report["split"]) == (0, test, "test")
    assert report["top1"] == pytest.approx(tuned["accuracy"], abs=0.05)
    confusion = json.loads(Path("test.json").read_text())["confusion"]
    assert [sum(row) for row in confusion] == [number for _, number in counts.values()]
    assert list(report["per_class"]) == list(counts)
    assert json.loads(run("evaluate", "run", "--data", folder)[1])["videos"] == train + test

    status, out, _ = run("predict", "run", folder, "--csv", "new.csv")
    assert (status, out.split(":")[0]) == (0, f"{len(files)} videos, 0 unreadable")
    with open("new.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {p.relative_to(folder).as_posix() for p in files}
    assert all(row["class 1"] in counts and row["error"] == "" for row in rows)

    assert run("report", "run")[0] == 0
    page = unescape(Path("run/report.html").read_text(encoding="utf-8"))
    for label, (_, number) in counts.items():
        assert re.search(rf"{re.escape(label)}</t[dh]>\s*<td[^>]*>{number}</td>", page), label


def scanned(run, folder: Path, counts: dict[str, tuple[int, int]]) -> None:
    """A scan finds no problem and shows, for each class, the videos of each split."""
    status, out, _ = run("scan", folder, "--recipe", "own-cpu")
    assert status == 0, out
    assert out.startswith(f"{sum(map(sum, counts.values()))} files, 0 with problems")
    for label, (train, test) in counts.items():
        assert re.search(rf"^{re.escape(label)} +{train} +{test} ", out, re.MULTILINE), out


def normalized(run, folder: Path, new: Path) -> Path:
    """The folder in a form that can be read, once a scan has told what cannot be, and why."""
    status, out, _ = run("scan", folder, "--recipe", "own-cpu", "--json", "scan.json")
    reports = {
        Path(report["path"]).name: report for report in json.loads(Path("scan.json").read_text())
    }
    assert status == 1 and out.startswith("23 files, 2 with problems")
    problems = {name: [kind for kind, _ in report["problems"]] for name, report in reports.items()}
    assert problems["broken.mp4"] == ["unreadable"] and len(problems["00001.MTS"]) == 1
    assert reports["notes.txt"]["notes"][0][0] == "passed over"
    status, out, _ = run("normalize", folder, new)
    assert status == 0 and "22 videos written; left out: 2" in out
    left_out = (new / "left_out.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(": ")[0] for line in left_out] == [
        str(folder / CLASSES[1] / name) for name in ("broken.mp4", "notes.txt")
    ]
    return new
