"""The transport between real processes on this machine: limits, wrong keys and versions, killed peers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import iroh.iroh_ffi as glue
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from atoll.errors import BadInput, PortInUse, Refused, Unreachable
from atoll.node import copyfix
from atoll.node.transport import Limits, PeerAddress, Transport
from atoll.wire.reasons import Reason

ECHO, MAKE, HANG, FAIL, NO = (f"/atoll/{name}/1".encode() for name in ("echo", "make", "hang", "fail", "no"))
LOCAL = "127.0.0.1:0"
PEER = Path(__file__).with_name("peer_process.py")


class Peer:
    """A started peer process and where it can be reached."""

    def __init__(self, seed: int) -> None:
        self.process = subprocess.Popen([sys.executable, str(PEER), str(seed)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        endpoint_id, addresses = json.loads(self.process.stdout.readline())
        self.address = PeerAddress(bytes.fromhex(endpoint_id), tuple(addresses))

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[[int], Peer]]:
    peers: list[Peer] = []

    def begin(seed: int) -> Peer:
        peers.append(Peer(seed))
        return peers[-1]

    yield begin
    for peer in peers:
        peer.kill()


def run(work: Callable[[Transport], Coroutine[Any, Any, None]], limits: Limits | None = None) -> None:
    """Run `work` with a transport that asks; it is closed at the end."""

    async def inside() -> None:
        transport = await Transport.start(bytes([99] * 32), LOCAL, {}, limits)
        try:
            await work(transport)
        finally:
            await transport.close()

    asyncio.run(inside())


def test_the_copy_is_fixed_and_copies_right() -> None:
    assert copyfix.apply()
    assert copyfix.apply()  # a second time changes nothing
    data = os.urandom(20 << 20)
    started = time.process_time()
    assert copyfix._built(glue._UniffiRustBufferBuilder, data) == len(data).to_bytes(4, "big") + data
    assert time.process_time() - started < 1.0  # the slow copy takes 5 s of CPU for 20 MB
    for empty in (b"", bytearray(), memoryview(b"")):
        assert copyfix._built(glue._UniffiRustBufferBuilder, empty) == bytes(4)
    assert copyfix._built(glue._UniffiRustBufferBuilder, memoryview(b"xyz")) == b"\0\0\0\x03xyz"


def test_five_megabytes_there_and_back_and_counted(start: Callable[[int], Peer]) -> None:
    peer = start(1)
    assert peer.address.endpoint_id == Ed25519PrivateKey.from_private_bytes(b"\1" * 32).public_key().public_bytes_raw()

    async def work(transport: Transport) -> None:
        data = os.urandom(5_000_000)
        assert await transport.request(peer.address, ECHO, data) == data
        assert await transport.request(peer.address, ECHO, b"") == b""
        made = await transport.request(peer.address, MAKE, b"300")
        assert made == bytes(i % 251 for i in range(300))
        assert (transport.total.up, transport.total.down) == (5_000_003, 5_000_300)
        assert transport.traffic()[peer.address.endpoint_id] == transport.total

    run(work)


def test_two_hundred_requests_at_once(start: Callable[[int], Peer]) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        payloads = [i.to_bytes(4, "big") * (1 + i) for i in range(200)]
        answers = await asyncio.gather(*(transport.request(peer.address, ECHO, p) for p in payloads))
        assert answers == payloads

    run(work)


@pytest.mark.parametrize("size", [(1 << 20) + 1, 20 << 20])
def test_an_oversized_request_is_refused_and_the_connection_stays(start: Callable[[int], Peer], size: int) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        with pytest.raises(Refused) as refused:
            await transport.request(peer.address, MAKE, b"1" * size)
        assert refused.value.reason == Reason.TOO_LARGE
        assert len(await transport.request(peer.address, MAKE, b"17")) == 17

    run(work)


def test_an_oversized_answer_is_not_read(start: Callable[[int], Peer]) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        with pytest.raises(Refused) as refused:
            await transport.request(peer.address, MAKE, b"1001", limit=1000)
        assert refused.value.reason == Reason.TOO_LARGE
        assert len(await transport.request(peer.address, MAKE, b"1000", limit=1000)) == 1000

    run(work)


def test_handlers_that_fail_or_refuse_cost_one_stream(start: Callable[[int], Peer]) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        with pytest.raises(Unreachable, match="gave up on the request"):
            await transport.request(peer.address, FAIL, b"")
        with pytest.raises(Refused) as refused:
            await transport.request(peer.address, NO, b"")
        assert refused.value.reason == Reason.PAUSED
        assert await transport.request(peer.address, ECHO, b"still here") == b"still here"

    run(work)


def test_another_version_is_refused(start: Callable[[int], Peer]) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        with pytest.raises(Refused, match="/atoll/echo/2") as refused:
            await transport.request(peer.address, b"/atoll/echo/2", b"")
        assert refused.value.reason == Reason.BAD_VERSION

    run(work)


def test_another_key_at_the_address_is_not_talked_to(start: Callable[[int], Peer]) -> None:
    peer = start(1)
    absent = Ed25519PrivateKey.from_private_bytes(b"\2" * 32).public_key().public_bytes_raw()

    async def work(transport: Transport) -> None:
        with pytest.raises(Unreachable, match="Another key answers"):
            await transport.request(PeerAddress(absent, peer.address.addresses), ECHO, b"secret")

    run(work)


def test_nobody_listens() -> None:
    nobody = PeerAddress(Ed25519PrivateKey.from_private_bytes(b"\2" * 32).public_key().public_bytes_raw(), ())
    port_nine = PeerAddress(nobody.endpoint_id, ("127.0.0.1:9",))

    async def work(transport: Transport) -> None:
        started = time.monotonic()
        with pytest.raises(Unreachable, match="no known address"):
            await transport.request(nobody, ECHO, b"")
        # Twenty requests share one attempt: all fail within its time, not twenty times it.
        outcomes = await asyncio.gather(
            *(transport.request(port_nine, ECHO, b"") for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(outcome, Unreachable) for outcome in outcomes)
        assert time.monotonic() - started < 8
        with pytest.raises(Unreachable):
            await transport.request(PeerAddress(b"\xff" * 32, ("127.0.0.1:9",)), ECHO, b"")  # not a point of the curve

    run(work, Limits(connect_seconds=1.0))


def test_a_slow_answer_times_out_and_a_slow_peer_is_not_taken_for_dead(start: Callable[[int], Peer]) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        with pytest.raises(Unreachable, match=r"within 2\.5 s"):  # five times the silence allowed
            await transport.request(peer.address, HANG, b"", timeout=2.5)
        assert await transport.request(peer.address, ECHO, b"x") == b"x"

    run(work, Limits(silence_seconds=0.5))


def test_a_killed_peer_is_noticed_and_found_again_on_another_port(start: Callable[[int], Peer]) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        waiting = asyncio.create_task(transport.request(peer.address, HANG, b"", timeout=60))
        assert await transport.request(peer.address, ECHO, b"before") == b"before"
        peer.kill()
        started = time.monotonic()
        with pytest.raises(Unreachable):
            await transport.request(peer.address, ECHO, b"into the void", timeout=60)
        with pytest.raises(Unreachable):
            await waiting
        assert time.monotonic() - started < 15  # QUIC alone would wait for 30 s; usual here: 2 s
        again = start(1)
        assert again.address.endpoint_id == peer.address.endpoint_id
        assert again.address.addresses != peer.address.addresses
        assert await transport.request(again.address, ECHO, b"after") == b"after"

    run(work, Limits(silence_seconds=2.0))


def test_a_restarted_peer_answers_at_once_when_its_new_address_is_given(start: Callable[[int], Peer]) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        assert await transport.request(peer.address, ECHO, b"before") == b"before"
        peer.kill()
        again = start(1)
        assert await transport.request(again.address, ECHO, b"after", timeout=4) == b"after"

    run(work, Limits(silence_seconds=60.0))


def test_a_suspended_peer_is_unreachable(start: Callable[[int], Peer]) -> None:
    peer = start(1)

    async def work(transport: Transport) -> None:
        assert await transport.request(peer.address, ECHO, b"awake") == b"awake"
        peer.process.send_signal(signal.SIGSTOP)
        with pytest.raises(Unreachable):
            await transport.request(peer.address, ECHO, b"asleep", timeout=60)
        peer.process.send_signal(signal.SIGCONT)
        assert await transport.request(peer.address, ECHO, b"awake again") == b"awake again"

    run(work, Limits(silence_seconds=1.0))


def test_limits_on_handlers_and_connections_hold() -> None:
    gate, most, now = asyncio.Event(), 0, 0

    async def count(_peer: bytes, _payload: bytes) -> bytes:
        nonlocal most, now
        now, most = now + 1, max(most, now + 1)
        if most == 3:
            gate.set()
        await gate.wait()
        now -= 1
        return b"done"

    async def work(transport: Transport) -> None:
        limits = Limits(handlers=3, handlers_per_peer=8, connections_per_peer=1)
        server = await Transport.start(b"\5" * 32, LOCAL, {ECHO: count, MAKE: count}, limits)
        address = PeerAddress(server.endpoint_id, server.addresses())
        answers = await asyncio.gather(*(transport.request(address, ECHO, b"") for _ in range(30)))
        assert answers == [b"done"] * 30
        assert most == 3
        with pytest.raises(Unreachable, match="too many connections"):
            await transport.request(address, MAKE, b"")
        await server.close()

    run(work)


def test_closing_lets_running_requests_end_and_frees_the_port() -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow(_peer: bytes, payload: bytes) -> bytes:
        entered.set()
        await gate.wait()
        return payload * 1000

    async def work(transport: Transport) -> None:
        server = await Transport.start(b"\5" * 32, LOCAL, {ECHO: slow})
        address = PeerAddress(server.endpoint_id, server.addresses())
        asked = asyncio.create_task(transport.request(address, ECHO, b"0123456789"))
        await entered.wait()
        closing = asyncio.create_task(server.close())
        gate.set()
        assert await asked == b"0123456789" * 1000
        await closing
        await server.close()
        with pytest.raises(Unreachable):
            await server.request(address, ECHO, b"")
        with pytest.raises(Unreachable):
            await transport.request(address, ECHO, b"", timeout=2)
        reborn = await Transport.start(b"\5" * 32, address.addresses[0], {ECHO: slow})
        assert await transport.request(address, ECHO, b"1") == b"1" * 1000
        await reborn.close()

    run(work)


def test_links_beyond_the_limit_are_closed_oldest_first() -> None:
    async def echo(_peer: bytes, payload: bytes) -> bytes:
        return payload

    async def work(transport: Transport) -> None:
        servers = [await Transport.start(bytes([5 + i] * 32), LOCAL, {ECHO: echo}) for i in range(3)]
        for server in servers:
            assert await transport.request(PeerAddress(server.endpoint_id, server.addresses()), ECHO, b"x") == b"x"
        assert [key[0] for key in transport._links] == [server.endpoint_id for server in servers[1:]]
        for server in servers:
            await server.close()

    run(work, Limits(links=2))


def test_addresses_and_listening_errors() -> None:
    async def work() -> None:
        first = await Transport.start(b"\1" * 32, LOCAL, {})
        (address,) = first.addresses()
        assert address.startswith("127.0.0.1:")
        with pytest.raises(PortInUse, match=address):
            await Transport.start(b"\2" * 32, address, {})
        for wrong in ("192.0.2.77:0", "nowhere", "127.0.0.1:99999"):
            with pytest.raises(BadInput, match="expected ip:port"):
                await Transport.start(b"\2" * 32, wrong, {})
        everywhere = await Transport.start(b"\3" * 32, "0.0.0.0:0", {})
        port = everywhere.addresses()[-1].rpartition(":")[2]
        assert everywhere.addresses()[-1] == f"127.0.0.1:{port}"
        assert all(a.endswith(f":{port}") and not a.startswith("0.") for a in everywhere.addresses())
        await first.close()
        await everywhere.close()

    asyncio.run(work())
