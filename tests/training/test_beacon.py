"""Hash chains and beacons, worked out with a loop of plain keccak."""

from __future__ import annotations

import struct

import pytest
from eth_utils import keccak

from atoll.training.beacon import Draw, belongs, chain_length, combine, first_beacon, link, tip
from atoll.wire.hashing import Domain

DOMAIN = Domain(31337, b"\x11" * 20)
JOB, SEED = keccak(b"job"), keccak(b"seed")
ROUNDS = 5


def hashed(tag: bytes, *parts: bytes) -> bytes:
    return keccak(b"".join(struct.pack(">I", len(part)) + part for part in (tag, *parts)))


def chain() -> list[bytes]:
    """Tip first: the 10 links of 5 rounds are hashed one after another from the seed, and the tip after the last."""
    values = [SEED]
    for _ in range(10):
        values.append(hashed(b"atoll/preimage/1", values[-1]))
    return values[::-1]


def test_links_are_revealed_from_the_tip_backwards() -> None:
    assert chain_length(ROUNDS) == 10
    values = chain()
    assert tip(SEED, ROUNDS) == values[0]
    order = [(number, draw) for number in range(ROUNDS) for draw in (Draw.AUDIT, Draw.ASSIGN)]
    assert [link(SEED, ROUNDS, *place) for place in order] == values[1:]
    assert link(SEED, ROUNDS, 4, Draw.ASSIGN) == SEED


def test_a_link_belongs_to_one_place() -> None:
    order = [(number, draw) for number in range(ROUNDS) for draw in (Draw.AUDIT, Draw.ASSIGN)]
    for number, draw in order:
        value = link(SEED, ROUNDS, number, draw)
        assert [place for place in order if belongs(value, tip(SEED, ROUNDS), *place)] == [(number, draw)]
    assert not belongs(bytes(32), tip(SEED, ROUNDS), 0, Draw.AUDIT)
    assert not belongs(link(SEED, ROUNDS, 0, Draw.AUDIT), tip(JOB, ROUNDS), 0, Draw.AUDIT)


def test_a_beacon_combines_links_in_the_order_of_accounts() -> None:
    links = {b"b" * 20: b"2" * 32, b"a" * 20: b"1" * 32}
    domain = (31337).to_bytes(32, "big") + b"\x11" * 20
    parts = [b"a" * 20 + b"1" * 32, b"b" * 20 + b"2" * 32]
    expected = hashed(b"atoll/beacon/1", domain, JOB, b"\0\0\0\3", b"\1", *parts)
    assert combine(DOMAIN, JOB, 3, Draw.ASSIGN, links) == expected
    assert first_beacon(DOMAIN, JOB, links) == hashed(b"atoll/beacon/1", domain, JOB, b"first", *parts)


@pytest.mark.parametrize(
    "other",
    [
        combine(Domain(1, b"\x11" * 20), JOB, 3, Draw.AUDIT, {b"a" * 20: SEED}),
        combine(Domain(31337, bytes(20)), JOB, 3, Draw.AUDIT, {b"a" * 20: SEED}),
        combine(DOMAIN, SEED, 3, Draw.AUDIT, {b"a" * 20: SEED}),
        combine(DOMAIN, JOB, 4, Draw.AUDIT, {b"a" * 20: SEED}),
        combine(DOMAIN, JOB, 3, Draw.ASSIGN, {b"a" * 20: SEED}),
        combine(DOMAIN, JOB, 3, Draw.AUDIT, {b"b" * 20: SEED}),
        combine(DOMAIN, JOB, 3, Draw.AUDIT, {b"a" * 20: JOB}),
        combine(DOMAIN, JOB, 3, Draw.AUDIT, {}),
        first_beacon(DOMAIN, JOB, {b"a" * 20: SEED}),
    ],
)
def test_a_beacon_binds_everything(other: bytes) -> None:
    assert combine(DOMAIN, JOB, 3, Draw.AUDIT, {b"a" * 20: SEED}) != other
