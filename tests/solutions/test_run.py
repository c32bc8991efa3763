"""`make run`: what the notebook reports, what the terminal shows, Ctrl-C, and resuming."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import run as program
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from vmae import ROOT
from vmae.config import MaskConfig
from vmae.course import viz
from vmae.data import DataConfig
from vmae.support.progress import ProgressFile, Silent
from vmae.train import OptimConfig, PretrainConfig, pretrain

NOTEBOOK = """\
import os, time
from vmae.support.progress import ProgressFile
told = ProgressFile("pre-train", 2, 40, "runs/mine/pretrain")
try:
    for step in range(3, 41):
        told.update(step, 1 / step, 1234.5)
        time.sleep(seconds)
except KeyboardInterrupt:
    open("saved", "w").close()
    raise
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Reads what was reported so far."""
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv("VMAE_PROGRESS", str(path))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


def test_a_stage_reports_its_losses_its_end_and_a_step_a_second(told, monkeypatch):
    now = iter([0.0, 0.5, 1.5, 1.5, 1.6, 1.7, 1.7, 1.8])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    file = ProgressFile("pre-train", 10, 100, Path("runs/mine"))
    for step in (11, 12, 13):  # half a second after the start, 1.5 seconds, 1.6 seconds
        file.update(step)
    file.update(14, 0.25, 300.0)
    file.update(100)
    assert told() == [
        {"stage": "pre-train", "step": 10, "steps": 100, "start": True, "folder": "runs/mine"},
        {"stage": "pre-train", "step": 12, "steps": 100},
        {"stage": "pre-train", "step": 14, "steps": 100, "loss": 0.25, "clips_per_second": 300.0},
        {"stage": "pre-train", "step": 100, "steps": 100},
    ]


def test_work_in_a_notebook_reports_too(told, monkeypatch):
    monkeypatch.setattr(
        "vmae.course.viz.progress.display", lambda *_, **__: type("", (), {"update": print})
    )
    assert list(viz.track("abc", 3, "decode")) == ["a", "b", "c"]
    assert [(line["stage"], line["step"], line["steps"]) for line in told()] == [
        ("decode", 0, 3),
        ("decode", 3, 3),
    ]


def test_training_reports_whatever_shows_it(told, tiny, motion_mini, tmp_path):
    """As in the last notebook, where fine-tuning shows nothing."""
    config = PretrainConfig(
        model=tiny.replace(normalize_targets=False), mask=MaskConfig("tube", 0.5), data=DataConfig(str(motion_mini), num_workers=0, cache=False),
        optim=OptimConfig(steps=5, batch_size=2), log_every=2,
    )  # fmt: skip
    pretrain(config, tmp_path / "run", progress=Silent())
    assert told()[0]["folder"] == str(tmp_path / "run")
    losses = {line["step"]: line["loss"] for line in told() if "loss" in line}
    kept = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses == {row["step"]: row["loss"] for row in kept} and list(losses) == [2, 4, 5]
    pretrain(config, tmp_path / "run", progress=Silent(), resume=True)
    assert (told()[-1]["step"], told()[-1]["start"]) == (5, True)


def test_without_a_listener_nothing_is_written_and_no_work_ends_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VMAE_PROGRESS", raising=False)
    ProgressFile("decode", 0, 3).update(3)
    monkeypatch.setenv("VMAE_PROGRESS", str(tmp_path / "gone" / "file"))
    ProgressFile("decode", 0, 3).update(3)
    assert not list(tmp_path.iterdir())


def lines_of(display) -> list[dict]:
    start = {"stage": "pre-train", "step": 100, "steps": 400, "start": True, "folder": "runs/mine"}
    display.show(start)
    for step in (150, 200):
        loss = {"loss": 10 / step, "clips_per_second": 1234.5}
        display.show({"stage": "pre-train", "step": step, "steps": 400} | loss)
    display.show({"stage": "pre-train", "step": 400, "steps": 400})
    display.show({"stage": "decode", "step": 0, "steps": 0, "start": True})  # nothing to do


def test_a_file_gets_plain_lines_in_a_rhythm():
    out = io.StringIO()
    lines_of(program.Display(out, rhythm=1e6))
    first, last = out.getvalue().splitlines()
    assert first == "  pre-train resumes after step 100 of 400"
    assert re.fullmatch(
        r"  pre-train: 400 of 400, loss 0\.0500, 1,2\d\d clips/s, 00:0\d elapsed", last
    )
    out = io.StringIO()
    lines_of(program.Display(out, rhythm=0))
    assert [line.split(",")[0] for line in out.getvalue().splitlines()[1:]] == [
        f"  pre-train: {step} of 400" for step in (100, 150, 200, 400)
    ]
    assert "left" in out.getvalue() and "\r" not in out.getvalue()


def test_a_terminal_gets_a_bar_with_loss_rate_and_time_left():
    out = io.StringIO()
    out.isatty = lambda: True
    lines_of(program.Display(out))
    shown = out.getvalue().split("\r")
    bar = r"  pre-train +50% \|.*\| 200/400, loss 0\.0500, 1,2\d\d clips/s, 00:0\d, 00:0\d left"
    assert any(re.fullmatch(bar, text.rstrip()) for text in shown), shown
    assert shown[-1].startswith("  pre-train 100% |") and shown[-1].endswith("\n")


def test_the_start_of_workers_is_no_part_of_the_estimate(monkeypatch):
    display = program.Display(io.StringIO(), rhythm=1e6)
    now = [0.0]
    for clock in ("time.time", "tqdm.std.time"):
        monkeypatch.setattr(clock, lambda: now[0])
    display.show({"stage": "decode", "step": 0, "steps": 100, "start": True})
    for step, now[0] in ((1, 1000.0), (11, 1010.0)):
        display.show({"stage": "decode", "step": step, "steps": 100})
    assert "11 of 100" in str(display.bar) and "01:29 left" in str(display.bar)


def test_half_a_line_waits_for_its_end(tmp_path):
    out, path = io.StringIO(), tmp_path / "progress.jsonl"
    run = program.Run(path, program.Display(out, rhythm=0))
    whole = json.dumps({"stage": "decode", "step": 1, "steps": 2, "start": True}) + "\n"
    path.write_text(whole[:20])
    run.poll()
    assert not out.getvalue()
    path.write_text(whole + whole[:9])
    run.poll()
    run.poll()
    assert out.getvalue().count("resumes after step 1") == 1


def test_cells_know_their_section():
    cells = nbformat.read(ROOT / "solutions" / program.NAME, as_version=4).cells
    titles = program.section_titles(cells)
    assert titles[0] == "" and titles[-2:].count("") >= 1  # prose
    named = list(dict.fromkeys(filter(None, titles)))
    assert {"Data", "Pre-training", "Linear probe"} < set(named)
    trains = next(i for i, cell in enumerate(cells) if "trained = train.pretrain(" in cell.source)
    assert titles[trains] == "Pre-training"


@pytest.fixture
def course(tmp_path) -> Path:
    """A checkout with the program and a short notebook."""
    folder = tmp_path / "the course"
    for name in ("solutions", "notebooks"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / "run.py", folder / "solutions")
    parameters = new_code_cell("seconds = 0.01", metadata={"tags": ["parameters"]})
    heading = new_markdown_cell("## Pre-training\n\nA sentence.")
    answer = new_code_cell("print('it is', 42)", metadata={"tags": ["answer"]})
    notebook = new_notebook(cells=[parameters, heading, new_code_cell(NOTEBOOK), answer])
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": ""}
    nbformat.write(notebook, folder / "solutions" / program.NAME)
    return folder


def started(course: Path, *parameters: str) -> dict:
    command = [sys.executable, str(course / "solutions" / "run.py"), *parameters]
    return {"args": command, "env": os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}}


def test_the_program_runs_the_notebook_with_parameters(course):
    done = subprocess.run(**started(course, "-p", "seconds", "0"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split(", ")[0] for line in done.stdout.splitlines()] == [
        "[1/1] Pre-training",
        "  pre-train resumes after step 2 of 40",
        "  pre-train: 40 of 40",
        "it is 42",
    ]
    assert "encryption" not in done.stderr
    executed = nbformat.read(course / "runs" / program.NAME, as_version=4)
    assert "seconds = 0\n" in executed.cells[1].source


def test_an_error_in_a_cell_is_shown_and_is_no_success(course):
    command = started(course, "-y", "{seconds: soon}")
    done = subprocess.run(**command, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'failed in "Pre-training": TypeError: ' in done.stdout and "stopped" not in done.stdout
    assert "the whole traceback is in runs/10_full_run.ipynb" in done.stdout
    assert "Traceback" not in done.stdout
    executed = nbformat.read(course / "runs" / program.NAME, as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert any(output.get("ename") == "TypeError" and output.traceback for output in outputs)


def test_the_answer_of_the_lesson_is_what_the_terminal_shows():
    executed = nbformat.read(ROOT / "solutions" / program.NAME, as_version=4)
    assert program.answer(executed).startswith("pre-training ahead by +")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others")
def test_ctrl_c_that_ends_the_reader_of_the_output_too_interrupts_the_kernel(course):
    """As in `make run | tee log`."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(**started(course, "-p", "seconds", "0.5"), **pipes) as run:
        while "resumes after step 2" not in run.stdout.readline():
            pass
        run.stdout.close()
        run.send_signal(signal.SIGINT)
        told = run.stderr.read()
    assert run.returncode == 130 and (course / "notebooks" / "saved").exists()
    assert "the run is kept in runs/mine/pretrain" in told and "Traceback" not in told
    assert "BrokenPipe" not in told


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_ctrl_c_on_a_terminal_interrupts_the_kernel_and_says_how_to_resume(course):
    import fcntl
    import pty
    import struct
    import termios

    command = started(course, "-p", "seconds", "0.5")
    child, terminal = pty.fork()
    if not child:
        os.execve(sys.executable, command["args"], command["env"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    text = b""
    while b"clips/s" not in text:
        text += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    while True:
        try:
            text += os.read(terminal, 4096)
        except OSError:  # the program has ended
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    shown = text.decode()
    assert re.search(r"pre-train +\d+% \|.*\| \d+/40, loss 0\.\d+, 1,23\d clips/s", shown)
    assert 'stopped in "Pre-training": the run is kept in runs/mine/pretrain' in shown
    assert "make run PARAMS='-p seconds 0.5'" in shown and "Traceback" not in shown
    assert (course / "notebooks" / "saved").exists()  # the kernel was not killed
