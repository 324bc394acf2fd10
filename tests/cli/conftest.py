"""A running "node" for the commands: the real control server with answers written by hand, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from atoll.cli.main import main
from atoll.node.control import ControlServer

Answers = dict[str, Any]


@dataclass
class Ran:
    code: int
    out: str
    err: str


@dataclass
class FakeNode:
    """Answers of a node by method; an exception is raised, a function gets the params. `asked` holds the calls."""

    home: Path
    answers: Answers
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def handlers(self) -> dict[str, Any]:
        return {name: self._handler(name) for name in self.answers}

    def _handler(self, name: str) -> Any:
        async def handle(params: dict[str, Any]) -> Any:
            self.asked.append((name, params))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer(params) if callable(answer) else answer

        return handle


@pytest.fixture
def serve() -> Iterator[Callable[[Path, Answers], FakeNode]]:
    """Start a node in a home: `serve(home, answers)`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[ControlServer] = []

    def start(home: Path, answers: Answers) -> FakeNode:
        home.mkdir(parents=True, exist_ok=True)
        node = FakeNode(home, answers)
        servers.append(asyncio.run_coroutine_threadsafe(ControlServer.start(home, node.handlers()), loop).result(10))
        return node

    yield start
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def atoll(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ran]:
    """Run a command line in this process, with an empty base folder: `atoll("status", "--json")`."""
    monkeypatch.setenv("ATOLL_HOME", str(tmp_path / "base"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("ATOLL_PASSPHRASE", raising=False)

    def run(*args: object) -> Ran:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return Ran(code, *capsys.readouterr())

    return run
