from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.errors import Corrupt, Refused
from atoll.storage import messages
from atoll.storage.layout import MAX_PIECE_BYTES, encode, parse, split
from atoll.storage.messages import GetLayout, GetPiece, HavePieces, PutLayout, PutPiece
from atoll.storage.pieces import PieceStore
from atoll.storage.service import StorageService
from atoll.wire.hashing import blob_id
from atoll.wire.reasons import Reason
from atoll.wire.rpc import Request, decode_body, decode_response, encode_body

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "storage.json").read_text())["messages"]["storage"]
LAYOUT, PIECES = split(b"a blob to store", 2, 3)
LAYOUT = LAYOUT.with_holders(tuple(bytes([number]) * 20 for number in (1, 2, 3)))


@pytest.fixture
def store(tmp_path: Path) -> PieceStore:
    return PieceStore(tmp_path, 10 << 20, sync=False)


def ask(store: PieceStore, message: Request) -> bytes:
    return decode_response(StorageService(store).handle(encode_body(message)))


def refused(store: PieceStore, message: Request) -> Reason:
    with pytest.raises(Refused) as refusal:
        ask(store, message)
    return Reason(refusal.value.reason)


@pytest.mark.parametrize("name", VECTORS)
def test_golden_messages(name: str) -> None:
    def unhex(value: object) -> object:
        if isinstance(value, list):
            return tuple(unhex(part) for part in value)
        return bytes.fromhex(value) if isinstance(value, str) else value

    message = getattr(messages, name)
    value = message(*(unhex(field) for field in VECTORS[name]["fields"]))
    assert encode_body(value).hex() == VECTORS[name]["encoded"]
    assert decode_body(message, bytes.fromhex(VECTORS[name]["encoded"])) == value


def test_a_layout_and_its_pieces_come_and_go(store: PieceStore) -> None:
    assert ask(store, PutLayout(encode(LAYOUT))) == b""
    assert ask(store, PutPiece(LAYOUT.id, 1, PIECES[1])) == b""
    assert ask(store, GetPiece(LAYOUT.pieces[1])) == PIECES[1]
    assert decode_body(list[bool], ask(store, HavePieces(LAYOUT.pieces))) == [False, True, False]
    assert [parse(data) for data in decode_body(list[bytes], ask(store, GetLayout(LAYOUT.blob)))] == [LAYOUT]


def test_pieces_without_a_layout_are_refused(store: PieceStore) -> None:
    assert refused(store, PutPiece(LAYOUT.id, 0, PIECES[0])) == Reason.NOT_FOUND
    assert store.total_bytes == 0


def test_pieces_that_the_layout_does_not_name_are_refused(store: PieceStore) -> None:
    ask(store, PutLayout(encode(LAYOUT)))
    assert refused(store, PutPiece(LAYOUT.id, 0, PIECES[1])) == Reason.WRONG_HASH
    assert refused(store, PutPiece(LAYOUT.id, 3, PIECES[0])) == Reason.MALFORMED


def test_layouts_must_be_sound_and_name_holders(store: PieceStore) -> None:
    assert refused(store, PutLayout(encode(LAYOUT.with_holders(())))) == Reason.MALFORMED
    assert refused(store, PutLayout(encode(LAYOUT)[:-1])) == Reason.MALFORMED
    assert refused(store, PutLayout(encode(msgspec.structs.replace(LAYOUT, schema=9)))) == Reason.BAD_VERSION


def test_what_is_not_there(store: PieceStore) -> None:
    assert refused(store, GetPiece(bytes(32))) == Reason.NOT_FOUND
    assert refused(store, GetLayout(bytes(32))) == Reason.NOT_FOUND


@pytest.mark.parametrize(
    "message",
    [
        GetPiece(bytes(31)),
        GetLayout(bytes(33)),
        PutPiece(LAYOUT.id, -1, b"x"),
        PutPiece(LAYOUT.id, 8192, b"x"),
        PutPiece(LAYOUT.id, 0, b""),
        HavePieces((bytes(32),) * 1025),
        HavePieces((bytes(32), b"")),
    ],
)
def test_fields_outside_their_limits(store: PieceStore, message: Request) -> None:
    assert refused(store, message) == Reason.MALFORMED


def test_the_largest_piece_fits_and_no_larger_one(store: PieceStore) -> None:
    layout, pieces = split(bytes(range(256)) * (MAX_PIECE_BYTES // 256), 1, 1)
    ask(store, PutLayout(encode(layout.with_holders((bytes([1]) * 20,)))))
    assert refused(store, PutPiece(layout.id, 0, pieces[0] + b"x")) == Reason.MALFORMED
    assert refused(store, PutPiece(layout.id, 0, pieces[0] + bytes(5000))) == Reason.TOO_LARGE
    ask(store, PutPiece(layout.id, 0, pieces[0]))
    response = StorageService(store).handle(encode_body(GetPiece(layout.pieces[0])))
    assert len(response) <= messages.MAX_RESPONSE_BYTES


def test_a_full_disk_share_is_a_refusal(tmp_path: Path) -> None:
    store = PieceStore(tmp_path, len(encode(LAYOUT)), sync=False)
    ask(store, PutLayout(encode(LAYOUT)))
    assert refused(store, PutPiece(LAYOUT.id, 0, PIECES[0])) == Reason.BUSY


def test_damage_is_told_to_the_owner_and_hidden_from_the_peer(store: PieceStore) -> None:
    ask(store, PutLayout(encode(LAYOUT)))
    ask(store, PutPiece(LAYOUT.id, 0, PIECES[0]))
    store.path(blob_id(PIECES[0])).write_bytes(b"damage")
    heard: list[Corrupt] = []
    response = StorageService(store, heard.append).handle(encode_body(GetPiece(LAYOUT.pieces[0])))
    with pytest.raises(Refused) as refusal:
        decode_response(response)
    assert refusal.value.reason == Reason.NOT_FOUND
    assert "/" not in refusal.value.detail
    assert len(heard) == 1 and "damaged" in str(heard[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda rest: b"\x94\x02" + rest)))
def test_any_payload_gets_a_response(store: PieceStore, payload: bytes) -> None:
    with pytest.raises(Refused):
        decode_response(StorageService(store).handle(payload))
    assert store.total_bytes == 0
