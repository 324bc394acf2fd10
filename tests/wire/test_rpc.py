from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.wire import rpc
from atoll.wire.reasons import Reason

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "storage.json").read_text())


class Echo(rpc.Request, frozen=True, tag=7):
    """Answers with its text."""

    text: bytes


class Count(rpc.Request, frozen=True, tag=8):
    """Refuses above a hundred."""

    number: int


def count(request: Count) -> bytes:
    if request.number > 100:
        raise Refused(Reason.BUSY, "a hundred is enough")
    return rpc.encode_body(request.number + 1)


TABLE = rpc.handlers((Echo, lambda request: bytes(request.text)), (Count, count))


def ask(payload: bytes, max_bytes: int = 1000) -> bytes:
    return rpc.decode_response(rpc.dispatch(TABLE, payload, max_bytes))


def refusal_of(payload: bytes, max_bytes: int = 1000) -> Refused:
    with pytest.raises(Refused) as refusal:
        ask(payload, max_bytes)
    return refusal.value


def test_a_request_finds_its_handler() -> None:
    assert ask(rpc.encode_body(Echo(b"hello"))) == b"hello"
    assert rpc.decode_body(int, ask(rpc.encode_body(Count(41)))) == 42


def test_golden_responses() -> None:
    ok, refusal = VECTORS["responses"]["ok"], VECTORS["responses"]["refusal"]
    assert rpc.encode_ok(bytes.fromhex(ok["body"])).hex() == ok["encoded"]
    assert rpc.encode_refusal(refusal["reason"], refusal["detail"]).hex() == refusal["encoded"]


def test_a_handlers_refusal_reaches_the_asker() -> None:
    refusal = refusal_of(rpc.encode_body(Count(101)))
    assert refusal.reason is Reason.BUSY
    assert refusal.detail == "a hundred is enough"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"\x07", Reason.MALFORMED),
        (b"\x91", Reason.MALFORMED),
        (b"\x91\x07", Reason.MALFORMED),  # a field is missing
        (b"\x92\x07\xc4", Reason.MALFORMED),  # truncated
        (b"\x92\x07\x05", Reason.MALFORMED),  # a number for bytes
        (b"\x93\x07\xc4\x00\xc0", Reason.MALFORMED),  # a field too many
        (b"\x92\x07\xc4\x00\x00", Reason.MALFORMED),  # bytes behind the array
        (b"\x92\xa1x\xc4\x00", Reason.MALFORMED),  # a name for the number
        (b"\xdd\x00\x0f\x42\x40" + bytes(100), Reason.MALFORMED),  # a million elements, announced
        (b"\x92\x09\xc4\x00", Reason.UNKNOWN_MESSAGE),
        (b"\x91\x00", Reason.UNKNOWN_MESSAGE),
        (b"\x92\x07" + b"\x91" * 900, Reason.MALFORMED),
    ],
)
def test_what_is_no_request_is_refused(payload: bytes, reason: Reason) -> None:
    assert refusal_of(payload).reason is reason


def test_the_limit_is_exact() -> None:
    payload = rpc.encode_body(Echo(b"12345"))
    assert ask(payload, len(payload)) == b"12345"
    assert refusal_of(payload, len(payload) - 1).reason is Reason.TOO_LARGE


def test_our_own_mistakes_are_not_hidden() -> None:
    def broken(_: Echo) -> bytes:
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        rpc.dispatch(rpc.handlers((Echo, broken)), rpc.encode_body(Echo(b"")), 100)


def test_a_number_is_needed() -> None:
    class Unnumbered(rpc.Request, frozen=True):
        pass

    with pytest.raises(TypeError, match="expected tag"):
        rpc.handlers((Unnumbered, bytes))


@pytest.mark.parametrize(
    "response",
    [b"", b"\xc0", b"\x91\x00", b"\x92\x00\x01", b"\x92\x00\xa1x", b"\x92\x0a\xc4\x00", b"\x92\xff\xa1x", b"\x92\x0a",
     b"\x92\xce\x00\x01\x00\x00\xa1x", b"\x93\x00\xc4\x00\x00", b"\x92\x0a\xa1\xff"],
)  # fmt: skip
def test_what_is_no_response_is_refused(response: bytes) -> None:
    with pytest.raises(Refused) as refusal:
        rpc.decode_response(response)
    assert refusal.value.reason is Reason.MALFORMED


def test_a_reason_of_a_newer_peer_is_kept() -> None:
    with pytest.raises(Refused, match="60000: new") as refusal:
        rpc.decode_response(rpc.encode_refusal(60000, "new"))
    assert refusal.value.reason == 60000


def test_a_peers_sentence_cannot_drive_the_terminal() -> None:
    with pytest.raises(Refused) as refusal:
        rpc.decode_response(msgspec.msgpack.encode((10, "a\x1b[2Jb\nc" + "d" * 9000)))
    assert refusal.value.detail == "a [2Jb c" + "d" * (rpc.MAX_DETAIL - 8)


@pytest.mark.parametrize("reason", [0, -1, 65536])
def test_a_refusal_has_a_reason(reason: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.65535"):
        rpc.encode_refusal(reason)


@given(st.binary(max_size=200))
def test_dispatch_answers_anything(payload: bytes) -> None:
    try:
        ask(payload)
    except Refused as refusal:
        assert refusal.reason in (Reason.MALFORMED, Reason.UNKNOWN_MESSAGE, Reason.BUSY)


@given(st.binary(max_size=200))
def test_bodies_travel_unchanged(body: bytes) -> None:
    assert rpc.decode_response(rpc.encode_ok(body)) == body
