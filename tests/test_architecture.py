"""ARCHITECTURE.md is true: which room imports which, and which files touch the outside."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "atoll"
PAGE = ROOT / "ARCHITECTURE.md"

# Modules through which a file can reach clock, dice, disk, network or processes.
OUTSIDE = frozenset({
    "concurrent", "ctypes", "datetime", "eth", "fcntl", "gzip", "http", "iroh", "mmap", "msvcrt", "multiprocessing",
    "onnxruntime", "pyarrow", "random", "requests", "resource", "secrets", "select", "shutil", "signal", "socket",
    "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "uuid", "uvicorn", "web3",
})  # fmt: skip
OUTSIDE_PARTS = frozenset({"importlib.resources", "logging.handlers", "os", "urllib.request"})
ASYNCIO = frozenset({
    "create_subprocess_exec", "open_connection", "run", "sleep", "start_server", "timeout", "to_thread",
})  # fmt: skip
SYSTEM = frozenset({"argv", "stderr", "stdin", "stdout"})
FILES = frozenset({
    "glob", "is_dir", "is_file", "iterdir", "memmap", "mkdir", "read_bytes", "read_text", "rglob", "touch", "unlink",
    "write_bytes", "write_text",
})  # fmt: skip
FORBIDDEN_MODULES = frozenset({"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"})


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of imported modules, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def effects(tree: ast.Module) -> set[str]:
    """Everything in a file that reaches the outside."""
    found = {name for name in imported(tree) if name.split(".")[0] in OUTSIDE or name in OUTSIDE_PARTS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if (owner == "asyncio" and node.attr in ASYNCIO) or (owner == "sys" and node.attr in SYSTEM):
                found.add(f"{owner}.{node.attr}")
            if node.attr in FILES or (node.attr == "open" and not owner[:1].isupper()):
                found.add(f".{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Console", "open"):
            found.add(node.func.id)
    return found


def documented() -> dict[str, bool]:
    """Module path below src/atoll, without .py -> whether the page marks it as a shell."""
    table = PAGE.read_text("utf-8").split("## Rooms")[1].split("\nArrows")[0]
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\|([^|]*)\|$", table, re.MULTILINE)
    marked: dict[str, bool] = {}
    for room, files in rows:
        for word in files.replace("`", "").split():
            name = word.rstrip("*")
            if word != "-":
                marked[name if room == "atoll" else f"{room}/{name}"] = word.endswith("*")
    return marked


def present() -> dict[str, bool]:
    """The same, from the files themselves; empty files do not count."""
    found = {}
    for path in sorted(SOURCES.rglob("*.py")):
        if path.read_text("utf-8").strip():
            found[path.relative_to(SOURCES).with_suffix("").as_posix()] = bool(effects(parsed(path)))
    return found


def test_the_rooms_import_only_what_the_contracts_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_the_page_names_every_file_and_marks_exactly_the_shells() -> None:
    told, there = documented(), present()
    assert sorted(told) == sorted(there), "ARCHITECTURE.md lists other files than there are"
    wrong = {name: sorted(effects(parsed(SOURCES / f"{name}.py"))) for name in there if told[name] != there[name]}
    assert not wrong, f"files whose mark (*) in ARCHITECTURE.md is wrong, and what they touch: {wrong}"


def test_only_the_ledger_names_the_contracts_package() -> None:
    for path in SOURCES.rglob("*.py"):
        if path.relative_to(SOURCES).parts[0] not in ("ledger", "contracts"):
            assert "atoll.contracts" not in path.read_text("utf-8"), path


def test_nothing_unpickles_or_runs_text_as_code() -> None:
    for path in SOURCES.rglob("*.py"):
        tree = parsed(path)
        assert not {name.split(".")[0] for name in imported(tree)} & FORBIDDEN_MODULES, path
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"compile", "eval", "exec"}, path


def test_onnx_runtime_is_loaded_by_the_engines_child_only() -> None:
    users = {
        path.name for path in SOURCES.rglob("*.py") if any("onnxruntime" in name for name in imported(parsed(path)))
    }
    assert users == {"session.py"}


@pytest.mark.parametrize(
    ("text", "touched"),
    [
        ("import time", {"time"}),
        ("def f():\n    from random import random", {"random", "random.random"}),
        ("import asyncio\nasyncio.sleep(1)", {"asyncio.sleep"}),
        ("import asyncio\nasyncio.gather()", set()),
        ("path.read_bytes()", {".read_bytes"}),
        ("Image.open(buffer)", set()),
        ("open('x')", {"open"}),
        ("import sys\nsys.stdout.write('x')", {"sys.stdout"}),
    ],
)
def test_effects_are_recognised(text: str, touched: set[str]) -> None:
    assert effects(ast.parse(text)) == touched
