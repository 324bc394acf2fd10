from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.errors import Corrupt, Refused
from atoll.transfer import messages
from atoll.transfer.blobs import BlobStore
from atoll.transfer.messages import CHUNK_BYTES, Chunk, GetBlob, GetSamples, HasBlob, ProvenSample
from atoll.transfer.service import Samples, TransferService
from atoll.wire.merkle import MerkleTree
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Request, decode_body, decode_response, encode_body

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "storage.json").read_text())["messages"]["transfer"]
LEAVES = [bytes([number]) * 50 for number in range(9)]
TREE = MerkleTree(LEAVES)


def samples(root: bytes, indices: Sequence[int]) -> list[tuple[bytes, list[bytes]]]:
    if root != TREE.root or max(indices) >= len(LEAVES):
        raise Refused(Reason.NOT_FOUND, "no such sample")
    return [(LEAVES[index], TREE.prove(index)) for index in indices]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path, 10 << 20, sync=False)


def ask(blobs: BlobStore, message: Request, source: Samples = samples) -> bytes:
    return decode_response(TransferService(blobs, source).handle(encode_body(message)))


def refused(blobs: BlobStore, message: Request) -> Reason:
    with pytest.raises(Refused) as refusal:
        ask(blobs, message)
    return Reason(refusal.value.reason)


@pytest.mark.parametrize("name", VECTORS)
def test_golden_messages(name: str) -> None:
    def value_of(field: object) -> object:
        if isinstance(field, list):
            return tuple(value_of(part) for part in field)
        return bytes.fromhex(field) if isinstance(field, str) else field

    message = getattr(messages, name)
    value = message(*(value_of(field) for field in VECTORS[name]["fields"]))
    assert encode_body(value).hex() == VECTORS[name]["encoded"]
    assert decode_body(message, bytes.fromhex(VECTORS[name]["encoded"])) == value


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 5, b"01234"), (4, 3, b"456"), (8, 100, b"89"), (10, 1, b""), (1 << 40, 1, b"")],
)
def test_parts_of_a_blob(blobs: BlobStore, offset: int, length: int, expected: bytes) -> None:
    blob = blobs.put(b"0123456789")
    assert decode_body(Chunk, ask(blobs, GetBlob(blob, offset, length))) == Chunk(10, expected)


def test_a_chunk_has_a_mebibyte_at_most(blobs: BlobStore) -> None:
    blob = blobs.put(bytes(CHUNK_BYTES + 1))
    assert len(decode_body(Chunk, ask(blobs, GetBlob(blob, 0, CHUNK_BYTES))).data) == CHUNK_BYTES
    assert refused(blobs, GetBlob(blob, 0, CHUNK_BYTES + 1)) == Reason.MALFORMED


def test_which_blobs_are_here(blobs: BlobStore) -> None:
    blob = blobs.put(b"x")
    assert decode_body(list[bool], ask(blobs, HasBlob((bytes(32), blob)))) == [False, True]


@pytest.mark.parametrize(
    "message",
    [
        GetBlob(bytes(31), 0, 1),
        GetBlob(bytes(32), -1, 1),
        GetBlob(bytes(32), 0, 0),
        GetBlob(bytes(32), (1 << 40) + 1, 1),
        HasBlob((bytes(32),) * 1025),
        GetSamples(bytes(32), ()),
        GetSamples(bytes(32), (0,) * 1025),
        GetSamples(bytes(32), (-1,)),
        GetSamples(bytes(32), (1 << 32,)),
    ],
)
def test_fields_outside_their_limits(blobs: BlobStore, message: Request) -> None:
    assert refused(blobs, message) == Reason.MALFORMED


def test_unknown_blobs_and_data_sets(blobs: BlobStore) -> None:
    assert refused(blobs, GetBlob(bytes(32), 0, 1)) == Reason.NOT_FOUND
    assert refused(blobs, GetSamples(bytes(32), (0,))) == Reason.NOT_FOUND
    with pytest.raises(Refused) as refusal:
        decode_response(TransferService(blobs).handle(encode_body(GetSamples(TREE.root, (3,)))))
    assert refusal.value.reason == Reason.NOT_FOUND
    assert f"sample 3 of data set 0x{TREE.root.hex()}" in refusal.value.detail


def test_samples_come_with_proofs(blobs: BlobStore) -> None:
    answer = decode_body(list[ProvenSample], ask(blobs, GetSamples(TREE.root, (8, 0))))
    assert answer == [ProvenSample(LEAVES[index], tuple(TREE.prove(index))) for index in (8, 0)]


def test_samples_beyond_the_limit_of_a_response_are_refused(blobs: BlobStore) -> None:
    def large(root: bytes, indices: Sequence[int]) -> list[tuple[bytes, list[bytes]]]:
        return [(bytes(1 << 20), []) for _ in indices]

    fits = TransferService(blobs, large).handle(encode_body(GetSamples(TREE.root, tuple(range(7)))))
    assert len(fits) <= messages.MAX_RESPONSE_BYTES
    with pytest.raises(Refused, match="ask for fewer") as refusal:
        ask(blobs, GetSamples(TREE.root, tuple(range(8))), large)
    assert refusal.value.reason == Reason.TOO_LARGE


def test_damage_is_told_to_the_owner_and_hidden_from_the_peer(blobs: BlobStore) -> None:
    blob = blobs.put(b"hello")
    blobs.path(blob).write_bytes(b"hellO")
    heard: list[Corrupt] = []
    response = TransferService(blobs, samples, heard.append).handle(encode_body(GetBlob(blob, 0, 5)))
    with pytest.raises(Refused, match="the blob was damaged") as refusal:
        decode_response(response)
    assert refusal.value.reason == Reason.NOT_FOUND
    assert len(heard) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda rest: b"\x94\x01" + rest)))
def test_any_payload_gets_a_response(blobs: BlobStore, payload: bytes) -> None:
    with pytest.raises(Refused):
        decode_response(TransferService(blobs, samples).handle(payload))
