"""The gateway's HTTP server: all its parts in one app, in the loop of its node."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

from atoll import __version__
from atoll.errors import BadSetting, PortInUse
from atoll.gateway import openai, pages, tabs
from atoll.gateway.guard import Guard
from atoll.gateway.openai import schema
from atoll.gateway.tabs.relay import Relay

if TYPE_CHECKING:
    from atoll.node.daemon import Node

MAX_CONNECTIONS = 1024  # of browsers and programs together; more wait in the kernel's queue or are turned away
WEBSOCKET_FRAME = 64 * 1024
LOST_MILLISECONDS = 60_000
HEAD_SECONDS, HEAD_SECONDS_IN_A_CROWD = 10.0, 1.0
"""How long a connection may take to say what it wants; less when half of all places are taken."""


class Gateway:
    """The HTTP side of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen where the setting `http` says and answer; raises PortInUse or BadSetting."""
        host, _, port = self._node.settings.http.rpartition(":")
        listener = listen(host.strip("[]"), int(port))
        self._node.page = page_url(host.strip("[]"), int(listener.getsockname()[1]))
        settings = uvicorn.Config(
            self.app(host.strip("[]")),
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=WEBSOCKET_FRAME,
            ws_per_message_deflate=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            limit_concurrency=MAX_CONNECTIONS,
        )
        server = _Server(settings)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)
            listener.close()

    def app(self, host: str = "") -> Starlette:
        """All routes behind one guard; `host` is a name under which this device is reached, beside the usual ones."""
        guard = Middleware(Guard, allowed_hosts=[host] if host else [])
        node = self._node
        relay = Relay(node)
        node.spawn(relay.run())
        api = openai.routes(node, {"tabs": lambda: len(relay.tabs)})
        parts = (tabs.routes(relay), api, pages.routes(node, [schema.document(__version__)]))
        routes = [route for part in parts for route in part]
        return Starlette(routes=routes, middleware=[guard], exception_handlers={404: pages.not_found})


class _Server(uvicorn.Server):
    """A server that leaves the signals to its node, and turns away who takes a place and asks for nothing."""

    def __init__(self, config: uvicorn.Config, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(config)
        self._clock = clock
        self._silent: dict[tuple[Any, Any], float] = {}  # connection, its last request -> since when

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: uvicorn itself waits for the head of a request for ever."""
        open_now = self.server_state.connections
        crowd = 2 * len(open_now) >= (self.config.limit_concurrency or MAX_CONNECTIONS)
        now, patience = self._clock(), HEAD_SECONDS_IN_A_CROWD if crowd else HEAD_SECONDS
        quiet = [(one, one.cycle) for one in open_now if hasattr(one, "cycle")]  # WebSockets have none
        quiet = [(one, last) for one, last in quiet if last is None or last.response_complete]
        self._silent = {key: self._silent.get(key, now) for key in quiet}
        for (one, _), since in self._silent.items():
            if now >= since + patience:
                one.transport.close()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the node, and the node ends this."""
        yield


def page_url(host: str, port: int) -> str:
    """Where a browser on this device finds a server that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; raises PortInUse or BadSetting with what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise BadSetting(
            f"{host}:{port} is no address to listen on: expected one of this device's, as 127.0.0.1."
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # a port that was just freed may be taken again; elsewhere this would share it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a browser that vanished does not keep its buffers for long
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_MILLISECONDS)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Port {port} on {host} is used by another program: choose another with --port, or 0 for a free one."
            ) from error
        raise BadSetting(
            f"The dashboard cannot listen on {host}:{port} ({error.strerror}): choose another --host or --port."
        ) from error
    return listener
