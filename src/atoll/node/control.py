"""How `atoll status`, `stop` and their like talk to the running node of a home on the same device.

One JSON object a line over loopback TCP. `HOME/control.json` (readable by its owner only) tells the port and a token
that is new at each start. Request {"token", "method", "params"} -> {"result"} or {"error": {"code", "message",
"exit_code"}}; the method `watch` answers {"result": null} and then one line for each published object.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.errors import AtollError, BadInput, InternalError, MachineError, NotRunning, PortInUse, Refused, Unreachable
from atoll.wire.nesting import MAX_DEPTH, is_shallow
from atoll.wire.reasons import Reason

log = logging.getLogger(__name__)

FILE_NAME = "control.json"
MAX_LINE_BYTES = 1 << 20  # of a request
MAX_ANSWER_BYTES = 64 << 20
MAX_CONNECTIONS = 64
MAX_WAITING_LINES = 1_000  # of one watcher; a slower one misses the oldest
_HOST = "127.0.0.1"
_FIRST_LINE_SECONDS = 10.0  # a program that connects and says nothing does not keep its place

Json = Any
ControlHandler = Callable[[dict[str, Json]], Awaitable[Json]]
"""Answers one method: the params as an object -> anything that JSON can carry. AtollErrors travel to the caller."""


class ControlServer:
    """The node's side. Make one with `await ControlServer.start(...)`, end it with `await server.close()`."""

    def __init__(self, home: Path, handlers: Mapping[str, ControlHandler]) -> None:
        self.port = 0
        self._path = home / FILE_NAME
        self._handlers = dict(handlers)
        self._token = secrets.token_hex(32)
        self._server: asyncio.Server | None = None
        self._watchers: set[_Watcher] = set()
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, home: Path, handlers: Mapping[str, ControlHandler], port: int = 0) -> ControlServer:
        """Listen on the loopback interface (port 0 takes a free one) and tell the home where.

        Raises PortInUse, or MachineError if the home cannot be written.
        """
        self = cls(home, handlers)
        try:
            self._server = await asyncio.start_server(self._connected, _HOST, port, limit=MAX_LINE_BYTES)
        except OSError as error:
            raise PortInUse(
                f"Port {port} of this device cannot be used ({error.strerror}): choose another `control_port`, or 0."
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            self._announce()
        except OSError as error:
            await self.close()
            raise MachineError(f"{self._path} cannot be written ({error.strerror}): check the folder.") from error
        return self

    def publish(self, item: Json) -> None:
        """Send one object to everybody who watches; never waits. A watcher that is too slow misses the oldest."""
        line = _line(item)
        for watcher in self._watchers:
            watcher.add(line)

    async def close(self) -> None:
        """Stop listening, end every connection, take the notice out of the home. Safe to call twice."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(self._path.read_bytes())["token"] == self._token:  # not that of a node started since
                self._path.unlink()

    def _announce(self) -> None:
        aside = self._path.with_name(FILE_NAME + ".new")
        notice = {"port": self.port, "token": self._token, "pid": os.getpid()}
        aside.unlink(missing_ok=True)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            json.dump(notice, file)
        aside.replace(self._path)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            log.debug("a control connection ended")
        except asyncio.CancelledError:
            log.debug("a control connection was closed")  # by close(), the only one who cancels this task
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_FIRST_LINE_SECONDS):
            line = await _read_line(reader)
        while line:
            request, answer = self._checked(line)
            if request is not None and request["method"] == "watch":
                await self._watch(reader, writer)
                return
            if request is not None:
                answer = await self._answer(request)
            writer.write(answer)
            await writer.drain()
            if request is None:  # whoever sends something else, a browser for instance, gets no second try
                return
            line = await _read_line(reader)

    def _checked(self, line: bytes) -> tuple[dict[str, Json] | None, bytes]:
        """The request if it has its form and the token; else None and the answer to it."""
        if len(line) > MAX_LINE_BYTES or not line.endswith(b"\n"):
            return None, _failure(BadInput(f"A request is one line of at most {MAX_LINE_BYTES} bytes."))
        try:
            request = _parsed(line)
        except ValueError:
            request = None
        if not isinstance(request, dict) or not isinstance(request.get("token"), str):
            return None, _failure(BadInput('Expected one JSON object a line: {"token", "method", "params"}.'))
        if not hmac.compare_digest(request["token"].encode(errors="replace"), self._token.encode()):
            return None, _failure(BadInput(f"The token is not the one in {self._path}: read it again."))
        if not isinstance(request.get("method"), str) or not isinstance(request.get("params", {}), dict):
            return None, _failure(BadInput("Expected `method` to be a text and `params` to be an object."))
        return request, b""

    async def _answer(self, request: dict[str, Json]) -> bytes:
        handler = self._handlers.get(request["method"])
        if handler is None:
            known = ", ".join(sorted([*self._handlers, "watch"]))
            return _failure(BadInput(f"Unknown method {request['method']!r:.60}: expected one of {known}."))
        try:
            return _line({"result": await handler(request.get("params", {}))})
        except AtollError as error:
            return _failure(error)
        except Exception as error:  # a handler's mistake must cost one answer, not the node
            log.exception("the control method %s failed", request["method"])
            return _failure(InternalError(f"{request['method']} failed ({type(error).__name__}): see the node's log."))

    async def _watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send what is published until either side ends the connection."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        gone = asyncio.create_task(reader.read(1))  # the end of its stream, or anything it says, ends the watch
        gone.add_done_callback(lambda _: watcher.end())
        try:
            writer.write(_line({"result": None}))
            await writer.drain()
            while (line := await watcher.next()) is not None:
                writer.write(line)
                await writer.drain()
        finally:
            self._watchers.discard(watcher)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


class _Watcher:
    """Lines that wait for one watcher: bounded, the oldest goes first; whoever missed some is told how many."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._missed = 0
        self._ended = False
        self._news = asyncio.Event()

    def add(self, line: bytes) -> None:
        self._lines.append(line)
        if len(self._lines) > MAX_WAITING_LINES:
            del self._lines[0]
            self._missed += 1
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def next(self) -> bytes | None:
        """The lines that wait, joined, or None at the end."""
        while not self._lines and not self._ended:
            self._news.clear()
            await self._news.wait()
        if self._ended:
            return None
        told = [_line({"missed": self._missed})] if self._missed else []
        lines, self._lines, self._missed = self._lines, [], 0
        return b"".join(told + lines)


@dataclass(frozen=True)
class ControlClient:
    """The caller's side, for the node that runs in `home`."""

    home: Path

    async def call(self, method: str, *, timeout: float = 30.0, **params: Json) -> Json:
        """Ask one thing; raises NotRunning, the error that the node answered, or Unreachable after the timeout (s)."""
        try:
            async with asyncio.timeout(timeout), self._asked(method, params) as (reader, _):
                return await self._result(reader)
        except TimeoutError as error:
            raise Unreachable(f"The node in {self.home} did not answer {method!r} within {timeout:g} s.") from error

    async def watch(self) -> AsyncIterator[Json]:
        """Each object that the node publishes, until the node ends. {"missed": n} stands for n that came too fast."""
        async with self._asked("watch", {}) as (reader, _):
            await self._result(reader)
            while line := await _read_line(reader):
                yield _parsed(line)

    @contextlib.asynccontextmanager
    async def _asked(
        self, method: str, params: dict[str, Json]
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        port, token = self._notice()
        request = _line({"token": token, "method": method, "params": params})
        if len(request) > MAX_LINE_BYTES:
            raise BadInput(f"The request has {len(request)} bytes: a request has at most {MAX_LINE_BYTES}.")
        try:
            reader, writer = await asyncio.open_connection(_HOST, port, limit=MAX_ANSWER_BYTES)
        except OSError as error:
            raise self._not_running() from error
        try:
            writer.write(request)
            await writer.drain()
            yield reader, writer
        except OSError as error:
            raise self._not_running() from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _result(self, reader: asyncio.StreamReader) -> Json:
        line = await _read_line(reader)
        try:
            answer = _parsed(line)
            if "error" not in answer:
                return answer["result"]
            error = _raised(answer["error"])
        except (ValueError, KeyError, TypeError) as cause:  # a node that ends in mid-answer, or another program
            raise self._not_running() from cause
        raise error

    def _notice(self) -> tuple[int, str]:
        try:
            notice = json.loads((self.home / FILE_NAME).read_bytes())
            port, token, pid = int(notice["port"]), str(notice["token"]), int(notice["pid"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._not_running() from error
        if not 0 < port < 65536 or not _is_alive(pid):  # left behind by a node that was killed
            raise self._not_running()
        return port, token

    def _not_running(self) -> NotRunning:
        return NotRunning(f"No node runs in {self.home}: start one with `atoll node --home {self.home}`.")


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there, os.kill would end the process; the connection will tell
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's process
    return True


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """One line with its end; what there is if it is too long or the stream ends; empty at the end of the stream."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        return await reader.read(MAX_LINE_BYTES)
    except ConnectionError:
        return b""


def _parsed(line: bytes) -> Json:
    """The JSON value of a line; raises ValueError if it is none or is nested too deeply."""
    if not is_shallow(line):
        raise ValueError(f"more than {MAX_DEPTH} levels")
    return json.loads(line)


def _line(item: Json) -> bytes:
    return json.dumps(item, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _failure(error: AtollError) -> bytes:
    told: dict[str, Json] = {"code": error.code, "message": str(error), "exit_code": error.exit_code}
    if isinstance(error, Refused):
        told |= {"reason": int(error.reason), "detail": error.detail}
    return _line({"error": told})


def _raised(told: dict[str, Json]) -> AtollError:
    """The error that the node raised, of the same class where this program knows it."""
    if told["code"] == Refused.code:
        return Refused(Reason(told["reason"]), str(told["detail"]))
    kinds: list[type[AtollError]] = [AtollError]
    for kind in kinds:
        if kind.code == told["code"]:
            return kind(str(told["message"]))
        kinds += kind.__subclasses__()
    return AtollError(str(told["message"]))
