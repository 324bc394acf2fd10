"""What the browser's tests need: Node.js, the packages of this folder, a browser; without them they are skipped."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .modules import Modules

HERE = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The folder with ONNX Runtime Web and playwright-core in it, as the lockfile says."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node.js: node and npm are not on the PATH")
    if not _is_installed():
        subprocess.run(
            ["npm", "ci", "--silent", "--no-fund", "--no-audit", "--ignore-scripts"],
            cwd=HERE,
            check=True,
            timeout=240,
        )
    return HERE


def _is_installed() -> bool:
    """npm keeps a copy of the lockfile beside what it installed."""
    made = HERE / "node_modules" / ".package-lock.json"
    return made.exists() and made.stat().st_mtime >= (HERE / "package-lock.json").stat().st_mtime


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    found = next((path for path in map(shutil.which, CHROMIUM) if path), None)
    if found is None:
        pytest.skip("needs a browser: chromium is not on the PATH")
    return found


@pytest.fixture(scope="session")
def modules() -> Iterator[Modules]:
    """The browser's modules in a Node process of their own."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js: node is not on the PATH")
    with Modules() as found:
        yield found
