"""What is in static/vendor is what the locked packages give, with the licences of what is bundled."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "src/atoll/gateway/static/vendor"
MADE = ("noble.js", "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm.gz")


def content(path: Path) -> bytes:
    """A file's bytes; of a gzipped one what is inside, since zlib's versions pack differently."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def test_the_files_are_those_of_the_locked_packages(tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node.js: node and npm are not on the PATH")
    for name in ("package.json", "package-lock.json", ".npmrc", "build.mjs", "noble.js"):
        shutil.copy(ROOT / "web" / name, tmp_path)
    installed = ["npm", "ci", "--silent", "--no-fund", "--no-audit", "--ignore-scripts"]
    if subprocess.run(installed, cwd=tmp_path, timeout=240, check=False).returncode:
        pytest.skip("the packages of web/package-lock.json could not be downloaded")
    subprocess.run(["node", "build.mjs", str(tmp_path / "made")], cwd=tmp_path, check=True, timeout=60)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(MADE)
    for name in MADE:
        assert content(tmp_path / "made" / name) == content(VENDOR / name), f"{name}: run node build.mjs in web/"


def test_the_gzipped_file_says_nothing_of_when_and_where() -> None:
    head = (VENDOR / "ort-wasm-simd-threaded.wasm.gz").read_bytes()[:10]
    assert head[:3] == b"\x1f\x8b\x08"
    assert head[3:8] == bytes(5), "flags (a name would be one) and time are zero"


def test_licences_name_the_versions_that_are_locked() -> None:
    text = (VENDOR / "LICENSES.md").read_text("utf-8")
    locked = json.loads((ROOT / "web" / "package-lock.json").read_text("utf-8"))["packages"]
    for name in ("@noble/ciphers", "@noble/curves", "@noble/hashes", "onnxruntime-web"):
        assert f"{name} {locked[f'node_modules/{name}']['version']}" in text
    assert "resolved" not in next(iter(locked.values()))
    assert '"resolved"' not in (ROOT / "web" / "package-lock.json").read_text("utf-8")
