"""What a contributor installs: the package as it is shipped, in an environment of its own, without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the package as it is shipped (not in place) and the embedded chain."""
    folder = tmp_path_factory.mktemp("fresh")
    source = folder / "source"
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{source}[devnet]"], check=True)
    return programs


def run(programs: Path, *arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(programs / arguments[0]), *map(str, arguments[1:])],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env={**environment, "OMP_NUM_THREADS": "1"},
    )


def test_there_is_no_torch(programs: Path, tmp_path: Path) -> None:
    assert "No module named 'torch'" in run(programs, "python", "-c", "import torch", home=tmp_path).stderr
    told = run(programs, "python", "-c", "import atoll; atoll.job", home=tmp_path)
    assert told.returncode != 0
    assert "atoll[torch]" in told.stderr


def test_a_job_of_the_zoo_trains_without_torch(programs: Path, tmp_path: Path) -> None:
    wanted = ("--nodes", 5, "--rounds", 2, "--model", "mlp", "--exit", "--plain", "--port", 0)
    done = run(programs, "atoll", "up", *wanted, "--home", "home", "--json", "out.json", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert len(found["accuracy"]) == 2
    assert found["accuracy"][-1] > 0.7
    assert found["explain"] == "match"
