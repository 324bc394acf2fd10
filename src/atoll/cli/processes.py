"""The processes of a local network: started, watched, started again when they die, and ended together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.errors import MachineError, PortInUse

RESTARTS = 20
YOUNG_SECONDS = 10.0
YOUNG_DEATHS = 4
"""So many deaths in a row, each soon after its start, are no accident."""
RESTART_SECONDS = 1.0
END_SECONDS = 8.0
START_SECONDS = 60.0


@dataclass
class Worker:
    """One child process: what starts it and how often it had to be started. Its output goes to HOME/NAME.out."""

    name: str
    arguments: Sequence[str]
    home: Path
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    young_deaths: int = 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.returncode is None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self.process.pid if self.process is not None and self.alive else None

    async def start(self) -> None:
        """Start the process in a group of its own, so that a Ctrl-C at the terminal reaches only us."""
        self.started_at = time.monotonic()
        with (self.home / f"{self.name}.out").open("ab") as out:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self.arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=out,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    async def first_line(self) -> dict[str, Any]:
        """What the process announces as a JSON line; raises the error that it ended with."""
        if self.process is None or self.process.stdout is None:
            raise MachineError(f"{self.name} was not started")
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await self.process.stdout.readline()
                if line:
                    return dict(json.loads(line))
                code = await self.process.wait()
        except TimeoutError as error:
            raise MachineError(f"{self.name} did not start within {START_SECONDS:g} s; see {self._log()}.") from error
        kind = PortInUse if code == PortInUse.exit_code else MachineError
        raise kind(f"{self.name} could not start: {self.last_words()}")

    def last_words(self) -> str:
        """The last line that the process wrote to its error output."""
        try:
            lines = self._log().read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else f"it ended without a word; see {self._log()}"

    def _log(self) -> Path:
        return self.home / f"{self.name}.out"

    async def end(self) -> None:
        """Ask the process to end, and make it end if it does not."""
        if self.process is None or not self.alive:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Supervisor:
    """Keeps workers alive. `say` hears of every death, `note` of every change of process ids (by name)."""

    def __init__(self, say: Callable[[str], None], note: Callable[[dict[str, int | None]], None]) -> None:
        self.workers: list[Worker] = []
        self._say, self._note = say, note
        self._stopping = False

    async def add(self, worker: Worker) -> None:
        """Start a worker and watch it from now on."""
        await worker.start()
        self.workers.append(worker)
        self._noted()

    def _noted(self) -> None:
        self._note({worker.name: worker.pid for worker in self.workers})

    async def watch(self) -> None:
        """Until `stop`: start again what died. Raises MachineError for a worker that keeps dying."""
        while not self._stopping:
            for worker in self.workers:
                if not worker.alive and not self._stopping:
                    await self._revive(worker)
            await asyncio.sleep(0.2)

    async def _revive(self, worker: Worker) -> None:
        if not worker.ended_at:
            worker.ended_at = time.monotonic()
            young = worker.ended_at < worker.started_at + YOUNG_SECONDS
            worker.young_deaths = worker.young_deaths + 1 if young else 0
            self._say(f"{worker.name} ended ({_ending(worker)}); it is started again")
        if time.monotonic() < worker.ended_at + RESTART_SECONDS:
            return
        if worker.restarts >= RESTARTS or worker.young_deaths >= YOUNG_DEATHS:
            raise MachineError(f"{worker.name} ended {worker.restarts + 1} times: {worker.last_words()}")
        worker.restarts += 1
        worker.ended_at = 0.0
        await worker.start()
        self._noted()

    async def stop(self) -> None:
        """End all workers, those started last first."""
        self._stopping = True
        for group in (self.workers[1:], self.workers[:1]):  # the chain, which was first, ends last
            await asyncio.gather(*(worker.end() for worker in group))


def _ending(worker: Worker) -> str:
    code = worker.process.returncode if worker.process is not None else None
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}: {worker.last_words()}"
