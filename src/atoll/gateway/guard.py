"""What stands before everything that a gateway answers: whom it answers, under which names, how often, how guarded.

- A page of another site, whose name was made to point at this device (DNS rebinding), gets 421.
- A page of another site cannot make a visitor's browser act here: whatever may change something is refused with 403.
- No script runs that does not come from this gateway, and nothing is loaded from elsewhere.
- An address that asks too often gets 429 with the seconds to wait.
- Actions need the owner's token, a file in the node's home.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.errors import MachineError

HEADERS = {
    # Names, cards and log lines come from the network: nothing that is not our own file may run or load.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
TOKEN_FILE = "gateway.token"  # noqa: S105 - the name of a file
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{0,5})?")


@dataclass(frozen=True)
class Limits:
    """How often one address may ask: `burst` requests at once, then `per_second`; a static file counts a tenth.

    `addresses` are remembered at a time; whoever asks from this device itself is not counted.
    """

    burst: float = 240.0
    per_second: float = 40.0
    addresses: int = 4096


class Buckets:
    """A token bucket for each address. Pure: the time (seconds, any monotonic origin) is handed in."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> (what is left, when)

    def take(self, address: str, cost: float, now: float) -> float:
        """Take `cost` from an address's bucket; 0, or how many seconds it has to wait (then nothing is taken)."""
        limits, name = self._limits, address_of(address)
        left, since = self._left.pop(name, (limits.burst, now))
        left = min(limits.burst, left + (now - since) * limits.per_second)
        granted = left >= cost
        self._left[name] = (left - cost if granted else left, now)
        while len(self._left) > limits.addresses:
            self._left.popitem(last=False)  # whoever was silent for longest has a full bucket again anyway
        return 0.0 if granted else (cost - left) / limits.per_second


class Guard:
    """ASGI middleware around a whole gateway. `allowed_hosts` are names of this device beside those that are known."""

    def __init__(
        self,
        app: ASGIApp,
        allowed_hosts: Collection[str] = (),
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._buckets, self._clock = Buckets(limits or Limits()), clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, with HEADERS on its answer, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_allowed(hosts[0], self._allowed):
            return PlainTextResponse("This gateway answers under an address of this device only.\n", 421)
        acts = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if acts and not is_same_origin(headers):
            return PlainTextResponse("A page of another site may not act here.\n", 403)
        if not acts and _is_part_of_another_site(headers):
            return PlainTextResponse("A page of another site may link here, and use nothing of it.\n", 403)
        wait = self._wait(scope)
        if wait:
            seconds = {"Retry-After": str(max(1, round(wait)))}
            return PlainTextResponse("Too many requests from this address; ask again in a moment.\n", 429, seconds)
        return None

    def _wait(self, scope: Scope) -> float:
        client = scope.get("client")
        if client is None or is_loopback(client[0]):
            return 0.0
        cost = 0.1 if scope["path"].startswith("/static/") else 1.0
        return self._buckets.take(client[0], cost, self._clock())


def is_allowed(host: str, allowed: Collection[str] = ()) -> bool:
    """Whether a Host header (name or address, with or without port) names this device or its own network.

    Names: localhost, those that end with .local (a network announces them itself), and `allowed`. Addresses: this
    device's own, and those of home networks.
    """
    name = _name_of(host)
    if name == "localhost" or name in allowed or (name.endswith(".local") and len(name) > len(".local")):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or (address.is_private and not address.is_unspecified)


def is_same_origin(headers: Headers) -> bool:
    """Whether a request comes from a page of this gateway, or from no page at all (a program, the address bar)."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        return False
    return origin is None or origin.lower() in (f"{scheme}://{headers['host'].lower()}" for scheme in ("http", "https"))


def _is_part_of_another_site(headers: Headers) -> bool:
    """Whether a page of another site loads something: it could read none of it, but take all places to listen."""
    other = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    return other and headers.get("sec-fetch-mode", "navigate") != "navigate"


def bearer(headers: Headers) -> str:
    """The token of an `Authorization: Bearer` header, empty if there is none."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def is_owner(headers: Headers, token: str) -> bool:
    """Whether a request carries the owner's token; compared in constant time."""
    return bool(token) and hmac.compare_digest(bearer(headers).encode(), token.encode())


def owner_token(home: Path) -> str:
    """The token of this home's owner, made at first use (0600); raises MachineError if its file cannot be used."""
    path = home / TOKEN_FILE
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror}): expected a folder of yours.") from error
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"{path} cannot be read ({error}): expected the owner's token, or no file.") from error
    if len(token) < 16:
        raise MachineError(f"{path} holds no token: remove it, and a new one is made at the next start.")
    return token


def is_loopback(host: str) -> bool:
    """Whether an address is this device's own."""
    address = _address(host)
    return address is not None and address.is_loopback


def address_of(host: str | None) -> str:
    """What counts as one address: an IPv4 address, or the /64 network of an IPv6 address, which one home has whole."""
    address = _address(host or "")
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host or "?" if address is None else str(address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address without its zone; what IPv6 says of an IPv4 client (::ffff:10.0.0.1) is that client's own address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _name_of(host: str) -> str:
    """The name or address of a Host header, without brackets and port; empty for what is neither."""
    found = _HOST.fullmatch(host.lower().strip())
    return (found[1] or found[2]) if found else ""
