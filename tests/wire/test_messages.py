"""Every message of the training protocol: pinned bytes, and the exact reason for every bad envelope."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Refused
from atoll.wire import messages
from atoll.wire.hashing import Domain, keccak
from atoll.wire.identity import AccountKey
from atoll.wire.messages import MESSAGES, Commit, HistoryAsk, Phase, Present, Quorum, Reveal, Signed, seal, unseal
from atoll.wire.reasons import Reason

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "messages.json").read_text())
DOMAIN = Domain(VECTOR["chain_id"], bytes.fromhex(VECTOR["registry"]))
KEY = AccountKey(bytes.fromhex(VECTOR["private"]))
JOB = keccak(b"job")


def sealed(body: messages.Body) -> Signed:
    return seal(DOMAIN, body, KEY.address, KEY.sign_digest)


def refused(raw: bytes, domain: Domain = DOMAIN) -> Reason:
    with pytest.raises(Refused) as caught:
        unseal(domain, raw)
    return caught.value.reason


@pytest.mark.parametrize("name", VECTOR["messages"])
def test_vectors(name: str) -> None:
    vector = VECTOR["messages"][name]
    raw = bytes.fromhex(vector["envelope"])
    signed = unseal(DOMAIN, raw)
    assert type(signed.body).__name__ == name
    assert signed.account.hex() == VECTOR["account"]
    assert (signed.body.job, signed.body.round) == (JOB, 300)
    assert msgspec.msgpack.encode(signed.body).hex() == vector["body"]
    assert sealed(signed.body).raw == raw


def test_vectors_hold_every_message() -> None:
    numbers = {vector["number"]: name for name, vector in VECTOR["messages"].items()}
    assert numbers == {number: kind.__name__ for number, (kind, _) in MESSAGES.items()}
    assert sorted(numbers) == list(range(1, 14))


def test_fields_are_where_the_vectors_say() -> None:
    signed = unseal(DOMAIN, bytes.fromhex(VECTOR["messages"]["Quorum"]["envelope"]))
    assert isinstance(signed.body, Quorum)
    assert (signed.body.view, signed.body.phase, signed.body.payload) == (0, Phase.CERTIFY, bytes(300))
    assert [len(signature) for signature in signed.body.signatures] == [65, 65]


@pytest.mark.parametrize("domain", [Domain(1, DOMAIN.registry), Domain(DOMAIN.chain_id, bytes(20))])
def test_a_message_for_another_network_has_another_sender(domain: Domain) -> None:
    raw = sealed(Present(JOB, 0)).raw
    assert unseal(DOMAIN, raw).account == KEY.address
    assert unseal(domain, raw).account != KEY.address  # and is refused as from an account that nobody knows


def test_a_changed_body_or_number_has_another_sender() -> None:
    number, body, signature = msgspec.msgpack.decode(sealed(Commit(JOB, 4, bytes(32), bytes(32))).raw)
    changed = msgspec.msgpack.encode((number, body[:-1] + b"\1", signature))
    relabelled = msgspec.msgpack.encode((2, body, signature))
    assert all(unseal(DOMAIN, raw).account != KEY.address for raw in (changed, relabelled))


def _envelope(number: object, body: object, signature: object = bytes(64) + b"\x1b") -> bytes:
    return msgspec.msgpack.encode((number, body, signature))


def test_what_is_no_envelope_is_malformed() -> None:
    good = sealed(Present(JOB, 0)).raw
    for raw in (
        b"",
        b"\xc1",
        good[:-1],
        good + b"\0",
        msgspec.msgpack.encode([1, b""]),
        _envelope("1", b""),
        b"\x93" * 9,
    ):
        assert refused(raw) is Reason.MALFORMED, raw


def test_numbers_without_a_message() -> None:
    assert refused(_envelope(0, b"")) is Reason.UNKNOWN_MESSAGE
    assert refused(_envelope(14, b"")) is Reason.UNKNOWN_MESSAGE
    assert refused(_envelope(-1, b"")) is Reason.UNKNOWN_MESSAGE


def test_size_limits() -> None:
    assert refused(bytes((4096 << 10) + 1)) is Reason.TOO_LARGE
    assert refused(_envelope(1, bytes(1024))) is Reason.TOO_LARGE  # a commit has 1 KiB
    assert refused(_envelope(3, bytes(16 << 10))) is Reason.TOO_LARGE
    assert refused(_envelope(8, bytes(2048 << 10))) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "fields",
    [
        [JOB, 0],  # missing fields
        [JOB, 0, bytes(32), bytes(32), 7],  # one too many
        [JOB[:31], 0, bytes(32), bytes(32)],  # a short hash
        [JOB, -1, bytes(32), bytes(32)],
        [JOB, 1 << 32, bytes(32), bytes(32)],
        [JOB, 0.0, bytes(32), bytes(32)],
        ["job", 0, bytes(32), bytes(32)],
        {"job": JOB},
    ],
)
def test_bodies_that_break_the_schema(fields: object) -> None:
    assert refused(_envelope(1, msgspec.msgpack.encode(fields))) is Reason.MALFORMED


def test_limits_inside_bodies() -> None:
    def reveal(states: int) -> bytes:
        return sealed(Reveal(JOB, 0, bytes(32), (bytes(32),) * states, bytes(32), bytes(32))).raw

    unseal(DOMAIN, reveal(256))
    assert refused(reveal(0)) is Reason.MALFORMED
    assert refused(reveal(257)) is Reason.MALFORMED
    assert refused(_envelope(12, msgspec.msgpack.encode([JOB, 0, 5]))) is Reason.MALFORMED  # there are five phases


def test_signatures_that_are_none() -> None:
    body = msgspec.msgpack.encode(Present(JOB, 0))
    for bad in (bytes(65), bytes(64) + b"\x1b", b"\xff" * 64 + b"\x1c"):
        assert refused(_envelope(11, body, bad)) is Reason.BAD_SIGNATURE
    assert refused(_envelope(11, body, bytes(64))) is Reason.MALFORMED


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_always_refused(raw: bytes) -> None:
    with pytest.raises(Refused):
        unseal(DOMAIN, raw)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255))
def test_a_flipped_byte_never_passes_as_the_sender(position: int, value: int) -> None:
    raw = bytearray(sealed(HistoryAsk(JOB, 9, Phase.OPEN)).raw)
    position %= len(raw)
    changed = raw[position] != value
    raw[position] = value
    try:
        account = unseal(DOMAIN, bytes(raw)).account
    except Refused:
        return
    assert (account != KEY.address) == changed
