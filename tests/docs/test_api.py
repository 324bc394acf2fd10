"""docs/api.md is true: its commands and programs run as they stand, and it tells all paths and statuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from atoll.gateway.openai import schema
from tests.docs.generated_tables import ROOT
from tests.gateway.openai.serving import local_models, served
from tests.inference.local.files import catalogue_file

TEXT = (ROOT / "docs" / "api.md").read_text("utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PROGRAMS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8470"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for name in ("smollm2-135m", "minilm-l6"):
        catalogue_file(name)
    home = tmp_path_factory.mktemp("home")
    with served(lambda: local_models(home)) as found:
        yield found


def run(words: list[str], url: str, folder: Path) -> str:
    models = httpx.get(f"{url}/v1/models").json()["data"]
    classifier = next(one["id"] for one in models if one["kind"] == "classifier")
    environment = {**os.environ, "MODEL": classifier, "KEY": "none"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: re.findall(r"/v1[/\w]*|$", text)[0])
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_command_gets_its_answer(command: str, url: str, tmp_path: Path) -> None:
    assert ADDRESS in command
    Image.new("L", (28, 28), 60).save(tmp_path / "digit.png")
    said = run(["sh", "-c", command.replace(ADDRESS, url)], url, tmp_path)
    if '"stream": true' in command:
        assert said.endswith("data: [DONE]\n\n")
        return
    found: dict[str, Any] = json.loads(said)
    assert not found.get("error")
    assert "/v1/models" in command or found["atoll"]["checked"] == "local"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda text: text.split()[1])
def test_a_program_runs(program: str, url: str, tmp_path: Path) -> None:
    pytest.importorskip(program.split()[1], reason="needs the extra `clients`")
    said = run([sys.executable, "-c", program.replace(ADDRESS, url)], url, tmp_path)
    assert said.rstrip().endswith("384")


def test_all_paths_and_statuses_are_told() -> None:
    told = re.findall(r"^\| `(/[^`]+)` \| (GET|POST) \|", TEXT, re.MULTILINE)
    paths = [(path, name.upper()) for path, item in schema.paths().items() for name in item if name in ("get", "post")]
    assert sorted(told) == sorted(paths)
    statuses = set(re.findall(r"^\| (\d{3}) \|", TEXT, re.MULTILINE))
    assert statuses == {name.removeprefix("Error") for name in schema.components()["responses"]}
