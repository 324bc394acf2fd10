"""HTTP in front of the devnet's JSON-RPC, and the loop that makes blocks."""

from __future__ import annotations

import errno
import ipaddress
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from atoll.errors import PortInUse
from atoll.ledger.devnet.evm import Evm

MAX_BODY = 1 << 20  # bytes
IDLE_SECONDS = 60.0
GATHER_SECONDS = 0.05  # between the first transaction and the block, so that a burst lands in one


def is_own_host(host: str | None) -> bool:
    """Whether a Host header names this machine by number or as localhost: a rebound DNS name does neither."""
    name = _hostname("//" + (host or ""))
    return name == "localhost" or _address(name) is not None


def is_own_origin(origin: str | None) -> bool:
    """Whether a request comes from no web page, or from a page of this machine."""
    if origin is None:
        return True
    name = _hostname(origin)
    address = _address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    wbufsize = 1 << 16  # headers and body leave in one packet
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self) -> None:
        if not is_own_host(self.headers.get("Host")) or not is_own_origin(self.headers.get("Origin")):
            return self._refuse(403, "requests from other hosts or web pages are not answered")
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            return self._refuse(411, "a Content-Length is needed")
        if not 0 <= length <= MAX_BODY:
            return self._refuse(413, f"at most {MAX_BODY} bytes")
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return None
        self._answer(200, self.server.answer(body))
        return None

    def do_GET(self) -> None:
        self._refuse(405, "this is an Ethereum JSON-RPC endpoint: use POST")

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True  # the body was not read
        error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}}
        self._answer(status, json.dumps(error).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the chain's log is the chain."""


class Server(ThreadingHTTPServer):
    """Listens on `host:port` (0 takes a free one); raises PortInUse."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise PortInUse(
                    f"the chain cannot listen on {host}:{port} ({error.strerror}): stop the program that does, "
                    f"or choose another port with --port"
                ) from error
            raise

    @property
    def url(self) -> str:
        """Where the server can be reached from this machine."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104  # comparing, not binding

    def start(self) -> None:
        """Answer requests in threads of their own until `shutdown`."""
        threading.Thread(target=self.serve_forever, name="rpc", daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no event."""


class Producer:
    """Makes a block when something waits, at most one a second of the chain's clock.

    `run` goes on until `stop` is called; an error inside ends it, and with it the process, rather than a chain that
    answers but stands still.
    """

    def __init__(self, evm: Evm, lock: threading.RLock, clock: Callable[[], float]) -> None:
        self._evm = evm
        self._lock = lock
        self._clock = clock
        self._wake = threading.Event()
        self._stopped = False

    def wake(self) -> None:
        """A transaction was queued."""
        self._wake.set()

    def stop(self) -> None:
        """End `run`."""
        self._stopped = True
        self._wake.set()

    def run(self) -> None:
        """Make blocks until stopped."""
        pause = threading.Event()
        while True:
            self._wake.wait()
            if self._stopped:
                return
            pause.wait(GATHER_SECONDS)
            self._wake.clear()
            with self._lock:
                if self._evm.ready():
                    self._evm.mine()
                again = self._evm.waiting()
            if again:
                pause.wait(1.0 - self._clock() % 1.0)
                self._wake.set()
