"""Whole networks on real processes, started as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = 280


class Network:
    """One `atoll up` in a home of its own."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self.summary_file = home.parent / f"{home.name}.json"
        command = [sys.executable, "-m", "atoll", "up", "--home", str(home), "--port", "0", "--plain"]
        self._out = (home.parent / f"{home.name}.out").open("ab")
        self.process = subprocess.Popen(
            [*command, "--json", str(self.summary_file), *arguments],
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def output(self) -> str:
        """All that it printed."""
        return Path(self._out.name).read_text(errors="replace")

    def finish(self) -> dict[str, Any]:
        """Wait for the end; its summary."""
        code = self.process.wait(TIMEOUT)
        assert code == 0, f"exit code {code}:\n{self.output()[-4000:]}"
        return dict(json.loads(self.summary_file.read_text()))

    def processes(self) -> dict[str, int]:
        """Process ids by name."""
        try:
            return dict(json.loads((self.home / "up.json").read_text())["processes"])
        except (OSError, KeyError, ValueError):
            return {}

    def node(self, name: str, *command: str) -> Any:
        """The JSON that an `atoll` command prints about a node; None if it fails."""
        home = ["--home", str(self.home / name), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "atoll", *command, *home], capture_output=True, text=True, timeout=60, check=False
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait_for(self, condition: Any, seconds: float = 120) -> Any:
        """Poll until `condition()` is true; its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            assert self.process.poll() is None, self.output()[-4000:]
            time.sleep(0.1)
        raise AssertionError(f"nothing happened within {seconds} s:\n{self.output()[-4000:]}")

    def stop(self) -> int:
        """Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def close(self) -> None:
        """Whatever happened, nothing stays."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._out.close()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Any]:
    """Start networks; all are ended after the test."""
    started: list[Network] = []

    def start(*arguments: str, home: str = "home") -> Network:
        network = Network(tmp_path / home, *arguments)
        started.append(network)
        return network

    yield start
    for network in started:
        network.close()
