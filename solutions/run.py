"""Runs the last notebook and shows what it does: `make run`.

    python solutions/run.py                    with the parameters that the notebook states
    python solutions/run.py -p recipe gpu      with others: papermill's options

Executes solutions/10_full_run.ipynb into runs/10_full_run.ipynb. A terminal shows the section, and
for each stage a bar with loss, clips per second and the time left; a file gets plain lines. They
come from the kernel, which writes its progress to the file that VMAE_PROGRESS names. Ctrl-C and
SIGTERM interrupt the kernel as JupyterLab would: training saves a checkpoint, from which the same
command resumes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import click
import nbformat
from jupyter_core.utils import run_sync
from nbformat import NotebookNode
from papermill.cli import papermill
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.log import logger
from tqdm import tqdm

from vmae.support.text import rate

ROOT = Path(__file__).resolve().parents[1]
NAME = "10_full_run.ipynb"
BAR = (
    "  {desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}, {elapsed}, {remaining} left"
)
LINE = "  {desc}: {n_fmt} of {total_fmt}{postfix}, {elapsed} elapsed, {remaining} left"
RHYTHM = 30.0  # seconds between plain lines


class Display:
    """The notebook's sections and the stages of its work: bars on a terminal, else plain lines."""

    def __init__(self, out: TextIO, rhythm: float = RHYTHM) -> None:
        self.out, self.rhythm, self.terminal = out, rhythm, out.isatty()
        self.bar: tqdm | None = None
        self.null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def print(self, what: object) -> None:
        """Print, to stderr once nobody reads the output: Ctrl-C ends a `tee` as well."""
        while True:
            try:
                return print(what, file=self.out, flush=True)
            except BrokenPipeError:
                os.dup2(self.null.fileno(), self.out.fileno())  # or Python fails at its end
                self.out = sys.stderr

    def say(self, text: str) -> None:
        """A line of its own."""
        self.end_stage()
        self.print(text)

    def show(self, line: dict[str, Any]) -> None:
        """Take a line of the progress file: a stage, which may be a new one, is at a step."""
        stage, step, steps = line["stage"], line["step"], line["steps"]
        if not steps:  # all of it was done before
            return
        if line.get("start") and 0 < step < steps:
            self.say(f"  {stage} resumes after step {step:,} of {steps:,}")
        if line.get("start") or self.bar is None or self.bar.desc != stage:
            self.end_stage()
            # Where there is no terminal, tqdm keeps count, and its lines are printed from here.
            self.bar = tqdm(
                total=steps, initial=step, desc=stage, file=self.out if self.terminal else self.null,
                bar_format=BAR if self.terminal else LINE, dynamic_ncols=True,
                mininterval=0, miniters=1, smoothing=0.02,
            )  # fmt: skip
            self.printed, self.timed = time.monotonic(), False
        if line.get("loss") is not None:
            shown = f"loss {line['loss']:.4f}, {rate(line['clips_per_second'])} clips/s"
            self.bar.set_postfix_str(shown, refresh=False)
        if step > self.bar.n and not self.timed:
            # What the first step took was the start of workers: no estimate of the others.
            self.timed = True
            self.bar.initial = self.bar.n = self.bar.last_print_n = step
            self.bar.last_print_t = time.time()
            self.bar.refresh()
        self.bar.update(step - self.bar.n)
        if step == steps:
            self.end_stage()
        elif not self.terminal and time.monotonic() - self.printed > self.rhythm:
            self.print_line()

    def print_line(self) -> None:
        """The state of the stage, as a plain line."""
        self.print(self.bar)
        self.printed = time.monotonic()

    def end_stage(self) -> None:
        """Leave the last state of a stage standing."""
        if self.bar is not None:
            if self.bar.n == self.bar.total:
                self.bar.bar_format = self.bar.bar_format.replace(", {remaining} left", "")
            if not self.terminal:
                self.print_line()
            self.bar.close()
            self.bar = None


class Run:
    """One execution of the notebook: what it has reported, and whether it is to stop."""

    def __init__(self, progress: Path, display: Display) -> None:
        self.progress, self.display = progress, display
        self.read = 0  # bytes of the progress file
        self.section, self.folder = "", ""  # where it is; where training keeps its checkpoints
        self.client: Client | None = None
        self.signal = 0

    def poll(self) -> None:
        """Show what the kernel has written since the last time; half a line waits for its end."""
        with open(self.progress, "rb") as file:
            file.seek(self.read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in map(json.loads, whole.splitlines()):
            self.folder = line.get("folder") or self.folder
            if not self.signal:
                self.display.show(line)

    async def follow(self) -> None:
        """Poll for as long as a cell runs."""
        while True:
            self.poll()
            await asyncio.sleep(0.5)

    def begin(self, titles: list[str], index: int) -> None:
        """Say that a section begins, at its first cell."""
        if titles[index] not in ("", self.section):
            self.section = titles[index]
            names = list(dict.fromkeys(filter(None, titles)))
            self.display.say(f"[{names.index(self.section) + 1}/{len(names)}] {self.section}")

    def stop(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: the first interrupts the kernel, whose cell ends; a second kills it."""
        repeated, self.signal = bool(self.signal), number
        if self.client is not None and self.client.loop is not None and not repeated:
            loop = self.client.loop
            loop.call_soon_threadsafe(lambda: loop.create_task(self.interrupt()))
            return
        if self.client is not None:
            self.client.shutdown_kernel = "immediate"
        raise KeyboardInterrupt

    async def interrupt(self) -> None:
        """Interrupt the kernel, as Jupyter's button does."""
        assert self.client is not None
        if self.client.km is not None:
            await self.client.km.interrupt_kernel()
        self.display.say("stopping after this step; Ctrl-C again stops at once")

    def farewell(self, parameters: list[str]) -> str:
        """Where a stopped run is, and how it is resumed."""
        chosen = f" PARAMS={shlex.quote(shlex.join(parameters))}" if parameters else ""
        where = f' in "{self.section}"' if self.section else ""
        kept = f"the run is kept in {self.folder}; what follows pre-training starts over"
        kept = kept if self.folder else "nothing is trained yet"
        return f"stopped{where}: {kept}\nresume with the same command:\n  make run{chosen}"

    def failure(self, error: Exception) -> str:
        """Where a run failed, and how; the notebook keeps the traceback."""
        if not isinstance(error, PapermillExecutionError):
            return f"{error}"
        return (
            f'failed in "{self.section}": {error.ename}: {error.evalue}\n'
            f"the whole traceback is in runs/{NAME}"
        )


def section_titles(cells: list[NotebookNode]) -> list[str]:
    """For each cell of code the heading of its section; for others nothing."""
    titles, title = [], ""
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            title = cell.source.splitlines()[0].removeprefix("## ")
        titles.append(title if cell.cell_type == "code" else "")
    return titles


class Client(PapermillNotebookClient):
    """papermill's client; while a cell runs, its progress is followed."""

    loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, nb_man: NotebookExecutionManager, run: Run, **options: Any) -> None:
        super().__init__(nb_man, **options)
        self.run, self.titles = run, section_titles(self.nb.cells)

    async def async_execute_cell(
        self, cell: NotebookNode, cell_index: int, *more: Any, **options: Any
    ) -> NotebookNode:
        self.loop = asyncio.get_running_loop()
        if self.run.signal:  # it came between two cells, where the kernel ignores it
            raise KeyboardInterrupt
        self.run.begin(self.titles, cell_index)
        following = self.loop.create_task(self.run.follow())
        try:
            return await super().async_execute_cell(cell, cell_index, *more, **options)
        finally:
            following.cancel()
            self.run.poll()

    execute_cell = run_sync(async_execute_cell)


def answer(notebook: NotebookNode) -> str:
    """What the cell printed that is tagged "answer"."""
    cells = [x for x in notebook.cells if "answer" in x.metadata.get("tags", [])]
    return "".join(x.get("text", "") for cell in cells for x in cell.outputs).rstrip()


def engine(run: Run) -> type[NBClientEngine]:
    """papermill's engine with that client."""

    class Followed(NBClientEngine):
        @classmethod
        def execute_managed_notebook(
            cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any
        ) -> NotebookNode:
            run.client = Client(
                nb_man, run, kernel_name=kernel_name, log=logger,
                startup_timeout=options["start_timeout"], timeout=options["execution_timeout"],
                extra_arguments=["--log-level=ERROR"],  # of the kernel: its warnings are no news here
            )  # fmt: skip
            return run.client.execute()

    return Followed


def main(parameters: list[str], out: TextIO = sys.stdout) -> int:
    """Run it; returns 1 after an error in a cell, and 128 + the signal's number after a signal."""
    target = ROOT / "runs" / NAME
    target.parent.mkdir(exist_ok=True)
    display = Display(out)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "progress.jsonl", display)
        run.progress.touch()
        os.environ["VMAE_PROGRESS"] = str(run.progress)  # the kernel inherits it
        papermill_engines.register("followed", engine(run))
        signal.signal(signal.SIGINT, run.stop)
        signal.signal(signal.SIGTERM, run.stop)
        options = ["--engine=followed", "--no-progress-bar", "--log-level=WARNING"]
        paths = [str(ROOT / "solutions" / NAME), str(target), f"--cwd={ROOT / 'notebooks'}"]
        try:
            papermill.main([*paths, *options, *parameters], standalone_mode=False)
            if found := answer(nbformat.read(target, as_version=4)):
                display.say(found)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (click.Abort, PapermillExecutionError) as error:
            display.say(run.farewell(parameters) if run.signal else run.failure(error))
            return 128 + run.signal if run.signal else 1
        display.end_stage()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
