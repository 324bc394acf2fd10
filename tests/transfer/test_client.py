from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Refused, Unreachable
from atoll.transfer.blobs import BlobStore
from atoll.transfer.client import fetch_blob, fetch_samples, has_blobs
from atoll.transfer.messages import ALPN, CHUNK_BYTES, Chunk, GetBlob, GetSamples, ProvenSample
from atoll.transfer.service import TransferService
from atoll.wire.hashing import blob_id
from atoll.wire.merkle import MerkleTree
from atoll.wire.reasons import Reason
from atoll.wire.rpc import decode_body, encode_body, encode_ok, encode_refusal

LARGE = random.Random(1).randbytes(6 * CHUNK_BYTES + 321)
LIMIT = 10 * CHUNK_BYTES
A, B, C = (bytes([number]) * 20 for number in (1, 2, 3))

Peer = Callable[[bytes], bytes]
"""Request bytes -> response bytes, or Unreachable."""


def honest(content: bytes) -> Peer:
    return sender(content, len(content))


def sender(content: bytes, size: int) -> Peer:
    """Sends parts of `content`, and says that it has `size` bytes."""

    def answer(payload: bytes) -> bytes:
        request = decode_body(GetBlob, payload)
        return encode_ok(encode_body(Chunk(size, content[request.offset : request.offset + request.length])))

    return answer


def until(offset: int, peer: Peer, response: bytes | None = None) -> Peer:
    """Like `peer` below `offset`, and from there no answer, or always `response`."""

    def answer(payload: bytes) -> bytes:
        if decode_body(GetBlob, payload).offset < offset:
            return peer(payload)
        if response is None:
            raise Unreachable("no answer")
        return response

    return answer


def gone(_: bytes) -> bytes:
    raise Unreachable("no answer")


def missing(_: bytes) -> bytes:
    return encode_refusal(Reason.NOT_FOUND, "not here")


class Network:
    """Peers in one process, and what they were asked."""

    def __init__(self, **peers: Peer) -> None:
        self.peers = {account: peers[name] for name, account in (("a", A), ("b", B), ("c", C)) if name in peers}
        self.asked: list[tuple[bytes, int]] = []

    async def request(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        assert alpn == ALPN
        self.asked.append((account, decode_body(GetBlob, payload).offset // CHUNK_BYTES))
        return self.peers[account](payload)

    def fetch(self, content: bytes, limit: int = LIMIT) -> bytes:
        return asyncio.run(fetch_blob(blob_id(content), list(self.peers), self.request, limit))

    def refusal(self, content: bytes, limit: int = LIMIT) -> Refused:
        with pytest.raises(Refused) as refusal:
            self.fetch(content, limit)
        return refusal.value


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(LARGE)])
def test_a_blob_comes_in_chunks(size: int) -> None:
    network = Network(a=honest(LARGE[:size]))
    assert network.fetch(LARGE[:size]) == LARGE[:size]
    assert network.asked == [(A, chunk) for chunk in range(max(1, -(-size // CHUNK_BYTES)))]


def test_a_real_service_answers(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, LIMIT, sync=False)
    blob = blobs.put(LARGE)
    network = Network(a=TransferService(blobs).handle)
    assert network.fetch(LARGE) == LARGE

    async def request(account: bytes, alpn: bytes, payload: bytes) -> bytes:
        return TransferService(blobs).handle(payload)

    assert asyncio.run(has_blobs([bytes(32), blob], A, request)) == [False, True]


def test_sources_are_tried_in_order() -> None:
    network = Network(a=gone, b=missing, c=honest(b"hello"))
    assert network.fetch(b"hello") == b"hello"
    assert [account for account, _ in network.asked] == [A, B, C]


def test_another_source_continues_where_one_stopped() -> None:
    network = Network(a=until(3 * CHUNK_BYTES, honest(LARGE)), b=honest(LARGE))
    assert network.fetch(LARGE) == LARGE
    assert [chunk for account, chunk in network.asked if account == B] == [3, 4, 5, 6]


def test_a_source_that_lies_is_replaced() -> None:
    lie = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    network = Network(a=honest(lie), b=honest(LARGE))
    assert network.fetch(LARGE) == LARGE
    assert network.asked.count((A, 0)) == network.asked.count((B, 0)) == 1


def test_an_honest_source_after_a_lying_beginning_is_asked_for_all() -> None:
    lie = b"x" + LARGE[1:]
    network = Network(a=until(2 * CHUNK_BYTES, honest(lie)), b=honest(LARGE))
    assert network.fetch(LARGE) == LARGE


def test_a_lying_end_costs_one_more_source() -> None:
    lie = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    network = Network(a=until(2 * CHUNK_BYTES, honest(LARGE)), b=honest(lie), c=honest(LARGE))
    assert network.fetch(LARGE) == LARGE


def test_a_false_size_does_not_stop_the_next_source() -> None:
    for size in (len(LARGE) - 5, len(LARGE) + 5):
        network = Network(a=until(CHUNK_BYTES, sender(LARGE, size)), b=honest(LARGE))
        assert network.fetch(LARGE) == LARGE


def test_a_size_that_changes_is_refused() -> None:
    grown = encode_ok(encode_body(Chunk(len(LARGE) + 1, LARGE[CHUNK_BYTES : 2 * CHUNK_BYTES])))
    assert Network(a=until(CHUNK_BYTES, honest(LARGE), grown)).refusal(LARGE).reason == Reason.MALFORMED


@pytest.mark.parametrize(
    "response",
    [
        encode_ok(encode_body(Chunk(100, b""))),
        encode_ok(encode_body(Chunk(100, b"x" * 101))),
        encode_ok(encode_body(Chunk(0, b"x"))),
        encode_ok(encode_body([-1, b""])),
        encode_ok(encode_body([5])),
        encode_ok(b""),
        b"",
    ],
)
def test_odd_chunks_are_refused(response: bytes) -> None:
    assert Network(a=lambda _: response).refusal(b"x" * 100).reason == Reason.MALFORMED


def test_the_limit_is_exact() -> None:
    network = Network(a=honest(b"hello"))
    assert network.fetch(b"hello", 5) == b"hello"
    refusal = network.refusal(b"hello", 4)
    assert refusal.reason == Reason.TOO_LARGE and "5 bytes, the limit is 4" in refusal.detail


def test_a_false_size_above_the_limit_does_not_stop_the_next_source() -> None:
    assert Network(a=sender(b"hello", 1 << 40), b=honest(b"hello")).fetch(b"hello") == b"hello"


def test_a_reason_that_all_share_is_kept() -> None:
    assert Network(a=missing, b=missing).refusal(b"hello").reason == Reason.NOT_FOUND
    assert Network(a=honest(b"hellO"), b=honest(b"Hello")).refusal(b"hello").reason == Reason.WRONG_HASH


def test_different_failures_are_told_together() -> None:
    with pytest.raises(Unreachable) as error:
        Network(a=gone, b=missing, c=honest(b"other")).fetch(b"hello")
    for part in ("no answer", "NOT_FOUND: not here", "WRONG_HASH", C.hex(), "Start more nodes"):
        assert part in str(error.value)


def test_nobody_to_ask() -> None:
    with pytest.raises(Unreachable, match="there is no node to ask"):
        Network().fetch(b"hello")


def test_a_failure_leaves_nothing_running() -> None:
    network = Network(a=until(CHUNK_BYTES, honest(LARGE)))

    async def fetch_and_count() -> int:
        with pytest.raises(Unreachable):
            await fetch_blob(blob_id(LARGE), [A], network.request, LIMIT)
        return len(asyncio.all_tasks())

    assert asyncio.run(fetch_and_count()) == 1


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_one_honest_source_after_any_others_is_enough(data: st.DataObject) -> None:
    """Whatever comes before: dead, cut off, lying in content or in size."""
    content = LARGE[: 2 * CHUNK_BYTES + 7]
    others = st.one_of(
        st.just(gone),
        st.just(missing),
        st.builds(
            lambda cut, at, size: until(cut * CHUNK_BYTES, sender(content[:at] + b"?" + content[at + 1 :], size)),
            st.integers(0, 4), st.integers(0, len(content) - 1), st.sampled_from([len(content), 5, CHUNK_BYTES * 3]),
        ),
        st.builds(lambda cut: until(cut * CHUNK_BYTES, honest(content)), st.integers(0, 4)),
    )  # fmt: skip
    network = Network(a=data.draw(others), b=data.draw(others), c=honest(content))
    assert network.fetch(content) == content


# Samples.
LEAVES = [random.Random(number).randbytes(788) for number in range(1500)]
TREE = MerkleTree(LEAVES)


class DataSets:
    """Peers that serve samples; `asked` lists how many at once."""

    def __init__(self, **peers: Callable[[Sequence[int]], bytes]) -> None:
        self.peers = {account: peers[name] for name, account in (("a", A), ("b", B)) if name in peers}
        self.asked: list[tuple[bytes, int]] = []

    async def request(self, account: bytes, alpn: bytes, payload: bytes) -> bytes:
        request = decode_body(GetSamples, payload)
        assert request.root == TREE.root
        self.asked.append((account, len(request.indices)))
        return self.peers[account](request.indices)

    def fetch(self, indices: Sequence[int]) -> list[bytes]:
        return asyncio.run(fetch_samples(TREE.root, len(LEAVES), indices, list(self.peers), self.request))


def proven(indices: Sequence[int]) -> list[ProvenSample]:
    return [ProvenSample(LEAVES[index], tuple(TREE.prove(index))) for index in indices]


def served(indices: Sequence[int]) -> bytes:
    return encode_ok(encode_body(proven(indices)))


def test_samples_come_in_the_order_asked_for() -> None:
    indices = [7, 1499, 0, 7]
    assert DataSets(a=served).fetch(indices) == [LEAVES[index] for index in indices]
    assert DataSets(a=served).fetch([]) == []


def test_many_samples_come_in_batches() -> None:
    sets = DataSets(a=served)
    assert sets.fetch(range(1500)) == LEAVES
    assert sets.asked == [(A, 1024), (A, 476)]


def test_batches_shrink_when_they_are_too_large() -> None:
    def up_to_300(indices: Sequence[int]) -> bytes:
        return served(indices) if len(indices) <= 300 else encode_refusal(Reason.TOO_LARGE)

    sets = DataSets(a=up_to_300)
    assert sets.fetch(range(1000)) == LEAVES[:1000]
    assert [count for _, count in sets.asked] == [1000, 500, 250, 250, 250, 250]


def test_samples_that_are_not_proven_come_from_another_source() -> None:
    def swapped(indices: Sequence[int]) -> bytes:
        return encode_ok(encode_body(proven([index ^ 1 for index in indices])))

    def short(indices: Sequence[int]) -> bytes:
        return encode_ok(encode_body(proven(indices[1:])))

    for wrong, reason in ((swapped, Reason.BAD_PROOF), (short, Reason.MALFORMED)):
        assert DataSets(a=wrong, b=served).fetch([4, 5]) == LEAVES[4:6]
        with pytest.raises(Refused) as refusal:
            DataSets(a=wrong).fetch([4, 5])
        assert refusal.value.reason == reason


def test_what_one_source_proved_is_not_fetched_again() -> None:
    def only_once(indices: Sequence[int]) -> bytes:
        return served(indices) if 0 in indices else encode_refusal(Reason.BUSY)

    sets = DataSets(a=only_once, b=served)
    assert sets.fetch(range(1500)) == LEAVES
    assert sets.asked == [(A, 1024), (A, 476), (B, 476)]


def test_one_sample_that_is_too_large_ends_the_asking() -> None:
    with pytest.raises(Refused) as refusal:
        DataSets(a=lambda _: encode_refusal(Reason.TOO_LARGE)).fetch([0, 1, 2])
    assert refusal.value.reason == Reason.TOO_LARGE
