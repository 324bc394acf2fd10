"""The status page over HTTP: read-only, for browsers on this device or in the same home."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.errors import BadSetting, PortInUse
from atoll.gateway.facts import Facts
from atoll.gateway.views import context, twin

FactsSource = Callable[[], Facts]
"""Called from the page's own thread: it must be safe to call at any time, and quick."""

HEADERS = {
    # No script, and nothing from elsewhere, may run here: names and log lines come from the network.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FOLDER = Path(__file__).parent
_STOP_SECONDS = 5.0


def make_app(facts: FactsSource, allowed_hosts: Collection[str] = ()) -> Starlette:
    """GET / (the page), /index.json (its JSON twin), /static/style.css.

    Requests must name this device by an address of its own network, by localhost, or by one of `allowed_hosts`:
    a page of another site, whose name was made to point here, gets 421.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("index.html")

    async def page(_: Request) -> Response:
        return HTMLResponse(template.render(context(facts(), time.time())))

    async def index(_: Request) -> Response:
        return JSONResponse(twin(facts()))

    app = Starlette(
        routes=[
            Route("/", page),  # a route answers GET and HEAD only, unless it is told otherwise
            Route("/index.json", index),
            Mount("/static", StaticFiles(directory=_FOLDER / "static")),
        ]
    )
    app.add_middleware(_Guard, allowed_hosts=frozenset(host.lower() for host in allowed_hosts))
    return app


class _Guard:
    """Checks the Host header, lets only GET and HEAD in, and puts the headers of HEADERS on every answer."""

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._allowed = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(scope) or self._app
        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or not is_allowed(hosts[0], self._allowed):
            return PlainTextResponse("This page answers under an address of this device only.\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("This page can be read only.\n", 405, {"Allow": "GET, HEAD"})
        return None


def is_allowed(host: str, allowed: Collection[str] = ()) -> bool:
    """Whether a Host header (name or address, with or without port) names this device or its own network."""
    name = host.lower().strip()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") <= 1:
        name = name.partition(":")[0]
    if name == "localhost" or name in allowed:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or (address.is_private and not address.is_unspecified)


class StatusPage:
    """The status page in a thread of its own: `StatusPage.start(...)`, then `stop()`."""

    def __init__(self, listener: socket.socket, facts: FactsSource, host: str) -> None:
        self._listener = listener
        self.host, self.port = host, int(listener.getsockname()[1])
        settings = uvicorn.Config(
            make_app(facts, {host}), log_config=None, log_level="critical", access_log=False, lifespan="off",
            ws="none", server_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._run, name="status-page", daemon=True)

    @classmethod
    def start(cls, facts: FactsSource, host: str, port: int) -> StatusPage:
        """Listen at once (port 0 takes a free one) and answer from a background thread.

        Raises PortInUse, or BadSetting for an address that is none of this device's.
        """
        page = cls(listen(host, port), facts, host)
        page._thread.start()
        return page

    @property
    def url(self) -> str:
        """Where a browser on this device finds the page."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def stop(self) -> None:
        """End the page; safe to call twice."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        self._listener.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])


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
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Port {port} on {host} is used by another program: choose another with --port, or 0 for a free one."
            ) from error
        raise BadSetting(
            f"The status page cannot listen on {host}:{port} ({error.strerror}): choose another --host or --port."
        ) from error
    return listener
