"""One JupyterLab and one browser for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import CHROMIUM, Lab, served


def missing() -> str | None:
    """Why there can be no browser here; None where there can."""
    if not os.environ.get("VMAE_BROWSER"):
        return "tests in a browser run with `make test-browser`"
    if CHROMIUM is None:
        return "no Chromium on the path; install it with the system's package manager"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with served(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
