"""Messages to a peer travel together, within limits, and a lost batch does not stop what comes after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from atoll.errors import Refused, Unreachable
from atoll.node.courier import BATCH_MESSAGES, WAITING_BYTES, WAITING_MESSAGES, Courier, receive
from atoll.wire import messages, rpc
from atoll.wire.reasons import Reason

A, B = b"\x01" * 20, b"\x02" * 20
TAKEN = rpc.encode_ok(msgspec.msgpack.encode([]))


class Peers:
    """Peers that write down what they get. They answer while `open` is set; those in `shut` never do."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.requests: asyncio.Queue[tuple[bytes, list[bytes]]] = asyncio.Queue()
        self.open = asyncio.Event()
        self.open.set()
        self.shut: set[bytes] = set()
        self.answers = list(answers)

    async def ask(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        assert alpn == b"/atoll/training/1"
        self.requests.put_nowait((account, msgspec.msgpack.decode(payload)))
        await (asyncio.Event() if account in self.shut else self.open).wait()
        answer = self.answers.pop(0) if self.answers else TAKEN
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def next(self) -> list[bytes]:
        return (await asyncio.wait_for(self.requests.get(), 10))[1]


def play(scene: Callable[[Peers, Courier], Awaitable[None]], *answers: bytes | Exception) -> None:
    async def stage() -> None:
        peers = Peers(*answers)
        courier = Courier(peers.ask)
        try:
            await scene(peers, courier)
        finally:
            await courier.close()
        assert peers.requests.empty()

    asyncio.run(stage())


def test_what_waits_travels_in_one_request() -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        for raw in (b"one", b"two", b"one", b"three"):
            courier.send(A, raw)
        assert await peers.next() == [b"one", b"two", b"three"]  # in order, the repetition left out

    play(scene)


def test_what_comes_during_a_request_waits_for_the_next() -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        peers.open.clear()
        courier.send(A, b"one")
        assert await peers.next() == [b"one"]
        for raw in (b"two", b"one", b"three"):
            courier.send(A, raw)
        peers.open.set()
        assert await peers.next() == [b"two", b"one", b"three"]  # what is on its way may be said again

    play(scene)


def test_a_message_after_a_pause_is_sent() -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        courier.send(A, b"one")
        assert await peers.next() == [b"one"]
        while len(asyncio.all_tasks()) > 1:  # until the delivery has ended
            await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
        courier.send(A, b"two")
        assert await peers.next() == [b"two"]

    play(scene)


def test_a_request_holds_so_many_messages() -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        sent = [number.to_bytes(2, "big") for number in range(2 * BATCH_MESSAGES + 1)]
        for raw in sent:
            courier.send(A, raw)
        assert [await peers.next() for _ in range(3)] == [sent[:64], sent[64:128], sent[128:]]

    play(scene)


def test_a_request_holds_so_many_bytes() -> None:
    half = messages.LARGEST // 2
    sent = [bytes([1]) * half, bytes([2]) * half, bytes([3]), bytes([4]) * messages.LARGEST, bytes([5])]

    async def scene(peers: Peers, courier: Courier) -> None:
        for raw in sent:
            courier.send(A, raw)
        sizes = [[len(raw) for raw in await peers.next()] for _ in range(4)]
        assert sizes == [[half, half], [1], [2 * half], [1]]

    play(scene)


def test_a_message_that_is_too_large_is_not_sent() -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        courier.send(A, bytes(messages.LARGEST + 1))
        courier.send(A, b"small")
        assert await peers.next() == [b"small"]

    play(scene)


def test_the_oldest_of_too_many_messages_are_dropped() -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        peers.open.clear()
        courier.send(A, b"first")
        await peers.next()
        sent = [number.to_bytes(2, "big") for number in range(WAITING_MESSAGES + 3)]
        for raw in sent:
            courier.send(A, raw)
        peers.open.set()
        got = [raw for _ in range(WAITING_MESSAGES // BATCH_MESSAGES) for raw in await peers.next()]
        assert got == sent[3:]

    play(scene)


def test_the_oldest_of_too_many_bytes_are_dropped() -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        peers.open.clear()
        courier.send(A, b"first")
        await peers.next()
        kept = WAITING_BYTES // messages.LARGEST
        for number in range(kept + 2):
            courier.send(A, bytes([number]) * messages.LARGEST)
        peers.open.set()
        assert [(await peers.next())[0][0] for _ in range(kept)] == [2, 3, 4, 5]

    play(scene)


@pytest.mark.parametrize(
    "answer",
    [
        Unreachable("no answer"),
        rpc.encode_refusal(Reason.BUSY, "later"),
        b"\xc1",
        rpc.encode_ok(b"junk"),
    ],
    ids=["unreachable", "refused", "no response", "no list"],
)
def test_a_lost_batch_does_not_stop_later_ones(answer: bytes | Exception) -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        peers.open.clear()
        courier.send(A, b"lost")
        assert await peers.next() == [b"lost"]
        courier.send(A, b"found")
        peers.open.set()
        assert await peers.next() == [b"found"]  # and what was lost does not come again

    play(scene, answer)


def test_a_peer_that_hangs_does_not_hold_up_others() -> None:
    async def scene(peers: Peers, courier: Courier) -> None:
        peers.shut.add(A)
        courier.send(A, b"to a")
        courier.send(B, b"to b")
        assert await peers.requests.get() == (A, [b"to a"])
        assert await peers.requests.get() == (B, [b"to b"])
        courier.send(A, b"more")
        courier.send(B, b"more")
        assert await asyncio.wait_for(peers.requests.get(), 10) == (B, [b"more"])

    play(scene)


def test_nothing_is_delivered_after_closing() -> None:
    async def stage() -> None:
        peers = Peers()
        courier = Courier(peers.ask)
        courier.send(A, b"one")
        await courier.close()
        assert peers.requests.empty()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(stage())


# The receiving side
def refusals(response: bytes) -> list[list[object]]:
    found: list[list[object]] = msgspec.msgpack.decode(rpc.decode_response(response))
    return found


def test_every_envelope_is_taken_in_order() -> None:
    taken: list[bytes] = []
    response = receive(msgspec.msgpack.encode([b"one", b"two", b"one"]), taken.append)
    assert taken == [b"one", b"two", b"one"]
    assert response == TAKEN
    assert receive(b"\x90", taken.append) == TAKEN
    assert len(taken) == 3


def test_refusals_are_listed_and_the_rest_is_taken() -> None:
    taken: list[bytes] = []

    def take(raw: bytes) -> None:
        if raw.startswith(b"bad"):
            raise Refused(Reason.STALE, raw.decode() * 100)
        taken.append(raw)

    response = receive(msgspec.msgpack.encode([b"bad1", b"good", b"bad2"]), take)
    assert taken == [b"good"]
    assert refusals(response) == [[9, "bad1" * 50], [9, "bad2" * 50]]  # a sentence of 200 characters at most


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode("text"),
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode([b"good", 5]),
        msgspec.msgpack.encode([b"good", "text"]),
        msgspec.msgpack.encode([b"good", b"more"])[:-1],
        b"\x91\xa2\xff\xff",  # text that is not UTF-8
        msgspec.msgpack.encode([bytes([number]) for number in range(BATCH_MESSAGES + 1)]),
    ],
)
def test_a_batch_of_another_form_is_refused_as_a_whole(payload: bytes) -> None:
    taken: list[bytes] = []
    with pytest.raises(Refused) as caught:
        rpc.decode_response(receive(payload, taken.append))
    assert caught.value.reason == Reason.MALFORMED
    assert taken == []


def test_the_largest_batch_is_taken() -> None:
    taken: list[bytes] = []
    receive(msgspec.msgpack.encode([bytes([number]) for number in range(BATCH_MESSAGES)]), taken.append)
    assert len(taken) == 64


def test_an_error_of_ours_is_not_hidden() -> None:
    def take(_: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        receive(msgspec.msgpack.encode([b"one"]), take)
