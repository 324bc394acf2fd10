"""Runs Flower 1.41.0 from an environment of its own: its deployment engine and its simulation, on the empty app."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import proc

FLOWER = "flwr[simulation]==1.41.0"
TORCH = "torch==2.13.0"
APP = Path(__file__).parent / "flower_app"
START_SECONDS = 120.0
END_SECONDS = 10.0


def environment(folder: Path, torch: bool = False) -> Path:
    """The environment with Flower and its simulation; made on the first run. Returns its folder of programs."""
    programs = folder / "bin"
    if not (programs / "python").exists():
        print(f"making {folder} ...")
        venv.create(folder, with_pip=True)
    modules, wanted = ("flwr, ray, torch", (FLOWER, TORCH)) if torch else ("flwr, ray", (FLOWER,))
    found = subprocess.run([programs / "python", "-c", f"import {modules}"], capture_output=True, check=False)
    if found.returncode:
        print(f"installing {' and '.join(wanted)} (a minute or two) ...")
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *wanted], check=True)
    return programs


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Flower:
    """Flower's processes in a folder: no telemetry, no look for updates, nothing installed at run time."""

    def __init__(self, programs: Path, home: Path) -> None:
        self.programs, self.home = programs, home
        self._processes: list[subprocess.Popen[bytes]] = []
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.environment = {
            **kept,
            "PATH": f"{programs}{os.pathsep}{kept.get('PATH', '')}",
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of Flower's programs in a process group of its own."""
        with (self.home / f"{name}.log").open("ab") as out:
            process = subprocess.Popen(
                [self.programs / arguments[0], *arguments[1:]],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=self.environment,
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End all processes that this object started, and theirs, by their ids."""
        for process in reversed(self._processes):
            _end_group(process)
        proc.end_all(proc.family(str(self.home)))  # Ray's processes have left the groups

    def memory(self) -> int:
        """Proportional memory (PSS) of everything that runs, in bytes."""
        return sum(proc.group_memory(process.pid)["pss"] for process in self._processes)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        end = time.monotonic() + END_SECONDS
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.1)
    process.wait()


@contextmanager
def running(programs: Path) -> Iterator[Flower]:
    """Flower in a temporary home; ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="flower-", ignore_cleanup_errors=True) as folder:
        flower = Flower(programs, Path(folder))
        try:
            yield flower
        finally:
            flower.close()


def _wait(condition: Any, what: str, flower: Flower, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in flower.home.glob("*.log"))
            raise RuntimeError(f"{what} did not happen within {seconds:g} s:\n{logs}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def run_app(
    flower: Flower, port: int, config: dict[str, Any], options: str, limit: float, app: Path = APP
) -> dict[str, Any]:
    """`flwr run` against a SuperLink; returns what the app wrote into its file `times`, and when it was asked to run.

    `config` holds numbers, or texts in double quotes.
    """
    times = flower.home / "times.json"
    (flower.home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n{options}'
    )
    settings = " ".join(f"{name}={value}" for name, value in config.items()) + f' times="{times}"'
    asked = time.time()
    flower.start("flwr-run", "flwr", "run", str(app), "bench", "--run-config", settings)
    _wait(times.exists, "the last round of Flower", flower, limit)
    found: dict[str, Any] = json.loads(times.read_text())
    return {**found, "asked": asked}


def _result(found: dict[str, Any], ready: float, memory: int, clients: int) -> dict[str, Any]:
    if set(found["replies"]) != {clients}:
        raise RuntimeError(f"Flower's rounds had {found['replies']} replies, expected {clients} each")
    began: Sequence[float] = found["began"]
    return {
        "seconds": [end - begin for begin, end in zip(began, found["ended"], strict=True)],
        "start_infrastructure": ready,
        "start_run": began[0] - found["asked"],
        "memory_mb": round(memory / 2**20),
    }


def deployment(programs: Path, clients: int, parameters: int, rounds: int) -> dict[str, Any]:
    """Seconds of each round with a SuperLink and a SuperNode a client; start-up apart."""
    with running(programs) as flower:
        port, begin = free_port(), time.time()
        bare = ("--disable-runtime-dependency-installation",)
        flower.start("superlink", "flower-superlink", "--insecure", "--port", str(port), *bare)
        _wait(lambda: _answers(port), "the start of the SuperLink", flower)
        for index in range(clients):
            arguments = ("--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(free_port()))
            flower.start(f"supernode-{index}", "flower-supernode", *arguments)
        logs = [flower.home / f"supernode-{index}.log" for index in range(clients)]
        _wait(lambda: all("SuperNode ID" in log.read_text() for log in logs), "the start of the SuperNodes", flower)
        ready, memory = time.time() - begin, flower.memory()
        config = {"clients": clients, "parameters": parameters, "rounds": rounds}
        found = run_app(flower, port, config, "", START_SECONDS + 40 * rounds)
        return _result(found, ready, memory, clients)


def start_simulation(flower: Flower, clients: int) -> tuple[int, str]:
    """Start a SuperLink in simulation mode; returns its port and the options for `run_app`: a core for a client."""
    port = free_port()
    bare = ("--simulation", "--disable-runtime-dependency-installation")
    flower.start("superlink", "flower-superlink", "--insecure", "--port", str(port), *bare)
    _wait(lambda: _answers(port), "the start of the SuperLink", flower)
    options = f"[superlink.bench.options]\nnum-supernodes = {clients}\n"
    return port, options + "backend.client-resources.num-cpus = 1\n"


def simulation(programs: Path, clients: int, parameters: int, rounds: int) -> dict[str, Any]:
    """The same with a SuperLink in simulation mode: all clients are Ray actors on this machine."""
    with running(programs) as flower:
        begin = time.time()
        port, options = start_simulation(flower, clients)
        ready, memory = time.time() - begin, flower.memory()
        config = {"clients": clients, "parameters": parameters, "rounds": rounds}
        found = run_app(flower, port, config, options, START_SECONDS + 10 * rounds)
        return _result(found, ready, memory, clients)
