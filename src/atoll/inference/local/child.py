"""The process of one model, seen from its parent: started on first use, ended when idle, killed when it misbehaves.

One request at a time; others wait their turn, up to a bound. A request that fails, takes too long or will not stop
ends the process, and the next request gets a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from atoll.errors import BadInput, EngineFailed, Refused
from atoll.graph.engine import ENVIRONMENT, tail
from atoll.inference.local import pipe
from atoll.wire.reasons import Reason

_STREAM_BUFFER = 1 << 20


@dataclass(frozen=True)
class ChildLimits:
    """What the process of a model may use, and how patient its parent is.

    `memory_bytes` beyond the idle process (the model's file, which is mapped, does not count); CPU seconds of one
    request; wall-clock seconds to load a model, from one message to the next, and from a cancellation to the end;
    seconds without a request after which the process ends; requests that may wait.
    """

    memory_bytes: int = 1 << 30
    cpu_seconds: int = 600
    load_seconds: float = 120.0
    silent_seconds: float = 120.0
    stop_seconds: float = 2.0
    idle_seconds: float = 300.0
    waiting: int = 32
    threads: int = 1


class Child:
    """One model's process: `module` is what it runs, `load` what it loads, `name` what people call the model."""

    def __init__(self, module: str, load: pipe.Load, name: str, limits: ChildLimits) -> None:
        self.name = name
        self._module, self._load, self._limits = module, load, limits
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._number = 0
        self._process: Process | None = None
        self._stderr: asyncio.Task[bytes] | None = None
        self.folder = ""
        """A private folder of the process, while there is one."""
        self._length: int | None = None  # of the frame that is being read
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.used = 0.0
        """When it was last used, by the loop's clock."""

    @property
    def pid(self) -> int | None:
        """Process id, None while there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def busy(self) -> bool:
        """Whether a request is at work or waits."""
        return self._waiting > 0

    async def ask(self, request: pipe.Embed) -> pipe.Vectors:
        """One request, one answer; raises BadInput, EngineFailed or Refused(BUSY)."""
        async with self._my_turn():
            done = False
            try:
                answer = await self._exchange(request)
                done = True
            except BadInput:
                done = True
                raise
            finally:
                if not done:
                    await asyncio.shield(self._apart(self.close()))
            if not isinstance(answer, pipe.Vectors):
                raise await self._broken(f"the process of {self.name} gave another answer than vectors")
            return answer

    async def stream(
        self, request: Callable[[int], pipe.Generate]
    ) -> AsyncGenerator[pipe.Begun | pipe.Part | pipe.Done, None]:
        """The messages of an answer until `Done`; `request` takes the number of the request. Closing it stops the
        model, and the process if that does not help. Raises as `ask`."""
        async with self._my_turn():
            self._number += 1
            asked = request(self._number)
            done = False
            try:
                answer = await self._exchange(asked)
                while isinstance(answer, pipe.Begun | pipe.Part):
                    yield answer
                    answer = await self._receive(self._limits.silent_seconds)
                done = isinstance(answer, pipe.Done)
                if not isinstance(answer, pipe.Done):
                    raise await self._broken(f"the process of {self.name} gave another answer than text")
                yield answer
            except BadInput:
                done = True
                raise
            finally:
                if not done:
                    await asyncio.shield(self._apart(self._stop(self._number)))

    async def close(self) -> None:
        """End the process."""
        if self._idle:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        if process.stdin and process.stdout and self._stderr:
            process.stdin.close()
            await process.stdout.read()  # to the end, so that no pipe stays open
            await self._stderr
        await process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- one request ----------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        if self._waiting > self._limits.waiting:
            raise Refused(Reason.BUSY, f"{self._waiting} requests wait for {self.name}")
        self._waiting += 1
        try:
            async with self._turn:
                if self._idle:
                    self._idle.cancel()
                if self._ending:
                    await asyncio.wait(self._ending)
                await self._living()
                yield
        finally:
            self._waiting -= 1
            loop = asyncio.get_running_loop()
            self.used = loop.time()
            if self._idle:
                self._idle.cancel()
            self._idle = loop.call_later(self._limits.idle_seconds, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self.busy:
            self._apart(self.close())

    def _apart(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of its own, which goes on when the request that started it is cancelled."""
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _exchange(self, request: pipe.Request) -> pipe.Answer:
        """Send a request and read the first message of the answer."""
        await self._send(request)
        return await self._receive(self._limits.silent_seconds)

    async def _send(self, request: pipe.Request) -> None:
        if self._process is None or self._process.stdin is None:
            raise EngineFailed(f"the process of {self.name} is not there")
        try:
            self._process.stdin.write(pipe.encode(request))
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise await self._broken(f"the process of {self.name} ended") from error

    async def _receive(self, seconds: float, loading: bool = False) -> pipe.Answer:
        """The next message; raises BadInput or EngineFailed for a `Failure`. Can be cancelled between any two bytes."""
        try:
            async with asyncio.timeout(seconds):
                answer = pipe.decode_answer(await self._frame())
        except TimeoutError as error:
            raise await self._broken(f"{self.name} said nothing for {seconds:g} s and was ended") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise await self._broken(f"the process of {self.name} ended") from error
        except EngineFailed as error:
            raise await self._broken(str(error)) from error
        if isinstance(answer, pipe.Failure):
            if loading:
                raise BadInput(
                    f"{self.name} cannot be loaded ({answer.detail}): expected a model that the runtime knows and that "
                    f"needs at most {self._limits.memory_bytes >> 20} MB of memory besides its file."
                )
            if answer.fault == "input":
                raise BadInput(f"{self.name}: {answer.detail}")
            raise await self._broken(f"{self.name}: {answer.detail}")
        return answer

    async def _frame(self) -> bytes:
        if self._process is None or self._process.stdout is None:
            raise ConnectionError("the process is not there")
        if self._length is None:
            self._length = pipe.length(await self._process.stdout.readexactly(pipe.PREFIX.size))
        body = await self._process.stdout.readexactly(self._length)
        self._length = None
        return body

    async def _broken(self, sentence: str) -> EngineFailed:
        """End the process; the error that says why, with its exit code and its last words."""
        process, stderr = self._process, self._stderr
        await self.close()
        last = (await stderr).decode(errors="replace").strip().splitlines()[-1:] if stderr else []
        code = process.returncode if process else None
        told = f" (exit code {code}{': ' if last else ''}{' '.join(last)[:300]})" if code not in (None, 0, -9) else ""
        return EngineFailed(sentence + told)

    async def _stop(self, number: int) -> None:
        """Stop a request and wait for its end; end the process if it does not come."""
        stopped = False
        try:
            async with asyncio.timeout(self._limits.stop_seconds):
                await self._send(pipe.Stop(number))
                while not stopped:
                    stopped = isinstance(await self._receive(self._limits.stop_seconds), pipe.Done)
        except (TimeoutError, EngineFailed, BadInput):
            await self.close()

    # -- the process ----------------------------------------------------------------------------------------------
    async def _living(self) -> None:
        if self._process and self._process.returncode is None:
            return
        await self.close()
        await self._start()
        ready = False
        try:
            await self._send(self._load)
            ready = isinstance(await self._receive(self._limits.load_seconds, loading=True), pipe.Ready)
        finally:
            if not ready:
                await asyncio.shield(self._apart(self.close()))

    async def _start(self) -> None:
        limits = self._limits
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        self._length = None
        self.folder = tempfile.mkdtemp(prefix="atoll-")
        arguments = (limits.memory_bytes, limits.cpu_seconds, limits.threads, self.folder)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", self._module, *map(str, arguments)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=_STREAM_BUFFER,
            env={**environment, "OMP_NUM_THREADS": str(limits.threads)},
            start_new_session=True,  # a Ctrl-C at the terminal is for the parent
        )
        self._stderr = asyncio.create_task(tail(self._process))
