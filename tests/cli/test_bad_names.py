"""A file whose name is not UTF-8 is one named bad file, in every command that reads videos."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from vmae.cli.main import _parser, main
from vmae.config import MaskConfig, ModelConfig
from vmae.data import DataConfig, write_video
from vmae.train import FinetuneConfig, OptimConfig, PretrainConfig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")

#: The commands that read no videos of the user's.
OTHERS = {"render", "check-env", "progress", "experiments", "convert"}
MODEL = ModelConfig.videomae("tiny", depth=1)
WORDS = "the file name is not valid UTF-8: rename the file"


def videos(folder: Path) -> Path:
    """Twenty videos of two classes; of each of the three splits, the name of one is in Latin-1."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number:02}.mp4"
            write_video(path, rng.integers(0, 256, (9, 32, 40, 3)).astype(np.uint8))
        bad = os.fsencode(folder / split / "a") + f"/{split}-".encode() + b"\xed.mp4"
        try:
            os.rename(folder / split / "a" / "00.mp4", bad)
            os.listdir(folder / split / "a")
        except OSError:
            pytest.skip("this file system has only names in Unicode")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with such a set, two configurations, and a run of each."""
    top = tmp_path_factory.mktemp("named")
    (top / "data" / "stores").mkdir(parents=True)
    data = DataConfig(path=str(videos(top / "set")), cache_dir=str(top / "data" / "stores"),
                      cache=False, num_workers=0, max_unreadable=0.3)  # fmt: skip
    shared = {"model": MODEL, "data": data, "optim": OptimConfig(steps=2, batch_size=4)}
    PretrainConfig(**shared, mask=MaskConfig("tube", 0.75)).to_yaml(top / "pretrain.yaml")
    FinetuneConfig(**shared, val_share=0.15).to_yaml(top / "finetune.yaml")
    with pytest.warns(UserWarning, match=WORDS):
        assert main(["finetune", str(top / "finetune.yaml"), "--out", str(top / "run")]) == 0
    return top


#: The arguments of each command, its status, and the splits whose bad file it must name.
COMMANDS = {
    "scan": ("set --num-frames 8 --num-workers 1", 1, ["train", "val", "test"]),
    "normalize": ("set new --num-workers 1", 0, ["train", "val", "test"]),
    "store": ("set --pixels 16 --num-workers 1", 0, ["train", "val", "test"]),
    "plan": ("finetune.yaml", 0, []),
    "pretrain": ("pretrain.yaml --out other", 0, ["train"]),
    "finetune": ("finetune.yaml --out tuned", 0, ["train", "val", "test"]),
    "evaluate": ("run", 0, ["test"]),
    "evaluate --data": ("run --data set", 0, ["train", "val", "test"]),
    "predict": ("run set --num-workers 1", 1, ["train", "val", "test"]),
    "predict --csv": ("run set --csv out.csv --num-workers 1", 1, ["train", "val", "test"]),
    "report": ("run", 0, ["train", "val", "test"]),
}  # fmt: skip


def test_every_command_is_tried():
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(commands.choices) - OTHERS == {name.split()[0] for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_bad_file_is_named_and_the_others_are_used(name, trained, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(trained)
    arguments, expected, splits = COMMANDS[name]
    status = main([name.split()[0], *arguments.split()]) or 0
    out, err = capfd.readouterr()
    said = out + err + "".join(str(warning.message) for warning in recwarn)
    made = {
        "normalize": "new/left_out.txt",
        "predict --csv": "out.csv",
        "report": "run/report.html",
    }
    if name in made:
        said += Path(made[name]).read_text(encoding="utf-8")
    said = said.replace(r"\\", "\\")  # names in quotes
    assert status == expected, said
    for split in ("train", "val", "test"):
        assert (rf"{split}-\xed.mp4" in said) == (split in splits), (split, said)
    told = name not in (
        "plan",
        "evaluate",
        "report",
    )  # the last two are about a run, which has said why
    assert (WORDS in said) == told, said
