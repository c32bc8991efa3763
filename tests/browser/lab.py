"""JupyterLab, served on copies of the learner's notebooks, and the tabs of a browser that drives it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from papermill.iorw import load_notebook_node, write_ipynb
from papermill.parameterize import parameterize_notebook

from vmae import ROOT

#: Where the screenshots go that people look at.
SHOTS = ROOT / "runs" / "browser"
TOKEN = "browser-test"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Notebook:
    """A notebook that is open in a tab."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def command(self, name: str) -> Any:
        """Run a command of JupyterLab and wait for its end."""
        return self.page.evaluate("name => jupyterapp.commands.execute(name)", name)

    def cells(self) -> list[dict[str, Any]]:
        """The cells as they are now, with sources and outputs."""
        current = "jupyterapp.shell.currentWidget"
        return self.page.evaluate(f"() => {current}.context.model.toJSON().cells")

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")

    def run_to(self, index: int) -> Any:
        """Run the cells up to and with this one; its element."""
        cell = self.show(index)
        self.command("notebook:run-all-above")
        self.command("notebook:run-cell")
        return cell

    def index(self, text: str) -> int:
        """The first code cell whose source holds a text."""
        return next(
            i
            for i, c in enumerate(self.cells())
            if c["cell_type"] == "code" and text in c["source"]
        )

    def errors(self) -> list[str]:
        """Errors in any output, and what was written to stderr."""
        outputs = [o for c in self.cells() for o in c.get("outputs", [])]
        raised = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
        stderr = [o["text"] for o in outputs if o.get("name") == "stderr"]
        return raised + ["".join(text) for text in stderr]

    def write(self, index: int, source: str) -> None:
        """Put a source into a cell, as a learner would type it."""
        self.page.evaluate(
            "([i, s]) => jupyterapp.shell.currentWidget.content.widgets[i].model.sharedModel.setSource(s)",
            [index, source],
        )

    def run(self, index: int) -> None:
        """Run one cell."""
        self.show(index)
        self.command("notebook:run-cell")

    def text(self, index: int) -> str:
        """What a cell printed."""
        outputs = self.cells()[index]["outputs"]
        return "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")

    def theme(self, name: str) -> None:
        """Change JupyterLab's theme: Light or Dark."""
        self.page.evaluate(
            "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})",
            f"JupyterLab {name}",
        )
        self.page.wait_for_timeout(1000)  # until its style sheet is there

    def show(self, index: int) -> Any:
        """Select a cell and scroll to it; its element."""
        self.page.evaluate(
            "async i => { const n = jupyterapp.shell.currentWidget.content;"
            " n.activeCellIndex = i; await n.scrollToItem(i, 'start'); }",
            index,
        )
        cell = self.page.locator(f".jp-Cell[data-windowed-list-index='{index}']")
        cell.wait_for(state="attached")
        return cell

    def close(self) -> None:
        self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()


class Lab:
    """A JupyterLab server and a browser."""

    def __init__(self, folder: Path, address: str, browser: Any) -> None:
        self.folder, self.address, self.browser = folder, address, browser

    def open(self, name: str) -> Notebook:
        """A learner's notebook with the small parameters of tests/overrides.yaml, in a tab of its own."""
        overrides = yaml.safe_load((ROOT / "tests" / "overrides.yaml").read_text())[name]
        notebook = load_notebook_node(str(ROOT / "notebooks" / f"{name}.ipynb"))
        small = overrides | {"out": str(self.folder / "run")}
        write_ipynb(parameterize_notebook(notebook, small), str(self.folder / f"{name}.ipynb"))
        page = self.browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(f"{self.address}/lab/tree/{name}.ipynb?token={TOKEN}&reset")
        page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        return Notebook(page)


def _settings(folder: Path) -> dict[str, str]:
    """An environment in which JupyterLab has only its own settings, and shows no news."""
    config = folder / "config" / "labconfig"
    config.mkdir(parents=True)
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    (config / "page_config.json").write_text(json.dumps({"disabledExtensions": disabled}))
    return os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }


@contextmanager
def served(folder: Path) -> Iterator[Lab]:
    """A server and a browser, ended together; files go into `folder`."""
    from playwright.sync_api import sync_playwright

    notebooks = folder / "notebooks"
    notebooks.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    SHOTS.mkdir(parents=True, exist_ok=True)
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
         f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
         f"--ServerApp.root_dir={notebooks}", "--LabApp.expose_app_in_browser=True"],
        env=_settings(folder), stdout=log, stderr=log, cwd=notebooks,
    )  # fmt: skip
    try:
        for _ in range(120):
            try:
                urlopen(f"{address}/api?token={TOKEN}").close()
                break
            except URLError:
                assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
                time.sleep(0.5)
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            yield Lab(notebooks, address, browser)
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=30)
