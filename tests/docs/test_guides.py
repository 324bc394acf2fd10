"""The programs in the guides run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.graph.archive import unpack
from tests.docs.generated_tables import ROOT

PROGRAMS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "jobs.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def run(program: str, folder: Path) -> None:
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_first_job_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="jobs are made with the extra `torch`")
    run(PROGRAMS[0], tmp_path)
    assert unpack((tmp_path / "digits.atoll").read_bytes()).spec.name == "digits"


def test_the_other_programs_run(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="jobs are made with the extra `torch`")
    assert len(PROGRAMS) == 2
    run(PROGRAMS[1], tmp_path)
