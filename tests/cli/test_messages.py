"""Mistyped paths, recipes and fields: what was tried, near names, and what to type instead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vmae import ROOT, at_root
from vmae.cli.main import main
from vmae.config import ModelConfig
from vmae.data import DataConfig, SetError, load_set
from vmae.data.reading.loader import open_set
from vmae.data.reading.player import VideoError, video_info
from vmae.support.near import near, not_found
from vmae.support.progress import Bar, Record
from vmae.support.text import aligned, columns, rate
from vmae.train import Recipe
from vmae.vit import VisionTransformer
from vmae.weights import CheckpointError, load, save


def message(capsys, *arguments: object) -> str:
    assert main([*map(str, arguments)]) == 1
    return capsys.readouterr().err


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder outside the checkout, with a set of one class and a folder of weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my clips" / "run").mkdir(parents=True)
    (tmp_path / "my clips" / "run" / "a.mp4").write_bytes(b"no video")
    torch.manual_seed(0)
    classifier = VisionTransformer(ModelConfig.videomae("tiny", depth=1, embed_dim=32), 3)
    save(classifier, tmp_path / "weights" / "vit-s")
    return tmp_path


def test_a_mistyped_set_is_named_with_its_neighbour_and_both_places(here, capsys):
    for command in (["pretrain", "own", "--set", "data.path=myclips", "--out", "run"], ["scan", "myclips"], ["store", "myclips", "--pixels", "16"],
                    ["plan", "own", "--data", "myclips"],
                    ["normalize", "myclips", "out"]):  # fmt: skip
        error = message(capsys, *command)
        assert "vmae: myclips: no such folder or list file (did you mean 'my clips'?)" in error
        assert f"looked for {here / 'myclips'} and {ROOT / 'myclips'}" in error
        assert "render" not in error
    with pytest.raises(SetError, match=r"myclips/run: no .* \(did you mean 'my clips/run'\?\)"):
        load_set("myclips/run")


def refused(capsys, *arguments: str) -> str:
    """The usage and the error of a command that argparse refuses."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_path_with_spaces_needs_quotes(here, capsys):
    own = ["finetune", "own", "--out", "run"]
    for command, hint in (
        (["scan", "../my", "clips", "--json", "a"], "../my clips"),
        (["scan", "../my", "own", "clips"], "../my own clips"),
        (["predict", "weights/vit-s", "my", "clips"], "my clips"),
        (["normalize", "my", "clips", "out"], "my clips"),
        ([*own, "--set", "data.path=my", "clips"], "data.path=my clips"),
        (["evaluate", "run", "--data", "my", "clips", "--probe"], "my clips"),
    ):
        error = refused(capsys, *command)
        assert error.startswith(f"usage: vmae {command[0]} "), "not the list of all commands"
        assert error.endswith(f' (a path with spaces needs quotes: "{hint}")\n'), error
    for change in (["data.path", "=", "x"], ["data.path=", "x"], ["data.path", "=x"]):
        error = refused(capsys, *own, "--set", *change)
        assert error.endswith(" (no spaces around =: data.path=x)\n"), error
    error = refused(capsys, "scan", "my clips", "--steps", "3")
    assert error.endswith("vmae scan: error: unrecognized arguments: --steps 3\n")


def test_a_home_folder_in_a_configuration(here, capsys, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(here))
    assert load_set("~/my clips").train[0].path == here / "my clips" / "run" / "a.mp4"
    (here / "list.csv").write_text("a.mp4 0 -1\n")
    data = DataConfig(path="~/list.csv", root="~/my clips/run")
    assert open_set(data).train[0].path == here / "my clips" / "run" / "a.mp4"
    assert at_root("~/stores") == here / "stores"
    error = message(capsys, "plan", "own", "--set", "data.path=~/myclips")
    assert f"{here / 'myclips'}: no such folder or list file (did you mean " in error
    assert f"{str(here / 'my clips')!r}" in error and "looked for" not in error


def test_the_placeholder_of_a_recipe_is_nobodys_path(here, capsys):
    error = message(capsys, "plan", "own")
    assert error.startswith("vmae: my-videos: no such folder or list file; looked for ")
    assert "Correct the path" not in error
    assert "my-videos is the recipe's placeholder: pass `--set data.path=FOLDER`" in error
    for name in ("own", "own-cpu"):
        for part in (Recipe.load(name).pretrain, Recipe.load(name).finetune):
            with pytest.raises(SetError, match=r"pass `--set data\.path=FOLDER`"):
                open_set(part.data)


def test_only_a_set_that_render_makes_is_to_be_rendered():
    for name, what in (("motion-textures-small", "motion"), ("film-32", "film"), ("films", None)):
        with pytest.raises(SetError) as error:
            load_set(f"data-of-nobody/{name}")
        assert (f"Run `vmae render {what}`" in str(error.value)) == bool(what)


def test_without_a_checkout_the_film_is_said_to_be_in_the_repository(here, capsys, monkeypatch):
    """As after the installation of the wheel, which holds neither film nor photos."""
    monkeypatch.setattr("vmae.course.making.film.FILM", here / "data" / "film.mp4")
    error = message(capsys, "render", "film", "--out", "set")
    assert f"{here / 'data' / 'film.mp4'}: there is no such file" in error
    assert "in the course's repository, not in the installed package" in error


def test_mistyped_weights_and_runs(here, capsys):
    for weights in ("weights/vits", "weight/vit-s"):
        error = message(capsys, "finetune", "own", "--out", "run", "--encoder", weights)
        assert "did you mean 'weights/vit-s'?" in error, error
    error = message(capsys, "finetune", "own", "--out", "run", "--encoder", "vit-s.pth")
    assert "vit-s.pth: no such file or folder of weights" in error
    assert str(here / "vit-s.pth") in error and str(ROOT / "vit-s.pth") in error
    for command in (["predict", "weights/vits", "my clips"], ["report", "weights/vits"],
                    ["evaluate", "weights/vits"]):  # fmt: skip
        error = message(capsys, *command)
        assert "did you mean 'weights/vit-s'?" in error, error
    error = message(capsys, "predict", "weights/vit-s", "my clip")
    assert "my clip: no such file or folder (did you mean 'my clips'?); looked for" in error
    assert str(ROOT / "my clip") not in error, (
        "videos to predict are not looked for in the checkout"
    )


def test_near_names(here):
    assert near("nothing/like/it") == ""
    assert near(here / "my clips" / "run" / "A.MP4") == f" (did you mean {str(here)!r}"[:-1] + (
        "/my clips/run/a.mp4'?)"
    )
    assert near(here / "my clips" / "run" / "a.mp4" / "below") == ""
    assert not_found(here / "none", "folder").endswith("none: no such folder")


def test_a_config_in_place_of_weights(here):
    folder = here / "weights" / "vit-s"
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"text file beside them: pass the folder, {folder}"):
        load(folder / "config.json")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"text file beside them: pass other\.safetensors"):
        load(folder / "config.json")
    (folder / "other.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"pass a \.safetensors, \.bin or \.pth file"):
        load(folder / "config.json")


def test_a_misspelt_recipe_and_a_field_as_it_was_typed(here, capsys):
    first, names = message(capsys, "finetune", "owm", "--out", "run").splitlines()
    assert first.startswith("vmae: unknown recipe 'owm' (did you mean own?): choose from these")
    assert names.split(", ")[0] == "  " + min(
        p.stem for p in Path(ROOT).glob("vmae/train/recipes/*.yaml")
    )
    Recipe.load("own").to_yaml("mine.yaml")
    error = message(capsys, "finetune", "mein.yaml", "--out", "run")
    assert "this configuration file does not exist (did you mean 'mine.yaml'?)" in error
    error = message(capsys, "finetune", "own", "--out", "run", "--set", "data.clipseconds=1")
    assert "has no field data.clipseconds (did you mean clip_seconds?)" in error
    error = message(capsys, "plan", "own", "--set", "data.stride=x")
    assert error == "vmae: data.stride is 'x'; it must be of type int\n"


def test_a_mistyped_name_does_not_wait_for_pytorch(here):
    code = (
        "import sys; from vmae.cli.main import main; status = main(sys.argv[1:]);"
        "print(status, sorted({'torch', 'numpy'} & sys.modules.keys()))"
    )
    for command in (["finetune", "owm", "--out", "run"], ["plan", "owm"], ["pretrain", "a.yaml", "--out", "run"],
                    ["predict", "weights/vit-s", "nowhere"], ["report", "nowhere"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.stdout == "1 []\n", command


def test_errors_of_ffmpeg_come_without_numbers(here):
    broken = here / "broken.mp4"
    data = (ROOT / "data" / "big_buck_bunny_shot.mp4").read_bytes()
    for content in (b"no video", data[:1000], data[:20] + bytes(500) + data[520:]):
        broken.write_bytes(content)
        with pytest.raises(VideoError) as error:
            video_info(broken)
        assert not re.search(r"Errno|\d{6}", str(error.value).removeprefix(str(broken)))
    with pytest.raises(VideoError, match=r"opened as a video \(Is a directory\)|no video"):
        video_info(here / "my clips")


def test_slow_runs_have_a_rate():
    shown = {0.42: "0.42", 0.0042: "0.0042", 3.44: "3.4", 9.97: "10", 12.3: "12", 4321.0: "4,321"}
    assert {number: rate(number) for number in shown} == shown


def test_the_bar_shows_a_slow_rate(capsys):
    bar = Bar()
    bar.start("fine-tune", 0, 2)
    bar.update(1, Record(1, 0.5, 0.1, 0.42, 2.0))
    bar.close()
    assert "clips/s=0.42" in capsys.readouterr().err


def test_make_setup_ends_with_how_to_begin():
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "setup"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    last = done.stdout.splitlines()[-1]
    assert (
        last.startswith("echo 'ready: ") and "activate it with `source .venv/bin/activate`" in last
    )
    assert "make lab" in last and ".venv" in last.split("Windows")[1]


def test_make_lab_passes_options_on():
    done = subprocess.run(
        ["make", "-n", "lab", "LAB=--allow-root"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(
        r"jupyter lab .*default_url=/lab/tree/notebooks --allow-root$", done.stdout, re.M
    )
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "LAB=--allow-root" in told.stdout


def test_numbers_that_make_no_sense_are_refused_before_anything_is_read(tmp_path, capsys):
    for arguments, words in (
        ("store {} --pixels 0", "argument --pixels: 0 is too small: it must be at least 1"),
        ("scan {} --num-frames 0", "argument --num-frames: 0 is too small"),
        ("scan {} --stride -1", "argument --stride: -1 is too small"),
        (
            "normalize {} out --num-workers -1",
            "argument --num-workers: -1 is too small: it must be at",
        ),
        ("scan {} --stride two", "argument --stride: invalid int value: 'two'"),
    ):
        with pytest.raises(SystemExit):
            main(arguments.format(tmp_path).split())
        assert words in capsys.readouterr().err


def test_a_video_is_no_set(tmp_path, capsys):
    (tmp_path / "a.MP4").write_bytes(bytes(range(256)))
    assert main(["scan", str(tmp_path / "a.MP4")]) == 1
    assert "a.MP4 is one video: pass its folder, or a list file" in capsys.readouterr().err


def test_tables_are_aligned_as_a_terminal_shows_them():
    assert [columns(text) for text in ("jump", "跳", "hüpfen", "hu\u0308pfen", "ﾊ")] == [
        4,
        2,
        6,
        6,
        1,
    ]
    lines = aligned([["class", "train"], ["跳 hüpfen", "10"], ["jump", "7"]])
    assert lines == ["class      train", "跳 hüpfen  10", "jump       7"]
