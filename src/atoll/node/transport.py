"""Requests between nodes over QUIC: one bi-directional stream a request, bytes in and bytes out.

iroh gives the connections: each end is authenticated by its Ed25519 endpoint key, streams are encrypted, and a
protocol is named by an ALPN such as `/atoll/training/1` whose last part is its major version. This file adds what
strangers make necessary: limits on size, number and time, refusals by reason code (a stream is reset with the
number of a `Reason`), quick discovery of dead peers, and counted bytes. What the bytes mean is not its concern.

No relay and no name service is used: peers are reached at the addresses that the caller gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import iroh.iroh_ffi as iroh

from atoll.errors import BadInput, PortInUse, Refused, Unreachable
from atoll.node import copyfix
from atoll.wire.reasons import Reason

log = logging.getLogger(__name__)

Handler = Callable[[bytes, bytes], Awaitable[bytes]]
"""Answers a request: (endpoint id of the peer, request) -> response. It may raise Refused."""

_HANDLER_FAILED = 1_000  # stream code: the peer made a mistake; all other codes are reasons
_GAVE_UP = 1_001  # stream code: the asking side no longer waits
_PEERS_COUNTED = 4_096
_STREAM_CODE = re.compile(r"(?:Reset|Stopped)\((\d+)\)")


@dataclass(frozen=True)
class PeerAddress:
    """How to reach a node: its endpoint id (32 bytes) and the "ip:port" pairs where it may listen."""

    endpoint_id: bytes
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.endpoint_id.hex()[:10]} at {', '.join(self.addresses) or 'no known address'}"


@dataclass(frozen=True)
class Limits:
    """What one node accepts from others. Bytes, seconds, counts."""

    request_bytes: int = 1 << 20
    request_bytes_of: Mapping[bytes, int] = field(default_factory=dict)  # ALPN -> its own limit
    response_bytes: int = 64 << 20  # what `request` reads unless it is told another limit
    window_bytes: int = 16 << 20  # unread bytes that one connection may send us
    handlers: int = 64  # requests served at once, all peers together
    handlers_per_peer: int = 16
    connections: int = 512  # incoming, all peers together
    connections_per_peer: int = 16
    links: int = 256  # connections that we keep open to others
    connect_seconds: float = 5.0
    transfer_seconds: float = 60.0  # for the whole of one request, and of one response, to cross
    silence_seconds: float = 5.0  # without any packet from a peer that owes us an answer
    close_seconds: float = 2.0  # for running requests to end when the transport closes

    def request_limit(self, alpn: bytes) -> int:
        """Bytes that a request on this protocol may have."""
        return self.request_bytes_of.get(alpn, self.request_bytes)


@dataclass
class Traffic:
    """Bytes of requests and responses sent (up) and received (down), without QUIC's own overhead."""

    up: int = 0
    down: int = 0

    def add(self, up: int, down: int) -> None:
        """Count one transfer."""
        self.up += up
        self.down += down


class Transport:
    """The node's one endpoint: serves the protocols that it was given, asks peers, keeps connections.

    Make one with `await Transport.start(...)`; end it with `await transport.close()`. One event loop only.
    """

    def __init__(self, endpoint: iroh.Endpoint, listen: str, handlers: Mapping[bytes, Handler], limits: Limits) -> None:
        self.endpoint_id = bytes(endpoint.id().to_bytes())
        self.total = Traffic()
        self._endpoint = endpoint
        self._listen = listen
        self._handlers = dict(handlers)
        self._limits = limits
        self._by_peer: OrderedDict[bytes, Traffic] = OrderedDict()
        self._links: OrderedDict[tuple[bytes, bytes], _Link] = OrderedDict()
        self._incoming: set[iroh.Connection] = set()
        self._incoming_of: Counter[bytes] = Counter()
        self._slots = asyncio.Semaphore(limits.handlers)
        self._slots_of: dict[bytes, asyncio.Semaphore] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: set[asyncio.Task[None]] = set()
        self._closing = False
        self._spawn(self._accept(), self._tasks)

    @classmethod
    async def start(
        cls, endpoint_key: bytes, listen: str, handlers: Mapping[bytes, Handler], limits: Limits | None = None
    ) -> Transport:
        """Bind `listen` ("ip:port"; port 0 takes a free one) with the 32-byte Ed25519 key and serve `handlers`.

        Raises PortInUse, or BadInput for an address that this device does not have.
        """
        copyfix.apply()
        options = iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            bind_addr=listen,
            secret_key=endpoint_key,
            relay_mode=iroh.RelayMode.disabled(),
            alpns=list(handlers),
        )
        try:
            endpoint = await iroh.Endpoint.bind(options)
        except iroh.IrohError as error:
            text = error.message()
            if "in use" in text or "os error 98" in text or "os error 48" in text or "os error 10048" in text:
                raise PortInUse(
                    f"Another program uses UDP port {listen}: choose another with `listen`, or port 0 for a free one."
                ) from error
            raise BadInput(
                f"Cannot listen on {listen!r}: expected ip:port of this device ({_last_line(error)})."
            ) from error
        return cls(endpoint, listen, handlers, limits or Limits())

    def addresses(self) -> tuple[str, ...]:
        """The "ip:port" pairs under which this device can be reached, to be told to peers.

        For a wildcard address these are the device's own addresses, the loopback last. None after `close`.
        """
        if self._closing:
            return ()
        host = self._listen.rpartition(":")[0]
        bound = [a for a in self._endpoint.bound_sockets() if a.startswith("[") == host.startswith("[")]
        if host not in ("0.0.0.0", "[::]"):  # noqa: S104 (compared, not bound)
            return tuple(a for a in bound if a.rpartition(":")[0] == host)
        direct = sorted(a for a in self._endpoint.addr().direct_addresses() if not a.startswith(("127.", "[::1]")))
        loopback = "[::1]" if host == "[::]" else "127.0.0.1"
        return tuple(direct) + tuple(f"{loopback}:{a.rpartition(':')[2]}" for a in bound)

    def traffic(self) -> dict[bytes, Traffic]:
        """Bytes by endpoint id, for the peers met last (4,096 at most); `total` counts all."""
        return dict(self._by_peer)

    async def request(
        self, peer: PeerAddress, alpn: bytes, payload: bytes, *, timeout: float = 30.0, limit: int | None = None
    ) -> bytes:
        """Ask a peer and return its answer.

        timeout: seconds for everything, connecting included. limit: bytes of the answer (else the limits' own).
        Raises Unreachable if there is no answer in time, and Refused with the peer's reason: TOO_LARGE, BUSY,
        BAD_VERSION for a protocol that it does not speak, or what its handler raised. A request that was sent is
        never sent again by itself: whether that is harmless, only the caller knows.
        """
        if self._closing:
            raise Unreachable(f"No answer from {peer}: this node is closing.")
        link = self._link(peer, alpn)
        try:
            async with asyncio.timeout(timeout):
                answer = await link.ask(payload, self._limits.response_bytes if limit is None else limit)
        except TimeoutError as error:
            raise Unreachable(f"No answer from {peer} within {timeout:g} s.") from error
        self._count(peer.endpoint_id, len(payload), len(answer))
        return answer

    async def close(self) -> None:
        """Stop serving, give running requests a moment to end, close every connection. Safe to call twice."""
        if self._closing:
            return
        self._closing = True
        if self._requests:
            await asyncio.wait(self._requests, timeout=self._limits.close_seconds)
        for link in self._links.values():
            link.close(b"closing")
        for connection in self._incoming:
            _close_quietly(connection, 0, b"closing")
        with contextlib.suppress(TimeoutError):  # iroh waits for peers that will never say goodbye
            async with asyncio.timeout(self._limits.close_seconds):
                await self._endpoint.close()
        for task in (running := [*self._tasks, *self._requests]):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._links.clear()
        self._incoming.clear()
        self._endpoint = None  # iroh frees the port when the last reference is gone, not when it is closed

    def _link(self, peer: PeerAddress, alpn: bytes) -> _Link:
        key = (peer.endpoint_id, alpn)
        link = self._links.get(key)
        if link is None or not link.serves(peer):
            # The old connection, if any, ends by itself when its last request has been answered.
            link = self._links[key] = _Link(self._endpoint, peer, alpn, self._limits)
            idle = [key for key, other in self._links.items() if other.waiting == 0 and other is not link]
            if idle and len(self._links) > self._limits.links:
                self._links.pop(idle[0]).close(b"idle")
        self._links.move_to_end(key)
        return link

    def _count(self, peer: bytes, up: int, down: int) -> None:
        self.total.add(up, down)
        self._by_peer.setdefault(peer, Traffic()).add(up, down)
        self._by_peer.move_to_end(peer)
        if len(self._by_peer) > _PEERS_COUNTED:
            self._by_peer.popitem(last=False)

    def _spawn(self, work: Coroutine[Any, Any, None], group: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        group.add(task)
        task.add_done_callback(group.discard)

    async def _accept(self) -> None:
        while (incoming := await self._endpoint.accept_next()) is not None:
            if self._closing or len(self._incoming) >= self._limits.connections:
                await incoming.refuse()
            else:
                self._spawn(self._serve(incoming), self._tasks)

    async def _serve(self, incoming: iroh.Incoming) -> None:
        """One incoming connection, from its handshake to its end."""
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                connection = await (await incoming.accept()).connect()
        except (iroh.IrohError, TimeoutError) as error:
            log.debug("handshake failed: %s", _last_line(error))
            return
        peer, alpn = bytes(connection.remote_id().to_bytes()), bytes(connection.alpn())
        if self._incoming_of[peer] >= self._limits.connections_per_peer:
            _close_quietly(connection, Reason.BUSY, b"too many connections")
            return
        self._incoming.add(connection)
        self._incoming_of[peer] += 1
        slots = self._slots_of.setdefault(peer, asyncio.Semaphore(self._limits.handlers_per_peer))
        try:
            connection.set_max_concurrent_uni_streams(0)
            # More streams than handlers: a stream counts until its last acknowledgement, which may come 25 ms late.
            connection.set_max_concurrent_bi_streams(4 * self._limits.handlers_per_peer)
            connection.set_receive_window(self._limits.window_bytes)
            while True:
                stream = await connection.accept_bi()
                self._spawn(self._answer(peer, alpn, stream, slots), self._requests)
        except iroh.IrohError as error:
            log.debug("connection of %s ended: %s", peer.hex()[:10], _last_line(error))
        finally:
            self._incoming.discard(connection)
            self._incoming_of[peer] -= 1
            if not self._incoming_of[peer]:
                del self._incoming_of[peer]
                self._slots_of.pop(peer, None)

    async def _answer(self, peer: bytes, alpn: bytes, stream: iroh.BiStream, slots: asyncio.Semaphore) -> None:
        """One request. Whatever goes wrong ends this stream, and nothing else."""
        send, receive = stream.send(), stream.recv()
        code = _HANDLER_FAILED
        try:
            async with slots, self._slots:
                async with asyncio.timeout(self._limits.transfer_seconds):
                    payload = bytes(await receive.read_to_end(self._limits.request_limit(alpn)))
                answer = await self._handlers[alpn](peer, payload)
                async with asyncio.timeout(self._limits.transfer_seconds):
                    await send.write_all(answer)
                    await send.finish()
            self._count(peer, len(answer), len(payload))
            async with asyncio.timeout(self._limits.transfer_seconds):
                await send.stopped()  # the peer has it all, which `close` waits for; it may take a delayed ack (25 ms)
            return
        except Refused as error:
            code = error.reason
        except TimeoutError:
            log.debug("a transfer with %s took too long", peer.hex()[:10])
            code = Reason.BUSY
        except iroh.IrohError as error:
            code = Reason.TOO_LARGE if "TooLong" in error.message() else _GAVE_UP
            log.debug("stream of %s ended: %s", peer.hex()[:10], _last_line(error))
        except asyncio.CancelledError:
            await asyncio.shield(_abandon(stream, code))  # merely dropped, a stream would end like a complete answer
            raise
        except Exception:  # a handler's mistake must cost one stream, not the node
            log.exception("the handler of %s failed on a request of %s", alpn.decode(errors="replace"), peer.hex())
        await _abandon(stream, code)


class _Link:
    """The connection to one peer on one protocol, made when needed and made again when it broke."""

    def __init__(self, endpoint: iroh.Endpoint, peer: PeerAddress, alpn: bytes, limits: Limits) -> None:
        self.waiting = 0  # requests under way
        self._endpoint = endpoint
        self._peer = peer
        self._alpn = alpn
        self._limits = limits
        self._connecting: asyncio.Task[_Watched] | None = None

    def serves(self, peer: PeerAddress) -> bool:
        """Whether this connection is one to an address that the caller knows (a node may have moved to a new port)."""
        return not peer.addresses or not set(self._peer.addresses).isdisjoint(peer.addresses)

    async def ask(self, payload: bytes, limit: int) -> bytes:
        """One request; raises Unreachable or Refused. The caller sets the time limit."""
        self.waiting += 1
        stream = None
        try:
            with (await self._connected()).waiting() as connection:
                stream = await connection.open_bi()
                await stream.send().write_all(payload)
                await stream.send().finish()
                return bytes(await stream.recv().read_to_end(limit))
        except iroh.IrohError as error:
            if stream is not None:
                await _abandon(stream, _GAVE_UP)
            raise self._explained(error, limit) from error
        except asyncio.CancelledError:
            if stream is not None:
                await asyncio.shield(_abandon(stream, _GAVE_UP))
            raise
        finally:
            self.waiting -= 1

    def close(self, reason: bytes) -> None:
        """End the connection now; a later request makes a new one."""
        task, self._connecting = self._connecting, None
        if task is None:
            return
        if not task.done():
            task.cancel()
        elif not task.cancelled() and task.exception() is None:
            task.result().close(reason)

    async def _connected(self) -> _Watched:
        """The open connection; requests that come while it is being made share one attempt and its outcome."""
        task = self._connecting
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result().closed())):
            task = self._connecting = asyncio.create_task(self._connect())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting for it
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Unreachable(f"No answer from {self._peer}: this node is closing.") from None
            raise

    async def _connect(self) -> _Watched:
        try:
            address = iroh.EndpointAddr(
                iroh.EndpointId.from_bytes(self._peer.endpoint_id), None, list(self._peer.addresses)
            )
            async with asyncio.timeout(self._limits.connect_seconds):
                connection = await self._endpoint.connect(address, self._alpn)
        except TimeoutError as error:
            raise Unreachable(f"Nobody answers as {self._peer} ({self._limits.connect_seconds:g} s).") from error
        except iroh.IrohError as error:
            raise self._not_connected(error) from error
        connection.set_max_concurrent_bi_streams(0)  # a peer that we ask has nothing to ask us on this connection
        connection.set_max_concurrent_uni_streams(0)
        return _Watched(connection, self._limits.silence_seconds)

    def _not_connected(self, error: iroh.IrohError) -> Unreachable | Refused:
        text = error.message()
        if "known protocol" in text:
            return Refused(Reason.BAD_VERSION, f"{self._peer} does not speak {self._alpn.decode(errors='replace')}")
        if "No address lookup" in text:
            return Unreachable(f"Cannot connect to {self._peer}.")
        if "invalid peer certificate" in text:
            return Unreachable(f"Another key answers in place of {self._peer}: the address belongs to another node.")
        return Unreachable(f"Cannot connect to {self._peer}: {_last_line(error)}.")

    def _explained(self, error: iroh.IrohError, limit: int) -> Unreachable | Refused:
        """The error of a stream as a sentence; a reset stream carries its reason as its code."""
        text = error.message()
        if "TooLong" in text:
            return Refused(Reason.TOO_LARGE, f"the answer of {self._peer} is longer than {limit} bytes")
        found = _STREAM_CODE.search(text)
        if found is None:
            return Unreachable(f"The connection to {self._peer} broke: {_last_line(error)}.")
        try:
            return Refused(Reason(int(found[1])), f"by {self._peer}")
        except ValueError:
            return Unreachable(f"{self._peer} gave up on the request (stream code {found[1]}).")


class _Watched:
    """A connection that is closed when the peer's machine no longer acknowledges packets while it owes us an answer.

    QUIC itself would take 30 s. Each look sends a datagram that a living peer's QUIC stack acknowledges, however
    busy its program is; unanswered looks are counted, not seconds, so a stall of our own loop accuses nobody.
    """

    _LOOKS = 10

    def __init__(self, connection: iroh.Connection, silence: float) -> None:
        self._connection = connection
        self._silence = silence
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    def closed(self) -> bool:
        """Whether either side has ended the connection."""
        return self._connection.close_reason() is not None

    def close(self, reason: bytes) -> None:
        """End the connection; whoever waits on one of its streams is told."""
        _close_quietly(self._connection, 0, reason)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[iroh.Connection]:
        """The connection, watched for as long as somebody is inside."""
        self._count += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield self._connection
        finally:
            self._count -= 1
            if not self._count:
                self._task.cancel()
                self._task = None

    async def _look(self) -> None:
        heard, misses = -1, 0
        while misses < self._LOOKS:
            await asyncio.sleep(self._silence / self._LOOKS)
            received = self._connection.stats().udp_rx_datagrams
            misses = 0 if received != heard else misses + 1
            heard = received
            try:
                self._connection.send_datagram(b"")
            except iroh.IrohError:
                return  # closed: whoever waits on a stream has already been told
        self.close(b"silent")


async def _abandon(stream: iroh.BiStream, code: int) -> None:
    """End both directions of a stream with a code; a stream or connection that is already closed is fine."""
    for end in (stream.send().reset, stream.recv().stop):
        with contextlib.suppress(iroh.IrohError):
            await end(int(code))


def _close_quietly(connection: iroh.Connection, code: int, reason: bytes) -> None:
    with contextlib.suppress(iroh.IrohError):
        connection.close(int(code), reason)


def _last_line(error: BaseException) -> str:
    """What iroh says at the end of its chain of causes (`str()` of its errors is empty)."""
    text = error.message() if isinstance(error, iroh.IrohError) else str(error) or type(error).__name__
    return str(text).strip().splitlines()[-1].strip() if str(text).strip() else type(error).__name__
