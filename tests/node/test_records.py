"""What a round's events look like in the journal, and that nothing else is read back."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from atoll.errors import Corrupt
from atoll.node.records import read, write
from atoll.training.events import Aggregated, Event, Examined, Judged, Received, Replayed, Tick, Trained
from atoll.wire.hashing import Domain
from atoll.wire.identity import AccountKey
from atoll.wire.messages import Commit, seal

DOMAIN = Domain(7, b"\x07" * 20)
KEY = AccountKey(b"\x01" * 32)
ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))
MESSAGE = seal(DOMAIN, Commit(ONE, 4, TWO, THREE), KEY.address, KEY.sign_digest)
EVENTS = [
    Received(MESSAGE),
    Trained(ONE, (TWO, THREE), ONE),
    Examined(ONE, 0),
    Examined(ONE, 255),
    Examined(ONE, None),
    Replayed(ONE, 3, bytes(32)),
    Judged(ONE, True),
    Judged(ONE, False),
    Judged(ONE, None),
    Aggregated(ONE, TWO),
    Aggregated(ONE, None),
]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_what_is_written_is_read_back(event: Event) -> None:
    written = write(event)
    assert written is not None
    kind, payload = written
    assert kind == type(event).__name__
    back = read(DOMAIN, kind, payload)
    assert back == event
    assert write(back) == written


def test_every_event_is_covered() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event)) - {Tick}


def test_ticks_leave_no_trace() -> None:
    assert write(Tick()) is None


def test_a_message_is_written_as_it_came() -> None:
    assert write(Received(MESSAGE)) == ("Received", MESSAGE.raw)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("Received", b""),
        ("Received", b"\xc1 junk"),
        ("Received", MESSAGE.raw[:-1]),
        ("Received", msgspec.msgpack.encode((99, b"", bytes(65)))),
        ("Received", msgspec.msgpack.encode((1, b"", bytes(65)))),
        ("Trained", b""),
        ("Trained", b"\xff\xff"),
        ("Trained", MESSAGE.raw),
        ("Trained", msgspec.msgpack.encode({"unit": 5, "states": [], "update": b""})),
        ("Trained", msgspec.msgpack.encode({"unit": b""})),
        ("Trained", b"\x81\xa2\xff\xff\x01"),  # a key that is not UTF-8
        ("Judged", msgspec.msgpack.encode({"key": b"", "guilty": "yes"})),
        ("Tick", b"\x80"),
        ("Send", b"\x80"),
        ("", b""),
    ],
)
def test_junk_is_reported_as_damage_with_the_way_out(kind: str, payload: bytes) -> None:
    with pytest.raises(Corrupt, match="--fresh-journal"):
        read(DOMAIN, kind, payload)


def test_a_damaged_signature_is_damage_too() -> None:
    number, body, signature = msgspec.msgpack.decode(MESSAGE.raw)
    with pytest.raises(Corrupt):
        read(DOMAIN, "Received", msgspec.msgpack.encode((number, body, signature[:-1] + b"\x00")))
